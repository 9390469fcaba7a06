/* Bytes between ranks: all connections of an exchange at once, each as fast as it goes. A message has a head that tells
 * which exchange it belongs to, so that ranks that do not agree on what comes next are found and not mixed up. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "dist/dist_parts.h"
#include "dist/socket.h"

static const uint32_t MAGIC = 0x32444B58; /* "XKD2" */

static int64_t left_of(const xkd_stream *s)
{
    return s->bytes ? (int64_t)sizeof s->head + s->bytes - s->moved : 0;
}

/* The piece that comes next: of the head, then of the data. */
static char *next_piece(xkd_stream *s, int64_t *bytes)
{
    int64_t size = (int64_t)sizeof s->head;
    *bytes = s->moved < size ? size - s->moved : left_of(s);
    return s->moved < size ? (char *)&s->head + s->moved : s->data + (s->moved - size);
}

/* As much as goes without waiting. False where the connection has ended. */
static bool push(int fd, xkd_stream *s)
{
    while (left_of(s)) {
        int64_t bytes;
        const char *piece = next_piece(s, &bytes);
        ssize_t n = send(fd, piece, (size_t)bytes, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        s->moved += n;
    }
    return true;
}

/* The same the other way; *fits becomes false where the head is another one than expected. */
static bool pull(int fd, xkd_stream *s, const xkd_message_head *wanted, bool *fits)
{
    while (left_of(s)) {
        int64_t bytes;
        char *piece = next_piece(s, &bytes);
        ssize_t n = recv(fd, piece, (size_t)bytes, 0);
        if (n == 0) return false;
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        s->moved += n;
        if (s->moved == (int64_t)sizeof s->head && memcmp(&s->head, wanted, sizeof *wanted) != 0) {
            *fits = false;
            return true;
        }
    }
    return true;
}

static void prepare(xkd_dist *d, const xkd_exchange *e)
{
    for (int r = 0; r < d->size; r++) {
        d->sending[r] = d->receiving[r] = (xkd_stream){0};
        if (r == d->rank) continue;
        d->sending[r] = (xkd_stream){
            .head = {MAGIC, d->round, e->out_bytes[r]}, .data = (char *)(uintptr_t)e->out[r], .bytes = e->out_bytes[r]};
        d->receiving[r] = (xkd_stream){.data = e->in[r], .bytes = e->in_bytes[r]};
    }
}

/* Says what is waited for; false where nothing is left. */
static bool ask(xkd_dist *d)
{
    bool any = false;
    for (int r = 0; r < d->size; r++) {
        short events = (short)((left_of(&d->sending[r]) ? POLLOUT : 0) | (left_of(&d->receiving[r]) ? POLLIN : 0));
        d->polled[r] = (struct pollfd){.fd = events ? d->sockets[r] : -1, .events = events};
        any |= events != 0;
    }
    d->polled[d->size] = (struct pollfd){.fd = d->wake[0], .events = POLLIN};
    return any;
}

/* A connection that ended is the first sign of a loss, and the heartbeats know more about it: they get a moment. */
static xkd_status broken(xkd_dist *d, int r)
{
    struct pollfd p = {.fd = d->wake[0], .events = POLLIN};
    (void)poll(&p, 1, 3000);
    xkd_dist_note_lost(d, "rank %d (%s) is lost: its connection ended", r, d->hosts[r]);
    return xkd_dist_look(d);
}

static xkd_status move(xkd_dist *d, int r)
{
    xkd_stream *in = &d->receiving[r];
    const xkd_message_head wanted = {MAGIC, d->round, in->bytes};
    short events = d->polled[r].revents;
    bool fits = true;
    if ((events & POLLOUT) && !push(d->sockets[r], &d->sending[r])) return broken(d, r);
    if ((events & (POLLIN | POLLHUP | POLLERR)) && !pull(d->sockets[r], in, &wanted, &fits)) return broken(d, r);
    if (fits) return XKD_OK;
    return xkd_fail(d->cx, XKD_ERR_INTERNAL,
                    "rank %d (%s) is at exchange %u with %lld bytes, this rank at %u with %lld", r, d->hosts[r],
                    in->head.round, (long long)in->head.bytes, d->round, (long long)in->bytes);
}

xkd_status xkd_dist_exchange(xkd_dist *d, const xkd_exchange *e)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = d->cx;
    d->round++;
    prepare(d, e);
    while (ask(d)) {
        int n = poll(d->polled, (nfds_t)d->size + 1, 1000);
        xkd_tick(); /* waiting for others is no standstill of this rank */
        if (n < 0 && errno != EINTR) XKD_FAIL(XKD_ERR_INTERNAL, "cannot wait for the other ranks: %s", strerror(errno));
        if (n <= 0) continue;
        XKD_TRY(xkd_dist_look(d));
        for (int r = 0; r < d->size; r++)
            if (d->polled[r].revents) XKD_TRY(move(d, r));
    }
fail:
    return status;
}
