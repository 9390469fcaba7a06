/* What stands behind an encoder that is a classifier. */
#include "loss.h"

/* ---- batch norm: one column a thread, in double ---- */

struct batchnorm {
    const float *x, *w, *b;
    double *mean, *inv, *running_mean, *running_var;
    double eps, momentum;
    int64_t B, D;
};

__device__ inline void normalize_column(const batchnorm &a, float *y, int64_t d, double mean, double inv)
{
    for (int64_t i = d; i < a.B * a.D; i += a.D)
        y[i] = (float)(((double)a.x[i] - mean) * inv * (double)a.w[d] + (double)a.b[d]);
}

/* The biased variance normalises, the unbiased one is kept. */
struct batchnorm_column {
    batchnorm a;
    float *y;
    __device__ void operator()(int64_t d) const
    {
        double n = (double)a.B, mean = 0, var = 0;
        for (int64_t i = d; i < a.B * a.D; i += a.D) mean += (double)a.x[i] / n;
        for (int64_t i = d; i < a.B * a.D; i += a.D) var += ((double)a.x[i] - mean) * ((double)a.x[i] - mean) / n;
        double inv = 1 / sqrt(var + a.eps);
        a.mean[d] = mean;
        a.inv[d] = inv;
        normalize_column(a, y, d, mean, inv);
        a.running_mean[d] += a.momentum * (mean - a.running_mean[d]);
        a.running_var[d] += a.momentum * (var * n / (n - 1) - a.running_var[d]);
    }
};

struct batchnorm_kept {
    batchnorm a;
    float *y;
    __device__ void operator()(int64_t d) const
    {
        normalize_column(a, y, d, a.running_mean[d], 1 / sqrt(a.running_var[d] + a.eps));
    }
};

/* dx = inv w (dy - mean(dy) - n mean(dy n)), n the normalised input. */
struct batchnorm_gradient {
    batchnorm a;
    float *dx, *dw, *db;
    const float *dy;
    __device__ void operator()(int64_t d) const
    {
        double count = (double)a.B, mean = a.mean[d], inv = a.inv[d], dot = 0, sum = 0;
        for (int64_t i = d; i < a.B * a.D; i += a.D) {
            dot += (double)dy[i] * ((double)a.x[i] - mean) * inv;
            sum += (double)dy[i];
        }
        dw[d] = (float)((double)dw[d] + dot);
        db[d] = (float)((double)db[d] + sum);
        for (int64_t i = d; i < a.B * a.D; i += a.D) {
            double n = ((double)a.x[i] - mean) * inv;
            dx[i] = (float)(inv * (double)a.w[d] * ((double)dy[i] - sum / count - n * dot / count));
        }
    }
};

static batchnorm arguments(const xkd_batchnorm_args *a)
{
    return {(const float *)a->x,
            (const float *)a->w,
            (const float *)a->b,
            a->mean,
            a->inv,
            a->running[0],
            a->running[1],
            a->eps,
            a->momentum,
            a->B,
            a->D};
}

static void batchnorm_forward(xkd_backend *be, void *y, const xkd_batchnorm_args *a)
{
    if (!cuda_begin(be, __func__, 2 * a->B * a->D * (int64_t)sizeof(float), 7 * a->B * a->D)) return;
    cuda_each(be, __func__, batchnorm_column{arguments(a), (float *)y}, a->D);
}

static void batchnorm_apply(xkd_backend *be, void *y, const xkd_batchnorm_args *a)
{
    if (!cuda_begin(be, __func__, 2 * a->B * a->D * (int64_t)sizeof(float), 3 * a->B * a->D)) return;
    cuda_each(be, __func__, batchnorm_kept{arguments(a), (float *)y}, a->D);
}

static void batchnorm_backward(xkd_backend *be, void *dx, void *dw, void *db, const void *dy,
                               const xkd_batchnorm_args *a)
{
    if (!cuda_begin(be, __func__, 3 * a->B * a->D * (int64_t)sizeof(float), 9 * a->B * a->D)) return;
    cuda_each(be, __func__, batchnorm_gradient{arguments(a), (float *)dx, (float *)dw, (float *)db, (const float *)dy},
              a->D);
}

/* ---- losses and scores: one row a block ---- */

__device__ inline double sigmoid(double z)
{
    return z >= 0 ? 1 / (1 + exp(-z)) : exp(z) / (1 + exp(z));
}

struct classifier {
    const float *z, *t; /* logits, targets [B,K] */
    float *dz;          /* may be z */
    double *row_loss;   /* [B] */
    int64_t B, K;
    bool softmax;
};

__device__ inline float row_log_sum(const float *z, int64_t K, log_sum *room)
{
    log_sum all = log_sum_empty();
    for (int64_t k = threadIdx.x; k < K; k += THREADS) log_sum_add(&all, {z[k], 1});
    return log_sum_value(block_log_sum(all, room));
}

/* A thread reads its logits before it writes their gradients, and nobody else's after the log-sum-exp is known. */
__global__ void classify_rows(classifier a)
{
    SHARED(log_sum, room); /* [WARPS], and a double a warp */
    double *sums = (double *)(room + WARPS), total = 0, loss = 0;
    const int64_t first = (int64_t)blockIdx.x * a.K;
    float lse = a.softmax ? row_log_sum(a.z + first, a.K, room) : 0;
    for (int64_t k = threadIdx.x; k < a.K; k += THREADS) total += (double)a.t[first + k];
    total = block_sum(total, sums); /* 1, but for rounding */
    for (int64_t k = threadIdx.x; k < a.K; k += THREADS) {
        double z = (double)a.z[first + k], t = (double)a.t[first + k];
        if (a.softmax) {
            loss -= t * (z - (double)lse);
            a.dz[first + k] = (float)((total * exp(z - (double)lse) - t) / (double)a.B);
        } else {
            /* max(z,0) - z t + log(1 + exp(-|z|)): no overflow for any z. fmax drops a NaN, z t does not. */
            loss += fmax(z, 0.0) - z * t + log1p(exp(-fabs(z)));
            if (isnan(z)) loss = z;
            a.dz[first + k] = (float)((sigmoid(z) - t) / ((double)a.B * (double)a.K));
        }
    }
    loss = block_sum(loss, sums);
    if (threadIdx.x == 0) a.row_loss[blockIdx.x] = loss / (a.softmax ? (double)a.B : (double)a.B * (double)a.K);
}

static void classify(xkd_backend *be, double *loss, void *dlogits, const void *logits, const float *targets,
                     xkd_classify_kind kind, int64_t B, int64_t K)
{
    if (!cuda_begin(be, __func__, 3 * B * K * (int64_t)sizeof(float), 8 * B * K)) return;
    double *rows = (double *)cuda_scratch(be, B * (int64_t)sizeof(double));
    if (!rows) return;
    classifier a = {(const float *)logits, targets, (float *)dlogits, rows, B, K, kind == XKD_CLASSIFY_SOFTMAX};
    LAUNCH(be, classify_rows, (unsigned)B, THREADS, WARPS * (sizeof(log_sum) + sizeof(double)), a);
    sum_rows(be, __func__, loss, rows, B, 1, false);
}

__global__ void score_rows(float *scores, const float *logits, bool softmax, int64_t K)
{
    SHARED(log_sum, room); /* [WARPS] */
    const float *z = logits + (int64_t)blockIdx.x * K;
    float lse = softmax ? row_log_sum(z, K, room) : 0;
    for (int64_t k = threadIdx.x; k < K; k += THREADS)
        scores[(int64_t)blockIdx.x * K + k] = softmax ? expf(z[k] - lse) : (float)sigmoid((double)z[k]);
}

static void classify_scores(xkd_backend *be, float *scores, const void *logits, xkd_classify_kind kind, int64_t B,
                            int64_t K)
{
    if (!cuda_begin(be, __func__, 2 * B * K * (int64_t)sizeof(float), 4 * B * K)) return;
    LAUNCH(be, score_rows, (unsigned)B, THREADS, WARPS * sizeof(log_sum), scores, (const float *)logits,
           kind == XKD_CLASSIFY_SOFTMAX, K);
}

void cuda_fill_classify(xkd_ops *ops)
{
    ops->batchnorm_forward = batchnorm_forward;
    ops->batchnorm_apply = batchnorm_apply;
    ops->batchnorm_backward = batchnorm_backward;
    ops->classify = classify;
    ops->classify_scores = classify_scores;
}
