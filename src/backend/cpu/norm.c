/* LayerNorm and the weight norm of the head's last layer, row by row. */
#include <math.h>

#include "backend/constants.h"
#include "backend/cpu/cpu.h"
#include "backend/cpu/simd.h"

/* Arguments of any of the operations below; rows are R of D elements. */
typedef struct {
    float *y, *mean, *rstd, *dx, *partial; /* outputs; partial: [tasks,2,D] shares of dw and db */
    const float *x, *w, *b, *residual, *dy, *saved_mean, *saved_rstd,
        *gain;    /* inputs; saved_*: of the forward; gain: [K] */
    int64_t R, D; /* weight norm: R = K */
} rows;

/* Sums of a row and of its squares about the mean, in 16 lanes of float: two passes, because one pass of
 * squares loses the variance of rows with a large mean. */
static void moments(const float *x, int64_t D, float *mean, float *rstd)
{
    vf sum = {0}, squares = {0};
    int64_t i = 0;
    for (; i + LANES <= D; i += LANES) sum += v_load(x + i);
    if (i < D) sum += v_load_part(x + i, D - i);
    float m = v_sum(sum) / (float)D;
    for (i = 0; i + LANES <= D; i += LANES) {
        vf e = v_load(x + i) - m;
        squares += e * e;
    }
    for (; i < D; i++) squares[0] += (x[i] - m) * (x[i] - m);
    *mean = m;
    *rstd = 1 / sqrtf(v_sum(squares) / (float)D + (float)XKD_LAYERNORM_EPS);
}

/* mean and rstd are kept for the backward, which then needs no second pass of sums over x. */
static void forward_rows(void *arg, int64_t task, int thread)
{
    const rows *a = arg;
    int64_t D = a->D, first = task * ROWS_A_TASK, count = task_size(task, a->R, ROWS_A_TASK);
    (void)thread;
    for (int64_t r = first; r < first + count; r++) {
        const float *x = a->x + r * D;
        float *y = a->y + r * D, m, s;
        moments(x, D, &m, &s);
        a->mean[r] = m;
        a->rstd[r] = s;
        if (a->w)
            for (int64_t i = 0; i < D; i++) y[i] = (x[i] - m) * s * a->w[i] + a->b[i];
        else
            for (int64_t i = 0; i < D; i++) y[i] = (x[i] - m) * s;
    }
}

static void layernorm_forward(xkd_backend *be, void *y, void *mean, void *rstd, const void *x, const void *w,
                              const void *b, int64_t R, int64_t D)
{
    rows a = {.y = y, .mean = mean, .rstd = rstd, .x = x, .w = w, .b = b, .R = R, .D = D};
    xkd_parallel_for(be->pool, tasks_of(R, ROWS_A_TASK), forward_rows, &a);
}

/* dx of one row: rstd (e - mean(e) - n mean(e n)) with e = dy w, n = (x - mean) rstd; and, where `dw` is given, the
 * row's share of dw and db. dx may be dy or residual: every element is read before it is written. */
static void backward_row(const rows *a, int64_t r, float *dw, float *db)
/* i runs over vectors; partial ones load zeros, which add nothing to any of the sums. */
{
    int64_t D = a->D, i = 0;
    const float *x = a->x + r * D, *dy = a->dy + r * D, *residual = a->residual ? a->residual + r * D : NULL;
    float *dx = a->dx + r * D, m = a->saved_mean[r], s = a->saved_rstd[r];
    vf e_sum = {0}, en_sum = {0};
    for (; i < D; i += LANES) {
        int64_t part = D - i < LANES ? D - i : LANES;
        vf g = v_load_part(dy + i, part), n = (v_load_part(x + i, part) - m) * s;
        vf e = a->w ? g * v_load_part(a->w + i, part) : g;
        e_sum += e;
        en_sum += e * n;
        if (!dw) continue;
        v_store_part(dw + i, v_load_part(dw + i, part) + g * n, part);
        v_store_part(db + i, v_load_part(db + i, part) + g, part);
    }
    float e_mean = v_sum(e_sum) / (float)D, en_mean = v_sum(en_sum) / (float)D;
    for (i = 0; i < D; i++) {
        float e = a->w ? dy[i] * a->w[i] : dy[i], grad = s * (e - e_mean - (x[i] - m) * s * en_mean);
        dx[i] = residual ? grad + residual[i] : grad;
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

static void layernorm_backward(xkd_backend *be, const xkd_layernorm_grad *g)
{
    int64_t tasks = tasks_of(g->R, ROWS_A_TASK), D = g->D;
    rows a = {.dx = g->dx,
              .residual = g->residual,
              .dy = g->dy,
              .x = g->x,
              .saved_mean = g->mean,
              .saved_rstd = g->rstd,
              .w = g->w,
              .R = g->R,
              .D = D};
    if (g->dw) {
        /* Thread 0's scratch: the tasks themselves use none. */
        a.partial = xkd_backend_scratch(be, 0, tasks * 2 * D * (int64_t)sizeof(float));
        if (!a.partial) return;
    }
    xkd_parallel_for(be->pool, tasks, backward_rows, &a);
    for (int64_t t = 0; g->dw && t < tasks; t++)
        for (int64_t i = 0; i < D; i++) {
            ((float *)g->dw)[i] += a.partial[t * 2 * D + i];
            ((float *)g->db)[i] += a.partial[t * 2 * D + D + i];
        }
}

/* A row of v is the direction of one of the K prototypes. Its norm has no lower bound in PyTorch either: a
 * zero row gives NaN there too, and does not occur, since rows start at random and weight decay only
 * scales them. */
static void weightnorm_forward_rows(void *arg, int64_t task, int thread)
{
    const rows *a = arg;
    int64_t D = a->D, first = task * ROWS_A_TASK, count = task_size(task, a->R, ROWS_A_TASK);
    (void)thread;
    for (int64_t k = first; k < first + count; k++) {
        float inverse = 1 / sqrtf(v_dot(a->x + k * D, a->x + k * D, D)), scale = inverse * a->gain[k];
        a->rstd[k] = inverse;
        for (int64_t i = 0; i < D; i++) a->y[k * D + i] = scale * a->x[k * D + i];
    }
}

static void weightnorm_forward(xkd_backend *be, void *w, void *inv, const void *v, const void *g, int64_t K, int64_t D)
{
    rows a = {.y = w, .rstd = inv, .x = v, .gain = g, .R = K, .D = D};
    xkd_parallel_for(be->pool, tasks_of(K, ROWS_A_TASK), weightnorm_forward_rows, &a);
}

/* The part of dw along v cannot change a normalised row, so it is taken out; what is left is scaled by gain /
 * |v|. */
static void weightnorm_backward_rows(void *arg, int64_t task, int thread)
{
    const rows *a = arg;
    int64_t D = a->D, first = task * ROWS_A_TASK, count = task_size(task, a->R, ROWS_A_TASK);
    (void)thread;
    for (int64_t k = first; k < first + count; k++) {
        const float *v = a->x + k * D, *dw = a->dy + k * D;
        float inverse = a->saved_rstd[k], scale = inverse * a->gain[k], along = v_dot(v, dw, D) * inverse * inverse;
        for (int64_t i = 0; i < D; i++) a->dx[k * D + i] += scale * (dw[i] - v[i] * along);
    }
}

static void weightnorm_backward(xkd_backend *be, void *dv, const void *dw, const void *v, const void *g,
                                const void *inv, int64_t K, int64_t D)
{
    rows a = {.dx = dv, .dy = dw, .x = v, .gain = g, .saved_rstd = inv, .R = K, .D = D};
    xkd_parallel_for(be->pool, tasks_of(K, ROWS_A_TASK), weightnorm_backward_rows, &a);
}

void xkd_cpu_norm_ops(xkd_ops *ops)
{
    ops->layernorm_forward = layernorm_forward;
    ops->layernorm_backward = layernorm_backward;
    ops->weightnorm_forward = weightnorm_forward;
    ops->weightnorm_backward = weightnorm_backward;
}
