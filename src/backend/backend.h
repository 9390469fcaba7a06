/* A backend: a table of operations (ops.h), the memory that they work on, and the threads they run on. */
#ifndef XKD_BACKEND_BACKEND_H
#define XKD_BACKEND_BACKEND_H

#include "backend/ops.h"
#include "base/memory.h"
#include "base/pool.h"

struct xkd_backend {
    const xkd_ops *ops;   /* on stored tensors; see ops.h for what is exact in them */
    const xkd_ops *exact; /* the same operations where all tensors are exact */
    xkd_context *cx;
    xkd_memory *memory; /* where all tensors lie */
    xkd_pool *pool;
    xkd_dtype dtype, exact_dtype; /* of stored and of exact tensors */
    xkd_widths element;           /* their bytes an element */
    bool tf32;                    /* matrix products of float32 may round what they multiply to 11 bits */
    xkd_status status;
    int64_t products;        /* multiply-adds executed in matrix products since xkd_backend_new; 1 = 2 FLOP */
    struct xkd_cuda *cuda;   /* of a GPU alone, likewise (cuda/cuda.h) */
    struct xkd_guard *guard; /* of the device "guard" alone; pool and memory are its own then */
    void **scratch;          /* [threads + 1]: per thread, and behind them the shared one */
    int64_t *scratch_bytes;
};

/* Makes the backend of a device with a pool of `threads`: "cpu" (F32 or BF16), "ref" (also F64), or "guard", which is
 * one of both in memory that the host cannot read (guard/guard.h). `dtype` is that of stored tensors. Free with
 * xkd_backend_free. */
xkd_status xkd_backend_new(xkd_context *cx, xkd_backend **out, const char *name, xkd_dtype dtype, int threads);
void xkd_backend_free(xkd_backend *be);

/* Lets products be TF32 from now on. XKD_ERR_CONFIG where the device has none; `name` is what it was opened as. */
xkd_status xkd_backend_allow_tf32(xkd_context *cx, xkd_backend *be, const char *name);

/* First fault since the last call of this function, when all work asked for is done; clears it. */
xkd_status xkd_backend_status(xkd_backend *be);

/* The first fault that is known by now: waits for nothing and clears nothing. On a device that works while the host does other
 * things it may come to light later. */
xkd_status xkd_backend_seen(xkd_backend *be);

/* A stretch of operations that is asked for in every step with the same arguments stands between repeat and repeat_end. Where the
 * device keeps it as a whole, repeat asks for it and returns true: the caller leaves out the operations and repeat_end. Elsewhere
 * both do nothing. `key` [bytes, 64 at most] is another one wherever an argument that comes by value is: an address, a size, a factor,
 * or which operations there are; numbers in the backend's memory may differ. */
bool xkd_backend_repeat(xkd_backend *be, const void *key, int64_t bytes);
void xkd_backend_repeat_end(xkd_backend *be);

/* What the host has asked of a device so far: launches, copies, and stretches that are kept as a whole. 0 where there is none. */
int64_t xkd_backend_asked(const xkd_backend *be);

/* Places of a device where batches land that depart from the host while it is at work. */
enum { XKD_LANDINGS = 2 };

/* How often the host has waited for work of a device that it did not know to be done. 0 where there is none. */
int64_t xkd_backend_waited(const xkd_backend *be);

/* Memory of at least `bytes` that only `thread` uses until the operation ends. It grows in the first step and then
 * stays (xkd_backend_settle). NULL when out of memory (the backend remembers). Thread-safe for distinct threads. */
void *xkd_backend_scratch(xkd_backend *be, int thread, int64_t bytes);

/* The same for all threads of the running operation together: one block, for what its tasks share. Call it outside of
 * parallel loops. */
void *xkd_backend_shared_scratch(xkd_backend *be, int64_t bytes);

/* Gives every thread as much scratch as the largest has: whoever meets the largest task in the first step is chance,
 * and no later step may allocate. Call it when no operation runs; it does nothing when all are equal. */
void xkd_backend_settle(xkd_backend *be);

/* Bytes that threads, or a GPU, have come to hold besides tensors: scratch of operations, and buckets for sums over ranks. */
int64_t xkd_backend_held(const xkd_backend *be);

/* Address of element `index` of a stored tensor, and of an exact one. */
static inline void *xkd_at(const xkd_backend *be, const void *tensor, int64_t index)
{
    return (char *)(uintptr_t)tensor + index * be->element.stored;
}

static inline void *xkd_exact_at(const xkd_backend *be, const void *tensor, int64_t index)
{
    return (char *)(uintptr_t)tensor + index * be->element.exact;
}

/* The tables. A table starts as a copy of ref's and overrides what it does better. */
const xkd_ops *xkd_ref_ops(xkd_dtype dtype);
xkd_status xkd_cpu_ops(xkd_context *cx, const xkd_ops **out,
                       xkd_dtype dtype); /* XKD_CPU may name a level that is not there */

#endif
