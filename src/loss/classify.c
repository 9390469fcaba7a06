#include "loss/classify.h"

#include <math.h>

#include "tensor/params.h"

/* Largest logit of a row, and log sum exp of all of it. */
static double log_sum_exp(xkd_dtype dtype, const void *row, int64_t K)
{
    double most = -INFINITY, sum = 0;
    for (int64_t k = 0; k < K; k++) most = fmax(most, xkd_get(dtype, row, k));
    for (int64_t k = 0; k < K; k++) sum += exp(xkd_get(dtype, row, k) - most);
    return most + log(sum);
}

static double sigmoid(double z)
{
    return z >= 0 ? 1 / (1 + exp(-z)) : exp(z) / (1 + exp(z));
}

static double softmax_row(const xkd_backend *be, void *dz, const void *z, const float *t, int64_t B, int64_t K)
{
    double lse = log_sum_exp(be->dtype, z, K), total = 0, loss = 0;
    for (int64_t k = 0; k < K; k++) total += t[k]; /* 1, but for rounding */
    for (int64_t k = 0; k < K; k++) {
        double value = xkd_get(be->dtype, z, k);
        loss -= t[k] * (value - lse);
        xkd_set(be->dtype, dz, k, (total * exp(value - lse) - t[k]) / (double)B);
    }
    return loss / (double)B;
}

static double sigmoid_row(const xkd_backend *be, void *dz, const void *z, const float *t, int64_t B, int64_t K)
{
    double loss = 0, scale = 1 / ((double)B * (double)K);
    for (int64_t k = 0; k < K; k++) {
        double value = xkd_get(be->dtype, z, k);
        /* max(z,0) - z t + log(1 + exp(-|z|)): no overflow for any z. */
        loss += fmax(value, 0) - value * t[k] + log1p(exp(-fabs(value)));
        xkd_set(be->dtype, dz, k, (sigmoid(value) - t[k]) * scale);
    }
    return loss * scale;
}

void xkd_classify(const xkd_backend *be, xkd_classify_kind kind, double *loss, void *dlogits, const void *logits,
                  const float *targets, int64_t B, int64_t K)
{
    *loss = 0;
    for (int64_t b = 0; b < B; b++) {
        void *dz = xkd_at(be, dlogits, b * K);
        const void *z = xkd_at(be, logits, b * K);
        *loss += kind == XKD_CLASSIFY_SOFTMAX ? softmax_row(be, dz, z, targets + b * K, B, K)
                                              : sigmoid_row(be, dz, z, targets + b * K, B, K);
    }
}

void xkd_classify_scores(const xkd_backend *be, xkd_classify_kind kind, float *scores, const void *logits, int64_t B,
                         int64_t K)
{
    for (int64_t b = 0; b < B; b++) {
        const void *z = xkd_at(be, logits, b * K);
        double lse = kind == XKD_CLASSIFY_SOFTMAX ? log_sum_exp(be->dtype, z, K) : 0;
        for (int64_t k = 0; k < K; k++) {
            double value = xkd_get(be->dtype, z, k);
            scores[b * K + k] = (float)(kind == XKD_CLASSIFY_SOFTMAX ? exp(value - lse) : sigmoid(value));
        }
    }
}
