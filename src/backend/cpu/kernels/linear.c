/* Linear layers. The right operand is packed once, by all threads; then every task packs its rows of the left operand
 * block by block, and what follows the product (bias, GELU, residual) is done while a tile is in the first-level
 * cache. How outputs are cut into tasks may depend on the number of threads: no sum does. */
#include "backend/cpu/kernels/product.h"

/* What is done with a tile when its last block of K is in. */
typedef enum { PLAIN, BIAS, BIAS_GELU, GELU_BACKWARD } epilogue;

typedef struct {
    xkd_backend *be;
    int64_t M, N, K;
    const float *a; /* [M,K] or, transposed, [K,M] */
    const float *b; /* [K,N] or, transposed, [N,K] */
    float *c;       /* [M,N] */
    int64_t lda, ldb;
    bool transpose_a, transpose_b;
    const float *add; /* [M,N] what the sum starts from, may be c; NULL: 0 */
    float *sums;      /* [M] += sums over K of a transposed operand; NULL: none */
    epilogue then;
    const float *bias; /* [N] or NULL */
    float *gelu;       /* [M,N]: BIAS_GELU: output; GELU_BACKWARD: gelu of h */
    const float *h;    /* [M,N]: GELU_BACKWARD: pre-activation */
    /* One round: K values from k0 on are packed at `packed`, in blocks of KC and panels of NR columns. */
    float *packed;
    int64_t k0, depth;
    int64_t panels;               /* of NR columns in N */
    int64_t rows, columns, slabs; /* of a task; slabs: tasks side by side over N */
} product;

/* The packed right operand may take this much; longer K goes in rounds. It is read once for each MC rows of the left
 * one, mostly from the last-level cache. */
enum { PACKED_BYTES = 16 << 20 };

/* Columns that one packing task takes: long enough runs of memory for the prefetcher. */
enum { PACK_COLUMNS = 128, PACK_PANELS = PACK_COLUMNS / NR };

static float *panel_at(const product *p, int64_t block, int64_t panel)
{
    return p->packed + (block * p->panels + panel) * B_PANEL;
}

/* Packs one block of K of a few panels. */
static void pack_task(void *arg, int64_t index, int thread)
{
    const product *p = arg;
    int64_t groups = tasks_of(p->panels, PACK_PANELS), block = index / groups, first = index % groups * PACK_PANELS;
    int64_t k = task_size(block, p->depth, KC), from = p->k0 + block * KC;
    int64_t last = first + PACK_PANELS < p->panels ? first + PACK_PANELS : p->panels;
    (void)thread;
    for (int64_t i = first; i < last; i++) {
        int64_t columns = task_size(i, p->N, NR);
        if (p->transpose_b)
            pack_transposed_panel(panel_at(p, block, i), p->b + i * NR * p->ldb + from, p->ldb, columns, k);
        else
            pack_panel(panel_at(p, block, i), p->b + from * p->ldb + i * NR, p->ldb, columns, k);
    }
}

/* sums [columns] += the sums over k rows of a [k,columns]: the bias gradient beside a weight gradient, a block of KC at
 * a time, from rows that are being packed anyway. */
static void add_sums(float *sums, const float *a, int64_t ld, int64_t columns, int64_t k)
{
    for (int64_t c = 0; c < columns; c += W) {
        vec sum = vec_set(0);
        for (int64_t i = 0; i < k; i++) sum += vec_load_part(a + i * ld + c, columns - c);
        vec_store_part(sums + c, vec_load_part(sums + c, columns - c) + sum, columns - c);
    }
}

/* One vector of a finished tile; `at` is its place in the [M,N] outputs, n how many of its lanes exist. `then` and n are
 * constants where it is inlined. */
INLINE void finish_vector(const product *p, const epilogue then, int64_t at, int64_t column, const int64_t n)
{
    vec y = vec_load_part(p->c + at, n);
    if (p->bias) y += vec_load_part(p->bias + column, n);
    if (then == BIAS_GELU) {
        vec_store_part(p->gelu + at, vec_gelu(y), n);
        if (p->gelu == p->c) return;
    }
    if (then == GELU_BACKWARD) {
        vec distribution, density, h = vec_load_part(p->h + at, n);
        vec_normal(h, &distribution, &density);
        vec_store_part(p->gelu + at, h * distribution, n);
        y *= vec_fma(h, density, distribution);
    }
    vec_store_part(p->c + at, y, n);
}

INLINE void finish_rows(const product *p, const epilogue then, int64_t row, int64_t column, int64_t rows,
                        int64_t columns)
{
    for (int64_t i = row; i < row + rows; i++) {
        int64_t at = i * p->N + column, j = 0;
        if (columns == NR)
#pragma GCC unroll 1 /* two at once want more registers than there are for the constants */
            for (; j < NR; j += W) finish_vector(p, then, at + j, column + j, W);
        for (; j < columns; j += W) finish_vector(p, then, at + j, column + j, columns - j);
    }
}

static void finish_tile(const product *p, int64_t row, int64_t column, int64_t rows, int64_t columns)
{
    if (p->then == BIAS && p->bias) finish_rows(p, BIAS, row, column, rows, columns);
    if (p->then == BIAS_GELU) finish_rows(p, BIAS_GELU, row, column, rows, columns);
    if (p->then == GELU_BACKWARD) finish_rows(p, GELU_BACKWARD, row, column, rows, columns);
}

/* What a tile will read or add to is asked for before its product, which then hides the wait. */
INLINE void prefetch_tile(const float *c, int64_t ld, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < NR; j += 16) __builtin_prefetch(c + i * ld + j, 1);
}

/* The next panel of b comes from the last-level cache or from memory. Each tile of a panel asks for its share of it; past
 * the last panel that is harmless. */
INLINE void prefetch_slice(const float *panel, int64_t row, int64_t rows)
{
    const int64_t lines = B_PANEL / 16;
    for (int64_t i = row * lines / rows; i < (row + MR) * lines / rows; i++) __builtin_prefetch(panel + i * 16, 0, 2);
}

/* One block of K of a task, whose rows of a are packed. */
typedef struct {
    int64_t row, rows, k;
    const float *a;
    const float *add; /* [M,N] what this block's sums are added to; NULL: nothing */
    bool last;
} block_of_k;

/* One tile of MR x NR outputs at row i of the task. `row` and `step` as in tile_add_part. */
INLINE void run_tile(const product *p, const block_of_k *t, int64_t i, int64_t column, const float *b,
                     const int64_t row, const int64_t step)
{
    vec acc[MR][NV];
    int64_t at = (t->row + i) * p->N + column, rows = t->rows - i, columns = p->N - column;
    const float *a = t->a + (step == 1 ? i * row : i / MR * A_PANEL), *add = t->add ? t->add + at : NULL;
    if (rows > MR) rows = MR;
    if (columns > NR) columns = NR;
    prefetch_tile(p->c + at, p->N, rows);
    if (t->last && p->then == GELU_BACKWARD) prefetch_tile(p->h + at, p->N, rows);
    tile_zero(acc);
    if (columns > NR / 2)
        tile_add_part(acc, NV, t->k, a, row, step, b);
    else
        tile_add_part(acc, NV / 2, t->k, a, row, step, b);
    if (rows == MR && columns == NR)
        tile_store(acc, p->c + at, add, p->N);
    else
        tile_store_part(acc, p->c + at, add, p->N, rows, columns);
    if (t->last) finish_tile(p, t->row + i, column, rows, columns);
}

/* Over b's panels first and rows of a inside: a panel of b stays in the first-level cache, the rows of a in the
 * second. */
INLINE void run_block(const product *p, const block_of_k *t, int64_t block, int64_t from, int64_t to, const int64_t row,
                      const int64_t step)
{
    for (int64_t j = from; j < to; j++)
        for (int64_t i = 0; i < t->rows; i += MR) {
            prefetch_slice(panel_at(p, block, j + 1), i, t->rows);
            run_tile(p, t, i, j * NR, panel_at(p, block, j), row, step);
        }
}

/* A task's rows and columns of one round. */
static void product_task(void *arg, int64_t index, int thread)
{
    const product *p = arg;
    block_of_k t = {.row = index / p->slabs * p->rows};
    int64_t from = index % p->slabs * p->columns / NR, to = (index % p->slabs + 1) * p->columns / NR;
    float *a = xkd_backend_scratch(p->be, thread, (int64_t)(MC * A_ROW) * (int64_t)sizeof *a);
    if (!a) return;
    t.a = a;
    t.rows = p->M - t.row < p->rows ? p->M - t.row : p->rows;
    if (to > p->panels) to = p->panels;
    for (int64_t block = 0; block * KC < p->depth; block++) {
        int64_t at = p->k0 + block * KC;
        t.k = task_size(block, p->depth, KC);
        t.add = at == 0 ? p->add : p->c;
        t.last = at + t.k == p->K;
        if (p->transpose_a) {
            const float *in = p->a + at * p->lda + t.row;
            if (p->sums && from == 0) add_sums(p->sums + t.row, in, p->lda, t.rows, t.k);
            pack_columns(a, A_PANEL, in, p->lda, t.rows, t.k);
            run_block(p, &t, block, from, to, 1, MR);
        } else {
            pack_rows(a, A_ROW, p->a + t.row * p->lda + at, p->lda, t.rows, t.k);
            run_block(p, &t, block, from, to, A_ROW, 1);
        }
    }
}

/* Every thread gets an equal number of tasks of equal size, at most MC rows each; where there are too few rows for
 * that, tasks share rows and divide the columns. */
static void cut_tasks(product *p, int threads)
{
    int64_t most = tasks_of(p->M, 4 * MR), wanted = tasks_of(tasks_of(p->M, MC), threads) * threads;
    int64_t down = wanted < most ? wanted : most;
    p->rows = tasks_of(tasks_of(p->M, down), MR) * MR;
    down = tasks_of(p->M, p->rows);
    p->slabs = down >= threads ? 1 : tasks_of(threads, down);
    if (p->slabs > p->panels) p->slabs = p->panels;
    p->columns = tasks_of(p->panels, p->slabs) * NR;
}

/* products counts multiply-adds, without epilogue: the figure that `xkd bench` turns into FLOP/s. */
static void run_product(xkd_backend *be, product *p)
{
    int threads = xkd_pool_threads(be->pool);
    p->be = be;
    p->panels = tasks_of(p->N, NR);
    int64_t block = p->panels * B_PANEL * (int64_t)sizeof *p->packed, blocks = tasks_of(p->K, KC);
    int64_t fit = PACKED_BYTES / block > 1 ? PACKED_BYTES / block : 1, rounds = tasks_of(blocks, fit);
    int64_t depth = tasks_of(blocks, rounds) * KC;
    be->products += p->M * p->N * p->K;
    p->packed = xkd_backend_shared_scratch(be, (depth / KC) * block);
    if (!p->packed) return;
    cut_tasks(p, threads);
    for (p->k0 = 0; p->k0 < p->K; p->k0 += depth) {
        p->depth = p->K - p->k0 < depth ? p->K - p->k0 : depth;
        xkd_parallel_for(be->pool, tasks_of(p->depth, KC) * tasks_of(p->panels, PACK_PANELS), pack_task, p);
        xkd_parallel_for(be->pool, tasks_of(p->M, p->rows) * p->slabs, product_task, p);
    }
}

/* x [M,K] times the transpose of w [N,K]. */
static product forward_product(float *y, const float *x, const float *w, int64_t M, int64_t N, int64_t K)
{
    return (product){.M = M, .N = N, .K = K, .a = x, .lda = K, .b = w, .ldb = K, .transpose_b = true, .c = y};
}

static void linear_forward(xkd_backend *be, void *y, const void *x, const void *w, const void *b, int64_t M, int64_t N,
                           int64_t K)
{
    product p = forward_product(y, x, w, M, N, K);
    p.then = BIAS;
    p.bias = b;
    run_product(be, &p);
}

/* The epilogue leaves h in c and writes y; where both are one, nobody wants h. */
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
    product p = forward_product(y, x, w, M, N, K);
    p.then = BIAS;
    p.bias = b;
    p.add = residual;
    run_product(be, &p);
}

/* dy [M,N] times w [N,K]: no transposition, both are read along their rows. */
static product backward_product(float *dx, const float *dy, const float *w, int64_t M, int64_t N, int64_t K)
{
    return (product){.M = M, .N = K, .K = N, .a = dy, .lda = N, .b = w, .ldb = K, .c = dx};
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
    product p = {.M = N,
                 .N = K,
                 .K = M,
                 .a = dy,
                 .lda = N,
                 .transpose_a = true,
                 .b = x,
                 .ldb = K,
                 .c = dw,
                 .add = dw,
                 .sums = db};
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
