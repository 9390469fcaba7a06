/* Views of supervised training, made by the loader's threads. A maker is one thread's; it turns a decoded clip into
 * the view that the configuration asks for. Sound and the views of frozen features go to the viewer of pre-training,
 * fine-tuning's own sequence is below. */
#include "eval/encode/training_views.h"

#include <string.h>

#include "base/alloc.h"
#include "eval/encode/clips.h"

/* One thread's memory; it grows to the largest clip seen. */
typedef struct {
    xkd_context *cx;
    const xkd_training_views *views;
    xkd_viewer *viewer;  /* of sound and of frozen features */
    float value[3][256]; /* what a byte of a channel becomes */
    uint8_t *bytes;      /* [3,T,H,W] planes of the clip, and a frame of scratch */
    float *box;          /* [h,w] of one plane */
    int64_t byte_capacity, box_capacity;
} maker;

bool xkd_three_crop_views(const xkd_config *config, xkd_modality modality)
{
    return modality == XKD_VIDEO && config->eval.vid_transform == XKD_TRANSFORM_RANDAUG;
}

/* A loader_plan function; `memory` is what maker_new made. */
static void maker_free(void *memory)
{
    maker *m = memory;
    xkd_viewer_free(m->viewer);
    xkd_free(m->bytes);
    xkd_free(m->box);
    xkd_free(m);
}

/* A loader_plan function, called once a thread, in that thread. */
static xkd_status maker_new(xkd_context *cx, const void *user, void **out)
{
    xkd_status status = XKD_OK;
    maker *m = NULL;
    uint8_t ramp[256];
    XKD_TRY(xkd_alloc(cx, &m, 1, sizeof *m));
    m->cx = cx;
    m->views = user;
    /* Normalisation is looked up: crop and resize then read bytes of the box only. */
    for (int i = 0; i < 256; i++) ramp[i] = (uint8_t)i;
    /* The ramp goes through the normalisation that whole frames go through: the table cannot differ from it. */
    xkd_image_normalise(&(xkd_planes){1, 1, 256, {ramp, ramp, ramp}}, &m->value[0][0]);
    if (!xkd_three_crop_views(m->views->config, m->views->modality))
        XKD_TRY(xkd_viewer_new(cx, &m->views->config->data, &m->viewer));
    *out = m;
    m = NULL;
fail:
    if (m) maker_free(m);
    return status;
}

/* A clip with fewer frames than a view is repeated from its start. */
static xkd_status load_planes(maker *m, const xkd_clip *clip, int64_t T, xkd_planes *planes, uint8_t **scratch)
{
    xkd_status status = XKD_OK;
    int64_t pixels = clip->height * clip->width, need = (3 * T + 1) * pixels;
    if (need > m->byte_capacity) {
        XKD_TRY(xkd_resize(m->cx, &m->bytes, m->byte_capacity, need, 1));
        m->byte_capacity = need;
    }
    *planes = (xkd_planes){T, clip->height, clip->width, {m->bytes, m->bytes + T * pixels, m->bytes + 2 * T * pixels}};
    *scratch = m->bytes + 3 * T * pixels;
    for (int64_t t = 0; t < T; t++) xkd_planes_put(planes, t, clip->frames + t % clip->count * 3 * pixels, false);
fail:
    return status;
}

/* out [3,T,side,side] = the box of all frames, normalised and resized; the same as normalising whole frames first. A
 * whole float clip at the file's size would be four times the bytes. */
static xkd_status crop_frames(maker *m, const xkd_planes *planes, const xkd_crop_box *box, int64_t side, float *out)
{
    xkd_status status = XKD_OK;
    int64_t size = box->height * box->width, pixels = planes->height * planes->width;
    if (size > m->box_capacity) {
        XKD_TRY(xkd_resize(m->cx, &m->box, m->box_capacity, size, sizeof *m->box));
        m->box_capacity = size;
    }
    for (int c = 0; c < 3; c++)
        for (int64_t t = 0; t < planes->frames; t++, out += side * side) {
            const uint8_t *from = planes->plane[c] + t * pixels + box->top * planes->width + box->left;
            for (int64_t y = 0; y < box->height; y++)
                for (int64_t x = 0; x < box->width; x++) /* A byte looked up is the normalised value. */
                    m->box[y * box->width + x] = m->value[c][from[y * planes->width + x]];
            xkd_tensor_bilinear(m->box, 1, box->height, box->width, out, side, side);
        }
fail:
    return status;
}

/* Left to right, row by row. */
static void mirror(float *rows, int64_t count, int64_t width)
{
    for (int64_t y = 0; y < count; y++, rows += width)
        for (int64_t a = 0, b = width - 1; a < b; a++, b--) {
            float held = rows[a];
            rows[a] = rows[b];
            rows[b] = held;
        }
}

/* out [3,T,side,side]. Augmentation and crop have a stream of random numbers each: another RandAugment policy leaves
 * the boxes as they were. */
static xkd_status fine_tuning_view(maker *m, const xkd_clip *clip, const xkd_view_key *key, float *out)
{
    xkd_status status = XKD_OK;
    const xkd_config *c = m->views->config;
    int64_t side = c->data.crop_size, T = xkd_clip_shape(&c->data, XKD_VIDEO).T;
    xkd_planes planes;
    uint8_t *scratch;
    XKD_TRY(load_planes(m, clip, T, &planes, &scratch));
    xkd_rng rng = xkd_rng_make(key->seed, key->epoch, key->sample, XKD_STREAM_AUGMENT, XKD_RNG_EVAL);
    if (m->views->augment) xkd_rand_augment_run(&planes, &m->views->policy, &rng, scratch);
    rng = xkd_rng_make(key->seed, key->epoch, key->sample, XKD_STREAM_CROP, XKD_RNG_EVAL);
    xkd_crop_box box = xkd_draw_crop(&rng, c->data.video_view[XKD_GLOBAL_VIEW].crop_scale, c->eval.aspect_ratio,
                                     planes.height, planes.width);
    XKD_TRY(crop_frames(m, &planes, &box, side, out));
    /* Drawn also where flipping is off, so that erasing gets the same numbers. */
    bool flip = xkd_rng_uniform(&rng) < 0.5;
    if (c->eval.flip && flip) mirror(out, 3 * T * side, side);
    xkd_random_erase(&rng, c->eval.erase, out, 3, T, side, side);
fail:
    return status;
}

/* A loader_plan function: views of one clip for one sample and epoch. */
static xkd_status make(void *memory, const xkd_clip *clip, const xkd_view_key *key, float *const out[XKD_MODALITIES])
{
    maker *m = memory;
    if (m->views->modality == XKD_AUDIO)
        return xkd_view_masked_audio(m->viewer, clip, *key, 0, &m->views->masks, out[XKD_AUDIO]);
    return m->viewer ? xkd_view_video(m->viewer, clip, *key, 0, out[XKD_VIDEO])
                     : fine_tuning_view(m, clip, key, out[XKD_VIDEO]);
}

xkd_spec_masks xkd_training_masks(const xkd_eval_config *e)
{
    return (xkd_spec_masks){.bands = e->frequency_mask ? e->frequency_masks : 0,
                            .columns = e->time_mask ? e->time_masks : 0,
                            .band_width = {e->frequency_mask_width[0], e->frequency_mask_width[1]},
                            .column_width = {e->time_mask_width[0], e->time_mask_width[1]}};
}

xkd_status xkd_training_views_new(xkd_context *cx, const xkd_config *config, xkd_modality modality,
                                  xkd_training_views *views, xkd_loader_plan *plan)
{
    xkd_status status = XKD_OK;
    const xkd_eval_config *e = &config->eval;
    *views = (xkd_training_views){.config = config, .modality = modality};
    views->masks = xkd_training_masks(e);
    views->augment = *e->auto_augment != 0;
    if (views->augment) XKD_TRY(xkd_rand_augment_parse(cx, e->auto_augment, &views->policy));
    /* `passes`: the training clips of a file in one epoch. */
    *plan = (xkd_loader_plan){.passes = e->train_clips,
                              .short_side = xkd_three_crop_views(config, modality)
                                                ? e->short_side
                                                : xkd_clip_short_side(config->data.crop_size),
                              .user = views,
                              .maker_new = maker_new,
                              .maker_free = maker_free,
                              .make = make};
    plan->wanted[modality] = true;
fail:
    return status;
}
