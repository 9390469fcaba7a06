#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/alloc.h"

typedef struct {
    struct xkd_pool *pool;
    int number;
    pthread_t thread;
} worker;

struct xkd_pool {
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    int threads;
    int started;       /* worker threads that exist */
    uint64_t loop;     /* number of the current loop; a worker waits for a larger one */
    int busy;          /* workers still inside the current loop */
    int quit;
    xkd_pool_fn fn;
    void *arg;
    int64_t n;
    _Atomic int64_t next;
    worker *workers;
};

static void run_indices(xkd_pool *pool, int thread)
{
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (i >= pool->n) return;
        pool->fn(pool->arg, i, thread);
    }
}

static void *worker_main(void *arg)
{
    worker *self = arg;
    xkd_pool *pool = self->pool;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->quit && pool->loop == seen) pthread_cond_wait(&pool->start, &pool->lock);
        if (pool->quit) break;
        seen = pool->loop;
        pthread_mutex_unlock(&pool->lock);
        run_indices(pool, self->number);
        pthread_mutex_lock(&pool->lock);
        if (--pool->busy == 0) pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

xkd_status xkd_pool_new(xkd_context *cx, xkd_pool **out, int threads)
{
    xkd_status status = XKD_OK;
    xkd_pool *pool = NULL;
    *out = NULL;
    if (threads < 1) XKD_FAIL(XKD_ERR_CONFIG, "threads=%d: at least one thread is needed", threads);
    XKD_TRY(xkd_alloc(cx, &pool, 1, sizeof *pool));
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->start, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->threads = threads;
    XKD_TRY(xkd_alloc(cx, &pool->workers, threads, sizeof *pool->workers));
    for (int i = 1; i < threads; i++) {
        worker *w = &pool->workers[i];
        *w = (worker){.pool = pool, .number = i};
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0)
            XKD_FAIL(XKD_ERR_MEMORY, "cannot start thread %d of %d: lower threads=", i + 1, threads);
        pool->started = i;
    }
    *out = pool;
    pool = NULL;
fail:
    xkd_pool_free(pool);
    return status;
}

void xkd_pool_free(xkd_pool *pool)
{
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    pool->quit = 1;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 1; i <= pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->start);
    pthread_cond_destroy(&pool->done);
    xkd_free(pool->workers);
    xkd_free(pool);
}

int xkd_pool_threads(const xkd_pool *pool)
{
    return pool->threads;
}

void xkd_parallel_for(xkd_pool *pool, int64_t n, xkd_pool_fn fn, void *arg)
{
    if (pool->threads == 1 || n <= 1) {
        for (int64_t i = 0; i < n; i++) fn(arg, i, 0);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->fn = fn;
    pool->arg = arg;
    pool->n = n;
    atomic_store(&pool->next, 0);
    pool->busy = pool->threads - 1;
    pool->loop++;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    run_indices(pool, 0);
    pthread_mutex_lock(&pool->lock);
    while (pool->busy) pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

int xkd_processor_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}
