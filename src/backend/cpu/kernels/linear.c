/* Linear layers. The right operand is packed once, by all threads; then every task packs its rows of the left operand
 * block by block, and what follows the product (bias, GELU, residual) is done while a tile is in the first-level
 * cache. How outputs are cut into tasks may depend on the number of threads: no sum does. */
#include "backend/cpu/kernels/layers.h"

/* The packed right operand may take this much; longer K goes in rounds. It is read once for each MC rows of the left
 * one, mostly from the last-level cache. */
enum { PACKED_BYTES = 16 << 20 };

/* Columns that one packing task takes at most: long enough runs of memory for the prefetcher. */
enum { PACK_COLUMNS = 128, PACK_PANELS = PACK_COLUMNS / NR };

static float *panel_at(const product *p, int64_t block, int64_t panel)
{
    return (float *)p->packed + (block * p->panels + panel) * B_PANEL;
}

/* Packs one block of K of a few panels. */
static void pack_task(void *arg, int64_t index, int thread)
{
    const product *p = arg;
    int64_t group = index % p->groups, block = index / p->groups, k = task_size(block, p->depth, KC);
    int64_t first = group * p->panels / p->groups, last = (group + 1) * p->panels / p->groups;
    int64_t from = p->k0 + block * KC;
    (void)thread;
    for (int64_t i = first; i < last; i++) {
        int64_t columns = task_size(i, p->N, NR);
        if (p->transpose_b)
            pack_transposed_panel(panel_at(p, block, i), p->b + i * NR * p->ldb + from, p->ldb, columns, k);
        else
            pack_panel(panel_at(p, block, i), p->b + from * p->ldb + i * NR, p->ldb, columns, k);
    }
}

/* What a tile will read or add to is asked for before its product, which then hides the wait. */
INLINE void prefetch_tile(const void *c, int64_t line, int64_t bytes, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < bytes; j += 64) __builtin_prefetch((const char *)c + i * line + j, 1);
}

/* The next panel of b comes from the last-level cache or from memory. Each tile of a panel asks for its share of it,
 * `lines` cache lines; past the last panel that is harmless. */
INLINE void prefetch_slice(const float *slice, int64_t lines)
{
    for (int64_t i = 0; i < lines; i++) __builtin_prefetch(slice + i * 16, 0, 2);
}

/* One block of K of a task, whose rows of a are packed. */
typedef struct {
    int64_t row, rows, k;
    const float *a;
    sums_at sums; /* of the task's first row, and of the column `first` */
    int64_t first;
    const float *add; /* like sums.c: what this block's sums are added to; NULL: nothing */
    bool last;
} block_of_k;

/* One tile of MR x NR outputs at row i of the task. `row` and `step` as in tile_add_part. */
INLINE void run_tile(const product *p, const block_of_k *t, int64_t i, int64_t column, const float *b,
                     const int64_t row, const int64_t step)
{
    vec acc[MR][NV];
    int64_t offset = i * t->sums.ld + column - t->first;
    tile out = {{t->sums.c + offset, t->sums.ld}, t->row + i, column, t->rows - i, p->N - column};
    const float *a = t->a + (step == 1 ? i * row : i / MR * A_PANEL), *add = t->add ? t->add + offset : NULL;
    if (out.rows > MR) out.rows = MR;
    if (out.columns > NR) out.columns = NR;
    prefetch_tile(out.sums.c, out.sums.ld * (int64_t)sizeof(float), NR * sizeof(float), out.rows);
    if (t->last && p->then == GELU_BACKWARD)
        prefetch_tile(p->h + out.row * p->N + column, p->N * (int64_t)sizeof *p->h, NR * sizeof *p->h, out.rows);
    tile_zero(acc);
    tile_add_product(acc, out.columns, t->k, a, row, step, b);
    if (out.rows == MR && out.columns == NR)
        tile_store(acc, out.sums.c, add, out.sums.ld);
    else
        tile_store_part(acc, out.sums.c, add, out.sums.ld, out.rows, out.columns);
    if (t->last) finish_tile(p, &out);
}

/* Over b's panels first and rows of a inside: a panel of b stays in the first-level cache, the rows of a in the
 * second. */
INLINE void run_block(const product *p, const block_of_k *t, int64_t block, int64_t from, int64_t to, const int64_t row,
                      const int64_t step)
{
    int64_t lines = tasks_of(tasks_of(t->k * NR, 16), tasks_of(t->rows, MR));
    for (int64_t j = from; j < to; j++) {
        const float *next = panel_at(p, block, j + 1);
        for (int64_t i = 0; i < t->rows; i += MR, next += lines * 16) {
            prefetch_slice(next, lines);
            run_tile(p, t, i, j * NR, panel_at(p, block, j), row, step);
        }
    }
}

/* Where the sums of a task's panels from `from` on are, and what its first block adds to. */
static void place_sums(const product *p, block_of_k *t, int64_t from, float *own)
{
    t->first = from * NR;
    if (OWN_SUMS && p->y) {
        t->sums = (sums_at){own, OWN_COLUMNS};
        t->add = NULL;
        return;
    }
    float *c = p->y ? (float *)(void *)p->y : p->exact; /* y is float32 here */
    t->sums = (sums_at){c + t->row * p->N + t->first, p->N};
    t->add = p->add ? p->add + t->row * p->N + t->first : NULL;
}

/* A task's rows, and panels [from, to), of one round. */
static void run_panels(const product *p, block_of_k *t, int64_t from, int64_t to, float *a, float *own)
{
    place_sums(p, t, from, own);
    t->a = a;
    for (int64_t block = 0; block * KC < p->depth; block++) {
        int64_t at = p->k0 + block * KC;
        t->k = task_size(block, p->depth, KC);
        if (at > 0) t->add = t->sums.c;
        t->last = at + t->k == p->K;
        if (p->transpose_a) {
            const stored *in = p->a + at * p->lda + t->row;
            if (p->sums && from == 0) add_sums(p->sums + t->row, in, p->lda, t->rows, t->k);
            pack_columns(a, A_PANEL, in, p->lda, t->rows, t->k);
            run_block(p, t, block, from, to, 1, MR);
        } else {
            pack_rows(a, A_ROW, p->a + t->row * p->lda + at, p->lda, t->rows, t->k);
            run_block(p, t, block, from, to, A_ROW, 1);
        }
    }
}

/* Sums of its own hold some columns at a time, for which the rows of a are packed again. */
static void product_task(void *arg, int64_t index, int thread)
{
    const product *p = arg;
    outputs part = outputs_of(p, index);
    block_of_k t = {.row = part.row, .rows = part.rows};
    int64_t own = OWN_SUMS && p->y ? MC * OWN_COLUMNS : 0, each = own ? OWN_COLUMNS / NR : p->panels;
    float *a = xkd_backend_scratch(p->be, thread, (MC * A_ROW + own) * (int64_t)sizeof *a);
    if (!a) return;
    for (int64_t from = part.from; from < part.to; from += each)
        run_panels(p, &t, from, from + each < part.to ? from + each : part.to, a, a + MC * A_ROW);
}

/* Every thread gets an equal number of tasks, of at most MC rows and, where that is possible, of at least four tiles. */
static void cut_tasks(product *p, int threads)
{
    int64_t most = tasks_of(p->M, 4 * MR), wanted = tasks_of(tasks_of(p->M, MC), threads) * threads;
    cut_outputs(p, MR, wanted < most ? wanted : most, threads);
    p->groups = tasks_of(tasks_of(p->panels, PACK_PANELS), threads) * threads;
    if (p->groups > p->panels) p->groups = p->panels;
}

/* products counts multiply-adds, without epilogue: the figure that `xkd bench` turns into FLOP/s. */
static void run_product(xkd_backend *be, product *p)
{
    int threads = xkd_pool_threads(be->pool);
    p->be = be;
    p->panels = tasks_of(p->N, NR);
    int64_t block = p->panels * B_PANEL * (int64_t)sizeof(float), blocks = tasks_of(p->K, KC);
    int64_t fit = PACKED_BYTES / block > 1 ? PACKED_BYTES / block : 1;
    int64_t rounds = OWN_SUMS && p->y ? 1 : tasks_of(blocks, fit); /* sums of a task's own do not outlive it */
    int64_t depth = tasks_of(blocks, rounds) * KC;
    be->products += p->M * p->N * p->K;
    p->packed = xkd_backend_shared_scratch(be, (depth / KC) * block);
    if (!p->packed) return;
    cut_tasks(p, threads);
    for (p->k0 = 0; p->k0 < p->K; p->k0 += depth) {
        p->depth = p->K - p->k0 < depth ? p->K - p->k0 : depth;
        xkd_parallel_for(be->pool, tasks_of(p->depth, KC) * p->groups, pack_task, p);
        xkd_parallel_for(be->pool, p->down * p->slabs, product_task, p);
    }
}
