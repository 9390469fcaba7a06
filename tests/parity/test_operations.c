/* Parity of backends: every operation on float32 backends against the reference in float64, over several shapes, with
 * the same inputs. Outputs start as NaN where they are overwritten, and guard values behind every tensor must survive.
 * The last test runs each operation with 1, 2, 3, 5 and 8 threads and wants the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "backend/cpu/levels.h"
#include "base/alloc.h"
#include "base/rng.h"
#include "operations.h"
#include "tensor/params.h"

enum { GUARDS = 16, SEED = 20260301 };
static const double GUARD = 12345.0;

typedef struct {
    void *t[MOST_TENSORS];
    int64_t n[MOST_TENSORS];
} tensors;

static xkd_dtype type_of(const operation *op, int i, xkd_dtype dtype)
{
    return op->roles[i] == 'd' || op->roles[i] == 'e' ? XKD_F64 : dtype;
}

/* Inputs are rounded to float32, so that all dtypes see the same numbers. */
static void make(xkd_context *cx, const operation *op, const int64_t *d, xkd_dtype dtype, tensors *out)
{
    op->sizes(d, out->n);
    for (int i = 0; op->roles[i]; i++) {
        xkd_dtype type = type_of(op, i, dtype);
        xkd_rng rng = xkd_rng_make(SEED, 0, (uint32_t)i, 0, XKD_RNG_TEST);
        bool given = op->roles[i] == 'i' || op->roles[i] == 'a' || op->roles[i] == 'e';
        assert_int_equal(xkd_alloc(cx, &out->t[i], out->n[i] + GUARDS, (size_t)xkd_dtype_size(type)), XKD_OK);
        for (int64_t k = 0; k < out->n[i]; k++)
            xkd_set(type, out->t[i], k, given ? (double)(float)xkd_rng_normal(&rng) : NAN);
        for (int64_t k = 0; k < GUARDS; k++) xkd_set(type, out->t[i], out->n[i] + k, GUARD);
    }
}

static void release(const operation *op, tensors *t)
{
    for (int i = 0; op->roles[i]; i++) xkd_free(t->t[i]);
}

/* Runs an operation on the tensors, in the backend's memory. */
static void run(xkd_backend *be, const operation *op, tensors *t, const int64_t *d)
{
    void *there[MOST_TENSORS];
    for (int i = 0; op->roles[i]; i++) {
        int64_t bytes = (t->n[i] + GUARDS) * xkd_dtype_size(type_of(op, i, be->dtype));
        there[i] = t->t[i];
        if (xkd_memory_is_host(be->memory)) continue;
        assert_int_equal(xkd_memory_take(be->cx, be->memory, &there[i], bytes), XKD_OK);
        xkd_memory_upload(be->memory, there[i], t->t[i], bytes);
    }
    op->run(be, there, d);
    for (int i = 0; op->roles[i] && !xkd_memory_is_host(be->memory); i++) {
        int64_t bytes = (t->n[i] + GUARDS) * xkd_dtype_size(type_of(op, i, be->dtype));
        xkd_memory_download(be->memory, t->t[i], there[i], bytes);
        xkd_memory_give(be->memory, there[i]);
    }
    operations_give_back(be);
    if (xkd_backend_status(be) != XKD_OK) fail_msg("%s: %s", op->name, xkd_last_error(be->cx));
}

/* Rounding of a sum of n terms grows as sqrt(n) for random signs; 8 covers what is not random. */
static double tolerance(const operation *op, const int64_t *d)
{
    return 8 * FLT_EPSILON * (op->condition > 0 ? op->condition : 1) * sqrt((double)op->reduction(d));
}

static void compare(const operation *op, const int64_t *d, const tensors *truth, const tensors *got, const char *backend)
{
    for (int i = 0; op->roles[i]; i++) {
        xkd_dtype type = type_of(op, i, XKD_F32), wide = type_of(op, i, XKD_F64);
        double largest = 0, error = 0;
        for (int64_t k = 0; k < GUARDS; k++)
            if (xkd_get(type, got->t[i], got->n[i] + k) != GUARD)
                fail_msg("%s on %s, seed %d: writes behind tensor %d", op->name, backend, SEED, i);
        for (int64_t k = 0; k < truth->n[i]; k++) {
            double want = xkd_get(wide, truth->t[i], k), have = xkd_get(type, got->t[i], k);
            largest = fmax(largest, fabs(want));
            if (!isfinite(want) || !isfinite(have)) error = INFINITY;
            error = fmax(error, fabs(want - have));
        }
        if (!(error <= tolerance(op, d) * fmax(largest, 1e-3)))
            fail_msg("%s on %s, seed %d, shape %lld %lld %lld %lld, tensor %d: off by %g of %g, %g allowed", op->name,
                     backend, SEED, (long long)d[0], (long long)d[1], (long long)d[2], (long long)d[3], i, error,
                     largest, tolerance(op, d) * largest);
    }
}

/* NULL: the device is not here, which is said; the test is skipped. */
static xkd_backend *open_device(xkd_context *cx, const char *name, int threads)
{
    xkd_backend *be = NULL;
    xkd_status status = xkd_backend_new(cx, &be, name, XKD_F32, threads);
    if (status == XKD_ERR_DEVICE) print_message("# %s\n", xkd_last_error(cx));
    if (status != XKD_ERR_DEVICE) assert_int_equal(status, XKD_OK);
    return be;
}

static void backend_parity(void **state)
{
    const char *name = *state;
    xkd_context *cx = xkd_context_new();
    xkd_backend *truth, *be = open_device(cx, name, 3);
    if (!be) {
        xkd_context_free(cx);
        skip();
    }
    assert_int_equal(xkd_backend_new(cx, &truth, "ref", XKD_F64, 1), XKD_OK);
    int compared = 0;
    for (int o = 0; o < operation_count; o++)
        for (const int64_t *d = operations[o].shapes[0]; d < operations[o].shapes[MOST_SHAPES] && d[0]; d += MOST_DIMS) {
            tensors want, got;
            make(cx, &operations[o], d, XKD_F64, &want);
            make(cx, &operations[o], d, XKD_F32, &got);
            run(truth, &operations[o], &want, d);
            run(be, &operations[o], &got, d);
            compare(&operations[o], d, &want, &got, name);
            release(&operations[o], &want);
            release(&operations[o], &got);
            compared++;
        }
    assert_true(compared > 150);
    xkd_backend_free(be);
    xkd_backend_free(truth);
    xkd_context_free(cx);
}

static void thread_counts(void **state)
{
    static const int counts[] = {1, 2, 3, 5, 8};
    xkd_context *cx = xkd_context_new();
    xkd_backend *be[5];
    (void)state;
    for (int c = 0; c < 5; c++) assert_int_equal(xkd_backend_new(cx, &be[c], "cpu", XKD_F32, counts[c]), XKD_OK);
    for (int o = 0; o < operation_count; o++)
        for (const int64_t *d = operations[o].shapes[0]; d < operations[o].shapes[MOST_SHAPES] && d[0]; d += MOST_DIMS) {
            const operation *op = &operations[o];
            tensors first, other;
            make(cx, op, d, XKD_F32, &first);
            run(be[0], op, &first, d);
            for (int c = 1; c < 5; c++) {
                make(cx, op, d, XKD_F32, &other);
                run(be[c], op, &other, d);
                for (int i = 0; op->roles[i]; i++)
                    if (memcmp(first.t[i], other.t[i], (size_t)(first.n[i] * xkd_dtype_size(type_of(op, i, XKD_F32)))))
                        fail_msg("%s: tensor %d differs between 1 and %d threads", op->name, i, counts[c]);
                release(op, &other);
            }
            release(op, &first);
        }
    for (int c = 0; c < 5; c++) xkd_backend_free(be[c]);
    xkd_context_free(cx);
}

/* What is put into an input, at one place: the outputs must be NaN, infinite or finite where the reference's are. */
static const struct {
    const char *name;
    double value;
} specials[] = {{"NaN", NAN}, {"infinity", INFINITY}, {"-infinity", -INFINITY}, {"a denormal", 1e-41}, {"3e4", 3e4}};

static void same_kind(const operation *op, const int64_t *d, const tensors *truth, const tensors *got, int input, int s)
{
    for (int i = 0; op->roles[i]; i++) {
        xkd_dtype type = type_of(op, i, XKD_F32);
        double largest = 0, error = 0;
        for (int64_t k = 0; k < truth->n[i]; k++) {
            double want = xkd_get(type, truth->t[i], k), have = xkd_get(type, got->t[i], k);
            if (isnan(want) != isnan(have) || isinf(want) != isinf(have) || (isinf(want) && want != have))
                fail_msg("%s with %s in tensor %d, shape %lld %lld %lld %lld: tensor %d[%lld] is %g, the reference's %g",
                         op->name, specials[s].name, input, (long long)d[0], (long long)d[1], (long long)d[2],
                         (long long)d[3], i, (long long)k, have, want);
            if (!isfinite(want)) continue;
            largest = fmax(largest, fabs(want));
            error = fmax(error, fabs(want - have));
        }
        /* Twice the usual bound: both sides round here. Huge scores are rounded to more than a softmax bears: finite is
         * all that is asked. */
        if (specials[s].value == 3e4) continue;
        if (!(error <= 2 * tolerance(op, d) * fmax(largest, 1e-3)))
            fail_msg("%s with %s in tensor %d, shape %lld %lld %lld %lld: tensor %d off by %g of %g", op->name,
                     specials[s].name, input, (long long)d[0], (long long)d[1], (long long)d[2], (long long)d[3], i, error,
                     largest);
    }
}

static void special_values(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_backend *truth, *be = open_device(cx, *state, 2);
    int compared = 0;
    if (!be) {
        xkd_context_free(cx);
        skip();
    }
    assert_int_equal(xkd_backend_new(cx, &truth, "ref", XKD_F32, 1), XKD_OK);
    for (int o = 0; o < operation_count; o++)
        for (int shape = 1; shape < 3 && operations[o].shapes[shape][0]; shape++)
            for (int input = 0; operations[o].roles[input]; input++)
                for (int s = 0; s < (int)(sizeof specials / sizeof *specials); s++) {
                    const operation *op = &operations[o];
                    const int64_t *d = op->shapes[shape];
                    tensors want, got;
                    if (op->roles[input] != 'i') continue;
                    make(cx, op, d, XKD_F32, &want);
                    make(cx, op, d, XKD_F32, &got);
                    int64_t at = want.n[input] / 2;
                    xkd_set(XKD_F32, want.t[input], at, specials[s].value);
                    xkd_set(XKD_F32, got.t[input], at, specials[s].value);
                    run(truth, op, &want, d);
                    run(be, op, &got, d);
                    same_kind(op, d, &want, &got, input, s);
                    release(op, &want);
                    release(op, &got);
                    compared++;
                }
    assert_true(compared > 500);
    xkd_backend_free(be);
    xkd_backend_free(truth);
    xkd_context_free(cx);
}

/* Levels with a fused multiply-add agree to the bit, so a cluster may mix them. */
static void levels_agree(void **state)
{
    int count, filled = 0;
    const xkd_cpu_level *levels = xkd_cpu_levels(&count);
    xkd_ops tables[4];
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    (void)state;
    for (int i = 0; i < count; i++) {
        if (!levels[i].present || strcmp(levels[i].name, "v2") == 0) continue;
        tables[filled] = *xkd_ref_ops(XKD_F32);
        levels[i].fill(&tables[filled++]);
    }
    if (filled < 2) skip();
    assert_int_equal(xkd_backend_new(cx, &be, "cpu", XKD_F32, 2), XKD_OK);
    for (int o = 0; o < operation_count; o++)
        for (const int64_t *d = operations[o].shapes[0]; d < operations[o].shapes[MOST_SHAPES] && d[0]; d += MOST_DIMS) {
            const operation *op = &operations[o];
            tensors first, other;
            make(cx, op, d, XKD_F32, &first);
            be->ops = &tables[0];
            run(be, op, &first, d);
            for (int l = 1; l < filled; l++) {
                make(cx, op, d, XKD_F32, &other);
                be->ops = &tables[l];
                run(be, op, &other, d);
                for (int i = 0; op->roles[i]; i++)
                    if (memcmp(first.t[i], other.t[i], (size_t)(first.n[i] * xkd_dtype_size(type_of(op, i, XKD_F32)))))
                        fail_msg("%s, shape %lld %lld %lld %lld: tensor %d differs between levels", op->name,
                                 (long long)d[0], (long long)d[1], (long long)d[2], (long long)d[3], i);
                release(op, &other);
            }
            release(op, &first);
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
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    float *x, *w, *b, *all, *some, *h;
    (void)state;
    assert_int_equal(xkd_backend_new(cx, &be, "cpu", XKD_F32, 3), XKD_OK);
    assert_int_equal(xkd_alloc(cx, &x, M * K, sizeof *x), XKD_OK);
    assert_int_equal(xkd_alloc(cx, &w, N * K, sizeof *w), XKD_OK);
    assert_int_equal(xkd_alloc(cx, &b, N, sizeof *b), XKD_OK);
    assert_int_equal(xkd_alloc(cx, &all, M * K, sizeof *all), XKD_OK);
    assert_int_equal(xkd_alloc(cx, &some, M * K, sizeof *some), XKD_OK);
    assert_int_equal(xkd_alloc(cx, &h, M * K, sizeof *h), XKD_OK);
    xkd_rng rng = xkd_rng_make(SEED, 0, 0, 0, XKD_RNG_TEST);
    for (int i = 0; i < M * K; i++) x[i] = (float)xkd_rng_normal(&rng);
    for (int i = 0; i < N * K; i++) w[i] = (float)xkd_rng_normal(&rng);
    for (size_t f = 0; f < sizeof few / sizeof *few; f++) {
        be->ops->linear_gelu_forward(be, all, h, x, w, b, M, N, K);
        be->ops->linear_gelu_forward(be, some, h, x, w, b, few[f], N, K);
        assert_memory_equal(all, some, (size_t)(few[f] * N) * sizeof *all);
        be->ops->linear_backward_data(be, all, x, w, M, N, K); /* x as [M,N] */
        be->ops->linear_backward_data(be, some, x, w, few[f], N, K);
        assert_memory_equal(all, some, (size_t)(few[f] * K) * sizeof *all);
    }
    /* 27 tokens of 2 heads of 18: the second of two sequences, and alone. */
    xkd_segment two = {2, 27}, one = {1, 27};
    xkd_segments both = {1, &two, 54}, alone = {1, &one, 27};
    be->ops->attention_forward(be, all, h, x, &both, 2, 36);
    be->ops->attention_forward(be, some, h, x + 27 * 108, &alone, 2, 36);
    assert_memory_equal(all + 27 * 36, some, 27 * 36 * sizeof *all);
    xkd_free(x);
    xkd_free(w);
    xkd_free(b);
    xkd_free(all);
    xkd_free(some);
    xkd_free(h);
    xkd_backend_free(be);
    xkd_context_free(cx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"ref in float32", backend_parity, NULL, NULL, "ref"},
        {"cpu", backend_parity, NULL, NULL, "cpu"},
        {"cuda on a simulation", backend_parity, NULL, NULL, "cuda-sim"},
        {"cuda on a GPU", backend_parity, NULL, NULL, "cuda"},
        cmocka_unit_test(thread_counts),
        {"special values on cpu", special_values, NULL, NULL, "cpu"},
        {"special values of cuda on a simulation", special_values, NULL, NULL, "cuda-sim"},
        {"special values of cuda on a GPU", special_values, NULL, NULL, "cuda"},
        cmocka_unit_test(levels_agree),
        cmocka_unit_test(rows_stand_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
