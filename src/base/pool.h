/* A fixed team of threads for data-parallel loops. The result of a loop never depends on the number of threads,
 * because each index is computed whole by one thread and nobody else writes its outputs. */
#ifndef XKD_BASE_POOL_H
#define XKD_BASE_POOL_H

#include <stdint.h>

#include "base/machine.h"
#include "base/status.h"

typedef struct xkd_pool xkd_pool;

/* Makes `threads` >= 1 threads in all, the caller's included. Free with xkd_pool_free. */
xkd_status xkd_pool_new(xkd_context *cx, xkd_pool **out, int threads);
void xkd_pool_free(xkd_pool *pool);
int xkd_pool_threads(const xkd_pool *pool);

/* Work of one index; `thread` (0 .. threads-1) says whose scratch may be used. */
typedef void (*xkd_pool_fn)(void *arg, int64_t index, int thread);

/* Runs fn for every index in [0, n) and returns when all are done. A thread begins with its own part of them, in order,
 * and goes on with what others have left. Not re-entrant: fn must not call it on the same pool. */
void xkd_parallel_for(xkd_pool *pool, int64_t n, xkd_pool_fn fn, void *arg);

#endif
