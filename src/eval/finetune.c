/* Fine-tuning of one encoder with a linear classifier, and training of the classifier alone on the frozen encoder. The
 * forward pass is encoder -> mean of the patches or class token -> [L2 norm] -> [batch norm] -> dropout -> linear;
 * every stage has its memory [B,D], and a stage that is off shares the one before it, so that the code below needs no
 * cases. A step is all or nothing: see xkd_finetune_finish. */
#include "eval/finetune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "data/finetune_views.h"

/* torch.nn.BatchNorm1d's. */
static const double NORM_EPS = 1e-5, NORM_MOMENTUM = 0.1;
/* A frozen encoder needs memory for so many clips only: more at once are no faster (a base encoder's products are 12 552
 * rows tall then), and the released batches of 256 would take 23 GB. */
enum { FROZEN_TOGETHER = 8 };

xkd_finetune_options xkd_finetune_defaults(void)
{
    return (xkd_finetune_options){.layer_decay = 1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
}

/* As BEiT's code numbers them: embeddings 0, block i is i + 1, final norm and classifier depth + 1. */
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
 * Gram-Schmidt, twice, which is as good as Householder in double. A dependent vector has probability 0 among normal
 * draws, so no norm is 0. */
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

/* As torch.nn.init.orthogonal_: the rows where there are fewer classes than features, else the columns. Orthonormal
 * start vectors treat all classes alike. */
void xkd_orthogonal(double *w, int64_t K, int64_t D, uint64_t seed)
{
    xkd_rng rng = xkd_rng_make(seed, 0, 0, XKD_STREAM_WEIGHTS, XKD_RNG_EVAL);
    for (int64_t i = 0; i < K * D; i++) w[i] = xkd_rng_normal(&rng);
    if (K <= D)
        orthonormalise(w, K, D, D, 1);
    else
        orthonormalise(w, D, K, 1, D);
}

/* ---- set-up ---- */

/* Called twice, to measure and to assign; the order of the lines is the layout. [B,D] unless said otherwise. */
static xkd_status plan(xkd_context *cx, xkd_finetune *f)
{
    xkd_status status = XKD_OK;
    const xkd_finetune_options *o = &f->options;
    int64_t e = f->be->size, R = f->run.segs.rows, D = f->encoder.backbone.blocks.width, B = f->B;
    XKD_TRY(xkd_backbone_plan(cx, &f->arena, &f->encoder.backbone, e, !o->frozen, &f->run));
    xkd_block_scratch_plan(&f->arena, R, D, e, &f->scratch);
    /* Only a backward pass through the encoder needs it. */
    if (!o->frozen) f->dz = xkd_arena_take(&f->arena, R * D * e);
    f->pooled = xkd_arena_take(&f->arena, B * D * e);
    /* Stages that are off: their output is their input. */
    f->unit = o->l2_norm ? xkd_arena_take(&f->arena, B * D * e) : f->pooled;
    f->normed = o->batch_norm ? xkd_arena_take(&f->arena, B * D * e) : f->unit;
    f->inv = xkd_arena_take(&f->arena, B * e);
    f->input = xkd_arena_take(&f->arena, B * D * e);
    f->dinput = xkd_arena_take(&f->arena, B * D * e);
    f->logits = xkd_arena_take(&f->arena, B * f->K * e);
    f->keep = xkd_arena_take(&f->arena, B * D * (int64_t)sizeof *f->keep);
    /* [depth,2,B]: attention and mlp branch of each block. */
    f->path = xkd_arena_take(&f->arena, 2 * f->encoder.backbone.blocks.depth * B * (int64_t)sizeof *f->path);
    for (int k = 0; o->batch_norm && k < 2; k++) {
        f->batch[k] = xkd_arena_take(&f->arena, D * (int64_t)sizeof(double));
        f->next[k] = xkd_arena_take(&f->arena, D * (int64_t)sizeof(double));
    }
fail:
    return status;
}

/* Parameters, moments and running statistics are not in the arena: they stay as they are. */
xkd_status xkd_finetune_resize(xkd_context *cx, xkd_finetune *f, int64_t B)
{
    xkd_status status = XKD_OK;
    xkd_backbone_run_free(&f->run);
    xkd_arena_free(&f->arena);
    f->B = B;
    f->together = f->options.frozen && B > FROZEN_TOGETHER ? FROZEN_TOGETHER : B;
    f->shape.B = f->together;
    XKD_TRY(xkd_backbone_run_new(cx, &f->encoder.backbone, &f->shape, 1, &f->run)); /* of `together` clips, not of B */
    XKD_TRY(plan(cx, f));
    XKD_TRY(xkd_arena_commit(cx, &f->arena));
    XKD_TRY(plan(cx, f));
    XKD_TRY(xkd_arena_check(cx, &f->arena));
fail:
    return status;
}

/* Zero bias comes from the row's initialisation. Weights of a classifier that is read from the file are not drawn:
 * xkd_finetune_new leaves this out. */
static xkd_status init_classifier(xkd_context *cx, xkd_finetune *f)
{
    xkd_status status = XKD_OK;
    double *w = NULL;
    int64_t n = f->K * f->classifier.in;
    XKD_TRY(xkd_alloc(cx, &w, n, sizeof *w));
    xkd_orthogonal(w, f->K, f->classifier.in, f->options.seed);
    /* Through the backend's type, which need not be double. */
    for (int64_t i = 0; i < n; i++) xkd_set(f->be->dtype, f->classifier.w->value, i, w[i]);
    for (int64_t i = 0; f->options.batch_norm && i < f->norm.width; i++) {
        xkd_set(f->be->dtype, f->norm.w->value, i, 1);
        xkd_set(f->be->dtype, f->running[1]->value, i, 1);
    }
fail:
    xkd_free(w);
    return status;
}

/* Rows behind the encoder's. Their names begin with "head.", which readers of encoders pass over. */
static xkd_status declare_classifier(xkd_context *cx, xkd_finetune *f)
{
    static const char *const names[] = {"head.bn.running_mean", "head.bn.running_var"};
    xkd_status status = XKD_OK;
    int64_t D = f->encoder.backbone.blocks.width;
    xkd_declare at = {.cx = cx, .params = &f->encoder.params, .prefix = "", .role = XKD_ROLE_TRAINED};
    XKD_TRY(xkd_declare_linear(&at, &f->classifier, "head", D, f->K, true, XKD_INIT_ZERO, 0));
    if (!f->options.batch_norm) goto fail;
    XKD_TRY(xkd_declare_norm(&at, &f->norm, "head.bn", D));
    /* Buffers are stored with the model but get no gradient and no decay. */
    at.role = XKD_ROLE_BUFFER;
    for (int k = 0; k < 2; k++)
        XKD_TRY(
            xkd_declare_param(&at, &f->running[k], names[k], (xkd_shape){1, {D}}, k ? XKD_INIT_ONE : XKD_INIT_ZERO, 0));
fail:
    return status;
}

/* All rows behind the encoder's, or the scores would be those of nothing. */
static xkd_status require_classifier(xkd_context *cx, const xkd_finetune *f, const char *path)
{
    for (int64_t i = 0; i < f->encoder.params.count; i++) {
        const char *name = f->encoder.params.rows[i]->name;
        if (strncmp(name, "head.", 5) == 0 && !xkd_content_find(&f->encoder.content, name))
            return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: has no classifier: %s is missing", path, name);
    }
    return XKD_OK;
}

/* After the encoder is declared: whether there is a class token is known only now. */
static xkd_status check_options(xkd_context *cx, const xkd_finetune *f)
{
    const xkd_finetune_options *o = &f->options;
    if (o->kind != XKD_FEATURE_MEAN && o->kind != XKD_FEATURE_CLS)
        return xkd_fail(cx, XKD_ERR_CONFIG, "a classifier takes the mean of the patches or the class token");
    if (o->kind == XKD_FEATURE_CLS && !f->encoder.backbone.cls)
        return xkd_fail(cx, XKD_ERR_CONFIG, "this encoder has no class token: take the mean of the patches");
    if (f->K < 1 || !(o->dropout >= 0 && o->dropout < 1) || !(o->drop_path >= 0 && o->drop_path < 1) ||
        !(o->layer_decay > 0 && o->layer_decay <= 1))
        return xkd_fail(cx, XKD_ERR_CONFIG, "%lld classes, dropout %g, drop-path %g, layer decay %g: out of range",
                        (long long)f->K, o->dropout, o->drop_path, o->layer_decay);
    return XKD_OK;
}

xkd_status xkd_finetune_new(xkd_context *cx, xkd_backend *be, const xkd_encoder_source *source,
                            const xkd_view_shape *shape, int64_t K, const xkd_finetune_options *options,
                            xkd_finetune *out)
{
    xkd_status status = XKD_OK;
    xkd_param_role role = options->frozen ? XKD_ROLE_FROZEN : XKD_ROLE_TRAINED;
    *out = (xkd_finetune){.options = *options, .be = be, .shape = *shape, .K = K};
    XKD_TRY(xkd_encoder_declare(cx, source, role, &out->encoder));
    XKD_TRY(check_options(cx, out));
    XKD_TRY(declare_classifier(cx, out));
    if (source->head) XKD_TRY(require_classifier(cx, out, source->path));
    /* True: the classifier's gradient is needed even where the encoder is frozen. */
    XKD_TRY(xkd_encoder_allocate(cx, &out->encoder, be->dtype, true));
    /* After the allocation, for it gives every row its initial value. */
    if (!source->head) XKD_TRY(init_classifier(cx, out));
    XKD_TRY(xkd_finetune_resize(cx, out, shape->B));
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

/* Class token included: rows per clip in z. */
static int64_t tokens_of(const xkd_finetune *f)
{
    return f->run.items[0].tokens;
}

/* Features of clips [together,C,T,H,W] -> pooled [together,D]. */
static void encode_some(xkd_finetune *f, const float *clips, void *pooled)
{
    xkd_backend *be = f->be;
    const int32_t *keep = NULL; /* every token; masks are pre-training's */
    int64_t tokens = tokens_of(f), D = f->classifier.in;
    xkd_backbone_forward(be, &f->encoder.backbone, &f->run, &clips, &keep, &f->scratch);
    /* The class token stands first in each clip. */
    if (f->options.kind == XKD_FEATURE_MEAN)
        be->ops->pool_forward(be, pooled, f->run.z, f->together, tokens, D, xkd_cls_rows(&f->encoder.backbone));
    for (int64_t b = 0; f->options.kind == XKD_FEATURE_CLS && b < f->together; b++)
        memcpy(xkd_at(be, pooled, b * D), xkd_at(be, f->run.z, b * tokens * D), (size_t)(D * be->size));
}

/* Features [B,D] in f->unit. The last piece of a batch begins earlier where it would be smaller: a few clips are done
 * twice, with the same result. B need not be a multiple of `together`: batches of 10 are pieces [0,8) and [2,10). */
static void encode(xkd_finetune *f, const float *clips)
{
    const xkd_view_shape *s = &f->shape;
    int64_t D = f->classifier.in, floats = f->encoder.backbone.C * s->T * s->H * s->W;
    for (int64_t b = 0; b < f->B; b += f->together) {
        /* never negative: `together` is at most B */
        int64_t first = b + f->together > f->B ? f->B - f->together : b;
        encode_some(f, clips + first * floats, xkd_at(f->be, f->pooled, first * D));
    }
    if (f->options.l2_norm) f->be->ops->l2norm_forward(f->be, f->unit, f->inv, f->pooled, f->B, D);
}

/* Draws of this step and micro-batch: the same seed gives the same run. A frozen encoder is no noisier than its
 * features. */
static void draw(xkd_finetune *f)
{
    const xkd_finetune_options *o = &f->options;
    double p = o->dropout;
    uint32_t step = (uint32_t)f->step, micro = (uint32_t)f->micro;
    xkd_rng rng = xkd_rng_make(o->seed, step, micro, XKD_STREAM_DROPOUT, XKD_RNG_EVAL);
    for (int64_t i = 0; i < f->B * f->classifier.in; i++)
        /* Inverted dropout: what is kept is scaled by 1/(1-p), so that scores need no factor. */
        f->keep[i] = p > 0 && xkd_rng_uniform(&rng) < p ? 0 : (float)(1 / (1 - p));
    f->run.blocks.path = NULL; /* stays NULL at a rate of 0 and for scores */
    if (o->frozen || !(o->drop_path > 0)) return;
    rng = xkd_rng_make(o->seed, step, micro, XKD_STREAM_DROP_PATH, XKD_RNG_EVAL);
    xkd_draw_paths(&rng, o->drop_path, f->encoder.backbone.blocks.depth, f->B, f->path);
    f->run.blocks.path = f->path;
}

/* Dropout is applied here and not in the backend: B x D numbers a step do not matter. */
static void scale_by(const xkd_backend *be, void *out, const void *in, const float *factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++) xkd_set(be->dtype, out, i, xkd_get(be->dtype, in, i) * factor[i]);
}

/* ---- batch norm (Ioffe and Szegedy, 2015), in double: B x D numbers ---- */

static double element(const xkd_finetune *f, const void *tensor, int64_t b, int64_t d)
{
    return xkd_get(f->be->dtype, tensor, b * f->classifier.in + d);
}

/* normed = (unit - mean) * inv * w + b with the statistics given. */
static void normalise_batch(xkd_finetune *f, int64_t d, double mean, double inv)
{
    double w = xkd_get(f->be->dtype, f->norm.w->value, d), bias = xkd_get(f->be->dtype, f->norm.b->value, d);
    for (int64_t b = 0; b < f->B; b++)
        xkd_set(f->be->dtype, f->normed, b * f->classifier.in + d, (element(f, f->unit, b, d) - mean) * inv * w + bias);
}

/* Statistics of the batch; the running ones take the unbiased variance, as PyTorch's do. */
static void norm_forward(xkd_finetune *f)
{
    double n = (double)f->B;
    for (int64_t d = 0; d < f->norm.width; d++) {
        double mean = 0, var = 0;
        for (int64_t b = 0; b < f->B; b++) mean += element(f, f->unit, b, d) / n;
        for (int64_t b = 0; b < f->B; b++) {
            double off = element(f, f->unit, b, d) - mean;
            var += off * off / n;
        }
        f->batch[0][d] = mean;
        /* The biased variance normalises, as in PyTorch's forward pass. */
        f->batch[1][d] = 1 / sqrt(var + NORM_EPS);
        normalise_batch(f, d, mean, f->batch[1][d]);
        /* `next` and not `running`: micro-batches add up, but a step that turns out not finite must leave no trace. */
        f->next[0][d] += NORM_MOMENTUM * (mean - f->next[0][d]);
        f->next[1][d] += NORM_MOMENTUM * (var * n / (n - 1) - f->next[1][d]);
    }
}

/* Scores of a clip do not depend on the others of its batch: running statistics. */
static void norm_scores(xkd_finetune *f)
{
    for (int64_t d = 0; d < f->norm.width; d++)
        normalise_batch(f, d, xkd_get(f->be->dtype, f->running[0]->value, d),
                        1 / sqrt(xkd_get(f->be->dtype, f->running[1]->value, d) + NORM_EPS));
}

/* dinput [B,D] in place; dw += sum dy n, db += sum dy, dx = inv w (dy - mean(dy) - n mean(dy n)), n the normed input. */
static void norm_backward(xkd_finetune *f)
{
    xkd_dtype dtype = f->be->dtype;
    double count = (double)f->B;
    for (int64_t d = 0; d < f->norm.width; d++) {
        double mean = f->batch[0][d], inv = f->batch[1][d], dw = 0, db = 0, w = xkd_get(dtype, f->norm.w->value, d);
        /* Everything a feature d needs is local to it, so the pass goes by features; sums in double, order fixed. */
        for (int64_t b = 0; b < f->B; b++) {
            double dy = element(f, f->dinput, b, d);
            dw += dy * (element(f, f->unit, b, d) - mean) * inv;
            db += dy;
        }
        xkd_set(dtype, f->norm.w->grad, d, xkd_get(dtype, f->norm.w->grad, d) + dw);
        xkd_set(dtype, f->norm.b->grad, d, xkd_get(dtype, f->norm.b->grad, d) + db);
        for (int64_t b = 0; b < f->B; b++) {
            double n = (element(f, f->unit, b, d) - mean) * inv, dy = element(f, f->dinput, b, d);
            xkd_set(dtype, f->dinput, b * f->classifier.in + d, inv * w * (dy - db / count - n * dw / count));
        }
    }
}

/* ---- a step ---- */

/* Gradient of the features back through the encoder. */
static void backward_encoder(xkd_finetune *f)
{
    xkd_backend *be = f->be;
    const int32_t *keep = NULL;
    int64_t tokens = tokens_of(f), D = f->classifier.in;
    /* Tokens outside the pool get no gradient; the memory holds the last step's. */
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
        row->steps++; /* bias correction by the row's own count */
        const xkd_finetune_options *o = &f->options;
        xkd_adamw_args args = {.p = row->value,
                               .m = row->moment1,
                               .v = row->moment2,
                               .g = row->grad,
                               .n = row->count,
                               .grad_scale = 1, /* no clipping: the released fine-tuning has none */
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

/* One fill for all gradients, which stand together in their arena. */
void xkd_finetune_begin(xkd_finetune *f)
{
    f->be->ops->fill(f->be, f->encoder.params.grads.memory, 0, f->encoder.params.grads.used / f->be->size);
    f->micro = 0;
    for (int k = 0; f->options.batch_norm && k < 2; k++)
        for (int64_t d = 0; d < f->norm.width; d++) f->next[k][d] = xkd_get(f->be->dtype, f->running[k]->value, d);
}

/* Gradients of everything before the classifier. */
static void backward_features(xkd_finetune *f)
{
    const xkd_ops *ops = f->be->ops;
    int64_t B = f->B, D = f->classifier.in;
    ops->linear_backward_data(f->be, f->dinput, f->logits, f->classifier.w->value, B, f->K, D);
    scale_by(f->be, f->dinput, f->dinput, f->keep, B * D);
    if (f->options.batch_norm) norm_backward(f);
    if (f->options.frozen) return;
    if (f->options.l2_norm) ops->l2norm_backward(f->be, f->dinput, f->dinput, f->unit, f->inv, B, D);
    backward_encoder(f);
}

/* The loss is looked at before any gradient is computed: a bad batch costs a forward pass only. */
xkd_status xkd_finetune_micro_batch(xkd_context *cx, xkd_finetune *f, const float *clips, const float *targets,
                                    double share, double *loss)
{
    xkd_status status = XKD_OK;
    xkd_backend *be = f->be;
    const xkd_ops *ops = be->ops;
    const xkd_linear *c = &f->classifier;
    int64_t B = f->B, D = c->in, K = f->K;
    if (f->options.batch_norm && B < 2)
        XKD_FAIL(XKD_ERR_CONFIG, "batch norm needs at least two clips in a (micro-)batch: raise dataset.batch_size");
    /* Micro-batches of one step have the same `step` and another `micro`, so their draws differ. */
    draw(f);
    encode(f, clips);
    if (f->options.batch_norm) norm_forward(f);
    scale_by(be, f->input, f->normed, f->keep, B * D);
    ops->linear_forward(be, f->logits, f->input, c->w->value, c->b->value, B, K, D);
    xkd_classify(be, f->options.loss, loss, f->logits, f->logits, targets, B, K);
    if (!isfinite(*loss)) XKD_FAIL(XKD_ERR_NUMERIC, "the loss of step %lld is not finite", (long long)f->step);
    /* The logits' memory holds dlogits [B,K] now: xkd_classify writes its gradient over them. */
    if (share != 1) ops->axpby(be, f->logits, f->logits, 0, share, B * K);
    xkd_linear_weights(be, c, f->logits, f->input, B);
    /* Nothing that is trained stands before the classifier of a frozen encoder, except the batch norm. */
    if (!f->options.frozen || f->options.batch_norm) backward_features(f);
    f->micro++;
    XKD_TRY(xkd_backend_status(be));
fail:
    return status;
}

xkd_status xkd_finetune_finish(xkd_context *cx, xkd_finetune *f, double lr, double weight_decay)
{
    xkd_status status = XKD_OK;
    const xkd_arena *grads = &f->encoder.params.grads;
    /* The sum of squares is not finite exactly when some gradient is not, or overflows: both are refused. */
    if (!isfinite(f->be->ops->sum_squares(f->be, grads->memory, grads->used / f->be->size)))
        XKD_FAIL(XKD_ERR_NUMERIC, "a gradient of step %lld is not finite", (long long)f->step);
    update(f, lr, weight_decay);
    for (int k = 0; f->options.batch_norm && k < 2; k++)
        for (int64_t d = 0; d < f->norm.width; d++) xkd_set(f->be->dtype, f->running[k]->value, d, f->next[k][d]);
    f->step++;
    XKD_TRY(xkd_backend_status(f->be));
fail:
    return status;
}

xkd_status xkd_finetune_step(xkd_context *cx, xkd_finetune *f, const float *clips, const float *targets, double lr,
                             double weight_decay, double *loss)
{
    xkd_status status = XKD_OK;
    xkd_finetune_begin(f);
    XKD_TRY(xkd_finetune_micro_batch(cx, f, clips, targets, 1, loss));
    XKD_TRY(xkd_finetune_finish(cx, f, lr, weight_decay));
fail:
    return status;
}

xkd_status xkd_finetune_scores(xkd_finetune *f, const float *clips, float *scores)
{
    const xkd_linear *c = &f->classifier;
    f->run.blocks.path = NULL; /* no drop-path, and `keep` is not applied */
    encode(f, clips);
    if (f->options.batch_norm) norm_scores(f);
    f->be->ops->linear_forward(f->be, f->logits, f->normed, c->w->value, c->b->value, f->B, f->K, c->in);
    xkd_classify_scores(f->be, f->options.loss, scores, f->logits, f->B, f->K);
    return xkd_backend_status(f->be);
}
