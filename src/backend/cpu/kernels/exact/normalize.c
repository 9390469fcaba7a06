/* Row by row: the weight norm of the head's last layer, and the targets of the reconstruction. */
#include <math.h>

#include "backend/constants.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vector.h"

/* Arguments of the weight norm: rows are K of D elements. */
typedef struct {
    float *y, *inv, *dx;                    /* outputs */
    const float *x, *dy, *saved_inv, *gain; /* inputs; saved_inv: of the forward; gain: [K] */
    int64_t R, D;                           /* R = K */
} prototypes;

/* A row of v is the direction of one of the K prototypes. Its norm has no lower bound in PyTorch either: a
 * zero row gives NaN there too, and does not occur, since rows start at random and weight decay only
 * scales them. */
static void weightnorm_forward_rows(void *arg, int64_t task, int thread)
{
    const prototypes *a = arg;
    int64_t D = a->D, first = task * ROWS_A_TASK, count = task_size(task, a->R, ROWS_A_TASK);
    (void)thread;
    for (int64_t k = first; k < first + count; k++) {
        float inverse = 1 / sqrtf(vec_dot(a->x + k * D, a->x + k * D, D)), scale = inverse * a->gain[k];
        a->inv[k] = inverse;
        for (int64_t i = 0; i < D; i++) a->y[k * D + i] = scale * a->x[k * D + i];
    }
}

static void weightnorm_forward(xkd_backend *be, void *w, void *inv, const void *v, const void *g, int64_t K, int64_t D)
{
    prototypes a = {.y = w, .inv = inv, .x = v, .gain = g, .R = K, .D = D};
    xkd_parallel_for(be->pool, tasks_of(K, ROWS_A_TASK), weightnorm_forward_rows, &a);
}

/* The part of dw along v cannot change a normalised row, so it is taken out; what is left is scaled by gain /
 * |v|. */
static void weightnorm_backward_rows(void *arg, int64_t task, int thread)
{
    const prototypes *a = arg;
    int64_t D = a->D, first = task * ROWS_A_TASK, count = task_size(task, a->R, ROWS_A_TASK);
    (void)thread;
    for (int64_t k = first; k < first + count; k++) {
        const float *v = a->x + k * D, *dw = a->dy + k * D;
        float inverse = a->saved_inv[k], scale = inverse * a->gain[k], along = vec_dot(v, dw, D) * inverse * inverse;
        for (int64_t i = 0; i < D; i++) a->dx[k * D + i] += scale * (dw[i] - v[i] * along);
    }
}

static void weightnorm_backward(xkd_backend *be, void *dv, const void *dw, const void *v, const void *g,
                                const void *inv, int64_t K, int64_t D)
{
    prototypes a = {.dx = dv, .dy = dw, .x = v, .gain = g, .saved_inv = inv, .R = K, .D = D};
    xkd_parallel_for(be->pool, tasks_of(K, ROWS_A_TASK), weightnorm_backward_rows, &a);
}

typedef struct {
    float *x; /* [R,P] */
    int64_t R, P;
} patches;

/* Mean and unbiased variance of each row in double, as in the reference. */
static void normalize_row(float *row, int64_t P)
{
    lanes_d sum = lanes_d_zero(), squares = lanes_d_zero();
    double rest = 0;
    int64_t p = 0;
    for (; p + LANES_D <= P; p += LANES_D)
        for (int v = 0; v < VECS_D; v++) sum.v[v] += vecd_widen(row + p + v * WD);
    for (int64_t i = p; i < P; i++) rest += row[i];
    double mean = (lanes_d_sum(sum) + rest) / (double)P;
    rest = 0;
    for (p = 0; p + LANES_D <= P; p += LANES_D)
        for (int v = 0; v < VECS_D; v++) {
            vecd e = vecd_widen(row + p + v * WD) - mean;
            squares.v[v] = vecd_fma(e, e, squares.v[v]);
        }
    for (int64_t i = p; i < P; i++) rest += (row[i] - mean) * (row[i] - mean);
    double scale = 1 / sqrt((lanes_d_sum(squares) + rest) / (double)(P - 1) + XKD_PATCH_EPS);
    for (p = 0; p < P; p++) row[p] = (float)((row[p] - mean) * scale);
}

/* The number of rows is not that of samples here, so tasks are blocks of rows. */
static void patch_normalize_rows(void *arg, int64_t task, int thread)
{
    const patches *j = arg;
    int64_t first = task * ROWS_A_TASK, end = first + task_size(task, j->R, ROWS_A_TASK);
    (void)thread;
    for (int64_t r = first; r < end; r++) normalize_row(j->x + r * j->P, j->P);
}

static void patch_normalize(xkd_backend *be, void *x, int64_t R, int64_t P)
{
    patches j = {.x = x, .R = R, .P = P};
    xkd_parallel_for(be->pool, tasks_of(R, ROWS_A_TASK), patch_normalize_rows, &j);
}

void LEVEL(xkd_cpu_exact_ops)(xkd_ops *ops)
{
    ops->weightnorm_forward = weightnorm_forward;
    ops->weightnorm_backward = weightnorm_backward;
    ops->patch_normalize = patch_normalize;
}
