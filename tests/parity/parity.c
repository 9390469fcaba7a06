/* Comparisons of backends over all operations. */
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

#include "absent_device.h"
#include "base/alloc.h"
#include "base/rng.h"
#include "parity.h"
#include "tensor/bfloat16.h"
#include "tensor/params.h"

enum { GUARDS = 16, SEED = XKD_PARITY_SEED };
static const double GUARD = 12352.0; /* a bfloat16 too */

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
void parity_make(xkd_context *cx, const operation *op, const int64_t *d, xkd_dtype dtype, xkd_dtype rounding,
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

void parity_release(const operation *op, tensors *t)
{
    for (int i = 0; op->roles[i]; i++) xkd_free(t->t[i]);
}

/* Runs an operation on the tensors, in the backend's memory. */
void parity_run(xkd_backend *be, const operation *op, tensors *t, const int64_t *d)
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

/* Rounding of a sum of n terms grows as sqrt(n) for random signs; 8 covers what is not random. A stored bfloat16 is off by
 * 2^-8 of itself, and by as much again where it was made from a stored one (GELU's slope times a stored product). */
static double tolerance(const operation *op, int tensor, const int64_t *d, xkd_dtype dtype)
{
    double sums = 8 * FLT_EPSILON * (op->condition > 0 ? op->condition : 1) * sqrt((double)op->reduction(d));
    return type_of(op, tensor, dtype) == XKD_BF16 ? sums + 1.0 / 128 : sums;
}

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

/* NULL: the device is not here, which is said. */
static xkd_backend *open_device(xkd_context *cx, const place *at, int threads)
{
    xkd_backend *be = NULL;
    xkd_status status = xkd_backend_new(cx, &be, at->device, at->dtype, threads);
    if (status == XKD_ERR_DEVICE && may_be_absent(at->device))
        print_message("# %s\n", xkd_last_error(cx));
    else
        assert_int_equal(status, XKD_OK);
    return be;
}

void parity_of_backend(void **state)
{
    const place *at = *state;
    xkd_context *cx = xkd_context_new();
    xkd_backend *truth, *be = open_device(cx, at, 3);
    int compared = 0;
    if (!be) {
        xkd_context_free(cx);
        skip();
    }
    assert_int_equal(xkd_backend_new(cx, &truth, "ref", XKD_F64, 1), XKD_OK);
    EACH_SHAPE (op, d) {
        tensors want, got;
        parity_make(cx, op, d, XKD_F64, at->dtype, &want);
        parity_make(cx, op, d, at->dtype, at->dtype, &got);
        parity_run(truth, op, &want, d);
        parity_run(be, op, &got, d);
        compare(op, d, &want, &got, at);
        parity_release(op, &want);
        parity_release(op, &got);
        compared++;
    }
    assert_true(compared > 150);
    xkd_backend_free(be);
    xkd_backend_free(truth);
    xkd_context_free(cx);
}

/* Tensors that differ in a bit, told as `when`. */
void parity_same_bits(const operation *op, const tensors *a, const tensors *b, xkd_dtype dtype, const char *when)
{
    for (int i = 0; op->roles[i]; i++)
        if (memcmp(a->t[i], b->t[i], (size_t)(a->n[i] * xkd_dtype_size(type_of(op, i, dtype)))))
            fail_msg("%s: tensor %d differs %s", op->name, i, when);
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

void parity_of_special_values(void **state)
{
    xkd_context *cx = xkd_context_new();
    const place *at = *state;
    xkd_backend *truth, *be = open_device(cx, at, 2);
    int compared = 0;
    if (!be) {
        xkd_context_free(cx);
        skip();
    }
    /* The second shape is the larger one, and a simulated thread costs much. */
    const int shapes = xkd_memory_is_host(be->memory) ? 3 : 2;
    assert_int_equal(xkd_backend_new(cx, &truth, "ref", at->dtype, 1), XKD_OK);
    for (int o = 0; o < operation_count; o++)
        for (int shape = 1; shape < shapes && operations[o].shapes[shape][0]; shape++)
            for (int input = 0; operations[o].roles[input]; input++)
                for (int s = 0; s < (int)(sizeof specials / sizeof *specials); s++) {
                    const operation *op = &operations[o];
                    const int64_t *d = op->shapes[shape];
                    tensors want, got;
                    if (role_of(op, input) != 'i') continue;
                    parity_make(cx, op, d, at->dtype, at->dtype, &want);
                    parity_make(cx, op, d, at->dtype, at->dtype, &got);
                    int64_t middle = want.n[input] / 2;
                    xkd_set(type_of(op, input, at->dtype), want.t[input], middle, specials[s].value);
                    xkd_set(type_of(op, input, at->dtype), got.t[input], middle, specials[s].value);
                    parity_run(truth, op, &want, d);
                    parity_run(be, op, &got, d);
                    same_kind(op, d, &want, &got, at->dtype, input, s);
                    parity_release(op, &want);
                    parity_release(op, &got);
                    compared++;
                }
    assert_true(compared > 250 * (shapes - 1));
    xkd_backend_free(be);
    xkd_backend_free(truth);
    xkd_context_free(cx);
}

void parity_of_thread_counts(void **state)
{
    static const int counts[] = {1, 2, 3, 5, 8};
    const place *at = *state;
    xkd_context *cx = xkd_context_new();
    xkd_backend *be[5];
    for (int c = 0; c < 5; c++) assert_int_equal(xkd_backend_new(cx, &be[c], "cpu", at->dtype, counts[c]), XKD_OK);
    EACH_SHAPE (op, d) {
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

/* The bits of a row do not depend on the rows beside it: the first rows of a product, a norm or an attention are those of
 * the same rows alone. */
void parity_of_rows(void **state)
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
