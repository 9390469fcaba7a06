/* LayerNorm, row by row. */
#include <math.h>

#include "backend/constants.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vector.h"

/* Arguments of any of the operations below; rows are R of D elements. */
typedef struct {
    stored *y, *dx, *kept;                  /* outputs */
    float *mean, *rstd, *dw, *db, *partial; /* partial: [tasks,2,D] shares of dw and db */
    const stored *x, *residual, *dy;        /* inputs */
    const float *exact, *w, *b;             /* exact: what is normalised in place of x */
    const float *saved_mean, *saved_rstd;   /* of the forward */
    int64_t R, D;
} rows;

/* Numbers from i on of a row that is exact or stored: a constant where these are inlined. */
INLINE vec read_row(const void *x, const bool exact, int64_t i, int64_t n)
{
    return exact ? vec_load_part((const float *)x + i, n) : read_part((const stored *)x + i, n);
}

INLINE float read_number(const void *x, const bool exact, int64_t i)
{
    return exact ? ((const float *)x)[i] : read_one((const stored *)x + i);
}

/* Sums of a row and of its squares about the mean, in 16 lanes of float: two passes, because one pass of
 * squares loses the variance of rows with a large mean. */
INLINE void moments(const void *x, const bool exact, int64_t D, float *mean, float *rstd)
{
    lanes sum = lanes_zero(), squares = lanes_zero();
    int64_t i = 0;
    for (; i + LANES <= D; i += LANES)
        for (int j = 0; j < VECS; j++) sum.v[j] += read_row(x, exact, i + j * W, W);
    for (int j = 0; i + j * W < D; j++) sum.v[j] += read_row(x, exact, i + j * W, D - i - j * W);
    float m = lanes_sum(sum) / (float)D;
    for (i = 0; i + LANES <= D; i += LANES)
        for (int j = 0; j < VECS; j++) {
            vec e = read_row(x, exact, i + j * W, W) - m;
            squares.v[j] = vec_fma(e, e, squares.v[j]);
        }
    float rest = 0;
    for (; i < D; i++) rest += (read_number(x, exact, i) - m) * (read_number(x, exact, i) - m);
    *mean = m;
    *rstd = 1 / sqrtf((lanes_sum(squares) + rest) / (float)D + (float)XKD_LAYERNORM_EPS);
}

/* mean and rstd are kept for the backward, which then needs no second pass of sums over x. */
INLINE void forward_row(const rows *a, int64_t r, const bool exact)
{
    int64_t D = a->D;
    const void *x = exact ? (const void *)(a->exact + r * D) : (const void *)(a->x + r * D);
    stored *y = a->y + r * D, *kept = exact && a->kept ? a->kept + r * D : NULL;
    float m, s;
    moments(x, exact, D, &m, &s);
    a->mean[r] = m;
    a->rstd[r] = s;
    for (int64_t i = 0; i < D; i += W) {
        vec in = read_row(x, exact, i, D - i), n = (in - m) * s;
        if (kept) write_part(kept + i, in, D - i);
        if (a->w) n = vec_fma(n, vec_load_part(a->w + i, D - i), vec_load_part(a->b + i, D - i));
        write_part(y + i, n, D - i);
    }
}

INLINE void forward_task(const rows *a, int64_t task, const bool exact)
{
    int64_t first = task * ROWS_A_TASK, count = task_size(task, a->R, ROWS_A_TASK);
    for (int64_t r = first; r < first + count; r++) forward_row(a, r, exact);
}

static void forward_rows(void *arg, int64_t task, int thread)
{
    (void)thread;
    forward_task(arg, task, false);
}

static void forward_exact_rows(void *arg, int64_t task, int thread)
{
    (void)thread;
    forward_task(arg, task, true);
}

static void layernorm_forward(xkd_backend *be, void *y, void *mean, void *rstd, const void *x, const void *w,
                              const void *b, int64_t R, int64_t D)
{
    rows a = {.y = y, .mean = mean, .rstd = rstd, .x = x, .w = w, .b = b, .R = R, .D = D};
    xkd_parallel_for(be->pool, tasks_of(R, ROWS_A_TASK), forward_rows, &a);
}

static void residual_layernorm_forward(xkd_backend *be, void *y, void *kept, void *mean, void *rstd, const void *x,
                                       const void *w, const void *b, int64_t R, int64_t D)
{
    rows a = {.y = y, .mean = mean, .rstd = rstd, .exact = x, .w = w, .b = b, .R = R, .D = D};
    if (kept != x) a.kept = kept;
    xkd_parallel_for(be->pool, tasks_of(R, ROWS_A_TASK), forward_exact_rows, &a);
}

/* dx of one row: rstd (e - mean(e) - n mean(e n)) with e = dy w, n = (x - mean) rstd; and, where `dw` is given, the
 * row's share of dw and db. dx may be dy or residual: every element is read before it is written. */
static void backward_row(const rows *a, int64_t r, float *dw, float *db)
{
    int64_t D = a->D, i = 0;
    const stored *x = a->x + r * D, *dy = a->dy + r * D, *residual = a->residual ? a->residual + r * D : NULL;
    stored *dx = a->dx + r * D;
    float m = a->saved_mean[r], s = a->saved_rstd[r];
    lanes e_sum = lanes_zero(), en_sum = lanes_zero();
    /* Parts of vectors load zeros, which add nothing to any of the sums. */
    for (; i < D; i += LANES)
        for (int j = 0; j < VECS; j++) {
            int64_t at = i + j * W, part = D - at;
            vec g = read_part(dy + at, part), n = (read_part(x + at, part) - m) * s;
            vec e = g;
            if (a->w) e *= vec_load_part(a->w + at, part);
            e_sum.v[j] += e;
            en_sum.v[j] = vec_fma(e, n, en_sum.v[j]);
            if (!dw) continue;
            vec_store_part(dw + at, vec_fma(g, n, vec_load_part(dw + at, part)), part);
            vec_store_part(db + at, vec_load_part(db + at, part) + g, part);
        }
    float e_mean = lanes_sum(e_sum) / (float)D, en_mean = lanes_sum(en_sum) / (float)D;
    for (i = 0; i < D; i += W) {
        int64_t part = D - i;
        vec e = read_part(dy + i, part);
        if (a->w) e *= vec_load_part(a->w + i, part);
        vec n = (read_part(x + i, part) - m) * s, grad = (e - e_mean - n * en_mean) * s;
        if (residual) grad += read_part(residual + i, part);
        write_part(dx + i, grad, part);
    }
}

/* The shares of dw and db are summed within the task in row order and across tasks in task order, in the
 * caller: a fixed order for any number of threads. */
static void backward_rows(void *arg, int64_t task, int thread)
{
    const rows *a = arg;
    int64_t first = task * ROWS_A_TASK, count = task_size(task, a->R, ROWS_A_TASK);
    float *dw = a->partial ? a->partial + task * 2 * a->D : NULL, *db = dw ? dw + a->D : NULL;
    (void)thread;
    if (dw) memset(dw, 0, (size_t)(2 * a->D) * sizeof *dw);
    for (int64_t r = first; r < first + count; r++) backward_row(a, r, dw, db);
}

/* Columns of dw and db that one task sums over the shares. */
enum { COLUMNS_A_TASK = 128 };

static void add_shares(void *arg, int64_t index, int thread)
{
    const rows *a = arg;
    int64_t first = index * COLUMNS_A_TASK, count = task_size(index, a->D, COLUMNS_A_TASK);
    (void)thread;
    for (int64_t t = 0; t < tasks_of(a->R, ROWS_A_TASK); t++) {
        const float *dw = a->partial + t * 2 * a->D + first, *db = dw + a->D;
        for (int64_t i = 0; i < count; i++) {
            a->dw[first + i] += dw[i];
            a->db[first + i] += db[i];
        }
    }
}

static void layernorm_backward(xkd_backend *be, const xkd_layernorm_grad *g)
{
    int64_t tasks = tasks_of(g->R, ROWS_A_TASK), D = g->D;
    rows a = {.dx = g->dx,
              .dw = g->dw,
              .db = g->db,
              .residual = g->residual,
              .dy = g->dy,
              .x = g->x,
              .saved_mean = g->mean,
              .saved_rstd = g->rstd,
              .w = g->w,
              .R = g->R,
              .D = D};
    if (g->dw) {
        a.partial = xkd_backend_shared_scratch(be, tasks * 2 * D * (int64_t)sizeof(float));
        if (!a.partial) return;
    }
    xkd_parallel_for(be->pool, tasks, backward_rows, &a);
    if (g->dw) xkd_parallel_for(be->pool, tasks_of(D, COLUMNS_A_TASK), add_shares, &a);
}

void LEVEL(xkd_cpu_norm_ops)(xkd_ops *ops)
{
    ops->layernorm_forward = layernorm_forward;
    ops->residual_layernorm_forward = residual_layernorm_forward;
    ops->layernorm_backward = layernorm_backward;
}
