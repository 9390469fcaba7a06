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
    return op->roles[i] == 'd' ? XKD_F64 : dtype;
}

/* Inputs are rounded to float32, so that all dtypes see the same numbers. */
static void make(xkd_context *cx, const operation *op, const int64_t *d, xkd_dtype dtype, tensors *out)
{
    op->sizes(d, out->n);
    for (int i = 0; op->roles[i]; i++) {
        xkd_dtype type = type_of(op, i, dtype);
        xkd_rng rng = xkd_rng_make(SEED, 0, (uint32_t)i, 0, XKD_RNG_TEST);
        bool given = op->roles[i] == 'i' || op->roles[i] == 'a';
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

static void backend_parity(void **state)
{
    const char *name = *state;
    xkd_context *cx = xkd_context_new();
    xkd_backend *truth, *be;
    assert_int_equal(xkd_backend_new(cx, &truth, "ref", XKD_F64, 1), XKD_OK);
    assert_int_equal(xkd_backend_new(cx, &be, name, XKD_F32, 3), XKD_OK);
    int compared = 0;
    for (int o = 0; o < operation_count; o++)
        for (const int64_t *d = operations[o].shapes[0]; d < operations[o].shapes[MOST_SHAPES] && d[0]; d += MOST_DIMS) {
            tensors want, got;
            make(cx, &operations[o], d, XKD_F64, &want);
            make(cx, &operations[o], d, XKD_F32, &got);
            operations[o].run(truth, want.t, d);
            operations[o].run(be, got.t, d);
            assert_int_equal(xkd_backend_status(be), XKD_OK);
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
            op->run(be[0], first.t, d);
            for (int c = 1; c < 5; c++) {
                make(cx, op, d, XKD_F32, &other);
                op->run(be[c], other.t, d);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"ref in float32", backend_parity, NULL, NULL, "ref"},
        {"cpu", backend_parity, NULL, NULL, "cpu"},
        cmocka_unit_test(thread_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
