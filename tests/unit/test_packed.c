/* Packed MPEG-4 in AVI (DivX, Xvid; UCF101 is full of it): each packet stands for the picture that is shown at its time, though it
 * may hold two pictures or none. The test packs the pictures of libavcodec's own encoder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "media/ffmpeg.h"
#include "media/media.h"
#include "media_files.h"

enum { PICTURES = 60, FPS = 25, GROUP = 12, BYTES = 1 << 16, HEIGHT = 48 };

/* Of the header of a picture: its start code, its kind in two bits. */
static const uint8_t PICTURE[] = {0, 0, 1, 0xB6}, USER_DATA[] = {0, 0, 1, 0xB2}, PACKED[] = "DivX503b1393p";

static xkd_context *cx;
static char folder[4096];
static AVFormatContext *file;
static struct {
    uint8_t bytes[BYTES];
    int size;
    bool key;
} waiting;            /* a packet that may grow */
static int64_t place; /* of the next packet */
static int numbers[PICTURES + 8];
static int64_t count;

static void append(const uint8_t *bytes, int size)
{
    assert_true(waiting.size + size <= BYTES);
    memcpy(waiting.bytes + waiting.size, bytes, (size_t)size);
    waiting.size += size;
}

static void put_waiting(void)
{
    AVPacket *packet = av_packet_alloc();
    assert_int_equal(av_new_packet(packet, waiting.size), 0);
    memcpy(packet->data, waiting.bytes, (size_t)waiting.size);
    packet->pts = packet->dts = place++;
    packet->duration = 1;
    packet->flags = waiting.key ? AV_PKT_FLAG_KEY : 0;
    av_packet_rescale_ts(packet, (AVRational){1, FPS}, file->streams[0]->time_base);
    assert_int_equal(av_write_frame(file, packet), 0);
    av_packet_free(&packet);
    waiting.size = 0;
}

static uint8_t *find(const uint8_t *bytes, int size, const uint8_t *code)
{
    return memmem(bytes, (size_t)size, code, 4);
}

/* A picture that codes nothing: kind P, no whole second, a marker, five bits of time, a marker, "not coded", bits up to the byte. */
static void put_nothing(void)
{
    static const uint8_t NOTHING[] = {0, 0, 1, 0xB6, 0x50, 0x4F};
    append(NOTHING, sizeof NOTHING);
    waiting.key = false;
    put_waiting();
}

/* The picture in decoding order; *held: an anchor whose place is still to come. */
static void pack(const AVPacket *p, bool *held)
{
    const uint8_t *picture = find(p->data, p->size, PICTURE), *user = find(p->data, p->size, USER_DATA);
    assert_non_null(picture);
    bool between = picture[4] >> 6 == 2;
    if (!between && *held) put_nothing();
    if (!between && !*held && waiting.size) put_waiting();
    if (!between) {
        *held = false;
        waiting.key = p->flags & AV_PKT_FLAG_KEY;
        int head = (int)((user ? user : picture) - p->data);
        append(p->data, head);
        if (user) {
            append(USER_DATA, sizeof USER_DATA);
            append(PACKED, sizeof PACKED - 1);
        }
        append(picture, p->size - (int)(picture - p->data));
        return;
    }
    if (*held) waiting.key = false;
    append(p->data, p->size);
    put_waiting();
    *held = true;
}

static AVCodecContext *open_encoder(int between)
{
    AVCodecContext *c = avcodec_alloc_context3(avcodec_find_encoder_by_name("mpeg4"));
    assert_non_null(c);
    c->width = TEST_WIDTH;
    c->height = HEIGHT;
    c->pix_fmt = AV_PIX_FMT_YUV420P;
    c->time_base = (AVRational){1, FPS};
    c->framerate = (AVRational){FPS, 1};
    c->gop_size = GROUP;
    c->max_b_frames = between;
    c->flags |= AV_CODEC_FLAG_QSCALE;
    c->global_quality = 2 * FF_QP2LAMBDA;
    c->thread_count = 1;
    assert_int_equal(avcodec_open2(c, c->codec, NULL), 0);
    return c;
}

static void draw(AVFrame *frame, int number)
{
    assert_int_equal(av_frame_make_writable(frame), 0);
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < TEST_WIDTH; x++)
            frame->data[0][y * frame->linesize[0] + x] = number >> (x * BARS / TEST_WIDTH) & 1 ? 235 : 16;
    for (int plane = 1; plane < 3; plane++)
        for (int y = 0; y < HEIGHT / 2; y++)
            memset(frame->data[plane] + y * frame->linesize[plane], 128, TEST_WIDTH / 2);
    frame->pts = number;
}

/* `empty`: packets without anything behind the first one, as encoders that hold pictures back leave them there. */
static const char *make(const char *name, int between, int empty)
{
    static char path[5000];
    AVCodecContext *c = open_encoder(between);
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    bool held = false;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_true(avformat_alloc_output_context2(&file, NULL, "avi", path) >= 0);
    AVStream *stream = avformat_new_stream(file, NULL);
    assert_non_null(stream);
    assert_int_equal(avcodec_parameters_from_context(stream->codecpar, c), 0);
    stream->codecpar->codec_tag = MKTAG('X', 'V', 'I', 'D');
    stream->time_base = c->time_base;
    stream->avg_frame_rate = c->framerate;
    assert_int_equal(avio_open(&file->pb, path, AVIO_FLAG_WRITE), 0);
    assert_true(avformat_write_header(file, NULL) >= 0);
    frame->width = c->width;
    frame->height = c->height;
    frame->format = c->pix_fmt;
    assert_int_equal(av_frame_get_buffer(frame, 0), 0);
    place = 0;
    waiting.size = 0;
    for (int i = 0; i <= PICTURES; i++) {
        if (i < PICTURES) draw(frame, i);
        assert_int_equal(avcodec_send_frame(c, i < PICTURES ? frame : NULL), 0);
        while (avcodec_receive_packet(c, packet) == 0) {
            bool first = place == 0 && waiting.size == 0;
            pack(packet, &held);
            if (first && empty) {
                put_waiting();
                place += empty;
            }
            av_packet_unref(packet);
        }
    }
    if (waiting.size) put_waiting();
    if (held) put_nothing();
    assert_int_equal(av_write_trailer(file), 0);
    avio_closep(&file->pb);
    avformat_free_context(file);
    av_packet_free(&packet);
    av_frame_free(&frame);
    avcodec_free_context(&c);
    return path;
}

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    (void)user, (void)info, (void)start;
    count = 0;
    return XKD_OK;
}

static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    (void)user;
    assert_int_equal(index, count);
    assert_true(count < PICTURES + 8);
    numbers[count++] = read_number(rgb, width, height);
    return XKD_OK;
}

static xkd_status on_sound(void *user, const int16_t *samples, int64_t n)
{
    (void)user, (void)samples, (void)n;
    return XKD_OK;
}

static void decode(const char *path, xkd_clip_mode mode, double start)
{
    xkd_media *media = NULL;
    xkd_media_fault fault;
    xkd_media_tally tally;
    const xkd_media_sink sink = {.begin = on_begin, .frame = on_frame, .sound = on_sound};
    const xkd_media_request r = {
        .mode = mode, .start = start, .duration = 0.4, .fps = FPS, .audio_rate = 16000, .video = true};
    if (xkd_media_open(cx, path, &media, &fault) != XKD_OK ||
        xkd_media_decode(media, &r, &sink, &tally, &fault) != XKD_OK)
        fail_msg("%s: %s", path, xkd_last_error(cx));
    assert_int_equal(tally.errors, 0);
    xkd_media_free(media);
}

/* The picture at place `k`. */
static int picture_at(int64_t k, int empty)
{
    return k == 0 ? 0 : k <= empty ? 0 : (int)(k - empty);
}

static void each_packet_is_shown_at_its_time(void **state)
{
    static const struct {
        const char *name;
        int between, empty;
    } files[] = {{"one.avi", 1, 0}, {"two.avi", 2, 0}, {"late.avi", 2, 3}, {"plain.avi", 0, 0}};
    (void)state;
    for (int f = 0; f < 4; f++) {
        const char *path = make(files[f].name, files[f].between, files[f].empty);
        decode(path, XKD_CLIP_WHOLE, 0);
        assert_int_equal(count, PICTURES + files[f].empty);
        for (int64_t k = 0; k < count; k++)
            if (numbers[k] != picture_at(k, files[f].empty))
                fail_msg("%s: picture %d at place %d", path, numbers[k], (int)k);
        for (int start = 0; start + 10 <= PICTURES; start++) {
            decode(path, XKD_CLIP_AT, (double)start / FPS);
            assert_int_equal(count, 10);
            for (int64_t k = 0; k < count; k++)
                if (numbers[k] != picture_at(start + k, files[f].empty))
                    fail_msg("%s from %d: picture %d at place %d", path, start, numbers[k], (int)(start + k));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_packet_is_shown_at_its_time)};
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("packed"));
    if (!cx || xkd_make_folder(cx, folder) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
