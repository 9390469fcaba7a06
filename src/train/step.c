/* The training step, from views to moving averages. Start reading here: each line below is one stage of method.md, and
 * leads to the file that computes it.
 *
 *   views -> masking -> teachers -> students -> losses -> backward -> clip -> AdamW -> EMA -> centres */
#include "train/step.h"

#include <math.h>

#include "loss/distill.h"

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

/* [K] per modality in the backend's element type; they live as long as the trainer, unlike the pass's
 * tensors. */
static xkd_status allocate_centre_sums(xkd_context *cx, xkd_trainer *t)
{
    xkd_status status = XKD_OK;
    for (int round = 0; round < 2; round++) { /* measure, then assign */
        for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
            t->centre_sum[m] = xkd_arena_take(&t->centre_memory, t->networks.config.head.outputs * t->be->size);
        if (round == 0) XKD_TRY(xkd_arena_commit(cx, &t->centre_memory));
    }
fail:
    return status;
}

/* Memory is taken after everything is declared and checked: a configuration that does not fit together costs
 * nothing. Initial values come last, and a checkpoint may replace them. */
xkd_status xkd_trainer_new(xkd_context *cx, xkd_trainer *out, xkd_backend *be, const xkd_config *config,
                           const xkd_batch_shape *shape, bool report_all)
{
    xkd_status status = XKD_OK;
    *out = (xkd_trainer){.be = be,
                         .config = config->step,
                         .beta1 = config->train.betas[0],
                         .beta2 = config->train.betas[1],
                         .eps = config->train.eps,
                         .accumulate = config->train.accumulate > 0 ? config->train.accumulate : 1};
    XKD_TRY(xkd_networks_declare(cx, &out->networks, &config->model));
    XKD_TRY(xkd_pass_new(cx, &out->pass, &out->networks, &config->step, shape, be->size, report_all));
    XKD_TRY(xkd_params_allocate(cx, &out->networks.params, be->dtype, true));
    XKD_TRY(xkd_optimizer_new(cx, &out->optimizer, &out->networks.params, config->step.modality));
    XKD_TRY(allocate_centre_sums(cx, out));
    xkd_params_init(&out->networks.params, config->train.seed, be->pool);
fail:
    if (status != XKD_OK) xkd_trainer_free(out);
    return status;
}

/* Also frees a trainer that was only zeroed. */
void xkd_trainer_free(xkd_trainer *t)
{
    xkd_pass_free(&t->pass);
    xkd_optimizer_free(&t->optimizer);
    xkd_networks_free(&t->networks);
    xkd_arena_free(&t->centre_memory);
}

/* method.md section 7, freeze_last_layer. */
static bool trains_last_layer(const xkd_trainer *t, const xkd_step_values *values)
{
    return values->epoch >= t->config.freeze_last_layer;
}

/* Gradients, centre sums and losses start at 0 once a step and then add up over its micro-batches. */
void xkd_step_begin(xkd_trainer *t, xkd_step_result *result)
{
    *result = (xkd_step_result){0};
    xkd_optimizer_zero(t->be, &t->optimizer);
    t->centre_rows = 0;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        t->be->ops->fill(t->be, t->centre_sum[m], 0, t->networks.config.head.outputs);
}

/* share makes the sum over micro-batches a mean, in losses and gradients alike. The teachers' logits are
 * summed for the centre, which is updated once at the end. */
void xkd_step_micro_batch(xkd_trainer *t, const xkd_pass_input *in, const xkd_step_values *values,
                          xkd_step_result *result)
{
    xkd_backend *be = t->be;
    xkd_pass *pass = &t->pass;
    double share = 1 / (double)t->accumulate;

    xkd_pass_mask(pass, in);
    xkd_pass_teachers(be, pass, in);
    xkd_pass_students(be, pass, in);
    xkd_pass_losses(be, pass, &values->temp);
    xkd_pass_backward(be, pass, &values->temp, share, pass->wants.all || trains_last_layer(t, values));

    for (int i = 0; i < XKD_LOSS_COUNT; i++) result->loss[i] += share * pass->loss[i];
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        result->teacher_entropy[m] += share * pass->teacher[m].entropy;
        if (pass->wants.kd)
            be->ops->column_sum(be, t->centre_sum[m], pass->teacher[m].head.logits, pass->B,
                                t->networks.config.head.outputs);
    }
    t->centre_rows += pass->B;
}

/* All or nothing: if the loss or any gradient is not finite, neither weights nor moments nor centres change.
 * The centres come after the update, for this step's losses used the old ones. */
xkd_status xkd_step_finish(xkd_trainer *t, const xkd_step_values *values, xkd_step_result *result)
{
    xkd_backend *be = t->be;
    const xkd_optimizer_step step = {.lr = values->lr,
                                     .weight_decay = values->weight_decay,
                                     .beta1 = t->beta1,
                                     .beta2 = t->beta2,
                                     .eps = t->eps,
                                     .ema = {values->ema[XKD_VIDEO], values->ema[XKD_AUDIO]},
                                     .clip_grad = t->config.clip_grad,
                                     .train_last_layer = trains_last_layer(t, values)};

    bool finite = xkd_optimizer_norms(be, &t->optimizer, &result->grad_norm);
    result->skipped = !finite || !isfinite(result->loss[XKD_LOSS_TOTAL]);
    if (!result->skipped) {
        xkd_optimizer_apply(be, &t->optimizer, &step);
        for (xkd_modality m = 0; t->pass.wants.kd && m < XKD_MODALITIES; m++)
            xkd_centre_update(be, t->networks.centre[m]->value, t->centre_sum[m], t->networks.config.center_momentum[m],
                              t->centre_rows, t->networks.config.head.outputs);
    }
    /* After the first step every thread has the scratch it will ever need, and a step allocates nothing. */
    xkd_backend_settle(be);
    return xkd_backend_status(be);
}
