/* What the files of the cpu backend's kernels share. They are compiled once for each level (v2, v3, v4; neon), and the
 * functions that they show each other carry its name. Those that work on stored tensors are compiled once more with
 * XKD_HALF, for bfloat16: `stored` is then uint16_t, and XKD_LEVEL ends with _half. */
#ifndef XKD_BACKEND_CPU_KERNELS_KERNELS_H
#define XKD_BACKEND_CPU_KERNELS_KERNELS_H

#include "backend/backend.h"
#include "backend/cpu/levels.h"

#define XKD_JOIN_LEVEL(name, level) name##_##level
#define XKD_JOIN(name, level) XKD_JOIN_LEVEL(name, level)
#define LEVEL(name) XKD_JOIN(name, XKD_LEVEL)

#ifdef XKD_HALF
#define STORED_DTYPE XKD_BF16
typedef uint16_t stored;
#else
#define STORED_DTYPE XKD_F32
typedef float stored;
#endif

/* Elements and rows that one task of an element-wise or row-wise loop takes: fixed, so that partial sums never depend
 * on the number of threads, and large enough that a task outweighs its hand-out. */
enum { ELEMENTS_A_TASK = 1 << 15, ROWS_A_TASK = 32 };

/* Rounds up: the last task may be short. */
static inline int64_t tasks_of(int64_t n, int64_t each)
{
    return (n + each - 1) / each;
}

static inline int64_t task_size(int64_t task, int64_t n, int64_t each)
{
    int64_t left = n - task * each;
    return left < each ? left : each;
}

/* fn for every task of n elements; tasks are independent, each writes its own part of the vectors. */
static inline void run_elements(xkd_backend *be, int64_t n, xkd_pool_fn fn, void *arg)
{
    xkd_parallel_for(be->pool, tasks_of(n, ELEMENTS_A_TASK), fn, arg);
}

/* The same of tasks that leave a sum each in *sums [tasks], which is set here: the sum of these, in order, so that it is the same
 * for any number of threads. Out of memory: 0, which the caller does not use, since the backend remembers the fault. */
static inline double sum_elements(xkd_backend *be, int64_t n, double **sums, xkd_pool_fn fn, void *arg)
{
    int64_t tasks = tasks_of(n, ELEMENTS_A_TASK);
    double total = 0;
    *sums = xkd_backend_shared_scratch(be, tasks * (int64_t)sizeof **sums);
    if (!*sums) return 0;
    run_elements(be, n, fn, arg);
    for (int64_t t = 0; t < tasks; t++) total += (*sums)[t];
    return total;
}

void LEVEL(xkd_cpu_linear_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_norm_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_attention_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_flat_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_row_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_exact_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_optimizer_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_loss_ops)(xkd_ops *ops);

#endif
