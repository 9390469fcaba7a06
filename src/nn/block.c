/* The pre-norm transformer block, forward and backward, and the memory it keeps in between: x +=
 * proj(attn(LN(x))), then x += fc2(gelu(fc1(LN(x)))) (method.md section 4). What is cheap is made again in
 * the backward (both LN outputs, gelu(h)), what is dear is kept (qkv, the attention output, h). */
#include "nn/block.h"

#include <stdio.h>

#include "base/alloc.h"

/* Names are those of the public state dict, and their order is the order of initialisation; qkv has no bias. The biases of
 * proj and fc2 are added to exact rows. */
static xkd_status declare_block(const xkd_declare *at, xkd_block *b, int64_t D)
{
    xkd_status status = XKD_OK;
    xkd_declare branch = *at;
    branch.exact_bias = true;
    XKD_TRY(xkd_declare_norm(at, &b->norm1, "norm1", D));
    XKD_TRY(xkd_declare_linear(at, &b->qkv, "attn.qkv", D, 3 * D, false, XKD_INIT_XAVIER, 0));
    XKD_TRY(xkd_declare_linear(&branch, &b->proj, "attn.proj", D, D, true, XKD_INIT_XAVIER, 0));
    XKD_TRY(xkd_declare_norm(at, &b->norm2, "norm2", D));
    XKD_TRY(xkd_declare_linear(at, &b->fc1, "mlp.fc1", D, XKD_MLP_RATIO * D, true, XKD_INIT_XAVIER, 0));
    XKD_TRY(xkd_declare_linear(&branch, &b->fc2, "mlp.fc2", XKD_MLP_RATIO * D, D, true, XKD_INIT_XAVIER, 0));
fail:
    return status;
}

/* Blocks get the prefix "<name>.blocks.<i>."; `name` is "encoder" or "decoder". */
xkd_status xkd_transformer_declare(const xkd_declare *at, xkd_transformer *out, const char *name, xkd_vit_size size)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = at->cx;
    *out = (xkd_transformer){.depth = size.depth, .width = size.width, .heads = size.heads};
    XKD_TRY(xkd_alloc(cx, &out->blocks, size.depth, sizeof *out->blocks));
    for (int64_t i = 0; i < size.depth; i++) {
        char prefix[XKD_PARAM_NAME];
        xkd_declare block = *at;
        snprintf(prefix, sizeof prefix, "%s%s.blocks.%lld.", at->prefix, name, (long long)i);
        block.prefix = prefix;
        XKD_TRY(declare_block(&block, &out->blocks[i], size.width));
    }
fail:
    return status;
}

/* Only the array of blocks is owned: the parameters belong to the table they were declared in. */
void xkd_transformer_free(xkd_transformer *t)
{
    xkd_free(t->blocks);
    t->blocks = NULL;
}

/* Per block and row: 4 statistics, H log-sum-exps, and 3D + D + 4D values. The inputs x and mid are planned
 * by the caller, because the output of one block is the input of the next. */
static void plan_block(xkd_arena *arena, const xkd_transformer *t, int64_t R, xkd_widths element, bool keep,
                       xkd_block_saved *s)
{
    int64_t D = t->width;
    s->mean1 = xkd_arena_take(arena, R * element.exact);
    s->rstd1 = xkd_arena_take(arena, R * element.exact);
    s->mean2 = xkd_arena_take(arena, R * element.exact);
    s->rstd2 = xkd_arena_take(arena, R * element.exact);
    s->lse = xkd_arena_take(arena, R * t->heads * element.exact);
    s->qkv = xkd_arena_take(arena, R * 3 * D * element.stored);
    s->o = xkd_arena_take(arena, R * D * element.stored);
    s->h = keep ? xkd_arena_take(arena, R * XKD_MLP_RATIO * D * element.stored) : NULL;
}

xkd_status xkd_transformer_plan(xkd_context *cx, xkd_arena *arena, const xkd_transformer *t, const xkd_segments *segs,
                                xkd_widths element, bool keep, xkd_transformer_saved *saved)
{
    xkd_status status = XKD_OK;
    int64_t rows = segs->rows * t->width * element.stored;
    bool apart = element.stored != element.exact; /* the rows run in scratch->x; what stands here is for the backward */
    /* Called twice, to measure and to assign; the array survives the first call. One entry at least, so that
     * blocks[0].x exists for a decoder of depth 0. */
    if (!saved->blocks) XKD_TRY(xkd_alloc(cx, &saved->blocks, t->depth > 0 ? t->depth : 1, sizeof *saved->blocks));
    saved->segs = *segs;
    void *x = keep || !apart ? xkd_arena_take(arena, rows) : NULL;
    for (int64_t i = 0; i < t->depth; i++) {
        xkd_block_saved *s = &saved->blocks[i];
        /* Without a backward all blocks share the first one's memory, and x is updated in place. After the
         * forward that memory holds the last block's qkv and lse, which is what the attention probe of a
         * teacher reads. */
        if (keep || i == 0)
            plan_block(arena, t, segs->rows, element, keep, s);
        else
            *s = saved->blocks[0];
        s->x = x;
        s->mid = keep ? xkd_arena_take(arena, rows) : x;
        x = keep ? xkd_arena_take(arena, rows) : x;
    }
    saved->out = x;
    if (t->depth == 0) saved->blocks[0].x = x;
fail:
    return status;
}

/* The tensors are the arena's. */
void xkd_transformer_saved_free(xkd_transformer_saved *saved)
{
    xkd_free(saved->blocks);
    saved->blocks = NULL;
}

/* Tensors that live no longer than a network's pass, or one half of a block; all blocks and networks share them. */
void xkd_block_scratch_plan(xkd_arena *arena, int64_t R, int64_t D, xkd_widths element, xkd_block_scratch *scratch)
{
    scratch->n = xkd_arena_take(arena, R * D * element.stored);
    scratch->a = xkd_arena_take(arena, R * XKD_MLP_RATIO * D * element.stored);
    scratch->x = element.stored != element.exact ? xkd_arena_take(arena, R * D * element.exact) : NULL;
}

void *xkd_transformer_input(const xkd_transformer_saved *saved, const xkd_block_scratch *scratch)
{
    return scratch->x ? scratch->x : saved->blocks[0].x;
}

void *xkd_transformer_output(const xkd_transformer_saved *saved, const xkd_block_scratch *scratch)
{
    return scratch->x ? scratch->x : saved->out;
}

int64_t xkd_sequence_count(const xkd_segments *segs)
{
    int64_t count = 0;
    for (int64_t s = 0; s < segs->count; s++) count += segs->items[s].batch;
    return count;
}

void xkd_draw_paths(xkd_rng *rng, double rate, int64_t depth, int64_t sequences, float *path)
{
    for (int64_t i = 0; i < depth; i++) {
        double p = depth > 1 ? rate * (double)i / (double)(depth - 1) : 0;
        for (int64_t k = 0; k < 2 * sequences; k++) *path++ = xkd_rng_uniform(rng) < p ? 0 : (float)(1 / (1 - p));
    }
}

/* What all rows of one block's pass have in common. */
typedef struct {
    const xkd_segments *segs;
    int64_t heads;
    const float *path[2]; /* [sequences] factors of the attention's and the MLP's branch, or NULL */
} block_pass;

/* Of block i. */
static block_pass pass_of(const xkd_transformer *t, const xkd_transformer_saved *saved, int64_t i)
{
    block_pass pass = {&saved->segs, t->heads, {NULL, NULL}};
    int64_t sequences = xkd_sequence_count(&saved->segs);
    for (int k = 0; saved->path && k < 2; k++) pass.path[k] = saved->path + (2 * i + k) * sequences;
    return pass;
}

/* One branch's end on exact rows: out = residual + path * (x w^T + b), fused where nothing is dropped. `spare` [R,D] is none of
 * the others. */
static void add_branch(xkd_backend *be, void *out, const void *residual, const void *x, const xkd_linear *l,
                       const float *path, const xkd_segments *segs, void *spare)
{
    const xkd_ops *ops = be->ops;
    int64_t R = segs->rows, D = l->out;
    if (!path) {
        ops->linear_residual_forward(be, out, residual, x, l->w->value, l->b->value, R, D, l->in);
        return;
    }
    ops->linear_forward(be, spare, x, l->w->value, NULL, R, D, l->in);
    if (out != residual) xkd_memory_copy(be->memory, out, residual, R * D * be->element.exact);
    ops->add_sequences(be, out, spare, l->b->value, path, segs, D);
}

/* Nothing here is allocated. The rows x, mid and out may all be one: residual products work in place. */
static void block_forward(xkd_backend *be, const xkd_block *b, const xkd_block_saved *s, void *out,
                          const block_pass *pass, const xkd_block_scratch *scratch)
{
    void *x = scratch->x ? scratch->x : s->x, *mid = scratch->x ? scratch->x : s->mid;
    const xkd_ops *ops = be->ops;
    const xkd_segments *segs = pass->segs;
    int64_t R = segs->rows, D = b->norm1.width, F = b->fc1.out, heads = pass->heads;
    ops->residual_layernorm_forward(be, scratch->n, s->x, s->mean1, s->rstd1, x, b->norm1.w->value, b->norm1.b->value,
                                    R, D);
    ops->linear_forward(be, s->qkv, scratch->n, b->qkv.w->value, NULL, R, 3 * D, D);
    ops->attention_forward(be, s->o, s->lse, s->qkv, segs, heads, D);
    add_branch(be, mid, x, s->o, &b->proj, pass->path[0], segs, scratch->n);
    ops->residual_layernorm_forward(be, scratch->n, s->mid, s->mean2, s->rstd2, mid, b->norm2.w->value,
                                    b->norm2.b->value, R, D);
    void *h = s->h ? s->h : scratch->a;
    ops->linear_gelu_forward(be, scratch->a, h, scratch->n, b->fc1.w->value, b->fc1.b->value, R, F, D);
    add_branch(be, out, mid, scratch->a, &b->fc2, pass->path[1], segs, scratch->n);
}

/* Gradients through the second half; dx [R,D] in place. scratch->a holds dh, s->h becomes gelu(h). */
static void mlp_backward(xkd_backend *be, const xkd_block *b, const xkd_block_saved *s, void *dx,
                         const block_pass *pass, const xkd_block_scratch *scratch)
{
    const xkd_ops *ops = be->ops;
    int64_t R = pass->segs->rows, D = b->norm2.width, F = b->fc1.out;
    void *dh = scratch->a, *n = scratch->n, *dy = dx;
    if (pass->path[1]) ops->scale_sequences(be, dy = n, dx, pass->path[1], pass->segs, D); /* n is free until LN(mid) */
    ops->linear_gelu_backward_data(be, dh, s->h, dy, b->fc2.w->value, s->h, R, D, F);
    xkd_linear_weights(be, &b->fc2, dy, s->h, R);
    /* LN(mid) again: one pass over [R,D] instead of another saved tensor in every block. */
    ops->layernorm_forward(be, n, s->mean2, s->rstd2, s->mid, b->norm2.w->value, b->norm2.b->value, R, D);
    xkd_linear_weights(be, &b->fc1, dh, n, R);
    ops->linear_backward_data(be, n, dh, b->fc1.w->value, R, F, D);
    /* The residual branch and the norm's gradient meet in one pass, in place. */
    xkd_norm_backward(be, &b->norm2,
                      &(xkd_layernorm_grad){
                          .dx = dx, .residual = dx, .dy = n, .x = s->mid, .mean = s->mean2, .rstd = s->rstd2, .R = R});
}

/* Gradients through the first half; dx [R,D] in place. scratch->a holds dqkv and behind it a scaled dx. */
static void attention_half_backward(xkd_backend *be, const xkd_block *b, const xkd_block_saved *s, void *dx,
                                    const block_pass *pass, const xkd_block_scratch *scratch)
{
    const xkd_ops *ops = be->ops;
    int64_t R = pass->segs->rows, D = b->norm1.width;
    void *dqkv = scratch->a, *n = scratch->n, *dy = dx;
    if (pass->path[0])
        ops->scale_sequences(be, dy = xkd_at(be, scratch->a, 3 * R * D), dx, pass->path[0], pass->segs, D);
    xkd_linear_weights(be, &b->proj, dy, s->o, R);
    ops->linear_backward_data(be, n, dy, b->proj.w->value, R, D, D);
    ops->attention_backward(be, dqkv, n, s->qkv, s->o, s->lse, pass->segs, pass->heads, D);
    ops->layernorm_forward(be, n, s->mean1, s->rstd1, s->x, b->norm1.w->value, b->norm1.b->value, R, D);
    xkd_linear_weights(be, &b->qkv, dqkv, n, R);
    ops->linear_backward_data(be, n, dqkv, b->qkv.w->value, R, 3 * D, D);
    xkd_norm_backward(be, &b->norm1,
                      &(xkd_layernorm_grad){
                          .dx = dx, .residual = dx, .dy = n, .x = s->x, .mean = s->mean1, .rstd = s->rstd1, .R = R});
}

/* Each block writes its output straight into the input of the next, or all work in place on the scratch's exact rows. */
void xkd_transformer_forward(xkd_backend *be, const xkd_transformer *t, xkd_transformer_saved *saved,
                             const xkd_block_scratch *scratch)
{
    for (int64_t i = 0; i < t->depth; i++) {
        void *out = i + 1 < t->depth ? saved->blocks[i + 1].x : saved->out;
        block_pass pass = pass_of(t, saved, i);
        block_forward(be, &t->blocks[i], &saved->blocks[i], scratch->x ? scratch->x : out, &pass, scratch);
    }
}

/* Blocks in reverse; dx is turned from the gradient of the output into that of the input in place. */
void xkd_transformer_backward(xkd_backend *be, const xkd_transformer *t, xkd_transformer_saved *saved, void *dx,
                              const xkd_block_scratch *scratch)
{
    for (int64_t i = t->depth - 1; i >= 0; i--) {
        block_pass pass = pass_of(t, saved, i);
        mlp_backward(be, &t->blocks[i], &saved->blocks[i], dx, &pass, scratch);
        attention_half_backward(be, &t->blocks[i], &saved->blocks[i], dx, &pass, scratch);
        if (saved->done) saved->done(saved->user, &t->blocks[i]);
    }
}
