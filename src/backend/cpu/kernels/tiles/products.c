/* Products in bfloat16 on processors with AMX: an instruction takes 16 x 16 outputs and 32 of K, multiplies pairs of neighbours
 * along K and adds them into float32; 32 x 32 outputs at a time, over all of K. It wants the left operand as rows [rows][K]
 * and the right one as panels [K / 2][NR][2].
 *
 * An output is one chain over K in order: its bits depend on its row, its column and K alone. They differ from those of
 * other levels, whose sums are rounded elsewhere. */
#include <immintrin.h>

#include "backend/cpu/kernels/layers.h"

/* Tiles of 32 x 32, K in steps of 32; what does not exist is 0. */
enum { SIDE = 32, STEP = 32 };

/* The left operand of a task is at most 1 MB, half of the second-level cache; longer K of weight gradients goes in rounds. */
enum { LEFT_BYTES = 1 << 20, MOST_ROWS = 512, DEPTH = 3072 };

/* Values from row to row of the packed left operand: whole lines, and one more to stay off the same cache sets. */
static int64_t left_row(const product *p)
{
    return tasks_of(p->depth, STEP) * STEP + STEP;
}

static int64_t panel_values(const product *p)
{
    return tasks_of(p->depth, STEP) * STEP * NR;
}

static uint16_t *panel_at(const product *p, int64_t panel)
{
    return (uint16_t *)p->packed + panel * panel_values(p);
}

/* A pair of values as one number of 32 bits. */
typedef uint32_t __attribute__((may_alias)) pair;

/* Rows [rows][k] of `in`, ld apart, turned into pairs [ceil(k / 2)][ldo]: columns of `out` are rows of `in`. */
static void turn_pairs(pair *out, int64_t ldo, const uint16_t *in, int64_t ld, int64_t rows, int64_t k)
{
    for (int64_t r = 0; r < rows; r += TB) {
        int64_t i = 0;
        if (r + TB <= rows)
            for (; i + 2 * TB <= k; i += 2 * TB) {
                float block[TB * TB];
                for (int64_t j = 0; j < TB; j++) memcpy(block + j * TB, in + (r + j) * ld + i, 2 * TB * sizeof *in);
                transpose_block((float *)(void *)(out + i / 2 * ldo + r), ldo, block, TB);
            }
        for (; i < k; i += 2)
            for (int64_t j = r; j < rows && j < r + TB; j++)
                out[i / 2 * ldo + j] = in[j * ld + i] | (i + 1 < k ? (pair)in[j * ld + i + 1] << 16 : 0);
    }
}

/* Pairs [columns] of two rows of `in`, the second one 0 where it is NULL. */
static void join_rows(pair *out, const uint16_t *first, const uint16_t *second, int64_t columns)
{
    for (int64_t c = 0; c < columns; c++) out[c] = first[c] | (second ? (pair)second[c] << 16 : 0);
}

/* One panel of the right operand. */
static void pack_task(void *arg, int64_t index, int thread)
{
    const product *p = arg;
    int64_t columns = task_size(index, p->N, NR), k = p->depth;
    pair *panel = (pair *)(void *)panel_at(p, index);
    (void)thread;
    memset(panel, 0, (size_t)panel_values(p) * sizeof(uint16_t));
    if (p->transpose_b) {
        turn_pairs(panel, NR, p->b + index * NR * p->ldb + p->k0, p->ldb, columns, k);
        return;
    }
    const uint16_t *in = p->b + p->k0 * p->ldb + index * NR;
    for (int64_t i = 0; i < k; i += 2, in += 2 * p->ldb)
        join_rows(panel + i / 2 * NR, in, i + 1 < k ? in + p->ldb : NULL, columns);
}

/* Rows of the left operand [rows up to a multiple of SIDE][left_row]. A transposed one is joined and turned a few columns
 * at a time. */
static void pack_left(const product *p, uint16_t *out, int64_t row, int64_t rows)
{
    int64_t ld = left_row(p), k = p->depth;
    memset(out, 0, (size_t)(tasks_of(rows, SIDE) * SIDE * ld) * sizeof *out);
    if (!p->transpose_a) {
        for (int64_t r = 0; r < rows; r++)
            memcpy(out + r * ld, p->a + (row + r) * p->lda + p->k0, (size_t)k * sizeof *out);
        return;
    }
    for (int64_t i = 0; i < k; i += 2 * TB) {
        pair joined[TB][MOST_ROWS];
        int64_t pairs = (k - i < 2 * TB ? k - i + 1 : 2 * TB) / 2;
        for (int64_t j = 0; j < pairs; j++) {
            const uint16_t *in = p->a + (p->k0 + i + 2 * j) * p->lda + row;
            join_rows(joined[j], in, i + 2 * j + 1 < k ? in + p->lda : NULL, rows);
        }
        for (int64_t r = 0; r < rows; r += TB) {
            pair *to = (pair *)(void *)(out + r * ld + i);
            if (pairs == TB && r + TB <= rows)
                transpose_block((float *)(void *)to, ld / 2, (const float *)(const void *)(joined[0] + r), MOST_ROWS);
            else
                for (int64_t x = r; x < rows && x < r + TB; x++)
                    for (int64_t j = 0; j < pairs; j++) to[(x - r) * (ld / 2) + j] = joined[j][x];
        }
    }
}

/* Tiles 0 to 3 are outputs, 4 and 5 of the left operand, 6 and 7 of the right one; all of 16 rows of 64 bytes. */
INLINE void begin_tiles(void)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shape.bytes[i] = 64;
        shape.rows[i] = 16;
    }
    _tile_loadconfig(&shape);
}

INLINE void end_tiles(void)
{
    _tile_release();
}

/* sums [SIDE][SIDE] = rows of a, ld apart, times the panel b, over k values. */
INLINE void multiply(float *sums, const uint16_t *a, int64_t ld, const uint16_t *b, int64_t k)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t i = 0; i < k; i += STEP) {
        _tile_loadd(4, a + i, ld * 2);
        _tile_loadd(6, b + i * NR, NR * 4);
        _tile_loadd(7, b + i * NR + NR, NR * 4);
        _tile_loadd(5, a + 16 * ld + i, ld * 2);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, SIDE * 4);
    _tile_stored(1, sums + 16, SIDE * 4);
    _tile_stored(2, sums + 16 * SIDE, SIDE * 4);
    _tile_stored(3, sums + 16 * SIDE + 16, SIDE * 4);
}

/* A tile's sums onto what the first round adds to, and each later one to what it left; behind the last one the bias. */
static void add_tile(const product *p, const tile *t)
{
    const float *from = p->k0 > 0 ? p->exact : p->add, *bias = p->k0 + p->depth == p->K ? p->exact_bias : NULL;
    for (int64_t i = 0; i < t->rows; i++) {
        int64_t at = (t->row + i) * p->N + t->column;
        const float *c = t->sums.c + i * t->sums.ld;
        for (int64_t j = 0; j < t->columns; j += W) {
            int64_t n = t->columns - j;
            vec sum = vec_load_part(from + at + j, n) + vec_load_part(c + j, n);
            if (bias) sum += vec_load_part(bias + t->column + j, n);
            vec_store_part(p->exact + at + j, sum, n);
        }
    }
}

/* A task's rows and columns of one round: the panels outside, so that each is read from further away once. */
static void product_task(void *arg, int64_t index, int thread)
{
    const product *p = arg;
    _Alignas(64) float sums[SIDE * SIDE];
    outputs part = outputs_of(p, index);
    int64_t row = part.row, rows = part.rows, ld = left_row(p);
    uint16_t *a = xkd_backend_scratch(p->be, thread, tasks_of(rows, SIDE) * SIDE * ld * (int64_t)sizeof *a);
    if (!a) return;
    pack_left(p, a, row, rows);
    if (p->sums && part.from == 0) add_sums(p->sums + row, p->a + p->k0 * p->lda + row, p->lda, rows, p->depth);
    begin_tiles();
    for (int64_t j = part.from * NR; j < part.to * NR; j += NR)
        for (int64_t i = 0; i < rows; i += SIDE) {
            tile t = {{sums, SIDE}, row + i, j, rows - i < SIDE ? rows - i : SIDE, p->N - j < NR ? p->N - j : NR};
            multiply(sums, a + i * ld, ld, panel_at(p, j / NR), tasks_of(p->depth, STEP) * STEP);
            if (p->exact)
                add_tile(p, &t);
            else
                finish_tile(p, &t);
        }
    end_tiles();
}

/* Rows that fit, in equal parts for all threads; where there are too few rows for that, tasks divide the columns. */
static void cut_tasks(product *p, int threads)
{
    int64_t fit = LEFT_BYTES / (left_row(p) * 2) / SIDE * SIDE, most = fit < SIDE ? SIDE : fit;
    if (most > MOST_ROWS) most = MOST_ROWS;
    cut_outputs(p, SIDE, tasks_of(tasks_of(p->M, most), threads) * threads, threads);
}

static void run_product(xkd_backend *be, product *p)
{
    int threads = xkd_pool_threads(be->pool);
    int64_t most = p->exact && p->K > DEPTH ? DEPTH : p->K;
    p->be = be;
    p->panels = tasks_of(p->N, NR);
    be->products += p->M * p->N * p->K;
    p->depth = most;
    p->packed = xkd_backend_shared_scratch(be, p->panels * panel_values(p) * (int64_t)sizeof(uint16_t));
    if (!p->packed) return;
    for (p->k0 = 0; p->k0 < p->K; p->k0 += most) {
        p->depth = p->K - p->k0 < most ? p->K - p->k0 : most;
        cut_tasks(p, threads);
        xkd_parallel_for(be->pool, p->panels, pack_task, p);
        xkd_parallel_for(be->pool, p->down * p->slabs, product_task, p);
    }
}

void xkd_cpu_fill_v4(xkd_ops *ops, xkd_dtype dtype);
void LEVEL(xkd_cpu_fill)(xkd_ops *ops, xkd_dtype dtype);

/* All but these products is v4's. */
void LEVEL(xkd_cpu_fill)(xkd_ops *ops, xkd_dtype dtype)
{
    xkd_cpu_fill_v4(ops, dtype);
    if (dtype == XKD_BF16) LEVEL(xkd_cpu_linear_ops)(ops);
}
