#include "eval/finetune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"

/* Streams of XKD_RNG_EVAL, by view number. */
enum { STREAM_WEIGHTS = 1, STREAM_DROPOUT = 2 };

xkd_finetune_options xkd_finetune_defaults(void)
{
    return (xkd_finetune_options){.layer_decay = 1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
}

int64_t xkd_layer_of(const char *name, int64_t depth)
{
    static const char BLOCKS[] = "encoder.blocks.";
    if (strncmp(name, BLOCKS, strlen(BLOCKS)) == 0) return strtol(name + strlen(BLOCKS), NULL, 10) + 1;
    bool first = strcmp(name, "cls_token") == 0 || strcmp(name, "enc_pos_embed") == 0 || strstr(name, "_embed.proj.");
    return first ? 0 : depth + 1;
}

double xkd_layer_scale(double decay, int64_t depth, int64_t layer)
{
    return pow(decay, (double)(depth + 1 - layer));
}

/* 1-D tensors, positions and the class token are not decayed here, unlike in pre-training (method.md section 10). */
static bool is_decayed(const xkd_param *row)
{
    return row->decayed && strcmp(row->name, "cls_token") != 0 && strcmp(row->name, "enc_pos_embed") != 0;
}

/* Makes `n` vectors of `length` elements, `step` apart and with `next` between their elements, orthonormal: modified
 * Gram-Schmidt, twice, which is as good as Householder in double. */
static void orthonormalise(double *w, int64_t n, int64_t length, int64_t step, int64_t next)
{
    for (int64_t i = 0; i < n; i++) {
        double *v = w + i * step;
        for (int round = 0; round < 2; round++)
            for (int64_t j = 0; j < i; j++) {
                const double *u = w + j * step;
                double dot = 0;
                for (int64_t k = 0; k < length; k++) dot += u[k * next] * v[k * next];
                for (int64_t k = 0; k < length; k++) v[k * next] -= dot * u[k * next];
            }
        double norm = 0;
        for (int64_t k = 0; k < length; k++) norm += v[k * next] * v[k * next];
        for (int64_t k = 0; k < length; k++) v[k * next] /= sqrt(norm);
    }
}

void xkd_orthogonal(double *w, int64_t K, int64_t D, uint64_t seed)
{
    xkd_rng rng = xkd_rng_make(seed, 0, 0, STREAM_WEIGHTS, XKD_RNG_EVAL);
    for (int64_t i = 0; i < K * D; i++) w[i] = xkd_rng_normal(&rng);
    if (K <= D)
        orthonormalise(w, K, D, D, 1);
    else
        orthonormalise(w, D, K, 1, D);
}

/* ---- set-up ---- */

static xkd_status plan(xkd_context *cx, xkd_finetune *f)
{
    xkd_status status = XKD_OK;
    int64_t e = f->be->size, R = f->run.segs.rows, D = f->encoder.backbone.blocks.width, B = f->B;
    XKD_TRY(xkd_backbone_plan(cx, &f->arena, &f->encoder.backbone, e, !f->options.frozen, &f->run));
    xkd_block_scratch_plan(&f->arena, R, D, e, &f->scratch);
    if (!f->options.frozen) f->dz = xkd_arena_take(&f->arena, R * D * e);
    f->pooled = xkd_arena_take(&f->arena, B * D * e);
    f->unit = f->options.l2_norm ? xkd_arena_take(&f->arena, B * D * e) : f->pooled;
    f->inv = xkd_arena_take(&f->arena, B * e);
    f->input = xkd_arena_take(&f->arena, B * D * e);
    f->dinput = xkd_arena_take(&f->arena, B * D * e);
    f->logits = xkd_arena_take(&f->arena, B * f->K * e);
    f->keep = xkd_arena_take(&f->arena, B * D * (int64_t)sizeof *f->keep);
fail:
    return status;
}

/* Zero bias comes from the row's initialisation. */
static xkd_status init_classifier(xkd_context *cx, xkd_finetune *f)
{
    xkd_status status = XKD_OK;
    double *w = NULL;
    int64_t n = f->K * f->classifier.in;
    XKD_TRY(xkd_alloc(cx, &w, n, sizeof *w));
    xkd_orthogonal(w, f->K, f->classifier.in, f->options.seed);
    for (int64_t i = 0; i < n; i++) xkd_set(f->be->dtype, f->classifier.w->value, i, w[i]);
fail:
    xkd_free(w);
    return status;
}

/* After the encoder is declared: whether there is a class token is known only now. */
static xkd_status check_options(xkd_context *cx, const xkd_finetune *f)
{
    const xkd_finetune_options *o = &f->options;
    if (o->kind != XKD_FEATURE_MEAN && o->kind != XKD_FEATURE_CLS)
        return xkd_fail(cx, XKD_ERR_CONFIG, "a classifier takes the mean of the patches or the class token");
    if (o->kind == XKD_FEATURE_CLS && !f->encoder.backbone.cls)
        return xkd_fail(cx, XKD_ERR_CONFIG, "this encoder has no class token: take the mean of the patches");
    if (f->K < 1 || !(o->dropout >= 0 && o->dropout < 1) || !(o->layer_decay > 0 && o->layer_decay <= 1))
        return xkd_fail(cx, XKD_ERR_CONFIG, "%lld classes, dropout %g, layer decay %g: out of range", (long long)f->K,
                        o->dropout, o->layer_decay);
    return XKD_OK;
}

xkd_status xkd_finetune_new(xkd_context *cx, xkd_backend *be, const xkd_encoder_source *source,
                            const xkd_view_shape *shape, int64_t K, const xkd_finetune_options *options,
                            xkd_finetune *out)
{
    xkd_status status = XKD_OK;
    xkd_param_role role = options->frozen ? XKD_ROLE_FROZEN : XKD_ROLE_TRAINED;
    *out = (xkd_finetune){.options = *options, .be = be, .B = shape->B, .K = K};
    XKD_TRY(xkd_encoder_declare(cx, source, role, &out->encoder));
    XKD_TRY(check_options(cx, out));
    bool stored = source->head && xkd_content_find(&out->encoder.content, "head.weight");
    xkd_declare at = {.cx = cx, .params = &out->encoder.params, .prefix = "", .role = XKD_ROLE_TRAINED};
    XKD_TRY(xkd_declare_linear(&at, &out->classifier, "head", out->encoder.backbone.blocks.width, K, true,
                               XKD_INIT_ZERO, 0));
    XKD_TRY(xkd_encoder_allocate(cx, &out->encoder, be->dtype, true));
    if (!stored) XKD_TRY(init_classifier(cx, out));
    XKD_TRY(xkd_backbone_run_new(cx, &out->encoder.backbone, shape, 1, &out->run));
    XKD_TRY(plan(cx, out));
    XKD_TRY(xkd_arena_commit(cx, &out->arena));
    XKD_TRY(plan(cx, out));
    XKD_TRY(xkd_arena_check(cx, &out->arena));
fail:
    return status;
}

void xkd_finetune_free(xkd_finetune *f)
{
    xkd_backbone_run_free(&f->run);
    xkd_arena_free(&f->arena);
    xkd_encoder_free(&f->encoder);
    *f = (xkd_finetune){0};
}

/* ---- computation ---- */

static int64_t tokens_of(const xkd_finetune *f)
{
    return f->run.items[0].tokens;
}

/* Features [B,D] in f->unit. */
static void encode(xkd_finetune *f, const float *clips)
{
    xkd_backend *be = f->be;
    const int32_t *keep = NULL;
    int64_t tokens = tokens_of(f), D = f->classifier.in;
    xkd_backbone_forward(be, &f->encoder.backbone, &f->run, &clips, &keep, &f->scratch);
    /* The class token stands first in each clip. */
    if (f->options.kind == XKD_FEATURE_MEAN)
        be->ops->pool_forward(be, f->pooled, f->run.z, f->B, tokens, D, xkd_cls_rows(&f->encoder.backbone));
    for (int64_t b = 0; f->options.kind == XKD_FEATURE_CLS && b < f->B; b++)
        memcpy(xkd_at(be, f->pooled, b * D), xkd_at(be, f->run.z, b * tokens * D), (size_t)(D * be->size));
    if (f->options.l2_norm) be->ops->l2norm_forward(be, f->unit, f->inv, f->pooled, f->B, D);
}

/* A draw per step: the same seed gives the same run. */
static void draw_dropout(xkd_finetune *f)
{
    double p = f->options.dropout;
    xkd_rng rng = xkd_rng_make(f->options.seed, (uint32_t)f->step, 0, STREAM_DROPOUT, XKD_RNG_EVAL);
    for (int64_t i = 0; i < f->B * f->classifier.in; i++)
        f->keep[i] = p > 0 && xkd_rng_uniform(&rng) < p ? 0 : (float)(1 / (1 - p));
}

/* Dropout is applied here and not in the backend: B x D numbers a step do not matter. */
static void scale_by(const xkd_backend *be, void *out, const void *in, const float *factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++) xkd_set(be->dtype, out, i, xkd_get(be->dtype, in, i) * factor[i]);
}

/* Gradient of the features back through the encoder. */
static void backward_encoder(xkd_finetune *f)
{
    xkd_backend *be = f->be;
    const int32_t *keep = NULL;
    int64_t tokens = tokens_of(f), D = f->classifier.in;
    be->ops->fill(be, f->dz, 0, f->run.segs.rows * D);
    if (f->options.kind == XKD_FEATURE_MEAN)
        be->ops->pool_backward(be, f->dz, f->dinput, f->B, tokens, D, xkd_cls_rows(&f->encoder.backbone));
    for (int64_t b = 0; f->options.kind == XKD_FEATURE_CLS && b < f->B; b++)
        memcpy(xkd_at(be, f->dz, b * tokens * D), xkd_at(be, f->dinput, b * D), (size_t)(D * be->size));
    xkd_backbone_backward(be, &f->encoder.backbone, &f->run, f->dz, &keep, &f->scratch);
}

/* Positions and embeddings get the smallest rate: what pre-training learnt first changes least. */
static void update(xkd_finetune *f, double lr, double weight_decay)
{
    int64_t depth = f->encoder.backbone.blocks.depth;
    for (int64_t i = 0; i < f->encoder.params.count; i++) {
        xkd_param *row = f->encoder.params.rows[i];
        if (row->role != XKD_ROLE_TRAINED) continue;
        row->steps++;
        const xkd_finetune_options *o = &f->options;
        xkd_adamw_args args = {.p = row->value,
                               .m = row->moment1,
                               .v = row->moment2,
                               .g = row->grad,
                               .n = row->count,
                               .grad_scale = 1,
                               .beta1 = o->beta1,
                               .beta2 = o->beta2,
                               .eps = o->eps,
                               .lr = lr * xkd_layer_scale(o->layer_decay, depth, xkd_layer_of(row->name, depth)),
                               .weight_decay = is_decayed(row) ? weight_decay : 0,
                               .correction1 = 1 - pow(o->beta1, (double)row->steps),
                               .correction2 = 1 - pow(o->beta2, (double)row->steps)};
        f->be->ops->adamw(f->be, &args);
    }
}

/* The loss is looked at before anything is changed: a bad batch leaves the model as it was. */
xkd_status xkd_finetune_step(xkd_context *cx, xkd_finetune *f, const float *clips, const float *targets, double lr,
                             double weight_decay, double *loss)
{
    xkd_status status = XKD_OK;
    xkd_backend *be = f->be;
    const xkd_ops *ops = be->ops;
    const xkd_linear *c = &f->classifier;
    int64_t B = f->B, D = c->in, K = f->K;
    ops->fill(be, f->encoder.params.grads.memory, 0, f->encoder.params.grads.used / be->size);
    encode(f, clips);
    draw_dropout(f);
    scale_by(be, f->input, f->unit, f->keep, B * D);
    ops->linear_forward(be, f->logits, f->input, c->w->value, c->b->value, B, K, D);
    xkd_classify(be, f->options.loss, loss, f->logits, f->logits, targets, B, K);
    if (!isfinite(*loss)) XKD_FAIL(XKD_ERR_NUMERIC, "the loss of step %lld is not finite", (long long)f->step);
    xkd_linear_weights(be, c, f->logits, f->input, B);
    if (!f->options.frozen) {
        ops->linear_backward_data(be, f->dinput, f->logits, c->w->value, B, K, D);
        scale_by(be, f->dinput, f->dinput, f->keep, B * D);
        if (f->options.l2_norm) ops->l2norm_backward(be, f->dinput, f->dinput, f->unit, f->inv, B, D);
        backward_encoder(f);
    }
    XKD_TRY(xkd_backend_status(be));
    update(f, lr, weight_decay);
    f->step++;
    XKD_TRY(xkd_backend_status(be));
fail:
    return status;
}

xkd_status xkd_finetune_scores(xkd_finetune *f, const float *clips, float *scores)
{
    const xkd_linear *c = &f->classifier;
    encode(f, clips);
    f->be->ops->linear_forward(f->be, f->logits, f->unit, c->w->value, c->b->value, f->B, f->K, c->in);
    xkd_classify_scores(f->be, f->options.loss, scores, f->logits, f->B, f->K);
    return xkd_backend_status(f->be);
}
