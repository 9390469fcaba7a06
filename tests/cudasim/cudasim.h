/* CUDA's language for the ordinary C++ compiler: what the kernels of src/backend/cuda use, done on the host.
 *
 * The threads of a block are fibers. They run one at a time, in an order drawn from a seed, and change at barriers, at
 * __syncwarp, votes and shuffles; blocks run one after the other, in an order drawn too. The compiler calls hooks (hooks.cpp)
 * before each read and write of a kernel: they refuse addresses that are no device memory, places behind the end of a piece,
 * shared memory that was not written, and two threads at one place with nothing between them that orders them. The first fault
 * ends the launch and is told by the next call of device.h.
 *
 * This is a simulation: that a kernel passes here says nothing of its speed. */
#ifndef CUDASIM_H
#define CUDASIM_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include <tuple>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

namespace sim
{
/* Of the fiber that runs. */
extern dim3 thread_index, block_index, block_size, grid_size;

void *shared_memory(void);
void block_barrier(const char *file, int line);
/* Waits until all lanes of `mask` have come with the same one; gives each the bits that lane `from` brought, or with a vote
 * which of them brought anything but 0. */
enum warp_operation { WARP_SYNC, WARP_SHUFFLE, WARP_BALLOT, WARP_MEET };
uint64_t warp_exchange(warp_operation what, unsigned mask, uint64_t bits, int from, const char *file, int line);
inline void warp_sync(const char *file, int line, unsigned mask = 0xffffffffu)
{
    warp_exchange(WARP_SYNC, mask, 0, 0, file, line);
}
int lane(void);
/* All lanes of a warp come with something of theirs; the last one calls `all` with the 32 of them. */
void warp_meet(void *mine, void (*all)(void **lanes), const char *file, int line);
/* Copies to shared memory that are under way: done when they are waited for. */
void copy_begin(void *to, const void *from, size_t bytes);
void copy_commit(void);
void copy_wait(int groups_left);
[[noreturn]] void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A launch: the kernel with its arguments, which its threads may read. */
struct job {
    size_t bytes; /* of the whole object */
    virtual ~job()
    {
    }
    virtual void thread() = 0;
};

template <class... P> struct job_of : job {
    void (*kernel)(P...);
    std::tuple<P...> args;
    job_of(void (*kernel_)(P...), P... args_) : kernel(kernel_), args(args_...)
    {
        bytes = sizeof *this;
    }
    void thread() override
    {
        std::apply(kernel, args);
    }
};

struct stream;
/* Puts a launch behind what the stream has to do; the job becomes its. */
int launch(stream *s, const char *kernel, dim3 grid, dim3 block, size_t shared, job *work);

template <class V> V shuffle(unsigned mask, V value, int from, const char *file, int line)
{
    static_assert(sizeof value <= 8, "one register or two");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = warp_exchange(WARP_SHUFFLE, mask, bits, from, file, line);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
} // namespace sim

#define threadIdx sim::thread_index
#define blockIdx sim::block_index
#define blockDim sim::block_size
#define gridDim sim::grid_size

#define SHARED(type, name) type *name = static_cast<type *>(sim::shared_memory())

#define __syncthreads() sim::block_barrier(__FILE__, __LINE__)
#define __syncwarp(...) sim::warp_sync(__FILE__, __LINE__, ##__VA_ARGS__)
#define __shfl_xor_sync(mask, value, by) sim::shuffle(mask, value, sim::lane() ^ (by), __FILE__, __LINE__)
#define __shfl_sync(mask, value, from) sim::shuffle(mask, value, from, __FILE__, __LINE__)
/* A lane without a partner keeps its own value. */
#define __shfl_down_sync(mask, value, by) \
    sim::shuffle(mask, value, sim::lane() + (by) < 32 ? sim::lane() + (by) : sim::lane(), __FILE__, __LINE__)
#define __ballot_sync(mask, predicate) \
    ((unsigned)sim::warp_exchange(sim::WARP_BALLOT, mask, (predicate) ? 1 : 0, 0, __FILE__, __LINE__))
#define __any_sync(mask, predicate) (__ballot_sync(mask, predicate) != 0)
#define __all_sync(mask, predicate) (__ballot_sync(mask, predicate) == (mask))

float atomicAdd(float *at, float value);
double atomicAdd(double *at, double value);
int atomicAdd(int *at, int value);
unsigned atomicAdd(unsigned *at, unsigned value);

using std::isfinite;
using std::isnan;

inline int min(int a, int b)
{
    return a < b ? a : b;
}

inline int max(int a, int b)
{
    return a > b ? a : b;
}

/* Products and sums that are not fused: the compiler of the host has none that are. */
inline float __fmul_rn(float a, float b)
{
    return a * b;
}

inline float __fadd_rn(float a, float b)
{
    return a + b;
}

inline double __dmul_rn(double a, double b)
{
    return a * b;
}

inline double __dadd_rn(double a, double b)
{
    return a + b;
}

inline void sincospif(float x, float *s, float *c)
{
    *s = (float)std::sin(M_PI * (double)x);
    *c = (float)std::cos(M_PI * (double)x);
}

/* bfloat16, rounded to nearest even. */
struct __nv_bfloat16 {
    uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x)
{
    uint32_t wide = (uint32_t)x.bits << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
}

inline __nv_bfloat16 __float2bfloat16_rn(float value)
{
    uint32_t wide;
    std::memcpy(&wide, &value, sizeof wide);
    if (std::isnan(value)) return {0x7fff};
    wide += 0x7fff + (wide >> 16 & 1);
    return {(uint16_t)(wide >> 16)};
}

/* As that of device.h: arguments are copied now, the threads run when the stream comes by. */
template <class... P, class... A>
int dev_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
               struct dev_stream_state *stream, A... args)
{
    return sim::launch(reinterpret_cast<sim::stream *>(stream), name, grid, block, shared,
                       new sim::job_of<P...>(kernel, static_cast<P>(args)...));
}

#endif
