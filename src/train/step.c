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

/* Micro-batches of a step, over all ranks. */
static int64_t part_count(const xkd_trainer *t)
{
    return xkd_dist_size(t->dist) * t->accumulate;
}

static int64_t scalar_count(const xkd_trainer *t)
{
    return part_count(t) * XKD_PART_SCALARS + XKD_MODALITIES * 2;
}

/* They live as long as the trainer, unlike the pass's tensors. */
static xkd_status allocate(xkd_context *cx, xkd_trainer *t)
{
    xkd_status status = XKD_OK;
    int64_t K = t->networks.config.head.outputs;
    const xkd_params *params = &t->networks.params;
    t->memory.of = t->be->memory;
    for (int round = 0; round < 2; round++) { /* measure, then assign */
        for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
            t->centre_sum[m] = xkd_arena_take(&t->memory, K * t->be->element.exact);
        t->scalars = xkd_arena_take(&t->memory, scalar_count(t) * (int64_t)sizeof *t->scalars);
        if (round == 0) XKD_TRY(xkd_arena_commit(cx, &t->memory));
    }
    XKD_TRY(xkd_alloc(cx, &t->read, scalar_count(t), sizeof *t->read));
    /* All gradients lie in one arena. */
    const xkd_part_vector vectors[XKD_PARTS_VECTORS] = {
        {params->grads.memory, params->grads.used / t->be->element.exact},
        {t->centre_sum[XKD_VIDEO], K},
        {t->centre_sum[XKD_AUDIO], K}};
    XKD_TRY(xkd_parts_new(cx, &t->parts, t->be, vectors, XKD_PARTS_VECTORS, t->accumulate));
fail:
    return status;
}

/* Memory is taken after everything is declared and checked: a configuration that does not fit together costs
 * nothing. Initial values come last, and a checkpoint may replace them. */
xkd_status xkd_trainer_new(xkd_context *cx, xkd_trainer *out, xkd_backend *be, xkd_dist *dist, const xkd_config *config,
                           const xkd_batch_shape *shape, bool report_all)
{
    xkd_status status = XKD_OK;
    *out = (xkd_trainer){.be = be,
                         .dist = dist,
                         .config = config->step,
                         .beta1 = config->train.betas[0],
                         .beta2 = config->train.betas[1],
                         .eps = config->train.eps,
                         .accumulate = config->train.accumulate > 0 ? config->train.accumulate : 1};
    XKD_TRY(xkd_networks_declare(cx, &out->networks, &config->model));
    XKD_TRY(
        xkd_pass_new(cx, &out->pass, &out->networks, &config->step, shape, be->memory, NULL, be->element, report_all));
    XKD_TRY(xkd_params_allocate(cx, &out->networks.params, be->memory, be->dtype, true));
    XKD_TRY(xkd_optimizer_new(cx, &out->optimizer, &out->networks.params, config->step.modality));
    XKD_TRY(allocate(cx, out));
    XKD_TRY(xkd_params_init(cx, &out->networks.params, config->train.seed, be->pool));
fail:
    if (status != XKD_OK) xkd_trainer_free(out);
    return status;
}

static void swap_plans(xkd_trainer *t)
{
    xkd_pass other = t->spare;
    t->spare = t->pass;
    t->pass = other;
}

/* Also frees a trainer that was only zeroed. */
void xkd_trainer_free(xkd_trainer *t)
{
    (void)xkd_dist_wait(t->dist); /* a step that was given up may have gradients on their way */
    if (t->pass.arena.borrowed) swap_plans(t);
    xkd_pass_free(&t->spare); /* it works in the other one's memory */
    xkd_pass_free(&t->pass);
    xkd_optimizer_free(&t->optimizer);
    xkd_parts_free(&t->parts);
    xkd_networks_free(&t->networks);
    xkd_arena_free(&t->memory);
    xkd_free(t->read);
    t->read = NULL;
}

/* The spare plan is that of the other size, if there is one: the larger of the two has the memory. */
xkd_status xkd_trainer_fit(xkd_context *cx, xkd_trainer *t, const xkd_batch_shape *shape)
{
    if (t->pass.B == shape->B) return XKD_OK;
    if (t->spare.B != shape->B) {
        if (t->pass.arena.borrowed) swap_plans(t);
        xkd_pass_free(&t->spare); /* of a third size */
        xkd_status status = xkd_pass_new(cx, &t->spare, &t->networks, &t->config, shape, t->be->memory, &t->pass.arena,
                                         t->be->element, t->pass.wants.all);
        if (status != XKD_OK) return status;
    }
    swap_plans(t);
    return XKD_OK;
}

/* method.md section 7, freeze_last_layer. */
static bool trains_last_layer(const xkd_trainer *t, const xkd_step_values *values)
{
    return values->epoch >= t->config.freeze_last_layer;
}

/* Scalars of micro-batch i of this rank. */
static double *part_scalars(double *scalars, const xkd_trainer *t, int64_t i)
{
    return scalars + (xkd_dist_rank(t->dist) * t->accumulate + i) * XKD_PART_SCALARS;
}

void xkd_step_begin(xkd_trainer *t, xkd_step_result *result)
{
    *result = (xkd_step_result){0};
    xkd_parts_begin(t->be, &t->parts);
    xkd_memory_zero(t->be->memory, t->scalars, scalar_count(t) * (int64_t)sizeof *t->scalars);
    t->centre_rows = t->micro = 0;
}

/* Behind the backward of a block whose gradients nothing adds to any more. A block's rows lie one behind the other. */
static void block_done(void *user, const xkd_block *b)
{
    xkd_trainer *t = user;
    const xkd_param *last = b->fc2.b;
    int64_t first = ((char *)b->norm1.w->grad - t->networks.params.grads.memory) / t->be->element.exact;
    int64_t end = ((char *)last->grad - t->networks.params.grads.memory) / t->be->element.exact + last->count;
    xkd_parts_ready(t->be, &t->parts, t->dist, first, end - first);
}

/* Asks to be told of complete gradients. Blocks that both students share (MAS) are complete behind the second one. */
static void listen(xkd_trainer *t)
{
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        const xkd_transformer *own = &t->networks.student[m].blocks, *other = &t->networks.student[!m].blocks;
        bool shared = own->depth > 0 && other->depth > 0 && own->blocks[0].norm1.w == other->blocks[0].norm1.w;
        bool early = shared && m == XKD_VIDEO && t->pass.wants.modality[XKD_AUDIO];
        xkd_student_run *s = &t->pass.student[m];
        s->run.blocks.done = t->dist && !early ? block_done : NULL;
        s->decoder.blocks.done = t->dist ? block_done : NULL;
        s->run.blocks.user = s->decoder.blocks.user = t;
    }
}

/* The share makes the sum over micro-batches a mean. The teachers' logits are summed for the centre, which is updated
 * once at the end, and looked at by the collapse watch. */
void xkd_step_micro_batch(xkd_trainer *t, const xkd_pass_input *in, const xkd_step_values *values)
{
    xkd_backend *be = t->be;
    xkd_pass *pass = &t->pass;
    int64_t K = t->networks.config.head.outputs;
    double share = 1 / (double)part_count(t);

    pass->scalars = part_scalars(t->scalars, t, t->micro++);
    listen(t);
    xkd_pass_load(pass, in);
    xkd_pass_teachers(be, pass);
    xkd_pass_students(be, pass);
    xkd_pass_losses(be, pass, &values->temp);
    xkd_pass_backward(be, pass, &values->temp, share, pass->wants.all || trains_last_layer(t, values));

    for (xkd_modality m = 0; pass->wants.kd && m < XKD_MODALITIES; m++) {
        const void *logits = pass->teacher[m].head.logits;
        be->exact->column_sum(be, t->centre_sum[m], logits, pass->B, K);
        be->exact->column_energy(be, pass->scalars + XKD_PASS_SCALARS + 2 * m, logits, pass->B, K);
    }
    t->centre_rows += pass->B;
    xkd_parts_add(be, &t->parts);
}

/* Gradients, centre sums and scalars of all ranks, in order of their parts. */
static xkd_status join_ranks(xkd_trainer *t)
{
    xkd_status status = XKD_OK;
    int64_t bytes = t->accumulate * XKD_PART_SCALARS * (int64_t)sizeof *t->read;
    if (!t->dist) return XKD_OK;
    XKD_TRY(xkd_parts_join(t->be, &t->parts, t->dist));
    double *mine = part_scalars(t->read, t, 0);
    xkd_memory_download(t->be->memory, mine, part_scalars(t->scalars, t, 0), bytes);
    XKD_TRY(xkd_dist_gather(t->dist, t->read, mine, bytes));
    xkd_memory_upload(t->be->memory, t->scalars, t->read, xkd_dist_size(t->dist) * bytes);
fail:
    return status;
}

/* What the collapse watch looks at in the new centres. */
static void measure(xkd_trainer *t)
{
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        double *watch = t->scalars + part_count(t) * XKD_PART_SCALARS + 2 * m;
        const xkd_vector centre = {t->networks.centre[m]->value, t->networks.config.head.outputs};
        t->be->exact->norms(t->be, watch, watch + 1, &centre, 1, NULL, 0);
    }
}

/* The only wait of a step: everything that it leaves for the host comes at once. */
static void read_result(xkd_trainer *t, xkd_step_result *result)
{
    double share = 1 / (double)part_count(t), loss[XKD_LOSS_COUNT];
    const double *scalars = t->read;
    xkd_memory_download(t->be->memory, t->read, t->scalars, scalar_count(t) * (int64_t)sizeof *t->read);
    for (int64_t i = 0; i < part_count(t); i++, scalars += XKD_PART_SCALARS) {
        xkd_pass_report(&t->pass, scalars, loss);
        for (int k = 0; k < XKD_LOSS_COUNT; k++) result->loss[k] += share * loss[k];
        for (int m = 0; m < XKD_MODALITIES; m++) {
            result->teacher_entropy[m] += share * scalars[XKD_LOSS_TERMS + m];
            for (int k = 0; k < 2; k++) result->energy[m][k] += scalars[XKD_PASS_SCALARS + 2 * m + k];
        }
    }
    for (int m = 0; m < XKD_MODALITIES; m++) result->centre_squares[m] = scalars[2 * m];
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
    status = join_ranks(t);
    if (status != XKD_OK) return status;
    xkd_optimizer_norms(be, &t->optimizer, t->scalars, part_count(t) * XKD_PART_SCALARS);
    xkd_optimizer_apply(be, &t->optimizer, &step);
    for (xkd_modality m = 0; t->pass.wants.kd && m < XKD_MODALITIES; m++)
        be->exact->centre(be, t->networks.centre[m]->value, t->centre_sum[m], model->center_momentum[m],
                          xkd_dist_size(t->dist) * t->centre_rows, model->head.outputs,
                          xkd_optimizer_finite(&t->optimizer));
    if (t->pass.wants.kd) measure(t);
    read_result(t, result);
    /* After the first step every thread has the scratch it will ever need, and a step allocates nothing. */
    xkd_backend_settle(be);
    return xkd_backend_status(be);
}
