/* AdamW on every trained tensor, clipping tensor by tensor, and the teachers' moving averages, fused into one
 * pass over memory (method.md section 7). The list of tensors is made once; a step only walks it. */
#include "optim/optimizer.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

/* One modality alone trains its backbone and decoder: no loss reaches a head or the other modality. */
static bool is_trained(const xkd_optimizer *o, const xkd_param *row)
{
    if (row->role != XKD_ROLE_TRAINED) return false;
    if (o->modality == XKD_TRAIN_BOTH) return true;
    const char *prefix = o->modality == XKD_TRAIN_VIDEO ? "vid_" : "aud_";
    if (strstr(row->name, ".head.")) return false;
    if (strncmp(row->name, prefix, 4) == 0) return true;
    for (int64_t i = 0; i < o->params->alias_count; i++) { /* blocks that both students share */
        const xkd_param_alias *alias = &o->params->aliases[i];
        if (alias->row == row && alias->shared && strncmp(alias->name, prefix, 4) == 0) return true;
    }
    return false;
}

/* At most two teachers average one student tensor: both of them only where students and teachers share their
 * blocks (MATS). Pairs are in order of modality, and so are the averages. */
static void find_averages(const xkd_params *params, xkd_update *u)
{
    int n = 0;
    for (int64_t i = 0; i < params->pair_count && n < 2; i++) {
        const xkd_ema_pair *pair = &params->pairs[i];
        if (pair->student != u->row) continue;
        u->ema[n] = pair->teacher;
        u->ema_modality[n++] = pair->modality;
    }
}

/* Frozen tensors are on the list as well, for their teachers' copies follow them. */
xkd_status xkd_optimizer_new(xkd_context *cx, xkd_optimizer *out, xkd_params *params, xkd_trained modality)
{
    xkd_status status = XKD_OK;
    *out = (xkd_optimizer){.params = params, .modality = modality};
    XKD_TRY(xkd_alloc(cx, &out->updates, params->count, sizeof *out->updates));
    XKD_TRY(xkd_alloc(cx, &out->gradients, params->count, sizeof *out->gradients));
    XKD_TRY(xkd_alloc(cx, &out->list, params->count, sizeof *out->list));
    for (int64_t i = 0; i < params->count; i++) {
        xkd_param *row = params->rows[i];
        if (row->role != XKD_ROLE_TRAINED && row->role != XKD_ROLE_FROZEN) continue;
        xkd_update *u = &out->updates[out->count++];
        u->row = row;
        out->gradients[out->count - 1] = (xkd_vector){row->grad, row->count};
        find_averages(params, u);
    }
    out->arena.of = params->memory;
    for (int round = 0; round < 2; round++) { /* measure, then assign */
        out->squares = xkd_arena_take(&out->arena, (out->count + 1) * (int64_t)sizeof *out->squares);
        if (round == 0) XKD_TRY(xkd_arena_commit(cx, &out->arena));
    }
fail:
    return status;
}

void xkd_optimizer_free(xkd_optimizer *o)
{
    xkd_free(o->updates);
    xkd_free(o->gradients);
    xkd_free(o->list);
    xkd_arena_free(&o->arena);
    *o = (xkd_optimizer){0};
}

/* Norms before any update, so that a step with a value that is not finite can be left out as a whole. */
void xkd_optimizer_norms(xkd_backend *be, xkd_optimizer *o, const double *scalars, int64_t n)
{
    be->exact->norms(be, o->squares, o->squares + o->count, o->gradients, o->count, scalars, n);
}

const double *xkd_optimizer_finite(const xkd_optimizer *o)
{
    return o->squares + o->count;
}

static void *master(const xkd_param *row)
{
    return row ? row->master : NULL;
}

/* The working copy of a row, where it has one. */
static void *copy(const xkd_param *row)
{
    return row && row->value != row->master ? row->value : NULL;
}

/* Steps are counted per tensor: a last layer that joins later (freeze_last_layer) starts its bias correction
 * at 1, as in PyTorch, where its moments do not exist before. A tensor that is left out has no decay and no moments
 * either, but its teachers still average it. */
static xkd_adamw_args arguments(const xkd_optimizer *o, const xkd_update *u, const xkd_optimizer_step *s)
{
    const xkd_param *row = u->row;
    bool stepped = is_trained(o, row) && (s->train_last_layer || !row->last_layer);
    return (xkd_adamw_args){.p = row->master,
                            .m = row->moment1,
                            .v = row->moment2,
                            .g = stepped ? row->grad : NULL,
                            .n = row->count,
                            .clip = row->clipped ? s->clip_grad : 0,
                            .ema = {master(u->ema[0]), master(u->ema[1])},
                            .stored = copy(row),
                            .ema_stored = {copy(u->ema[0]), copy(u->ema[1])},
                            .ema_momentum = {s->ema + u->ema_modality[0], s->ema + u->ema_modality[1]},
                            .lr_scale = 1,
                            .lr = s->lr,
                            .weight_decay = row->decayed ? s->weight_decay : NULL,
                            .beta1 = s->beta1,
                            .beta2 = s->beta2,
                            .eps = s->eps,
                            .steps = row->counter};
}

void xkd_optimizer_apply(xkd_backend *be, xkd_optimizer *o, const xkd_optimizer_step *s)
{
    for (int64_t i = 0; i < o->count; i++) o->list[i] = arguments(o, &o->updates[i], s);
    be->exact->adamw(be, o->list, o->count, o->squares, xkd_optimizer_finite(o));
}

int64_t xkd_optimizer_left(const xkd_optimizer *o)
{
    return o->count + 1 + o->params->count;
}

/* Squares, whether all is finite, and the counters of all rows. */
void xkd_optimizer_leave(xkd_optimizer *o, double *to)
{
    int64_t squares = o->count + 1, bytes = (int64_t)sizeof *to;
    xkd_memory_copy(o->arena.of, to, o->squares, squares * bytes);
    xkd_memory_copy(o->arena.of, to + squares, o->params->counters.memory, o->params->count * bytes);
}

/* The sum runs over all tensors, clipped or not; it is reported only. */
bool xkd_optimizer_read(xkd_optimizer *o, const double *left, double *norm)
{
    double sum = 0;
    const double *counters = left + o->count + 1;
    for (int64_t i = 0; i < o->count; i++) sum += left[i];
    for (int64_t i = 0; i < o->params->count; i++)
        if (o->params->rows[i]->role == XKD_ROLE_TRAINED) o->params->rows[i]->steps = (int64_t)counters[i];
    *norm = sqrt(sum);
    return left[o->count] != 0;
}
