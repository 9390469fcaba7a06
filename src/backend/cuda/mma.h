/* Tensor cores, and copies to shared memory that run beside the kernel. A warp multiplies 16 x 16 by 16 x 8 numbers in bfloat16;
 * lane l holds, with g = l / 4 and t = l % 4:
 *   a [16,16]: a[0] row g, columns 2t and 2t + 1; a[1] row g + 8; a[2] row g, columns 2t + 8 and 2t + 9; a[3] row g + 8
 *   b [16,8]:  b[0] rows 2t and 2t + 1 of column g; b[1] rows 2t + 8 and 2t + 9
 *   c [16,8]:  c[0], c[1] row g, columns 2t and 2t + 1; c[2], c[3] row g + 8 */
#ifndef XKD_BACKEND_CUDA_MMA_H
#define XKD_BACKEND_CUDA_MMA_H

#include "device.h"

#ifdef XKD_CUDASIM
#include "tensor_cores.h"
#else
/* c += a b */
__device__ inline void multiply_add(float c[4], const unsigned a[4], const unsigned b[2])
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four matrices of 8 x 8 from shared memory; lane l names row l % 8 of matrix l / 8. r[j]: of matrix j, row g, columns 2t and
 * 2t + 1. */
__device__ inline void load_matrices(unsigned r[4], const bf16 *row)
{
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* The same transposed: rows 2t and 2t + 1 of column g. */
__device__ inline void load_matrices_transposed(unsigned r[4], const bf16 *row)
{
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* Both addresses are multiples of 16. */
__device__ inline void copy_async_16(void *shared, const void *from)
{
    unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

/* This thread's copies are there when it comes back; for those of others a barrier is needed too. */
__device__ inline void copy_async_wait(void)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}
#endif

/* Two numbers of neighbouring columns. */
__device__ inline unsigned pack(float low, float high)
{
    __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    unsigned bits;
    memcpy(&bits, &both, sizeof bits);
    return bits;
}

__device__ inline float low_of(unsigned pair)
{
    return __uint_as_float(pair << 16);
}

__device__ inline float high_of(unsigned pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

/* Two tiles of sums as an operand: columns 0 to 7 and 8 to 15. */
__device__ inline void as_operand(unsigned a[4], const float left[4], const float right[4])
{
    a[0] = pack(left[0], left[1]);
    a[1] = pack(left[2], left[3]);
    a[2] = pack(right[0], right[1]);
    a[3] = pack(right[2], right[3]);
}

#endif
