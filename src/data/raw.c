/* Filling and reading micro-batches of what was decoded. */
#include "data/raw.h"

#include <string.h>

#include "base/alloc.h"

/* What begins in a block begins here, for the device's sake. */
enum { ALIGNMENT = 64 };

static int64_t aligned(int64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* The next piece of a block. */
static int64_t take(int64_t *used, int64_t bytes)
{
    int64_t at = *used;
    *used += aligned(bytes);
    return at;
}

static int64_t views_of(const xkd_raw_plan *p, xkd_modality m)
{
    if (p->data->left_out[m]) return 0;
    return m == XKD_VIDEO ? p->shapes.video_views : p->shapes.audio_views;
}

/* Of the frames of a view: a short side is crop_size, and a ratio 4 : 3 at most, to the rounding of both sides. */
static int64_t box_bytes(const xkd_raw_plan *p, int64_t v)
{
    return 3 * p->shapes.video[v].frames * p->data->crop_size * p->box_side;
}

xkd_status xkd_raw_plan_new(xkd_context *cx, const xkd_data_config *data, int64_t places, xkd_raw_plan *p)
{
    xkd_status status = XKD_OK;
    int64_t used = 0;
    *p = (xkd_raw_plan){.data = data, .places = places, .box_side = data->crop_size * 4 / 3 + 2};
    XKD_TRY(xkd_view_shapes_of(cx, data, &p->shapes));
    XKD_TRY(xkd_mel_new(cx, data->audio_rate, data->n_fft, data->hop_length, data->n_mels, &p->mel));
    for (int64_t v = 0; v < views_of(p, XKD_VIDEO); v++)
        p->changes[XKD_VIDEO][v] = take(&used, places * (int64_t)sizeof(xkd_video_change));
    for (int64_t v = 0; v < views_of(p, XKD_AUDIO); v++) {
        p->changes[XKD_AUDIO][v] = take(&used, places * (int64_t)sizeof(xkd_audio_change));
        xkd_audio_draw draw = xkd_draw_audio(data, &p->shapes, (xkd_view_key){0}, v);
        p->canvas_height[v] = draw.canvas_height; /* the same in all draws */
        p->canvas_width[v] = draw.canvas_width;
    }
    p->samples = views_of(p, XKD_AUDIO) ? xkd_view_samples(data, 0) : 0;
    p->sound = take(&used, places * p->samples * (int64_t)sizeof(int16_t));
    p->boxes = used;
    for (int64_t v = 0; v < views_of(p, XKD_VIDEO); v++) used += places * aligned(box_bytes(p, v));
    p->bytes = used;
fail:
    if (status != XKD_OK) xkd_raw_plan_free(p);
    return status;
}

void xkd_raw_plan_free(xkd_raw_plan *p)
{
    xkd_mel_free(p->mel);
    *p = (xkd_raw_plan){0};
}

xkd_status xkd_raw_batch_new(xkd_context *cx, const xkd_raw_plan *plan, xkd_memory *memory, xkd_raw_batch *out)
{
    *out = (xkd_raw_batch){.plan = plan, .memory = memory, .used = plan->boxes};
    return xkd_departure_new(cx, memory, &out->block, plan->bytes);
}

void xkd_raw_batch_free(xkd_raw_batch *b)
{
    xkd_departure_free(b->memory, &b->block);
    *b = (xkd_raw_batch){0};
}

void xkd_raw_batch_wait(xkd_raw_batch *b)
{
    xkd_departure_wait(b->memory, &b->block);
}

void xkd_raw_batch_empty(xkd_raw_batch *b)
{
    if (b->plan) b->used = b->plan->boxes;
}

/* Frames of a view cut to its box, without gaps. */
static void cut(const xkd_boxes *frames, const xkd_video_change *c, int64_t T, uint8_t *to)
{
    const int64_t row = (int64_t)3 * c->width;
    for (int64_t t = 0; t < T; t++) {
        const uint8_t *from = frames->rgb + (frames->first + t) % frames->count * frames->frame_bytes;
        for (int64_t y = 0; y < c->height; y++, to += row) memcpy(to, from + y * frames->row_bytes, (size_t)row);
    }
}

static xkd_status put_video(xkd_context *cx, xkd_raw_batch *b, const xkd_clip *clip, xkd_view_key key, int64_t place)
{
    const xkd_raw_plan *p = b->plan;
    if (clip->count < 1) return xkd_fail(cx, XKD_ERR_INTERNAL, "a clip without frames reached the views");
    for (int64_t v = 0; v < views_of(p, XKD_VIDEO); v++) {
        const xkd_video_draw draw = xkd_draw_video(p->data, &p->shapes, key, v, clip->height, clip->width);
        const xkd_boxes frames = xkd_clip_box(clip, &draw);
        xkd_video_change *c = (xkd_video_change *)((char *)b->block.host + p->changes[XKD_VIDEO][v]) + place;
        int64_t bytes = 3 * p->shapes.video[v].frames * draw.height * draw.width;
        if (bytes > box_bytes(p, v) || draw.height > p->box_side || draw.width > p->box_side)
            return xkd_fail(cx, XKD_ERR_INTERNAL, "a box of %lldx%lld of frames of %lldx%lld has no room in a batch",
                            (long long)draw.width, (long long)draw.height, (long long)clip->width,
                            (long long)clip->height);
        *c = xkd_video_change_of(p->data, &p->shapes, v, &draw);
        c->at = __atomic_fetch_add(&b->used, aligned(bytes), __ATOMIC_RELAXED);
        cut(&frames, c, p->shapes.video[v].frames, (uint8_t *)b->block.host + c->at);
    }
    return XKD_OK;
}

/* All views read the sound of the whole clip; what is missing of it is silence. */
static void put_audio(xkd_raw_batch *b, const xkd_clip *clip, xkd_view_key key, int64_t place)
{
    const xkd_raw_plan *p = b->plan;
    const int64_t sample = (int64_t)sizeof(int16_t), at = p->sound + place * p->samples * sample;
    int64_t heard = clip->samples < p->samples ? clip->samples : p->samples;
    if (heard > 0) memcpy((char *)b->block.host + at, clip->sound, (size_t)(heard * sample));
    memset((char *)b->block.host + at + heard * sample, 0, (size_t)((p->samples - heard) * sample));
    for (int64_t v = 0; v < views_of(p, XKD_AUDIO); v++) {
        const xkd_audio_draw draw = xkd_draw_audio(p->data, &p->shapes, key, v);
        xkd_audio_change *c = (xkd_audio_change *)((char *)b->block.host + p->changes[XKD_AUDIO][v]) + place;
        *c = xkd_audio_change_of(&draw);
        c->at = at + draw.first_sample * sample;
    }
}

xkd_status xkd_raw_put(xkd_context *cx, xkd_raw_batch *b, const xkd_clip *clip, xkd_view_key key, int64_t place)
{
    if (views_of(b->plan, XKD_AUDIO)) put_audio(b, clip, key, place);
    return views_of(b->plan, XKD_VIDEO) ? put_video(cx, b, clip, key, place) : XKD_OK;
}

xkd_status xkd_raw_fill(xkd_context *cx, xkd_raw_batch *b, int64_t count)
{
    xkd_status status = XKD_OK;
    const xkd_raw_plan *p = b->plan;
    const int64_t T = p->shapes.video[0].frames, side = p->data->crop_size;
    xkd_rng rng = xkd_rng_make(1, 0, 0, 0, XKD_RNG_TEST);
    uint8_t *frames = NULL;
    int16_t *sound = NULL;
    XKD_TRY(xkd_alloc(cx, &frames, T * side * side * 3, 1));
    XKD_TRY(xkd_alloc(cx, &sound, xkd_view_samples(p->data, 0), sizeof *sound));
    for (int64_t i = 0; i < T * side * side * 3; i++) frames[i] = (uint8_t)(xkd_rng_u32(&rng) >> 24);
    for (int64_t i = 0; i < xkd_view_samples(p->data, 0); i++) sound[i] = (int16_t)(xkd_rng_u32(&rng) >> 20);
    const xkd_clip clip = {frames, T, side, side, sound, xkd_view_samples(p->data, 0)};
    xkd_raw_batch_empty(b);
    for (int64_t i = 0; i < count; i++) XKD_TRY(xkd_raw_put(cx, b, &clip, (xkd_view_key){1, 0, (uint32_t)i}, i));
fail:
    xkd_free(frames);
    xkd_free(sound);
    return status;
}

xkd_status xkd_raw_copy(xkd_context *cx, const xkd_raw_batch *b, xkd_raw_batch *out)
{
    xkd_status status = xkd_raw_batch_new(cx, b->plan, b->memory, out);
    if (status != XKD_OK) return status;
    memcpy(out->block.host, b->block.host, (size_t)b->used);
    out->used = b->used;
    return XKD_OK;
}

void xkd_raw_view(xkd_backend *be, const xkd_raw_plan *p, const void *block, xkd_modality m, int64_t v, int64_t B,
                  float *out)
{
    const void *changes = (const char *)block + p->changes[m][v];
    if (m == XKD_VIDEO) {
        be->ops->video_view(be, out,
                            &(xkd_video_view_args){.from = block,
                                                   .change = changes,
                                                   .B = B,
                                                   .T = p->shapes.video[v].frames,
                                                   .H = p->shapes.video[v].height,
                                                   .W = p->shapes.video[v].width,
                                                   .box_height = p->box_side,
                                                   .box_width = p->box_side});
        return;
    }
    be->ops->audio_view(be, out,
                        &(xkd_audio_view_args){.from = block,
                                               .change = changes,
                                               .tables = xkd_mel_tables_of(p->mel),
                                               .B = B,
                                               .shape = {.samples = xkd_view_samples(p->data, v),
                                                         .bands = p->shapes.audio[v].bands,
                                                         .columns = p->shapes.audio[v].columns,
                                                         .mean = (float)p->data->mel_mean,
                                                         .std = (float)p->data->mel_std},
                                               .canvas_height = p->canvas_height[v],
                                               .canvas_width = p->canvas_width[v]});
}
