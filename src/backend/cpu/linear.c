/* Linear layers: the output is cut into tiles at fixed boundaries, each tile is one single-threaded product, and what
 * follows the product (bias, GELU, residual) is done while the tile is still in the cache. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/simd.h"

/* Tile of an output: its product re-packs TILE_ROWS x K of a and K x TILE_COLUMNS of b, about 5 % of its time, and
 * the tile itself (400 KB) stays in the second-level cache for the epilogue. */
enum { TILE_ROWS = 272, TILE_COLUMNS = 384 };

/* What is done with a tile after its product. WEIGHT: nothing, but the tile's first column also makes the
 * bias gradient. */
typedef enum { PLAIN, BIAS, BIAS_GELU, BIAS_RESIDUAL, GELU_BACKWARD, WEIGHT } epilogue;

typedef struct {
    xkd_backend *be;
    xkd_gemm whole; /* c is the whole output */
    epilogue then;
    const float *bias;     /* [N] or NULL */
    const float *residual; /* [M,N] */
    float *gelu;           /* [M,N]: BIAS_GELU: output; GELU_BACKWARD: gelu of h */
    const float *h;        /* [M,N]: GELU_BACKWARD: pre-activation */
    float *db;             /* WEIGHT: += column sums of a */
} tiled;

/* One row of n floats behind the product.
 * Columns that do not fill a vector go through part loads, which never touch memory behind the row: another
 * thread may own it. */
static void finish_row(const tiled *t, float *c, int64_t at, int64_t column, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES) {
        int64_t part = n - i < LANES ? n - i : LANES;
        vf y = v_load_part(c + i, part);
        if (t->bias) y += v_load_part(t->bias + column + i, part);
        if (t->then == BIAS_RESIDUAL) y += v_load_part(t->residual + at + i, part);
        if (t->then == BIAS_GELU) v_store_part(t->gelu + at + i, v_gelu(y), part);
        if (t->then == GELU_BACKWARD) {
            vf distribution, density, h = v_load_part(t->h + at + i, part);
            v_normal(h, &distribution, &density);
            v_store_part(t->gelu + at + i, h * distribution, part);
            y *= distribution + h * density;
        }
        v_store_part(c + i, y, part);
    }
}

/* The same for n a multiple of 16, the common case, without the part-vector moves. */
static void finish_whole_row(const tiled *t, float *c, int64_t at, int64_t column, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES) {
        vf y = v_load(c + i);
        if (t->bias) y += v_load(t->bias + column + i);
        if (t->then == BIAS_RESIDUAL) y += v_load(t->residual + at + i);
        if (t->then == BIAS_GELU) v_store(t->gelu + at + i, v_gelu(y));
        if (t->then == GELU_BACKWARD) {
            vf distribution, density, h = v_load(t->h + at + i);
            v_normal(h, &distribution, &density);
            v_store(t->gelu + at + i, h * distribution);
            y *= distribution + h * density;
        }
        v_store(c + i, y);
    }
}

/* `at` is the position in the whole [M,N] output, for the tensors that run beside it; c itself is addressed
 * inside the tile. */
static void finish_tile(const tiled *t, const xkd_gemm *g, int64_t first_row, int64_t first_column)
{
    if (t->then == PLAIN || t->then == WEIGHT || (t->then == BIAS && !t->bias)) return;
    for (int64_t r = 0; r < g->M; r++) {
        int64_t at = (first_row + r) * t->whole.ldc + first_column;
        if (g->N % LANES)
            finish_row(t, g->c + r * g->ldc, at, first_column, g->N);
        else
            finish_whole_row(t, g->c + r * g->ldc, at, first_column, g->N);
    }
}

/* db [rows of the tile] += sums over the K rows of a [K,M]: the bias gradient next to a weight gradient.
 * Only tiles of column 0 do this, else every column of tiles would add the same sums again. Bounded by
 * memory: one more read of dy, which the product has just had in the cache. */
static void bias_gradient(const tiled *t, const xkd_gemm *g, int64_t first_row)
{
    for (int64_t m = 0; m < g->M; m += LANES) {
        int64_t part = g->M - m < LANES ? g->M - m : LANES;
        float *db = t->db + first_row + m;
        vf sum = {0};
        for (int64_t k = 0; k < g->K; k++) sum += v_load_part(g->a + k * g->lda + m, part);
        v_store_part(db, v_load_part(db, part) + sum, part);
    }
}

/* Tiles do not overlap and their boundaries depend on the shape alone, so every element is the same sum in
 * the same order for any number of threads. */
static void run_tile(void *arg, int64_t index, int thread)
{
    const tiled *t = arg;
    int64_t columns = tasks_of(t->whole.N, TILE_COLUMNS);
    int64_t i = index / columns, j = index % columns, row = i * TILE_ROWS, column = j * TILE_COLUMNS;
    xkd_gemm g = t->whole;
    (void)thread;
    g.M = task_size(i, t->whole.M, TILE_ROWS);
    g.N = task_size(j, t->whole.N, TILE_COLUMNS);
    /* With transpose_a the rows of the output are columns of the stored a; likewise for b. */
    g.a += g.transpose_a ? row : row * g.lda;
    g.b += g.transpose_b ? column * g.ldb : column;
    g.c += row * g.ldc + column;
    run_gemm(t->be, &g);
    finish_tile(t, &g, row, column);
    if (t->db && j == 0) bias_gradient(t, &g, row);
}

/* products counts multiply-adds, without epilogue: the figure that `xkd bench` turns into FLOP/s. */
static void run_tiled(xkd_backend *be, tiled *t)
{
    int64_t tiles = tasks_of(t->whole.M, TILE_ROWS) * tasks_of(t->whole.N, TILE_COLUMNS);
    t->be = be;
    be->products += t->whole.M * t->whole.N * t->whole.K;
    xkd_parallel_for(be->pool, tiles, run_tile, t);
}

/* x [M,K] times the transpose of w [N,K]. */
static xkd_gemm forward_product(float *y, const float *x, const float *w, int64_t M, int64_t N, int64_t K)
{
    return (xkd_gemm){
        .transpose_b = true, .M = M, .N = N, .K = K, .alpha = 1, .a = x, .lda = K, .b = w, .ldb = K, .c = y, .ldc = N};
}

static void linear_forward(xkd_backend *be, void *y, const void *x, const void *w, const void *b, int64_t M, int64_t N,
                           int64_t K)
{
    tiled t = {.whole = forward_product(y, x, w, M, N, K), .then = BIAS, .bias = b};
    run_tiled(be, &t);
}

/* The epilogue leaves h in c and writes y. */
static void linear_gelu_forward(xkd_backend *be, void *y, void *h, const void *x, const void *w, const void *b,
                                int64_t M, int64_t N, int64_t K)
{
    tiled t = {.whole = forward_product(h, x, w, M, N, K), .then = BIAS_GELU, .bias = b, .gelu = y};
    run_tiled(be, &t);
}

/* In place the residual is what c holds already, and the product adds to it. */
static void linear_residual_forward(xkd_backend *be, void *y, const void *residual, const void *x, const void *w,
                                    const void *b, int64_t M, int64_t N, int64_t K)
{
    tiled t = {.whole = forward_product(y, x, w, M, N, K),
               .then = y == residual ? BIAS : BIAS_RESIDUAL,
               .bias = b,
               .residual = residual};
    if (y == residual) t.whole.beta = 1;
    run_tiled(be, &t);
}

/* dy [M,N] times w [N,K]: no transposition, both are read along their rows. */
static void linear_backward_data(xkd_backend *be, void *dx, const void *dy, const void *w, int64_t M, int64_t N,
                                 int64_t K)
{
    tiled t = {.whole = {.M = M, .N = K, .K = N, .alpha = 1, .a = dy, .lda = N, .b = w, .ldb = K, .c = dx, .ldc = K}};
    run_tiled(be, &t);
}

/* The first half of a two-layer perceptron's backward in one pass: gelu(h) is needed again for the weight
 * gradient and is made here from h instead of being kept from the forward. `a` may be `h`: each element of h
 * is read before its place is written. */
static void linear_gelu_backward_data(xkd_backend *be, void *dh, void *a, const void *dy, const void *w, const void *h,
                                      int64_t M, int64_t N, int64_t K)
{
    tiled t = {.whole = {.M = M, .N = K, .K = N, .alpha = 1, .a = dy, .lda = N, .b = w, .ldb = K, .c = dh, .ldc = K},
               .then = GELU_BACKWARD,
               .gelu = a,
               .h = h};
    run_tiled(be, &t);
}

/* dy^T [N,M] times x [M,K], onto what dw holds (beta = 1): gradients of all views and micro-batches add up. */
static void linear_backward_weight(xkd_backend *be, void *dw, void *db, const void *dy, const void *x, int64_t M,
                                   int64_t N, int64_t K)
{
    tiled t = {.whole = {.transpose_a = true,
                         .M = N,
                         .N = K,
                         .K = M,
                         .alpha = 1,
                         .beta = 1,
                         .a = dy,
                         .lda = N,
                         .b = x,
                         .ldb = K,
                         .c = dw,
                         .ldc = K},
               .then = WEIGHT,
               .db = db};
    run_tiled(be, &t);
}

void xkd_cpu_linear_ops(xkd_ops *ops)
{
    ops->linear_forward = linear_forward;
    ops->linear_gelu_forward = linear_gelu_forward;
    ops->linear_residual_forward = linear_residual_forward;
    ops->linear_backward_data = linear_backward_data;
    ops->linear_gelu_backward_data = linear_gelu_backward_data;
    ops->linear_backward_weight = linear_backward_weight;
}
