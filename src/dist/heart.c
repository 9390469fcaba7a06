/* Signs of life, in a thread and on connections of their own, so that neither a long product nor a long message hides
 * them. Every rank tells rank 0, and rank 0 every other, that it lives and how far its work has come (base/clock.h); rank 0
 * tells all others who is lost. Lost is whose connection ends without a goodbye, who has been silent or has not come on for
 * `timeout` seconds, and who says that it ends with an error. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "dist/dist_parts.h"
#include "dist/socket.h"

static const uint32_t MAGIC = 0x33444B58; /* "XKD3" */

typedef enum { BEAT, LOST, END, GOODBYE } word;

typedef struct {
    uint32_t magic, what;
    int32_t rank, status; /* LOST: who; END: of the sender */
    uint64_t ticks;
    char text[488];
} message;

/* What is known of a rank at the other end. */
typedef struct {
    int socket;
    message half;       /* as far as it has come */
    int64_t received;   /* bytes of it */
    double heard, came; /* when it last spoke, and when its work last came on */
    uint64_t ticks;
    bool gone; /* said goodbye */
} peer;

struct xkd_heart {
    xkd_dist *dist;
    peer *peers; /* [size] */
    pthread_t thread;
    int stop[2];          /* pipe: readable when the thread shall end */
    double timeout, told; /* told: when a loss was noted, 0: none */
    bool relayed, gave_up;
    void (*give_up)(void *user, const char *why);
    void *user;
};

static void say(peer *p, const message *m)
{
    /* A peer that does not read is found by its silence. */
    if (p->socket >= 0 && !p->gone) (void)xkd_send_all(p->socket, m, sizeof *m, xkd_now() + 0.2);
}

static void say_to_all(xkd_heart *h, const message *m)
{
    for (int r = 0; r < h->dist->size; r++) say(&h->peers[r], m);
}

static void lose(xkd_heart *h, int rank, const char *why)
{
    xkd_dist_note_lost(h->dist, "rank %d (%s) is lost: %s", rank, h->dist->hosts[rank], why);
}

static void understand(xkd_heart *h, int rank, const message *m, double now)
{
    peer *p = &h->peers[rank];
    if (m->what == GOODBYE) p->gone = true;
    if (m->what == LOST) xkd_dist_note_lost(h->dist, "%.480s", m->text);
    if (m->what == END)
        xkd_dist_note_lost(h->dist, "rank %d (%s) ended with an error (exit code %d): %.400s", rank,
                           h->dist->hosts[rank], m->status, m->text);
    p->heard = now;
    if (m->ticks != p->ticks) p->came = now;
    p->ticks = m->ticks;
}

static void listen_to(xkd_heart *h, int rank, double now)
{
    peer *p = &h->peers[rank];
    for (;;) {
        ssize_t n = recv(p->socket, (char *)&p->half + p->received, sizeof p->half - (size_t)p->received, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n <= 0) {
            if (!p->gone) lose(h, rank, "its process ended");
            close(p->socket);
            p->socket = -1;
            return;
        }
        p->received += n;
        if (p->received < (int64_t)sizeof p->half) continue;
        p->received = 0;
        p->half.text[sizeof p->half.text - 1] = 0;
        if (p->half.magic == MAGIC) understand(h, rank, &p->half, now);
    }
}

static void judge(xkd_heart *h, double now)
{
    char why[128];
    for (int r = 0; r < h->dist->size; r++) {
        const peer *p = &h->peers[r];
        if (p->socket < 0 || p->gone) continue;
        *why = 0;
        if (now - p->heard > h->timeout)
            snprintf(why, sizeof why, "no sign of life for %g s (run.peer_timeout)", h->timeout);
        else if (now - p->came > h->timeout)
            snprintf(why, sizeof why, "it lives, but its work has stood still for %g s (run.peer_timeout)", h->timeout);
        if (*why) lose(h, r, why);
    }
}

/* What follows from a loss: the others hear of it once, and a process that does not end by itself is ended. */
static void follow(xkd_heart *h, double now)
{
    xkd_dist *d = h->dist;
    if (!d->lost) return;
    if (!h->told) h->told = now;
    if (!h->relayed && d->rank == 0) {
        message m = {.magic = MAGIC, .what = LOST, .ticks = xkd_ticks()};
        snprintf(m.text, sizeof m.text, "%.480s", d->lost_text);
        say_to_all(h, &m);
    }
    h->relayed = true;
    if (now - h->told > h->timeout && h->give_up && !h->gave_up) {
        h->gave_up = true;
        h->give_up(h->user, d->lost_text);
    }
}

/* Beats four times as often as the timeout asks for, at least once a second. A process that was stopped as a whole, or a
 * machine that slept, has missed everybody's signs alike and judges nobody by that time. */
static void *watch_over(void *arg)
{
    xkd_heart *h = arg;
    xkd_dist *d = h->dist;
    struct pollfd *fd = d->polled + d->size + 1; /* [size+1] of its own */
    double period = h->timeout / 4 < 1 ? h->timeout / 4 : 1, next = 0, before = xkd_now();
    for (;;) {
        double now = xkd_now();
        for (int r = 0; now - before > h->timeout / 2 && r < d->size; r++) h->peers[r].heard = h->peers[r].came = now;
        before = now;
        if (now >= next) {
            const message m = {.magic = MAGIC, .what = BEAT, .rank = d->rank, .ticks = xkd_ticks()};
            say_to_all(h, &m);
            next = now + period;
        }
        for (int r = 0; r < d->size; r++) fd[r] = (struct pollfd){.fd = h->peers[r].socket, .events = POLLIN};
        fd[d->size] = (struct pollfd){.fd = h->stop[0], .events = POLLIN};
        (void)poll(fd, (nfds_t)d->size + 1, (int)(1000 * (next - now)) + 1);
        if (fd[d->size].revents) return NULL;
        now = xkd_now();
        for (int r = 0; r < d->size; r++)
            if (fd[r].revents) listen_to(h, r, now);
        judge(h, now);
        follow(h, now);
    }
}

xkd_status xkd_heart_start(xkd_dist *d, const xkd_dist_place *place, const int *hearts)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = d->cx;
    xkd_heart *h = NULL;
    double now = xkd_now();
    XKD_TRY(xkd_alloc(cx, &h, 1, sizeof *h));
    *h = (xkd_heart){
        .dist = d, .timeout = place->timeout, .stop = {-1, -1}, .give_up = place->give_up, .user = place->user};
    XKD_TRY(xkd_alloc(cx, &h->peers, d->size, sizeof *h->peers));
    for (int r = 0; r < d->size; r++) h->peers[r] = (peer){.socket = hearts[r], .heard = now, .came = now};
    if (pipe(h->stop) != 0 || pthread_create(&h->thread, NULL, watch_over, h) != 0)
        XKD_FAIL(XKD_ERR_MEMORY, "no thread for signs of life: %s", strerror(errno));
    d->heart = h;
    h = NULL;
fail:
    if (h) {
        for (int k = 0; k < 2; k++)
            if (h->stop[k] >= 0) close(h->stop[k]);
        xkd_free(h->peers);
        xkd_free(h);
    }
    return status;
}

void xkd_heart_stop(xkd_heart *h, xkd_status status, const char *why)
{
    if (!h) return;
    message m = {
        .magic = MAGIC, .what = status == XKD_OK ? GOODBYE : END, .rank = h->dist->rank, .status = (int)status};
    snprintf(m.text, sizeof m.text, "%s", why ? why : "");
    (void)!write(h->stop[1], "", 1);
    pthread_join(h->thread, NULL);
    /* A rank that leaves because another is lost has nothing to add, but rank 0 may not have told the others yet. */
    if (status == XKD_ERR_PEER && h->dist->rank == 0 && !h->relayed) {
        m.what = LOST;
        snprintf(m.text, sizeof m.text, "%.480s", h->dist->lost_text);
    }
    say_to_all(h, &m);
    for (int r = 0; r < h->dist->size; r++)
        if (h->peers[r].socket >= 0) close(h->peers[r].socket);
    close(h->stop[0]);
    close(h->stop[1]);
    xkd_free(h->peers);
    xkd_free(h);
}
