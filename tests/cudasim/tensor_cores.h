/* Stand-ins for what src/backend/cuda/mma.h describes. A warp's lanes meet, and the last one does the work of all. */
#ifndef CUDASIM_TENSOR_CORES_H
#define CUDASIM_TENSOR_CORES_H

#include "cudasim.h"

extern "C" void __tsan_read_range(void *at, long bytes);

namespace sim
{
struct lane_operands {
    float *c;
    const unsigned *a, *b;
};
void warp_multiply(lane_operands *lanes[32]);

struct lane_matrices {
    unsigned *r;
    const __nv_bfloat16 *row;
    bool transposed;
};
void warp_load(lane_matrices *lanes[32]);
} // namespace sim

inline void multiply_add(float *c, const unsigned *a, const unsigned *b)
{
    sim::lane_operands mine = {c, a, b};
    sim::warp_meet(&mine, (void (*)(void **))sim::warp_multiply, __FILE__, __LINE__);
}

inline void load_matrices(unsigned *r, const __nv_bfloat16 *row)
{
    __tsan_read_range((void *)(uintptr_t)row, 16);
    sim::lane_matrices mine = {r, row, false};
    sim::warp_meet(&mine, (void (*)(void **))sim::warp_load, __FILE__, __LINE__);
}

inline void load_matrices_transposed(unsigned *r, const __nv_bfloat16 *row)
{
    __tsan_read_range((void *)(uintptr_t)row, 16);
    sim::lane_matrices mine = {r, row, true};
    sim::warp_meet(&mine, (void (*)(void **))sim::warp_load, __FILE__, __LINE__);
}

inline void copy_async_16(void *shared, const void *from)
{
    __tsan_read_range((void *)(uintptr_t)from, 16);
    sim::copy_begin(shared, from, 16);
}

inline void copy_async_wait(void)
{
    sim::copy_commit();
    sim::copy_wait(0);
}

struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high)
{
    return {__float2bfloat16_rn(low), __float2bfloat16_rn(high)};
}

inline float __uint_as_float(unsigned bits)
{
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
