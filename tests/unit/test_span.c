/* Where streams begin and end: by their packets, whatever header and container say; the same for clips that are drawn from
 * a cache, by a manifest and straight from the file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/check.h"
#include "data/manifest_rows.h"
#include "data/fetch.h"
#include "data/index.h"
#include "data_config.h"
#include "media/worker.h"
#include "media_files.h"

static xkd_context *cx;
static char folder[4096];

/* Each file has a folder of its own, so that it can be checked as a data set. */
static const char *place_for(const char *name)
{
    static char path[5000];
    char where[4500];
    snprintf(where, sizeof where, "%s/%s", folder, name);
    assert_int_equal(xkd_make_folder(cx, where), XKD_OK);
    snprintf(path, sizeof path, "%s/%s", where, name);
    return path;
}

static test_file small(const char *format)
{
    test_file f = test_file_default();
    f.encode.height = 48;
    f.encode.format = format;
    return f;
}

static const char *make(const char *name, const test_file *f)
{
    const char *path = place_for(name);
    if (make_test_file(cx, path, f) != XKD_OK) fail_msg("%s: %s", name, xkd_last_error(cx));
    return path;
}

static xkd_media_info describe(const char *path)
{
    xkd_media *media = NULL;
    xkd_media_fault fault;
    if (xkd_media_open(cx, path, &media, &fault) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    xkd_media_info info = *xkd_media_about(media);
    xkd_media_free(media);
    return info;
}

static void near(const char *what, double got, double wanted, double tolerance)
{
    if (!(fabs(got - wanted) <= tolerance)) fail_msg("%s: %g for %g", what, got, wanted);
}

/* What `data check` (or `data index`) says of a file; its texts are there until the next one, for the manifest goes. */
static xkd_finding judge(const char *name, bool decode, bool hold)
{
    static char message[600], note[600];
    char where[4500];
    xkd_manifest m;
    xkd_finding f;
    xkd_data_config data = small_data_config(folder);
    xkd_check_options options = {.decode = decode, .threads = 1};
    snprintf(where, sizeof where, "%s/%s", folder, name);
    data.clip_duration = 4;
    data.hold_last_frame = hold;
    assert_int_equal(xkd_manifest_load(cx, where, false, &m), XKD_OK);
    assert_int_equal(m.count, 1);
    assert_int_equal(xkd_check(cx, &m, &data, &options, &f), XKD_OK);
    snprintf(message, sizeof message, "%s", f.message);
    snprintf(note, sizeof note, "%s", f.note);
    f.message = message;
    f.note = note;
    xkd_manifest_free(&m);
    return f;
}

static void is(const char *name, bool decode, const char *fault)
{
    xkd_finding f = judge(name, decode, false);
    if (strcmp(xkd_media_fault_name(f.fault), fault) != 0)
        fail_msg("%s: %s (%s) for %s", name, xkd_media_fault_name(f.fault), f.message, fault);
}

static void each_stream_has_its_own_length(void **state)
{
    static const char *const FORMATS[] = {"matroska", "mpegts", "flv", "mp4", "avi"};
    static const char *const NAMES[][2] = {
        {"p3.mkv", "s3.mkv"}, {"p3.ts", "s3.ts"}, {"p3.flv", "s3.flv"}, {"p3.mp4", "s3.mp4"}, {"p3.avi", "s3.avi"}};
    (void)state;
    for (int i = 0; i < 5; i++) {
        test_file f = small(FORMATS[i]);
        f.picture_seconds = 3;
        xkd_media_info info = describe(make(NAMES[i][0], &f));
        near(NAMES[i][0], info.video_end - info.video_start, 3, 0.06);
        near(NAMES[i][0], info.audio_end - info.audio_start, 6, 0.12);
        near(NAMES[i][0], info.end - info.start, 3, 0.12);
        is(NAMES[i][0], true, "short");
        is(NAMES[i][0], false, "short");
        f = small(FORMATS[i]);
        f.sound_seconds = 3;
        info = describe(make(NAMES[i][1], &f));
        near(NAMES[i][1], info.video_end - info.video_start, 6, 0.06);
        near(NAMES[i][1], info.end - info.start, 3, 0.12);
        is(NAMES[i][1], true, "short");
    }
}

/* MediaRecorder and other live streams: the header's length is made unknown. */
static void a_length_need_not_be_told(void **state)
{
    static const unsigned char DURATION[] = {0x44, 0x89, 0x88};
    test_file f = small("matroska");
    char *bytes;
    int64_t size;
    const char *path = make("live.mkv", &f);
    (void)state;
    assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &bytes, &size), XKD_OK);
    unsigned char *at = memmem(bytes, 4096, DURATION, sizeof DURATION);
    assert_non_null(at);
    at[0] = 0xEC; /* a void element of the same size */
    at[1] = 0x89;
    assert_int_equal(xkd_write_file(cx, path, bytes, size), XKD_OK);
    xkd_free(bytes);
    xkd_media_info info = describe(path);
    near("live", info.end - info.start, 6, 0.1);
    is("live.mkv", true, "ok");
}

/* The contents of the n-th box of a kind; version 0. */
static unsigned char *find_box(char *bytes, int64_t size, const char *kind, int n)
{
    unsigned char *at = (unsigned char *)bytes;
    for (int i = 0; i <= n; i++) {
        at = memmem(at, (size_t)(bytes + size - (char *)at), kind, 4);
        assert_non_null(at);
        at += 4;
    }
    assert_int_equal(at[0], 0);
    return at;
}

static uint32_t get32(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void set32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) at[i] = (unsigned char)(value >> (24 - 8 * i));
}

/* Sets the n-th track's length in the header of an MP4 file. */
static void set_track_length(char *bytes, int64_t size, int n, uint32_t (*change)(uint32_t length))
{
    unsigned char *at = find_box(bytes, size, "mdhd", n) + 16;
    set32(at, change(get32(at)));
}

static uint32_t nothing(uint32_t length)
{
    (void)length;
    return 0;
}

static uint32_t half(uint32_t length)
{
    return length / 2;
}

static uint32_t most(uint32_t length)
{
    (void)length;
    return UINT32_MAX;
}

/* MP4 tells the length of a track beside the table of its packets, and the table is what there is. */
static void a_table_of_packets_is_believed_alone(void **state)
{
    static uint32_t (*const changes[])(uint32_t) = {nothing, half, most};
    (void)state;
    for (int track = 0; track < 2; track++)
        for (int k = 0; k < 3; k++) {
            char name[32], *bytes;
            int64_t size;
            snprintf(name, sizeof name, "track%d-%d.mp4", track, k);
            test_file f = small("mp4");
            f.picture_seconds = 3;
            const char *path = make(name, &f);
            assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &bytes, &size), XKD_OK);
            set_track_length(bytes, size, track, changes[k]);
            assert_int_equal(xkd_write_file(cx, path, bytes, size), XKD_OK);
            xkd_free(bytes);
            xkd_media_info info = describe(path);
            near(name, info.video_end - info.video_start, 3, 0.06);
            near(name, info.audio_end - info.audio_start, 6, 0.12);
            is(name, true, "short");
        }
}

/* Gives the n-th edit list, which has one edit, a length and, with `wide`, 64 bits for it: the boxes around grow. The header is
 * the last thing in the file. Returns the file's new size; there is room for it. */
static int64_t set_edit(char *bytes, int64_t size, int n, uint32_t length, bool wide)
{
    static const char *const around[] = {"moov", "trak", "edts", "elst"};
    unsigned char *at = find_box(bytes, size, "elst", n);
    assert_int_equal(get32(at + 4), 1);
    set32(at + 8, length);
    if (!wide) return size;
    for (int i = 0; i < 4; i++) {
        unsigned char *box = (unsigned char *)bytes - 8;
        for (int k = i ? n : 0; k >= 0; k--) {
            box = memmem(box + 12, (size_t)((unsigned char *)bytes + size - box - 12), around[i], 4);
            assert_non_null(box);
            box -= 4;
        }
        set32(box, get32(box) + 8);
    }
    uint32_t media_time = get32(at + 12);
    memmove(at + 24, at + 16, (size_t)((unsigned char *)bytes + size - at - 16)); /* the edit's rate and what follows */
    set32(at + 8, 0);
    set32(at + 12, length);
    set32(at + 16, 0);
    set32(at + 20, media_time);
    at[0] = 1;
    return size + 8;
}

/* A film that is being recorded has an edit without a length: it lasts to the end. One with a length hides the rest, also where
 * the file is read through. */
static void an_edit_may_last_to_the_end(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        char name[32], *bytes, *more;
        int64_t size;
        snprintf(name, sizeof name, "edit%d.mp4", k);
        test_file f = small("mp4");
        f.picture_seconds = k < 2 ? 3 : 6;
        const char *path = make(name, &f);
        assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &bytes, &size), XKD_OK);
        assert_int_equal(xkd_alloc(cx, &more, size + 16, 1), XKD_OK);
        memcpy(more, bytes, (size_t)size);
        uint32_t scale = get32(find_box(more, size, "mvhd", 0) + 12);
        for (int track = 0; track < 2; track++) {
            size = set_edit(more, size, track, k < 2 ? 0 : 4 * scale, k == 1);
            if (k == 3) set_track_length(more, size, track, half);
        }
        assert_int_equal(xkd_write_file(cx, path, more, size), XKD_OK);
        xkd_media_info info = describe(path);
        near(name, info.video_end - info.video_start, k < 2 ? 3 : 4, 0.06);
        near(name, info.audio_end - info.audio_start, k < 2 ? 6 : 4, 0.12);
        is(name, true, k < 2 ? "short" : "ok");
        xkd_free(bytes);
        xkd_free(more);
    }
}

/* A header that claims 1000 s: by itself it is wrong, and the file whole; of a file that is cut off it says that it was. */
static void a_wrong_length_is_no_cut(void **state)
{
    static const struct {
        const char *name, *format, *before; /* of the length, which is a double, big-endian */
        int64_t skip;
    } files[] = {{"long.mkv", "matroska", "\x44\x89\x88", 3}, {"long.flv", "flv", "duration", 9}};
    static const unsigned char thousand[] = {0x40, 0x8F, 0x40, 0, 0, 0, 0, 0}, million[] = {0x41, 0x2E, 0x84, 0x80};
    (void)state;
    for (int k = 0; k < 2; k++) {
        test_file f = small(files[k].format);
        const char *path = make(files[k].name, &f);
        char *bytes;
        int64_t size;
        assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &bytes, &size), XKD_OK);
        char *at = memmem(bytes, 4096, files[k].before, strlen(files[k].before));
        assert_non_null(at);
        memcpy(at + files[k].skip, thousand, 8);
        if (k == 0) memcpy(at + files[k].skip, million, 4); /* ms */
        assert_int_equal(xkd_write_file(cx, path, bytes, size), XKD_OK);
        xkd_media_info info = describe(path);
        near(files[k].name, info.end - info.start, 6, 0.1);
        is(files[k].name, true, "ok");
        assert_int_equal(xkd_write_file(cx, path, bytes, 2 * size / 3), XKD_OK);
        is(files[k].name, true, "broken");
        is(files[k].name, false, "broken");
        xkd_free(bytes);
    }
}

/* The word of `data check` where sound alone is wanted. */
static const char *check_sound(const char *name)
{
    char where[4500];
    xkd_manifest m;
    xkd_finding f;
    xkd_data_config data = small_data_config(folder);
    xkd_check_options options = {.decode = true, .threads = 1};
    snprintf(where, sizeof where, "%s/%s", folder, name);
    data.left_out[XKD_VIDEO] = true;
    assert_int_equal(xkd_manifest_load(cx, where, false, &m), XKD_OK);
    assert_int_equal(xkd_check(cx, &m, &data, &options, &f), XKD_OK);
    xkd_manifest_free(&m);
    return xkd_media_fault_name(f.fault);
}

/* Programs that write to a pipe put a placeholder into a WAV file's header: it promises nothing. */
static void a_placeholder_is_no_length(void **state)
{
    static const uint32_t sizes[] = {0x7FFFF000, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 0, 6000000};
    static const char *const words[] = {"ok", "ok", "ok", "ok", "ok", "broken"}; /* the last is a promise */
    (void)state;
    for (int k = 0; k < 6; k++) {
        static char wav[44 + 2 * 8000 * 6];
        char name[32];
        memcpy(wav, "RIFF\0\0\0\0WAVEfmt \20\0\0\0\1\0\1\0\100\37\0\0\200\76\0\0\2\0\20\0data", 40);
        for (int i = 0; i < 4; i++) wav[40 + i] = wav[4 + i] = (char)(sizes[k] >> 8 * i);
        for (size_t i = 44; i < sizeof wav; i++) wav[i] = (char)(i * 7 & 31);
        snprintf(name, sizeof name, "pipe%d.wav", k);
        const char *path = place_for(name);
        assert_int_equal(xkd_write_file(cx, path, wav, sizeof wav), XKD_OK);
        xkd_media_info info = describe(path);
        near(name, info.audio_end - info.audio_start, 6, 0.01);
        assert_string_equal(check_sound(name), words[k]);
        /* The last sample is cut in two. */
        assert_int_equal(xkd_write_file(cx, path, wav, sizeof wav - 1), XKD_OK);
        assert_string_equal(check_sound(name), words[k]);
    }
}

static void the_start_is_no_part_of_the_length(void **state)
{
    test_file f = small("matroska");
    (void)state;
    f.encode.video_start = f.encode.audio_start = 1000;
    xkd_media_info info = describe(make("late.mkv", &f));
    near("start", info.start, 1000, 0.1);
    near("length", info.end - info.start, 6, 0.1);
    is("late.mkv", true, "ok");
}

/* path + part */
static void append(const char *path, const char *part)
{
    char *a, *b, *both;
    int64_t n, k;
    assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &a, &n), XKD_OK);
    assert_int_equal(xkd_read_file(cx, part, 1 << 30, XKD_ERR_DATA, &b, &k), XKD_OK);
    assert_int_equal(xkd_alloc(cx, &both, n + k, 1), XKD_OK);
    memcpy(both, a, (size_t)n);
    memcpy(both + n, b, (size_t)k);
    assert_int_equal(xkd_write_file(cx, path, both, n + k), XKD_OK);
    xkd_free(a);
    xkd_free(b);
    xkd_free(both);
}

static void joined_recordings_are_told(void **state)
{
    char part[5000];
    test_file f = small("mpegts");
    (void)state;
    snprintf(part, sizeof part, "%s", make("part.ts", &f));
    append(make("twice.ts", &f), part);
    near("step back", describe(place_for("twice.ts")).clock_step, 6, 0.2);
    is("twice.ts", true, "clock");
    is("twice.ts", false, "clock");
    assert_non_null(strstr(judge("twice.ts", true, false).message, "the clock steps after 6.0"));
    /* The second begins an hour later: a step forward. */
    f.encode.video_start = f.encode.audio_start = 3600;
    append(part, make("later.ts", &f));
    near("step forward", describe(part).clock_step, 6, 0.2);
    is("later.ts", true, "ok");
}

/* Their demuxers end with the first recording, and the second would be lost without a word. */
static void recordings_behind_the_end_are_told(void **state)
{
    static const char *const FORMATS[] = {"mp4", "mov", "flv", "asf", "matroska", "avi"};
    static const char *const NAMES[] = {"two.mp4", "two.mov", "two.flv", "two.wmv", "two.mkv", "two.avi"};
    enum { SECOND = 2 * 8000 };
    static char wav[2 * (44 + SECOND)];
    char part[5000], path[5000];
    (void)state;
    for (int i = 0; i < 6; i++) {
        test_file f = small(FORMATS[i]);
        snprintf(part, sizeof part, "%s", make(NAMES[i], &f));
        is(NAMES[i], true, "ok");
        append(part, part);
        if (i == 5) { /* AVI counts its packets on: all is there, and the clock even */
            xkd_media_info info = describe(part);
            near(NAMES[i], info.end - info.start, 12, 0.2);
            is(NAMES[i], true, "ok");
            continue;
        }
        near(NAMES[i], describe(part).clock_step, 6, 0.2);
        is(NAMES[i], true, "clock");
        is(NAMES[i], false, "clock");
        const char *words = i == 4 ? "the clock steps after 6.0" : "another recording begins after 6.0";
        if (!strstr(judge(NAMES[i], true, false).message, words)) fail_msg("%s", judge(NAMES[i], true, false).message);
    }
    memcpy(wav, "RIFF\xA4\x3E\0\0WAVEfmt \20\0\0\0\1\0\1\0\100\37\0\0\200\76\0\0\2\0\20\0data\x80\x3E\0\0", 44);
    for (size_t i = 44; i < sizeof wav / 2; i++) wav[i] = (char)(i * 7 & 31);
    memcpy(wav + sizeof wav / 2, wav, sizeof wav / 2);
    snprintf(path, sizeof path, "%s", place_for("two.wav"));
    assert_int_equal(xkd_write_file(cx, path, wav, sizeof wav / 2), XKD_OK);
    assert_true(describe(path).clock_step == 0);
    assert_int_equal(xkd_write_file(cx, path, wav, sizeof wav), XKD_OK);
    near("two.wav", describe(path).clock_step, 1, 1e-3);
}

static void the_last_picture_can_be_held(void **state)
{
    test_file f = small("matroska");
    (void)state;
    f.picture_seconds = 0.04;
    make("still.mkv", &f);
    xkd_finding found = judge("still.mkv", true, false);
    assert_int_equal(found.fault, XKD_FAULT_SHORT);
    assert_non_null(strstr(found.message, "data.hold_last_frame=true"));
    found = judge("still.mkv", true, true);
    assert_string_equal(xkd_media_fault_name(found.fault), "ok");
    near("held", found.seconds, 6, 0.1);
    f.encode.format = "mp4";
    make("still.mp4", &f);
    assert_string_equal(xkd_media_fault_name(judge("still.mp4", true, true).fault), "ok");
}

/* 45 s of one grey picture: an encoder would make key frames of its own where pictures change. */
static void make_grey(const char *name, const char *format, int64_t key_frames)
{
    static uint8_t rgb[3 * TEST_WIDTH * 48];
    static int16_t sound[2 * 44100 / 5];
    test_file f = small(format);
    xkd_encoder *e = NULL;
    f.encode.fps = 5;
    f.encode.key_frames = key_frames;
    memset(rgb, 100, sizeof rgb);
    for (int k = 0; k < 2 * 44100 / 5; k++) sound[k] = (int16_t)(1000 * (k % 50));
    assert_int_equal(xkd_encoder_new(cx, place_for(name), &f.encode, &e), XKD_OK);
    for (int i = 0; i < 225; i++) {
        assert_int_equal(xkd_encoder_frame(e, rgb, i / 5.0), XKD_OK);
        assert_int_equal(xkd_encoder_sound(e, sound, 44100 / 5), XKD_OK);
    }
    assert_int_equal(xkd_encoder_commit(e), XKD_OK);
}

static void rare_key_frames_are_told(void **state)
{
    static const char *const NAMES[][2] = {{"onekey.mp4", "mp4"}, {"onekey.mkv", "matroska"}};
    (void)state;
    for (int i = 0; i < 2; i++) {
        make_grey(NAMES[i][0], NAMES[i][1], 100000);
        xkd_finding found = judge(NAMES[i][0], true, false);
        assert_string_equal(xkd_media_fault_name(found.fault), "ok");
        if (!strstr(found.note, "key frames up to 45 s apart") ||
            !strstr(found.note, "(ffmpeg -i FILE -c:a copy -g 100"))
            fail_msg("\"%s\"", found.note);
    }
    make_grey("keys.mkv", "matroska", 25);
    assert_string_equal(judge("keys.mkv", true, false).note, "");
}

static xkd_media_span span_of(const xkd_sample *s, const char *path)
{
    int fd;
    int64_t size;
    assert_int_equal(xkd_open_read(cx, path, &fd, &size), XKD_OK);
    xkd_media_span span = xkd_sample_span(s, fd, 0);
    close(fd);
    return span;
}

/* To the bit: what a manifest keeps is what the file itself says. */
static void a_manifest_keeps_the_span(void **state)
{
    char where[4500], out[5000];
    xkd_manifest m, again;
    xkd_finding f;
    xkd_data_config data = small_data_config(folder);
    xkd_check_options options = {.threads = 1};
    test_file t = small("matroska");
    (void)state;
    t.picture_seconds = 4.36;
    t.encode.audio_start = 0.1;
    const char *path = make("kept.mkv", &t);
    xkd_media_info info = describe(path);
    snprintf(where, sizeof where, "%s/kept.mkv", folder);
    snprintf(out, sizeof out, "%s/kept.jsonl", folder);
    assert_int_equal(xkd_manifest_load(cx, where, false, &m), XKD_OK);
    xkd_media_span span = span_of(&m.samples[0], path);
    assert_false(span.known);
    assert_int_equal(xkd_check(cx, &m, &data, &options, &f), XKD_OK);
    assert_int_equal(xkd_manifest_write(cx, &m, out, where), XKD_OK);
    assert_int_equal(xkd_manifest_read(cx, out, &again), XKD_OK);
    span = span_of(&again.samples[0], path);
    assert_true(span.known);
    assert_true(span.video_start == info.video_start && span.video_end == info.video_end);
    assert_true(span.audio_start == info.audio_start && span.audio_end == info.audio_end);
    assert_true(span.video_last == info.video_last);
    /* It is of the sound track that was probed. */
    assert_int_equal(xkd_sample_set_step_and_track(cx, &again, &again.samples[0], 0, 2), XKD_OK);
    assert_false(span_of(&again.samples[0], path).known);
    xkd_manifest_free(&m);
    xkd_manifest_free(&again);
}

/* The clip at `place` of the manifest's one file; the fetcher holds it. */
static xkd_clip clip_at(xkd_fetcher *f, double place)
{
    xkd_clip clip;
    bool silent;
    xkd_media_result result;
    assert_int_equal(xkd_fetch_clip(f, 0, place, &clip, &silent, &result), XKD_OK);
    if (result.fault != XKD_FAULT_NONE) fail_msg("at %g: %s", place, result.message);
    assert_false(silent);
    return clip;
}

/* The second half of a transport stream becomes null packets: another file of the same name and size. */
static void a_replaced_file_loses_its_span(void **state)
{
    char where[4500], *bytes;
    int64_t size;
    xkd_manifest m;
    xkd_finding found;
    xkd_fetcher *f = NULL;
    xkd_data_config data = small_data_config(folder);
    xkd_check_options options = {.threads = 1, .hash = XKD_HASH_FULL};
    test_file t = small("mpegts");
    const char *path = make("replaced.ts", &t);
    (void)state;
    data.max_clip_damage = 0.1;
    snprintf(where, sizeof where, "%s/replaced.ts", folder);
    assert_int_equal(xkd_manifest_load(cx, where, false, &m), XKD_OK);
    assert_int_equal(xkd_check(cx, &m, &data, &options, &found), XKD_OK);
    near("before", m.samples[0].video_seconds, 6, 0.1);
    assert_true(span_of(&m.samples[0], path).known);
    assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &bytes, &size), XKD_OK);
    for (int64_t at = size / 188 / 2 * 188; at + 188 <= size; at += 188) {
        memset(bytes + at, 0xff, 188);
        memcpy(bytes + at, "\x47\x1f\xff\x10", 4);
    }
    assert_int_equal(xkd_write_file(cx, path, bytes, size), XKD_OK);
    xkd_free(bytes);
    assert_false(span_of(&m.samples[0], path).known);
    /* Drawn from what is there now: by the old span this clip would lie behind the end. */
    assert_int_equal(xkd_fetcher_new(cx, &data, &m, NULL, &f), XKD_OK);
    assert_int_equal(clip_at(f, 0.99).count, 16);
    xkd_fetcher_free(f);
    xkd_manifest_free(&m);
}

/* The first clip of a file that was indexed without being read through is that of one whose span is known. */
static void the_first_open_finds_the_same_span(void **state)
{
    static const char *const FORMATS[] = {"matroska", "mpegts", "flv", "mp4"};
    static const char *const NAMES[] = {"probe.mkv", "probe.ts", "probe.flv", "probe.mp4"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        char where[4500];
        xkd_manifest m[2];
        xkd_fetcher *f[2];
        xkd_data_config data = small_data_config(folder);
        test_file t = small(FORMATS[i]);
        t.picture_seconds = 4.36;
        make(NAMES[i], &t);
        data.max_clip_damage = 0.1;
        snprintf(where, sizeof where, "%s/%s", folder, NAMES[i]);
        for (int k = 0; k < 2; k++) {
            xkd_check_options options = {.threads = 1, .names_only = k == 1};
            xkd_finding found;
            assert_int_equal(xkd_manifest_load(cx, where, false, &m[k]), XKD_OK);
            assert_int_equal(xkd_check(cx, &m[k], &data, &options, &found), XKD_OK);
            assert_string_equal(xkd_media_fault_name(found.fault), "ok");
            assert_int_equal(m[k].samples[0].measured, k == 0);
            near(NAMES[i], m[k].samples[0].video_seconds, k == 0 ? 4.36 : 0, 0.06);
            assert_int_equal(m[k].samples[0].has_audio, k == 0 ? 1 : -1);
            assert_true(m[k].samples[0].bytes > 0 && m[k].samples[0].modified > 0);
            assert_int_equal(xkd_fetcher_new(cx, &data, &m[k], NULL, &f[k]), XKD_OK);
        }
        for (int place = 0; place < 4; place++) {
            xkd_clip x = clip_at(f[0], place / 4.0), y = clip_at(f[1], place / 4.0);
            assert_int_equal(x.count, y.count);
            assert_memory_equal(x.frames, y.frames, (size_t)(3 * x.count * x.height * x.width));
            assert_int_equal(x.samples, y.samples);
            assert_memory_equal(x.sound, y.sound, (size_t)x.samples * sizeof *x.sound);
        }
        for (int k = 0; k < 2; k++) {
            xkd_fetcher_free(f[k]);
            xkd_manifest_free(&m[k]);
        }
    }
}

static int loudest(const xkd_clip *clip)
{
    int peak = 0;
    for (int64_t i = 0; i < clip->samples; i++) peak = abs(clip->sound[i]) > peak ? abs(clip->sound[i]) : peak;
    return peak;
}

/* A file of two sound tracks, of which the first is silent (scripts/make-media-seeds). */
static void the_sound_track_can_be_chosen(void **state)
{
    static const char *const FOUND[] = {"nothing to hear in its sound (track 1 of 2: data.audio_track=N takes another)",
                                        "nothing to hear in its sound (track 1 of 2: data.audio_track=N takes another)",
                                        "", "no sound track 3, only 2 (set data.audio_track to one of them)"};
    char *bytes, where[4500];
    int64_t size;
    (void)state;
    assert_int_equal(xkd_read_file(cx, "tests/fuzz/corpus/media/tracks.mkv", 1 << 20, XKD_ERR_DATA, &bytes, &size),
                     XKD_OK);
    assert_int_equal(xkd_write_file(cx, place_for("tracks.mkv"), bytes, size), XKD_OK);
    xkd_free(bytes);
    snprintf(where, sizeof where, "%s/tracks.mkv", folder);
    for (int track = 0; track < 4; track++) {
        xkd_manifest m;
        xkd_finding found;
        xkd_fetcher *f = NULL;
        xkd_clip clip;
        bool silent;
        xkd_media_result result;
        xkd_data_config data = small_data_config(folder);
        xkd_check_options options = {.threads = 1, .decode = true};
        data.audio_track = track;
        data.max_clip_damage = 0.1;
        assert_int_equal(xkd_manifest_load(cx, where, false, &m), XKD_OK);
        assert_int_equal(xkd_check(cx, &m, &data, &options, &found), XKD_OK);
        assert_string_equal(found.message, FOUND[track]);
        assert_string_equal(xkd_media_fault_name(found.fault), track == 2 ? "ok" : "silent");
        assert_int_equal(xkd_fetcher_new(cx, &data, &m, NULL, &f), XKD_OK);
        assert_int_equal(xkd_fetch_clip(f, 0, 0.5, &clip, &silent, &result), XKD_OK);
        assert_int_equal(result.fault, XKD_FAULT_NONE);
        assert_int_equal(silent, track == 3);
        if (track == 2) assert_in_range(loudest(&clip), 3500, 4500); /* the sine's 1/8 */
        if (track < 2) assert_int_equal(loudest(&clip), 0);
        xkd_fetcher_free(f);
        xkd_manifest_free(&m);
    }
}

/* 44.1 kHz sound may differ by where the two resamplers began, each within half a sample: at 1 kHz and 12 000 steps
 * 2 pi 1000 / 16000 of the amplitude. */
static const int RESAMPLER_STEPS = 4720;

static void compare_sound(const char *name, const xkd_clip *x, const xkd_clip *y, int tolerance)
{
    int64_t n = x->samples < y->samples ? x->samples : y->samples;
    int worst = 0;
    if (llabs(x->samples - y->samples) > 2) fail_msg("%s: %d and %d samples", name, (int)x->samples, (int)y->samples);
    for (int64_t k = 0; k < n - 32; k++) {
        int d = abs(x->sound[k] - y->sound[k]);
        if (d > worst) worst = d;
    }
    if (worst > tolerance) fail_msg("%s: sound differs by %d (of %d samples)", name, worst, (int)n);
}

/* Clips of one file with the cache, and without it on the cache's grid. */
static void compare(const char *name, int tolerance)
{
    static const double PLACES[] = {0, 0.3, 0.55, 0.99};
    char where[4500];
    xkd_manifest m;
    xkd_cache *kept = NULL, *passed = NULL;
    xkd_fetcher *a = NULL, *b = NULL;
    xkd_data_config data = small_data_config(folder);
    data.cache = XKD_CACHE_RAM;
    data.max_clip_damage = 0.1;
    snprintf(where, sizeof where, "%s/%s", folder, name);
    assert_int_equal(xkd_manifest_load(cx, where, false, &m), XKD_OK);
    assert_int_equal(xkd_cache_new(cx, &data, 1, &kept), XKD_OK);
    assert_int_equal(xkd_cache_new(cx, &data, 1, &passed), XKD_OK);
    xkd_cache_pass(passed, 0);
    assert_int_equal(xkd_fetcher_new(cx, &data, &m, kept, &a), XKD_OK);
    assert_int_equal(xkd_fetcher_new(cx, &data, &m, passed, &b), XKD_OK);
    for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
        xkd_clip x, y;
        bool silent[2];
        xkd_media_result r[2];
        assert_int_equal(xkd_fetch_clip(a, 0, PLACES[i], &x, &silent[0], &r[0]), XKD_OK);
        assert_int_equal(xkd_fetch_clip(b, 0, PLACES[i], &y, &silent[1], &r[1]), XKD_OK);
        if (r[0].fault != r[1].fault)
            fail_msg("%s: %s %s and %s %s", name, xkd_media_fault_name(r[0].fault), r[0].message,
                     xkd_media_fault_name(r[1].fault), r[1].message);
        assert_int_equal(silent[0], silent[1]);
        if (x.count != y.count) fail_msg("%s at %g: %d and %d frames", name, PLACES[i], (int)x.count, (int)y.count);
        if (x.count) assert_memory_equal(x.frames, y.frames, (size_t)(3 * x.count * x.height * x.width));
        compare_sound(name, &x, &y, tolerance);
    }
    xkd_fetcher_free(a);
    xkd_fetcher_free(b);
    xkd_cache_free(kept);
    xkd_cache_free(passed);
    xkd_manifest_free(&m);
}

static void cached_and_uncached_agree(void **state)
{
    static const char *const NAMES[] = {"p3.mkv",   "s3.mkv",   "p3.ts",    "s3.ts",    "p3.flv",
                                        "s3.flv",   "p3.mp4",   "s3.mp4",   "p3.avi",   "s3.avi",
                                        "live.mkv", "late.mkv", "twice.ts", "kept.mkv", "still.mkv"};
    (void)state;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) compare(NAMES[i], RESAMPLER_STEPS);
    test_file f = small("matroska");
    f.encode.sample_rate = 16000;
    make("same_rate.mkv", &f);
    compare("same_rate.mkv", 2);
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_stream_has_its_own_length),     cmocka_unit_test(a_length_need_not_be_told),
        cmocka_unit_test(the_start_is_no_part_of_the_length), cmocka_unit_test(joined_recordings_are_told),
        cmocka_unit_test(recordings_behind_the_end_are_told), cmocka_unit_test(a_table_of_packets_is_believed_alone),
        cmocka_unit_test(an_edit_may_last_to_the_end),        cmocka_unit_test(a_placeholder_is_no_length),
        cmocka_unit_test(a_wrong_length_is_no_cut),           cmocka_unit_test(the_last_picture_can_be_held),
        cmocka_unit_test(rare_key_frames_are_told),           cmocka_unit_test(a_manifest_keeps_the_span),
        cmocka_unit_test(a_replaced_file_loses_its_span),     cmocka_unit_test(the_first_open_finds_the_same_span),
        cmocka_unit_test(the_sound_track_can_be_chosen),      cmocka_unit_test(cached_and_uncached_agree),
    };
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("span"));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
