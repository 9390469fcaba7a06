/* Sound that needs more than its own packet: wherever a clip begins, its samples are those of the whole file. Codecs that look
 * back (the bit reservoir of MP3, the overlap of Vorbis and AAC, the 80 ms of Opus, bits of layer II that stand alone) in
 * containers that tell their delay in different ways: edit lists, CodecDelay and SeekPreRoll, nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <libavutil/opt.h>
#include <limits.h>

#include "base/file.h"
#include "media/ffmpeg.h"
#include "media/media.h"
#include "media_files.h"

enum { RATE = 16000, FPS = 8, SECONDS = 6, MOST = (SECONDS + 2) * RATE };

static xkd_context *cx;
static char folder[4096];

typedef struct {
    int16_t sound[MOST];
    int64_t count;
    double length;
} heard;

static heard whole, clip;

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    heard *h = user;
    (void)start;
    memset(h, 0, sizeof *h);
    h->length = info->end - info->start;
    return XKD_OK;
}

static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    (void)user, (void)rgb, (void)width, (void)height, (void)index;
    return XKD_OK;
}

static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    heard *h = user;
    assert_true(h->count + count <= MOST);
    memcpy(h->sound + h->count, samples, (size_t)count * sizeof *samples);
    h->count += count;
    return XKD_OK;
}

static void decode(const char *path, xkd_clip_mode mode, double start, bool video, heard *out)
{
    xkd_media *media = NULL;
    xkd_media_fault fault;
    xkd_media_tally tally;
    const xkd_media_sink sink = {.user = out, .begin = on_begin, .frame = on_frame, .sound = on_sound};
    const xkd_media_request r = {
        .mode = mode, .start = start, .duration = 1, .fps = FPS, .audio_rate = RATE, .video = video, .audio = true};
    if (xkd_media_open(cx, path, &media, &fault) != XKD_OK ||
        xkd_media_decode(media, &r, &sink, &tally, &fault) != XKD_OK)
        fail_msg("%s: %s", path, xkd_last_error(cx));
    assert_true(tally.audio_damage == 0);
    assert_true(xkd_media_about(media)->cut_at == 0);
    xkd_media_free(media);
}

/* Strokes and rests: what follows a stroke takes its bits from before, and a rest is where noise is heard. */
static int16_t stroke(int64_t sample, int64_t rate)
{
    double t = (double)sample / (double)rate, in = fmod(t, 0.37);
    return (int16_t)(14000 * exp(-9 * in) * sin(2 * M_PI * (300 + 90 * t) * t) + 4000 * sin(2 * M_PI * 210 * t));
}

/* Of 32768. AAC leaves noise to its decoders: those of FFmpeg 5.1 differ by up to 1 638, those of 7.1 by 2 061. */
enum { AAC_NOISE = LIBAVCODEC_VERSION_MAJOR < 61 ? 2000 : 2500 };

static const struct {
    const char *codec, *format, *ending;
    int64_t rate;
    /* Of 32768, what two decoders that began apart may differ by: AC-3, AAC and Opus fill in noise, transport streams round
     * stamps to 11 microseconds. Samples that the sound may be moved by: Vorbis and WMA have frames of several lengths, and
     * stamps of these containers count milliseconds, so that a part of a sample is left. The steepest strokes, at 1 380 Hz,
     * change by 7 900 within a sample. */
    int most, moved;
} kinds[] = {
    {"libmp3lame", "matroska", "mkv", 44100, 4, 0},
    {"libmp3lame", "matroska", "mkv", 16000, 4, 0},
    {"libmp3lame", "avi", "avi", 44100, 4, 0},
    {"libmp3lame", "avi", "avi", 16000, 4, 0},
    {"libmp3lame", "mp4", "mp4", 44100, 4, 0},
    {"libmp3lame", "mp4", "mp4", 16000, 4, 0},
    {"libmp3lame", "mpegts", "ts", 44100, 120, 0},
    {"libmp3lame", "mpegts", "ts", 16000, 120, 0},
    {"libmp3lame", "flv", "flv", 44100, 4, 0},
    {"libopus", "matroska", "mkv", 48000, 1000, 0},
    {"libopus", "webm", "webm", 48000, 1000, 0},
    {"libopus", "mp4", "mp4", 48000, 1000, 0},
    {"libopus", "mpegts", "ts", 48000, 1000, 0},
    {"aac", "mp4", "mp4", 44100, AAC_NOISE, 0},
    {"aac", "mp4", "mp4", 16000, AAC_NOISE, 0},
    {"aac", "mov", "mov", 44100, AAC_NOISE, 0},
    {"aac", "mov", "mov", 16000, AAC_NOISE, 0},
    {"aac", "matroska", "mkv", 44100, AAC_NOISE, 0},
    {"aac", "matroska", "mkv", 16000, AAC_NOISE, 0},
    {"aac", "mpegts", "ts", 44100, AAC_NOISE, 0},
    {"aac", "mpegts", "ts", 16000, AAC_NOISE, 0},
    {"aac", "flv", "flv", 44100, AAC_NOISE, 0},
    {"aac", "flv", "flv", 16000, AAC_NOISE, 0},
    {"libvorbis", "webm", "webm", 44100, 7000, 17},
    {"libvorbis", "matroska", "mkv", 44100, 7000, 17},
    {"mp2", "mpegts", "ts", 44100, 30, 0},
    {"mp2", "mpegts", "ts", 16000, 30, 0},
    {"mp2", "avi", "avi", 44100, 30, 0},
    {"mp2", "avi", "avi", 16000, 30, 0},
    {"mp2", "matroska", "mkv", 44100, 30, 0},
    {"mp2", "matroska", "mkv", 16000, 30, 0},
    {"ac3", "matroska", "mkv", 48000, 120, 0},
    {"ac3", "mpegts", "ts", 48000, 120, 0},
    {"ac3", "mp4", "mp4", 48000, 120, 0},
    {"ac3", "avi", "avi", 48000, 120, 0},
    {"eac3", "mp4", "mp4", 48000, 120, 0},
    {"eac3", "mpegts", "ts", 48000, 120, 0},
    {"flac", "matroska", "mkv", 44100, 0, 0},
    {"flac", "matroska", "mkv", 16000, 0, 0},
    {"wmav2", "asf", "wmv", 44100, 7000, 17},
};

static const char *make(int k)
{
    static char path[5000];
    test_file f = test_file_default();
    xkd_encode_options o = f.encode;
    xkd_encoder *e;
    uint8_t *rgb = malloc((size_t)(3 * o.width * o.height));
    o.format = kinds[k].format;
    o.audio_codec = kinds[k].codec;
    o.sample_rate = kinds[k].rate;
    o.channels = 1;
    snprintf(path, sizeof path, "%s/%s-%s.%s", folder, kinds[k].codec, kinds[k].format, kinds[k].ending);
    if (xkd_encoder_new(cx, path, &o, &e) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    for (int64_t i = 0, sample = 0; i < SECONDS * o.fps; i++) {
        draw_number(rgb, o.width, o.height, (int)i);
        assert_int_equal(xkd_encoder_frame(e, rgb, (double)i / (double)o.fps), XKD_OK);
        for (; sample < (i + 1) * o.sample_rate / o.fps; sample++) {
            int16_t value = stroke(sample, o.sample_rate);
            assert_int_equal(xkd_encoder_sound(e, &value, 1), XKD_OK);
        }
    }
    free(rgb);
    if (xkd_encoder_commit(e) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    return path;
}

/* Of the clip from the whole file behind `first`, where both have samples. */
static int difference(int64_t first)
{
    int worst = 0;
    for (int64_t i = first < 0 ? -first : 0; i < clip.count && first + i < whole.count; i++) {
        int off = abs(clip.sound[i] - whole.sound[first + i]);
        worst = off > worst ? off : worst;
    }
    return worst;
}

/* Starts of the cache's grid, which whole samples of 16 kHz fall on. With pictures, which a seek may follow, every third. */
static void a_clip_sounds_as_the_file_does(void **state)
{
    (void)state;
    for (int k = 0; k < (int)(sizeof kinds / sizeof *kinds); k++) {
        if (!avcodec_find_encoder_by_name(kinds[k].codec)) {
            print_message("no encoder %s\n", kinds[k].codec);
            continue;
        }
        const char *path = make(k);
        for (int video = 0; video < 2; video++) {
            decode(path, XKD_CLIP_WHOLE, 0, video, &whole);
            assert_in_range(whole.count, (int64_t)((SECONDS - 0.2) * RATE), (int64_t)((SECONDS + 0.2) * RATE));
            for (int start = 0; start <= (int)((whole.length - 1) * FPS); start += video ? 3 : 1) {
                decode(path, XKD_CLIP_AT, (double)start / FPS, video, &clip);
                int worst = INT_MAX;
                for (int moved = -kinds[k].moved; moved <= kinds[k].moved; moved++) {
                    int off = difference((int64_t)start * RATE / FPS + moved);
                    worst = off < worst ? off : worst;
                }
                if (worst > kinds[k].most)
                    fail_msg("%s at %g: its samples are off by %d", path, (double)start / FPS, worst);
            }
        }
    }
}

/* Sound alone, in forms that the library does not write itself. */
static const struct {
    const char *codec, *option, *value, *format, *ending;
    int rate;
    bool milliseconds; /* stamps were rounded to them before they came into this container */
    double cut;        /* s in front of the zero of the clock, which an edit list hides */
    int most;
} alone[] = {
    {"adpcm_ms", NULL, NULL, "wav", "wav", 44100, false, 0, 0}, /* the header's rate of bytes is wrong */
    {"libmp3lame", "compression_level", "7", "wav", "mp3.wav", 44100, false, 0, 4},
    {"pcm_s16le", NULL, NULL, "wav", "pcm.wav", 44100, false, 0, 0},
    {"pcm_s16le", NULL, NULL, "matroska", "mka", 44100, true, 0, 0},
    {"flac", NULL, NULL, "ogg", "oga", 44100, false, 0, 0},
    {"flac", NULL, NULL, "flac", "flac", 44100, false, 0, 0},
    {"libopus", "frame_duration", "60", "webm", "webm", 48000, true, 0, 1000}, /* 6.5 ms in front */
    {"libopus", "frame_duration", "60", "ogg", "opus", 48000, false, 0, 1000},
    {"aac", NULL, NULL, "mp4", "m4a", 44100, true, 0.3053, AAC_NOISE},
};

static void give(AVFormatContext *file, AVCodecContext *c, AVFrame *frame, int k)
{
    AVPacket *packet = av_packet_alloc();
    AVStream *stream = file->streams[0];
    assert_int_equal(avcodec_send_frame(c, frame), 0);
    while (avcodec_receive_packet(c, packet) == 0) {
        if (alone[k].milliseconds) av_packet_rescale_ts(packet, c->time_base, (AVRational){1, 1000});
        packet->pts -= llround(alone[k].cut * (alone[k].milliseconds ? 1000 : alone[k].rate));
        packet->dts = packet->pts;
        av_packet_rescale_ts(packet, alone[k].milliseconds ? (AVRational){1, 1000} : c->time_base, stream->time_base);
        assert_int_equal(av_write_frame(file, packet), 0);
        av_packet_unref(packet);
    }
    av_packet_free(&packet);
}

/* A frame of the strokes; false behind the last one. */
static bool fill(AVFrame *frame, int64_t first, int64_t rate)
{
    if (first >= SECONDS * rate) return false;
    assert_int_equal(av_frame_make_writable(frame), 0);
    for (int i = 0; i < frame->nb_samples; i++) {
        int16_t value = stroke(first + i, rate);
        if (frame->format == AV_SAMPLE_FMT_FLTP)
            ((float *)(void *)frame->data[0])[i] = (float)value / 32768;
        else
            ((int16_t *)(void *)frame->data[0])[i] = value;
    }
    frame->pts = first;
    return true;
}

static const char *make_alone(int k)
{
    static char path[5000];
    AVFormatContext *file;
    const AVCodec *codec = avcodec_find_encoder_by_name(alone[k].codec);
    AVCodecContext *c = avcodec_alloc_context3(codec);
    AVFrame *frame = av_frame_alloc();
    snprintf(path, sizeof path, "%s/alone-%s.%s", folder, alone[k].codec, alone[k].ending);
    assert_true(avformat_alloc_output_context2(&file, NULL, alone[k].format, path) >= 0);
    c->sample_rate = alone[k].rate;
    c->time_base = (AVRational){1, alone[k].rate};
    av_channel_layout_default(&c->ch_layout, 1);
    bool floats = !strcmp(alone[k].codec, "aac") || !strcmp(alone[k].codec, "libmp3lame");
    c->sample_fmt = floats ? AV_SAMPLE_FMT_FLTP : xkd_av_sample_format(codec, AV_SAMPLE_FMT_S16);
    if (file->oformat->flags & AVFMT_GLOBALHEADER) c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    if (alone[k].option) av_opt_set(c, alone[k].option, alone[k].value, AV_OPT_SEARCH_CHILDREN);
    assert_int_equal(avcodec_open2(c, codec, NULL), 0);
    AVStream *stream = avformat_new_stream(file, NULL);
    assert_int_equal(avcodec_parameters_from_context(stream->codecpar, c), 0);
    stream->time_base = c->time_base;
    assert_int_equal(avio_open(&file->pb, path, AVIO_FLAG_WRITE), 0);
    assert_true(avformat_write_header(file, NULL) >= 0);
    frame->nb_samples = c->frame_size ? c->frame_size : 1024;
    frame->format = c->sample_fmt;
    frame->sample_rate = c->sample_rate;
    assert_int_equal(av_channel_layout_copy(&frame->ch_layout, &c->ch_layout), 0);
    assert_int_equal(av_frame_get_buffer(frame, 0), 0);
    for (int64_t first = 0; fill(frame, first, alone[k].rate); first += frame->nb_samples) give(file, c, frame, k);
    give(file, c, NULL, k);
    assert_int_equal(av_write_trailer(file), 0);
    avio_closep(&file->pb);
    avformat_free_context(file);
    av_frame_free(&frame);
    avcodec_free_context(&c);
    return path;
}

static void sound_alone_too(void **state)
{
    (void)state;
    for (int k = 0; k < (int)(sizeof alone / sizeof *alone); k++) {
        if (!avcodec_find_encoder_by_name(alone[k].codec)) continue;
        const char *path = make_alone(k);
        decode(path, XKD_CLIP_WHOLE, 0, false, &whole);
        int64_t wanted = (int64_t)((SECONDS - alone[k].cut) * RATE);
        assert_in_range(whole.count, wanted - RATE / 5, wanted + RATE / 5);
        for (int start = 0; start <= (int)((whole.length - 1) * FPS); start++) {
            decode(path, XKD_CLIP_AT, (double)start / FPS, false, &clip);
            assert_int_equal(clip.count, RATE);
            int worst = difference((int64_t)start * RATE / FPS);
            if (worst > alone[k].most)
                fail_msg("%s at %g: its samples are off by %d", path, (double)start / FPS, worst);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_clip_sounds_as_the_file_does),
                                       cmocka_unit_test(sound_alone_too)};
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("starts"));
    if (!cx || xkd_make_folder(cx, folder) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
