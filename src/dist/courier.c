/* Sums beside the caller's own work: one thread that takes them from a queue. Sums of a step are queued while its backward
 * pass goes on. */
#include <stdbool.h>

#include "base/alloc.h"
#include "dist/dist_parts.h"
#include "dist/mpi.h"

enum { MOST = 256 };

typedef struct {
    float *x;
    int64_t n;
} parcel;

struct xkd_courier {
    xkd_dist *dist;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    parcel queue[MOST]; /* a ring; the one at `first` is under way until it is taken off */
    int first, count;
    bool quit;
    xkd_status status; /* of the first that failed; those behind it are dropped */
};

static void *carry(void *arg)
{
    xkd_courier *c = arg;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!c->count && !c->quit) pthread_cond_wait(&c->changed, &c->lock);
        if (!c->count) break;
        parcel p = c->queue[c->first];
        bool failed = c->status != XKD_OK;
        pthread_mutex_unlock(&c->lock);
        xkd_status status = failed ? XKD_OK : xkd_dist_sum(c->dist, p.x, p.n);
        pthread_mutex_lock(&c->lock);
        if (status != XKD_OK) c->status = status;
        c->first = (c->first + 1) % MOST;
        c->count--;
        pthread_cond_broadcast(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static xkd_status start(xkd_dist *d)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = d->cx;
    xkd_courier *c = NULL;
    XKD_TRY(xkd_alloc(cx, &c, 1, sizeof *c));
    c->dist = d;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    if (pthread_create(&c->thread, NULL, carry, c) != 0) {
        xkd_free(c);
        XKD_FAIL(XKD_ERR_MEMORY, "no thread for sums between ranks");
    }
    d->courier = c;
fail:
    return status;
}

xkd_status xkd_dist_sum_later(xkd_dist *d, float *x, int64_t n)
{
    xkd_status status = XKD_OK;
    if (!d) return XKD_OK;
    if (d->device) return xkd_devices_sum(d, x, n);
    if (d->mpi && !xkd_mpi_allows_threads()) return xkd_dist_sum(d, x, n);
    if (!d->courier) XKD_TRY(start(d));
    xkd_courier *c = d->courier;
    pthread_mutex_lock(&c->lock);
    while (c->count == MOST) pthread_cond_wait(&c->changed, &c->lock);
    c->queue[(c->first + c->count++) % MOST] = (parcel){x, n};
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
fail:
    return status;
}

xkd_status xkd_dist_wait(xkd_dist *d)
{
    if (d && d->device) return xkd_devices_wait(d);
    if (!d || !d->courier) return XKD_OK;
    xkd_courier *c = d->courier;
    pthread_mutex_lock(&c->lock);
    while (c->count) pthread_cond_wait(&c->changed, &c->lock);
    xkd_status status = c->status;
    c->status = XKD_OK;
    pthread_mutex_unlock(&c->lock);
    return status;
}

void xkd_courier_free(xkd_courier *c)
{
    if (!c) return;
    pthread_mutex_lock(&c->lock);
    c->quit = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    xkd_free(c);
}
