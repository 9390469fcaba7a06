/* Element-wise work on long vectors: activations, squared errors, sums. */
#include <math.h>

#include "backend/constants.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vector.h"

/* Work of one call, shared read-only by its tasks; each operation uses the fields it needs and leaves the
 * rest 0. */
typedef struct {
    stored *y;           /* output */
    const stored *x, *z; /* inputs, of the length of y */
    const float *target; /* likewise */
    double a, b;         /* scalars of the operation, rounded to float in the task */
    int64_t n;
    double *sums; /* [tasks] */
} flat;

/* The difference is taken in double as well, since pred and target may agree in all but their last bits. */
static void mse_forward_task(void *arg, int64_t task, int thread)
{
    const flat *f = arg;
    const stored *x = f->x + task * ELEMENTS_A_TASK;
    const float *z = f->target + task * ELEMENTS_A_TASK;
    int64_t n = task_size(task, f->n, ELEMENTS_A_TASK), i = 0;
    lanes_d sum = lanes_d_zero();
    double rest = 0;
    (void)thread;
    for (; i + LANES_D <= n; i += LANES_D)
        for (int j = 0; j < VECS_D; j++) {
            vecd e = vecd_read(x + i + j * WD) - vecd_widen(z + i + j * WD);
            sum.v[j] = vecd_fma(e, e, sum.v[j]);
        }
    for (; i < n; i++) {
        double e = (double)read_one(x + i) - (double)z[i];
        rest += e * e;
    }
    f->sums[task] = lanes_d_sum(sum) + rest;
}

static void mse_forward(xkd_backend *be, double *loss, const void *pred, const void *target, int64_t n)
{
    flat f = {.x = pred, .target = target, .n = n};
    *loss = sum_elements(be, f.n, &f.sums, mse_forward_task, &f) / (double)n;
}

static void mse_backward_task(void *arg, int64_t task, int thread)
{
    const flat *f = arg;
    int64_t at = task * ELEMENTS_A_TASK, n = task_size(task, f->n, ELEMENTS_A_TASK);
    float a = (float)f->a;
    (void)thread;
    for (int64_t i = at; i < at + n; i++) write_one(f->y + i, a * (read_one(f->x + i) - f->target[i]));
}

/* d/dpred of mean (pred - target)^2, times the loss coefficient; both constants are one factor. */
static void mse_backward(xkd_backend *be, void *dpred, const void *pred, const void *target, double scale, int64_t n)
{
    flat f = {.y = dpred, .x = pred, .target = target, .a = 2 * scale / (double)n, .n = n};
    run_elements(be, f.n, mse_backward_task, &f);
}

/* The last vector of a task may be partial. */
static void gelu_forward_task(void *arg, int64_t task, int thread)
{
    const flat *f = arg;
    int64_t end = task * ELEMENTS_A_TASK + task_size(task, f->n, ELEMENTS_A_TASK);
    (void)thread;
    for (int64_t i = task * ELEMENTS_A_TASK; i < end; i += W)
        write_part(f->y + i, vec_gelu(read_part(f->x + i, end - i)), end - i);
}

static void gelu_forward(xkd_backend *be, void *y, const void *x, int64_t n)
{
    flat f = {.y = y, .x = x, .n = n};
    run_elements(be, f.n, gelu_forward_task, &f);
}

/* gelu'(x) = Phi(x) + x phi(x). dy and x of a vector are read before dx is stored, because dx may be dy. */
static void gelu_backward_task(void *arg, int64_t task, int thread)
{
    const flat *f = arg;
    int64_t end = task * ELEMENTS_A_TASK + task_size(task, f->n, ELEMENTS_A_TASK);
    (void)thread;
    for (int64_t i = task * ELEMENTS_A_TASK; i < end; i += W) {
        vec distribution, density, x = read_part(f->x + i, end - i), dy = read_part(f->z + i, end - i);
        vec_normal(x, &distribution, &density);
        write_part(f->y + i, dy * vec_fma(x, density, distribution), end - i);
    }
}

static void gelu_backward(xkd_backend *be, void *dx, const void *dy, const void *x, int64_t n)
{
    flat f = {.y = dx, .x = x, .z = dy, .n = n};
    run_elements(be, f.n, gelu_backward_task, &f);
}

static void axpby_task(void *arg, int64_t task, int thread)
{
    const flat *f = arg;
    int64_t first = task * ELEMENTS_A_TASK, end = first + task_size(task, f->n, ELEMENTS_A_TASK);
    float a = (float)f->a, b = (float)f->b;
    (void)thread;
    /* b = 0 must not read y, which may be uninitialised: 0 * NaN would be NaN. */
    if (b == 0)
        for (int64_t i = first; i < end; i++) write_one(f->y + i, a * read_one(f->x + i));
    else
        for (int64_t i = first; i < end; i++) write_one(f->y + i, a * read_one(f->x + i) + b * read_one(f->y + i));
}

static void axpby(xkd_backend *be, void *y, const void *x, double a, double b, int64_t n)
{
    flat f = {.y = y, .x = x, .a = a, .b = b, .n = n};
    run_elements(be, f.n, axpby_task, &f);
}

static void fill_task(void *arg, int64_t task, int thread)
{
    const flat *f = arg;
    int64_t first = task * ELEMENTS_A_TASK, end = first + task_size(task, f->n, ELEMENTS_A_TASK);
    float a = (float)f->a;
    (void)thread;
    for (int64_t i = first; i < end; i++) write_one(f->y + i, a);
}

static void fill(xkd_backend *be, void *x, double value, int64_t n)
{
    flat f = {.y = x, .a = value, .n = n};
    run_elements(be, f.n, fill_task, &f);
}

/* What is not named here stays the reference's single-threaded code. */
void LEVEL(xkd_cpu_flat_ops)(xkd_ops *ops)
{
    ops->mse_forward = mse_forward;
    ops->mse_backward = mse_backward;
    ops->gelu_forward = gelu_forward;
    ops->gelu_backward = gelu_backward;
    ops->axpby = axpby;
    ops->fill = fill;
}
