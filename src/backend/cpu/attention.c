/* Attention of one (sequence, head) at a time, its queries in blocks whose scores stay in the second-level cache.
 * Scores are recomputed in the backward from the saved log-sum-exp (Dao et al., FlashAttention, 2022). */
#include <math.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/simd.h"

/* 128 queries x 561 keys (a global audio view) x 4 bytes are 290 KB, twice that with the gradients of the
 * backward: within the second-level cache of current server processors, and tall enough that the products
 * run near their full rate. */
enum { QUERIES_A_BLOCK = 128 };

typedef struct {
    xkd_backend *be;
    float *o, *lse, *dqkv;                        /* outputs */
    const float *qkv, *d_o, *saved_o, *saved_lse; /* inputs; saved_*: outputs of the forward */
    const xkd_segments *segs;                     /* how the R rows divide into sequences */
    int64_t H, D;
} attention;

/* The sequence and head of a task. Tasks count heads of all sequences of all segments. */
typedef struct {
    int64_t row, N, head, d; /* first row, tokens, head number, width of a head */
    float scale;             /* 1 / sqrt(d) */
} slice;

/* Finds the task's rows. The walk over segments is as long as there are views, a handful, and needs no table. */
static slice slice_of(const attention *a, int64_t index)
{
    int64_t row = 0, s = 0, sequence = index / a->H;
    for (; sequence >= a->segs->items[s].batch; s++) {
        sequence -= a->segs->items[s].batch;
        row += a->segs->items[s].batch * a->segs->items[s].tokens;
    }
    int64_t N = a->segs->items[s].tokens, d = a->D / a->H;
    return (slice){row + sequence * N, N, index % a->H, d, 1 / sqrtf((float)d)};
}

/* Rows are padded so that each starts on a vector boundary. */
static int64_t padded(int64_t n)
{
    return (n + LANES - 1) / LANES * LANES;
}

/* s [n] = exp(scale * s - shift), with 0 in the padding; returns the sum. */
static float exponentials(float *s, int64_t n, float scale, float shift)
{
    vf sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf e = v_exp(v_load(s + i) * scale - shift);
        v_store(s + i, e);
        sum += e;
    }
    if (i < n) {
        vf e = v_exp(v_load_part(s + i, n - i) * scale - shift);
        v_store_part(s + i, e, n - i);
        sum += v_load_part(s + i, n - i);
    }
    return v_sum(sum);
}

/* Largest of a row. Only the whole vectors go through lanes, because the padding would have to hold -inf
 * otherwise. */
static float largest_of(const float *s, int64_t n)
{
    vf largest = v_set(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) largest = v_max(largest, v_load(s + i));
    float result = v_largest(largest);
    for (; i < n; i++) result = s[i] > result ? s[i] : result;
    return result;
}

/* One head of one sequence: S = Q K^T, P = exp(scale S - max), O = P V / sum. The sum divides the d outputs
 * of a query at the end and not its N probabilities, which is N/d times less work. */
static void forward_head(void *arg, int64_t index, int thread)
{
    const attention *a = arg;
    slice s = slice_of(a, index);
    int64_t D = a->D, ld = padded(s.N);
    const float *q = a->qkv + s.row * 3 * D + s.head * s.d, *k = q + D, *v = k + D;
    float *scores = xkd_backend_scratch(a->be, thread, QUERIES_A_BLOCK * ld * (int64_t)sizeof(float));
    if (!scores) return;
    for (int64_t first = 0; first < s.N; first += QUERIES_A_BLOCK) {
        int64_t rows = s.N - first < QUERIES_A_BLOCK ? s.N - first : QUERIES_A_BLOCK;
        float *o = a->o + (s.row + first) * D + s.head * s.d, inverse[QUERIES_A_BLOCK];
        xkd_gemm qk = {.transpose_b = true,
                       .M = rows,
                       .N = s.N,
                       .K = s.d,
                       .alpha = 1,
                       .a = q + first * 3 * D,
                       .lda = 3 * D,
                       .b = k,
                       .ldb = 3 * D,
                       .c = scores,
                       .ldc = ld};
        run_gemm(a->be, &qk);
        for (int64_t r = 0; r < rows; r++) {
            /* softmax is taken relative to the largest score: exp never overflows, and the sum is at least 1,
             * so that the logarithm and the quotient are safe. */
            float shift = s.scale * largest_of(scores + r * ld, s.N);
            float sum = exponentials(scores + r * ld, s.N, s.scale, shift);
            a->lse[(s.row + first + r) * a->H + s.head] = shift + logf(sum);
            inverse[r] = 1 / sum;
        }
        xkd_gemm pv = {
            .M = rows, .N = s.d, .K = s.N, .alpha = 1, .a = scores, .lda = ld, .b = v, .ldb = 3 * D, .c = o, .ldc = D};
        run_gemm(a->be, &pv);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < s.d; c++) o[r * D + c] *= inverse[r];
    }
}

/* ds = scale * p * (dp - along) for a row of n. */
static void score_gradient(float *dp, const float *p, int64_t n, float along, float scale)
{
    for (int64_t i = 0; i < n; i++) dp[i] = scale * p[i] * (dp[i] - along);
}

/* p and ds [rows,N] of one block of queries.
 * P comes from the scores and the saved log-sum-exp; dS from dP = dO V^T by the softmax rule, with `along` =
 * dO . O in place of sum_j P_j dP_j, to which it is equal. */
static void block_gradients(const attention *a, const slice *s, int64_t first, int64_t rows, float *p, float *ds)
{
    int64_t D = a->D, ld = padded(s->N);
    const float *q = a->qkv + (s->row + first) * 3 * D + s->head * s->d;
    const float *k = a->qkv + s->row * 3 * D + D + s->head * s->d;
    const float *d_o = a->d_o + (s->row + first) * D + s->head * s->d;
    const float *o = a->saved_o + (s->row + first) * D + s->head * s->d;
    xkd_gemm qk = {.transpose_b = true,
                   .M = rows,
                   .N = s->N,
                   .K = s->d,
                   .alpha = 1,
                   .a = q,
                   .lda = 3 * D,
                   .b = k,
                   .ldb = 3 * D,
                   .c = p,
                   .ldc = ld};
    run_gemm(a->be, &qk);
    xkd_gemm dov = {.transpose_b = true,
                    .M = rows,
                    .N = s->N,
                    .K = s->d,
                    .alpha = 1,
                    .a = d_o,
                    .lda = D,
                    .b = k + D,
                    .ldb = 3 * D,
                    .c = ds,
                    .ldc = ld};
    run_gemm(a->be, &dov);
    for (int64_t r = 0; r < rows; r++) {
        exponentials(p + r * ld, s->N, s->scale, a->saved_lse[(s->row + first + r) * a->H + s->head]);
        score_gradient(ds + r * ld, p + r * ld, s->N, v_dot(d_o + r * D, o + r * D, s->d), s->scale);
    }
}

/* dQ = dS K, dK = dS^T Q, dV = P^T dO. A task owns one head of one sequence, so nobody else writes its
 * columns of dqkv and no two threads ever add to one value. */
static void backward_head(void *arg, int64_t index, int thread)
{
    const attention *a = arg;
    slice s = slice_of(a, index);
    int64_t D = a->D, ld = padded(s.N);
    const float *q = a->qkv + s.row * 3 * D + s.head * s.d, *k = q + D;
    const float *d_o = a->d_o + s.row * D + s.head * s.d;
    float *dq = a->dqkv + s.row * 3 * D + s.head * s.d, *dk = dq + D, *dv = dk + D;
    float *p = xkd_backend_scratch(a->be, thread, 2 * QUERIES_A_BLOCK * ld * (int64_t)sizeof(float));
    if (!p) return;
    float *ds = p + QUERIES_A_BLOCK * ld;
    for (int64_t first = 0; first < s.N; first += QUERIES_A_BLOCK) {
        int64_t rows = s.N - first < QUERIES_A_BLOCK ? s.N - first : QUERIES_A_BLOCK;
        float beta = first ? 1 : 0; /* later blocks of queries add to dk and dv */
        block_gradients(a, &s, first, rows, p, ds);
        xkd_gemm gq = {.M = rows,
                       .N = s.d,
                       .K = s.N,
                       .alpha = 1,
                       .a = ds,
                       .lda = ld,
                       .b = k,
                       .ldb = 3 * D,
                       .c = dq + first * 3 * D,
                       .ldc = 3 * D};
        run_gemm(a->be, &gq);
        xkd_gemm gk = {.transpose_a = true,
                       .M = s.N,
                       .N = s.d,
                       .K = rows,
                       .alpha = 1,
                       .beta = beta,
                       .a = ds,
                       .lda = ld,
                       .b = q + first * 3 * D,
                       .ldb = 3 * D,
                       .c = dk,
                       .ldc = 3 * D};
        run_gemm(a->be, &gk);
        xkd_gemm gv = {.transpose_a = true,
                       .M = s.N,
                       .N = s.d,
                       .K = rows,
                       .alpha = 1,
                       .beta = beta,
                       .a = p,
                       .lda = ld,
                       .b = d_o + first * D,
                       .ldb = D,
                       .c = dv,
                       .ldc = 3 * D};
        run_gemm(a->be, &gv);
    }
}

/* Tasks, and the account of multiply-adds for `per_pair` products over all pairs of tokens. */
static int64_t account(xkd_backend *be, const attention *a, int64_t per_pair)
{
    int64_t sequences = 0;
    for (int64_t s = 0; s < a->segs->count; s++) {
        const xkd_segment *item = &a->segs->items[s];
        be->products += per_pair * item->batch * item->tokens * item->tokens * a->D;
        sequences += item->batch;
    }
    return sequences * a->H;
}

static void attention_forward(xkd_backend *be, void *o, void *lse, const void *qkv, const xkd_segments *segs, int64_t H,
                              int64_t D)
{
    attention a = {.be = be, .o = o, .lse = lse, .qkv = qkv, .segs = segs, .H = H, .D = D};
    /* Two products over pairs: Q K^T and P V. */
    xkd_parallel_for(be->pool, account(be, &a, 2), forward_head, &a);
}

static void attention_backward(xkd_backend *be, void *dqkv, const void *d_o, const void *qkv, const void *o,
                               const void *lse, const xkd_segments *segs, int64_t H, int64_t D)
{
    attention a = {
        .be = be, .dqkv = dqkv, .qkv = qkv, .d_o = d_o, .saved_o = o, .saved_lse = lse, .segs = segs, .H = H, .D = D};
    /* Five: the scores again, dP, dQ, dK, dV. */
    xkd_parallel_for(be->pool, account(be, &a, 5), backward_head, &a);
}

/* The probe is not overridden: with a class token it is one query row, too small to matter. */
void xkd_cpu_attention_ops(xkd_ops *ops)
{
    ops->attention_forward = attention_forward;
    ops->attention_backward = attention_backward;
}
