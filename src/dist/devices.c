/* Sums on GPUs that have met each other. The host waits for them with an eye on the signs of life of the other ranks: what a
 * device waits for would never come from a rank that is lost. */
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "backend/cuda/cuda.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/text.h"
#include "dist/dist_parts.h"

/* Between two looks at what a device waits for. */
static const struct timespec MOMENT = {.tv_nsec = 20000};

/* s that a loss may take to be noticed behind a fault that may come from it. */
static const double GRACE = 3;

/* What a rank says of its device. */
typedef struct {
    bool can; /* it has one, and a library for exchanges */
    char bus[32];
} device_card;

/* What a rank that could meet says in front of the meeting. */
typedef struct {
    int32_t status;              /* XKD_OK: it is ready */
    char name[XKD_CUDA_MEETING]; /* rank 0's alone */
    char why[XKD_LOST_TEXT];
} readiness;

/* What a user does about NCCL. */
static const char REMEDY[] = ": NCCL_DEBUG=INFO makes NCCL say more, NCCL_SOCKET_IFNAME chooses its network";

/* Two ranks of one machine on one device: NCCL refuses that. */
static bool share_one(const xkd_dist *d, const device_card *all, int *first, int *second)
{
    for (*second = 1; *second < d->size; ++*second)
        for (*first = 0; *first < *second; ++*first)
            if (strcmp(d->hosts[*first], d->hosts[*second]) == 0 && strcmp(all[*first].bus, all[*second].bus) == 0)
                return true;
    return false;
}

/* All ranks come to the same answer, since all have the same cards. */
static bool can_meet(xkd_dist *d, const device_card *all)
{
    int first, second;
    const char *through = "gradients pass through the hosts' memory";
    for (int r = 0; r < d->size; r++) {
        if (all[r].can) continue;
        if (d->rank == 0 && d->device)
            xkd_log(d->cx, XKD_LOG_WARN, "rank %d (%s) has no NCCL or computes on no GPU: %s", r, d->hosts[r], through);
        return false;
    }
    if (!share_one(d, all, &first, &second)) return true;
    if (d->rank == 0)
        xkd_log(d->cx, XKD_LOG_WARN, "ranks %d and %d (%s) share a GPU: %s", first, second, d->hosts[first], through);
    return false;
}

/* Which GPU each rank has; a list that is too long for a line ends in it. */
static xkd_status tell(const xkd_dist *d, const device_card *all)
{
    if (d->rank != 0) return XKD_OK;
    xkd_text line = xkd_text_make(d->cx);
    xkd_text_printf(&line, "gradients are added up on the GPUs, which NCCL connects:");
    for (int r = 0; r < d->size; r++) xkd_text_printf(&line, "%s %d on %s", r ? "," : "", r, all[r].bus);
    if (line.status == XKD_OK) xkd_log(d->cx, XKD_LOG_INFO, "%s", line.data);
    xkd_status status = line.status;
    xkd_text_free(&line);
    return status;
}

/* A fault of a device may be the loss of another rank, which the heartbeats then know, or its own. */
static xkd_status fault(xkd_dist *d)
{
    struct pollfd lost = {.fd = d->wake[0], .events = POLLIN};
    (void)poll(&lost, 1, (int)(1000 * GRACE));
    xkd_status status = xkd_dist_look(d);
    if (status == XKD_OK) return xkd_backend_status(d->device);
    /* Its message is about the loss. */
    xkd_clear_error(d->cx);
    xkd_cuda_part(d->device);
    (void)xkd_backend_status(d->device);
    xkd_clear_error(d->cx);
    return xkd_dist_look(d);
}

/* Whether a device goes on waiting for those of other ranks. */
static bool go_on(void *user)
{
    xkd_dist *d = user;
    xkd_tick();
    if (d->lost || xkd_now() > d->patience) return false;
    (void)nanosleep(&MOMENT, NULL);
    return true;
}

/* Nobody knows for whom NCCL waits. A rank that is lost, or stuck in a call of NCCL's, is told of by the signs of life, for which
 * there is time. */
static xkd_status meet(xkd_dist *d, xkd_backend *be, const char *name)
{
    d->patience = xkd_now() + 2 * d->timeout;
    bool met = xkd_cuda_meet(be, name);
    d->patience = INFINITY;
    if (met) return XKD_OK;
    if (be->status != XKD_OK) return fault(d);
    /* The text of an earlier loss stays. */
    xkd_dist_note_lost(
        d, "rank %d (%s): the GPUs of %d ranks have not met in %g s (twice run.peer_timeout), though all live%s",
        d->rank, d->hosts[d->rank], d->size, 2 * d->timeout, REMEDY);
    return xkd_dist_look(d);
}

/* What this rank has for the meeting. Where it has a fault, `why` is the sentence that it and all others end with. */
static readiness prepare(xkd_dist *d, xkd_backend *be)
{
    readiness mine = {0};
    const xkd_cuda_party party = {d->rank, d->size, d->share, go_on, d};
    xkd_cuda_prepare(be, &party, mine.name);
    mine.status = (int32_t)xkd_backend_seen(be);
    if (mine.status == XKD_OK) return mine;
    (void)xkd_backend_status(be);
    snprintf(mine.why, sizeof mine.why, "rank %d (%s) cannot meet the others' GPUs: %.280s%s", d->rank,
             d->hosts[d->rank], xkd_last_error(d->cx), mine.status == XKD_ERR_DEVICE ? REMEDY : "");
    return mine;
}

/* All are told of a fault that one has in front of the meeting: there it would be waited for. `name`: rank 0's. */
static xkd_status agree(xkd_dist *d, xkd_backend *be, char name[XKD_CUDA_MEETING])
{
    xkd_status status = XKD_OK;
    readiness mine, *all = NULL;
    XKD_TRY(xkd_alloc(d->cx, &all, d->size, sizeof *all));
    mine = prepare(d, be);
    status = xkd_dist_gather(d, all, &mine, sizeof mine);
    /* A rank with a fault of its own tells that one, even if the others are gone already. */
    if (mine.status != XKD_OK) {
        xkd_clear_error(d->cx);
        status = xkd_fail(d->cx, (xkd_status)mine.status, "%s", mine.why);
    }
    for (int r = 0; r < d->size && status == XKD_OK; r++)
        if (all[r].status != XKD_OK) status = xkd_fail(d->cx, XKD_ERR_PEER, "%s", all[r].why);
    memcpy(name, all[0].name, XKD_CUDA_MEETING);
fail:
    if (status != XKD_OK) xkd_cuda_part(be);
    xkd_free(all);
    return status;
}

xkd_status xkd_dist_meet_devices(xkd_dist *d, xkd_backend *be)
{
    xkd_status status = XKD_OK;
    device_card mine = {0}, *all = NULL;
    char name[XKD_CUDA_MEETING];
    if (!d) return XKD_OK;
    XKD_TRY(xkd_alloc(d->cx, &all, d->size, sizeof *all));
    if (be->cuda) mine.can = xkd_cuda_place(be, mine.bus, sizeof mine.bus);
    XKD_TRY(xkd_dist_gather(d, all, &mine, sizeof mine));
    d->device = be->cuda ? be : NULL;
    bool can = can_meet(d, all);
    if (can) status = agree(d, be, name);
    if (can && status == XKD_OK) status = meet(d, be, name);
    if (!can || status != XKD_OK) d->device = NULL;
    if (d->device) status = tell(d, all);
fail:
    xkd_free(all);
    return status;
}

void xkd_dist_part_devices(xkd_dist *d)
{
    if (d && d->device) xkd_cuda_part(d->device);
    if (d) d->device = NULL;
}

bool xkd_dist_on_devices(const xkd_dist *d)
{
    return d && d->device;
}

xkd_status xkd_devices_sum(xkd_dist *d, float *x, int64_t n)
{
    xkd_cuda_sum(d->device, x, n, d->packed != NULL);
    d->asked = true;
    return XKD_OK; /* a fault is kept in the backend */
}

xkd_status xkd_devices_wait(xkd_dist *d)
{
    if (!d->asked) return XKD_OK;
    d->asked = false;
    while (!xkd_cuda_summed(d->device)) {
        xkd_tick();
        if (d->lost) return fault(d);
        (void)nanosleep(&MOMENT, NULL);
    }
    return d->device->status == XKD_OK ? XKD_OK : fault(d);
}
