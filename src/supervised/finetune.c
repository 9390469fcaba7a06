/* Fine-tuning of one encoder with a linear classifier, and training of the classifier alone on the frozen encoder. The
 * forward pass is encoder -> mean of the patches or class token -> [L2 norm] -> [batch norm] -> dropout -> linear;
 * every stage behind the encoder is exact and has its memory [B,D], and a stage that is off shares the one before it, so
 * that the code below needs no cases. A step is all or nothing: see `update`. */
#include "supervised/finetune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "data/finetune_views.h"
#include "train/ranks.h"

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

/* The scalars of a step in the backend's memory, beside what it leaves for the host. */
enum { LOSS, SQUARES, SCALARS };

/* [depth,2,B]: attention and mlp branch of each block. */
static int64_t path_count(const xkd_finetune *f)
{
    return 2 * f->encoder.backbone.blocks.depth * f->B;
}

static int64_t clip_floats(const xkd_finetune *f)
{
    return f->encoder.backbone.C * f->shape.T * f->shape.H * f->shape.W;
}

/* Called twice, to measure and to assign; the order of the lines is the layout. [B,D] unless said otherwise. */
static xkd_status plan(xkd_context *cx, xkd_finetune *f)
{
    xkd_status status = XKD_OK;
    const xkd_finetune_options *o = &f->options;
    int64_t e = f->be->element.exact, R = f->run.segs.rows, D = f->encoder.backbone.blocks.width, B = f->B;
    XKD_TRY(xkd_backbone_plan(cx, &f->arena, &f->encoder.backbone, f->be->element, !o->frozen, &f->run));
    xkd_block_scratch_plan(&f->arena, R, D, f->be->element, &f->scratch);
    /* Only a backward pass through the encoder needs it. */
    if (!o->frozen) f->dz = xkd_arena_take(&f->arena, R * D * f->be->element.stored);
    f->pooled = xkd_arena_take(&f->arena, B * D * e);
    /* Stages that are off: their output is their input. */
    f->unit = o->l2_norm ? xkd_arena_take(&f->arena, B * D * e) : f->pooled;
    f->normed = o->batch_norm ? xkd_arena_take(&f->arena, B * D * e) : f->unit;
    f->inv = xkd_arena_take(&f->arena, B * e);
    f->input = xkd_arena_take(&f->arena, B * D * e);
    f->dinput = xkd_arena_take(&f->arena, B * D * e);
    f->logits = xkd_arena_take(&f->arena, B * f->K * e);
    f->scores = xkd_arena_take(&f->arena, B * f->K * (int64_t)sizeof *f->scores);
    f->scalars = xkd_arena_take(&f->arena, SCALARS * (int64_t)sizeof *f->scalars);
    f->rates = xkd_arena_take(&f->arena, 2 * (int64_t)sizeof *f->rates);
    f->keep_room = xkd_arena_room(&f->arena, B * D * (int64_t)sizeof *f->keep);
    f->path_room = xkd_arena_room(&f->arena, path_count(f) * (int64_t)sizeof *f->path);
    f->clips = xkd_arena_room(&f->arena, f->together * clip_floats(f) * (int64_t)sizeof *f->clips);
    f->targets = xkd_arena_room(&f->arena, B * f->K * (int64_t)sizeof *f->targets);
    for (int k = 0; o->batch_norm && k < 2; k++) {
        f->batch[k] = xkd_arena_take(&f->arena, D * (int64_t)sizeof(double));
        f->next[k] = xkd_arena_take(&f->arena, D * (int64_t)sizeof(double));
        f->settled[k] = xkd_arena_take(&f->arena, D * e);
    }
fail:
    return status;
}

static void free_plan(xkd_finetune *f)
{
    for (int i = 0; i < 2; i++) xkd_departure_free(f->be->memory, &f->departures[i]);
    xkd_backbone_run_free(&f->run);
    xkd_arena_free(&f->arena);
}

/* Parameters, moments and running statistics are not in the arena: they stay as they are. */
xkd_status xkd_finetune_measure(xkd_context *cx, xkd_finetune *f, int64_t B, double *bytes)
{
    xkd_status status = XKD_OK;
    free_plan(f);
    f->B = B;
    f->together = f->options.frozen && B > FROZEN_TOGETHER ? FROZEN_TOGETHER : B;
    f->shape.B = f->together;
    xkd_free(f->keep);
    xkd_free(f->path);
    f->keep = f->path = NULL;
    XKD_TRY(xkd_alloc(cx, &f->keep, B * f->encoder.backbone.blocks.width, sizeof *f->keep));
    XKD_TRY(xkd_alloc(cx, &f->path, path_count(f), sizeof *f->path));
    f->arena.of = f->be->memory;
    XKD_TRY(xkd_backbone_run_new(cx, &f->encoder.backbone, &f->shape, 1, &f->run)); /* of `together` clips, not of B */
    XKD_TRY(plan(cx, f));
    *bytes = (double)f->arena.peak;
fail:
    return status;
}

xkd_status xkd_finetune_resize(xkd_context *cx, xkd_finetune *f, int64_t B)
{
    xkd_status status = XKD_OK;
    double bytes;
    XKD_TRY(xkd_finetune_measure(cx, f, B, &bytes));
    XKD_TRY(xkd_arena_commit(cx, &f->arena));
    XKD_TRY(plan(cx, f));
    XKD_TRY(xkd_arena_check(cx, &f->arena));
    bytes = (double)f->together * (double)clip_floats(f) * (double)sizeof *f->clips;
    for (int i = 0; i < 2 && !xkd_memory_is_host(f->be->memory); i++)
        XKD_TRY(xkd_departure_new(cx, f->be->memory, &f->departures[i], (int64_t)bytes));
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
    xkd_tensor_write(f->be->memory, f->be->exact_dtype, f->classifier.w->value, XKD_F64, w, n);
    if (f->options.batch_norm) {
        f->be->exact->fill(f->be, f->norm.w->value, 1, f->norm.width);
        f->be->exact->fill(f->be, f->running[1]->value, 1, f->norm.width);
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
    xkd_declare at = {.cx = cx, .params = &f->encoder.params, .prefix = "", .role = XKD_ROLE_TRAINED, .exact = true};
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
    XKD_TRY(xkd_encoder_allocate(cx, &out->encoder, be, true));
    XKD_TRY(xkd_alloc(cx, &out->list, out->encoder.params.count, sizeof *out->list));
    /* After the allocation, for it gives every row its initial value. */
    if (!source->head) XKD_TRY(init_classifier(cx, out));
    XKD_TRY(xkd_finetune_resize(cx, out, shape->B));
    XKD_TRY(xkd_finetune_share(cx, out, NULL, 1));
fail:
    return status;
}

/* Micro-batches of a step, over all ranks. */
static int64_t parts_of(const xkd_finetune *f)
{
    return xkd_dist_size(f->dist) * f->accumulate;
}

/* Micro-batch i of this rank, among those of all. */
static int64_t part_number(const xkd_finetune *f, int64_t i)
{
    return xkd_dist_rank(f->dist) * f->accumulate + i;
}

/* Losses, whether all is finite, and the counters of all rows. */
static int64_t left_count(const xkd_finetune *f)
{
    return parts_of(f) + 1 + f->encoder.params.count;
}

static double *finite_of(const xkd_finetune *f)
{
    return f->left + parts_of(f);
}

static void free_shares(xkd_finetune *f)
{
    xkd_parts_free(&f->parts);
    for (int i = 0; i < XKD_STEPS_OPEN; i++) xkd_arrival_free(f->be->memory, &f->arrivals[i]);
    xkd_arena_free(&f->left_room);
    xkd_free(f->gathered);
    xkd_free(f->moved);
    f->gathered = f->moved = NULL;
}

/* What a step leaves lives on where batches are planned anew. */
static xkd_status allocate_left(xkd_context *cx, xkd_finetune *f)
{
    xkd_status status = XKD_OK;
    int64_t bytes = left_count(f) * (int64_t)sizeof *f->left;
    f->left_room.of = f->be->memory;
    for (int round = 0; round < 2; round++) { /* measure, then assign */
        f->left = xkd_arena_take(&f->left_room, bytes);
        if (round == 0) XKD_TRY(xkd_arena_commit(cx, &f->left_room));
    }
    for (int i = 0; i < XKD_STEPS_OPEN; i++) XKD_TRY(xkd_arrival_new(cx, f->be->memory, &f->arrivals[i], bytes));
    if (f->dist) XKD_TRY(xkd_alloc(cx, &f->gathered, parts_of(f), sizeof *f->gathered));
fail:
    return status;
}

xkd_status xkd_finetune_share(xkd_context *cx, xkd_finetune *f, xkd_dist *dist, int64_t accumulate)
{
    xkd_status status = XKD_OK;
    const xkd_arena *grads = &f->encoder.params.grads;
    /* One vector for all gradients, which stand together in their arena. */
    const xkd_part_vector all = {grads->memory, grads->used / f->be->element.exact};
    free_shares(f);
    f->dist = dist;
    f->accumulate = accumulate;
    XKD_TRY(xkd_parts_new(cx, &f->parts, f->be, &all, 1, accumulate));
    XKD_TRY(allocate_left(cx, f));
    if (dist && f->options.batch_norm)
        XKD_TRY(xkd_alloc(cx, &f->moved, parts_of(f) * 2 * f->norm.width, sizeof *f->moved));
fail:
    return status;
}

void xkd_finetune_free(xkd_finetune *f)
{
    if (f->be) free_shares(f);
    if (f->be) free_plan(f);
    xkd_free(f->keep);
    xkd_free(f->path);
    xkd_free(f->list);
    xkd_encoder_free(&f->encoder);
    *f = (xkd_finetune){0};
}

/* ---- computation ---- */

/* Class token included: rows per clip in z. */
static int64_t tokens_of(const xkd_finetune *f)
{
    return f->run.items[0].tokens;
}

/* The tokens that make a feature: the class token, which stands first in each clip, or all patches. */
static void pooled_tokens(const xkd_finetune *f, int64_t *first, int64_t *last)
{
    bool cls = f->options.kind == XKD_FEATURE_CLS;
    *first = cls ? 0 : xkd_cls_rows(&f->encoder.backbone);
    *last = cls ? 1 : tokens_of(f);
}

/* clips [together,C,T,H,W] where operations can read them. To a device they go beside the step before, from one of two places that
 * take turns: what was sent from it two calls ago has gone by now, or is all that is waited for. */
static const float *lend_clips(xkd_finetune *f, const float *clips)
{
    xkd_memory *memory = f->be->memory;
    xkd_departure *d = &f->departures[f->sent++ % 2];
    if (xkd_memory_is_host(memory)) return clips;
    xkd_departure_wait(memory, d);
    memcpy(d->host, clips, (size_t)d->bytes);
    return xkd_departure_lend(memory, f->clips, d, d->bytes);
}

/* Features of such clips -> pooled [together,D]. */
static void encode_some(xkd_finetune *f, const float *lent, void *pooled)
{
    xkd_backend *be = f->be;
    const int32_t *keep = NULL; /* every token; masks are pre-training's */
    int64_t first, last;
    xkd_backbone_forward(be, &f->encoder.backbone, &f->run, &lent, &keep, &f->scratch);
    pooled_tokens(f, &first, &last);
    be->ops->pool_forward(be, pooled, f->run.z, f->together, tokens_of(f), f->classifier.in, first, last);
}

/* Features [B,D] in f->pooled. The last piece of a batch begins earlier where it would be smaller: a few clips are done
 * twice, with the same result. B need not be a multiple of `together`: batches of 10 are pieces [0,8) and [2,10). */
static void encode(xkd_finetune *f, const float *clips)
{
    int64_t D = f->classifier.in, floats = clip_floats(f);
    for (int64_t b = 0; b < f->B; b += f->together) {
        /* never negative: `together` is at most B */
        int64_t first = b + f->together > f->B ? f->B - f->together : b;
        encode_some(f, lend_clips(f, clips + first * floats), xkd_exact_at(f->be, f->pooled, first * D));
    }
}

/* Features [B,D] in f->unit. */
static void scale_features(xkd_finetune *f)
{
    int64_t D = f->classifier.in;
    if (f->options.l2_norm) f->be->exact->l2norm_forward(f->be, f->unit, f->inv, f->pooled, f->B, D);
}

/* Draws of this step and micro-batch: the same seed gives the same run. A frozen encoder is no noisier than its
 * features. */
static void draw(xkd_finetune *f)
{
    const xkd_finetune_options *o = &f->options;
    double p = o->dropout;
    uint32_t step = (uint32_t)f->step, micro = (uint32_t)part_number(f, f->micro);
    xkd_rng rng = xkd_rng_make(o->seed, step, micro, XKD_STREAM_DROPOUT, XKD_RNG_EVAL);
    for (int64_t i = 0; i < f->B * f->classifier.in; i++)
        /* Inverted dropout: what is kept is scaled by 1/(1-p), so that scores need no factor. */
        f->keep[i] = p > 0 && xkd_rng_uniform(&rng) < p ? 0 : (float)(1 / (1 - p));
    f->dropout =
        xkd_memory_lend(f->be->memory, f->keep_room, f->keep, f->B * f->classifier.in * (int64_t)sizeof *f->keep);
    f->run.blocks.path = NULL; /* stays NULL at a rate of 0 and for scores */
    if (o->frozen || !(o->drop_path > 0)) return;
    rng = xkd_rng_make(o->seed, step, micro, XKD_STREAM_DROP_PATH, XKD_RNG_EVAL);
    xkd_draw_paths(&rng, o->drop_path, f->encoder.backbone.blocks.depth, f->B, f->path);
    f->run.blocks.path =
        xkd_memory_lend(f->be->memory, f->path_room, f->path, path_count(f) * (int64_t)sizeof *f->path);
}

/* Batch norm (Ioffe and Szegedy, 2015) moves `next` and not the running statistics themselves: micro-batches add up, but
 * a step that turns out not finite must leave no trace. */
static xkd_batchnorm_args norm_args(const xkd_finetune *f)
{
    return (xkd_batchnorm_args){.x = f->unit,
                                .w = f->norm.w->value,
                                .b = f->norm.b->value,
                                .mean = f->batch[0],
                                .inv = f->batch[1],
                                .running = {f->next[0], f->next[1]},
                                .eps = NORM_EPS,
                                .momentum = f->dist ? 1 : NORM_MOMENTUM,
                                .B = f->B,
                                .D = f->norm.width};
}

/* Numbers of all ranks' micro-batches are put together in their order once a step is done. */
static double *moved_by(const xkd_finetune *f, int64_t part)
{
    return f->moved + part * 2 * f->norm.width;
}

/* Of several ranks `next` takes the statistics of one micro-batch as they are: they start at 0 and move by all of it. */
static void norm_note(xkd_finetune *f)
{
    double *to = moved_by(f, part_number(f, f->micro));
    for (int k = 0; k < 2; k++) {
        int64_t bytes = f->norm.width * (int64_t)sizeof *to;
        xkd_memory_download(f->be->memory, to + k * f->norm.width, f->next[k], bytes);
        xkd_memory_zero(f->be->memory, f->next[k], bytes);
    }
}

/* The running statistics move on by every micro-batch of every rank, as they do in one process. `next` has room for the
 * stored ones, which are read there first. */
static xkd_status norm_join(xkd_context *cx, xkd_finetune *f)
{
    xkd_status status = XKD_OK;
    int64_t D = f->norm.width, parts = parts_of(f);
    int64_t bytes = f->accumulate * 2 * D * (int64_t)sizeof(double);
    double *now = NULL;
    XKD_TRY(xkd_dist_gather(f->dist, f->moved, moved_by(f, part_number(f, 0)), bytes));
    XKD_TRY(xkd_alloc(cx, &now, D, sizeof *now));
    for (int k = 0; k < 2; k++) {
        f->be->exact->to_double(f->be, f->next[k], f->running[k]->value, D);
        xkd_memory_download(f->be->memory, now, f->next[k], D * (int64_t)sizeof *now);
        for (int64_t p = 0; p < parts; p++)
            for (int64_t d = 0; d < D; d++) now[d] += NORM_MOMENTUM * (moved_by(f, p)[k * D + d] - now[d]);
        xkd_memory_upload(f->be->memory, f->next[k], now, D * (int64_t)sizeof *now);
    }
fail:
    xkd_free(now);
    return status;
}

/* next = the running statistics as stored. */
static void norm_begin(xkd_finetune *f)
{
    for (int k = 0; k < 2; k++) f->be->exact->to_double(f->be, f->next[k], f->running[k]->value, f->norm.width);
}

/* ---- a step ---- */

/* Stretches that a GPU repeats (xkd_backend_repeat), between what the host brings and reads. */
enum { COMPUTE, UPDATE };

/* What their arguments depend on. */
typedef struct {
    int64_t what;
    const void *memory; /* of the plan */
    int64_t B;
    double share; /* of a micro-batch */
} stretch_key;

static bool repeats(xkd_finetune *f, int what, double share)
{
    const stretch_key key = {what, f->arena.memory, f->B, share};
    return xkd_backend_repeat(f->be, &key, (int64_t)sizeof key);
}

/* Gradient of the features back through the encoder. */
static void backward_encoder(xkd_finetune *f)
{
    xkd_backend *be = f->be;
    const int32_t *keep = NULL;
    int64_t first, last, D = f->classifier.in;
    /* Tokens outside the pool get no gradient; the memory holds the last step's. */
    be->ops->fill(be, f->dz, 0, f->run.segs.rows * D);
    pooled_tokens(f, &first, &last);
    be->ops->pool_backward(be, f->dz, f->dinput, f->B, tokens_of(f), D, first, last);
    xkd_backbone_backward(be, &f->encoder.backbone, &f->run, f->dz, &keep, &f->scratch);
}

/* The list of what AdamW does; returns its length. Positions and embeddings get the smallest rate: what pre-training learnt first
 * changes least. */
static int64_t list_updates(xkd_finetune *f)
{
    const xkd_finetune_options *o = &f->options;
    int64_t depth = f->encoder.backbone.blocks.depth, count = 0;
    for (int64_t i = 0; i < f->encoder.params.count; i++) {
        const xkd_param *row = f->encoder.params.rows[i];
        if (row->role != XKD_ROLE_TRAINED) continue;
        f->list[count++] =
            (xkd_adamw_args){.p = row->master,
                             .stored = row->value != row->master ? row->value : NULL,
                             .m = row->moment1,
                             .v = row->moment2,
                             .g = row->grad,
                             .n = row->count, /* no clipping: the released fine-tuning has none */
                             .beta1 = o->beta1,
                             .beta2 = o->beta2,
                             .eps = o->eps,
                             .lr_scale = xkd_layer_scale(o->layer_decay, depth, xkd_layer_of(row->name, depth)),
                             .lr = f->rates,
                             .weight_decay = is_decayed(row) ? f->rates + 1 : NULL,
                             .steps = row->counter};
    }
    return count;
}

/* All or nothing: if a loss or any gradient is not finite, neither weights nor moments nor running statistics change. The sum of
 * squares is not finite exactly when some gradient is not, or overflows: both are refused. */
static void update(xkd_finetune *f)
{
    const xkd_params *params = &f->encoder.params;
    const xkd_ops *ops = f->be->exact;
    const xkd_vector all = {params->grads.memory, params->grads.used / f->be->element.exact};
    int64_t D = f->norm.width;
    double *finite = finite_of(f);
    if (repeats(f, UPDATE, 0)) return;
    ops->norms(f->be, f->scalars + SQUARES, finite, &all, 1, f->left, parts_of(f));
    ops->adamw(f->be, f->list, list_updates(f), NULL, finite);
    for (int k = 0; f->options.batch_norm && k < 2; k++) {
        ops->from_double(f->be, f->settled[k], f->next[k], D);
        ops->centre(f->be, f->running[k]->value, f->settled[k], 0, 1, D, finite); /* a copy where all is finite */
    }
    xkd_memory_copy(f->be->memory, finite + 1, params->counters.memory, params->count * (int64_t)sizeof *finite);
    xkd_backend_repeat_end(f->be);
}

void xkd_finetune_begin(xkd_finetune *f)
{
    xkd_parts_begin(f->be, &f->parts);
    f->micro = 0;
    if (!f->options.batch_norm) return;
    norm_begin(f);
    for (int k = 0; f->dist && k < 2; k++)
        xkd_memory_zero(f->be->memory, f->next[k], f->norm.width * (int64_t)sizeof(double));
}

/* Gradients of everything before the classifier. */
static void backward_features(xkd_finetune *f)
{
    const xkd_ops *ops = f->be->exact;
    int64_t B = f->B, D = f->classifier.in;
    ops->linear_backward_data(f->be, f->dinput, f->logits, f->classifier.w->value, B, f->K, D);
    ops->multiply(f->be, f->dinput, f->dinput, f->dropout, B * D);
    if (f->options.batch_norm) {
        const xkd_batchnorm_args args = norm_args(f);
        ops->batchnorm_backward(f->be, f->dinput, f->norm.w->grad, f->norm.b->grad, f->dinput, &args);
    }
    if (f->options.frozen) return;
    if (f->options.l2_norm) ops->l2norm_backward(f->be, f->dinput, f->dinput, f->unit, f->inv, B, D);
    backward_encoder(f);
}

/* The loss of clips [B,C,T,H,W], of which f->pooled has the features where they are NULL. Both arguments are lent. */
static void forward(xkd_finetune *f, const float *clips, const float *targets)
{
    const xkd_ops *ops = f->be->exact;
    const xkd_linear *c = &f->classifier;
    if (clips) encode_some(f, clips, f->pooled);
    scale_features(f);
    if (f->options.batch_norm) {
        const xkd_batchnorm_args norm = norm_args(f);
        ops->batchnorm_forward(f->be, f->normed, &norm);
    }
    ops->multiply(f->be, f->input, f->normed, f->dropout, f->B * c->in);
    ops->linear_forward(f->be, f->logits, f->input, c->w->value, c->b->value, f->B, f->K, c->in);
    ops->classify(f->be, f->scalars + LOSS, f->logits, f->logits, targets, f->options.loss, f->B, f->K);
}

/* The logits' memory holds dlogits [B,K] now: the operation has written its gradient over them. Nothing that is trained stands
 * before the classifier of a frozen encoder, except the batch norm. */
static void backward(xkd_finetune *f, double share)
{
    const xkd_ops *ops = f->be->exact;
    const xkd_linear *c = &f->classifier;
    if (share != 1) ops->axpby(f->be, f->logits, f->logits, 0, share, f->B * f->K);
    ops->linear_backward_weight(f->be, c->w->grad, c->b->grad, f->logits, f->input, f->B, f->K, c->in);
    if (!f->options.frozen || f->options.batch_norm) backward_features(f);
}

static void compute(xkd_finetune *f, const float *clips, const float *targets, double share)
{
    if (repeats(f, COMPUTE, share)) return;
    forward(f, clips, targets);
    backward(f, share);
    xkd_backend_repeat_end(f->be);
}

xkd_status xkd_finetune_micro_batch(xkd_context *cx, xkd_finetune *f, const float *clips, const float *targets,
                                    double share)
{
    xkd_status status = XKD_OK;
    xkd_backend *be = f->be;
    if (f->options.batch_norm && f->B < 2)
        XKD_FAIL(XKD_ERR_CONFIG, "batch norm needs at least two clips in a (micro-)batch: raise dataset.batch_size");
    /* Micro-batches of one step have the same `step` and another `micro`, so their draws differ. */
    draw(f);
    targets = xkd_memory_lend(be->memory, f->targets, targets, f->B * f->K * (int64_t)sizeof *targets);
    /* Clips that pass through the encoder in pieces take turns in one place. */
    if (f->together < f->B) encode(f, clips);
    compute(f, f->together < f->B ? NULL : lend_clips(f, clips), targets, share);
    xkd_memory_copy(be->memory, f->left + part_number(f, f->micro), f->scalars + LOSS, (int64_t)sizeof *f->left);
    if (f->moved) norm_note(f);
    xkd_parts_add(be, &f->parts);
    f->micro++;
    XKD_TRY(xkd_backend_seen(be));
fail:
    return status;
}

xkd_status xkd_finetune_finish(xkd_context *cx, xkd_finetune *f, double lr, double weight_decay)
{
    xkd_status status = XKD_OK;
    xkd_backend *be = f->be;
    xkd_arrival *a = &f->arrivals[f->asked % XKD_STEPS_OPEN];
    const double rates[] = {lr, weight_decay};
    if (f->dist) XKD_TRY(xkd_backend_status(be)); /* of no use to others behind a fault */
    XKD_TRY(xkd_parts_join(be, &f->parts, f->dist));
    XKD_TRY(xkd_ranks_join_numbers(f->dist, be->memory, f->left, f->gathered, f->accumulate));
    if (f->moved) XKD_TRY(norm_join(cx, f));
    xkd_memory_upload(be->memory, f->rates, rates, (int64_t)sizeof rates);
    update(f);
    xkd_arrival_ask(be->memory, a, f->left, a->bytes);
    f->asked++;
    f->step++;
    XKD_TRY(xkd_backend_seen(be));
fail:
    return status;
}

xkd_status xkd_finetune_collect(xkd_finetune *f, double *loss, bool *skipped)
{
    const xkd_params *params = &f->encoder.params;
    xkd_arrival *a = &f->arrivals[f->collected++ % XKD_STEPS_OPEN];
    int64_t parts = parts_of(f);
    const double *left = a->host, *counters = left + parts + 1;
    xkd_arrival_wait(f->be->memory, a);
    *loss = 0;
    for (int64_t p = 0; p < parts; p++) *loss += left[p] / (double)parts;
    *skipped = left[parts] == 0;
    for (int64_t i = 0; i < params->count; i++)
        if (params->rows[i]->role == XKD_ROLE_TRAINED) params->rows[i]->steps = (int64_t)counters[i];
    return xkd_backend_seen(f->be);
}

xkd_status xkd_finetune_step(xkd_context *cx, xkd_finetune *f, const float *clips, const float *targets, double lr,
                             double weight_decay, double *loss)
{
    xkd_status status = XKD_OK;
    bool skipped;
    xkd_finetune_begin(f);
    XKD_TRY(xkd_finetune_micro_batch(cx, f, clips, targets, 1));
    XKD_TRY(xkd_finetune_finish(cx, f, lr, weight_decay));
    XKD_TRY(xkd_finetune_collect(f, loss, &skipped));
    if (skipped)
        XKD_FAIL(XKD_ERR_NUMERIC, "the loss or a gradient of step %lld is not finite: lower hyperparams.lr.base_lr",
                 (long long)f->step - 1);
fail:
    return status;
}

xkd_status xkd_finetune_scores(xkd_finetune *f, const float *clips, float *scores)
{
    xkd_backend *be = f->be;
    const xkd_ops *ops = be->exact;
    const xkd_linear *c = &f->classifier;
    f->run.blocks.path = NULL; /* no drop-path, and `keep` is not applied */
    encode(f, clips);
    scale_features(f);
    if (f->options.batch_norm) {
        const xkd_batchnorm_args args = norm_args(f);
        norm_begin(f);
        ops->batchnorm_apply(be, f->normed, &args);
    }
    ops->linear_forward(be, f->logits, f->normed, c->w->value, c->b->value, f->B, f->K, c->in);
    ops->classify_scores(be, f->scores, f->logits, f->options.loss, f->B, f->K);
    xkd_memory_download(be->memory, scores, f->scores, f->B * f->K * (int64_t)sizeof *scores);
    return xkd_backend_status(be);
}
