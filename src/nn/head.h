/* Projection head; method.md section 4: pooled feature [R,D] -> Linear -> LN -> GELU -> Linear -> the same LN -> GELU ->
 * Linear -> L2 normalise -> weight-normalised linear -> LN without affine -> logits [R,K].
 *
 * All of it is exact: its rows are few (a view each), and the temperatures of the distillation loss, down to 0.04, multiply
 * what is rounded here. */
#ifndef XKD_NN_HEAD_H
#define XKD_NN_HEAD_H

#include "base/arena.h"
#include "config/config.h"
#include "nn/layers.h"

typedef struct {
    xkd_linear fc1, fc2, fc3;    /* mlp.0, mlp.3, mlp.6 */
    xkd_norm norm;               /* mlp.1, used twice; also named mlp.4 */
    xkd_param *gain, *direction; /* last_layer.weight_g [K,1], weight_v [K,256] */
    xkd_head_size size;
    int64_t width; /* D */
} xkd_head;

/* Activations of R rows; F = hidden, E = bottleneck. */
typedef struct {
    int64_t R;
    void *x;                            /* [R,D] pooled features: the input */
    void *h1, *mean1, *rstd1, *n1, *g1; /* [R,F], [R], [R], [R,F], [R,F] */
    void *h2, *mean2, *rstd2, *n2, *g2;
    void *e, *unit, *inv;             /* [R,E], [R,E], [R] */
    void *w, *w_inv;                  /* [K,E], [K]: normalised last layer */
    void *z, *mean3, *rstd3, *logits; /* [R,K], [R], [R], [R,K] */
} xkd_head_saved;

/* Working memory of the backward. */
typedef struct {
    void *dz; /* [R,K] */
    void *dw; /* [K,E] */
    void *de; /* [R,E] */
    void *dh; /* [R,F] */
} xkd_head_scratch;

xkd_status xkd_head_declare(const xkd_declare *around, xkd_head *out, int64_t D, xkd_head_size size);

/* `exact`: bytes of an exact element. */
void xkd_head_plan(xkd_arena *arena, const xkd_head *head, int64_t R, int64_t exact, xkd_head_saved *saved);
void xkd_head_scratch_plan(xkd_arena *arena, const xkd_head *head, int64_t R, int64_t exact, xkd_head_scratch *scratch);

/* Input in saved->x, output in saved->logits. */
void xkd_head_forward(xkd_backend *be, const xkd_head *head, xkd_head_saved *saved);

/* dx [R,D] = from dlogits [R,K]; parameter gradients +=. `train_last` false leaves the last layer's gradient alone. */
void xkd_head_backward(xkd_backend *be, const xkd_head *head, xkd_head_saved *saved, void *dx, const void *dlogits,
                       bool train_last, const xkd_head_scratch *scratch);

#endif
