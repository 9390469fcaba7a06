/* Parity of backends: every operation in float32 and bfloat16 against the reference in float64, over several shapes, with
 * the same inputs. Outputs start as NaN where they are overwritten, and guard values behind every tensor must survive.
 * Each operation also runs with 1, 2, 3, 5 and 8 threads, and gives the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "backend/cpu/levels.h"
#include "base/alloc.h"
#include "base/rng.h"
#include "operations.h"
#include "tensor/bfloat16.h"
#include "tensor/params.h"

enum { GUARDS = 16, SEED = 20260301 };
static const double GUARD = 12352.0; /* a bfloat16 too */

typedef struct {
    void *t[MOST_TENSORS];
    int64_t n[MOST_TENSORS];
} tensors;

/* What a tensor is, in small letters. */
static int role_of(const operation *op, int i)
{
    return tolower(op->roles[i]);
}

/* Of a tensor in a run whose stored type is `dtype`. */
static xkd_dtype type_of(const operation *op, int i, xkd_dtype dtype)
{
    if (role_of(op, i) == 'd' || role_of(op, i) == 'e') return XKD_F64;
    return isupper(op->roles[i]) ? xkd_exact_dtype(dtype) : dtype;
}

/* Inputs are rounded to the types of a run in `rounding`, so that runs in all types see the same numbers. */
static void make(xkd_context *cx, const operation *op, const int64_t *d, xkd_dtype dtype, xkd_dtype rounding,
                 tensors *out)
{
    op->sizes(d, out->n);
    for (int i = 0; op->roles[i]; i++) {
        xkd_dtype type = type_of(op, i, dtype), grid = type_of(op, i, rounding);
        xkd_rng rng = xkd_rng_make(SEED, 0, (uint32_t)i, 0, XKD_RNG_TEST);
        bool given = strchr("iae", role_of(op, i)) != NULL;
        assert_int_equal(xkd_alloc(cx, &out->t[i], out->n[i] + GUARDS, (size_t)xkd_dtype_size(type)), XKD_OK);
        for (int64_t k = 0; k < out->n[i]; k++) {
            float drawn = (float)xkd_rng_normal(&rng);
            if (grid == XKD_BF16) drawn = xkd_from_bfloat16(xkd_to_bfloat16(drawn));
            xkd_set(type, out->t[i], k, given ? (double)drawn : NAN);
        }
        for (int64_t k = 0; k < GUARDS; k++) xkd_set(type, out->t[i], out->n[i] + k, GUARD);
    }
}

static void release(const operation *op, tensors *t)
{
    for (int i = 0; op->roles[i]; i++) xkd_free(t->t[i]);
}

/* Rounding of a sum of n terms grows as sqrt(n) for random signs; 8 covers what is not random. A stored bfloat16 is off by
 * 2^-8 of itself, and by as much again where it was made from a stored one (GELU's slope times a stored product). */
static double tolerance(const operation *op, int tensor, const int64_t *d, xkd_dtype dtype)
{
    double sums = 8 * FLT_EPSILON * (op->condition > 0 ? op->condition : 1) * sqrt((double)op->reduction(d));
    return type_of(op, tensor, dtype) == XKD_BF16 ? sums + 1.0 / 128 : sums;
}

/* A backend and the stored type of a run on it. */
typedef struct {
    const char *device;
    xkd_dtype dtype;
} place;

static void compare(const operation *op, const int64_t *d, const tensors *truth, const tensors *got, const place *at)
{
    for (int i = 0; op->roles[i]; i++) {
        xkd_dtype type = type_of(op, i, at->dtype), wide = type_of(op, i, XKD_F64);
        double largest = 0, error = 0, allowed = tolerance(op, i, d, at->dtype);
        for (int64_t k = 0; k < GUARDS; k++)
            if (xkd_get(type, got->t[i], got->n[i] + k) != GUARD)
                fail_msg("%s on %s, seed %d: writes behind tensor %d", op->name, at->device, SEED, i);
        for (int64_t k = 0; k < truth->n[i]; k++) {
            double want = xkd_get(wide, truth->t[i], k), have = xkd_get(type, got->t[i], k);
            largest = fmax(largest, fabs(want));
            if (!isfinite(want) || !isfinite(have)) error = INFINITY;
            error = fmax(error, fabs(want - have));
        }
        if (!(error <= allowed * fmax(largest, 1e-3)))
            fail_msg("%s on %s in %s, seed %d, shape %lld %lld %lld %lld, tensor %d: off by %g of %g, %g allowed",
                     op->name, at->device, xkd_dtype_name(at->dtype), SEED, (long long)d[0], (long long)d[1],
                     (long long)d[2], (long long)d[3], i, error, largest, allowed * largest);
    }
}

static void backend_parity(void **state)
{
    const place *at = *state;
    xkd_context *cx = xkd_context_new();
    xkd_backend *truth, *be;
    assert_int_equal(xkd_backend_new(cx, &truth, "ref", XKD_F64, 1), XKD_OK);
    assert_int_equal(xkd_backend_new(cx, &be, at->device, at->dtype, 3), XKD_OK);
    int compared = 0;
    for (int o = 0; o < operation_count; o++)
        for (const int64_t *d = operations[o].shapes[0]; d < operations[o].shapes[MOST_SHAPES] && d[0]; d += MOST_DIMS) {
            tensors want, got;
            make(cx, &operations[o], d, XKD_F64, at->dtype, &want);
            make(cx, &operations[o], d, at->dtype, at->dtype, &got);
            operations[o].run(truth, want.t, d);
            operations[o].run(be, got.t, d);
            assert_int_equal(xkd_backend_status(be), XKD_OK);
            compare(&operations[o], d, &want, &got, at);
            release(&operations[o], &want);
            release(&operations[o], &got);
            compared++;
        }
    assert_true(compared > 150);
    xkd_backend_free(be);
    xkd_backend_free(truth);
    xkd_context_free(cx);
}

/* Tensors that differ in a bit, told as `when`. */
static void same_bits(const operation *op, const tensors *a, const tensors *b, xkd_dtype dtype, const char *when)
{
    for (int i = 0; op->roles[i]; i++)
        if (memcmp(a->t[i], b->t[i], (size_t)(a->n[i] * xkd_dtype_size(type_of(op, i, dtype)))))
            fail_msg("%s: tensor %d differs %s", op->name, i, when);
}

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
            make(cx, op, d, at->dtype, at->dtype, &first);
            op->run(be[0], first.t, d);
            for (int c = 1; c < 5; c++) {
                make(cx, op, d, at->dtype, at->dtype, &other);
                op->run(be[c], other.t, d);
                same_bits(op, &first, &other, at->dtype, "between one and more threads");
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

static void same_kind(const operation *op, const int64_t *d, const tensors *truth, const tensors *got, xkd_dtype dtype,
                      int input, int s)
{
    for (int i = 0; op->roles[i]; i++) {
        xkd_dtype type = type_of(op, i, dtype);
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
        if (!(error <= 2 * tolerance(op, i, d, dtype) * fmax(largest, 1e-3)))
            fail_msg("%s with %s in tensor %d, shape %lld %lld %lld %lld: tensor %d off by %g of %g", op->name,
                     specials[s].name, input, (long long)d[0], (long long)d[1], (long long)d[2], (long long)d[3], i, error,
                     largest);
    }
}

static void special_values(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_backend *truth, *be;
    const place *at = *state;
    int compared = 0;
    assert_int_equal(xkd_backend_new(cx, &truth, "ref", at->dtype, 1), XKD_OK);
    assert_int_equal(xkd_backend_new(cx, &be, "cpu", at->dtype, 2), XKD_OK);
    for (int o = 0; o < operation_count; o++)
        for (int shape = 1; shape < 3 && operations[o].shapes[shape][0]; shape++)
            for (int input = 0; operations[o].roles[input]; input++)
                for (int s = 0; s < (int)(sizeof specials / sizeof *specials); s++) {
                    const operation *op = &operations[o];
                    const int64_t *d = op->shapes[shape];
                    tensors want, got;
                    if (role_of(op, input) != 'i') continue;
                    make(cx, op, d, at->dtype, at->dtype, &want);
                    make(cx, op, d, at->dtype, at->dtype, &got);
                    int64_t middle = want.n[input] / 2;
                    xkd_set(type_of(op, input, at->dtype), want.t[input], middle, specials[s].value);
                    xkd_set(type_of(op, input, at->dtype), got.t[input], middle, specials[s].value);
                    op->run(truth, want.t, d);
                    op->run(be, got.t, d);
                    same_kind(op, d, &want, &got, at->dtype, input, s);
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
    const place *at = *state;
    const xkd_cpu_level *levels = xkd_cpu_levels(&count);
    xkd_ops tables[8], exact[8];
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    for (int i = 0; i < count; i++) {
        if (!levels[i].present || strcmp(levels[i].name, "v2") == 0) continue;
        bool dots = strcmp(levels[i].name, "bf16") == 0 || strcmp(levels[i].name, "amx") == 0;
        if (dots && at->dtype == XKD_BF16) continue; /* these products have an order of their own */
        tables[filled] = *xkd_ref_ops(at->dtype);
        exact[filled] = *xkd_ref_ops(XKD_F32);
        levels[i].fill(&exact[filled], XKD_F32);
        levels[i].fill(&tables[filled++], at->dtype);
    }
    if (filled < 2) skip();
    assert_int_equal(xkd_backend_new(cx, &be, "cpu", at->dtype, 2), XKD_OK);
    for (int o = 0; o < operation_count; o++)
        for (const int64_t *d = operations[o].shapes[0]; d < operations[o].shapes[MOST_SHAPES] && d[0]; d += MOST_DIMS) {
            const operation *op = &operations[o];
            tensors first, other;
            make(cx, op, d, at->dtype, at->dtype, &first);
            be->ops = &tables[0];
            be->exact = &exact[0];
            op->run(be, first.t, d);
            for (int l = 1; l < filled; l++) {
                make(cx, op, d, at->dtype, at->dtype, &other);
                be->ops = &tables[l];
                be->exact = &exact[l];
                op->run(be, other.t, d);
                same_bits(op, &first, &other, at->dtype, "between levels");
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
    const place *at = *state;
    size_t size = (size_t)xkd_dtype_size(at->dtype);
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    char *t[6]; /* x, w, b, all, some, h: M x K is the largest */
    assert_int_equal(xkd_backend_new(cx, &be, "cpu", at->dtype, 3), XKD_OK);
    for (int i = 0; i < 6; i++) assert_int_equal(xkd_alloc(cx, &t[i], M * K, size), XKD_OK);
    char *x = t[0], *w = t[1], *b = t[2], *all = t[3], *some = t[4], *h = t[5];
    xkd_rng rng = xkd_rng_make(SEED, 0, 0, 0, XKD_RNG_TEST);
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

int main(void)
{
    static place ref = {"ref", XKD_F32}, cpu = {"cpu", XKD_F32};
    static place ref_half = {"ref", XKD_BF16}, cpu_half = {"cpu", XKD_BF16};
    const struct CMUnitTest tests[] = {
        {"ref in float32", backend_parity, NULL, NULL, &ref},
        {"ref in bfloat16", backend_parity, NULL, NULL, &ref_half},
        {"cpu in float32", backend_parity, NULL, NULL, &cpu},
        {"cpu in bfloat16", backend_parity, NULL, NULL, &cpu_half},
        {"thread counts in float32", thread_counts, NULL, NULL, &cpu},
        {"thread counts in bfloat16", thread_counts, NULL, NULL, &cpu_half},
        {"special values in float32", special_values, NULL, NULL, &cpu},
        {"special values in bfloat16", special_values, NULL, NULL, &cpu_half},
        {"levels agree in float32", levels_agree, NULL, NULL, &cpu},
        {"levels agree in bfloat16", levels_agree, NULL, NULL, &cpu_half},
        {"rows stand alone in float32", rows_stand_alone, NULL, NULL, &cpu},
        {"rows stand alone in bfloat16", rows_stand_alone, NULL, NULL, &cpu_half},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
