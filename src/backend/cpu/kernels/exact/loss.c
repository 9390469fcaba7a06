/* Distillation over rows, and the domain-alignment loss MMD (method.md section 6) in double, over tiles of pairs of rows. Differences are squared
 * directly: a self distance is exactly 0, and no Gram matrix loses the small distances. */
#include "backend/constants.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vector.h"

/* Rows of a tile of pairs, and the columns after which their partial sums are added up: 32 rows of 1 024 floats are
 * 128 KB. */
enum { TILE = 16, CHUNK = 1024 };

typedef struct {
    xkd_backend *be;
    const xkd_align_sides *sides;
    float *dx, *dy;
    const double *weights; /* [n,n] */
    double *out;           /* the same, written by the forward */
    double *partial;       /* [tiles of the triangle] loss */
    double scale;
    int64_t n;
} mmd;

/* Row i of the union of both sides, as an offset into x or y (values or gradients): samples [first, first + samples)
 * of each view, view by view. */
static float *row_at(const mmd *m, const void *x, const void *y, int64_t i)
{
    const xkd_align_sides *s = m->sides;
    int64_t of_x = s->views_x * s->samples, in_y = i >= of_x;
    if (in_y) i -= of_x;
    return (float *)(uintptr_t)(in_y ? y : x) + (i / s->samples * s->B + s->first + i % s->samples) * s->K;
}

/* Coefficient of pair (i, j): 1/m^2, 1/n^2 or -1/(mn). */
static double coefficient(const mmd *m, int64_t i, int64_t j)
{
    double x = (double)(m->sides->views_x * m->sides->samples), y = (double)(m->sides->views_y * m->sides->samples);
    bool i_in_x = (double)i < x, j_in_x = (double)j < x;
    if (i_in_x && j_in_x) return 1 / (x * x);
    return !i_in_x && !j_in_x ? 1 / (y * y) : -1 / (x * y);
}

/* d [2][2] += squared distances of rows p[0], p[1] from q[0], q[1] over n columns. */
static void add_distances(double d[2][2], const float *const p[2], const float *const q[2], int64_t n)
{
    lanes_d sum[2][2] = {{lanes_d_zero(), lanes_d_zero()}, {lanes_d_zero(), lanes_d_zero()}};
    int64_t k = 0;
    for (; k + LANES_D <= n; k += LANES_D)
        for (int v = 0; v < VECS_D; v++) {
            vecd a[2], b[2];
            for (int i = 0; i < 2; i++) a[i] = vecd_widen(p[i] + k + v * WD);
            for (int i = 0; i < 2; i++) b[i] = vecd_widen(q[i] + k + v * WD);
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 2; j++) {
                    vecd e = a[i] - b[j];
                    sum[i][j].v[v] = vecd_fma(e, e, sum[i][j].v[v]);
                }
        }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            double rest = 0;
            for (int64_t c = k; c < n; c++) rest += ((double)p[i][c] - q[j][c]) * ((double)p[i][c] - q[j][c]);
            d[i][j] += lanes_d_sum(sum[i][j]) + rest;
        }
}

/* Squared distances of the pairs of one tile; a pair past the last row repeats the last row and is not used. */
static void tile_distances(const mmd *m, int64_t row, int64_t column, double d[TILE][TILE])
{
    const xkd_align_sides *s = m->sides;
    const float *p[TILE], *q[TILE];
    memset(d, 0, TILE * sizeof d[0]);
    for (int64_t i = 0; i < TILE; i++) {
        p[i] = row_at(m, s->x, s->y, row + i < m->n ? row + i : m->n - 1);
        q[i] = row_at(m, s->x, s->y, column + i < m->n ? column + i : m->n - 1);
    }
    for (int64_t k = 0; k < s->K; k += CHUNK) {
        int64_t n = s->K - k < CHUNK ? s->K - k : CHUNK;
        for (int i = 0; i < TILE && row + i < m->n; i += 2)
            for (int j = 0; j < TILE && column + j < m->n; j += 2) {
                double pair[2][2] = {{d[i][j], d[i][j + 1]}, {d[i + 1][j], d[i + 1][j + 1]}};
                const float *const a[2] = {p[i] + k, p[i + 1] + k}, *const b[2] = {q[j] + k, q[j + 1] + k};
                if (row == column && j > i) continue; /* the other half of a tile on the diagonal */
                add_distances(pair, a, b, n);
                for (int c = 0; c < 4; c++) d[i + c / 2][j + c % 2] = pair[c / 2][c % 2];
            }
    }
}

/* weights [i][j] = 4 c_ij k'(d_ij), because z_i meets z_j in two terms of the sum and d(d_ij)/dz_i = 2 (z_i - z_j). */
static void forward_tile(void *arg, int64_t index, int thread)
{
    const mmd *m = arg;
    int64_t i = 0, n = m->n;
    double d[TILE][TILE], loss = 0;
    (void)thread;
    while ((i + 1) * (i + 2) / 2 <= index) i++; /* rows of the triangle of tiles */
    int64_t row = i * TILE, column = (index - i * (i + 1) / 2) * TILE;
    tile_distances(m, row, column, d);
    for (int64_t r = row; r < row + TILE && r < n; r++)
        for (int64_t c = column; c < column + TILE && c <= r; c++) {
            double kernel, slope, share = coefficient(m, r, c);
            xkd_mmd_kernel(r == c ? 0 : d[r - row][c - column], &kernel, &slope);
            if (isnan(d[r - row][c - column])) kernel = slope = NAN; /* of a row with itself too */
            loss += (r == c ? 1 : 2) * share * kernel;
            m->out[r * n + c] = m->out[c * n + r] = 4 * share * slope;
        }
    m->partial[index] = loss;
}

static void mmd_forward(xkd_backend *be, double *loss, double *weights, const xkd_align_sides *sides)
{
    mmd m = {.sides = sides, .out = weights, .n = (sides->views_x + sides->views_y) * sides->samples};
    int64_t side = tasks_of(m.n, TILE), tiles = side * (side + 1) / 2;
    m.partial = xkd_backend_shared_scratch(be, tiles * (int64_t)sizeof *m.partial);
    if (!m.partial) return;
    xkd_parallel_for(be->pool, tiles, forward_tile, &m);
    double total = 0;
    for (int64_t t = 0; t < tiles; t++) total += m.partial[t];
    *loss += total / sides->divisor;
}

/* Columns of one backward task, and rows whose gradients it makes at once. */
enum { COLUMNS_A_TASK = 64, ROWS = 4 };

/* LANES_D columns from k on of all rows, as doubles side by side. Where they lie, rows of 2^n columns share few sets of a cache. */
static void widen_columns(const mmd *m, double *panel, int64_t k)
{
    const xkd_align_sides *s = m->sides;
    for (int64_t j = 0; j < m->n; j++) {
        const float *z = row_at(m, s->x, s->y, j) + k;
        for (int v = 0; v < VECS_D; v++) vecd_store(panel + j * LANES_D + v * WD, vecd_widen(z + v * WD));
    }
}

/* Gradients of rows [i, i + ROWS) in the panel's columns, which begin at k: the sum of w (z_i - z_j) over the j whose weight is
 * not 0. Far apart pairs, whose kernel has vanished, add nothing even where they are infinite. */
static void gradient_block(const mmd *m, const double *panel, int64_t i, int64_t k)
{
    const double *w = m->weights + i * m->n, *own = panel + i * LANES_D;
    lanes_d acc[ROWS];
    for (int r = 0; r < ROWS; r++) acc[r] = lanes_d_zero();
    for (int64_t j = 0; j < m->n; j++)
        for (int r = 0; r < ROWS; r++) {
            double weight = w[r * m->n + j];
            if (__builtin_expect(weight == 0, 0)) continue;
            for (int v = 0; v < VECS_D; v++) {
                vecd difference = vecd_load(own + r * LANES_D + v * WD) - vecd_load(panel + j * LANES_D + v * WD);
                acc[r].v[v] = vecd_fma(vecd_set(weight), difference, acc[r].v[v]);
            }
        }
    for (int r = 0; r < ROWS; r++) {
        float *grad = row_at(m, m->dx, m->dy, i + r) + k;
        double sum[LANES_D];
        for (int v = 0; v < VECS_D; v++) vecd_store(sum + v * WD, acc[r].v[v]);
        for (int c = 0; c < LANES_D; c++) grad[c] = (float)((double)grad[c] + m->scale * sum[c]);
    }
}

/* The same for one row and one column, where rows or columns do not fill a block. */
static void gradient_single(const mmd *m, int64_t i, int64_t k)
{
    const xkd_align_sides *s = m->sides;
    double z = row_at(m, s->x, s->y, i)[k], sum = 0;
    for (int64_t j = 0; j < m->n; j++) {
        double w = m->weights[i * m->n + j];
        if (w != 0) sum = fma(w, z - row_at(m, s->x, s->y, j)[k], sum);
    }
    float *grad = row_at(m, m->dx, m->dy, i) + k;
    *grad = (float)((double)*grad + m->scale * sum);
}

/* dz_i += sum_j w_ij (z_i - z_j), on both sides alike, since `weights` has the signs. A task owns its columns. */
static void backward_columns(void *arg, int64_t task, int thread)
{
    const mmd *m = arg;
    int64_t first = task * COLUMNS_A_TASK, end = first + task_size(task, m->sides->K, COLUMNS_A_TASK);
    int64_t blocks = m->n / ROWS * ROWS, k = first;
    double *panel = xkd_backend_scratch(m->be, thread, m->n * LANES_D * (int64_t)sizeof *panel);
    if (!panel) return;
    for (; k + LANES_D <= end; k += LANES_D) {
        widen_columns(m, panel, k);
        for (int64_t i = 0; i < blocks; i += ROWS) gradient_block(m, panel, i, k);
    }
    for (int64_t i = 0; i < m->n; i++)
        for (int64_t c = i < blocks ? k : first; c < end; c++) gradient_single(m, i, c);
}

static void mmd_backward(xkd_backend *be, void *dx, void *dy, const double *weights, const xkd_align_sides *sides,
                         double scale)
{
    mmd m = {.be = be,
             .sides = sides,
             .dx = dx,
             .dy = dy,
             .weights = weights,
             .scale = scale,
             .n = (sides->views_x + sides->views_y) * sides->samples};
    xkd_parallel_for(be->pool, tasks_of(sides->K, COLUMNS_A_TASK), backward_columns, &m);
}

/* Distillation: every row of the student is one task, by the reference's code with R = B = 1. */
typedef struct {
    xkd_backend *be;
    const xkd_kd_args *args;
    float *s_lse, *t_lse, *ds;
    double *loss, *entropy; /* [R] */
    double scale;
} kd;

static xkd_kd_args kd_row(const xkd_kd_args *a, int64_t r)
{
    xkd_kd_args one = *a;
    one.s = (const float *)a->s + r * a->K;
    one.t = (const float *)a->t + r % a->B * a->K;
    one.R = one.B = 1;
    return one;
}

static void kd_forward_row(void *arg, int64_t r, int thread)
{
    const kd *j = arg;
    xkd_kd_args one = kd_row(j->args, r);
    float spare; /* rows of the later views find the teacher's again */
    (void)thread;
    xkd_ref_ops(XKD_F32)->kd_forward(j->be, &j->loss[r], &j->entropy[r], j->s_lse + r,
                                     r < j->args->B ? j->t_lse + r : &spare, &one);
}

/* Rows past the student's have no task of their own: the reference takes over where views do not cover all samples. */
static void kd_forward(xkd_backend *be, double *loss, double *entropy, void *s_lse, void *t_lse, const xkd_kd_args *a)
{
    kd j = {.be = be, .args = a, .s_lse = s_lse, .t_lse = t_lse};
    if (a->R < a->B) {
        xkd_ref_ops(XKD_F32)->kd_forward(be, loss, entropy, s_lse, t_lse, a);
        return;
    }
    j.loss = xkd_backend_shared_scratch(be, 2 * a->R * (int64_t)sizeof *j.loss);
    if (!j.loss) return;
    j.entropy = j.loss + a->R;
    xkd_parallel_for(be->pool, a->R, kd_forward_row, &j);
    *loss = *entropy = 0;
    for (int64_t r = 0; r < a->R; r++) *loss += j.loss[r] / (double)a->R;
    for (int64_t b = 0; b < a->B; b++) *entropy += j.entropy[b] / (double)a->B;
}

static void kd_backward_row(void *arg, int64_t r, int thread)
{
    const kd *j = arg;
    xkd_kd_args one = kd_row(j->args, r);
    (void)thread;
    xkd_ref_ops(XKD_F32)->kd_backward(j->be, j->ds + r * one.K, &one, j->s_lse + r, j->t_lse + r % j->args->B,
                                      j->scale / (double)j->args->R);
}

static void kd_backward(xkd_backend *be, void *ds, const xkd_kd_args *a, const void *s_lse, const void *t_lse,
                        double scale)
{
    kd j = {.be = be,
            .args = a,
            .s_lse = (float *)(uintptr_t)s_lse,
            .t_lse = (float *)(uintptr_t)t_lse,
            .ds = ds,
            .scale = scale};
    xkd_parallel_for(be->pool, a->R, kd_backward_row, &j);
}

void LEVEL(xkd_cpu_loss_ops)(xkd_ops *ops)
{
    ops->kd_forward = kd_forward;
    ops->kd_backward = kd_backward;
    ops->mmd_forward = mmd_forward;
    ops->mmd_backward = mmd_backward;
}
