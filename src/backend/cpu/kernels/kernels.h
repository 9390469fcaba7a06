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

void LEVEL(xkd_cpu_linear_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_norm_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_attention_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_flat_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_row_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_exact_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_optimizer_ops)(xkd_ops *ops);
void LEVEL(xkd_cpu_loss_ops)(xkd_ops *ops);

#endif
