/* Norms of gradients, AdamW and moving averages. Bound by memory, so each tensor is read once and everything that can be
 * done with it is done then. */
#include <math.h>

#include "backend/constants.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vector.h"

/* What a vector of parameters needs of the step. */
typedef struct {
    float clip, b1, b2, c1, c2, keep, rate, root, eps;
    float old[2], fresh[2]; /* of the moving averages */
} adamw_factors;

/* Work of one call, shared read-only by its tasks; each operation uses the fields it needs and leaves the rest 0. */
typedef struct {
    float *y;       /* output */
    uint16_t *half; /* the same in bfloat16, or NULL */
    const float *x; /* input, of the length of y */
    double a, b;    /* scalars of the operation, rounded to float in the task */
    int64_t n;
    double *sums;                /* [tasks] */
    const xkd_adamw_args *adamw; /* for adamw alone, as is what follows */
    const adamw_factors *factors;
} flat;

/* Squares are added in double: gradients of 10^7 elements would lose their small ones in float. Two sets of lanes hide
 * the latency of a sum. */
static void sum_squares_task(void *arg, int64_t task, int thread)
{
    const flat *f = arg;
    const float *x = f->x + task * ELEMENTS_A_TASK;
    int64_t n = task_size(task, f->n, ELEMENTS_A_TASK), i = 0;
    lanes_d even = lanes_d_zero(), odd = lanes_d_zero();
    double rest = 0;
    (void)thread;
    for (; i + 2 * LANES_D <= n; i += 2 * LANES_D)
        for (int j = 0; j < VECS_D; j++) {
            vecd a = vecd_widen(x + i + j * WD), b = vecd_widen(x + i + LANES_D + j * WD);
            even.v[j] = vecd_fma(a, a, even.v[j]);
            odd.v[j] = vecd_fma(b, b, odd.v[j]);
        }
    for (; i < n; i++) rest += (double)x[i] * (double)x[i];
    f->sums[task] = lanes_d_sum(even) + lanes_d_sum(odd) + rest;
}

static void norms(xkd_backend *be, double *squares, double *finite, const xkd_vector *list, int64_t count,
                  const double *scalars, int64_t n)
{
    *finite = 1;
    for (int64_t i = 0; i < count; i++) {
        flat f = {.x = list[i].x, .n = list[i].n};
        squares[i] = f.x ? sum_elements(be, f.n, &f.sums, sum_squares_task, &f) : 0;
        if (!isfinite(squares[i])) *finite = 0;
    }
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(scalars[i])) *finite = 0;
}

/* One vector of parameter, gradient and moments, and the teachers that follow it. Decay is decoupled: it scales the
 * parameter by the learning rate alone and never enters the moments (method.md section 7). */
INLINE void adamw_vector(const xkd_adamw_args *a, const adamw_factors *f, int64_t i, int64_t n)
{
    float *p = (float *)a->p + i, *m = (float *)a->m + i, *v = (float *)a->v + i;
    vec g = vec_load_part((const float *)a->g + i, n) * f->clip;
    vec m1 = vec_fma(vec_load_part(m, n), vec_set(f->b1), g * f->c1);
    vec m2 = vec_fma(vec_load_part(v, n), vec_set(f->b2), g * g * f->c2);
    vec step = m1 * f->rate / vec_fma(vec_sqrt(m2), vec_set(f->root), vec_set(f->eps));
    vec x = vec_fma(vec_load_part(p, n), vec_set(f->keep), -step);
    vec_store_part(m, m1, n);
    vec_store_part(v, m2, n);
    vec_store_part(p, x, n);
    if (a->stored) vec_store_half((uint16_t *)a->stored + i, x, n);
    /* In the order given: with the teacher's blocks shared (MATS) both entries name the same tensor, and
     * video's average comes first (method.md section 8). */
    for (int k = 0; k < 2; k++) {
        if (!a->ema[k]) continue;
        float *t = (float *)a->ema[k] + i;
        vec mean = vec_fma(vec_load_part(t, n), vec_set(f->old[k]), x * f->fresh[k]);
        vec_store_part(t, mean, n);
        if (a->ema_stored[k]) vec_store_half((uint16_t *)a->ema_stored[k] + i, mean, n);
    }
}

/* Constants are rounded once to float; the bias corrections are in `rate` and `root`. Counts the step. */
static adamw_factors factors_of(const xkd_adamw_args *a, double clip)
{
    double lr = a->lr_scale * *a->lr, weight_decay = a->weight_decay ? *a->weight_decay : 0, steps = ++*a->steps;
    adamw_factors f = {.clip = (float)clip,
                       .b1 = (float)a->beta1,
                       .b2 = (float)a->beta2,
                       .c1 = (float)(1 - a->beta1),
                       .c2 = (float)(1 - a->beta2),
                       .keep = (float)(1 - lr * weight_decay),
                       .rate = (float)(lr / (1 - pow(a->beta1, steps))),
                       .root = (float)(1 / sqrt(1 - pow(a->beta2, steps))),
                       .eps = (float)a->eps};
    for (int k = 0; k < 2; k++) {
        if (!a->ema[k]) continue;
        f.old[k] = (float)*a->ema_momentum[k];
        f.fresh[k] = (float)(1 - *a->ema_momentum[k]);
    }
    return f;
}

/* One pass over memory. */
static void adamw_task(void *arg, int64_t task, int thread)
{
    const xkd_adamw_args *a = ((const flat *)arg)->adamw;
    const adamw_factors *f = ((const flat *)arg)->factors;
    int64_t i = task * ELEMENTS_A_TASK, end = i + task_size(task, a->n, ELEMENTS_A_TASK);
    (void)thread;
    for (; i + W <= end; i += W) adamw_vector(a, f, i, W);
    if (i < end) adamw_vector(a, f, i, end - i);
}

/* A moving average, y = a x + b y; b = 0 does not read y. */
static void average_task(void *arg, int64_t task, int thread)
{
    const flat *f = arg;
    int64_t first = task * ELEMENTS_A_TASK, end = first + task_size(task, f->n, ELEMENTS_A_TASK);
    float a = (float)f->a, b = (float)f->b;
    (void)thread;
    if (b == 0)
        for (int64_t i = first; i < end; i++) f->y[i] = a * f->x[i];
    else
        for (int64_t i = first; i < end; i++) f->y[i] = a * f->x[i] + b * f->y[i];
    for (int64_t i = first; f->half && i < end; i += W)
        vec_store_half(f->half + i, vec_load_part(f->y + i, end - i), end - i);
}

static void adamw(xkd_backend *be, const xkd_adamw_args *list, int64_t count, const double *squares,
                  const double *finite)
{
    if (*finite == 0) return;
    for (int64_t i = 0; i < count; i++) {
        const xkd_adamw_args *a = &list[i];
        if (a->g) {
            adamw_factors factors = factors_of(a, a->clip > 0 ? xkd_clip_factor(a->clip, squares[i]) : 1);
            flat f = {.n = a->n, .adamw = a, .factors = &factors};
            run_elements(be, f.n, adamw_task, &f);
        }
        for (int k = 0; !a->g && k < 2; k++) {
            if (!a->ema[k]) continue;
            double momentum = *a->ema_momentum[k];
            flat average = {
                .y = a->ema[k], .half = a->ema_stored[k], .x = a->p, .a = 1 - momentum, .b = momentum, .n = a->n};
            run_elements(be, average.n, average_task, &average);
        }
    }
}

static void centre(xkd_backend *be, void *centre, const void *sum, double m, int64_t rows, int64_t K,
                   const double *finite)
{
    flat f = {.y = centre, .x = sum, .a = (1 - m) / (double)rows, .b = m, .n = K};
    if (*finite != 0) run_elements(be, f.n, average_task, &f);
}

void LEVEL(xkd_cpu_optimizer_ops)(xkd_ops *ops)
{
    ops->norms = norms;
    ops->adamw = adamw;
    ops->centre = centre;
}
