/* Projection head; method.md section 4: pooled feature [R,D] -> Linear -> LN -> GELU -> Linear -> the same LN -> GELU ->
 * Linear -> L2 normalise -> weight-normalised linear -> LN without affine -> logits [R,K]. */
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

/* Activations of R rows; F = hidden, E = bottleneck. The features come and the last layer works exact. */
typedef struct {
    int64_t R;
    void *x;                            /* [R,D] exact: pooled features, the input */
    void *stored_x;                     /* [R,D]: the same, stored; x itself where both are of one type */
    void *h1, *mean1, *rstd1, *n1, *g1; /* [R,F], [R], [R], [R,F], [R,F] */
    void *h2, *mean2, *rstd2, *n2, *g2;
    void *e, *unit, *inv;             /* [R,E]; [R,E], [R] exact */
    void *w, *w_inv;                  /* [K,E], [K] exact: normalised last layer */
    void *z, *mean3, *rstd3, *logits; /* [R,K], [R], [R], [R,K] exact */
} xkd_head_saved;

/* Working memory of the backward. */
typedef struct {
    void *dz;    /* [R,K] exact */
    void *dw;    /* [K,E] exact */
    void *dunit; /* [R,E] exact */
    void *de;    /* [R,E]; dunit itself where both are of one type */
    void *dh;    /* [R,F] */
} xkd_head_scratch;

xkd_status xkd_head_declare(const xkd_declare *at, xkd_head *out, int64_t D, xkd_head_size size);
void xkd_head_plan(xkd_arena *arena, const xkd_head *head, int64_t R, xkd_widths element, xkd_head_saved *saved);
void xkd_head_scratch_plan(xkd_arena *arena, const xkd_head *head, int64_t R, xkd_widths element,
                           xkd_head_scratch *scratch);

/* Input in saved->x, output in saved->logits. */
void xkd_head_forward(xkd_backend *be, const xkd_head *head, xkd_head_saved *saved);

/* dx [R,D] exact = from dlogits [R,K] exact; parameter gradients +=. `train_last` false leaves the last layer's gradient alone. */
void xkd_head_backward(xkd_backend *be, const xkd_head *head, xkd_head_saved *saved, void *dx, const void *dlogits,
                       bool train_last, const xkd_head_scratch *scratch);

#endif
