/* One table of operations and their contract. A backend fills the table; the model above is written once.
 *
 * Conventions
 * - Order of arguments: outputs, inputs, saved values, sizes. Row-major tensors, shape in comments.
 * - `void *` tensors hold elements of the backend's dtype (F32 or F64). Indices are int32_t, losses double.
 * - "=" overwrites an output, "+=" accumulates into it; the same in every backend.
 * - Operations do not return a status: the first fault is kept in the backend (xkd_backend_status) and later
 *   operations may do nothing. Callers look once a step.
 * - A result never depends on the number of threads. */
#ifndef XKD_BACKEND_BACKEND_H
#define XKD_BACKEND_BACKEND_H

#include <stdbool.h>

#include "base/pool.h"
#include "tensor/dtype.h"

typedef struct xkd_backend xkd_backend;

/* Sequences packed one behind the other: segment s is batch[s] sequences of tokens[s] tokens. */
typedef struct {
    int64_t batch, tokens;
} xkd_segment;

typedef struct {
    int64_t count;
    const xkd_segment *items; /* [count] */
    int64_t rows;             /* sum of batch * tokens: R */
} xkd_segments;

/* How a clip is cut into patches; a spectrogram is a clip of T = 1 frame of H frequencies and W times. */
typedef struct {
    int64_t B, C, T, H, W;
    int64_t pt, ph, pw; /* patch sides; T, H, W are multiples of them */
} xkd_patch_geometry;

static inline int64_t xkd_patch_tokens(const xkd_patch_geometry *g)
{
    return (g->T / g->pt) * (g->H / g->ph) * (g->W / g->pw);
}

static inline int64_t xkd_patch_length(const xkd_patch_geometry *g)
{
    return g->pt * g->ph * g->pw * g->C;
}

/* Sparse rows: out[i] = sum over k in [start[i], start[i+1]) of weight[k] * in[index[k]]. */
typedef struct {
    int64_t rows_out, rows_in;
    const int32_t *start; /* [rows_out+1] */
    const int32_t *index; /* [start[rows_out]] */
    const double *weight; /* likewise */
} xkd_sparse_rows;

/* Backward of a LayerNorm. dx [R,D] = residual + gradient through the norm; residual [R,D] or NULL; dx may be residual
 * or dy. dw, db [D] += (or both NULL). x [R,D], mean, rstd [R] as in the forward; w [D] or NULL. */
typedef struct {
    void *dx, *dw, *db;
    const void *residual, *dy, *x, *mean, *rstd, *w;
    int64_t R, D;
} xkd_layernorm_grad;

/* Where the kept tokens of B masked clips stand: c = cls ? 1 : 0 leading rows, N tokens, M kept, D wide. */
typedef struct {
    const int32_t *rank; /* [B,N] which kept token stands there, -1: none */
    int64_t B, N, M, D;
    bool cls;
} xkd_unmask_args;

/* Rows of the two sides of an alignment loss. Side X has views_x blocks of B rows, Y views_y; samples
 * [first, first+samples) of every block take part. */
typedef struct {
    const void *x, *y; /* [views_x*B, K], [views_y*B, K] */
    int64_t views_x, views_y, B, K, first, samples;
} xkd_align_sides;

/* Teacher-student cross entropy; row r of s belongs to sample r % B. */
typedef struct {
    const void *s;      /* [R,K] student logits */
    const void *t;      /* [B,K] teacher logits */
    const void *centre; /* [K] */
    double student_temp, teacher_temp;
    int64_t R, B, K;
} xkd_kd_args;

/* Refinement of one teacher's features; method.md section 5. */
typedef struct {
    const void *features;   /* [B,tokens,D] after encoder_norm */
    const void *self_attn;  /* [B,H,N] class-token attention of this teacher */
    const void *other_attn; /* [B,H,M] of the other one */
    int64_t B, tokens, D, H, N, M;
    bool softmax; /* attn_mode */
} xkd_refine_args;

/* One AdamW step on one tensor and the moving averages that follow it; method.md section 7. */
typedef struct {
    void *p, *m, *v; /* [n] parameter and moments, updated */
    const void *g;   /* [n] gradient */
    void *ema[2];    /* teachers that average this tensor, in order; NULL: none. May be the same twice (MATS) */
    double ema_momentum[2];
    int64_t n;
    double grad_scale; /* clipping and averaging factor */
    double lr, weight_decay, beta1, beta2, eps;
    double correction1, correction2; /* 1 - beta^step */
} xkd_adamw_args;

typedef struct {
    const char *name;

    /* ---- matrix products; w is [N,K] as PyTorch stores a Linear, b [N] or NULL ---- */
    /* y [M,N] = x [M,K] w^T + b */
    void (*linear_forward)(xkd_backend *be, void *y, const void *x, const void *w, const void *b, int64_t M, int64_t N,
                           int64_t K);
    /* h [M,N] = x w^T + b, y [M,N] = gelu(h); y may be h, which is then not kept */
    void (*linear_gelu_forward)(xkd_backend *be, void *y, void *h, const void *x, const void *w, const void *b,
                                int64_t M, int64_t N, int64_t K);
    /* y [M,N] = residual [M,N] + x w^T + b; y may be residual */
    void (*linear_residual_forward)(xkd_backend *be, void *y, const void *residual, const void *x, const void *w,
                                    const void *b, int64_t M, int64_t N, int64_t K);
    /* dx [M,K] = dy [M,N] w */
    void (*linear_backward_data)(xkd_backend *be, void *dx, const void *dy, const void *w, int64_t M, int64_t N,
                                 int64_t K);
    /* Behind y = gelu(h) w^T: dh [M,K] = (dy [M,N] w) * gelu'(h), a [M,K] = gelu(h); a may be h */
    void (*linear_gelu_backward_data)(xkd_backend *be, void *dh, void *a, const void *dy, const void *w, const void *h,
                                      int64_t M, int64_t N, int64_t K);
    /* dw [N,K] += dy [M,N]^T x [M,K], db [N] += column sums of dy; db may be NULL */
    void (*linear_backward_weight)(xkd_backend *be, void *dw, void *db, const void *dy, const void *x, int64_t M,
                                   int64_t N, int64_t K);

    /* ---- normalisation and activation ---- */
    /* y [R,D] = (x - mean) * rstd * w + b, rstd = 1 / sqrt(var + 1e-5); mean, rstd [R] saved; w, b [D] or both NULL */
    void (*layernorm_forward)(xkd_backend *be, void *y, void *mean, void *rstd, const void *x, const void *w,
                              const void *b, int64_t R, int64_t D);
    void (*layernorm_backward)(xkd_backend *be, const xkd_layernorm_grad *args);
    /* y [n] = x * Phi(x), the exact (erf) GELU; dx [n] = dy * (Phi(x) + x * phi(x)), dx may be dy */
    void (*gelu_forward)(xkd_backend *be, void *y, const void *x, int64_t n);
    void (*gelu_backward)(xkd_backend *be, void *dx, const void *dy, const void *x, int64_t n);
    /* y [R,D] = x / max(|x|, 1e-12), inv [R] saved */
    void (*l2norm_forward)(xkd_backend *be, void *y, void *inv, const void *x, int64_t R, int64_t D);
    /* dx [R,D] = inv * (dy - y (y . dy)); dx may be dy */
    void (*l2norm_backward)(xkd_backend *be, void *dx, const void *dy, const void *y, const void *inv, int64_t R,
                            int64_t D);
    /* w [K,D] = g [K] * v [K,D] / |v row|, inv [K] = 1 / |v row| saved */
    void (*weightnorm_forward)(xkd_backend *be, void *w, void *inv, const void *v, const void *g, int64_t K, int64_t D);
    /* dv [K,D] += g * inv * (dw - n (n . dw)), n = v * inv */
    void (*weightnorm_backward)(xkd_backend *be, void *dv, const void *dw, const void *v, const void *g,
                                const void *inv, int64_t K, int64_t D);

    /* ---- attention; qkv [R,3D] as q|k|v, each H heads of D/H ---- */
    /* o [R,D] = softmax(q k^T / sqrt(D/H)) v within each sequence; lse [R,H] = log-sum-exp of the scaled scores */
    void (*attention_forward)(xkd_backend *be, void *o, void *lse, const void *qkv, const xkd_segments *segs, int64_t H,
                              int64_t D);
    /* dqkv [R,3D] = from do [R,D] */
    void (*attention_backward)(xkd_backend *be, void *dqkv, const void *d_o, const void *qkv, const void *o,
                               const void *lse, const xkd_segments *segs, int64_t H, int64_t D);
    /* w [B,H,N]: softmaxed attention of the class token to the N = tokens-1 patches (class column dropped, not
     * renormalised); without class token the mean over queries, N = tokens. method.md section 5 */
    void (*attention_probe)(xkd_backend *be, void *w, const void *qkv, const void *lse, int64_t B, int64_t tokens,
                            int64_t H, int64_t D, bool cls);

    /* ---- tokens ---- */
    /* out [B,M,P]: patches keep[b][i] of the clip [B,C,T,H,W] (always float); keep [B,M], NULL: all. Inside a patch
     * (t,h,w,c), c fastest; token (t*nh + h)*nw + w. method.md section 3 */
    void (*patchify)(xkd_backend *be, void *out, const float *clip, const int32_t *keep, int64_t M,
                     const xkd_patch_geometry *g);
    /* x [B,M+c,D]: row 0 = cls + pos[0] if c = 1; others = e [B,M,D] + pos[c + keep[b][i]]; cls [D] NULL: c = 0 */
    void (*add_positions)(xkd_backend *be, void *x, const void *e, const void *cls, const void *pos,
                          const int32_t *keep, int64_t B, int64_t M, int64_t D);
    /* de [B,M,D] =, dcls [D] += (NULL: c = 0), dpos += */
    void (*add_positions_backward)(xkd_backend *be, void *de, void *dcls, void *dpos, const void *dx,
                                   const int32_t *keep, int64_t B, int64_t M, int64_t D);
    /* x [B,N+c,D] = pos [N+c,D] + (z [B,M+c,D] row of the kept token, mask_token [D] elsewhere); method.md section 4 */
    void (*unmask_forward)(xkd_backend *be, void *x, const void *z, const void *mask_token, const void *pos,
                           const xkd_unmask_args *args);
    /* dz =, dmask [D] +=, dpos [N+c,D] += */
    void (*unmask_backward)(xkd_backend *be, void *dz, void *dmask, void *dpos, const void *dx,
                            const xkd_unmask_args *args);
    /* out [n,D] = in [rows,D] at rows index[n] */
    void (*gather_rows)(xkd_backend *be, void *out, const void *in, const int32_t *index, int64_t n, int64_t D);
    /* din [rows,D] = 0 but for dout [n,D] at the rows index[n], which are distinct */
    void (*scatter_rows)(xkd_backend *be, void *din, const void *dout, const int32_t *index, int64_t n, int64_t rows,
                         int64_t D);
    /* out [rows_out,D] = S in [rows_in,D], or with `accumulate` += : interpolated positions. Its backward is the same
     * with S transposed. */
    void (*sparse_rows)(xkd_backend *be, void *out, const void *in, const xkd_sparse_rows *s, int64_t D,
                        bool accumulate);
    /* y [B,D] = mean over tokens [skip, tokens) of x [B,tokens,D] */
    void (*pool_forward)(xkd_backend *be, void *y, const void *x, int64_t B, int64_t tokens, int64_t D, int64_t skip);
    /* dx += dy / (tokens - skip) on those tokens */
    void (*pool_backward)(xkd_backend *be, void *dx, const void *dy, int64_t B, int64_t tokens, int64_t D,
                          int64_t skip);
    /* y [B,D]: mean over patches of the refined features; never forms the N x M product. method.md section 5 */
    void (*refine_pool)(xkd_backend *be, void *y, const xkd_refine_args *args);

    /* ---- losses; each forward leaves what its backward needs ---- */
    /* x [R,P] = (x - mean) / sqrt(unbiased variance + 1e-6), in place: norm_pix_loss */
    void (*patch_normalize)(xkd_backend *be, void *x, int64_t R, int64_t P);
    /* *loss = mean (pred - target)^2 */
    void (*mse_forward)(xkd_backend *be, double *loss, const void *pred, const void *target, int64_t n);
    /* dpred [n] = scale * 2 (pred - target) / n; dpred may be pred */
    void (*mse_backward)(xkd_backend *be, void *dpred, const void *pred, const void *target, double scale, int64_t n);
    /* *loss = mean over rows of -sum q log softmax(s / ts), q = softmax((t - centre) / tt); s_lse [R], t_lse [B];
     * *entropy = mean entropy of q */
    void (*kd_forward)(xkd_backend *be, double *loss, double *entropy, void *s_lse, void *t_lse, const xkd_kd_args *a);
    /* ds [R,K] += scale * gradient */
    void (*kd_backward)(xkd_backend *be, void *ds, const xkd_kd_args *a, const void *s_lse, const void *t_lse,
                        double scale);
    /* *loss = MMD of method.md section 6; weights [n,n] doubles saved, n = (views_x + views_y) * samples */
    void (*mmd_forward)(xkd_backend *be, double *loss, double *weights, const xkd_align_sides *a);
    /* dx, dy += scale * gradient */
    void (*mmd_backward)(xkd_backend *be, void *dx, void *dy, const double *weights, const xkd_align_sides *a,
                         double scale);
    /* CORAL; saved: gram [n,n] doubles, and centred [n,K] rows of the dtype */
    void (*coral_forward)(xkd_backend *be, double *loss, double *gram, void *centred, const xkd_align_sides *a);
    void (*coral_backward)(xkd_backend *be, void *dx, void *dy, const double *gram, const void *centred,
                           const xkd_align_sides *a, double scale);
    /* sum [K] += column sums of x [R,K] */
    void (*column_sum)(xkd_backend *be, void *sum, const void *x, int64_t R, int64_t K);

    /* ---- optimiser and flat vectors ---- */
    double (*sum_squares)(xkd_backend *be, const void *x, int64_t n);
    void (*adamw)(xkd_backend *be, const xkd_adamw_args *args);
    /* t = m * t + (1 - m) * s */
    void (*ema)(xkd_backend *be, void *t, const void *s, double m, int64_t n);
    /* y = a * x + b * y */
    void (*axpby)(xkd_backend *be, void *y, const void *x, double a, double b, int64_t n);
    void (*fill)(xkd_backend *be, void *x, double value, int64_t n);
} xkd_ops;

struct xkd_backend {
    const xkd_ops *ops;
    xkd_context *cx;
    xkd_pool *pool;
    xkd_dtype dtype;
    int64_t size; /* bytes of one element */
    xkd_status status;
    int64_t products; /* multiply-adds executed in matrix products since xkd_backend_new; 1 = 2 FLOP */
    void **scratch;   /* [threads + 1]: per thread, and behind them the shared one */
    int64_t *scratch_bytes;
};

/* Makes the backend "ref" (F32 or F64) or "cpu" (F32) with a pool of `threads`. Free with xkd_backend_free. */
xkd_status xkd_backend_new(xkd_context *cx, xkd_backend **out, const char *name, xkd_dtype dtype, int threads);
void xkd_backend_free(xkd_backend *be);

/* First fault since the last call of this function; clears it. */
xkd_status xkd_backend_status(xkd_backend *be);

/* Memory of at least `bytes` that only `thread` uses until the operation ends. It grows in the first step and then
 * stays (xkd_backend_settle). NULL when out of memory (the backend remembers). Thread-safe for distinct threads. */
void *xkd_backend_scratch(xkd_backend *be, int thread, int64_t bytes);

/* The same for all threads of the running operation together: one block, for what its tasks share. Call it outside of
 * parallel loops. */
void *xkd_backend_shared_scratch(xkd_backend *be, int64_t bytes);

/* Gives every thread as much scratch as the largest has: whoever meets the largest task in the first step is chance,
 * and no later step may allocate. Call it when no operation runs; it does nothing when all are equal. */
void xkd_backend_settle(xkd_backend *be);

/* Address of element `index` of a tensor of the backend's dtype. */
static inline void *xkd_at(const xkd_backend *be, const void *tensor, int64_t index)
{
    return (char *)(uintptr_t)tensor + index * be->size;
}

/* The tables. A table starts as a copy of ref's and overrides what it does better. */
const xkd_ops *xkd_ref_ops(xkd_dtype dtype);
xkd_status xkd_cpu_ops(xkd_context *cx, const xkd_ops **out); /* XKD_CPU may name a level that is not there */

#endif
