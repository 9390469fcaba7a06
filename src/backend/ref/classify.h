/* Template: what stands behind an encoder that is a classifier, in plain C: B x D and B x K numbers a step. */
#ifndef STORED
#error "included by ref_f32.c, ref_f64.c and ref_bf16.c"
#endif

/* y = (x - mean) inv w + b in column d. */
static void NAME(batchnorm_column)(EXACT *y, const xkd_batchnorm_args *a, int64_t d, double mean, double inv)
{
    double w = (double)((const EXACT *)a->w)[d], bias = (double)((const EXACT *)a->b)[d];
    for (int64_t i = d; i < a->B * a->D; i += a->D)
        y[i] = (EXACT)(((double)((const EXACT *)a->x)[i] - mean) * inv * w + bias);
}

/* The biased variance normalises, the unbiased one is kept, as in PyTorch. */
static void NAME(batchnorm_forward)(xkd_backend *be, void *y, const xkd_batchnorm_args *a)
{
    const EXACT *x = a->x;
    double n = (double)a->B;
    (void)be;
    for (int64_t d = 0; d < a->D; d++) {
        double mean = 0, var = 0;
        for (int64_t b = 0; b < a->B; b++) mean += (double)x[b * a->D + d] / n;
        for (int64_t b = 0; b < a->B; b++) {
            double off = (double)x[b * a->D + d] - mean;
            var += off * off / n;
        }
        a->mean[d] = mean;
        a->inv[d] = 1 / sqrt(var + a->eps);
        NAME(batchnorm_column)(y, a, d, mean, a->inv[d]);
        a->running[0][d] += a->momentum * (mean - a->running[0][d]);
        a->running[1][d] += a->momentum * (var * n / (n - 1) - a->running[1][d]);
    }
}

static void NAME(batchnorm_apply)(xkd_backend *be, void *y, const xkd_batchnorm_args *a)
{
    (void)be;
    for (int64_t d = 0; d < a->D; d++)
        NAME(batchnorm_column)(y, a, d, a->running[0][d], 1 / sqrt(a->running[1][d] + a->eps));
}

/* dw += sum dy n, db += sum dy, dx = inv w (dy - mean(dy) - n mean(dy n)), n the normalised input. An element of dy is
 * read before its place in dx is written. */
static void NAME(batchnorm_backward)(xkd_backend *be, void *dx, void *dw, void *db, const void *dy,
                                     const xkd_batchnorm_args *a)
{
    const EXACT *x = a->x, *g = dy;
    double count = (double)a->B;
    (void)be;
    for (int64_t d = 0; d < a->D; d++) {
        double mean = a->mean[d], inv = a->inv[d], dot = 0, sum = 0, w = (double)((const EXACT *)a->w)[d];
        EXACT *weight = (EXACT *)dw + d, *bias = (EXACT *)db + d;
        for (int64_t i = d; i < a->B * a->D; i += a->D) {
            dot += (double)g[i] * ((double)x[i] - mean) * inv;
            sum += (double)g[i];
        }
        *weight = (EXACT)((double)*weight + dot);
        *bias = (EXACT)((double)*bias + sum);
        for (int64_t i = d; i < a->B * a->D; i += a->D) {
            double n = ((double)x[i] - mean) * inv;
            ((EXACT *)dx)[i] = (EXACT)(inv * w * ((double)g[i] - sum / count - n * dot / count));
        }
    }
}

static double NAME(sigmoid)(double z)
{
    return z >= 0 ? 1 / (1 + exp(-z)) : exp(z) / (1 + exp(z));
}

static double NAME(softmax_row)(EXACT *dz, const EXACT *z, const float *t, int64_t B, int64_t K)
{
    double lse = NAME(log_sum_exp)(z, NULL, 1, K), total = 0, loss = 0;
    for (int64_t k = 0; k < K; k++) total += (double)t[k]; /* 1, but for rounding */
    for (int64_t k = 0; k < K; k++) {
        double value = (double)z[k];
        loss -= (double)t[k] * (value - lse);
        dz[k] = (EXACT)((total * exp(value - lse) - (double)t[k]) / (double)B);
    }
    return loss / (double)B;
}

static double NAME(sigmoid_row)(EXACT *dz, const EXACT *z, const float *t, int64_t B, int64_t K)
{
    double loss = 0, scale = 1 / ((double)B * (double)K);
    for (int64_t k = 0; k < K; k++) {
        double value = (double)z[k];
        /* max(z,0) - z t + log(1 + exp(-|z|)): no overflow for any z. */
        loss += fmax(value, 0) - value * (double)t[k] + log1p(exp(-fabs(value)));
        dz[k] = (EXACT)((NAME(sigmoid)(value) - (double)t[k]) * scale);
    }
    /* fmax drops a NaN. */
    for (int64_t k = 0; k < K; k++)
        if (isnan(z[k])) loss = NAN;
    return loss * scale;
}

static void NAME(classify)(xkd_backend *be, double *loss, void *dlogits, const void *logits, const float *targets,
                           xkd_classify_kind kind, int64_t B, int64_t K)
{
    (void)be;
    *loss = 0;
    for (int64_t b = 0; b < B; b++) {
        EXACT *dz = (EXACT *)dlogits + b * K;
        const EXACT *z = (const EXACT *)logits + b * K;
        *loss += kind == XKD_CLASSIFY_SOFTMAX ? NAME(softmax_row)(dz, z, targets + b * K, B, K)
                                              : NAME(sigmoid_row)(dz, z, targets + b * K, B, K);
    }
}

static void NAME(classify_scores)(xkd_backend *be, float *scores, const void *logits, xkd_classify_kind kind, int64_t B,
                                  int64_t K)
{
    (void)be;
    for (int64_t b = 0; b < B; b++) {
        const EXACT *z = (const EXACT *)logits + b * K;
        double lse = kind == XKD_CLASSIFY_SOFTMAX ? NAME(log_sum_exp)(z, NULL, 1, K) : 0;
        for (int64_t k = 0; k < K; k++)
            scores[b * K + k] =
                (float)(kind == XKD_CLASSIFY_SOFTMAX ? exp((double)z[k] - lse) : NAME(sigmoid)((double)z[k]));
    }
}
