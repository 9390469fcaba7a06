/* Making the trainer that `xkd bench` measures. */
#include "bench_model.h"

#include <stdio.h>
#include <string.h>

#include "backend/open.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"

/* Uniform in [0, 1). */
static xkd_status random_floats(xkd_context *cx, float **out, int64_t count, uint32_t stream)
{
    xkd_status status = XKD_OK;
    xkd_rng rng = xkd_rng_make(1, 0, stream, 0, XKD_RNG_TEST);
    XKD_TRY(xkd_alloc(cx, out, count, sizeof **out));
    for (int64_t i = 0; i < count; i++) (*out)[i] = (float)xkd_rng_u32(&rng) * 0x1p-32f;
fail:
    return status;
}

/* Random views of the configured sizes: the time of a step does not depend on what is in them. */
static xkd_status make_views(xkd_context *cx, struct bench_model *b, xkd_modality m)
{
    xkd_status status = XKD_OK;
    int64_t B = b->config.train.batch, g = b->config.step.global_views;
    int64_t C = m == XKD_VIDEO ? b->config.model.channels : 1;
    b->views[m] = g + (m == XKD_VIDEO ? b->config.data.video_local_views : b->config.data.audio_local_views);
    XKD_TRY(xkd_alloc(cx, &b->shape[m], b->views[m], sizeof *b->shape[m]));
    XKD_TRY(xkd_alloc(cx, &b->clips[m], b->views[m], sizeof *b->clips[m]));
    for (int64_t v = 0; v < b->views[m]; v++) {
        xkd_view_shape *s = &b->shape[m][v];
        *s = xkd_config_view(&b->config, m, v >= g);
        if (b->there) continue;
        XKD_TRY(random_floats(cx, &b->clips[m][v], B * C * s->T * s->H * s->W, (uint32_t)(100 * m + v)));
    }
    xkd_view_shape *s = &b->shape[m][0];
    /* One float of noise a pixel: more than there are tokens. */
    XKD_TRY(random_floats(cx, &b->noise[m], g * B * s->T * s->H * s->W, 1000 + m));
fail:
    return status;
}

/* What the device makes views of, where it does. */
static xkd_status make_raw(xkd_context *cx, struct bench_model *b)
{
    xkd_status status = XKD_OK;
    int64_t B = b->config.train.batch;
    if (!b->there) return XKD_OK;
    XKD_TRY(xkd_raw_plan_new(cx, &b->config.data, B, &b->raw));
    XKD_TRY(xkd_raw_batch_new(cx, &b->raw, b->be->memory, &b->raw_batch));
    XKD_TRY(xkd_raw_fill(cx, &b->raw_batch, B));
fail:
    return status;
}

/* KEY=VALUE may change anything but the batch, which has an option of its own. */
xkd_status bench_model_make(xkd_context *cx, struct bench_model *b, const struct bench_model_args *args)
{
    xkd_status status = XKD_OK;
    char device[100];
    *b = (struct bench_model){0};
    XKD_TRY(xkd_config_init(cx, &b->config));
    if (args->config) XKD_TRY(xkd_config_load(cx, &b->config, args->config, false));
    for (int i = 0; i < args->count; i++) XKD_TRY(xkd_config_override(cx, &b->config, args->overrides[i]));
    snprintf(device, sizeof device, "run.device=%s", args->device);
    XKD_TRY(xkd_config_override(cx, &b->config, device));
    XKD_TRY(xkd_config_finish(cx, &b->config));
    XKD_TRY(xkd_config_device_views(cx, &b->config, &b->there));
    b->there = b->there && b->config.augment == XKD_AUGMENT_GPU; /* only where it is asked for: the rest is no data's */
    /* After the checks, which hold for the configured batch. */
    b->config.train.batch = args->batch;
    b->config.train.accumulate = 1;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) XKD_TRY(make_views(cx, b, m));
    XKD_TRY(xkd_backend_open(cx, &b->be, args->device, &b->config, (int)args->threads));
    XKD_TRY(make_raw(cx, b));
    xkd_batch_shape shape = {.B = args->batch,
                             .views = {b->views[0], b->views[1]},
                             .shape = {b->shape[0], b->shape[1]},
                             .raw = b->there ? &b->raw : NULL};
    XKD_TRY(xkd_trainer_new(cx, &b->trainer, b->be, NULL, &b->config, &shape, false));
fail:
    return status;
}

void bench_model_free(struct bench_model *b)
{
    xkd_trainer_free(b->trainer);
    xkd_raw_batch_free(&b->raw_batch);
    xkd_raw_plan_free(&b->raw);
    xkd_backend_free(b->be);
    for (int m = 0; m < XKD_MODALITIES; m++) {
        for (int64_t i = 0; b->clips[m] && i < b->views[m]; i++) xkd_free(b->clips[m][i]);
        xkd_free(b->clips[m]);
        xkd_free(b->shape[m]);
        xkd_free(b->noise[m]);
    }
    xkd_config_free(&b->config);
}

double bench_model_step(struct bench_model *b)
{
    const xkd_train_config *t = &b->config.train;
    /* The batch is one micro-batch: with accumulation a step is a multiple of it. */
    xkd_pass_input in = {.clips = {(const float *const *)b->clips[0], (const float *const *)b->clips[1]},
                         .noise = {b->noise[0], b->noise[1]},
                         .raw = &b->raw_batch};
    xkd_step_values values = {
        .lr = t->lr.base, .weight_decay = t->weight_decay.base, .ema = {t->ema[0].base, t->ema[1].base}};
    xkd_step_result result;
    for (int m = 0; m < XKD_MODALITIES; m++) {
        values.temp.teacher_temp[m] = t->teacher_temp[m];
        values.temp.student_temp[m] = t->student_temp[m];
    }
    /* Optimiser and moving averages belong to the step and to its time. */
    double start = xkd_now();
    xkd_step_begin(b->trainer, &values);
    xkd_step_micro_batch(b->trainer, &in);
    xkd_step_finish(b->trainer);
    xkd_step_collect(b->trainer, &result);
    double seconds = xkd_now() - start;
    memcpy(b->losses, result.loss, sizeof b->losses);
    return seconds;
}
