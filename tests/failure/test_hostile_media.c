/* 200 damaged files and the usual tricks: nothing takes the program down, everything gets a name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/rng.h"
#include "data/check.h"
#include "data/index.h"
#include "data/loader.h"
#include "data_config.h"
#include "media/worker.h"
#include "media_files.h"

enum { DAMAGED = 200 };

static const struct {
    const char *extension, *format, *codec;
} KINDS[] = {{"mp4", "mp4", NULL},
             {"mkv", "matroska", NULL},
             {"webm", "webm", NULL},
             {"avi", "avi", "mpeg4"},
             {"mov", "mov", "mpeg4"}};
enum { KIND_COUNT = sizeof KINDS / sizeof *KINDS };

static xkd_context *cx;
static char folder[4096];
static char *good[KIND_COUNT]; /* NULL: this FFmpeg cannot write it */
static int64_t good_size[KIND_COUNT];

/* One of eight kinds of damage to `bytes`, in place; returns the new size. */
static int64_t damage(int how, char *bytes, int64_t size, xkd_rng *rng)
{
    int64_t at = xkd_rng_below(rng, size), count;
    switch (how) {
    case 0: /* one bit in the header */
        bytes[xkd_rng_below(rng, 512)] ^= (char)(1 << xkd_rng_below(rng, 8));
        return size;
    case 1: /* bits all over */
        for (int i = 0; i < 200; i++) bytes[xkd_rng_below(rng, size)] ^= (char)(1 << xkd_rng_below(rng, 8));
        return size;
    case 2: /* cut off behind */ return at;
    case 3: /* header cut away */
        count = 16 + xkd_rng_below(rng, size / 4);
        memmove(bytes, bytes + count, (size_t)(size - count));
        return size - count;
    case 4: /* nothing left */ return 0;
    case 5: /* a block of zeros */
        count = at + 4096 < size ? 4096 : size - at;
        memset(bytes + at, 0, (size_t)count);
        return size;
    case 6: /* a block of ones: lengths become huge */
        at %= 4096;
        memset(bytes + at, 0xff, 64);
        return size;
    default: /* random words in the header */
        for (int i = 0; i < 16; i++) bytes[xkd_rng_below(rng, 2048)] = (char)xkd_rng_u32(rng);
        return size;
    }
}

static int make_damaged(void)
{
    int made = 0;
    for (int i = 0; made < DAMAGED && i < 10 * DAMAGED; i++) {
        int kind = i % KIND_COUNT, how = i / KIND_COUNT % 8;
        char path[5000], *copy = NULL;
        if (!good[kind]) continue;
        xkd_rng rng = xkd_rng_make(11, 0, (uint32_t)i, 0, XKD_RNG_TEST);
        if (xkd_alloc(cx, &copy, good_size[kind], 1) != XKD_OK) return made;
        memcpy(copy, good[kind], (size_t)good_size[kind]);
        int64_t size = damage(how, copy, good_size[kind], &rng);
        /* Every seventh has the wrong extension as well. */
        snprintf(path, sizeof path, "%s/bad/%03d.%s", folder, made,
                 KINDS[i % 7 ? kind : (kind + 1) % KIND_COUNT].extension);
        made += xkd_write_file(cx, path, copy, size) == XKD_OK;
        xkd_free(copy);
    }
    return made;
}

static void damaged_files_are_classified(void **state)
{
    char path[5000];
    xkd_manifest manifest;
    xkd_finding *findings = NULL;
    xkd_data_config data = small_data_config(folder);
    xkd_check_options options = {.decode = true, .threads = 2};
    int64_t count[XKD_FAULT_COUNT] = {0}, skipped;
    (void)state;
    assert_int_equal(make_damaged(), DAMAGED);
    snprintf(path, sizeof path, "%s/bad", folder);
    data.decode_seconds = 10;
    assert_int_equal(xkd_index_folder(cx, path, false, &manifest, &skipped), XKD_OK);
    assert_int_equal(manifest.count, DAMAGED);
    assert_int_equal(xkd_alloc(cx, &findings, manifest.count, sizeof *findings), XKD_OK);
    assert_int_equal(xkd_check(cx, &manifest, &data, &options, findings), XKD_OK);
    for (int i = 0; i < DAMAGED; i++) {
        assert_in_range(findings[i].fault, 0, XKD_FAULT_COUNT - 1);
        if (findings[i].fault != XKD_FAULT_NONE) assert_true(findings[i].message[0] != 0);
        count[findings[i].fault]++;
    }
    for (int k = 0; k < XKD_FAULT_COUNT; k++)
        if (count[k]) print_message("# %lld %s\n", (long long)count[k], xkd_media_fault_name(k));
    assert_int_equal(count[XKD_FAULT_EMPTY], DAMAGED / 8);
    assert_true(count[XKD_FAULT_NONE] < DAMAGED / 3);
    xkd_free(findings);
    xkd_manifest_free(&manifest);
}

/* Batches go on as long as the budget lasts, then the run ends with a message. */
static void training_data_survive(void **state)
{
    xkd_data_config data = small_data_config(folder);
    xkd_train_config train = {.batch = 8, .accumulate = 1, .seed = 3};
    xkd_loader *loader = NULL;
    const xkd_batch *batch = NULL;
    xkd_loader_statistics stats;
    xkd_status status = XKD_OK;
    (void)state;
    data.workers = 2;
    data.max_bad_fraction = 0.99;
    data.audio_policy = XKD_AUDIO_SILENCE;
    xkd_clear_error(cx);
    assert_int_equal(xkd_loader_new(cx, &data, &train, 0, 1, &loader), XKD_OK);
    for (int i = 0; i < 12 && status == XKD_OK; i++) status = xkd_loader_next(loader, &batch);
    xkd_loader_stats(loader, &stats);
    print_message("# %lld clips, %lld bad, %lld files, status %s\n", (long long)stats.clips, (long long)stats.bad_clips,
                  (long long)stats.bad_files, xkd_status_name(status));
    assert_true(status == XKD_OK || status == XKD_ERR_DATA);
    assert_true(stats.bad_clips > 0);
    xkd_loader_free(loader);
    data.max_bad_fraction = 0.01;
    xkd_clear_error(cx);
    status = XKD_OK;
    assert_int_equal(xkd_loader_new(cx, &data, &train, 0, 1, &loader), XKD_OK);
    for (int i = 0; i < 12 && status == XKD_OK; i++) status = xkd_loader_next(loader, &batch);
    assert_int_equal(status, XKD_ERR_DATA);
    assert_non_null(strstr(xkd_last_error(cx), "data check"));
    xkd_clear_error(cx);
    xkd_loader_free(loader);
}

typedef struct {
    const char *name, *text;
} trick;

static void play_lists_open_nothing(void **state)
{
    static const trick TRICKS[] = {
        {"hls.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\ngood.mp4\n#EXT-X-ENDLIST\n"},
        {"hls.mkv", "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"},
        {"ff.mp4", "ffconcat version 1.0\nfile good.mp4\n"},
        {"sdp.mp4", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"},
        {"dash.mp4",
         "<?xml version=\"1.0\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\"><Period/></MPD>\n"},
        {"meta.mp4", ";FFMETADATA1\ntitle=x\n"},
        {"subs.mp4", "1\n00:00:01,000 --> 00:00:02,000\nHello\n"},
        {"ppm.mp4", "P6\n2 2\n255\nabcdefghijkl"},
        {"svg.mp4", "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"/>"},
    };
    char path[5000];
    (void)state;
    for (size_t i = 0; i < sizeof TRICKS / sizeof *TRICKS; i++) {
        xkd_media *media = NULL;
        xkd_media_fault fault;
        snprintf(path, sizeof path, "%s/%s", folder, TRICKS[i].name);
        assert_int_equal(xkd_write_file(cx, path, TRICKS[i].text, (int64_t)strlen(TRICKS[i].text)), XKD_OK);
        xkd_clear_error(cx);
        assert_int_equal(xkd_media_open(cx, path, &media, &fault), XKD_ERR_DATA);
        assert_true(fault == XKD_FAULT_REFUSED || fault == XKD_FAULT_NOT_MEDIA);
        unlink(path);
    }
    xkd_clear_error(cx);
}

static void names_are_only_names(void **state)
{
    static const char *const NAMES[] = {"concat:a.mp4|b.mp4",
                                        "subfile,,start,0,end,9,,:a.mp4",
                                        "http://localhost/a.mp4",
                                        "file:a.mp4",
                                        "pipe:0",
                                        "data:video/mp4;base64,AAAA",
                                        "crypto:a.mp4",
                                        "lavfi:testsrc",
                                        "cache:a.mp4",
                                        "%d.mp4",
                                        "a.mp4?x=y"};
    (void)state;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        xkd_manifest m = {0};
        xkd_sample *s = NULL;
        xkd_source source;
        xkd_media_fault fault;
        xkd_clear_error(cx);
        assert_int_equal(xkd_copy_string(cx, &m.root, folder), XKD_OK);
        assert_int_equal(xkd_manifest_add(cx, &m, NAMES[i], &s), XKD_OK);
        assert_int_not_equal(xkd_manifest_open(cx, &m, s, false, &source, &fault), XKD_OK);
        assert_int_equal(fault, XKD_FAULT_MISSING);
        xkd_manifest_free(&m);
    }
    xkd_clear_error(cx);
}

static void links_stay_inside(void **state)
{
    char path[5000];
    xkd_manifest m = {0};
    xkd_sample *s = NULL;
    xkd_source source;
    xkd_media_fault fault;
    (void)state;
    snprintf(path, sizeof path, "%s/out.mp4", folder);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    snprintf(path, sizeof path, "%s/in.mp4", folder);
    assert_int_equal(symlink("good.mp4", path), 0);
    assert_int_equal(xkd_copy_string(cx, &m.root, folder), XKD_OK);
    assert_int_equal(xkd_manifest_add(cx, &m, "out.mp4", &s), XKD_OK);
    assert_int_not_equal(xkd_manifest_open(cx, &m, s, false, &source, &fault), XKD_OK);
    assert_int_equal(fault, XKD_FAULT_REFUSED);
    xkd_clear_error(cx);
    assert_int_equal(xkd_manifest_open(cx, &m, s, true, &source, &fault), XKD_OK);
    close(source.fd);
    assert_int_equal(xkd_manifest_add(cx, &m, "in.mp4", &s), XKD_OK);
    assert_int_equal(xkd_manifest_open(cx, &m, s, false, &source, &fault), XKD_OK);
    close(source.fd);
    xkd_manifest_free(&m);
    unlink(path);
    snprintf(path, sizeof path, "%s/out.mp4", folder);
    unlink(path);
}

static int make_good(void)
{
    char path[5000];
    for (int k = 0; k < KIND_COUNT; k++) {
        test_file file = test_file_default();
        file.encode.format = KINDS[k].format;
        file.encode.video_codec = KINDS[k].codec;
        file.encode.width = 64;
        file.encode.height = 48;
        file.seconds = 2.5;
        snprintf(path, sizeof path, "%s/good%s%s", folder, k ? "-as." : ".", KINDS[k].extension);
        if (make_test_file(cx, path, &file) != XKD_OK) continue;
        if (xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &good[k], &good_size[k]) != XKD_OK) return -1;
    }
    xkd_clear_error(cx);
    return good[0] ? 0 : -1;
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(play_lists_open_nothing), cmocka_unit_test(names_are_only_names),
        cmocka_unit_test(links_stay_inside),       cmocka_unit_test(damaged_files_are_classified),
        cmocka_unit_test(training_data_survive),
    };
    char path[5000];
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("hostile"));
    snprintf(path, sizeof path, "%s/bad", folder);
    if (xkd_make_folder(cx, path) != XKD_OK || make_good() != 0) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int k = 0; k < KIND_COUNT; k++) xkd_free(good[k]);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
