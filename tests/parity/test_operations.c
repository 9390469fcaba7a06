/* Parity of backends: every operation in float32 and bfloat16 against the reference in float64, over several shapes, with
 * the same inputs. Outputs start as NaN where they are overwritten, and guard values behind every tensor must survive.
 * Each operation also runs with 1, 2, 3, 5 and 8 threads, and gives the same bits. An argument: the tests of this name alone,
 * with * for any letters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "backend/cpu/levels.h"
#include "base/alloc.h"
#include "base/rng.h"
#include "parity.h"
#include "tensor/params.h"

/* Levels with a fused multiply-add agree to the bit, so a cluster may mix them. */
static void levels_agree(void **state)
{
    int count, filled = 0;
    const place *at = *state;
    const xkd_cpu_level *levels = xkd_cpu_levels(&count);
    xkd_ops tables[8], exact[8];
    xkd_backend *be;
    for (int i = 0; i < count; i++) {
        if (!levels[i].present || strcmp(levels[i].name, "v2") == 0) continue;
        if (at->dtype == XKD_BF16 && levels[i].tiles) continue;
        tables[filled] = *xkd_ref_ops(at->dtype);
        exact[filled] = *xkd_ref_ops(XKD_F32);
        levels[i].fill(&exact[filled], XKD_F32);
        levels[i].fill(&tables[filled++], at->dtype);
    }
    if (filled < 2) skip();
    xkd_context *cx = xkd_context_new();
    assert_int_equal(xkd_backend_new(cx, &be, "cpu", at->dtype, 2), XKD_OK);
    EACH_SHAPE (op, d) {
        tensors first, other;
        parity_make(cx, op, d, at->dtype, at->dtype, &first);
        be->ops = &tables[0];
        be->exact = &exact[0];
        parity_run(be, op, &first, d);
        for (int l = 1; l < filled; l++) {
            parity_make(cx, op, d, at->dtype, at->dtype, &other);
            be->ops = &tables[l];
            be->exact = &exact[l];
            parity_run(be, op, &other, d);
            parity_same_bits(op, &first, &other, at->dtype, "between levels");
            parity_release(op, &other);
        }
        parity_release(op, &first);
    }
    xkd_backend_free(be);
    xkd_context_free(cx);
}

int main(int argc, char **argv)
{
    static place ref = {"ref", XKD_F32}, cpu = {"cpu", XKD_F32};
    static place ref_half = {"ref", XKD_BF16}, cpu_half = {"cpu", XKD_BF16};
    const struct CMUnitTest tests[] = {
        {"ref in float32", parity_of_backend, NULL, NULL, &ref},
        {"ref in bfloat16", parity_of_backend, NULL, NULL, &ref_half},
        {"cpu: parity in float32", parity_of_backend, NULL, NULL, &cpu},
        {"cpu: parity in bfloat16", parity_of_backend, NULL, NULL, &cpu_half},
        {"cpu: thread counts in float32", parity_of_thread_counts, NULL, NULL, &cpu},
        {"cpu: thread counts in bfloat16", parity_of_thread_counts, NULL, NULL, &cpu_half},
        {"cpu: special values in float32", parity_of_special_values, NULL, NULL, &cpu},
        {"cpu: special values in bfloat16", parity_of_special_values, NULL, NULL, &cpu_half},
        {"levels agree in float32", levels_agree, NULL, NULL, &cpu},
        {"levels agree in bfloat16", levels_agree, NULL, NULL, &cpu_half},
        {"cpu: rows stand alone in float32", parity_of_rows, NULL, NULL, &cpu},
        {"cpu: rows stand alone in bfloat16", parity_of_rows, NULL, NULL, &cpu_half},
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
