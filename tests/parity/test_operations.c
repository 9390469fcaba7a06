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

static void thread_counts(void **state)
{
    static const int counts[] = {1, 2, 3, 5, 8};
    const place *at = *state;
    xkd_context *cx = xkd_context_new();
    xkd_backend *be[5];
    for (int c = 0; c < 5; c++) assert_int_equal(xkd_backend_new(cx, &be[c], "cpu", at->dtype, counts[c]), XKD_OK);
    for (int o = 0; o < operation_count; o++)
        for (const int64_t *d = operations[o].shapes[0]; d < operations[o].shapes[MOST_SHAPES] && d[0]; d += MOST_DIMS) {
            const operation *op = &operations[o];
            tensors first, other;
            parity_make(cx, op, d, at->dtype, at->dtype, &first);
            parity_run(be[0], op, &first, d);
            for (int c = 1; c < 5; c++) {
                parity_make(cx, op, d, at->dtype, at->dtype, &other);
                parity_run(be[c], op, &other, d);
                parity_same_bits(op, &first, &other, at->dtype, "between one and more threads");
                parity_release(op, &other);
            }
            parity_release(op, &first);
        }
    for (int c = 0; c < 5; c++) xkd_backend_free(be[c]);
    xkd_context_free(cx);
}

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
    for (int o = 0; o < operation_count; o++)
        for (const int64_t *d = operations[o].shapes[0]; d < operations[o].shapes[MOST_SHAPES] && d[0]; d += MOST_DIMS) {
            const operation *op = &operations[o];
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

/* The bits of a row do not depend on the rows beside it: the first rows of a product, a norm or an attention are those of
 * the same rows alone. */
static void rows_stand_alone(void **state)
{
    enum { M = 333, N = 100, K = 500 };
    static const int64_t few[] = {1, 2, 7, 20, 200};
    const place *at = *state;
    size_t size = (size_t)xkd_dtype_size(at->dtype);
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    char *t[6]; /* x, w, b, all, some, h: M x K is the largest */
    assert_int_equal(xkd_backend_new(cx, &be, "cpu", at->dtype, 3), XKD_OK);
    for (int i = 0; i < 6; i++) assert_int_equal(xkd_alloc(cx, &t[i], M * K, size), XKD_OK);
    char *x = t[0], *w = t[1], *b = t[2], *all = t[3], *some = t[4], *h = t[5];
    xkd_rng rng = xkd_rng_make(XKD_PARITY_SEED, 0, 0, 0, XKD_RNG_TEST);
    for (int i = 0; i < M * K; i++) xkd_set(at->dtype, x, i, xkd_rng_normal(&rng));
    for (int i = 0; i < N * K; i++) xkd_set(at->dtype, w, i, xkd_rng_normal(&rng));
    for (size_t f = 0; f < sizeof few / sizeof *few; f++) {
        be->ops->linear_gelu_forward(be, all, h, x, w, b, M, N, K);
        be->ops->linear_gelu_forward(be, some, h, x, w, b, few[f], N, K);
        assert_memory_equal(all, some, (size_t)(few[f] * N) * size);
        be->ops->linear_backward_data(be, all, x, w, M, N, K); /* x as [M,N] */
        be->ops->linear_backward_data(be, some, x, w, few[f], N, K);
        assert_memory_equal(all, some, (size_t)(few[f] * K) * size);
    }
    /* 27 tokens of 2 heads of 18: the second of two sequences, and alone. */
    xkd_segment two = {2, 27}, one = {1, 27};
    xkd_segments both = {1, &two, 54}, alone = {1, &one, 27};
    be->ops->attention_forward(be, all, h, x, &both, 2, 36);
    be->ops->attention_forward(be, some, h, x + 27 * 108 * size, &alone, 2, 36);
    assert_memory_equal(all + 27 * 36 * size, some, 27 * 36 * size);
    for (int i = 0; i < 6; i++) xkd_free(t[i]);
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
        {"cpu: thread counts in float32", thread_counts, NULL, NULL, &cpu},
        {"cpu: thread counts in bfloat16", thread_counts, NULL, NULL, &cpu_half},
        {"cpu: special values in float32", parity_of_special_values, NULL, NULL, &cpu},
        {"cpu: special values in bfloat16", parity_of_special_values, NULL, NULL, &cpu_half},
        {"levels agree in float32", levels_agree, NULL, NULL, &cpu},
        {"levels agree in bfloat16", levels_agree, NULL, NULL, &cpu_half},
        {"cpu: rows stand alone in float32", rows_stand_alone, NULL, NULL, &cpu},
        {"cpu: rows stand alone in bfloat16", rows_stand_alone, NULL, NULL, &cpu_half},
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
