/* Linear layers over a matrix product: what a product is, what follows it while a tile of it is in the first-level cache
 * (bias, GELU, residual), and the operations. Who includes this defines run_product. */
#ifndef XKD_BACKEND_CPU_KERNELS_LAYERS_H
#define XKD_BACKEND_CPU_KERNELS_LAYERS_H

#include "backend/cpu/kernels/product.h"

/* What is done with a tile when its last block of K is in. */
typedef enum { PLAIN, BIAS, BIAS_GELU, GELU_BACKWARD } epilogue;

typedef struct {
    xkd_backend *be;
    int64_t M, N, K;
    const stored *a; /* [M,K] or, transposed, [K,M] */
    const stored *b; /* [K,N] or, transposed, [N,K] */
    stored *y;       /* [M,N] =; NULL: see exact */
    float *exact;    /* [M,N] = add + the product: a weight gradient, or rows with their residual */
    int64_t lda, ldb;
    bool transpose_a, transpose_b;
    const float *add; /* [M,N] beside exact, may be it */
    float *sums;      /* [M] += sums over K of a transposed operand; NULL: none */
    epilogue then;
    const stored *bias;      /* [N] or NULL */
    const float *exact_bias; /* beside exact, [N] or NULL */
    stored *gelu;            /* [M,N]: BIAS_GELU: output; GELU_BACKWARD: gelu of h */
    const stored *h;         /* [M,N]: GELU_BACKWARD: pre-activation */
    /* One round: K values from k0 on are packed at `packed`, in panels of NR columns. */
    void *packed;
    int64_t k0, depth;
    int64_t panels, groups;    /* of NR columns in N; of panels that are packed together */
    int64_t side, down, slabs; /* rows of a tile; tasks below each other over M and side by side over N */
} product;

/* Cuts the outputs into `down` tasks of rows or fewer; where that is not one for each thread, tasks divide the columns
 * too. */
static void cut_outputs(product *p, int64_t side, int64_t down, int threads)
{
    int64_t tiles = tasks_of(p->M, side);
    p->side = side;
    p->down = down < tiles ? down : tiles;
    p->slabs = p->down >= threads ? 1 : tasks_of(threads, p->down);
    if (p->slabs > p->panels) p->slabs = p->panels;
}

/* A task's part of the outputs: rows, and panels [from, to). Parts differ by one tile and one panel at most, so that no
 * thread waits for the rounding up of the others. */
typedef struct {
    int64_t row, rows, from, to;
} outputs;

static outputs outputs_of(const product *p, int64_t task)
{
    int64_t i = task / p->slabs, j = task % p->slabs, tiles = tasks_of(p->M, p->side);
    int64_t row = i * tiles / p->down * p->side, end = (i + 1) * tiles / p->down * p->side;
    return (outputs){row, (end < p->M ? end : p->M) - row, j * p->panels / p->slabs, (j + 1) * p->panels / p->slabs};
}

/* Whether y is of another type than the sums, and the columns that are summed up at a time then: 800 KB for MC rows. */
#ifdef XKD_HALF
enum { OWN_SUMS = 1, OWN_COLUMNS = 512 };
#else
enum { OWN_SUMS = 0, OWN_COLUMNS = 512 };
#endif

/* sums [columns] += the sums over k rows of a [k,columns]: the bias gradient beside a weight gradient, a block of KC at
 * a time, from rows that are being packed anyway. */
static void add_sums(float *sums, const stored *a, int64_t ld, int64_t columns, int64_t k)
{
    for (int64_t c = 0; c < columns; c += W) {
        vec sum = vec_set(0);
        for (int64_t i = 0; i < k; i++) sum += read_part(a + i * ld + c, columns - c);
        vec_store_part(sums + c, vec_load_part(sums + c, columns - c) + sum, columns - c);
    }
}

/* Where the sums of a task are while K runs, `columns` apart. float32 outputs are summed up where they stand; bfloat16 ones
 * in memory of the task's own, which the epilogue rounds once. */
typedef struct {
    float *c;
    int64_t ld;
} sums_at;

/* One vector of a finished tile: c are its sums, `at` is its place in the [M,N] outputs, n how many of its lanes exist.
 * `then` and n are constants where it is inlined. */
INLINE void finish_vector(const product *p, const epilogue then, const float *c, int64_t at, int64_t column,
                          const int64_t n)
{
    vec y = vec_load_part(c, n);
    if (p->bias) y += read_part(p->bias + column, n);
    if (then == BIAS_GELU) {
        write_part(p->gelu + at, vec_gelu(y), n);
        if (p->gelu == p->y) return;
    }
    if (then == GELU_BACKWARD) {
        vec distribution, density, h = read_part(p->h + at, n);
        vec_normal(h, &distribution, &density);
        write_part(p->gelu + at, h * distribution, n);
        y *= vec_fma(h, density, distribution);
    }
    write_part(p->y + at, y, n);
}

/* A finished tile. */
typedef struct {
    sums_at sums; /* c: of its first output */
    int64_t row, column, rows, columns;
} tile;

INLINE void finish_rows(const product *p, const epilogue then, const tile *t)
{
    for (int64_t i = 0; i < t->rows; i++) {
        int64_t at = (t->row + i) * p->N + t->column, j = 0;
        const float *c = t->sums.c + i * t->sums.ld;
        if (t->columns == NR)
#pragma GCC unroll 1 /* two at once want more registers than there are for the constants */
            for (; j < NR; j += W) finish_vector(p, then, c + j, at + j, t->column + j, W);
        for (; j < t->columns; j += W) finish_vector(p, then, c + j, at + j, t->column + j, t->columns - j);
    }
}

/* The bias of rows that stay float32, which stand where their sums do. */
static void add_bias(const product *p, const tile *t)
{
    for (int64_t i = 0; i < t->rows; i++) {
        float *c = t->sums.c + i * t->sums.ld;
        for (int64_t j = 0; j < t->columns; j += W) {
            int64_t n = t->columns - j;
            vec_store_part(c + j, vec_load_part(c + j, n) + vec_load_part(p->exact_bias + t->column + j, n), n);
        }
    }
}

static void finish_tile(const product *p, const tile *t)
{
    if (!p->y) {
        if (p->exact_bias) add_bias(p, t);
        return;
    }
    if (p->then == BIAS_GELU)
        finish_rows(p, BIAS_GELU, t);
    else if (p->then == GELU_BACKWARD)
        finish_rows(p, GELU_BACKWARD, t);
    else if (OWN_SUMS || p->bias)
        finish_rows(p, BIAS, t);
}

/* Runs the product and what follows it. */
static void run_product(xkd_backend *be, product *p);

/* x [M,K] times the transpose of w [N,K]. */
static product forward_product(stored *y, const stored *x, const stored *w, int64_t M, int64_t N, int64_t K)
{
    return (product){.M = M, .N = N, .K = K, .a = x, .lda = K, .b = w, .ldb = K, .transpose_b = true, .y = y};
}

static void linear_forward(xkd_backend *be, void *y, const void *x, const void *w, const void *b, int64_t M, int64_t N,
                           int64_t K)
{
    product p = forward_product(y, x, w, M, N, K);
    p.then = BIAS;
    p.bias = b;
    run_product(be, &p);
}

/* The product is h, and the epilogue writes y; where both are one, nobody wants h. */
static void linear_gelu_forward(xkd_backend *be, void *y, void *h, const void *x, const void *w, const void *b,
                                int64_t M, int64_t N, int64_t K)
{
    product p = forward_product(h, x, w, M, N, K);
    p.then = BIAS_GELU;
    p.bias = b;
    p.gelu = y;
    run_product(be, &p);
}

/* The sum starts from the residual, so that y may be the residual and the bits are the same if it is not. */
static void linear_residual_forward(xkd_backend *be, void *y, const void *residual, const void *x, const void *w,
                                    const void *b, int64_t M, int64_t N, int64_t K)
{
    product p = forward_product(NULL, x, w, M, N, K);
    p.exact = y;
    p.add = residual;
    p.exact_bias = b;
    run_product(be, &p);
}

/* dy [M,N] times w [N,K]: no transposition, both are read along their rows. */
static product backward_product(stored *dx, const stored *dy, const stored *w, int64_t M, int64_t N, int64_t K)
{
    return (product){.M = M, .N = K, .K = N, .a = dy, .lda = N, .b = w, .ldb = K, .y = dx};
}

static void linear_backward_data(xkd_backend *be, void *dx, const void *dy, const void *w, int64_t M, int64_t N,
                                 int64_t K)
{
    product p = backward_product(dx, dy, w, M, N, K);
    run_product(be, &p);
}

/* The first half of a two-layer perceptron's backward in one pass: gelu(h) is needed again for the weight
 * gradient and is made here from h instead of being kept from the forward. `a` may be `h`: each element of h
 * is read before its place is written. */
static void linear_gelu_backward_data(xkd_backend *be, void *dh, void *a, const void *dy, const void *w, const void *h,
                                      int64_t M, int64_t N, int64_t K)
{
    product p = backward_product(dh, dy, w, M, N, K);
    p.then = GELU_BACKWARD;
    p.gelu = a;
    p.h = h;
    run_product(be, &p);
}

/* dy^T [N,M] times x [M,K], onto what dw holds: gradients of all views and micro-batches add up. */
static void linear_backward_weight(xkd_backend *be, void *dw, void *db, const void *dy, const void *x, int64_t M,
                                   int64_t N, int64_t K)
{
    product p = {
        .M = N, .N = K, .K = M, .a = dy, .lda = N, .transpose_a = true, .b = x, .ldb = K, .exact = dw, .add = dw};
    p.sums = db;
    run_product(be, &p);
}

void LEVEL(xkd_cpu_linear_ops)(xkd_ops *ops)
{
    ops->linear_forward = linear_forward;
    ops->linear_gelu_forward = linear_gelu_forward;
    ops->linear_residual_forward = linear_residual_forward;
    ops->linear_backward_data = linear_backward_data;
    ops->linear_gelu_backward_data = linear_gelu_backward_data;
    ops->linear_backward_weight = linear_backward_weight;
}

#endif
