/* Making a model that can be trained, with all memory that its steps take. */
#include "train/trainer_parts.h"

#include <math.h>

#include "base/alloc.h"

/* The sizes that the data side would deliver, as far as the configuration tells; floor as in its own
 * computation of a local view's side. */
xkd_view_shape xkd_config_view(const xkd_config *config, xkd_modality modality, bool local)
{
    const xkd_model_config *m = &config->model;
    const xkd_data_config *d = &config->data;
    xkd_view_shape video = {.T = m->num_frames, .H = m->frame_height, .W = m->frame_width};
    xkd_view_shape audio = {.T = 1, .H = m->spec_freq, .W = m->spec_time};
    if (local) {
        video.T /= d->video_temporal_ratio;
        video.H = (int64_t)floor((double)m->frame_height / d->video_spatial_ratio);
        video.W = (int64_t)floor((double)m->frame_width / d->video_spatial_ratio);
        audio.W /= d->audio_temporal_ratio;
    }
    return modality == XKD_VIDEO ? video : audio;
}

int64_t xkd_trainer_parts(const xkd_trainer *t)
{
    return xkd_dist_size(t->dist) * t->accumulate;
}

static int64_t left_count(const xkd_trainer *t)
{
    return xkd_trainer_parts(t) * XKD_PART_SCALARS + XKD_MODALITIES * 2 + xkd_optimizer_left(&t->in.optimizer);
}

/* They live as long as the trainer, unlike the pass's tensors. */
static xkd_status allocate(xkd_context *cx, xkd_trainer *t)
{
    xkd_status status = XKD_OK;
    int64_t K = t->in.networks.config.head.outputs, number = (int64_t)sizeof(double);
    const xkd_params *params = &t->in.networks.params;
    t->memory.of = t->in.be->memory;
    for (int round = 0; round < 2; round++) { /* measure, then assign */
        for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
            t->centre_sum[m] = xkd_arena_take(&t->memory, K * t->in.be->element.exact);
        t->device_values = xkd_arena_take(&t->memory, (int64_t)sizeof *t->device_values);
        t->part = xkd_arena_take(&t->memory, XKD_PART_SCALARS * number);
        t->left = xkd_arena_take(&t->memory, left_count(t) * number);
        if (round == 0) XKD_TRY(xkd_arena_commit(cx, &t->memory));
    }
    t->in.pass.scalars = t->part;
    for (int i = 0; i < XKD_STEPS_OPEN; i++)
        XKD_TRY(xkd_arrival_new(cx, t->in.be->memory, &t->arrivals[i].arrival, left_count(t) * number));
    if (t->dist) XKD_TRY(xkd_alloc(cx, &t->gathered, xkd_trainer_parts(t) * XKD_PART_SCALARS, sizeof *t->gathered));
    /* All gradients lie in one arena. */
    const xkd_part_vector vectors[XKD_PARTS_VECTORS] = {
        {params->grads.memory, params->grads.used / t->in.be->element.exact},
        {t->centre_sum[XKD_VIDEO], K},
        {t->centre_sum[XKD_AUDIO], K}};
    XKD_TRY(xkd_parts_new(cx, &t->in.parts, t->in.be, vectors, XKD_PARTS_VECTORS, t->accumulate));
fail:
    return status;
}

/* Memory is taken after everything is declared and checked: a configuration that does not fit together costs
 * nothing. Initial values come last, and a checkpoint may replace them. */
xkd_status xkd_trainer_new(xkd_context *cx, xkd_trainer **out, xkd_backend *be, xkd_dist *dist,
                           const xkd_config *config, const xkd_batch_shape *shape, bool report_all)
{
    xkd_status status = XKD_OK;
    xkd_trainer *t = NULL;
    *out = NULL;
    if (dist && be->dtype == XKD_F64)
        XKD_FAIL(XKD_ERR_CONFIG, "ranks add up gradients in float32: train in float64 as one process, without ranks");
    XKD_TRY(xkd_alloc(cx, &t, 1, sizeof *t));
    *t = (xkd_trainer){.in = {.be = be},
                       .dist = dist,
                       .config = config->step,
                       .beta1 = config->train.betas[0],
                       .beta2 = config->train.betas[1],
                       .eps = config->train.eps,
                       .accumulate = config->train.accumulate > 0 ? config->train.accumulate : 1};
    XKD_TRY(xkd_networks_declare(cx, &t->in.networks, &config->model));
    XKD_TRY(xkd_pass_new(cx, &t->in.pass, &t->in.networks, &config->step, shape, be->memory, NULL, be->element,
                         report_all));
    XKD_TRY(xkd_params_allocate(cx, &t->in.networks.params, be->memory, be->dtype, true));
    XKD_TRY(xkd_optimizer_new(cx, &t->in.optimizer, &t->in.networks.params, config->step.modality));
    XKD_TRY(allocate(cx, t));
    XKD_TRY(xkd_params_init(cx, &t->in.networks.params, config->train.seed, be->pool));
    /* Ownership passes to the caller; the clean-up below then frees NULL. */
    *out = t;
    t = NULL;
fail:
    xkd_trainer_free(t);
    return status;
}

xkd_trainer_inside *xkd_trainer_look(xkd_trainer *t)
{
    return &t->in;
}

static void swap_passes(xkd_trainer *t)
{
    xkd_pass other = t->spare;
    t->spare = t->in.pass;
    t->in.pass = other;
}

void xkd_trainer_free(xkd_trainer *t)
{
    if (!t) return;
    (void)xkd_dist_wait(t->dist); /* a step that was given up may have gradients on their way */
    for (int i = 0; i < XKD_STEPS_OPEN; i++) xkd_arrival_free(t->memory.of, &t->arrivals[i].arrival);
    if (t->in.pass.arena.borrowed) swap_passes(t);
    xkd_pass_free(&t->spare); /* it works in the other one's memory */
    xkd_pass_free(&t->in.pass);
    xkd_optimizer_free(&t->in.optimizer);
    xkd_parts_free(&t->in.parts);
    xkd_networks_free(&t->in.networks);
    xkd_arena_free(&t->memory);
    xkd_free(t->gathered);
    xkd_free(t);
}

/* The spare pass is that of the other size, if there is one: the larger of the two has the memory. */
xkd_status xkd_trainer_fit(xkd_context *cx, xkd_trainer *t, const xkd_batch_shape *shape)
{
    if (t->in.pass.B == shape->B) return XKD_OK;
    if (t->spare.B != shape->B) {
        if (t->in.pass.arena.borrowed) swap_passes(t);
        xkd_pass_free(&t->spare); /* of a third size */
        xkd_status status = xkd_pass_new(cx, &t->spare, &t->in.networks, &t->config, shape, t->in.be->memory,
                                         &t->in.pass.arena, t->in.be->element, t->in.pass.wants.all);
        if (status != XKD_OK) return status;
    }
    swap_passes(t);
    t->in.pass.scalars = t->part;
    return XKD_OK;
}
