/* What goes wrong behind the first frame or at the first sample of a clip: colours of full-range files, layouts that change,
 * sound that needs more than its own packet, indexes that lie. Files are seeds of scripts/make-media-seeds, or made here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "media/ffmpeg.h"
#include "media/media.h"
#include "media_files.h"

enum { RATE = 16000, MOST = 8 * RATE, FRAMES = 64 };

static xkd_context *cx;
static char folder[4096];

static struct {
    int16_t sound[MOST];
    int64_t samples, frames, width, height;
    double begins; /* the common clock, s on the file's */
    int number[FRAMES];
    uint8_t pixel[FRAMES][3]; /* of the middle */
    xkd_media_tally tally;
} got;

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    (void)user, (void)start;
    memset(&got, 0, sizeof got);
    got.begins = info->start;
    return XKD_OK;
}

static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    (void)user;
    assert_in_range(index, 0, FRAMES - 1);
    memcpy(got.pixel[index], rgb + 3 * (height / 2 * width + width / 2), 3);
    got.number[index] = read_number(rgb, width, height);
    got.frames = index + 1;
    got.width = width;
    got.height = height;
    return XKD_OK;
}

static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    (void)user;
    assert_true(got.samples + count <= MOST);
    memcpy(got.sound + got.samples, samples, (size_t)count * sizeof *samples);
    got.samples += count;
    return XKD_OK;
}

static void decode(const char *path, const xkd_media_request *r)
{
    xkd_media *media = NULL;
    xkd_media_fault fault;
    xkd_media_sink sink = {.begin = on_begin, .frame = on_frame, .sound = on_sound};
    xkd_media_tally tally;
    if (xkd_media_open(cx, path, &media, &fault) != XKD_OK ||
        xkd_media_decode(media, r, &sink, &tally, &fault) != XKD_OK)
        fail_msg("%s: %s", path, xkd_last_error(cx));
    got.tally = tally;
    xkd_media_free(media);
}

static const char *seed(const char *name)
{
    static char path[200];
    snprintf(path, sizeof path, "tests/fuzz/corpus/media/%s", name);
    return path;
}

static double rms(int64_t from, int64_t count)
{
    double sum = 0;
    for (int64_t i = from; i < from + count; i++) sum += (double)got.sound[i] * got.sound[i];
    return sqrt(sum / (double)count);
}

/* Y 128, U 128, V 180 of BT.709 in full range: R = 128 + 1.5748 * 52, G = 128 - 0.4681 * 52. */
static void the_streams_colours_hold_for_every_frame(void **state)
{
    static const int COLOUR[] = {210, 104, 128};
    xkd_media_request r = {.mode = XKD_CLIP_WHOLE, .fps = 8, .audio_rate = RATE, .video = true, .stream_colour = true};
    (void)state;
    decode(seed("full-range.mkv"), &r);
    assert_int_equal(got.frames, 16);
    for (int i = 0; i < 16; i++)
        for (int c = 0; c < 3; c++)
            if (abs(got.pixel[i][c] - COLOUR[c]) > 2)
                fail_msg("frame %d: %d of channel %d is not %d", i, got.pixel[i][c], c, COLOUR[c]);
}

/* The tone is in the third of three channels: first the centre, which is mixed in, then LFE, which is not. */
static void layouts_are_more_than_a_number_of_channels(void **state)
{
    xkd_media_request r = {.mode = XKD_CLIP_WHOLE, .fps = 8, .audio_rate = RATE, .audio = true};
    (void)state;
    decode(seed("layouts.mkv"), &r);
    assert_in_range(got.samples, (int)(1.9 * RATE), (int)(2.2 * RATE));
    double centre = rms(RATE / 4, RATE / 2), lfe = rms(RATE + RATE / 4, RATE / 2);
    if (centre < 2000 || lfe > 0.01 * centre) fail_msg("centre %g, LFE %g", centre, lfe);
}

/* Of the tone's 11 600: no stretch of 10 ms in the first 0.2 s may be silence, whatever key frame the pictures lead to. */
static void sound_is_there_from_the_first_sample(void **state)
{
    static const char *const NAMES[] = {"steady-vorbis.mkv", "steady-opus.mkv", "steady-mp3.mkv"};
    (void)state;
    for (int k = 0; k < 3; k++) {
        for (double start = 0.3; start < 3.9; start += 0.0937) {
            xkd_media_request r = {.mode = XKD_CLIP_AT,
                                   .start = start,
                                   .duration = 1,
                                   .fps = 8,
                                   .audio_rate = RATE,
                                   .video = true,
                                   .audio = true};
            decode(seed(NAMES[k]), &r);
            assert_int_equal(got.frames, 8);
            assert_int_equal(got.samples, RATE);
            assert_int_equal(got.tally.errors, 0);
            for (int piece = 0; piece < 20; piece++) {
                double level = rms(piece * RATE / 100, RATE / 100);
                if (level < 8000 || level > 16000)
                    fail_msg("%s at %g: %g of sound after %d ms", NAMES[k], start, level, 10 * piece);
            }
        }
    }
}

/* Stamps in milliseconds, of which each packet of Opus loses some: a clip has the samples of the whole file all the same. */
static void a_clip_has_the_samples_of_the_file(void **state)
{
    static int16_t whole[MOST];
    xkd_media_request all = {.mode = XKD_CLIP_WHOLE, .fps = 8, .audio_rate = RATE, .video = true, .audio = true},
                      clip = all;
    (void)state;
    decode(seed("steady-opus.mkv"), &all);
    memcpy(whole, got.sound, sizeof whole);
    clip.mode = XKD_CLIP_AT;
    clip.duration = 1;
    for (int start = 3; start < 31; start++) {
        clip.start = start / 8.0;
        decode(seed("steady-opus.mkv"), &clip);
        int worst = 0;
        for (int64_t i = 0; i < got.samples; i++) {
            int d = abs(got.sound[i] - whole[start * RATE / 8 + i]);
            worst = d > worst ? d : worst;
        }
        /* One sample of the tone is 2 pi 440 / 16000 of its 16 000: 2765. Opus itself comes within 900. */
        if (worst > 1300) fail_msg("at %g: off by %d", clip.start, worst);
    }
}

static int64_t big_endian(const char *at)
{
    const unsigned char *b = (const unsigned char *)at;
    return (int64_t)b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3];
}

/* The index of an MP4 calls a frame a key frame that is none: decoding begins again further back, and the sound that was
 * silence then, as it came before the first one read, must not stay so. */
static void an_index_that_lies_costs_nothing(void **state)
{
    static int16_t truth[MOST];
    char path[5000], *bytes, *at;
    int64_t size;
    test_file file = test_file_default();
    (void)state;
    snprintf(path, sizeof path, "%s/index.mp4", folder);
    if (make_test_file(cx, path, &file) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &bytes, &size), XKD_OK);
    at = memmem(bytes, (size_t)size, "stss", 4);
    assert_non_null(at);
    /* version and flags, count, then the numbers of key frames from 1. The clip begins three frames before the third. */
    int64_t second = big_endian(at + 16), third = big_endian(at + 20), lie = (second + third) / 2;
    assert_in_range(third - second, 16, 40);
    double start = (double)(third - 1 - 3) / 25;
    xkd_media_request r = {
        .mode = XKD_CLIP_AT, .start = start, .duration = 2, .fps = 8, .audio_rate = RATE, .video = true, .audio = true};
    decode(path, &r);
    int64_t samples = got.samples;
    memcpy(truth, got.sound, sizeof truth);
    assert_int_equal(got.frames, 16);
    assert_true(rms(0, 1600) > 5000);
    at[18] = (char)(lie >> 8);
    at[19] = (char)lie;
    assert_int_equal(xkd_write_file(cx, path, bytes, size), XKD_OK);
    xkd_free(bytes);
    decode(path, &r);
    assert_int_equal(got.frames, 16);
    for (int i = 0; i < 16; i++)
        assert_in_range(got.number[i], (int)((start + i / 8.0) * 25) - 1, (int)((start + i / 8.0) * 25) + 1);
    assert_int_equal(got.samples, samples);
    for (int64_t i = 0; i < samples; i++)
        if (abs(got.sound[i] - truth[i]) > 600) fail_msg("sample %d: %d for %d", (int)i, got.sound[i], truth[i]);
}

/* Each packet is called a key frame, and behind the seek none is one: the decoder waits for it up to the end. */
static void a_key_frame_that_is_none_costs_nothing(void **state)
{
    char path[5000], *bytes, *at;
    int64_t size;
    test_file file = test_file_default();
    (void)state;
    file.encode.key_frames = 1000;
    snprintf(path, sizeof path, "%s/all-keys.mp4", folder);
    if (make_test_file(cx, path, &file) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &bytes, &size), XKD_OK);
    at = memmem(bytes, (size_t)size, "stss", 4);
    assert_non_null(at);
    int64_t keys = big_endian(at + 8); /* another where all bars change */
    assert_true(big_endian(at + 8 + 4 * keys) < 130);
    memcpy(at, "free", 4);
    assert_int_equal(xkd_write_file(cx, path, bytes, size), XKD_OK);
    xkd_free(bytes);
    xkd_media_request r = {
        .mode = XKD_CLIP_AT, .start = 5.4, .duration = 0.5, .fps = 8, .audio_rate = RATE, .video = true, .audio = true};
    decode(path, &r);
    assert_int_equal(got.frames, 4);
    for (int i = 0; i < 4; i++) assert_int_equal(got.number[i], (int)((5.4 + i / 8.0) * 25 + 1e-6));
    assert_int_equal(got.samples, RATE / 2);
    assert_true(rms(0, 1600) > 5000);
}

/* A stream of which the second half has another size. */
static const char *make_two_sizes(void)
{
    static char path[5000];
    char half[5100], *bytes[2];
    int64_t size[2];
    for (int k = 0; k < 2; k++) {
        test_file file = test_file_default();
        file.encode.format = "mpegts";
        file.encode.sample_rate = 0;
        file.encode.width = k ? 2 * TEST_WIDTH : TEST_WIDTH;
        file.encode.video_start = 1 + 3 * k;
        file.seconds = 3;
        snprintf(half, sizeof half, "%s/half.ts", folder);
        if (make_test_file(cx, half, &file) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
        assert_int_equal(xkd_read_file(cx, half, 1 << 30, XKD_ERR_DATA, &bytes[k], &size[k]), XKD_OK);
    }
    snprintf(path, sizeof path, "%s/two-sizes.ts", folder);
    char *both = malloc((size_t)(size[0] + size[1]));
    for (int k = 0; k < 2; k++) memcpy(both + k * size[0], bytes[k], (size_t)size[k]);
    assert_int_equal(xkd_write_file(cx, path, both, size[0] + size[1]), XKD_OK);
    free(both);
    for (int k = 0; k < 2; k++) xkd_free(bytes[k]);
    return path;
}

/* Clips of a file have one size, wherever they begin: a cache holds one. */
static void a_file_has_one_size(void **state)
{
    (void)state;
    const char *path = make_two_sizes();
    for (int k = 0; k < 2; k++) {
        xkd_media_request r = {
            .mode = XKD_CLIP_AT, .start = k ? 4.04 : 1.0, .duration = 1, .fps = 8, .audio_rate = RATE, .video = true};
        decode(path, &r);
        assert_int_equal(got.frames, 8);
        assert_int_equal(got.width, TEST_WIDTH);
        assert_int_equal(got.height, TEST_HEIGHT);
        for (int i = 0; i < 8; i++) assert_in_range(got.number[i], 24 + k + i * 25 / 8, 26 + k + i * 25 / 8);
    }
}

/* Drops the pictures before the second key frame of a transport stream, but for the three in front of it. */
static int64_t cut_before_key(char *bytes, int64_t size)
{
    enum { PACKET = 188, PICTURES_PID = 0x100, MOST_STARTS = 1000 };
    int64_t starts[MOST_STARTS], count = 0, keys = 0, kept = 0;
    for (int64_t at = 0; at < size && keys < 2; at += PACKET) {
        const uint8_t *p = (const uint8_t *)bytes + at;
        if (((p[1] & 0x1F) << 8 | p[2]) != PICTURES_PID || !(p[1] & 0x40)) continue;
        assert_true(count < MOST_STARTS);
        starts[count++] = at;
        keys += p[3] & 0x20 && p[4] > 0 && p[5] & 0x40;
    }
    assert_true(keys == 2 && count > 4);
    for (int64_t at = 0; at < size; at += PACKET) {
        const uint8_t *p = (const uint8_t *)bytes + at;
        if (((p[1] & 0x1F) << 8 | p[2]) == PICTURES_PID && at < starts[count - 4]) continue;
        memmove(bytes + kept, bytes + at, PACKET);
        kept += PACKET;
    }
    return kept;
}

/* A recording that began a little before a key frame begins with it: nothing is missing in front of the first clip. */
static void a_film_begins_with_its_first_key_frame(void **state)
{
    char path[5000], *bytes;
    int64_t size;
    test_file file = test_file_default();
    xkd_media_request r = {
        .mode = XKD_CLIP_AT, .start = 0, .duration = 1, .fps = 25, .audio_rate = RATE, .video = true, .audio = true};
    (void)state;
    file.encode.format = "mpegts";
    snprintf(path, sizeof path, "%s/late-key.ts", folder);
    if (make_test_file(cx, path, &file) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    decode(path, &r);
    double whole = got.begins;
    assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &bytes, &size), XKD_OK);
    assert_int_equal(xkd_write_file(cx, path, bytes, cut_before_key(bytes, size)), XKD_OK);
    xkd_free(bytes);
    decode(path, &r);
    assert_int_equal(got.frames, 25);
    assert_true(got.number[0] > 3);
    for (int i = 0; i < 25; i++) assert_int_equal(got.number[i], got.number[0] + i);
    if (fabs(got.begins - whole - got.number[0] / 25.0) > 1e-3)
        fail_msg("picture %d at %g s", got.number[0], got.begins - whole);
    assert_true(got.tally.video_damage == 0);
}

/* Copies a film into an MP4 file whose packets are encrypted. */
static void encrypt(const char *from, const char *to)
{
    AVFormatContext *in = NULL, *out = NULL;
    AVDictionary *options = NULL;
    AVPacket *packet = av_packet_alloc();
    assert_int_equal(avformat_open_input(&in, from, NULL, NULL), 0);
    assert_true(avformat_alloc_output_context2(&out, NULL, "mp4", to) >= 0);
    for (unsigned i = 0; i < in->nb_streams; i++) {
        AVStream *stream = avformat_new_stream(out, NULL);
        assert_int_equal(avcodec_parameters_copy(stream->codecpar, in->streams[i]->codecpar), 0);
        stream->codecpar->codec_tag = 0;
        stream->time_base = in->streams[i]->time_base;
    }
    av_dict_set(&options, "encryption_scheme", "cenc-aes-ctr", 0);
    av_dict_set(&options, "encryption_key", "76a6c65c5ea762046bd749a2e632ccbb", 0);
    av_dict_set(&options, "encryption_kid", "a7e61c373e219033c21091fa607bf3b8", 0);
    assert_int_equal(avio_open(&out->pb, to, AVIO_FLAG_WRITE), 0);
    assert_true(avformat_write_header(out, &options) >= 0);
    while (av_read_frame(in, packet) >= 0) {
        av_packet_rescale_ts(packet, in->streams[packet->stream_index]->time_base,
                             out->streams[packet->stream_index]->time_base);
        assert_int_equal(av_interleaved_write_frame(out, packet), 0);
    }
    assert_int_equal(av_write_trailer(out), 0);
    avio_closep(&out->pb);
    avformat_free_context(out);
    avformat_close_input(&in);
    av_dict_free(&options);
    av_packet_free(&packet);
}

/* A film that was bought is whole, and says why it cannot be used. */
static void encryption_is_no_damage(void **state)
{
    char plain[5000], path[5000];
    test_file file = test_file_default();
    xkd_media_sink sink = {.begin = on_begin, .frame = on_frame, .sound = on_sound};
    (void)state;
    file.seconds = 2;
    snprintf(plain, sizeof plain, "%s/plain.mp4", folder);
    snprintf(path, sizeof path, "%s/encrypted.mp4", folder);
    if (make_test_file(cx, plain, &file) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    encrypt(plain, path);
    for (int k = 1; k < 4; k++) {
        xkd_media *media = NULL;
        xkd_media_fault fault;
        xkd_media_tally tally;
        xkd_media_request r = {.mode = XKD_CLIP_AT, .duration = 1, .fps = 8, .audio_rate = RATE};
        r.video = k & 1;
        r.audio = k & 2;
        assert_int_equal(xkd_media_open(cx, path, &media, &fault), XKD_OK);
        assert_int_equal(xkd_media_decode(media, &r, &sink, &tally, &fault), XKD_ERR_DATA);
        assert_string_equal(xkd_media_fault_name(fault), "refused");
        assert_non_null(strstr(xkd_last_error(cx), "is encrypted"));
        xkd_clear_error(cx);
        xkd_media_free(media);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_streams_colours_hold_for_every_frame),
        cmocka_unit_test(layouts_are_more_than_a_number_of_channels),
        cmocka_unit_test(sound_is_there_from_the_first_sample),
        cmocka_unit_test(a_clip_has_the_samples_of_the_file),
        cmocka_unit_test(an_index_that_lies_costs_nothing),
        cmocka_unit_test(a_key_frame_that_is_none_costs_nothing),
        cmocka_unit_test(a_file_has_one_size),
        cmocka_unit_test(a_film_begins_with_its_first_key_frame),
        cmocka_unit_test(encryption_is_no_damage),
    };
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("details"));
    if (xkd_make_folder(cx, folder) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
