/* From a decoded frame to upright 8-bit RGB of the wanted size: swscale converts the pixel format
 * without scaling, the display matrix is applied, and then Pillow's resize brings the short side
 * down. The order is the release's, whose numbers depend on it. */
#include "media/convert.h"

#include <libswscale/swscale.h>
#include <string.h>

#include "base/alloc.h"
#include "media/resize.h"

/* swscale's vector code writes whole vectors: rows are padded to and followed by one. */
enum { ROW_ALIGN = 64 };

struct xkd_converter {
    xkd_media *media;   /* the caller's, outlives the converter */
    int64_t short_side; /* 0: keep the size */
    bool stream_colour; /* follow the stream's tags instead of swscale's default matrix */
    struct SwsContext *sws;
    int sws_colour[2];                        /* colour space and range that sws has been told; -1: none */
    int64_t in_width, in_height;              /* of the buffers below */
    int64_t sws_width, sws_height, in_format; /* what sws was made for */
    int64_t stride;                           /* bytes of a row of `raw` */
    uint8_t *raw;                             /* [in_height, stride] */
    uint8_t *turned;                          /* after rotation, tight */
    xkd_resizer *resizer;                     /* NULL: sizes agree */
    int64_t width, height;                    /* of the output; 0: no frame yet */
    uint8_t *out;                             /* [height,width,3], what the caller sees */
};

/* Buffers are made for the first frame, whose size is known only then. */
xkd_status xkd_converter_new(xkd_media *media, int64_t short_side, bool stream_colour, xkd_converter **out)
{
    xkd_status status = xkd_alloc(media->cx, out, 1, sizeof **out);
    if (status != XKD_OK) return status;
    **out = (xkd_converter){
        .media = media, .short_side = short_side, .stream_colour = stream_colour, .sws_colour = {-1, -1}};
    return XKD_OK;
}

void xkd_converter_free(xkd_converter *converter)
{
    if (!converter) return;
    sws_freeContext(converter->sws);
    xkd_resizer_free(converter->resizer);
    xkd_free(converter->raw);
    xkd_free(converter->turned);
    xkd_free(converter->out);
    xkd_free(converter);
}

/* Buffers and plan for frames of another size than before.
 * The output has the size of the file's first frame, because a clip is one tensor: a stream that changes
 * its size in between is resized to what it began with, also in a clip that begins behind the change. */
static xkd_status fit(xkd_converter *p, const AVFrame *frame)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->media->cx;
    int64_t w = frame->width, h = frame->height;
    int64_t shown_width = p->media->transpose ? h : w, shown_height = p->media->transpose ? w : h;
    xkd_resizer_free(p->resizer);
    p->resizer = NULL;
    xkd_free(p->raw);
    p->raw = NULL;
    xkd_free(p->turned);
    p->turned = NULL;
    /* Until everything is there the input size is 0, so that a failure is not taken for a fitting
     * plan. */
    p->in_width = p->in_height = 0;
    p->stride = (3 * w + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN;
    XKD_TRY(xkd_alloc(cx, &p->raw, p->stride * h + 2 * ROW_ALIGN, 1));
    XKD_TRY(xkd_alloc(cx, &p->turned, 3 * w * h, 1));
    if (!p->width) {
        const xkd_media_info *i = &p->media->info;
        p->width = i->width > 0 ? i->width : shown_width;
        p->height = i->height > 0 ? i->height : shown_height;
        if (p->short_side) xkd_short_side_size(p->width, p->height, p->short_side, &p->width, &p->height);
        XKD_TRY(xkd_alloc(cx, &p->out, 3 * p->width * p->height, 1));
    }
    if (p->width != shown_width || p->height != shown_height)
        XKD_TRY(xkd_resizer_new(cx, shown_width, shown_height, p->width, p->height, &p->resizer));
    p->in_width = w;
    p->in_height = h;
fail:
    return status;
}

/* Formats of JPEG are of full range by themselves, and decoders need not say so again. */
static bool is_full_range(const AVFrame *frame)
{
    static const int ALWAYS[] = {AV_PIX_FMT_YUVJ420P, AV_PIX_FMT_YUVJ422P, AV_PIX_FMT_YUVJ444P, AV_PIX_FMT_YUVJ440P,
                                 AV_PIX_FMT_YUVJ411P};
    for (size_t i = 0; i < sizeof ALWAYS / sizeof *ALWAYS; i++)
        if (frame->format == ALWAYS[i]) return true;
    return frame->color_range == AVCOL_RANGE_JPEG;
}

/* Tells swscale the stream's matrix and range; without tags the usual guess by height is made.
 * HD is BT.709 by convention, SD is BT.601. The output is full range in any case. */
static void set_colour(xkd_converter *p, const AVFrame *frame)
{
    int space = frame->colorspace, range = is_full_range(frame);
    if (space == AVCOL_SPC_UNSPECIFIED || space == AVCOL_SPC_RGB)
        space = frame->height >= 720 ? SWS_CS_ITU709 : SWS_CS_ITU601;
    if (p->sws_colour[0] == space && p->sws_colour[1] == range) return;
    const int *matrix = sws_getCoefficients(space);
    sws_setColorspaceDetails(p->sws, matrix, range, sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
    p->sws_colour[0] = space;
    p->sws_colour[1] = range;
}

/* Applies the display matrix: raw [h, stride] -> turned, rows of 3 * (transposed ? h : w) bytes.
 * One pixel at a time: turned films are rare, and this is little beside decoding. */
static void turn(xkd_converter *p)
{
    int64_t w = p->in_width, h = p->in_height;
    const xkd_media *m = p->media;
    int64_t out_width = m->transpose ? h : w, out_height = m->transpose ? w : h;
    for (int64_t y = 0; y < out_height; y++) {
        for (int64_t x = 0; x < out_width; x++) {
            int64_t to_x = m->flip_x ? out_width - 1 - x : x, to_y = m->flip_y ? out_height - 1 - y : y;
            const uint8_t *from = m->transpose ? p->raw + x * p->stride + 3 * y : p->raw + y * p->stride + 3 * x;
            memcpy(p->turned + 3 * (to_y * out_width + to_x), from, 3);
        }
    }
}

/* The context is kept as long as size and format are the same. Not with sws_getCachedContext: that compares the range
 * with its default too, so it takes a full-range context for another one and makes it anew, without the matrix. */
static xkd_status make_sws(xkd_converter *p, const AVFrame *frame, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->media->cx;
    int w = frame->width, h = frame->height;
    if (p->sws && w == p->sws_width && h == p->sws_height && frame->format == p->in_format) return XKD_OK;
    sws_freeContext(p->sws);
    p->sws = sws_getContext(w, h, frame->format, w, h, AV_PIX_FMT_RGB24, SWS_BILINEAR, NULL, NULL, NULL);
    p->sws_width = w;
    p->sws_height = h;
    p->in_format = frame->format;
    p->sws_colour[0] = p->sws_colour[1] = -1;
    if (!p->sws) {
        *fault = XKD_FAULT_REFUSED;
        XKD_FAIL(
            XKD_ERR_DATA,
            "%s: refused: pixel format %d cannot be converted (ffmpeg -i FILE -pix_fmt yuv420p NEW.mp4 changes it)",
            p->media->name, frame->format);
    }
fail:
    return status;
}

/* The result stays the converter's and is valid until the next call. Limits are checked again here,
 * because a stream may change its size after the header was accepted. */
xkd_status xkd_convert(xkd_converter *p, const AVFrame *frame, const uint8_t **rgb, int64_t *width, int64_t *height,
                       xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->media->cx;
    int64_t w = frame->width, h = frame->height, longer = w > h ? w : h, shorter = w > h ? h : w;
    if (w < 1 || h < 1 || w * h > XKD_MEDIA_MAX_PIXELS || longer > shorter * XKD_MEDIA_MAX_ASPECT) {
        *fault = XKD_FAULT_REFUSED;
        XKD_FAIL(XKD_ERR_DATA, "%s: refused: a frame of %lldx%lld (docs/media-formats.md has the limits)",
                 p->media->name, (long long)w, (long long)h);
    }
    if (w != p->in_width || h != p->in_height) XKD_TRY(fit(p, frame));
    XKD_TRY(make_sws(p, frame, fault));
    if (p->stream_colour) set_colour(p, frame);
    uint8_t *planes[4] = {p->raw};
    int strides[4] = {(int)p->stride};
    sws_scale(p->sws, (const uint8_t *const *)frame->data, frame->linesize, 0, (int)h, planes, strides);
    const uint8_t *shown = p->raw;
    int64_t stride = p->stride;
    if (p->media->transpose || p->media->flip_x || p->media->flip_y) {
        turn(p);
        shown = p->turned;
        stride = 3 * (p->media->transpose ? h : w);
    }
    if (p->resizer)
        xkd_resizer_run(p->resizer, shown, stride, p->out);
    else
        for (int64_t y = 0; y < p->height; y++)
            memcpy(p->out + 3 * y * p->width, shown + y * stride, (size_t)(3 * p->width));
    *rgb = p->out;
    *width = p->width;
    *height = p->height;
fail:
    return status;
}
