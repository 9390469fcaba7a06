/* Compiled once for each level, as the kernels are. */
#include "vectors.h"

#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vector.h"

vector_report LEVEL(report_vectors)(void);

static double exp_error(void)
{
    double worst = 0;
    for (int i = 0; i < 1000000; i += W) {
        float x[W], y[W];
        for (int k = 0; k < W; k++) x[k] = (float)(-87 + 87.0 * (i + k) / 1e6);
        vec_store(y, vec_exp_negative(vec_load(x)));
        for (int k = 0; k < W; k++) worst = fmax(worst, fabs((double)y[k] / exp((double)x[k]) - 1));
    }
    return worst;
}

static float exp_of(float x)
{
    float y[W];
    vec_store(y, vec_exp_negative(vec_set(x)));
    return y[0];
}

static float gelu_of(float x)
{
    float y[W];
    vec_store(y, vec_gelu(vec_set(x)));
    return y[0];
}

/* Relative in the lower tail too, where x * (1 + erf) would lose everything. */
static void normal_errors(vector_report *r)
{
    for (int i = 0; i < 1000000; i += W) {
        float x[W], cdf[W], pdf[W];
        vec a, b;
        for (int k = 0; k < W; k++) x[k] = (float)(-9 + 18.0 * (i + k) / 1e6);
        vec_normal(vec_load(x), &a, &b);
        vec_store(cdf, a);
        vec_store(pdf, b);
        for (int k = 0; k < W; k++) {
            double v = (double)x[k], want = 0.5 * erfc(-v * M_SQRT1_2), density = exp(-v * v / 2) / sqrt(2 * M_PI);
            r->cdf_error = fmax(r->cdf_error, fabs((double)cdf[k] - want));
            r->density_error = fmax(r->density_error, fabs((double)pdf[k] - density));
            if (v < 0) r->tail_error = fmax(r->tail_error, fabs((double)cdf[k] / want - 1));
        }
    }
}

static bool parts_hold(void)
{
    float x[2 * W], y[2 * W];
    bool good = true;
    for (int i = 0; i < 2 * W; i++) x[i] = (float)i + 1;
    for (int n = 0; n <= W + 1; n++) {
        int count = n < W ? n : W;
        for (int i = 0; i < 2 * W; i++) y[i] = -1;
        vec v = vec_load_part(x, n);
        float all[W];
        vec_store(all, v);
        vec_store_part(y, v, n);
        for (int i = 0; i < W; i++) good &= all[i] == (i < count ? x[i] : 0);
        for (int i = 0; i < 2 * W; i++) good &= y[i] == (i < count ? x[i] : -1);
    }
    return good;
}

static bool sums_hold(void)
{
    float x[3 * LANES];
    bool good = true;
    for (int i = 0; i < 3 * LANES; i++) x[i] = (float)i + 1;
    for (int n = 0; n < 3 * LANES; n++) {
        double want = 0;
        for (int i = 0; i < n; i++) want += (double)x[i] * x[i];
        good &= (double)vec_dot(x, x, n) == want; /* small integers: exact */
    }
    lanes_d d = lanes_d_zero();
    for (int v = 0; v < VECS_D; v++) d.v[v] = vecd_widen(x + v * WD);
    return good && lanes_d_sum(d) == LANES_D * (LANES_D + 1) / 2.0;
}

vector_report LEVEL(report_vectors)(void)
{
    vector_report r = {.exp_error = exp_error(), .parts = parts_hold(), .sums = sums_hold()};
    float largest[W];
    normal_errors(&r);
    r.exp_ends = exp_of(-88.5f) == 0 && exp_of(-1000) == 0 && exp_of(-INFINITY) == 0 && exp_of(0) == 1 &&
                 isnan(exp_of(NAN)) && isnan(exp_of(-NAN));
    r.gelu_ends = gelu_of(INFINITY) == INFINITY && isnan(gelu_of(-INFINITY)) && isnan(gelu_of(NAN)) &&
                  gelu_of(-1e30f) == 0 && gelu_of(1e30f) == 1e30f && gelu_of(1e-40f) > 0;
    r.nan_wins = true;
    vec_store(largest, vec_max(vec_set(NAN), vec_set(1)));
    for (int i = 0; i < W; i++) r.nan_wins &= isnan(largest[i]);
    vec_store(largest, vec_max(vec_set(1), vec_set(NAN)));
    for (int i = 0; i < W; i++) r.nan_wins &= isnan(largest[i]);
    vec_store(largest, vec_max(vec_set(-INFINITY), vec_set(-1)));
    for (int i = 0; i < W; i++) r.nan_wins &= largest[i] == -1;
    return r;
}
