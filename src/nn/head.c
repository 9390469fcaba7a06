/* The projection head of students and teachers (method.md section 4): three linears with one LayerNorm used
 * twice, then L2 norm, a weight-normalised linear to K and a LayerNorm without weights. Letters here: F
 * hidden width, E bottleneck. */
#include "nn/head.h"

#include <math.h>
#include <stdio.h>

/* "mlp.4.*" is a second name of the shared LayerNorm "mlp.1.*".
 * Files hold both names; reading either one sets the same tensor. */
static xkd_status alias_norm(const xkd_declare *at, const xkd_head *head)
{
    xkd_status status = XKD_OK;
    char name[XKD_PARAM_NAME];
    snprintf(name, sizeof name, "%smlp.4.weight", at->prefix);
    XKD_TRY(xkd_params_add_alias(at->cx, at->params, head->norm.w, name, false));
    snprintf(name, sizeof name, "%smlp.4.bias", at->prefix);
    XKD_TRY(xkd_params_add_alias(at->cx, at->params, head->norm.b, name, false));
fail:
    return status;
}

/* The gain of the last layer is fixed at 1 and not trained, but it is stored, because public files have it. A
 * teacher's parameters are all averages, so its role stays what it is. */
xkd_status xkd_head_declare(const xkd_declare *around, xkd_head *out, int64_t D, xkd_head_size size)
{
    xkd_status status = XKD_OK;
    const double std = 0.02; /* method.md section 7 */
    int64_t F = size.hidden, E = size.bottleneck, K = size.outputs;
    xkd_declare exact = *around, *at = &exact;
    *out = (xkd_head){.size = size, .width = D};
    exact.exact = true;
    XKD_TRY(xkd_declare_linear(at, &out->fc1, "mlp.0", D, F, true, XKD_INIT_TRUNC_NORMAL, std));
    XKD_TRY(xkd_declare_norm(at, &out->norm, "mlp.1", F));
    XKD_TRY(xkd_declare_linear(at, &out->fc2, "mlp.3", F, F, true, XKD_INIT_TRUNC_NORMAL, std));
    XKD_TRY(xkd_declare_linear(at, &out->fc3, "mlp.6", F, E, true, XKD_INIT_TRUNC_NORMAL, std));
    XKD_TRY(alias_norm(at, out));
    xkd_declare frozen = *at;
    if (at->role == XKD_ROLE_TRAINED) frozen.role = XKD_ROLE_FROZEN;
    XKD_TRY(xkd_declare_param(&frozen, &out->gain, "last_layer.weight_g", (xkd_shape){2, {K, 1}}, XKD_INIT_ONE, 0));
    XKD_TRY(xkd_declare_param(at, &out->direction, "last_layer.weight_v", (xkd_shape){2, {K, E}}, XKD_INIT_UNIFORM,
                              1 / sqrt((double)E)));
    /* So that freeze_last_layer finds it. */
    out->direction->last_layer = true;
fail:
    return status;
}

/* Everything the forward makes is kept, since the rows are few: (g + n) B of them. The normalised last layer
 * w [K,E] is among it, as it changes with every step. */
void xkd_head_plan(xkd_arena *arena, const xkd_head *head, int64_t R, int64_t exact, xkd_head_saved *saved)
{
    int64_t D = head->width, F = head->size.hidden, E = head->size.bottleneck, K = head->size.outputs;
    struct {
        void **to;
        int64_t count;
    } plan[] = {
        {&saved->x, R * D},  {&saved->h1, R * F}, {&saved->n1, R * F},   {&saved->g1, R * F}, {&saved->h2, R * F},
        {&saved->n2, R * F}, {&saved->g2, R * F}, {&saved->mean1, R},    {&saved->rstd1, R},  {&saved->mean2, R},
        {&saved->rstd2, R},  {&saved->e, R * E},  {&saved->unit, R * E}, {&saved->inv, R},    {&saved->w, K * E},
        {&saved->w_inv, K},  {&saved->z, R * K},  {&saved->mean3, R},    {&saved->rstd3, R},  {&saved->logits, R * K},
    };
    saved->R = R;
    for (size_t i = 0; i < sizeof plan / sizeof *plan; i++) *plan[i].to = xkd_arena_take(arena, plan[i].count * exact);
}

/* Sized for the larger of the two students; both use it in turn. */
void xkd_head_scratch_plan(xkd_arena *arena, const xkd_head *head, int64_t R, int64_t exact, xkd_head_scratch *scratch)
{
    int64_t F = head->size.hidden, E = head->size.bottleneck, K = head->size.outputs;
    scratch->dz = xkd_arena_take(arena, R * K * exact);
    scratch->dw = xkd_arena_take(arena, K * E * exact);
    scratch->de = xkd_arena_take(arena, R * E * exact);
    scratch->dh = xkd_arena_take(arena, R * F * exact);
}

/* The same norm weights serve both LayerNorms, with statistics of their own. */
void xkd_head_forward(xkd_backend *be, const xkd_head *head, xkd_head_saved *s)
{
    const xkd_ops *ops = be->exact;
    int64_t R = s->R, D = head->width, F = head->size.hidden, E = head->size.bottleneck, K = head->size.outputs;
    const void *weight = head->norm.w->value, *bias = head->norm.b->value;
    ops->linear_forward(be, s->h1, s->x, head->fc1.w->value, head->fc1.b->value, R, F, D);
    ops->layernorm_forward(be, s->n1, s->mean1, s->rstd1, s->h1, weight, bias, R, F);
    ops->gelu_forward(be, s->g1, s->n1, R * F);
    ops->linear_forward(be, s->h2, s->g1, head->fc2.w->value, head->fc2.b->value, R, F, F);
    ops->layernorm_forward(be, s->n2, s->mean2, s->rstd2, s->h2, weight, bias, R, F);
    ops->gelu_forward(be, s->g2, s->n2, R * F);
    ops->linear_forward(be, s->e, s->g2, head->fc3.w->value, head->fc3.b->value, R, E, F);
    ops->l2norm_forward(be, s->unit, s->inv, s->e, R, E);
    ops->weightnorm_forward(be, s->w, s->w_inv, head->direction->value, head->gain->value, K, E);
    ops->linear_forward(be, s->z, s->unit, s->w, NULL, R, K, E);
    ops->layernorm_forward(be, s->logits, s->mean3, s->rstd3, s->z, NULL, NULL, R, K);
}

/* Through the last LN, the last layer and the L2 norm: de [R,E] in the scratch. In the first freeze_last_layer epochs the
 * last layer gets no gradient (unless everything is reported), but passes it on to what is below. */
static void last_layer_backward(xkd_backend *be, const xkd_head *head, const xkd_head_saved *s, const void *dlogits,
                                bool train_last, const xkd_head_scratch *t)
{
    const xkd_ops *ops = be->exact;
    int64_t R = s->R, E = head->size.bottleneck, K = head->size.outputs;
    ops->layernorm_backward(
        be, &(xkd_layernorm_grad){
                .dx = t->dz, .dy = dlogits, .x = s->z, .mean = s->mean3, .rstd = s->rstd3, .R = R, .D = K});
    if (train_last) {
        /* The gradient of the normalised w is new in each call; only the one of v accumulates. */
        ops->fill(be, t->dw, 0, K * E);
        ops->linear_backward_weight(be, t->dw, NULL, t->dz, s->unit, R, K, E);
        ops->weightnorm_backward(be, head->direction->grad, t->dw, head->direction->value, head->gain->value, s->w_inv,
                                 K, E);
    }
    ops->linear_backward_data(be, t->de, t->dz, s->w, R, K, E);
    ops->l2norm_backward(be, t->de, t->de, s->unit, s->inv, R, E);
}

/* dx [R,F] from dy behind GELU and the shared norm, in place: x and n are what went in and came out of the norm. */
static void norm_gelu_backward(xkd_backend *be, const xkd_head *head, void *dx, const void *x, const void *n,
                               const void *mean, const void *rstd, int64_t R)
{
    int64_t F = head->size.hidden;
    be->exact->gelu_backward(be, dx, dx, n, R * F);
    be->exact->layernorm_backward(be, &(xkd_layernorm_grad){.dx = dx,
                                                            .dw = head->norm.w->grad,
                                                            .db = head->norm.b->grad,
                                                            .dy = dx,
                                                            .x = x,
                                                            .mean = mean,
                                                            .rstd = rstd,
                                                            .w = head->norm.w->value,
                                                            .R = R,
                                                            .D = F});
}

static void weights_backward(xkd_backend *be, const xkd_linear *l, const void *dy, const void *x, int64_t R)
{
    be->exact->linear_backward_weight(be, l->w->grad, l->b->grad, dy, x, R, l->out, l->in);
}

/* Then the three linears from the back. Both LayerNorm backwards add to the one shared weight's gradient. dx is
 * overwritten, as are g1 and the scratch. */
void xkd_head_backward(xkd_backend *be, const xkd_head *head, xkd_head_saved *s, void *dx, const void *dlogits,
                       bool train_last, const xkd_head_scratch *t)
{
    const xkd_ops *ops = be->exact;
    int64_t R = s->R, D = head->width, F = head->size.hidden, E = head->size.bottleneck;
    void *dh = t->dh, *dg = s->g1; /* g1 takes the gradient of the first layer's output, once it is no longer needed */
    last_layer_backward(be, head, s, dlogits, train_last, t);
    weights_backward(be, &head->fc3, t->de, s->g2, R);
    ops->linear_backward_data(be, dh, t->de, head->fc3.w->value, R, E, F);
    norm_gelu_backward(be, head, dh, s->h2, s->n2, s->mean2, s->rstd2, R);
    weights_backward(be, &head->fc2, dh, s->g1, R);
    ops->linear_backward_data(be, dg, dh, head->fc2.w->value, R, F, F);
    norm_gelu_backward(be, head, dg, s->h1, s->n1, s->mean1, s->rstd1, R);
    weights_backward(be, &head->fc1, dg, s->x, R);
    ops->linear_backward_data(be, dx, dg, head->fc1.w->value, R, F, D);
}
