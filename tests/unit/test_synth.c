/* The synthetic data set: real files, the same from the same seed, with sound at the events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/check.h"
#include "data/index.h"
#include "data/stats.h"
#include "data/synth.h"
#include "data_config.h"
#include "media/worker.h"
#include "media_files.h"

static xkd_context *cx;
static char folder[4096];

static xkd_synth_options small(const char *name)
{
    static char path[5000];
    xkd_synth_options o = xkd_synth_defaults();
    snprintf(path, sizeof path, "%s/%s", folder, name);
    o.out = path;
    o.classes = 3;
    o.clips = 4;
    o.seconds = 3;
    o.width = 80;
    o.height = 60;
    o.seed = 5;
    o.threads = 2;
    return o;
}

static void made_files_are_in_order(void **state)
{
    xkd_manifest m;
    xkd_data_stats stats;
    xkd_finding findings[12];
    xkd_data_config data = small_data_config(folder);
    xkd_check_options options = {.decode = true, .hash = XKD_HASH_FULL, .threads = 2};
    (void)state;
    xkd_synth_options o = small("a");
    assert_int_equal(xkd_synth(cx, &o, NULL, NULL), XKD_OK);
    assert_int_equal(xkd_manifest_load(cx, o.out, false, &m), XKD_OK);
    assert_int_equal(m.count, 12);
    assert_int_equal(m.class_count, 3);
    assert_int_equal(xkd_check(cx, &m, &data, &options, findings), XKD_OK);
    for (int i = 0; i < 12; i++) {
        assert_string_equal(xkd_media_fault_name(findings[i].fault), "ok");
        assert_true(fabs(m.samples[i].video_seconds - 3) < 0.1 && fabs(m.samples[i].audio_seconds - 3) < 0.1);
        for (int k = 0; k < i; k++) {
            char a[33], b[33];
            assert_string_not_equal(xkd_sample_hash(&m.samples[i], a), xkd_sample_hash(&m.samples[k], b));
        }
    }
    assert_int_equal(xkd_stats(cx, &m, &data, 12, &stats), XKD_OK);
    assert_int_equal(stats.with_audio, 12);
    assert_int_equal(stats.mel_files, 12);
    assert_true(stats.mel_mean > -12 && stats.mel_mean < 2 && stats.mel_std > 0.5);
    xkd_manifest_keep_split(&m, "test");
    assert_int_equal(m.count, 3);
    xkd_manifest_free(&m);
}

static void a_seed_names_its_files(void **state)
{
    static const char *const NAMES[] = {"a", "same", "other"};
    char *bytes[3];
    int64_t size[3];
    (void)state;
    for (int i = 1; i < 3; i++) {
        xkd_synth_options o = small(NAMES[i]);
        o.threads = 1;
        if (i == 2) o.seed = 6;
        assert_int_equal(xkd_synth(cx, &o, NULL, NULL), XKD_OK);
    }
    for (int i = 0; i < 3; i++) {
        char path[6000];
        snprintf(path, sizeof path, "%s/%s/train/%s/00001.mp4", folder, NAMES[i], xkd_synth_class_name(1));
        assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &bytes[i], &size[i]), XKD_OK);
    }
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(bytes[0], bytes[1], (size_t)size[0]);
    assert_true(size[0] != size[2] || memcmp(bytes[0], bytes[2], (size_t)size[0]) != 0);
    for (int i = 0; i < 3; i++) xkd_free(bytes[i]);
}

static void what_exists_is_kept(void **state)
{
    (void)state;
    xkd_synth_options o = small("a");
    assert_int_equal(xkd_synth(cx, &o, NULL, NULL), XKD_ERR_CONFIG);
    o = small("b");
    o.classes = 17;
    xkd_clear_error(cx);
    assert_int_equal(xkd_synth(cx, &o, NULL, NULL), XKD_ERR_CONFIG);
    xkd_clear_error(cx);
    o = small("b");
    o.variety = 1.01;
    assert_int_equal(xkd_synth(cx, &o, NULL, NULL), XKD_ERR_CONFIG);
    xkd_clear_error(cx);
}

/* The median brightness of the first frame: the background covers more than half of it. */
static xkd_status take_median(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    int64_t histogram[256] = {0}, below = 0;
    int level = 0;
    if (index > 0) return XKD_OK;
    for (int64_t i = 0; i < width * height; i++)
        histogram[(299 * rgb[3 * i] + 587 * rgb[3 * i + 1] + 114 * rgb[3 * i + 2]) / 1000]++;
    while ((below += histogram[level]) * 2 < width * height) level++;
    *(double *)user = level;
    return XKD_OK;
}

static xkd_status ignore_start(void *user, const xkd_media_info *info, double start)
{
    (void)user, (void)info, (void)start;
    return XKD_OK;
}

static double background_brightness(const char *path)
{
    double level = -1;
    xkd_media *media;
    xkd_media_fault fault;
    xkd_media_tally tally;
    const xkd_media_request request = {
        .mode = XKD_CLIP_WHOLE, .duration = 1, .fps = 1, .audio_rate = 16000, .video = true};
    const xkd_media_sink sink = {&level, ignore_start, take_median, NULL};
    if (xkd_media_open(cx, path, &media, &fault) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    if (xkd_media_decode(media, &request, &sink, &tally, &fault) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    xkd_media_free(media);
    return level;
}

/* Without variety every clip stands before the same dark grey; with it backgrounds differ. */
static void variety_spreads_the_looks(void **state)
{
    (void)state;
    for (int varied = 0; varied < 2; varied++) {
        const char *name = varied ? "varied" : "plain";
        xkd_synth_options o = small(name);
        char path[6000];
        double level[4], spread = 0;
        o.variety = varied;
        assert_int_equal(xkd_synth(cx, &o, NULL, NULL), XKD_OK);
        for (int i = 0; i < 4; i++) {
            snprintf(path, sizeof path, "%s/%s/train/%s/%05d.mp4", folder, name, xkd_synth_class_name(i / 2), i % 2);
            level[i] = background_brightness(path);
            spread = fmax(spread, fabs(level[i] - level[0]));
        }
        if (varied)
            assert_true(spread > 30);
        else
            assert_true(spread < 12 && fabs(level[0] - 52.5) < 12);
    }
}

static void findings_have_names(void **state)
{
    static const char *const EXPECTED[] = {"out-of-sync", "silent", "ok", "broken", "silent", "short"};
    xkd_manifest m;
    xkd_finding findings[6];
    xkd_data_config data = small_data_config(folder);
    xkd_check_options options = {.decode = true, .threads = 1};
    char path[6000], where[5000], *bytes;
    int64_t size;
    (void)state;
    snprintf(where, sizeof where, "%s/check", folder);
    assert_int_equal(xkd_make_folder(cx, where), XKD_OK);
    for (int i = 0; i < 6; i++) {
        test_file f = test_file_default();
        f.encode.width = 64;
        f.encode.height = 48;
        f.encode.format = "matroska";
        if (i == 0) f.encode.audio_start = 0.4;
        if (i == 1) f.encode.sample_rate = 0;
        if (i == 4) f.tone_from = 100;
        if (i == 5) f.seconds = 1;
        snprintf(path, sizeof path, "%s/%d.mkv", where, i);
        assert_int_equal(make_test_file(cx, path, &f), XKD_OK);
        if (i != 3) continue;
        assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &bytes, &size), XKD_OK);
        assert_int_equal(xkd_write_file(cx, path, bytes, size * 2 / 3), XKD_OK);
        xkd_free(bytes);
    }
    assert_int_equal(xkd_manifest_load(cx, where, false, &m), XKD_OK);
    assert_int_equal(xkd_check(cx, &m, &data, &options, findings), XKD_OK);
    for (int i = 0; i < 6; i++) assert_string_equal(xkd_media_fault_name(findings[i].fault), EXPECTED[i]);
    xkd_manifest_free(&m);
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_files_are_in_order), cmocka_unit_test(a_seed_names_its_files),
        cmocka_unit_test(what_exists_is_kept),     cmocka_unit_test(variety_spreads_the_looks),
        cmocka_unit_test(findings_have_names),
    };
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("synth"));
    if (xkd_make_folder(cx, folder) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
