/* Gaps in the time stamps of sound, as where pieces of transport streams were joined: up to 50 ms they are taken for stamps that
 * are not exact, until they add up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/check.h"
#include "data_config.h"
#include "media/worker.h"
#include "media_files.h"

enum { PACKET = 188, TICKS = 90000, RATE = 16000, LOUD = 3000, MOST_GAPS = 2 };
static const double TONE = 4;     /* s of the sound's own clock */
static const double EXACT = 3e-3; /* the tone's first loud sample, after a resampler */

static xkd_context *cx;
static char folder[4096];

/* A gap of the sound: what comes `at` seconds after its first stamp or later is moved by `length`. */
typedef struct {
    double at, length;
} gap;

static int64_t read_stamp(const uint8_t *p)
{
    return (int64_t)(p[0] >> 1 & 7) << 30 | (int64_t)p[1] << 22 | (int64_t)(p[2] >> 1) << 15 | (int64_t)p[3] << 7 |
           p[4] >> 1;
}

static void write_stamp(uint8_t *p, int64_t t)
{
    p[0] = (uint8_t)((p[0] & 0xf1) | (t >> 30 & 7) << 1);
    p[1] = (uint8_t)(t >> 22);
    p[2] = (uint8_t)((t >> 15 & 0x7f) << 1 | 1);
    p[3] = (uint8_t)(t >> 7);
    p[4] = (uint8_t)((t & 0x7f) << 1 | 1);
}

/* The presentation stamp of a packet with the head of a sound packet in it; NULL in others. */
static uint8_t *sound_stamp(uint8_t *packet)
{
    if (packet[0] != 0x47 || !(packet[1] & 0x40) || !(packet[3] & 0x10)) return NULL;
    int at = 4 + (packet[3] & 0x20 ? 1 + packet[4] : 0);
    uint8_t *head = packet + at;
    if (at + 14 > PACKET || head[0] || head[1] || head[2] != 1 || (head[3] & 0xe0) != 0xc0 || !(head[7] & 0x80))
        return NULL;
    return head + 9;
}

static const char *make(const char *name, const gap gaps[MOST_GAPS])
{
    static char path[5000];
    char *bytes;
    int64_t size, first = -1, moved = 0;
    test_file f = test_file_default();
    f.encode.format = "mpegts";
    f.tone_from = TONE;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (make_test_file(cx, path, &f) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    assert_int_equal(xkd_read_file(cx, path, 1 << 26, XKD_ERR_DATA, &bytes, &size), XKD_OK);
    for (int64_t at = 0; at + PACKET <= size; at += PACKET) {
        uint8_t *stamp = sound_stamp((uint8_t *)bytes + at);
        if (!stamp) continue;
        int64_t time = read_stamp(stamp), by = 0;
        if (first < 0) first = time;
        for (int k = 0; k < MOST_GAPS; k++)
            if (time - first >= (int64_t)(gaps[k].at * TICKS)) by += (int64_t)(gaps[k].length * TICKS);
        write_stamp(stamp, time + by);
        moved += by > 0;
    }
    assert_true((gaps[0].length > 0) == (moved > 0));
    assert_int_equal(xkd_write_file(cx, path, bytes, size), XKD_OK);
    xkd_free(bytes);
    return path;
}

typedef struct {
    int64_t heard, onset; /* samples; the first that is loud, -1: none yet */
} ear;

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    (void)info, (void)start;
    *(ear *)user = (ear){.onset = -1};
    return XKD_OK;
}

static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    (void)user, (void)rgb, (void)width, (void)height, (void)index;
    return XKD_OK;
}

static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    ear *e = user;
    for (int64_t i = 0; i < count; i++, e->heard++)
        if (e->onset < 0 && abs(samples[i]) > LOUD) e->onset = e->heard;
    return XKD_OK;
}

/* How the decoding of the whole file or of a clip of so many seconds went, and what was heard. */
static xkd_media_tally decode(const char *path, xkd_clip_mode mode, double start, double duration, ear *e)
{
    xkd_media *media = NULL;
    xkd_media_fault fault = XKD_FAULT_NONE;
    xkd_media_tally tally;
    const xkd_media_sink sink = {.user = e, .begin = on_begin, .frame = on_frame, .sound = on_sound};
    const xkd_media_request q = {
        .mode = mode, .start = start, .duration = duration, .fps = 8, .audio_rate = RATE, .video = true, .audio = true};
    assert_int_equal(xkd_media_open(cx, path, &media, &fault), XKD_OK);
    assert_int_equal(xkd_media_decode(media, &q, &sink, &tally, &fault), XKD_OK);
    xkd_media_free(media);
    return tally;
}

/* When the tone begins, in seconds of the whole file or of the clip at `start`. */
static double onset(const char *path, xkd_clip_mode mode, double start)
{
    ear e;
    assert_true(decode(path, mode, start, 3, &e).audio_damage == 0);
    assert_true(e.onset >= 0);
    return (double)e.onset / RATE;
}

static void near(const char *what, double got, double want)
{
    if (!(fabs(got - want) < EXACT)) fail_msg("%s: %.4f s instead of %.4f s", what, got, want);
}

static void small_gaps_wait_until_they_add_up(void **state)
{
    (void)state;
    const char *path = make("even.ts", (const gap[MOST_GAPS]){{0}});
    double base = onset(path, XKD_CLIP_WHOLE, 0);
    near("a clip of an even stream", onset(path, XKD_CLIP_AT, 3.25), base - 3.25);
    /* One of 30 ms: a whole file plays on, a clip behind it has the stamps' own times. */
    path = make("one.ts", (const gap[MOST_GAPS]){{2, 0.03}});
    near("30 ms in a whole file", onset(path, XKD_CLIP_WHOLE, 0), base);
    near("30 ms before a clip", onset(path, XKD_CLIP_AT, 3.25), base + 0.03 - 3.25);
    /* Two of them are 60 ms: from there on the sound is where it belongs. So it is never off by more than 50 ms. */
    path = make("two.ts", (const gap[MOST_GAPS]){{1, 0.03}, {2, 0.03}});
    near("twice 30 ms", onset(path, XKD_CLIP_WHOLE, 0), base + 0.06);
    path = make("large.ts", (const gap[MOST_GAPS]){{2, 0.06}});
    near("60 ms at once", onset(path, XKD_CLIP_WHOLE, 0), base + 0.06);
    near("60 ms before a clip", onset(path, XKD_CLIP_AT, 3.25), base + 0.06 - 3.25);
    near("60 ms within a clip", onset(path, XKD_CLIP_AT, 1.5), base + 0.06 - 1.5);
}

static xkd_media_tally judge(const char *path, xkd_clip_mode mode, double start)
{
    ear e;
    return decode(path, mode, start, 2, &e);
}

/* Two seconds without a packet of sound, from 2 s on: it ends 2 s later, and these are lost. */
static void a_hole_in_the_sound_is_damage(void **state)
{
    (void)state;
    const char *path = make("hole.ts", (const gap[MOST_GAPS]){{2, 2}});
    xkd_media_tally t = judge(path, XKD_CLIP_WHOLE, 0);
    assert_int_equal(t.holes, 1);
    near("the hole", t.hole_seconds, 2);
    assert_true(t.errors == 0 && t.video_damage == 0 && t.audio_damage > 0.2 && t.audio_damage < 0.35);
    t = judge(path, XKD_CLIP_AT, 0); /* in front of it, within it, from its middle on */
    if (t.audio_damage > 0.03) fail_msg("in front: %g", t.audio_damage);
    t = judge(path, XKD_CLIP_AT, 2.5);
    if (fabs(t.audio_damage - 0.75) > 0.05) fail_msg("within: %g", t.audio_damage);
    t = judge(path, XKD_CLIP_AT, 4.25);
    assert_true(t.audio_damage == 0 && t.holes == 0);
}

/* Blocks of sound that a demuxer of Matroska passes over: their ids are written over with that of empty room. */
static void blocks_that_are_destroyed_are_damage(void **state)
{
    char path[5000], *bytes;
    int64_t size, gone = 0;
    test_file f = test_file_default();
    (void)state;
    f.encode.format = "matroska";
    snprintf(path, sizeof path, "%s/blocks.mkv", folder);
    if (make_test_file(cx, path, &f) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    assert_int_equal(judge(path, XKD_CLIP_WHOLE, 0).holes, 0);
    assert_int_equal(xkd_read_file(cx, path, 1 << 26, XKD_ERR_DATA, &bytes, &size), XKD_OK);
    for (int64_t i = size * 4 / 10; i < size * 6 / 10; i++) {
        const uint8_t *b = (const uint8_t *)bytes + i; /* SimpleBlock, its size in 1 or 2 bytes, track 2, time, flags */
        int length = b[1] & 0x80 ? 1 : b[1] & 0x40 ? 2 : 0;
        if (b[0] != 0xA3 || !length || b[length + 1] != 0x82 || b[length + 4] != 0x80) continue;
        bytes[i] = (char)0xEC;
        gone++;
    }
    assert_in_range(gone, 20, 100);
    assert_int_equal(xkd_write_file(cx, path, bytes, size), XKD_OK);
    xkd_free(bytes);
    xkd_media_tally t = judge(path, XKD_CLIP_WHOLE, 0);
    assert_int_equal(t.holes, 1);
    if (fabs(t.hole_seconds - (double)gone * 1024 / 44100) > 2e-3)
        fail_msg("%d packets are gone, %g s", (int)gone, t.hole_seconds);
    near("its share", t.audio_damage * 6, t.hole_seconds);
}

/* What `data check` says of the file where clips may be damaged by `share`. */
static xkd_media_fault check(const char *path, double share)
{
    xkd_manifest m;
    xkd_finding f;
    xkd_data_config data = small_data_config(folder);
    const xkd_check_options options = {.decode = true, .threads = 1};
    data.max_clip_damage = share;
    assert_int_equal(xkd_manifest_of_file(cx, path, &m), XKD_OK);
    assert_int_equal(xkd_check(cx, &m, &data, &options, &f), XKD_OK);
    if (f.fault != XKD_FAULT_NONE)
        assert_non_null(strstr(f.message, "s of sound are missing in 1 place (data.max_clip_damage="));
    xkd_manifest_free(&m);
    return f.fault;
}

/* 0.4 s of some 6 are a pause like any other; 2 s are not, unless that share of a clip may be missing. */
static void a_file_is_broken_that_lacks_too_much(void **state)
{
    (void)state;
    const char *path = make("pause.ts", (const gap[MOST_GAPS]){{2, 0.4}});
    assert_int_equal(judge(path, XKD_CLIP_WHOLE, 0).holes, 1);
    assert_int_equal(check(path, 0.1), XKD_FAULT_NONE);
    assert_int_equal(check(path, 0.01), XKD_FAULT_BROKEN);
    path = make("lost.ts", (const gap[MOST_GAPS]){{2, 2}});
    assert_int_equal(check(path, 0.1), XKD_FAULT_BROKEN);
    assert_int_equal(check(path, 0.5), XKD_FAULT_NONE);
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_gaps_wait_until_they_add_up), cmocka_unit_test(a_hole_in_the_sound_is_damage),
        cmocka_unit_test(blocks_that_are_destroyed_are_damage), cmocka_unit_test(a_file_is_broken_that_lacks_too_much)};
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("gaps"));
    if (!cx || xkd_make_folder(cx, folder) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
