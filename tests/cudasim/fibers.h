/* The parts of the simulation among themselves: who runs, what memory there is, and what the hooks look at. */
#ifndef CUDASIM_FIBERS_H
#define CUDASIM_FIBERS_H

#include <cstddef>
#include <cstdint>
#include <functional>

#include "cudasim.h"

namespace sim
{
/* An H100 gives a block 227 KB of shared memory; the range of addresses is a little larger. */
enum { LANES = 32, MOST_THREADS = 1024, MOST_SHARED = 256 << 10 };

/* One barrier interval of one block: numbers grow, so an older launch has smaller ones. */
struct running_place {
    bool in_kernel;
    uint32_t launch_began, block_began, interval;
    unsigned thread, warp_epoch; /* __syncwarps of its warp in this interval */
    const char *kernel;
};
extern running_place now;

/* Runs all threads of all blocks; false: a fault, whose text last_fault has. */
bool run_grid(const char *kernel, dim3 grid, dim3 block, size_t shared, job *work);
const char *last_fault(void);
void forget_fault(void);
/* Remembers a fault outside of kernels. */
void note_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t draw(void);
bool is_on_stack(const void *address);
/* Whether it is the running launch's own copy of its arguments. */
bool is_argument(const void *address);

/* The block's shared memory. */
extern char *shared_begin;
extern size_t shared_size;

/* ---- device memory (memory.cpp) ---- */
extern char *memory_begin, *memory_end; /* the range of addresses */
/* The piece that holds the address: its end, or NULL. */
char *piece_end(const void *address);
void *take_memory(size_t bytes);
/* Bytes that may be taken: XKD_CUDASIM_MEMORY of the environment, else all of the range. */
size_t memory_size(void);
bool give_memory(void *block);
/* Red zones: bytes of a piece that nothing may touch any more, until the piece is given back. */
void add_fence(char *at, size_t bytes);
void mark_fences(void);
/* The begin of the one that holds the address, or the next one behind it; NULL. */
char *fence_from(const void *address);
/* Between these the host may read and write device memory. */
void open_memory(void);
void close_memory(void);

/* ---- streams (device_sim.cpp) ---- */
/* What is put on a stream returns 0, FAULT, or PENDING: it wants to be called again. */
enum { FAULT = 1, PENDING = -1 };
int put(stream *s, std::function<int()> work);
/* Whether these bytes lie in one piece of the device; else a fault of `what` is noted. */
bool is_device(const void *from, size_t bytes, const char *what);

/* ---- shadows (hooks.cpp) ---- */
void reset_shadow_if_full(void);
void mark_fence(char *at, size_t bytes);
} // namespace sim

#endif
