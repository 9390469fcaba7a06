/* Pre-norm transformer block and a stack of them; method.md section 4:
 *   x += proj(attention(LN(x)));  x += fc2(gelu(fc1(LN(x)))) */
#ifndef XKD_NN_BLOCK_H
#define XKD_NN_BLOCK_H

#include "base/arena.h"
#include "base/rng.h"
#include "config/config.h"
#include "nn/layers.h"

enum { XKD_MLP_RATIO = 4 };

typedef struct {
    xkd_norm norm1, norm2;
    xkd_linear qkv, proj, fc1, fc2;
} xkd_block;

/* What the forward of one block leaves for its backward. LayerNorm and GELU outputs are recomputed instead: they are
 * 6 of 16 widths a token and cost 2 % of the time. */
typedef struct {
    void *x;             /* [R,D] input, for the backward */
    void *mean1, *rstd1; /* [R] exact */
    void *qkv;           /* [R,3D] */
    void *o;             /* [R,D] attention output */
    void *lse;           /* [R,H] exact */
    void *mid;           /* [R,D] between the two halves */
    void *mean2, *rstd2; /* [R] exact */
    void *h;             /* [R,4D] before GELU; NULL where there is no backward */
} xkd_block_saved;

/* Working memory that blocks of one width and row count share. */
typedef struct {
    void *n; /* [R,D] */
    void *a; /* [R,4D] */
    /* [R,D] exact: the rows that a transformer is at work on, of which it saves rounded copies. NULL where stored tensors are
     * exact: there it works on what it saves, and a block's x is the output of the one before. */
    void *x;
} xkd_block_scratch;

typedef struct {
    xkd_block *blocks; /* [depth], owned */
    int64_t depth, width, heads;
} xkd_transformer;

typedef struct {
    xkd_block_saved *blocks; /* [depth], owned */
    void *out;               /* [R,D] output of the last block, for the backward */
    xkd_segments segs;
    /* Stochastic depth: factors of the two branches of each block, sequence by sequence: 0 or 1 / (1 - p), in the
     * backend's memory. The caller's; NULL: 1. xkd_draw_paths draws them. */
    const float *path; /* [depth,2,sequences] */
    /* Called in the backward behind each block, whose parameters' gradients are complete then; NULL: nobody is told. */
    void (*done)(void *user, const xkd_block *block);
    void *user;
} xkd_transformer_saved;

/* Sequences of all segments together. */
int64_t xkd_sequence_count(const xkd_segments *segs);

/* Stochastic depth (Huang et al., ECCV 2016) per sample: block i of `depth` drops each of its two branches with
 * probability rate * i / (depth - 1), as timm's linspace(0, rate, depth); kept ones are divided by what is kept.
 * path [depth,2,sequences] is drawn in this order. */
void xkd_draw_paths(xkd_rng *rng, double rate, int64_t depth, int64_t sequences, float *path);

/* Declares prefix + "blocks.N.*". Free with xkd_transformer_free. */
xkd_status xkd_transformer_declare(const xkd_declare *at, xkd_transformer *out, const char *name, xkd_vit_size size);
void xkd_transformer_free(xkd_transformer *t);

/* Plans activations for `segs` (whose items must outlive them). With keep = false all blocks work in one set of
 * buffers, for passes without backward. `saved->blocks` is allocated on the first of the two planning calls and freed
 * by xkd_transformer_saved_free. */
xkd_status xkd_transformer_plan(xkd_context *cx, xkd_arena *arena, const xkd_transformer *t, const xkd_segments *segs,
                                xkd_widths element, bool keep, xkd_transformer_saved *saved);
void xkd_transformer_saved_free(xkd_transformer_saved *saved);

/* Scratch for R rows of width D. */
void xkd_block_scratch_plan(xkd_arena *arena, int64_t R, int64_t D, xkd_widths element, xkd_block_scratch *scratch);

/* [R,D] exact: where the input of a forward stands, and then its output. */
void *xkd_transformer_input(const xkd_transformer_saved *saved, const xkd_block_scratch *scratch);
void *xkd_transformer_output(const xkd_transformer_saved *saved, const xkd_block_scratch *scratch);

/* From the input to the output. */
void xkd_transformer_forward(xkd_backend *be, const xkd_transformer *t, xkd_transformer_saved *saved,
                             const xkd_block_scratch *scratch);

/* dx [R,D]: gradient of the output on entry, of the input on return. Parameter gradients +=. Overwrites saved h. With
 * saved->path it must hold what it held in the forward. */
void xkd_transformer_backward(xkd_backend *be, const xkd_transformer *t, xkd_transformer_saved *saved, void *dx,
                              const xkd_block_scratch *scratch);

#endif
