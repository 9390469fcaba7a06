/* Every backward of the backend table against central differences of its forward, in float64 on the reference. The
 * scalar that is differentiated is a random combination of the outputs, so each output's share is seen; gradients that
 * accumulate start from random values, those that overwrite from NaN. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "backend/backend.h"
#include "base/alloc.h"
#include "base/rng.h"

enum { MOST = 4, SEED = 77 };
static const double STEP = 1e-5;
/* A central difference errs by h^2 times a third derivative (1e-10 here) and by rounding, 1e-16 / h = 1e-11. */
static const double TOLERANCE = 1e-7;

/* x: inputs that are differentiated, dx: their gradients, y: the output, dy: its gradient. Saved tensors live in the
 * functions, which call the forward themselves where the backward needs them. */
typedef struct {
    double *x[MOST], *dx[MOST], *y, *dy;
    const int64_t *d;
} tensors;

typedef struct {
    const char *name;
    const char *grads; /* one letter an input: o (=) or a (+=) */
    int64_t d[5];
    void (*sizes)(const int64_t *d, int64_t *nx, int64_t *ny);
    void (*forward)(xkd_backend *be, tensors *t);
    void (*backward)(xkd_backend *be, tensors *t);
} pair;

#define D0 t->d[0]
#define D1 t->d[1]
#define D2 t->d[2]
#define D3 t->d[3]
#define SIZES(name, output, ...)                                                                                       \
    static void name(const int64_t *d, int64_t *nx, int64_t *ny)                                                       \
    {                                                                                                                  \
        const int64_t sizes[] = {__VA_ARGS__};                                                                         \
        memcpy(nx, sizes, sizeof sizes);                                                                               \
        *ny = output;                                                                                                  \
    }
#define FORWARD(name, ...)                                                                                             \
    static void name##_f(xkd_backend *be, tensors *t)                                                                  \
    {                                                                                                                  \
        __VA_ARGS__;                                                                                                   \
    }
#define BACKWARD(name, ...)                                                                                            \
    static void name##_b(xkd_backend *be, tensors *t)                                                                  \
    {                                                                                                                  \
        __VA_ARGS__;                                                                                                   \
    }
#define OPS be->ops

static double saved[4][20000]; /* what a forward leaves for its backward */

SIZES(linear_s, d[0] * d[1], d[0] * d[2], d[1] * d[2], d[1])
FORWARD(linear, OPS->linear_forward(be, t->y, t->x[0], t->x[1], t->x[2], D0, D1, D2))
BACKWARD(linear, OPS->linear_backward_data(be, t->dx[0], t->dy, t->x[1], D0, D1, D2);
         OPS->linear_backward_weight(be, t->dx[1], t->dx[2], t->dy, t->x[0], D0, D1, D2))

/* y = gelu(h) w^T, differentiated by h */
SIZES(gelu_linear_s, d[0] * d[1], d[0] * d[2], d[1] * d[2])
FORWARD(gelu_linear, OPS->gelu_forward(be, saved[0], t->x[0], D0 * D2);
        OPS->linear_forward(be, t->y, saved[0], t->x[1], NULL, D0, D1, D2))
BACKWARD(gelu_linear, OPS->linear_gelu_backward_data(be, t->dx[0], saved[0], t->dy, t->x[1], t->x[0], D0, D1, D2);
         OPS->linear_backward_weight(be, t->dx[1], NULL, t->dy, saved[0], D0, D1, D2))

SIZES(layernorm_s, d[0] * d[1], d[0] * d[1], d[1], d[1])
FORWARD(layernorm, OPS->layernorm_forward(be, t->y, saved[0], saved[1], t->x[0], t->x[1], t->x[2], D0, D1))
BACKWARD(layernorm, OPS->layernorm_backward(be, &(xkd_layernorm_grad){t->dx[0], t->dx[1], t->dx[2], NULL, t->dy, t->x[0],
                                                                      saved[0], saved[1], t->x[1], D0, D1}))
SIZES(plain_s, d[0] * d[1], d[0] * d[1])
FORWARD(plain_norm, OPS->layernorm_forward(be, t->y, saved[0], saved[1], t->x[0], NULL, NULL, D0, D1))
BACKWARD(plain_norm, OPS->layernorm_backward(be, &(xkd_layernorm_grad){.dx = t->dx[0], .dy = t->dy, .x = t->x[0],
                                                                       .mean = saved[0], .rstd = saved[1], .R = D0, .D = D1}))
FORWARD(gelu, OPS->gelu_forward(be, t->y, t->x[0], D0 * D1))
BACKWARD(gelu, OPS->gelu_backward(be, t->dx[0], t->dy, t->x[0], D0 * D1))
FORWARD(l2norm, OPS->l2norm_forward(be, t->y, saved[0], t->x[0], D0, D1))
BACKWARD(l2norm, OPS->l2norm_backward(be, t->dx[0], t->dy, t->y, saved[0], D0, D1))
FORWARD(weightnorm, for (int64_t k = 0; k < D0; k++) saved[1][k] = 1 + 0.5 * (double)k;
        OPS->weightnorm_forward(be, t->y, saved[0], t->x[0], saved[1], D0, D1))
BACKWARD(weightnorm, OPS->weightnorm_backward(be, t->dx[0], t->dy, t->x[0], saved[1], saved[0], D0, D1))

/* d: batch, tokens, heads, head width; a second segment of one shorter sequence */
#define SEGMENTS                                                                                                       \
    xkd_segment items[] = {{D0, D1}, {1, D1 - 2}};                                                                     \
    xkd_segments segs = {2, items, D0 * D1 + D1 - 2}
#define ROWS (d[0] * d[1] + d[1] - 2)
SIZES(attention_s, ROWS * d[2] * d[3], ROWS * 3 * d[2] * d[3])
FORWARD(attention, SEGMENTS; OPS->attention_forward(be, t->y, saved[0], t->x[0], &segs, D2, D2 * D3))
BACKWARD(attention, SEGMENTS;
         OPS->attention_backward(be, t->dx[0], t->dy, t->x[0], t->y, saved[0], &segs, D2, D2 * D3))

/* d: B, N, M, D */
static const int32_t keep[] = {2, 0, 4, 1, 3, 0}, rank[] = {1, -1, 0, -1, 2, 2, 0, -1, 1, -1};
SIZES(positions_s, d[0] * (d[2] + 1) * d[3], d[0] * d[2] * d[3], d[3], (d[1] + 1) * d[3])
FORWARD(positions, OPS->add_positions(be, t->y, t->x[0], t->x[1], t->x[2], keep, D0, D2, D3))
BACKWARD(positions, OPS->add_positions_backward(be, t->dx[0], t->dx[1], t->dx[2], t->dy, keep, D0, D2, D3))
SIZES(unmask_s, d[0] * (d[1] + 1) * d[3], d[0] * (d[2] + 1) * d[3], d[3], (d[1] + 1) * d[3])
#define UNMASK &(xkd_unmask_args){rank, D0, D1, D2, D3, true}
FORWARD(unmask, OPS->unmask_forward(be, t->y, t->x[0], t->x[1], t->x[2], UNMASK))
BACKWARD(unmask, OPS->unmask_backward(be, t->dx[0], t->dx[1], t->dx[2], t->dy, UNMASK))
SIZES(gather_s, d[2] * d[3], d[1] * d[3])
FORWARD(gather, OPS->gather_rows(be, t->y, t->x[0], keep, D2, D3))
BACKWARD(gather, OPS->scatter_rows(be, t->dx[0], t->dy, keep, D2, D1, D3))
SIZES(pool_s, d[0] * d[3], d[0] * d[1] * d[3])
FORWARD(pool, OPS->pool_forward(be, t->y, t->x[0], D0, D1, D3, 1, D1))
BACKWARD(pool, OPS->pool_backward(be, t->dx[0], t->dy, D0, D1, D3, 1, D1))

static const int32_t start[] = {0, 2, 3, 5}, column[] = {0, 3, 1, 4, 2}, start_t[] = {0, 1, 2, 3, 4, 5},
                     column_t[] = {0, 1, 2, 0, 2};
static const double mix[] = {0.25, 0.75, 1, -0.5, 1.5}, mix_t[] = {0.25, 1, 1.5, 0.75, -0.5};
SIZES(sparse_s, 3 * d[3], 5 * d[3])
FORWARD(sparse, xkd_sparse_rows s = {3, 5, start, column, mix}; OPS->sparse_rows(be, t->y, t->x[0], &s, D3, false))
BACKWARD(sparse, xkd_sparse_rows s = {5, 3, start_t, column_t, mix_t};
         OPS->sparse_rows(be, t->dx[0], t->dy, &s, D3, true))

/* Losses have one output; its gradient is the scale. */
SIZES(mse_s, 1, d[0] * d[1])
FORWARD(mse, for (int64_t i = 0; i < D0 * D1; i++) saved[0][i] = sin((double)i);
        OPS->mse_forward(be, t->y, t->x[0], saved[0], D0 * D1))
BACKWARD(mse, OPS->mse_backward(be, t->dx[0], t->x[0], saved[0], *t->dy, D0 * D1))
/* d: R, B, K */
static const double temperatures[] = {0.5, 0.3};
SIZES(kd_s, 1, d[0] * d[2])
#define KD                                                                                                             \
    for (int64_t i = 0; i < (D1 + 1) * D2; i++) saved[2][i] = cos((double)(3 * i));                                    \
    xkd_kd_args a = {t->x[0], saved[2], saved[2] + D1 * D2, &temperatures[0], &temperatures[1], D0, D1, D2}
FORWARD(kd, double entropy; KD; OPS->kd_forward(be, t->y, &entropy, saved[0], saved[1], &a))
BACKWARD(kd, KD; OPS->kd_backward(be, t->dx[0], &a, saved[0], saved[1], *t->dy))
/* d: views x, views y, B, K; the first sample takes no part */
SIZES(align_s, 1, d[0] * d[2] * d[3], d[1] * d[2] * d[3])
#define ALIGN xkd_align_sides a = {t->x[0], t->x[1], D0, D1, D2, D3, 1, D2 - 1, 1}
FORWARD(mmd, ALIGN; *t->y = 0; OPS->mmd_forward(be, t->y, saved[0], &a))
BACKWARD(mmd, ALIGN; OPS->mmd_backward(be, t->dx[0], t->dx[1], saved[0], &a, *t->dy))
FORWARD(coral, ALIGN; *t->y = 0; OPS->coral_forward(be, t->y, saved[0], saved[1], &a))
BACKWARD(coral, ALIGN; OPS->coral_backward(be, t->dx[0], t->dx[1], saved[0], saved[1], &a, *t->dy))

/* Behind the encoder: batch norm and the two losses of classifiers. */
SIZES(batchnorm_s, d[0] * d[1], d[0] * d[1], d[1], d[1])
#define BATCHNORM                                                                                                      \
    xkd_batchnorm_args a = {t->x[0], t->x[1], t->x[2], saved[0], saved[1], {saved[2], saved[3]}, 1e-5, 0.1, D0, D1}
FORWARD(batchnorm, BATCHNORM; OPS->batchnorm_forward(be, t->y, &a))
BACKWARD(batchnorm, BATCHNORM; OPS->batchnorm_backward(be, t->dx[0], t->dx[1], t->dx[2], t->dy, &a))
static const float targets[] = {0.5f, 0, 0.25f, 0.25f, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0.5f, 0.5f, 0, 0, 0};
SIZES(classify_s, 1, d[0] * d[1])
FORWARD(softmax, OPS->classify(be, t->y, saved[0], t->x[0], targets, XKD_CLASSIFY_SOFTMAX, D0, D1))
BACKWARD(softmax, double loss; OPS->classify(be, &loss, saved[0], t->x[0], targets, XKD_CLASSIFY_SOFTMAX, D0, D1);
         OPS->axpby(be, t->dx[0], saved[0], *t->dy, 0, D0 * D1))
FORWARD(sigmoid, OPS->classify(be, t->y, saved[0], t->x[0], targets, XKD_CLASSIFY_SIGMOID, D0, D1))
BACKWARD(sigmoid, double loss; OPS->classify(be, &loss, saved[0], t->x[0], targets, XKD_CLASSIFY_SIGMOID, D0, D1);
         OPS->axpby(be, t->dx[0], saved[0], *t->dy, 0, D0 * D1))

static const pair pairs[] = {
    {"linear", "oaa", {3, 4, 5}, linear_s, linear_f, linear_b},
    {"gelu then linear", "oa", {3, 4, 5}, gelu_linear_s, gelu_linear_f, gelu_linear_b},
    {"layernorm", "oaa", {3, 7}, layernorm_s, layernorm_f, layernorm_b},
    {"layernorm without affine", "o", {3, 7}, plain_s, plain_norm_f, plain_norm_b},
    {"gelu", "o", {3, 7}, plain_s, gelu_f, gelu_b},
    {"l2norm", "o", {3, 7}, plain_s, l2norm_f, l2norm_b},
    {"weightnorm", "a", {3, 7}, plain_s, weightnorm_f, weightnorm_b},
    {"attention", "o", {2, 5, 2, 3}, attention_s, attention_f, attention_b},
    {"add_positions", "oaa", {2, 5, 3, 4}, positions_s, positions_f, positions_b},
    {"unmask", "oaa", {2, 5, 3, 4}, unmask_s, unmask_f, unmask_b},
    {"gather_rows and scatter_rows", "o", {1, 5, 3, 4}, gather_s, gather_f, gather_b},
    {"pool", "a", {2, 5, 0, 4}, pool_s, pool_f, pool_b},
    {"sparse_rows", "a", {0, 0, 0, 4}, sparse_s, sparse_f, sparse_b},
    {"mse", "o", {3, 7}, mse_s, mse_f, mse_b},
    {"distillation", "a", {6, 3, 7}, kd_s, kd_f, kd_b},
    {"mmd", "aa", {2, 1, 3, 6}, align_s, mmd_f, mmd_b},
    {"batchnorm", "oaa", {5, 7}, batchnorm_s, batchnorm_f, batchnorm_b},
    {"classify, one class", "o", {3, 7}, classify_s, softmax_f, softmax_b},
    {"classify, several classes", "o", {3, 7}, classify_s, sigmoid_f, sigmoid_b},
    {"coral", "aa", {2, 1, 3, 6}, align_s, coral_f, coral_b},
};

static double scalar(xkd_backend *be, const pair *p, tensors *t, int64_t ny)
{
    double sum = 0;
    p->forward(be, t);
    for (int64_t i = 0; i < ny; i++) sum += t->y[i] * t->dy[i];
    return sum;
}

static void fill_random(double *x, int64_t n, xkd_rng *rng)
{
    for (int64_t i = 0; i < n; i++) x[i] = xkd_rng_normal(rng);
}

static void check_input(xkd_backend *be, const pair *p, tensors *t, int which, int64_t n, int64_t ny, const double *base)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(t->dx[which][i] - base[i]));
    assert_true(largest > 0);
    for (int64_t i = 0; i < n; i++) {
        double old = t->x[which][i], got = t->dx[which][i] - base[i];
        t->x[which][i] = old + STEP;
        double up = scalar(be, p, t, ny);
        t->x[which][i] = old - STEP;
        double expected = (up - scalar(be, p, t, ny)) / (2 * STEP);
        t->x[which][i] = old;
        if (!(fabs(got - expected) <= TOLERANCE * (fabs(expected) + largest)))
            fail_msg("%s, seed %d, input %d [%lld]: %.12g, difference quotient %.12g", p->name, SEED, which, (long long)i,
                     got, expected);
    }
}

static void check_pair(void **state)
{
    const pair *p = *state;
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    xkd_rng rng = xkd_rng_make(SEED, 0, 0, 0, XKD_RNG_TEST);
    tensors t = {.d = p->d};
    double *base[MOST] = {0};
    int64_t nx[MOST] = {0}, ny;
    assert_int_equal(xkd_backend_new(cx, &be, "ref", XKD_F64, 1), XKD_OK);
    p->sizes(p->d, nx, &ny);
    assert_int_equal(xkd_alloc(cx, &t.y, ny, sizeof(double)), XKD_OK);
    assert_int_equal(xkd_alloc(cx, &t.dy, ny, sizeof(double)), XKD_OK);
    fill_random(t.dy, ny, &rng);
    for (int i = 0; p->grads[i]; i++) {
        assert_int_equal(xkd_alloc(cx, &t.x[i], nx[i], sizeof(double)), XKD_OK);
        assert_int_equal(xkd_alloc(cx, &t.dx[i], nx[i], sizeof(double)), XKD_OK);
        assert_int_equal(xkd_alloc(cx, &base[i], nx[i], sizeof(double)), XKD_OK);
        fill_random(t.x[i], nx[i], &rng);
        if (p->grads[i] == 'a') fill_random(base[i], nx[i], &rng);
        for (int64_t k = 0; k < nx[i]; k++) t.dx[i][k] = p->grads[i] == 'a' ? base[i][k] : NAN;
    }
    p->forward(be, &t);
    p->backward(be, &t);
    for (int i = 0; p->grads[i]; i++) check_input(be, p, &t, i, nx[i], ny, base[i]);
    for (int i = 0; p->grads[i]; i++) {
        xkd_free(t.x[i]);
        xkd_free(t.dx[i]);
        xkd_free(base[i]);
    }
    xkd_free(t.y);
    xkd_free(t.dy);
    xkd_backend_free(be);
    xkd_context_free(cx);
}

int main(void)
{
    enum { COUNT = sizeof pairs / sizeof *pairs };
    struct CMUnitTest tests[COUNT];
    for (int i = 0; i < COUNT; i++)
        tests[i] = (struct CMUnitTest){pairs[i].name, check_pair, NULL, NULL, (void *)(uintptr_t)&pairs[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
