/* libjpeg-turbo behind setjmp. The slow integer DCT and the smooth upsampling are used: their results are the same on every
 * processor, with and without vector code. */
#include "media/jpeg.h"

#include <setjmp.h>
#include <stdio.h>
#include <jpeglib.h>
#include <string.h>

#include "base/alloc.h"

/* What the library may allocate for one picture: a baseline picture needs a few rows. */
static const long MOST_MEMORY = 64L << 20;
enum { ROWS = 16 }; /* given to the library at once */

typedef struct {
    struct jpeg_error_mgr manager; /* first: the library's pointer to it is one to this */
    jmp_buf back;
    char message[JMSG_LENGTH_MAX];
} handler;

struct xkd_jpeg {
    xkd_context *cx;
    struct jpeg_compress_struct encoder;
    struct jpeg_decompress_struct decoder;
    handler encoding, decoding;
    bool has_encoder, has_decoder;
    struct jpeg_destination_mgr to;
    uint8_t *data; /* [capacity] of the encoder's picture */
    int64_t capacity;
};

static void leave(j_common_ptr common)
{
    handler *h = (handler *)(void *)common->err;
    common->err->format_message(common, h->message);
    longjmp(h->back, 1);
}

/* Damage that the library would paint grey. */
static void count_warning(j_common_ptr common, int level)
{
    if (level < 0) leave(common);
}

static void stay_quiet(j_common_ptr common)
{
    (void)common;
}

static struct jpeg_error_mgr *handle(handler *h)
{
    jpeg_std_error(&h->manager);
    h->manager.error_exit = leave;
    h->manager.emit_message = count_warning;
    h->manager.output_message = stay_quiet;
    return &h->manager;
}

xkd_status xkd_jpeg_new(xkd_context *cx, xkd_jpeg **out)
{
    xkd_status status = xkd_alloc(cx, out, 1, sizeof **out);
    if (status == XKD_OK) (*out)->cx = cx;
    return status;
}

void xkd_jpeg_free(xkd_jpeg *j)
{
    if (!j) return;
    if (j->has_encoder) jpeg_destroy_compress(&j->encoder);
    if (j->has_decoder) jpeg_destroy_decompress(&j->decoder);
    xkd_free(j->data);
    xkd_free(j);
}

/* More than the worst picture takes: six bytes a pixel of whole blocks, as libjpeg-turbo reckons, and its headers. */
static xkd_status make_room(xkd_jpeg *j, int64_t width, int64_t height)
{
    int64_t need = 6 * (width + 15) * (height + 15) + (1 << 16);
    if (need <= j->capacity) return XKD_OK;
    xkd_status status = xkd_resize(j->cx, &j->data, 0, need, 1);
    if (status == XKD_OK) j->capacity = need;
    return status;
}

static void begin_output(j_compress_ptr e)
{
    xkd_jpeg *j = e->client_data;
    j->to.next_output_byte = j->data;
    j->to.free_in_buffer = (size_t)j->capacity;
}

static boolean no_more_room(j_compress_ptr e)
{
    leave((j_common_ptr)e);
    return FALSE;
}

static void end_output(j_compress_ptr e)
{
    (void)e;
}

/* One step for all coefficients. The usual tables (ITU-T T.81, annex K) spare what an eye does not see. A network sees
 * squared errors, and equal steps give the least of those for the bytes. STEP is the mean of the usual table of luma, so
 * that a quality means about the same error as elsewhere. */
static void set_quality(struct jpeg_compress_struct *e, int64_t quality)
{
    enum { STEP = 58 };
    unsigned int table[DCTSIZE2];
    for (int i = 0; i < DCTSIZE2; i++) table[i] = STEP;
    for (int kind = 0; kind < 2; kind++) /* of luma and of colour */
        jpeg_add_quant_table(e, kind, table, jpeg_quality_scaling((int)quality), TRUE);
}

static void set_colour(struct jpeg_compress_struct *e, bool full_colour)
{
    jpeg_component_info *luma = &e->comp_info[0];
    luma->h_samp_factor = luma->v_samp_factor = full_colour ? 1 : 2;
}

xkd_status xkd_jpeg_encode(xkd_jpeg *j, const uint8_t *rgb, int64_t width, int64_t height, int64_t quality,
                           bool full_colour, const uint8_t **data, int64_t *size)
{
    struct jpeg_compress_struct *e = &j->encoder;
    xkd_status status = make_room(j, width, height);
    if (status != XKD_OK) return status;
    e->err = handle(&j->encoding);
    if (setjmp(j->encoding.back)) {
        jpeg_abort_compress(e);
        return xkd_fail(j->cx, XKD_ERR_INTERNAL, "a frame cannot be made JPEG: %s", j->encoding.message);
    }
    if (!j->has_encoder) jpeg_create_compress(e);
    j->has_encoder = true;
    j->to = (struct jpeg_destination_mgr){
        .init_destination = begin_output, .empty_output_buffer = no_more_room, .term_destination = end_output};
    e->dest = &j->to;
    e->client_data = j;
    e->image_width = (JDIMENSION)width;
    e->image_height = (JDIMENSION)height;
    e->input_components = 3;
    e->in_color_space = JCS_RGB;
    jpeg_set_defaults(e);
    set_quality(e, quality);
    set_colour(e, full_colour);
    e->optimize_coding = TRUE; /* 6 % fewer bytes, and so faster to decode */
    jpeg_start_compress(e, TRUE);
    while (e->next_scanline < e->image_height) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(rgb + 3 * width * e->next_scanline);
        jpeg_write_scanlines(e, &row, 1);
    }
    jpeg_finish_compress(e);
    *data = j->data;
    *size = j->capacity - (int64_t)j->to.free_in_buffer;
    return XKD_OK;
}

/* After the header nothing has been allocated for the picture itself. */
static const char *refusal(const struct jpeg_decompress_struct *d, int64_t width, int64_t height)
{
    if ((int64_t)d->image_width != width || (int64_t)d->image_height != height) return "is of another size";
    if (d->num_components != 3 || d->data_precision != 8) return "has no three colours of 8 bits";
    if (d->progressive_mode || d->arith_code) return "is no baseline JPEG";
    return NULL;
}

xkd_status xkd_jpeg_decode(xkd_jpeg *j, const uint8_t *data, int64_t size, int64_t width, int64_t height, uint8_t *rgb)
{
    struct jpeg_decompress_struct *d = &j->decoder;
    d->err = handle(&j->decoding);
    if (setjmp(j->decoding.back)) {
        jpeg_abort_decompress(d);
        return xkd_fail(j->cx, XKD_ERR_DATA, "JPEG: %s", j->decoding.message);
    }
    if (!j->has_decoder) jpeg_create_decompress(d);
    j->has_decoder = true;
    d->mem->max_memory_to_use = MOST_MEMORY;
    jpeg_mem_src(d, data, (unsigned long)size);
    jpeg_read_header(d, TRUE);
    const char *refused = refusal(d, width, height);
    if (refused) {
        jpeg_abort_decompress(d);
        return xkd_fail(j->cx, XKD_ERR_DATA, "JPEG: %s", refused);
    }
    d->out_color_space = JCS_RGB;
    d->dct_method = JDCT_ISLOW;
    d->do_fancy_upsampling = TRUE;
    jpeg_start_decompress(d);
    while (d->output_scanline < d->output_height) {
        JSAMPROW rows[ROWS];
        for (int i = 0; i < ROWS; i++) {
            int64_t y = (int64_t)d->output_scanline + i;
            rows[i] = rgb + 3 * width * (y < height ? y : height - 1);
        }
        jpeg_read_scanlines(d, rows, ROWS);
    }
    jpeg_finish_decompress(d);
    return XKD_OK;
}
