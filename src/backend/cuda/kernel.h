/* What kernels share: elements of a type T that is stored and float that is computed in, and sums of a fixed order. */
#ifndef XKD_BACKEND_CUDA_KERNEL_H
#define XKD_BACKEND_CUDA_KERNEL_H

#include "device.h"

enum : unsigned { ALL_LANES = 0xffffffffu };
enum { WARP = 32, THREADS = 256, WARPS = THREADS / WARP };

__device__ inline float get(const float *x, int64_t i)
{
    return x[i];
}

__device__ inline float get(const bf16 *x, int64_t i)
{
    return __bfloat162float(x[i]);
}

__device__ inline void set(float *x, int64_t i, float value)
{
    x[i] = value;
}

__device__ inline void set(bf16 *x, int64_t i, float value)
{
    x[i] = __float2bfloat16_rn(value);
}

/* x Phi(x), the exact (erf) GELU, and its derivative. erfc keeps the digits of small values of Phi. */
__device__ inline float normal_cdf(float x)
{
    return 0.5f * erfcf(x * -0.70710678118654752f);
}

__device__ inline float gelu(float x)
{
    return x * normal_cdf(x);
}

__device__ inline float gelu_slope(float x)
{
    return normal_cdf(x) + x * 0.39894228040143268f * expf(-0.5f * x * x);
}

__device__ inline int lane_number(void)
{
    return (int)(threadIdx.x % WARP);
}

__device__ inline int warp_number(void)
{
    return (int)(threadIdx.x / WARP);
}

/* The same sum in every lane. */
template <class N> __device__ inline N warp_sum(N value)
{
    for (int m = WARP / 2; m; m /= 2) value += __shfl_xor_sync(ALL_LANES, value, m);
    return value;
}

__device__ inline float warp_max(float value)
{
    for (int m = WARP / 2; m; m /= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, m));
    return value;
}

/* The same sum in every thread of a block of WARPS warps: within warps, then over them in order. `room` [WARPS] is shared
 * memory and may be used again at once. */
template <class N> __device__ inline N block_sum(N value, N *room)
{
    value = warp_sum(value);
    if (lane_number() == 0) room[warp_number()] = value;
    __syncthreads();
    N sum = room[0];
    for (int w = 1; w < WARPS; w++) sum += room[w];
    __syncthreads();
    return sum;
}

/* log sum exp of what a thread has seen, one number after the other: the largest, and the sum relative to it. */
struct log_sum {
    float largest, sum;
};

/* Lowest but finite: where -infinity comes first, its weight is then 0. */
__device__ inline log_sum log_sum_empty(void)
{
    return {-3.402823466e38f, 0};
}

__device__ inline void log_sum_add(log_sum *a, log_sum b)
{
    float largest = fmaxf(a->largest, b.largest);
    a->sum = a->sum * expf(a->largest - largest) + b.sum * expf(b.largest - largest);
    a->largest = largest;
}

/* NaN where every number was -infinity, as exp(x - largest) has it. */
__device__ inline float log_sum_value(log_sum a)
{
    return a.sum == 0 ? nanf("") : a.largest + logf(a.sum);
}

__device__ inline log_sum warp_log_sum(log_sum a)
{
    for (int m = WARP / 2; m; m /= 2) {
        log_sum b = {__shfl_xor_sync(ALL_LANES, a.largest, m), __shfl_xor_sync(ALL_LANES, a.sum, m)};
        log_sum_add(&a, b);
    }
    return a;
}

/* Of the whole block, in every thread; `room` [WARPS] may be used again behind the next barrier. */
__device__ inline log_sum block_log_sum(log_sum a, log_sum *room)
{
    a = warp_log_sum(a);
    if (lane_number() == 0) room[warp_number()] = a;
    __syncthreads();
    log_sum total = room[0];
    for (int w = 1; w < WARPS; w++) log_sum_add(&total, room[w]);
    return total;
}

#endif
