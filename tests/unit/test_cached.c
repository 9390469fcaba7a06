/* A run with a cache and one without see the same data set: spans, faults, lengths, frames and sound, over containers and what
 * is wrong with files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/check.h"
#include "data/fetch.h"
#include "data/index.h"
#include "data/manifest_rows.h"
#include "data_config.h"
#include "media/worker.h"
#include "media_files.h"

static xkd_context *cx;
static char folder[4096];

static bool same_span(const xkd_media_span *x, const xkd_media_span *y)
{
    return x->video_start == y->video_start && x->video_end == y->video_end && x->audio_start == y->audio_start &&
           x->audio_end == y->audio_end && x->video_last == y->video_last && x->clock_step == y->clock_step;
}

/* How far apart two recordings of one sound are, in samples up to 40; *close is their correlation there. */
static int shift_of(const int16_t *x, const int16_t *y, int64_t n, double *close)
{
    int best = 0;
    *close = -2;
    for (int shift = -40; shift <= 40; shift++) {
        double xy = 0, xx = 1e-9, yy = 1e-9;
        for (int64_t k = 40; k < n - 40; k++) {
            double a = x[k + shift], b = y[k];
            xy += a * b;
            xx += a * a;
            yy += b * b;
        }
        if (xy / sqrt(xx * yy) > *close + 1e-6) {
            *close = xy / sqrt(xx * yy);
            best = shift;
        }
    }
    return best;
}

static int loudest(const xkd_clip *clip)
{
    int peak = 0;
    for (int64_t i = 0; i < clip->samples; i++) peak = abs(clip->sound[i]) > peak ? abs(clip->sound[i]) : peak;
    return peak;
}

/* `most` samples apart. */
static void compare_clips(const char *name, const xkd_clip *x, const xkd_clip *y, int most)
{
    double close;
    if (x->count != y->count) fail_msg("%s: %d and %d frames", name, (int)x->count, (int)y->count);
    if (x->count && memcmp(x->frames, y->frames, (size_t)(3 * x->count * x->height * x->width)) != 0)
        fail_msg("%s: other frames", name);
    if (llabs(x->samples - y->samples) > most + 1)
        fail_msg("%s: %d and %d samples", name, (int)x->samples, (int)y->samples);
    int64_t n = x->samples < y->samples ? x->samples : y->samples;
    if (loudest(x) < 50 && loudest(y) < 50) return;
    int shift = shift_of(x->sound, y->sound, n, &close);
    if (abs(shift) > most || close < 0.97) fail_msg("%s: sound is %d samples apart, alike to %g", name, shift, close);
}

typedef struct {
    xkd_cache *cache;
    xkd_fetcher *fetcher;
} way;

static way begin(const xkd_data_config *data, const xkd_manifest *m, bool keep)
{
    way w;
    assert_int_equal(xkd_cache_new(cx, data, 1, &w.cache), XKD_OK);
    if (!keep) xkd_cache_pass(w.cache, 0); /* the same starts without the cache */
    assert_int_equal(xkd_fetcher_new(cx, data, m, w.cache, &w.fetcher), XKD_OK);
    return w;
}

static void end(way *w)
{
    xkd_fetcher_free(w->fetcher);
    xkd_cache_free(w->cache);
}

/* What index and check say of the one file of `where`; they agree on its span, and that is what is returned. */
static xkd_media_span look(const char *where, const xkd_data_config *data, xkd_manifest *m, xkd_finding *f)
{
    xkd_media_span span[2];
    for (int decode = 0; decode < 2; decode++) {
        xkd_check_options options = {.threads = 1, .decode = decode == 1};
        char path[5000];
        int fd;
        int64_t size;
        if (decode) xkd_manifest_free(m);
        assert_int_equal(xkd_manifest_load(cx, where, false, m), XKD_OK);
        assert_int_equal(m->count, 1);
        assert_int_equal(xkd_check(cx, m, data, &options, f), XKD_OK);
        snprintf(path, sizeof path, "%s/%s", m->root, m->samples[0].path);
        assert_int_equal(xkd_open_read(cx, path, &fd, &size), XKD_OK);
        span[decode] = xkd_sample_span(&m->samples[0], fd, 0);
        close(fd);
    }
    if (span[0].known != span[1].known || !same_span(&span[0], &span[1]))
        fail_msg("%s: index and check differ on its span", where);
    return span[1];
}

enum { CLIPS = 3 };

/* The file of a folder, with the cache and without. Returns how many of its clips can be read. */
static int compare(const char *where, int most)
{
    int good = 0;
    static const double PLACES[CLIPS] = {0, 0.55, 0.99};
    xkd_manifest m, bare;
    xkd_finding found;
    xkd_data_config data = small_data_config(folder);
    data.cache = XKD_CACHE_RAM;
    data.max_clip_damage = 0.1;
    xkd_media_span told = look(where, &data, &m, &found);
    assert_int_equal(xkd_manifest_load(cx, where, false, &bare), XKD_OK); /* knows no span */
    way cached = begin(&data, &m, true), plain = begin(&data, &m, false), first = begin(&data, &bare, false);
    for (int i = 0; i < CLIPS; i++) {
        xkd_clip x, y, z;
        bool silent[3];
        xkd_media_result r[3];
        char name[6000];
        snprintf(name, sizeof name, "%s at %g", where, PLACES[i]);
        assert_int_equal(xkd_fetch_clip(cached.fetcher, 0, PLACES[i], &x, &silent[0], &r[0]), XKD_OK);
        assert_int_equal(xkd_fetch_clip(plain.fetcher, 0, PLACES[i], &y, &silent[1], &r[1]), XKD_OK);
        assert_int_equal(xkd_fetch_clip(first.fetcher, 0, PLACES[i], &z, &silent[2], &r[2]), XKD_OK);
        for (int k = 1; k < 3; k++) {
            if (r[0].fault != r[k].fault || strcmp(r[0].message, r[k].message) != 0)
                fail_msg("%s: %s %s and %s %s", name, xkd_media_fault_name(r[0].fault), r[0].message,
                         xkd_media_fault_name(r[k].fault), r[k].message);
            if (silent[0] != silent[k]) fail_msg("%s: only one is silent", name);
        }
        good += r[0].fault == XKD_FAULT_NONE;
        compare_clips(name, &x, &y, most);
        compare_clips(name, &y, &z, 0);
        /* An entry that is there already tells nothing more of the file. */
        for (int k = 0; k < 3; k++)
            if (r[k].span.known && told.known && !same_span(&r[k].span, &told))
                fail_msg("%s: another span (%d): %g %g %g %g for %g %g %g %g", name, k, r[k].span.video_start,
                         r[k].span.video_end, r[k].span.audio_start, r[k].span.audio_end, told.video_start,
                         told.video_end, told.audio_start, told.audio_end);
    }
    end(&cached);
    end(&plain);
    end(&first);
    xkd_manifest_free(&m);
    xkd_manifest_free(&bare);
    return good;
}

/* ---- files ---- */

enum { PLAIN, PICTURES_END, SOUND_ENDS, SOUND_LATE, PICTURES_LATE, SLOWER, FAR_CLOCK, STILL, MUTE, CUT, ROTTEN, KINDS };

static const char *const kinds[KINDS] = {"plain", "pictures-end", "sound-ends", "sound-late", "pictures-late", "slower",
                                         "far",   "still",        "mute",       "cut",        "rotten"};

static const struct {
    const char *format, *ending;
    int most; /* samples that the sound may be off: Vorbis in milliseconds */
} containers[] = {{"mp4", "mp4", 1}, {"matroska", "mkv", 1}, {"webm", "webm", 17}, {"mpegts", "ts", 1},
                  {"flv", "flv", 1}, {"avi", "avi", 1},      {"asf", "wmv", 1}};

static void damage(const char *path, int kind)
{
    char *bytes;
    int64_t size;
    assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &bytes, &size), XKD_OK);
    uint32_t random = 1;
    if (kind == ROTTEN)
        for (int64_t i = 0; i < size / 50; i++) {
            random = random * 1664525 + 1013904223;
            bytes[size / 3 + i] ^= (char)(random >> 24);
        }
    assert_int_equal(xkd_write_file(cx, path, bytes, kind == CUT ? size * 6 / 10 : size), XKD_OK);
    xkd_free(bytes);
}

/* The folder of a new file; its name counts its container and kind. */
static const char *make(int container, int kind)
{
    static char where[4500];
    char path[5000];
    test_file f = test_file_default();
    f.encode.height = 48;
    f.encode.format = containers[container].format;
    f.encode.sample_rate = kind == MUTE ? 0 : 16000; /* that of the clips: nothing is resampled */
    f.encode.channels = 1;
    f.seconds = 5;
    f.tone_from = 0.7;
    f.tone_rise = 300; /* no two places of the sound are alike */
    if (kind == PICTURES_END) f.picture_seconds = 3;
    if (kind == SOUND_ENDS) f.sound_seconds = 3;
    if (kind == SOUND_LATE) f.encode.audio_start = 0.6;
    if (kind == PICTURES_LATE) f.encode.video_start = 0.6;
    if (kind == SLOWER) f.slow_after = 50;
    if (kind == FAR_CLOCK) f.encode.video_start = f.encode.audio_start = 500;
    if (kind == STILL) f.picture_seconds = 0.04;
    snprintf(where, sizeof where, "%s/%s-%s", folder, containers[container].ending, kinds[kind]);
    assert_int_equal(xkd_make_folder(cx, where), XKD_OK);
    snprintf(path, sizeof path, "%s/1.%s", where, containers[container].ending);
    if (make_test_file(cx, path, &f) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    if (kind == CUT || kind == ROTTEN) damage(path, kind);
    return where;
}

static void cached_and_uncached_agree(void **state)
{
    (void)state;
    for (int container = 0; container < (int)(sizeof containers / sizeof *containers); container++)
        for (int kind = 0; kind < KINDS; kind++) {
            int good = compare(make(container, kind), containers[container].most);
            /* What cannot be read agrees easily: whole files must be. */
            if (kind != STILL && kind != CUT && kind != ROTTEN && good != CLIPS)
                fail_msg("%s %s: %d clips of %d", containers[container].ending, kinds[kind], good, CLIPS);
        }
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(cached_and_uncached_agree)};
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("cached"));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
