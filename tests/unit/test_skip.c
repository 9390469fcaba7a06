/* Pictures that are left out change nothing: every clip and every whole file is the same to the bit as with all of them
 * decoded. Files are made here with B-pictures at usual rates, and are the seeds of the fuzzer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <time.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/file.h"
#include "media/media.h"
#include "media/skip.h"
#include "media_files.h"

static xkd_context *cx;
static char folder[4096];

typedef struct {
    uint64_t pictures, sound;
    int64_t frames, samples, errors;
    double start, damage;
    xkd_media_fault fault;
} outcome;

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    (void)info;
    *(outcome *)user = (outcome){.start = start};
    return XKD_OK;
}

static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    outcome *o = user;
    assert_int_equal(index, o->frames);
    o->pictures = XXH3_64bits_withSeed(rgb, (size_t)(3 * width * height), o->pictures);
    o->frames++;
    return XKD_OK;
}

static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    outcome *o = user;
    for (int64_t i = 0; i < count; i++) o->sound = o->sound * 31 + (uint16_t)samples[i];
    o->samples += count;
    return XKD_OK;
}

/* A clip with or without the pictures that nobody sees. Processor seconds are added to *seconds. */
static outcome decode(const char *path, xkd_clip_mode mode, double start, double fps, bool all, double *seconds)
{
    outcome o = {0};
    xkd_media *media = NULL;
    xkd_media_tally tally = {0};
    const xkd_media_sink sink = {.user = &o, .begin = on_begin, .frame = on_frame, .sound = on_sound};
    const xkd_media_request request = {.mode = mode,
                                       .start = start,
                                       .duration = 2,
                                       .fps = fps,
                                       .audio_rate = 16000,
                                       .video = true,
                                       .audio = true,
                                       .all_pictures = all};
    struct timespec before, after;
    xkd_media_fault fault = XKD_FAULT_NONE;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    if (xkd_media_open(cx, path, &media, &fault) == XKD_OK) xkd_media_decode(media, &request, &sink, &tally, &fault);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    if (seconds) *seconds += (double)(after.tv_sec - before.tv_sec) + 1e-9 * (double)(after.tv_nsec - before.tv_nsec);
    xkd_media_free(media);
    xkd_clear_error(cx);
    o.fault = fault;
    o.damage = tally.video_damage;
    o.errors = tally.errors;
    return o;
}

static void same(const char *path, xkd_clip_mode mode, double start, double fps)
{
    outcome a = decode(path, mode, start, fps, true, NULL), b = decode(path, mode, start, fps, false, NULL);
    if (a.pictures != b.pictures || a.sound != b.sound || a.frames != b.frames || a.samples != b.samples ||
        a.start != b.start || a.fault != b.fault)
        fail_msg("%s at %g, %g a second: %d and %d pictures, %d and %d errors, damage %g and %g, %s and %s", path,
                 start, fps, (int)a.frames, (int)b.frames, (int)a.errors, (int)b.errors, a.damage, b.damage,
                 xkd_media_fault_name(a.fault), xkd_media_fault_name(b.fault));
}

static void same_everywhere(const char *path)
{
    static const double RATES[] = {8, 1, 5, 12.5, 24, 30, 60};
    for (size_t k = 0; k < sizeof RATES / sizeof *RATES; k++) {
        /* A whole damaged file goes out before its damage is met, and its users ask for it again. */
        if (!decode(path, XKD_CLIP_WHOLE, 0, RATES[k], true, NULL).errors) same(path, XKD_CLIP_WHOLE, 0, RATES[k]);
        for (int i = 0; i < 7; i++) same(path, XKD_CLIP_PLACE, i / 6.01, RATES[k]);
        same(path, XKD_CLIP_AT, 1.23456, RATES[k]);
    }
}

static void made(const char *name, int fps, int slow_after, int64_t keys)
{
    char path[5000];
    test_file f = test_file_default();
    f.encode.fps = fps;
    f.encode.key_frames = keys;
    f.slow_after = slow_after;
    f.seconds = 5;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (make_test_file(cx, path, &f) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    same_everywhere(path);
}

static void usual_rates(void **state)
{
    (void)state;
    made("24.mp4", 24, 0, 40);
    made("25.mp4", 25, 0, 250);
    made("30.mp4", 30, 0, 250);
    made("60.mkv", 60, 0, 100);
    made("slow.mp4", 30, 40, 250);
}

/* Remuxed by nobody: what a transport stream and others make of it is in the seeds. */
static void seeds(void **state)
{
    const char *place = "tests/fuzz/corpus/media";
    DIR *dir = opendir(place);
    struct dirent *entry;
    int count = 0;
    (void)state;
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        char path[5000];
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", place, entry->d_name);
        same(path, XKD_CLIP_WHOLE, 0, 8);
        same(path, XKD_CLIP_PLACE, 0.7, 8);
        count++;
    }
    closedir(dir);
    assert_true(count > 10);
}

/* Damage in a picture that nobody sees is no damage of the clip, and `check` finds it all the same. */
static void damage_is_the_same_where_it_shows(void **state)
{
    char path[5000], worse[5000], *bytes;
    int64_t size;
    (void)state;
    snprintf(path, sizeof path, "%s/30.mp4", folder);
    snprintf(worse, sizeof worse, "%s/worse.mp4", folder);
    assert_int_equal(xkd_read_file(cx, path, 1 << 24, XKD_ERR_DATA, &bytes, &size), XKD_OK);
    for (int k = 0; k < 12; k++) {
        int64_t at = size / 4 + k * size / 30;
        char kept[8];
        memcpy(kept, bytes + at, 8);
        memset(bytes + at, 0xa5, 8);
        assert_int_equal(xkd_write_file(cx, worse, bytes, size), XKD_OK);
        memcpy(bytes + at, kept, 8);
        for (int i = 0; i < 5; i++) same(worse, XKD_CLIP_PLACE, i / 4.01, 8);
        outcome a = decode(worse, XKD_CLIP_WHOLE, 0, 8, true, NULL),
                b = decode(worse, XKD_CLIP_WHOLE, 0, 8, false, NULL);
        assert_int_equal(a.frames, b.frames);
        assert_true(b.damage <= a.damage);
    }
    xkd_free(bytes);
}

/* The shortest of several tries at each place: other processes only ever add time. */
static void it_saves_work(void **state)
{
    enum { CLIPS = 10, TRIES = 5 };
    char path[5000];
    double all = 0, some = 0;
    (void)state;
    snprintf(path, sizeof path, "%s/30.mp4", folder);
    for (int i = 0; i < CLIPS; i++) {
        double least[] = {INFINITY, INFINITY};
        for (int k = 0; k < 2 * TRIES; k++) {
            double seconds = 0;
            decode(path, XKD_CLIP_PLACE, (double)i / CLIPS, 8, k % 2 == 0, &seconds);
            least[k % 2] = fmin(least[k % 2], seconds);
        }
        all += least[0];
        some += least[1];
    }
    print_message("# all %.1f ms, without %.1f ms a clip\n", all * 1e3 / CLIPS, some * 1e3 / CLIPS);
    assert_true(some < all);
}

/* With names of files: the same of them, for films of one's own. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usual_rates),
        cmocka_unit_test(seeds),
        cmocka_unit_test(damage_is_the_same_where_it_shows),
        cmocka_unit_test(it_saves_work),
    };
    cx = xkd_context_new();
    for (int i = 1; i < argc; i++) same_everywhere(argv[i]);
    if (argc > 1) return 0;
    snprintf(folder, sizeof folder, "%s", test_folder("skip"));
    if (xkd_make_folder(cx, folder) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
