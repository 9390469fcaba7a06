/* What the files of the cpu backend share. Operations that are not overridden are those of the reference. */
#ifndef XKD_BACKEND_CPU_CPU_H
#define XKD_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "backend/cpu/gemm.h"

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

/* Runs a product and keeps a failure in the backend. */
static inline void run_gemm(xkd_backend *be, const xkd_gemm *g)
{
    if (xkd_gemm_run(g)) __atomic_store_n(&be->status, XKD_ERR_INTERNAL, __ATOMIC_RELAXED);
}

void xkd_cpu_linear_ops(xkd_ops *ops);
void xkd_cpu_norm_ops(xkd_ops *ops);
void xkd_cpu_attention_ops(xkd_ops *ops);
void xkd_cpu_flat_ops(xkd_ops *ops);
void xkd_cpu_row_ops(xkd_ops *ops);

#endif
