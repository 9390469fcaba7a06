/* The training step, from views to moving averages. Start reading here: each line below is one stage of method.md, and
 * leads to the file that computes it.
 *
 *   views -> masking -> teachers -> students -> losses -> backward -> clip -> AdamW -> EMA -> centres */
#include "train/step.h"

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

/* Numbers of the collapse watch in a modality: two of column_energy, the centre's squares, and whether they are finite. */
enum { WATCH = 4 };

static int64_t scalar_count(const xkd_trainer *t)
{
    return t->accumulate * XKD_PASS_SCALARS + XKD_MODALITIES * WATCH;
}

/* They live as long as the trainer, unlike the pass's tensors. */
static xkd_status allocate(xkd_context *cx, xkd_trainer *t)
{
    xkd_status status = XKD_OK;
    t->memory.of = t->be->memory;
    for (int round = 0; round < 2; round++) { /* measure, then assign */
        for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
            t->centre_sum[m] = xkd_arena_take(&t->memory, t->networks.config.head.outputs * t->be->size);
        t->scalars = xkd_arena_take(&t->memory, scalar_count(t) * (int64_t)sizeof *t->scalars);
        if (round == 0) XKD_TRY(xkd_arena_commit(cx, &t->memory));
    }
    XKD_TRY(xkd_alloc(cx, &t->read, scalar_count(t), sizeof *t->read));
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
    XKD_TRY(xkd_pass_new(cx, &out->pass, &out->networks, &config->step, shape, be->memory, be->size, report_all));
    XKD_TRY(xkd_params_allocate(cx, &out->networks.params, be->memory, be->dtype, true));
    XKD_TRY(xkd_optimizer_new(cx, &out->optimizer, &out->networks.params, config->step.modality));
    XKD_TRY(allocate(cx, out));
    XKD_TRY(xkd_params_init(cx, &out->networks.params, config->train.seed, be->pool));
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
    xkd_arena_free(&t->memory);
    xkd_free(t->read);
    t->read = NULL;
}

/* method.md section 7, freeze_last_layer. */
static bool trains_last_layer(const xkd_trainer *t, const xkd_step_values *values)
{
    return values->epoch >= t->config.freeze_last_layer;
}

/* Gradients, centre sums and scalars start at 0 once a step and then add up over its micro-batches. */
void xkd_step_begin(xkd_trainer *t, xkd_step_result *result)
{
    *result = (xkd_step_result){0};
    xkd_optimizer_zero(t->be, &t->optimizer);
    xkd_memory_zero(t->be->memory, t->scalars, scalar_count(t) * (int64_t)sizeof *t->scalars);
    t->centre_rows = t->micro = 0;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        t->be->ops->fill(t->be, t->centre_sum[m], 0, t->networks.config.head.outputs);
}

/* The share makes the sum over micro-batches a mean. The teachers' logits are summed for the centre, which is updated
 * once at the end. */
void xkd_step_micro_batch(xkd_trainer *t, const xkd_pass_input *in, const xkd_step_values *values)
{
    xkd_backend *be = t->be;
    xkd_pass *pass = &t->pass;
    double share = 1 / (double)t->accumulate;

    pass->scalars = t->scalars + t->micro++ * XKD_PASS_SCALARS;
    xkd_pass_load(pass, in);
    xkd_pass_teachers(be, pass);
    xkd_pass_students(be, pass);
    xkd_pass_losses(be, pass, &values->temp);
    xkd_pass_backward(be, pass, &values->temp, share, pass->wants.all || trains_last_layer(t, values));

    for (xkd_modality m = 0; pass->wants.kd && m < XKD_MODALITIES; m++)
        be->ops->column_sum(be, t->centre_sum[m], pass->teacher[m].head.logits, pass->B,
                            t->networks.config.head.outputs);
    t->centre_rows += pass->B;
}

/* What the collapse watch looks at, of the last micro-batch and the new centres. */
static void measure(xkd_trainer *t)
{
    xkd_backend *be = t->be;
    int64_t K = t->networks.config.head.outputs;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        double *watch = t->scalars + t->accumulate * XKD_PASS_SCALARS + m * WATCH;
        const xkd_vector centre = {t->networks.centre[m]->value, K};
        be->ops->column_energy(be, watch, t->pass.teacher[m].head.logits, t->pass.B, K);
        be->ops->norms(be, watch + 2, watch + 3, &centre, 1, NULL, 0);
    }
}

/* The only wait of a step: everything that it leaves for the host comes at once. */
static void read_result(xkd_trainer *t, xkd_step_result *result)
{
    double share = 1 / (double)t->accumulate, loss[XKD_LOSS_COUNT];
    const double *watch = t->read + t->accumulate * XKD_PASS_SCALARS;
    xkd_memory_download(t->be->memory, t->read, t->scalars, scalar_count(t) * (int64_t)sizeof *t->read);
    for (int64_t i = 0; i < t->accumulate; i++) {
        const double *scalars = t->read + i * XKD_PASS_SCALARS;
        xkd_pass_report(&t->pass, scalars, loss);
        for (int k = 0; k < XKD_LOSS_COUNT; k++) result->loss[k] += share * loss[k];
        for (int m = 0; m < XKD_MODALITIES; m++) result->teacher_entropy[m] += share * scalars[XKD_LOSS_TERMS + m];
    }
    for (int m = 0; m < XKD_MODALITIES; m++, watch += WATCH) {
        result->energy[m][0] = watch[0];
        result->energy[m][1] = watch[1];
        result->centre_squares[m] = watch[2];
    }
    result->skipped = !xkd_optimizer_read(&t->optimizer, &result->grad_norm);
}

/* All or nothing: if a loss or any gradient is not finite, neither weights nor moments nor centres change.
 * The centres come after the update, for this step's losses used the old ones. A fault of the backend in the passes is
 * found before any weight changes. */
xkd_status xkd_step_finish(xkd_trainer *t, const xkd_step_values *values, xkd_step_result *result)
{
    xkd_backend *be = t->be;
    const xkd_model_config *model = &t->networks.config;
    const xkd_optimizer_step step = {.lr = values->lr,
                                     .weight_decay = values->weight_decay,
                                     .beta1 = t->beta1,
                                     .beta2 = t->beta2,
                                     .eps = t->eps,
                                     .ema = {values->ema[XKD_VIDEO], values->ema[XKD_AUDIO]},
                                     .clip_grad = t->config.clip_grad,
                                     .train_last_layer = trains_last_layer(t, values)};

    xkd_status status = xkd_backend_status(be);
    if (status != XKD_OK) return status;
    xkd_optimizer_norms(be, &t->optimizer, t->scalars, t->accumulate * XKD_PASS_SCALARS);
    xkd_optimizer_apply(be, &t->optimizer, &step);
    for (xkd_modality m = 0; t->pass.wants.kd && m < XKD_MODALITIES; m++)
        be->ops->centre(be, t->networks.centre[m]->value, t->centre_sum[m], model->center_momentum[m], t->centre_rows,
                        model->head.outputs, xkd_optimizer_finite(&t->optimizer));
    if (t->pass.wants.kd) measure(t);
    read_result(t, result);
    /* After the first step every thread has the scratch it will ever need, and a step allocates nothing. */
    xkd_backend_settle(be);
    return xkd_backend_status(be);
}
