/* The training step, from views to moving averages. Start reading here: each line below is one stage of method.md, and
 * leads to the file that computes it.
 *
 *   views -> masking -> teachers -> students -> losses -> backward -> clip -> AdamW -> EMA -> centres */
#include "train/step.h"

#include "train/trainer_parts.h"

#include <string.h>

#include "train/ranks.h"

/* method.md section 7, freeze_last_layer. */
static bool trains_last_layer(const xkd_trainer *t)
{
    return t->values.epoch >= t->config.freeze_last_layer;
}

/* The values travel once a step. */
void xkd_step_begin(xkd_trainer *t, const xkd_step_values *values)
{
    t->values = *values;
    xkd_memory_upload(t->in.be->memory, t->device_values, &t->values, (int64_t)sizeof t->values);
    xkd_parts_begin(t->in.be, &t->in.parts);
    t->centre_rows = t->micro = 0;
}

/* Behind the backward of a block whose gradients nothing adds to any more. A block's rows lie one behind the other. */
static void block_done(void *user, const xkd_block *b)
{
    xkd_trainer *t = user;
    const xkd_param *last = b->fc2.b;
    int64_t first = ((char *)b->norm1.w->grad - t->in.networks.params.grads.memory) / t->in.be->element.exact;
    int64_t end = ((char *)last->grad - t->in.networks.params.grads.memory) / t->in.be->element.exact + last->count;
    xkd_parts_ready(t->in.be, &t->in.parts, t->dist, first, end - first);
}

/* Asks to be told of complete gradients. Blocks that both students share (MAS) are complete behind the second one. */
static void listen(xkd_trainer *t)
{
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        const xkd_transformer *own = &t->in.networks.student[m].blocks, *other = &t->in.networks.student[!m].blocks;
        bool shared = own->depth > 0 && other->depth > 0 && own->blocks[0].norm1.w == other->blocks[0].norm1.w;
        bool early = shared && m == XKD_VIDEO && t->in.pass.wants.modality[XKD_AUDIO];
        xkd_student_run *s = &t->in.pass.student[m];
        s->run.blocks.done = t->dist && !early ? block_done : NULL;
        s->decoder.blocks.done = t->dist ? block_done : NULL;
        s->run.blocks.user = s->decoder.blocks.user = t;
    }
}

/* Micro-batch i of this rank, among those of all. */
static int64_t part_number(const xkd_trainer *t, int64_t i)
{
    return xkd_dist_rank(t->dist) * t->accumulate + i;
}

enum { COMPUTE, UPDATE };

/* What the arguments of a stretch depend on; the numbers of a step are in the backend's memory. */
typedef struct {
    int32_t what, last_layer;
    const void *memory; /* of the tensors that come and go with the pass */
    int64_t samples;
} stretch_key;

static bool repeats(xkd_trainer *t, const stretch_key *key)
{
    return xkd_backend_repeat(t->in.be, key, (int64_t)sizeof *key);
}

/* The share makes the sum over micro-batches a mean. The teachers' logits are summed for the centre, which is updated
 * once at the end, and looked at by the collapse watch. */
static void compute(xkd_trainer *t)
{
    xkd_backend *be = t->in.be;
    xkd_pass *pass = &t->in.pass;
    const xkd_temperatures *temp = &t->device_values->temp;
    int64_t K = t->in.networks.config.head.outputs;
    double share = 1 / (double)xkd_trainer_parts(t);
    bool last_layer = pass->wants.all || trains_last_layer(t);
    if (repeats(t, &(stretch_key){COMPUTE, last_layer, pass->arena.memory, pass->B})) return;

    xkd_pass_views(be, pass);
    xkd_pass_teachers(be, pass);
    xkd_pass_students(be, pass);
    xkd_pass_losses(be, pass, temp);
    xkd_pass_backward(be, pass, temp, share, last_layer);
    for (xkd_modality m = 0; pass->wants.kd && m < XKD_MODALITIES; m++) {
        const void *logits = pass->teacher[m].head.logits;
        be->exact->column_sum(be, t->centre_sum[m], logits, pass->B, K);
        be->exact->column_energy(be, t->part + XKD_PASS_SCALARS + 2 * m, logits, pass->B, K);
    }
    xkd_backend_repeat_end(be);
}

void xkd_step_micro_batch(xkd_trainer *t, const xkd_pass_input *in)
{
    listen(t);
    xkd_pass_load(&t->in.pass, in);
    compute(t);
    xkd_memory_copy(t->in.be->memory, t->left + part_number(t, t->micro++) * XKD_PART_SCALARS, t->part,
                    XKD_PART_SCALARS * (int64_t)sizeof *t->part);
    t->centre_rows += t->in.pass.B;
    xkd_parts_add(t->in.be, &t->in.parts);
}

/* Gradients, centre sums and scalars of all ranks, in order of their parts. */
static xkd_status join_ranks(xkd_trainer *t)
{
    xkd_status status = XKD_OK;
    if (!t->dist) return XKD_OK;
    XKD_TRY(xkd_backend_status(t->in.be)); /* of no use to others behind a fault */
    XKD_TRY(xkd_parts_join(t->in.be, &t->in.parts, t->dist));
    XKD_TRY(xkd_ranks_join_numbers(t->dist, t->in.be->memory, t->left, t->gathered, t->accumulate * XKD_PART_SCALARS));
fail:
    return status;
}

/* All or nothing: if a loss or any gradient is not finite, neither weights nor moments nor centres change.
 * The centres come after the update, for this step's losses used the old ones; what the collapse watch looks at is the new
 * ones. */
static void update(xkd_trainer *t)
{
    xkd_backend *be = t->in.be;
    const xkd_model_config *model = &t->in.networks.config;
    double *centres = t->left + xkd_trainer_parts(t) * XKD_PART_SCALARS;
    const xkd_optimizer_step step = {.lr = &t->device_values->lr,
                                     .weight_decay = &t->device_values->weight_decay,
                                     .ema = t->device_values->ema,
                                     .beta1 = t->beta1,
                                     .beta2 = t->beta2,
                                     .eps = t->eps,
                                     .clip_grad = t->config.clip_grad,
                                     .train_last_layer = trains_last_layer(t)};
    if (repeats(t, &(stretch_key){UPDATE, step.train_last_layer, t->left, t->centre_rows})) return;
    xkd_optimizer_norms(be, &t->in.optimizer, t->left, xkd_trainer_parts(t) * XKD_PART_SCALARS);
    xkd_optimizer_apply(be, &t->in.optimizer, &step);
    for (xkd_modality m = 0; t->in.pass.wants.kd && m < XKD_MODALITIES; m++) {
        const xkd_vector centre = {t->in.networks.centre[m]->value, model->head.outputs};
        be->exact->centre(be, t->in.networks.centre[m]->value, t->centre_sum[m], model->center_momentum[m],
                          xkd_dist_size(t->dist) * t->centre_rows, model->head.outputs,
                          xkd_optimizer_finite(&t->in.optimizer));
        be->exact->norms(be, centres + 2 * m, centres + 2 * m + 1, &centre, 1, NULL, 0);
    }
    xkd_optimizer_leave(&t->in.optimizer, centres + 2 * XKD_MODALITIES);
    xkd_backend_repeat_end(be);
}

/* A fault in the passes that shows at once is found before any weight changes. */
xkd_status xkd_step_finish(xkd_trainer *t)
{
    xkd_status status = XKD_OK;
    xkd_step_arrival *a = &t->arrivals[t->asked % XKD_STEPS_OPEN];
    XKD_TRY(xkd_backend_seen(t->in.be));
    XKD_TRY(join_ranks(t));
    update(t);
    a->B = t->in.pass.B;
    xkd_arrival_ask(t->in.be->memory, &a->arrival, t->left, a->arrival.bytes);
    t->asked++;
    /* After the first step every thread has the scratch it will ever need, and a step allocates nothing. */
    xkd_backend_settle(t->in.be);
    XKD_TRY(xkd_backend_seen(t->in.be));
fail:
    return status;
}

int xkd_step_open(const xkd_trainer *t)
{
    return (int)(t->asked - t->collected);
}

xkd_status xkd_step_collect(xkd_trainer *t, xkd_step_result *result)
{
    xkd_step_arrival *a = &t->arrivals[t->collected++ % XKD_STEPS_OPEN];
    double share = 1 / (double)xkd_trainer_parts(t), loss[XKD_LOSS_COUNT];
    *result = (xkd_step_result){.B = a->B};
    xkd_arrival_wait(t->in.be->memory, &a->arrival);
    const double *scalars = a->arrival.host;
    for (int64_t i = 0; i < xkd_trainer_parts(t); i++, scalars += XKD_PART_SCALARS) {
        xkd_pass_report(&t->in.pass, scalars, loss);
        for (int k = 0; k < XKD_LOSS_COUNT; k++) result->loss[k] += share * loss[k];
        for (int m = 0; m < XKD_MODALITIES; m++) {
            result->teacher_entropy[m] += share * scalars[XKD_LOSS_TERMS + m];
            for (int k = 0; k < 2; k++) result->energy[m][k] += scalars[XKD_PASS_SCALARS + 2 * m + k];
        }
    }
    for (int m = 0; m < XKD_MODALITIES; m++) result->centre_squares[m] = scalars[2 * m];
    result->skipped = !xkd_optimizer_read(&t->in.optimizer, scalars + 2 * XKD_MODALITIES, &result->grad_norm);
    return xkd_backend_seen(t->in.be);
}
