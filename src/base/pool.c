/* A team of threads that runs loops. Every thread first takes the indices of its own part of a loop, one at a time, and
 * then helps the others with theirs, so uneven work balances itself. Parts keep rows with a thread from one operation to
 * the next, where its own caches still hold them: that matters most where processors share no cache. Who runs an index
 * is chance: results must not depend on it, and functions write only what belongs to their index. */
#include "base/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "base/clock.h"

/* The part of a loop that a thread starts with. Parts lie two cache lines apart: each owner counts in its own. */
typedef struct {
    _Atomic int64_t next; /* next index to hand out */
    int64_t end;
    char apart[112];
} part;

/* Number 0 is the thread that calls; it has no entry of its own. */
typedef struct {
    struct xkd_pool *pool;
    int number;
    pthread_t thread;
} worker;

/* Looks at a changing counter before going to sleep: the next loop of a training step mostly comes within
 * microseconds, while waking a sleeper costs about 50. Never with more threads than processors. */
enum { SPINS = 4000 };

struct xkd_pool {
    int threads;
    int started; /* worker threads that exist */
    int spins;
    _Atomic uint64_t loop; /* number of the current loop; a worker waits for a larger one */
    _Atomic int busy;      /* workers still inside the current loop */
    _Atomic int quit;
    xkd_pool_fn fn; /* of the current loop; written before `loop` is raised */
    void *arg;
    part *parts;          /* [threads] */
    pthread_mutex_t lock; /* for sleeping only */
    pthread_cond_t start, done;
    worker *workers;
};

/* Tells the processor that this is a waiting loop, which leaves its sibling thread more. */
static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Signals that report a fault of the running instruction must reach it; all others go to the threads of the program,
 * which know what to do with them. */
static void hold_signals(sigset_t *before)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t held;
    sigfillset(&held);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&held, faults[i]);
    pthread_sigmask(SIG_BLOCK, &held, before);
}

/* Relaxed: the counters only give out numbers; fn, arg and the ends were published with `loop`. */
static void run_indices(xkd_pool *pool, int thread)
{
    for (int k = 0; k < pool->threads; k++) {
        part *p = &pool->parts[(thread + k) % pool->threads];
        while (atomic_load_explicit(&p->next, memory_order_relaxed) < p->end) {
            int64_t i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
            if (i < p->end) pool->fn(pool->arg, i, thread);
        }
    }
}

/* Returns the number of the first loop after `seen`.
 * First by looking, then by sleeping. The counter is looked at again under the lock, so an
 * announcement between both is not missed. */
static uint64_t wait_for_loop(xkd_pool *pool, uint64_t seen)
{
    uint64_t loop = atomic_load(&pool->loop);
    for (int i = 0; loop == seen && i < pool->spins; i++) {
        pause_briefly();
        loop = atomic_load(&pool->loop);
    }
    if (loop != seen) return loop;
    pthread_mutex_lock(&pool->lock);
    while ((loop = atomic_load(&pool->loop)) == seen) pthread_cond_wait(&pool->start, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    return loop;
}

/* The last worker of a loop wakes the caller, which may be asleep. */
static void *worker_main(void *arg)
{
    worker *self = arg;
    xkd_pool *pool = self->pool;
    uint64_t seen = 0;
    for (;;) {
        seen = wait_for_loop(pool, seen);
        if (atomic_load(&pool->quit)) return NULL;
        run_indices(pool, self->number);
        /* The value before: 1 means that this was the last one. */
        if (atomic_fetch_sub(&pool->busy, 1) > 1) continue;
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->lock);
    }
}

/* Raising the number releases what was written before it to the workers. The broadcast is under the
 * lock, else a worker could check, miss it and sleep. */
static void announce_loop(xkd_pool *pool)
{
    atomic_fetch_add(&pool->loop, 1);
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
}

/* Either all threads or none: a smaller team than asked for would pass unnoticed. */
xkd_status xkd_pool_new(xkd_context *cx, xkd_pool **out, int threads)
{
    xkd_status status = XKD_OK;
    xkd_pool *pool = NULL;
    sigset_t before;
    *out = NULL;
    if (threads < 1) XKD_FAIL(XKD_ERR_CONFIG, "threads=%d: at least one thread is needed", threads);
    XKD_TRY(xkd_alloc(cx, &pool, 1, sizeof *pool));
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->start, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->threads = threads;
    pool->spins = threads <= xkd_processor_count() ? SPINS : 0;
    XKD_TRY(xkd_alloc(cx, &pool->workers, threads, sizeof *pool->workers));
    XKD_TRY(xkd_alloc(cx, &pool->parts, threads, sizeof *pool->parts));
    hold_signals(&before); /* the new threads inherit the mask and keep it */
    for (int i = 1; i < threads; i++) {
        worker *w = &pool->workers[i];
        *w = (worker){.pool = pool, .number = i};
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0) break;
        pool->started = i;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pool->started < threads - 1)
        XKD_FAIL(XKD_ERR_MEMORY, "cannot start thread %d of %d: lower threads=", pool->started + 2, threads);
    *out = pool;
    pool = NULL;
fail:
    xkd_pool_free(pool);
    return status;
}

/* Threads that were never started are not joined. No loop may be running. */
void xkd_pool_free(xkd_pool *pool)
{
    if (!pool) return;
    atomic_store(&pool->quit, 1);
    announce_loop(pool);
    for (int i = 1; i <= pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->start);
    pthread_cond_destroy(&pool->done);
    xkd_free(pool->workers);
    xkd_free(pool->parts);
    xkd_free(pool);
}

int xkd_pool_threads(const xkd_pool *pool)
{
    return pool->threads;
}

/* The loop of several threads, the caller's as number 0.
 * fn, arg and n must be in place before the announcement. Returns when all indices are done and no
 * worker is inside the loop any more, so the next one may overwrite them. */
static void run_team(xkd_pool *pool, int64_t n, xkd_pool_fn fn, void *arg)
{
    pool->fn = fn;
    pool->arg = arg;
    for (int k = 0; k < pool->threads; k++) {
        pool->parts[k].end = n * (k + 1) / pool->threads;
        atomic_store_explicit(&pool->parts[k].next, n * k / pool->threads, memory_order_relaxed);
    }
    atomic_store(&pool->busy, pool->threads - 1);
    announce_loop(pool);
    run_indices(pool, 0);
    for (int i = 0; atomic_load(&pool->busy) && i < pool->spins; i++) pause_briefly();
    if (!atomic_load(&pool->busy)) return;
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->busy)) pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

/* A loop of one index runs on the caller, without waking anybody. Loops must not be nested. */
void xkd_parallel_for(xkd_pool *pool, int64_t n, xkd_pool_fn fn, void *arg)
{
    if (pool->threads == 1 || n <= 1)
        for (int64_t i = 0; i < n; i++) fn(arg, i, 0);
    else
        run_team(pool, n, fn, arg);
    xkd_tick();
}
