/* Sums in double over all elements, or rows, of which a loss is made. */
#ifndef XKD_BACKEND_CUDA_LOSS_H
#define XKD_BACKEND_CUDA_LOSS_H

#include "kernel.h"
#include "state.h"

/* As many blocks as fill any GPU some times over; a constant, so that the order of a sum depends on its length alone. */
enum { SUM_BLOCKS = 1024, SUM_EACH = 8 };

/* out[c] = scale[c] times the sum, or += */
struct sum_target {
    double *out[2];
    double scale[2];
    bool accumulate;
};

/* partial [F::COUNT, blocks]: what f.add(sums, i) adds up for this block's i. */
template <class F> __global__ void sum_blocks(double *partial, F f, int64_t n)
{
    SHARED(double, room); /* [WARPS] */
    double sum[F::COUNT] = {0};
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS)
        f.add(sum, i);
    for (int c = 0; c < F::COUNT; c++) {
        double total = block_sum(sum[c], room);
        if (threadIdx.x == 0) partial[c * gridDim.x + blockIdx.x] = total;
    }
}

/* One block. */
static __global__ void sum_partials(sum_target to, const double *partial, int64_t n, int count)
{
    SHARED(double, room); /* [WARPS] */
    for (int c = 0; c < count; c++) {
        double sum = 0;
        for (int64_t i = threadIdx.x; i < n; i += THREADS) sum += partial[c * n + i];
        sum = block_sum(sum, room) * to.scale[c];
        if (threadIdx.x == 0) *to.out[c] = to.accumulate ? *to.out[c] + sum : sum;
    }
}

/* *out = scale * sum of rows [n], or += */
static inline void sum_rows(xkd_backend *be, const char *name, double *out, const double *rows, int64_t n, double scale,
                            bool accumulate)
{
    cuda_launch(be, name, sum_partials, 1, THREADS, WARPS * sizeof(double), sum_target{{out}, {scale}, accumulate},
                rows, n, 1);
}

template <class F> static void sum_all(xkd_backend *be, const char *name, sum_target to, F f, int64_t n)
{
    unsigned blocks = blocks_for(n, THREADS * SUM_EACH);
    if (blocks > SUM_BLOCKS) blocks = SUM_BLOCKS;
    double *partial = (double *)cuda_scratch(be, (int64_t)blocks * F::COUNT * (int64_t)sizeof *partial);
    if (!partial) return;
    cuda_launch(be, name, sum_blocks<F>, blocks, THREADS, WARPS * sizeof(double), partial, f, n);
    cuda_launch(be, name, sum_partials, 1, THREADS, WARPS * sizeof(double), to, (const double *)partial,
                (int64_t)blocks, (int)F::COUNT);
}

#endif
