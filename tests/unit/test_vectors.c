/* The vector functions under GELU, softmax and attention at every level that this machine has, over their whole range,
 * against libm in double; and the bits of all operations between levels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "backend/cpu/levels.h"
#include "vectors/vectors.h"

#if defined(__x86_64__)
vector_report report_vectors_v2(void);
vector_report report_vectors_v3(void);
vector_report report_vectors_v4(void);
static vector_report (*const reports[])(void) = {report_vectors_v2, report_vectors_v3, report_vectors_v4};
#else
vector_report report_vectors_neon(void);
static vector_report (*const reports[])(void) = {report_vectors_neon};
#endif

static void vectors(void **state)
{
    int count, at = (int)(intptr_t)*state;
    const xkd_cpu_level *level = xkd_cpu_levels(&count) + at;
    if (!level->present) skip();
    vector_report r = reports[at]();
    print_message("%s: exp %.3g; Phi %.3g, in the tail %.3g relative; phi %.3g\n", level->name, r.exp_error,
                  r.cdf_error, r.tail_error, r.density_error);
    /* 1 ulp is 1.2e-7. v2 rounds products and sums one by one. */
    bool fused = strcmp(level->name, "v2") != 0;
    assert_true(r.exp_error < (fused ? 1.3e-7 : 2e-7));
    assert_true(r.exp_ends && r.gelu_ends && r.nan_wins && r.parts && r.sums);
    /* At t near 0 the tail is 0.5 and carries the roundings of a quotient, ten polynomial steps and a product. */
    assert_true(r.cdf_error < (fused ? 1.5e-7 : 1.8e-7) && r.density_error < 6e-8);
    /* x^2 / 2 is rounded to 2^-24 of up to 40, which exp turns into a relative error. */
    assert_true(r.tail_error < 5e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#if defined(__x86_64__)
        {"vectors of v2", vectors, NULL, NULL, (void *)0},
        {"vectors of v3", vectors, NULL, NULL, (void *)1},
        {"vectors of v4", vectors, NULL, NULL, (void *)2},
#else
        {"vectors of neon", vectors, NULL, NULL, (void *)0},
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
