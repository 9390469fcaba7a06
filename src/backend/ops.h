/* One table of operations and their contract. A backend fills the table; the model above is written once.
 *
 * Conventions
 * - Order of arguments: outputs, inputs, saved values, sizes. Row-major tensors, shape in comments.
 * - Every pointer to numbers lies in the backend's memory (base/memory.h), also indices, scalars and factors; the host must
 *   not read it. Structs of arguments and the arrays in them that are called lists are the host's, and are read before the
 *   call returns.
 * - `void *` tensors hold stored elements (F32, F64 or BF16), or exact ones where it says `exact` (F32 beside BF16, else
 *   the same type). An operation under the heading "exact" has exact tensors alone and is called through backend->exact, as
 *   are others where all tensors of the call are exact: the head's last layer, targets, classifiers.
 * - Indices are int32_t, losses and other scalars double, clips, targets, factors and scores float.
 * - "=" overwrites an output, "+=" accumulates into it; the same in every backend. Where nothing is said it is "=".
 * - Operations do not return a status: the first fault is kept in the backend (xkd_backend_status) and later
 *   operations may do nothing. Callers look once a step.
 * - A result never depends on the number of threads.
 * - Numbers that change from step to step stand in the backend's memory, so that a step that a device keeps as a whole
 *   (xkd_backend_repeat) finds each step's own. What comes by value is the same in every step. */
#ifndef XKD_BACKEND_OPS_H
#define XKD_BACKEND_OPS_H

#include <stdbool.h>

#include "base/status.h"
#include "media/augment.h"
#include "tensor/dtype.h"

typedef struct xkd_backend xkd_backend;

/* Sequences packed one behind the other: segment s is batch[s] sequences of tokens[s] tokens. A list. */
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
 * or dy. dw, db [D] exact, += (or both NULL). x [R,D], mean, rstd [R] as in the forward; w [D] exact or NULL. */
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
    double divisor; /* of the loss: the number of groups whose losses it averages */
} xkd_align_sides;

/* Teacher-student cross entropy; row r of s belongs to sample r % B. */
typedef struct {
    const void *s;      /* [R,K] student logits */
    const void *t;      /* [B,K] teacher logits */
    const void *centre; /* [K] */
    const double *student_temp, *teacher_temp;
    int64_t R, B, K;
} xkd_kd_args;

/* Refinement of one teacher's features; method.md section 5. */
typedef struct {
    const void *features;   /* [B,tokens,D] after encoder_norm */
    const void *self_attn;  /* [B,H,N] exact: class-token attention of this teacher */
    const void *other_attn; /* [B,H,M] exact: of the other one */
    int64_t B, tokens, D, H, N, M;
    bool softmax; /* attn_mode */
} xkd_refine_args;

/* One AdamW step on one tensor and the moving averages that follow it; method.md section 7. Of a list, entries with
 * a gradient are updated first, in any order or at once, and then those without. */
typedef struct {
    void *p, *m, *v; /* [n] parameter and moments, updated where there is a gradient */
    const void *g;   /* [n] gradient; NULL: only the averages follow p */
    void *ema[2];    /* teachers that average this tensor, in order; NULL: none. May be the same twice (MATS) */
    const double *ema_momentum[2];
    /* Working copies [n] in bfloat16 of p and of the averages, written with them; NULL: none. */
    void *stored, *ema_stored[2];
    int64_t n;
    double clip;     /* largest norm of the gradient, 0: any. A larger one is scaled by clip / (norm + 1e-6) */
    double lr_scale; /* of this tensor */
    const double *lr, *weight_decay; /* the latter NULL: none */
    double beta1, beta2, eps;
    double
        *steps; /* updates of this tensor so far, for the bias corrections 1 - beta^steps; this one is counted first */
} xkd_adamw_args;

/* A tensor of n elements in a list of several. */
typedef struct {
    const void *x;
    int64_t n;
} xkd_vector;

/* Batch norm over B rows of width D; torch.nn.BatchNorm1d. */
typedef struct {
    const void *x, *w, *b; /* [B,D], [D], [D] */
    double *mean, *inv;    /* [D] of the batch: mean, 1 / sqrt(biased variance + eps); saved by the forward */
    double *running[2];    /* [D] running mean and unbiased variance, moved on by `momentum` */
    double eps, momentum;
    int64_t B, D;
} xkd_batchnorm_args;

/* What a classifier's logits mean. */
typedef enum {
    XKD_CLASSIFY_SOFTMAX, /* one class a clip: loss is the mean over B of -sum_k t log softmax(z) */
    XKD_CLASSIFY_SIGMOID  /* several: mean over B and K of binary cross entropy */
} xkd_classify_kind;

/* Views of a batch of clips that came as they were decoded; method.md section 2. Places in the changes count from `from`. */
typedef struct {
    const void *from;
    const xkd_video_change *change; /* [B], 8-bit boxes behind `from` */
    int64_t B, T, H, W;
    int64_t box_height, box_width; /* of the largest boxes that there may be */
} xkd_video_view_args;

typedef struct {
    const void *from;
    const xkd_audio_change *change; /* [B], 16-bit samples behind `from`: shape.samples of each */
    const xkd_mel_tables *tables;   /* a list, and so are its arrays */
    int64_t B;
    xkd_spec_shape shape;
    int64_t canvas_height, canvas_width; /* of the largest canvas that there may be */
} xkd_audio_view_args;

typedef struct {
    const char *name;

    /* ---- views; pictures to the bit of media/augment.h wherever they are made, spectrograms within 1e-3 ---- */
    /* clip [B,3,T,H,W] float: box, resize, flip, colours, grey, blur, normalise */
    void (*video_view)(xkd_backend *be, float *clip, const xkd_video_view_args *args);
    /* spec [B,1,F,columns] float: gain, log-mel, normalise, warp, box */
    void (*audio_view)(xkd_backend *be, float *spec, const xkd_audio_view_args *args);

    /* ---- matrix products; w is [N,K] as PyTorch stores a Linear, b [N] or NULL ---- */
    /* y [M,N] = x [M,K] w^T + b */
    void (*linear_forward)(xkd_backend *be, void *y, const void *x, const void *w, const void *b, int64_t M, int64_t N,
                           int64_t K);
    /* h [M,N] = x w^T + b, y [M,N] = gelu(h); y may be h, which is then not kept */
    void (*linear_gelu_forward)(xkd_backend *be, void *y, void *h, const void *x, const void *w, const void *b,
                                int64_t M, int64_t N, int64_t K);
    /* y [M,N] exact = residual [M,N] exact + x w^T + b exact; y may be residual */
    void (*linear_residual_forward)(xkd_backend *be, void *y, const void *residual, const void *x, const void *w,
                                    const void *b, int64_t M, int64_t N, int64_t K);
    /* dx [M,K] = dy [M,N] w */
    void (*linear_backward_data)(xkd_backend *be, void *dx, const void *dy, const void *w, int64_t M, int64_t N,
                                 int64_t K);
    /* Behind y = gelu(h) w^T: dh [M,K] = (dy [M,N] w) * gelu'(h), a [M,K] = gelu(h); a may be h */
    void (*linear_gelu_backward_data)(xkd_backend *be, void *dh, void *a, const void *dy, const void *w, const void *h,
                                      int64_t M, int64_t N, int64_t K);
    /* dw [N,K] exact += dy [M,N]^T x [M,K], db [N] exact += column sums of dy; db may be NULL */
    void (*linear_backward_weight)(xkd_backend *be, void *dw, void *db, const void *dy, const void *x, int64_t M,
                                   int64_t N, int64_t K);

    /* ---- normalisation and activation ---- */
    /* y [R,D] = (x - mean) * rstd * w + b, rstd = 1 / sqrt(var + 1e-5); mean, rstd [R] exact, saved; w, b [D] exact, or both
     * NULL */
    void (*layernorm_forward)(xkd_backend *be, void *y, void *mean, void *rstd, const void *x, const void *w,
                              const void *b, int64_t R, int64_t D);
    /* The same of x [R,D] exact; kept [R,D] = x, for a backward. kept NULL: nobody wants it, x: it is there already */
    void (*residual_layernorm_forward)(xkd_backend *be, void *y, void *kept, void *mean, void *rstd, const void *x,
                                       const void *w, const void *b, int64_t R, int64_t D);
    void (*layernorm_backward)(xkd_backend *be, const xkd_layernorm_grad *args);
    /* y [n] = x * Phi(x), the exact (erf) GELU; dx [n] = dy * (Phi(x) + x * phi(x)), dx may be dy */
    void (*gelu_forward)(xkd_backend *be, void *y, const void *x, int64_t n);
    void (*gelu_backward)(xkd_backend *be, void *dx, const void *dy, const void *x, int64_t n);
    /* y [R,D] exact = x / max(|x|, 1e-12), inv [R] exact, saved */
    void (*l2norm_forward)(xkd_backend *be, void *y, void *inv, const void *x, int64_t R, int64_t D);
    /* dx [R,D] = inv * (dy - y (y . dy)), all but dx exact; dx may be dy where it is too */
    void (*l2norm_backward)(xkd_backend *be, void *dx, const void *dy, const void *y, const void *inv, int64_t R,
                            int64_t D);

    /* ---- attention; qkv [R,3D] as q|k|v, each H heads of D/H ---- */
    /* o [R,D] = softmax(q k^T / sqrt(D/H)) v within each sequence; lse [R,H] exact = log-sum-exp of the scaled scores */
    void (*attention_forward)(xkd_backend *be, void *o, void *lse, const void *qkv, const xkd_segments *segs, int64_t H,
                              int64_t D);
    /* dqkv [R,3D] = from do [R,D] */
    void (*attention_backward)(xkd_backend *be, void *dqkv, const void *d_o, const void *qkv, const void *o,
                               const void *lse, const xkd_segments *segs, int64_t H, int64_t D);
    /* w [B,H,N] exact: softmaxed attention of the class token to the N = tokens-1 patches (class column dropped, not
     * renormalised); without class token the mean over queries, N = tokens. method.md section 5 */
    void (*attention_probe)(xkd_backend *be, void *w, const void *qkv, const void *lse, int64_t B, int64_t tokens,
                            int64_t H, int64_t D, bool cls);

    /* ---- tokens ---- */
    /* out [B,M,P]: patches keep[b][i] of the clip [B,C,T,H,W] (always float); keep [B,M], NULL: all. Inside a patch
     * (t,h,w,c), c fastest; token (t*nh + h)*nw + w. method.md section 3 */
    void (*patchify)(xkd_backend *be, void *out, const float *clip, const int32_t *keep, int64_t M,
                     const xkd_patch_geometry *g);
    /* x [B,M+c,D] exact: row 0 = cls + pos[0] if c = 1; others = e [B,M,D] + pos[c + keep[b][i]]; cls [D] exact, NULL:
     * c = 0; pos exact */
    void (*add_positions)(xkd_backend *be, void *x, const void *e, const void *cls, const void *pos,
                          const int32_t *keep, int64_t B, int64_t M, int64_t D);
    /* de [B,M,D] =, dcls [D] exact += (NULL: c = 0), dpos exact += */
    void (*add_positions_backward)(xkd_backend *be, void *de, void *dcls, void *dpos, const void *dx,
                                   const int32_t *keep, int64_t B, int64_t M, int64_t D);
    /* x [B,N+c,D] exact = pos [N+c,D] exact + (z [B,M+c,D] row of the kept token, mask_token [D] exact elsewhere);
     * method.md section 4 */
    void (*unmask_forward)(xkd_backend *be, void *x, const void *z, const void *mask_token, const void *pos,
                           const xkd_unmask_args *args);
    /* dz =, dmask [D] exact +=, dpos [N+c,D] exact += */
    void (*unmask_backward)(xkd_backend *be, void *dz, void *dmask, void *dpos, const void *dx,
                            const xkd_unmask_args *args);
    /* out [n,D] = in [rows,D] exact at rows index[n] */
    void (*gather_rows)(xkd_backend *be, void *out, const void *in, const int32_t *index, int64_t n, int64_t D);
    /* din [rows,D] = 0 but for dout [n,D] at the rows index[n], which are distinct */
    void (*scatter_rows)(xkd_backend *be, void *din, const void *dout, const int32_t *index, int64_t n, int64_t rows,
                         int64_t D);
    /* out [rows_out,D] = S in [rows_in,D], or with `accumulate` += : interpolated positions. Its backward is the same
     * with S transposed. */
    void (*sparse_rows)(xkd_backend *be, void *out, const void *in, const xkd_sparse_rows *s, int64_t D,
                        bool accumulate);
    /* y [B,D] exact = mean over tokens [first, last) of x [B,tokens,D]; one token is copied as it is */
    void (*pool_forward)(xkd_backend *be, void *y, const void *x, int64_t B, int64_t tokens, int64_t D, int64_t first,
                         int64_t last);
    /* dx += dy / (last - first) on those tokens; dy exact */
    void (*pool_backward)(xkd_backend *be, void *dx, const void *dy, int64_t B, int64_t tokens, int64_t D,
                          int64_t first, int64_t last);
    /* y [R,D] = x, every sequence times its factor [sequences]; y may be x */
    void (*scale_sequences)(xkd_backend *be, void *y, const void *x, const float *factor, const xkd_segments *segs,
                            int64_t D);
    /* y [R,D] exact += x + b [D] exact, every sequence times its factor [sequences] */
    void (*add_sequences)(xkd_backend *be, void *y, const void *x, const void *b, const float *factor,
                          const xkd_segments *segs, int64_t D);
    /* y [B,D] exact: mean over patches of the refined features; never forms the N x M product. method.md section 5 */
    void (*refine_pool)(xkd_backend *be, void *y, const xkd_refine_args *args);

    /* ---- flat vectors ---- */
    /* *loss = mean (pred - target)^2; target exact */
    void (*mse_forward)(xkd_backend *be, double *loss, const void *pred, const void *target, int64_t n);
    /* dpred [n] = scale * 2 (pred - target) / n; dpred may be pred; target exact */
    void (*mse_backward)(xkd_backend *be, void *dpred, const void *pred, const void *target, double scale, int64_t n);
    /* y = a * x + b * y */
    void (*axpby)(xkd_backend *be, void *y, const void *x, double a, double b, int64_t n);
    void (*fill)(xkd_backend *be, void *x, double value, int64_t n);

    /* ---- exact: the head's last layer and losses; each forward leaves what its backward needs ---- */
    /* w [K,D] = g [K] * v [K,D] / |v row|, inv [K] = 1 / |v row| saved */
    void (*weightnorm_forward)(xkd_backend *be, void *w, void *inv, const void *v, const void *g, int64_t K, int64_t D);
    /* dv [K,D] += g * inv * (dw - n (n . dw)), n = v * inv */
    void (*weightnorm_backward)(xkd_backend *be, void *dv, const void *dw, const void *v, const void *g,
                                const void *inv, int64_t K, int64_t D);
    /* x [R,P] = (x - mean) / sqrt(unbiased variance + 1e-6), in place: norm_pix_loss */
    void (*patch_normalize)(xkd_backend *be, void *x, int64_t R, int64_t P);
    /* *loss = mean over rows of -sum q log softmax(s / ts), q = softmax((t - centre) / tt); s_lse [R], t_lse [B];
     * *entropy = mean entropy of q */
    void (*kd_forward)(xkd_backend *be, double *loss, double *entropy, void *s_lse, void *t_lse, const xkd_kd_args *a);
    /* ds [R,K] += scale * gradient */
    void (*kd_backward)(xkd_backend *be, void *ds, const xkd_kd_args *a, const void *s_lse, const void *t_lse,
                        double scale);
    /* *loss += MMD of method.md section 6 / divisor; weights [n,n] doubles saved, n = (views_x + views_y) * samples */
    void (*mmd_forward)(xkd_backend *be, double *loss, double *weights, const xkd_align_sides *a);
    /* dx, dy += scale * gradient */
    void (*mmd_backward)(xkd_backend *be, void *dx, void *dy, const double *weights, const xkd_align_sides *a,
                         double scale);
    /* CORAL, *loss += likewise; saved: gram [n,n] doubles, and centred [n,K] rows */
    void (*coral_forward)(xkd_backend *be, double *loss, double *gram, void *centred, const xkd_align_sides *a);
    void (*coral_backward)(xkd_backend *be, void *dx, void *dy, const double *gram, const void *centred,
                           const xkd_align_sides *a, double scale);
    /* sum [K] += column sums of x [R,K] */
    void (*column_sum)(xkd_backend *be, void *sum, const void *x, int64_t R, int64_t K);
    /* energy[0] = sum over k and b of (x - mean_k)^2, mean_k over b; energy[1] = sum of x^2; x [B,K] */
    void (*column_energy)(xkd_backend *be, double *energy, const void *x, int64_t B, int64_t K);

    /* ---- exact: classifiers; method.md section 10 ---- */
    /* y [B,D] = (x - mean) inv w + b with the batch's statistics, and the running ones move on */
    void (*batchnorm_forward)(xkd_backend *be, void *y, const xkd_batchnorm_args *args);
    /* dx [B,D] from dy; dw, db [D] +=; dx may be dy */
    void (*batchnorm_backward)(xkd_backend *be, void *dx, void *dw, void *db, const void *dy,
                               const xkd_batchnorm_args *args);
    /* y [B,D] = x with the statistics of `running`; mean and inv are not used */
    void (*batchnorm_apply)(xkd_backend *be, void *y, const xkd_batchnorm_args *args);
    /* *loss, and dlogits [B,K] its gradient for targets [B,K]; dlogits may be logits */
    void (*classify)(xkd_backend *be, double *loss, void *dlogits, const void *logits, const float *targets,
                     xkd_classify_kind kind, int64_t B, int64_t K);
    /* scores [B,K]: softmax of each row, or the sigmoid of each element */
    void (*classify_scores)(xkd_backend *be, float *scores, const void *logits, xkd_classify_kind kind, int64_t B,
                            int64_t K);

    /* ---- exact: optimiser ---- */
    /* squares[i] = sum of squares of list[i] for all count tensors; *finite = 1 if they and all of scalars [n] are finite,
     * else 0 */
    void (*norms)(xkd_backend *be, double *squares, double *finite, const xkd_vector *list, int64_t count,
                  const double *scalars, int64_t n);
    /* All of list[count], with the rate lr_scale * lr; squares[i] is the sum of squares of list[i].g, read where that is clipped (NULL: nowhere); nothing
     * where *finite is 0 */
    void (*adamw)(xkd_backend *be, const xkd_adamw_args *list, int64_t count, const double *squares,
                  const double *finite);
    /* centre [K] = m centre + (1 - m) sum / rows; nothing where *finite is 0 */
    void (*centre)(xkd_backend *be, void *centre, const void *sum, double m, int64_t rows, int64_t K,
                   const double *finite);
    /* y [n] = x * factor; y may be x */
    void (*multiply)(xkd_backend *be, void *y, const void *x, const float *factor, int64_t n);
    /* Between the exact type and double, [n] each */
    void (*to_double)(xkd_backend *be, double *y, const void *x, int64_t n);
    void (*from_double)(xkd_backend *be, void *y, const double *x, int64_t n);
} xkd_ops;

#endif
