/* data.colour=stream: matrix and range of every frame by its own tags, whatever the frames before it had. Frames are made here,
 * of one colour each, and the colours computed by the formulas of ITU-T H.273. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <libavutil/frame.h>
#include <libavutil/log.h>
#include <libavutil/pixdesc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "media/convert.h"
#include "media/internal.h"

/* swscale computes in 8 bits and a little more. */
enum { WIDTH = 32, HEIGHT = 16, CLOSE = 3 };

static xkd_context *cx;

/* What a file may say of its pictures; kr, kb: those of the matrix that this means. */
static const struct {
    enum AVColorSpace space;
    double kr, kb;
} spaces[] = {{AVCOL_SPC_BT709, 0.2126, 0.0722},     {AVCOL_SPC_SMPTE170M, 0.299, 0.114},
              {AVCOL_SPC_BT470BG, 0.299, 0.114},     {AVCOL_SPC_BT2020_NCL, 0.2627, 0.0593},
              {AVCOL_SPC_SMPTE240M, 0.212, 0.087},   {AVCOL_SPC_FCC, 0.30, 0.11},
              {AVCOL_SPC_UNSPECIFIED, 0.299, 0.114}, /* of few lines; 0.2126 and 0.0722 from 720 on */
              {AVCOL_SPC_RESERVED, 0.299, 0.114}};
enum { SPACES = sizeof spaces / sizeof *spaces };

static const enum AVPixelFormat formats[] = {AV_PIX_FMT_YUV420P,  AV_PIX_FMT_YUV422P,     AV_PIX_FMT_YUV444P,
                                             AV_PIX_FMT_NV12,     AV_PIX_FMT_YUV420P10LE, AV_PIX_FMT_YUVJ420P,
                                             AV_PIX_FMT_YUVJ422P, AV_PIX_FMT_YUVJ444P};
enum { FORMATS = sizeof formats / sizeof *formats };

/* Clear colours that no conversion cuts off. */
static const int samples[][3] = {{126, 110, 170}, {90, 150, 118}, {170, 128, 128}};

static bool is_j(enum AVPixelFormat f)
{
    return f == AV_PIX_FMT_YUVJ420P || f == AV_PIX_FMT_YUVJ422P || f == AV_PIX_FMT_YUVJ444P;
}

/* A frame of one colour (Y, Cb, Cr of 8 bits). */
static AVFrame *make(enum AVPixelFormat format, enum AVColorSpace space, enum AVColorRange range, const int colour[3],
                     int width, int height)
{
    AVFrame *f = av_frame_alloc();
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(format);
    assert_non_null(f);
    f->format = format;
    f->width = width;
    f->height = height;
    f->colorspace = space;
    f->color_range = range;
    assert_true(av_frame_get_buffer(f, 0) >= 0);
    for (int c = 0; c < 3; c++) {
        const AVComponentDescriptor *p = &d->comp[c];
        int w = c ? -(-width >> d->log2_chroma_w) : width, h = c ? -(-height >> d->log2_chroma_h) : height;
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++) {
                uint8_t *at = f->data[p->plane] + y * f->linesize[p->plane] + x * p->step + p->offset;
                int value = colour[c] << (p->depth - 8) << p->shift;
                *at = (uint8_t)value;
                if (p->depth > 8) at[1] = (uint8_t)(value >> 8);
            }
    }
    return f;
}

/* By the formula: rgb of 0 .. 255. */
static void expect(double kr, double kb, bool full, const int colour[3], double out[3])
{
    double y = full ? colour[0] / 255.0 : (colour[0] - 16) / 219.0;
    double b = (colour[1] - 128) / (full ? 255.0 : 224.0), r = (colour[2] - 128) / (full ? 255.0 : 224.0);
    double red = y + 2 * (1 - kr) * r, blue = y + 2 * (1 - kb) * b;
    double rgb[3] = {red, (y - kr * red - kb * blue) / (1 - kr - kb), blue};
    for (int c = 0; c < 3; c++) out[c] = 255 * fmin(fmax(rgb[c], 0), 1);
}

static void check(xkd_converter *converter, enum AVPixelFormat format, int space, enum AVColorRange range,
                  const int colour[3])
{
    const uint8_t *rgb;
    int64_t width, height;
    double want[3];
    xkd_media_fault fault;
    AVFrame *f = make(format, spaces[space].space, range, colour, WIDTH, HEIGHT);
    assert_int_equal(xkd_convert(converter, f, &rgb, &width, &height, &fault), XKD_OK);
    expect(spaces[space].kr, spaces[space].kb, range == AVCOL_RANGE_JPEG || is_j(format), colour, want);
    for (int64_t i = 0; i < 3 * width * height; i++)
        if (fabs(rgb[i] - want[i % 3]) > CLOSE)
            fail_msg("%s, space %d, range %d: %d %d %d for %.1f %.1f %.1f", av_get_pix_fmt_name(format),
                     (int)spaces[space].space, (int)range, rgb[0], rgb[1], rgb[2], want[0], want[1], want[2]);
    av_frame_free(&f);
}

/* Each kind of frame behind each other one: tags, range and format may change in mid-file, and come back. */
static void every_frame_by_its_own_tags(void **state)
{
    static const enum AVColorRange ranges[] = {AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG, AVCOL_RANGE_UNSPECIFIED};
    xkd_media media = {.cx = cx, .name = "frames"};
    xkd_converter *converter;
    int pairs = 0;
    (void)state;
    assert_int_equal(xkd_converter_new(&media, 0, true, &converter), XKD_OK);
    const int kinds = FORMATS * SPACES * 3;
    for (int a = 0; a < kinds; a += 5) /* prime to the sizes: all kinds come up */
        for (int b = a % 7; b < kinds; b += 7, pairs++) {
            const int order[] = {a, a, b, b, a};
            for (int i = 0; i < 5; i++) {
                int k = order[i];
                check(converter, formats[k % FORMATS], k / FORMATS % SPACES, ranges[k / FORMATS / SPACES],
                      samples[(i + pairs) % 3]);
            }
        }
    assert_true(pairs > 1000);
    xkd_converter_free(converter);
}

/* What has no tags is BT.709 from 720 lines on. */
static void without_tags_the_height_decides(void **state)
{
    static const int heights[] = {576, 720, 1080};
    (void)state;
    for (int i = 0; i < 3; i++) {
        xkd_media media = {.cx = cx, .name = "frames"};
        xkd_converter *converter;
        xkd_media_fault fault;
        const uint8_t *rgb;
        int64_t width, height;
        double want[3];
        AVFrame *f =
            make(AV_PIX_FMT_YUV420P, AVCOL_SPC_UNSPECIFIED, AVCOL_RANGE_UNSPECIFIED, samples[0], 160, heights[i]);
        assert_int_equal(xkd_converter_new(&media, 0, true, &converter), XKD_OK);
        assert_int_equal(xkd_convert(converter, f, &rgb, &width, &height, &fault), XKD_OK);
        expect(heights[i] < 720 ? 0.299 : 0.2126, heights[i] < 720 ? 0.114 : 0.0722, false, samples[0], want);
        for (int c = 0; c < 3; c++)
            if (fabs(rgb[c] - want[c]) > CLOSE) fail_msg("%d lines: %d for %.1f", heights[i], rgb[c], want[c]);
        av_frame_free(&f);
        xkd_converter_free(converter);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_frame_by_its_own_tags),
                                       cmocka_unit_test(without_tags_the_height_decides)};
    av_log_set_level(AV_LOG_QUIET); /* it warns of the formats of JPEG */
    cx = xkd_context_new();
    if (!cx) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    xkd_context_free(cx);
    return failed;
}
