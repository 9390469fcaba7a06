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

/* A list of tensors cut into tasks that one loop runs: models have hundreds of tensors, many of them of a task or less. */
typedef struct {
    int64_t count;
    int64_t *first;                /* [count + 1] the first task of each tensor, and how many there are in all */
    const xkd_vector *vectors;     /* [count] whose squares are summed up */
    double *sums;                  /* [tasks] */
    const xkd_adamw_args *updates; /* [count] AdamW's */
    adamw_factors *factors;        /* [count] */
} tensors;

/* Where the next tensor, of n elements, begins. */
static int64_t tasks_after(int64_t first, int64_t n)
{
    return first + tasks_of(n, ELEMENTS_A_TASK);
}

/* The tensor of a task: the last that begins at or before it. Empty ones begin where the next does. */
static int64_t tensor_of(const tensors *t, int64_t task)
{
    int64_t low = 0, high = t->count;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (t->first[middle] <= task)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Squares are added in double: gradients of 10^7 elements would lose their small ones in float. Two sets of lanes hide
 * the latency of a sum. */
static double sum_squares(const float *x, int64_t n)
{
    lanes_d even = lanes_d_zero(), odd = lanes_d_zero();
    double rest = 0;
    int64_t i = 0;
    for (; i + 2 * LANES_D <= n; i += 2 * LANES_D)
        for (int j = 0; j < VECS_D; j++) {
            vecd a = vecd_widen(x + i + j * WD), b = vecd_widen(x + i + LANES_D + j * WD);
            even.v[j] = vecd_fma(a, a, even.v[j]);
            odd.v[j] = vecd_fma(b, b, odd.v[j]);
        }
    for (; i < n; i++) rest += (double)x[i] * (double)x[i];
    return lanes_d_sum(even) + lanes_d_sum(odd) + rest;
}

static void sum_squares_task(void *arg, int64_t task, int thread)
{
    const tensors *t = arg;
    int64_t i = tensor_of(t, task), part = task - t->first[i];
    (void)thread;
    t->sums[task] = sum_squares((const float *)t->vectors[i].x + part * ELEMENTS_A_TASK,
                                task_size(part, t->vectors[i].n, ELEMENTS_A_TASK));
}

static void norms(xkd_backend *be, double *squares, double *finite, const xkd_vector *list, int64_t count,
                  const double *scalars, int64_t n)
{
    tensors t = {.count = count, .vectors = list};
    int64_t tasks = 0;
    *finite = 0;
    for (int64_t i = 0; i < count; i++) tasks = tasks_after(tasks, list[i].x ? list[i].n : 0);
    t.first = xkd_backend_shared_scratch(be, (count + 1 + tasks) * (int64_t)sizeof(int64_t));
    if (!t.first) return;
    t.sums = (double *)(void *)(t.first + count + 1);
    t.first[0] = 0;
    for (int64_t i = 0; i < count; i++) t.first[i + 1] = tasks_after(t.first[i], list[i].x ? list[i].n : 0);
    xkd_parallel_for(be->pool, tasks, sum_squares_task, &t);
    *finite = 1;
    for (int64_t i = 0; i < count; i++) {
        squares[i] = 0;
        for (int64_t task = t.first[i]; task < t.first[i + 1]; task++) squares[i] += t.sums[task];
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

/* Constants are rounded once to float; the bias corrections are in `rate` and `root`. Counts the step of a tensor that has
 * a gradient; one without needs the averages' factors alone. */
static adamw_factors factors_of(const xkd_adamw_args *a, double clip)
{
    adamw_factors f = {.clip = (float)clip};
    for (int k = 0; k < 2; k++) {
        if (!a->ema[k]) continue;
        f.old[k] = (float)*a->ema_momentum[k];
        f.fresh[k] = (float)(1 - *a->ema_momentum[k]);
    }
    if (!a->g) return f;
    double lr = a->lr_scale * *a->lr, weight_decay = a->weight_decay ? *a->weight_decay : 0, steps = ++*a->steps;
    f.b1 = (float)a->beta1;
    f.b2 = (float)a->beta2;
    f.c1 = (float)(1 - a->beta1);
    f.c2 = (float)(1 - a->beta2);
    f.keep = (float)(1 - lr * weight_decay);
    f.rate = (float)(lr / (1 - pow(a->beta1, steps)));
    f.root = (float)(1 / sqrt(1 - pow(a->beta2, steps)));
    f.eps = (float)a->eps;
    return f;
}

/* A moving average: y [n] = a x + b y, and the same in bfloat16 where `half` is given; b = 0 does not read y. */
static void average(float *y, uint16_t *half, const float *x, float a, float b, int64_t n)
{
    if (b == 0)
        for (int64_t i = 0; i < n; i++) y[i] = a * x[i];
    else
        for (int64_t i = 0; i < n; i++) y[i] = a * x[i] + b * y[i];
    for (int64_t i = 0; half && i < n; i += W) vec_store_half(half + i, vec_load_part(y + i, n - i), n - i);
}

/* One pass over memory; a tensor without a gradient is averaged alone. */
static void adamw_task(void *arg, int64_t task, int thread)
{
    const tensors *t = arg;
    int64_t item = tensor_of(t, task), part = task - t->first[item];
    const xkd_adamw_args *a = &t->updates[item];
    const adamw_factors *f = &t->factors[item];
    int64_t i = part * ELEMENTS_A_TASK, n = task_size(part, a->n, ELEMENTS_A_TASK), end = i + n;
    (void)thread;
    for (int k = 0; !a->g && k < 2; k++)
        if (a->ema[k])
            average((float *)a->ema[k] + i, a->ema_stored[k] ? (uint16_t *)a->ema_stored[k] + i : NULL,
                    (const float *)a->p + i, f->fresh[k], f->old[k], n);
    if (!a->g) return;
    for (; i + W <= end; i += W) adamw_vector(a, f, i, W);
    if (i < end) adamw_vector(a, f, i, end - i);
}

static void adamw(xkd_backend *be, const xkd_adamw_args *list, int64_t count, const double *squares,
                  const double *finite)
{
    tensors t = {.count = count, .updates = list};
    int64_t factors = count * (int64_t)sizeof *t.factors;
    if (*finite == 0) return;
    t.factors = xkd_backend_shared_scratch(be, factors + (count + 1) * (int64_t)sizeof *t.first);
    if (!t.factors) return;
    t.first = (int64_t *)(void *)(t.factors + count);
    t.first[0] = 0;
    for (int64_t i = 0; i < count; i++)
        t.factors[i] =
            factors_of(&list[i], list[i].g && list[i].clip > 0 ? xkd_clip_factor(list[i].clip, squares[i]) : 1);
    for (int alone = 0; alone < 2; alone++) {
        for (int64_t i = 0; i < count; i++)
            t.first[i + 1] = tasks_after(t.first[i], (list[i].g == NULL) == (alone == 1) ? list[i].n : 0);
        xkd_parallel_for(be->pool, t.first[count], adamw_task, &t);
    }
}

/* The average of one tensor. */
typedef struct {
    float *y;
    const float *x;
    float a, b;
    int64_t n;
} centre_average;

static void centre_task(void *arg, int64_t task, int thread)
{
    const centre_average *c = arg;
    int64_t i = task * ELEMENTS_A_TASK;
    (void)thread;
    average(c->y + i, NULL, c->x + i, c->a, c->b, task_size(task, c->n, ELEMENTS_A_TASK));
}

static void centre(xkd_backend *be, void *centre, const void *sum, double m, int64_t rows, int64_t K,
                   const double *finite)
{
    centre_average c = {.y = centre, .x = sum, .a = (float)((1 - m) / (double)rows), .b = (float)m, .n = K};
    if (*finite != 0) run_elements(be, c.n, centre_task, &c);
}

void LEVEL(xkd_cpu_optimizer_ops)(xkd_ops *ops)
{
    ops->norms = norms;
    ops->adamw = adamw;
    ops->centre = centre;
}
