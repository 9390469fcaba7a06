/* The vector functions under GELU, softmax and attention, over their whole range, against libm in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <cmocka.h>

#include "backend/cpu/simd.h"

/* Largest relative error of v_exp over [low, high]. */
static double worst_exp(double low, double high)
{
    double worst = 0;
    for (int i = 0; i < 1000000; i += LANES) {
        float x[LANES], y[LANES];
        for (int k = 0; k < LANES; k++) x[k] = (float)(low + (high - low) * (i + k) / 1e6);
        v_store(y, v_exp(v_load(x)));
        for (int k = 0; k < LANES; k++) worst = fmax(worst, fabs((double)y[k] / exp((double)x[k]) - 1));
    }
    return worst;
}

static void exponential(void **state)
{
    (void)state;
    double near_zero = worst_exp(-1, 1), whole = worst_exp(-87, 88);
    print_message("exp: relative error %.3g near 0, %.3g over its range\n", near_zero, whole);
    assert_true(near_zero < 1.3e-7 && whole < 1.6e-7); /* 1 ulp is 1.2e-7 */
    float x[LANES] = {-1000, -88, -INFINITY, 0, 100}, y[LANES];
    v_store(y, v_exp(v_load(x)));
    assert_true(y[0] == 0 && y[1] == 0 && y[2] == 0 && y[3] == 1 && isfinite(y[4]));
}

/* Phi and phi, and GELU with them; relative in the lower tail too, where x * (1 + erf) would lose everything. */
static void normal_distribution(void **state)
{
    double worst = 0, worst_density = 0, worst_tail = 0;
    (void)state;
    for (int i = 0; i < 1000000; i += LANES) {
        float x[LANES], cdf[LANES], pdf[LANES];
        vf a, b;
        for (int k = 0; k < LANES; k++) x[k] = (float)(-9 + 18.0 * (i + k) / 1e6);
        v_normal(v_load(x), &a, &b);
        v_store(cdf, a);
        v_store(pdf, b);
        for (int k = 0; k < LANES; k++) {
            double v = (double)x[k], want = 0.5 * erfc(-v * M_SQRT1_2), density = exp(-v * v / 2) / sqrt(2 * M_PI);
            worst = fmax(worst, fabs((double)cdf[k] - want));
            worst_density = fmax(worst_density, fabs((double)pdf[k] - density));
            if (v < 0) worst_tail = fmax(worst_tail, fabs((double)cdf[k] / want - 1));
        }
    }
    print_message("Phi: error %.3g, in the tail %.3g relative; phi %.3g\n", worst, worst_tail, worst_density);
    /* At t near 0 the tail is 0.5 and carries the roundings of a quotient, ten polynomial steps and a product. */
    assert_true(worst < 1.5e-7 && worst_density < 6e-8);
    /* x^2 / 2 is rounded to 2^-24 of up to 40, which exp turns into a relative error. */
    assert_true(worst_tail < 5e-6);
}

static void parts_of_vectors(void **state)
{
    float x[2 * LANES], y[2 * LANES];
    (void)state;
    for (int i = 0; i < 2 * LANES; i++) x[i] = (float)i + 1;
    for (int n = 0; n < LANES; n++) {
        for (int i = 0; i < 2 * LANES; i++) y[i] = -1;
        vf v = v_load_part(x, n);
        assert_true(v_sum(v) == (float)(n * (n + 1) / 2));
        v_store_part(y, v, n);
        for (int i = 0; i < LANES; i++) assert_true(y[i] == (i < n ? x[i] : -1));
        assert_true(v_dot(x, x, LANES + n) > 0);
    }
    assert_true(v_largest(v_load(x)) == LANES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponential),
        cmocka_unit_test(normal_distribution),
        cmocka_unit_test(parts_of_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
