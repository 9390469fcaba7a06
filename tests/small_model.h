/* A small model with random data, for tests of the whole step. Everything is a function of the seed, which tests
 * print when they fail. */
#ifndef XKD_TESTS_SMALL_MODEL_H
#define XKD_TESTS_SMALL_MODEL_H

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/rng.h"
#include "train/step.h"

enum { SMALL_MOST_VIEWS = 8 };

typedef struct {
    xkd_context *cx;
    xkd_config config;
    int64_t B, locals[XKD_MODALITIES];
    xkd_view_shape shapes[XKD_MODALITIES][SMALL_MOST_VIEWS];
    float *clips[XKD_MODALITIES][SMALL_MOST_VIEWS];
    float *noise[XKD_MODALITIES];
    xkd_pass_input input;
    xkd_step_values values;
    xkd_backend *be;
    xkd_dist *dist; /* the caller's; NULL: this process alone */
    xkd_trainer *trainer;
} small_model;

/* Defaults of the golden cases; tests change fields before small_model_build. */
static inline small_model small_model_defaults(void)
{
    small_model s = {.B = 2, .locals = {1, 1}};
    s.config.model = (xkd_model_config){
        .variant = XKD_VARIANT_XKD, .channels = 3, .frame_height = 16, .frame_width = 24, .num_frames = 4,
        .vid_patch_t = 2, .vid_patch_h = 8, .vid_patch_w = 8, .spec_freq = 8, .spec_time = 32, .spec_patch_f = 4,
        .spec_patch_t = 8, .cls_token = true, .teacher = {16, 2, 2}, .student = {16, 2, 2}, .decoder = {8, 1, 2},
        .head = {12, 6, 20}, .center_momentum = {0.9, 0.8}, .norm_pix_loss = true};
    s.config.step = (xkd_step_config){
        .global_views = 1, .mask_ratio = {0.7, 0.6}, .refine = true, .teacher_view = XKD_TEACHER_LOCAL,
        .align_coeff = 1, .cmkd_coeff = 1, .recon_coeff = 5, .clip_grad = 0.3};
    s.config.train = (xkd_train_config){.betas = {0.9, 0.95}, .eps = 1e-8, .accumulate = 1, .seed = 7};
    s.values = (xkd_step_values){.lr = 1e-3, .weight_decay = 0.3, .ema = {0.992, 0.982},
                                 .temp = {.teacher_temp = {0.4, 0.3}, .student_temp = {0.5, 0.6}}};
    return s;
}

static inline float *small_random(small_model *s, int64_t count, uint32_t sample, double low, double high)
{
    float *data = NULL;
    xkd_rng rng = xkd_rng_make(11, 0, sample, 0, XKD_RNG_TEST);
    if (xkd_alloc(s->cx, &data, count, sizeof *data) != XKD_OK) abort();
    for (int64_t i = 0; i < count; i++) data[i] = (float)xkd_rng_range(&rng, low, high);
    return data;
}

static inline void small_views(small_model *s)
{
    const xkd_model_config *m = &s->config.model;
    int64_t g = s->config.step.global_views;
    for (xkd_modality k = 0; k < XKD_MODALITIES; k++) {
        bool video = k == XKD_VIDEO;
        int64_t C = video ? m->channels : 1;
        for (int64_t v = 0; v < g + s->locals[k]; v++) {
            xkd_view_shape *shape = &s->shapes[k][v];
            *shape = video ? (xkd_view_shape){s->B, m->num_frames, m->frame_height, m->frame_width, 0}
                           : (xkd_view_shape){s->B, 1, m->spec_freq, m->spec_time, 0};
            if (v >= g && video) *shape = (xkd_view_shape){s->B, m->vid_patch_t, 2 * m->vid_patch_h, 2 * m->vid_patch_w, 0};
            if (v >= g && !video) shape->W = 3 * m->spec_patch_t;
            s->clips[k][v] = small_random(s, s->B * C * shape->T * shape->H * shape->W, (uint32_t)(100 * k + v), -2, 2);
        }
        int64_t N = video ? m->num_frames / m->vid_patch_t * (m->frame_height / m->vid_patch_h) * (m->frame_width / m->vid_patch_w)
                          : m->spec_freq / m->spec_patch_f * (m->spec_time / m->spec_patch_t);
        s->noise[k] = small_random(s, g * s->B * N, 900 + k, 0, 1);
        s->input.clips[k] = (const float *const *)s->clips[k];
        s->input.noise[k] = s->noise[k];
    }
}

/* Values that stress every path: teachers differ from students, norms from 1, biases and centres from 0. */
static inline void small_shake(xkd_params *params)
{
    for (int64_t i = 0; i < params->count; i++) {
        xkd_param *row = params->rows[i];
        xkd_rng rng = xkd_rng_make(23, 0, (uint32_t)i, 0, XKD_RNG_TEST);
        for (int64_t k = 0; k < row->count; k++) {
            double old = xkd_get(params->dtype, row->value, k), step = row->count == row->shape.dims[0] ? 0.3 : 0.15;
            xkd_set(params->dtype, row->value, k, old + step * xkd_rng_normal(&rng));
        }
    }
}

static inline xkd_status small_model_build(small_model *s, const char *backend, xkd_dtype dtype, int threads)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = s->cx = xkd_context_new();
    small_views(s);
    int64_t g = s->config.step.global_views;
    xkd_batch_shape shape = {.B = s->B, .views = {g + s->locals[0], g + s->locals[1]}, .shape = {s->shapes[0], s->shapes[1]}};
    XKD_TRY(xkd_backend_new(cx, &s->be, backend, dtype, threads));
    XKD_TRY(xkd_trainer_new(cx, &s->trainer, s->be, s->dist, &s->config, &shape, false));
    small_shake(&xkd_trainer_look(s->trainer)->networks.params);
fail:
    return status;
}

static inline void small_model_free(small_model *s)
{
    xkd_trainer_free(s->trainer);
    xkd_backend_free(s->be);
    for (int k = 0; k < XKD_MODALITIES; k++) {
        for (int v = 0; v < SMALL_MOST_VIEWS; v++) xkd_free(s->clips[k][v]);
        xkd_free(s->noise[k]);
    }
    xkd_context_free(s->cx);
}

#endif
