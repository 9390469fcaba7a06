/* Every backward of the backend table against central differences of its forward: element by element in float64 on the
 * reference, and along random directions in float32 on the simulation of a GPU. The scalar that is differentiated is a random
 * combination of the outputs, so each output's share is seen; gradients that accumulate start from random values, those that
 * overwrite from NaN. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "absent_device.h"
#include "backend/backend.h"
#include "base/alloc.h"
#include "base/rng.h"
#include "tensor/tensor.h"

enum { MOST = 4, MOST_NUMBERS = 1000, KEPT = 4, ROOMS = 5, ROOM_BYTES = 256, DIRECTIONS = 3, SEED = 77 };

/* Where a pair is tried, and how finely. Float64: a central difference errs by h^2 times a third derivative (1e-10 here) and by
 * rounding, 1e-16 / h = 1e-11. Float32: by 1e-4, and by 1e-7 / h = 1e-5 of the outputs. */
typedef struct {
    const char *device;
    xkd_dtype dtype;
    double step, tolerance;
    bool each; /* every element on its own */
} place;
static const place places[] = {{"ref", XKD_F64, 1e-5, 1e-7, true}, {"cuda-sim", XKD_F32, 1e-2, 2e-3, false}};

/* All in the backend's memory. x: inputs that are differentiated, dx: their gradients, y: the output, dy: its gradient; kept: what
 * a forward leaves for its backward, and other inputs; room: of arrays of the host. */
typedef struct {
    xkd_backend *be;
    void *x[MOST], *dx[MOST], *y, *dy, *kept[KEPT], *room[ROOMS];
    double scale; /* the only element of dy */
    const int64_t *d;
} tensors;

typedef struct {
    const char *name;
    const char *grads; /* one letter an input: o (=) or a (+=); behind them l: the output is a loss, a double */
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
#define saved t->kept

static void set(tensors *t, void *to, int64_t n, double (*value)(int64_t i))
{
    double host[MOST_NUMBERS];
    for (int64_t i = 0; i < n; i++) host[i] = value(i);
    xkd_tensor_write(t->be->memory, t->be->exact_dtype, to, XKD_F64, host, n);
}

/* An array of the host where operations can read it. */
#define TABLE(k, array) xkd_memory_lend(be->memory, t->room[k], array, (int64_t)sizeof array)

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
/* The backward reads the copy. */
FORWARD(residual_norm,
        OPS->residual_layernorm_forward(be, t->y, saved[2], saved[0], saved[1], t->x[0], t->x[1], t->x[2], D0, D1))
BACKWARD(residual_norm, OPS->layernorm_backward(be, &(xkd_layernorm_grad){t->dx[0], t->dx[1], t->dx[2], NULL, t->dy, saved[2],
                                                                          saved[0], saved[1], t->x[1], D0, D1}))
SIZES(plain_s, d[0] * d[1], d[0] * d[1])
FORWARD(plain_norm, OPS->layernorm_forward(be, t->y, saved[0], saved[1], t->x[0], NULL, NULL, D0, D1))
BACKWARD(plain_norm, OPS->layernorm_backward(be, &(xkd_layernorm_grad){.dx = t->dx[0], .dy = t->dy, .x = t->x[0],
                                                                       .mean = saved[0], .rstd = saved[1], .R = D0, .D = D1}))
FORWARD(gelu, OPS->gelu_forward(be, t->y, t->x[0], D0 * D1))
BACKWARD(gelu, OPS->gelu_backward(be, t->dx[0], t->dy, t->x[0], D0 * D1))
FORWARD(l2norm, OPS->l2norm_forward(be, t->y, saved[0], t->x[0], D0, D1))
BACKWARD(l2norm, OPS->l2norm_backward(be, t->dx[0], t->dy, t->y, saved[0], D0, D1))
static double gain(int64_t i)
{
    return 1 + 0.5 * (double)i;
}
FORWARD(weightnorm, set(t, saved[1], D0, gain);
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
FORWARD(positions, OPS->add_positions(be, t->y, t->x[0], t->x[1], t->x[2], TABLE(0, keep), D0, D2, D3))
BACKWARD(positions, OPS->add_positions_backward(be, t->dx[0], t->dx[1], t->dx[2], t->dy, TABLE(0, keep), D0, D2, D3))
SIZES(unmask_s, d[0] * (d[1] + 1) * d[3], d[0] * (d[2] + 1) * d[3], d[3], (d[1] + 1) * d[3])
#define UNMASK &(xkd_unmask_args){TABLE(0, rank), D0, D1, D2, D3, true}
FORWARD(unmask, OPS->unmask_forward(be, t->y, t->x[0], t->x[1], t->x[2], UNMASK))
BACKWARD(unmask, OPS->unmask_backward(be, t->dx[0], t->dx[1], t->dx[2], t->dy, UNMASK))
SIZES(gather_s, d[2] * d[3], d[1] * d[3])
FORWARD(gather, OPS->gather_rows(be, t->y, t->x[0], TABLE(0, keep), D2, D3))
BACKWARD(gather, OPS->scatter_rows(be, t->dx[0], t->dy, TABLE(0, keep), D2, D1, D3))
SIZES(pool_s, d[0] * d[3], d[0] * d[1] * d[3])
FORWARD(pool, OPS->pool_forward(be, t->y, t->x[0], D0, D1, D3, 1, D1))
BACKWARD(pool, OPS->pool_backward(be, t->dx[0], t->dy, D0, D1, D3, 1, D1))

static const int32_t start[] = {0, 2, 3, 5}, column[] = {0, 3, 1, 4, 2}, start_t[] = {0, 1, 2, 3, 4, 5},
                     column_t[] = {0, 1, 2, 0, 2};
static const double mix[] = {0.25, 0.75, 1, -0.5, 1.5}, mix_t[] = {0.25, 1, 1.5, 0.75, -0.5};
SIZES(sparse_s, 3 * d[3], 5 * d[3])
FORWARD(sparse, xkd_sparse_rows s = {3, 5, TABLE(0, start), TABLE(1, column), TABLE(2, mix)}; OPS->sparse_rows(be, t->y, t->x[0], &s, D3, false))
BACKWARD(sparse, xkd_sparse_rows s = {5, 3, TABLE(0, start_t), TABLE(1, column_t), TABLE(2, mix_t)};
         OPS->sparse_rows(be, t->dx[0], t->dy, &s, D3, true))

/* Losses have one output; its gradient is the scale. */
SIZES(mse_s, 1, d[0] * d[1])
static double sine(int64_t i)
{
    return sin((double)i);
}
FORWARD(mse, set(t, saved[0], D0 * D1, sine);
        OPS->mse_forward(be, t->y, t->x[0], saved[0], D0 * D1))
BACKWARD(mse, OPS->mse_backward(be, t->dx[0], t->x[0], saved[0], t->scale, D0 * D1))
/* d: R, B, K */
static const double temperatures[] = {0.5, 0.3};
SIZES(kd_s, 1, d[0] * d[2])
static double cosine(int64_t i)
{
    return cos((double)(3 * i));
}
#define KD                                                                                                             \
    set(t, saved[2], (D1 + 1) * D2, cosine);                                                                           \
    const double *temperature = TABLE(0, temperatures);                                                                \
    xkd_kd_args a = {t->x[0], saved[2], xkd_exact_at(be, saved[2], D1 * D2), temperature, temperature + 1, D0, D1, D2}
FORWARD(kd, KD; OPS->kd_forward(be, t->y, t->room[1], saved[0], saved[1], &a))
BACKWARD(kd, KD; OPS->kd_backward(be, t->dx[0], &a, saved[0], saved[1], t->scale))
/* d: views x, views y, B, K; the first sample takes no part */
SIZES(align_s, 1, d[0] * d[2] * d[3], d[1] * d[2] * d[3])
#define ALIGN xkd_align_sides a = {t->x[0], t->x[1], D0, D1, D2, D3, 1, D2 - 1, 1}
FORWARD(mmd, ALIGN; xkd_memory_zero(be->memory, t->y, 8); OPS->mmd_forward(be, t->y, saved[0], &a))
BACKWARD(mmd, ALIGN; OPS->mmd_backward(be, t->dx[0], t->dx[1], saved[0], &a, t->scale))
FORWARD(coral, ALIGN; xkd_memory_zero(be->memory, t->y, 8); OPS->coral_forward(be, t->y, saved[0], saved[1], &a))
BACKWARD(coral, ALIGN; OPS->coral_backward(be, t->dx[0], t->dx[1], saved[0], saved[1], &a, t->scale))

/* Behind the encoder: batch norm and the two losses of classifiers. */
SIZES(batchnorm_s, d[0] * d[1], d[0] * d[1], d[1], d[1])
#define BATCHNORM                                                                                                      \
    xkd_batchnorm_args a = {t->x[0], t->x[1], t->x[2], saved[0], saved[1], {saved[2], saved[3]}, 1e-5, 0.1, D0, D1}
FORWARD(batchnorm, BATCHNORM; OPS->batchnorm_forward(be, t->y, &a))
BACKWARD(batchnorm, BATCHNORM; OPS->batchnorm_backward(be, t->dx[0], t->dx[1], t->dx[2], t->dy, &a))
static const float targets[] = {0.5f, 0, 0.25f, 0.25f, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0.5f, 0.5f, 0, 0, 0};
SIZES(classify_s, 1, d[0] * d[1])
FORWARD(softmax, OPS->classify(be, t->y, saved[0], t->x[0], TABLE(0, targets), XKD_CLASSIFY_SOFTMAX, D0, D1))
BACKWARD(softmax, OPS->classify(be, t->room[1], saved[0], t->x[0], TABLE(0, targets), XKD_CLASSIFY_SOFTMAX, D0, D1);
         OPS->axpby(be, t->dx[0], saved[0], t->scale, 0, D0 * D1))
FORWARD(sigmoid, OPS->classify(be, t->y, saved[0], t->x[0], TABLE(0, targets), XKD_CLASSIFY_SIGMOID, D0, D1))
BACKWARD(sigmoid, OPS->classify(be, t->room[1], saved[0], t->x[0], TABLE(0, targets), XKD_CLASSIFY_SIGMOID, D0, D1);
         OPS->axpby(be, t->dx[0], saved[0], t->scale, 0, D0 * D1))

static const pair pairs[] = {
    {"linear", "oaa", {3, 4, 5}, linear_s, linear_f, linear_b},
    {"gelu then linear", "oa", {3, 4, 5}, gelu_linear_s, gelu_linear_f, gelu_linear_b},
    {"layernorm", "oaa", {3, 7}, layernorm_s, layernorm_f, layernorm_b},
    {"residual_layernorm", "oaa", {3, 7}, layernorm_s, residual_norm_f, residual_norm_b},
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
    {"mse", "ol", {3, 7}, mse_s, mse_f, mse_b},
    {"distillation", "al", {6, 3, 7}, kd_s, kd_f, kd_b},
    {"mmd", "aal", {2, 1, 3, 6}, align_s, mmd_f, mmd_b},
    {"batchnorm", "oaa", {5, 7}, batchnorm_s, batchnorm_f, batchnorm_b},
    {"classify, one class", "ol", {3, 7}, classify_s, softmax_f, softmax_b},
    {"classify, several classes", "ol", {3, 7}, classify_s, sigmoid_f, sigmoid_b},
    {"coral", "aal", {2, 1, 3, 6}, align_s, coral_f, coral_b},
};

/* Inputs of a pair, and what the host knows of them. */
typedef struct {
    const pair *p;
    const place *at;
    tensors t;
    int64_t nx[MOST], ny;
    bool loss;
    double x[MOST][MOST_NUMBERS], g[MOST][MOST_NUMBERS], dy[MOST_NUMBERS];
} trial;

static int inputs_of(const trial *r)
{
    return (int)strspn(r->p->grads, "oa");
}

static void *take(xkd_backend *be, int64_t bytes)
{
    void *block;
    if (xkd_memory_take(be->cx, be->memory, &block, bytes) != XKD_OK) fail_msg("%s", xkd_last_error(be->cx));
    return block;
}

static void put(const trial *r, void *to, const double *from, int64_t n)
{
    xkd_tensor_write(r->t.be->memory, r->t.be->exact_dtype, to, XKD_F64, from, n);
}

static void fetch(const trial *r, double *to, const void *from, int64_t n)
{
    xkd_tensor_read(r->t.be->memory, r->t.be->exact_dtype, to, from, n);
}

static double scalar(trial *r)
{
    double y[MOST_NUMBERS], sum = 0;
    r->p->forward(r->t.be, &r->t);
    if (r->loss)
        xkd_memory_download(r->t.be->memory, y, r->t.y, (int64_t)sizeof *y);
    else
        fetch(r, y, r->t.y, r->ny);
    for (int64_t i = 0; i < r->ny; i++) sum += y[i] * r->dy[i];
    return sum;
}

static void fill_random(double *x, int64_t n, xkd_rng *rng)
{
    for (int64_t i = 0; i < n; i++) x[i] = xkd_rng_normal(rng);
}

static void check(const trial *r, int which, int64_t k, double got, double expected, double scale)
{
    if (!(fabs(got - expected) <= r->at->tolerance * scale))
        fail_msg("%s, seed %d, input %d [%lld]: %.12g, difference quotient %.12g", r->p->name, SEED, which, (long long)k, got,
                 expected);
}

/* The difference quotient along a direction [n], which becomes the one that the numbers' type allows. */
static double quotient(trial *r, int which, double *direction, double step)
{
    double moved[MOST_NUMBERS], side[2][MOST_NUMBERS], value[2];
    int64_t n = r->nx[which];
    for (int s = 0; s < 2; s++) {
        for (int64_t i = 0; i < n; i++) moved[i] = r->x[which][i] + (s ? step : -step) * direction[i];
        put(r, r->t.x[which], moved, n);
        fetch(r, side[s], r->t.x[which], n);
        value[s] = scalar(r);
    }
    put(r, r->t.x[which], r->x[which], n);
    for (int64_t i = 0; i < n; i++) direction[i] = (side[1][i] - side[0][i]) / (2 * step);
    return (value[1] - value[0]) / (2 * step);
}

static double norm(const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

static void check_input(trial *r, int which, xkd_rng *rng)
{
    double direction[MOST_NUMBERS], largest = 0;
    const double *g = r->g[which];
    int64_t n = r->nx[which];
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(g[i]));
    assert_true(largest > 0);
    for (int64_t k = 0; k < (r->at->each ? n : DIRECTIONS); k++) {
        memset(direction, 0, sizeof direction);
        if (r->at->each)
            direction[k] = 1;
        else
            fill_random(direction, n, rng);
        double expected = quotient(r, which, direction, r->at->step), got = 0;
        for (int64_t i = 0; i < n; i++) got += g[i] * direction[i];
        check(r, which, k, got, expected, r->at->each ? fabs(expected) + largest : norm(g, n) * norm(direction, n));
    }
}

static void make(trial *r, double base[MOST][MOST_NUMBERS], xkd_rng *rng)
{
    xkd_backend *be = r->t.be;
    double none[MOST_NUMBERS];
    for (int i = 0; i < MOST_NUMBERS; i++) none[i] = NAN;
    r->p->sizes(r->p->d, r->nx, &r->ny);
    r->t.y = take(be, r->ny * 8);
    r->t.dy = take(be, r->ny * 8);
    for (int k = 0; k < KEPT; k++) r->t.kept[k] = take(be, MOST_NUMBERS * 8);
    for (int k = 0; k < ROOMS; k++) r->t.room[k] = take(be, ROOM_BYTES);
    fill_random(r->dy, r->ny, rng);
    put(r, r->t.dy, r->dy, r->ny);
    fetch(r, r->dy, r->t.dy, r->ny);
    r->t.scale = r->dy[0];
    for (int i = 0; i < inputs_of(r); i++) {
        bool adds = r->p->grads[i] == 'a';
        assert_true(r->nx[i] <= MOST_NUMBERS);
        r->t.x[i] = take(be, r->nx[i] * 8);
        r->t.dx[i] = take(be, r->nx[i] * 8);
        fill_random(r->x[i], r->nx[i], rng);
        if (adds) fill_random(base[i], r->nx[i], rng);
        put(r, r->t.x[i], r->x[i], r->nx[i]);
        put(r, r->t.dx[i], adds ? base[i] : none, r->nx[i]);
        if (adds) fetch(r, base[i], r->t.dx[i], r->nx[i]);
    }
}

static void release(trial *r)
{
    xkd_memory *memory = r->t.be->memory;
    for (int i = 0; i < MOST; i++) {
        xkd_memory_give(memory, r->t.x[i]);
        xkd_memory_give(memory, r->t.dx[i]);
    }
    for (int k = 0; k < KEPT; k++) xkd_memory_give(memory, r->t.kept[k]);
    for (int k = 0; k < ROOMS; k++) xkd_memory_give(memory, r->t.room[k]);
    xkd_memory_give(memory, r->t.y);
    xkd_memory_give(memory, r->t.dy);
}

static void check_pair(const pair *p, const place *at)
{
    static trial r;
    static double base[MOST][MOST_NUMBERS];
    xkd_context *cx = xkd_context_new();
    xkd_rng rng = xkd_rng_make(SEED, 0, 0, 0, XKD_RNG_TEST);
    r = (trial){.p = p, .at = at, .t = {.d = p->d}, .loss = strchr(p->grads, 'l') != NULL};
    memset(base, 0, sizeof base);
    if (xkd_backend_new(cx, &r.t.be, at->device, at->dtype, 1) != XKD_OK) {
        if (!may_be_absent(at->device)) fail_msg("%s", xkd_last_error(cx));
        xkd_context_free(cx);
        skip();
    }
    make(&r, base, &rng);
    p->forward(r.t.be, &r.t);
    p->backward(r.t.be, &r.t);
    for (int i = 0; i < inputs_of(&r); i++) {
        fetch(&r, r.g[i], r.t.dx[i], r.nx[i]);
        for (int64_t k = 0; k < r.nx[i]; k++) r.g[i][k] -= base[i][k];
    }
    if (xkd_backend_status(r.t.be) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    for (int i = 0; i < inputs_of(&r); i++) check_input(&r, i, &rng);
    if (xkd_backend_status(r.t.be) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    release(&r);
    xkd_backend_free(r.t.be);
    xkd_context_free(cx);
}

static void on_the_reference(void **state)
{
    check_pair(*state, &places[0]);
}

static void on_the_simulation(void **state)
{
    check_pair(*state, &places[1]);
}

int main(void)
{
    enum { COUNT = sizeof pairs / sizeof *pairs };
    static char names[COUNT][80];
    struct CMUnitTest tests[2 * COUNT];
    for (int i = 0; i < COUNT; i++) {
        void *state = (void *)(uintptr_t)&pairs[i];
        snprintf(names[i], sizeof names[i], "%s, simulation", pairs[i].name);
        tests[i] = (struct CMUnitTest){pairs[i].name, on_the_reference, NULL, NULL, state};
        tests[COUNT + i] = (struct CMUnitTest){names[i], on_the_simulation, NULL, NULL, state};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
