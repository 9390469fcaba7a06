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
        u->ema[n] = pair->teacher->value;
        u->ema_modality[n++] = pair->modality;
    }
}

/* Frozen tensors are on the list as well, for their teachers' copies follow them. */
xkd_status xkd_optimizer_new(xkd_context *cx, xkd_optimizer *out, xkd_params *params, xkd_trained modality)
{
    xkd_status status = XKD_OK;
    *out = (xkd_optimizer){.params = params, .modality = modality};
    XKD_TRY(xkd_alloc(cx, &out->updates, params->count, sizeof *out->updates));
    for (int64_t i = 0; i < params->count; i++) {
        xkd_param *row = params->rows[i];
        if (row->role != XKD_ROLE_TRAINED && row->role != XKD_ROLE_FROZEN) continue;
        xkd_update *u = &out->updates[out->count++];
        u->row = row;
        find_averages(params, u);
    }
fail:
    return status;
}

void xkd_optimizer_free(xkd_optimizer *o)
{
    xkd_free(o->updates);
    *o = (xkd_optimizer){0};
}

/* All gradients lie in one arena: one fill clears them. */
void xkd_optimizer_zero(xkd_backend *be, xkd_optimizer *o)
{
    be->ops->fill(be, o->params->grads.memory, 0, o->params->grads.used / be->size);
}

/* Norms before any update, so that a step with a value that is not finite can be left out as a whole. The sum
 * runs over all tensors, clipped or not; it is reported only. A square that overflows double counts as not
 * finite. */
bool xkd_optimizer_norms(xkd_backend *be, xkd_optimizer *o, double *norm)
{
    double sum = 0;
    for (int64_t i = 0; i < o->count; i++) {
        xkd_update *u = &o->updates[i];
        u->norm_squared = u->row->grad ? be->ops->sum_squares(be, u->row->grad, u->row->count) : 0;
        sum += u->norm_squared;
    }
    *norm = sqrt(sum);
    return isfinite(sum);
}

/* Teachers of a row that is itself left alone. */
static void average_only(xkd_backend *be, const xkd_update *u, const xkd_optimizer_step *s)
{
    for (int k = 0; k < 2; k++)
        if (u->ema[k]) be->ops->ema(be, u->ema[k], u->row->value, s->ema[u->ema_modality[k]], u->row->count);
}

/* Steps are counted per tensor: a last layer that joins later (freeze_last_layer) starts its bias correction
 * at 1, as in PyTorch, where its moments do not exist before. */
static void update_row(xkd_backend *be, const xkd_update *u, const xkd_optimizer_step *s)
{
    xkd_param *row = u->row;
    double norm = sqrt(u->norm_squared), clip = 1;
    /* As the release clips: norm + 1e-6 in the divisor, and only where the factor is below 1. */
    if (s->clip_grad > 0 && row->clipped) clip = fmin(1, s->clip_grad / (norm + 1e-6));
    row->steps++;
    xkd_adamw_args args = {.p = row->value,
                           .m = row->moment1,
                           .v = row->moment2,
                           .g = row->grad,
                           .n = row->count,
                           .grad_scale = clip,
                           .ema = {u->ema[0], u->ema[1]},
                           .ema_momentum = {s->ema[u->ema_modality[0]], s->ema[u->ema_modality[1]]},
                           .lr = s->lr,
                           .weight_decay = row->decayed ? s->weight_decay : 0,
                           .beta1 = s->beta1,
                           .beta2 = s->beta2,
                           .eps = s->eps,
                           .correction1 = 1 - pow(s->beta1, (double)row->steps),
                           .correction2 = 1 - pow(s->beta2, (double)row->steps)};
    be->ops->adamw(be, &args);
}

/* A tensor that is left out has no decay and no moments either, but its teacher still averages it. */
void xkd_optimizer_apply(xkd_backend *be, xkd_optimizer *o, const xkd_optimizer_step *s)
{
    for (int64_t i = 0; i < o->count; i++) {
        const xkd_update *u = &o->updates[i];
        if (is_trained(o, u->row) && (s->train_last_layer || !u->row->last_layer))
            update_row(be, u, s);
        else
            average_only(be, u, s);
    }
}
