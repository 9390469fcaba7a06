/* How the ranks of a run find each other. Every other rank opens two connections to rank 0, which knows all of them once all
 * are there and sends round who listens where; then each connects to the ranks below it. Connections that do not begin with
 * the right greeting are closed: a port is open to whoever finds it. */
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xkd/version.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "dist/dist_parts.h"
#include "dist/mpi.h"
#include "dist/socket.h"

static const uint32_t MAGIC = 0x31444B58; /* "XKD1" */

typedef enum { HEART, DATA } kind;

/* First words of a connection. Machines of a run are of one kind, so numbers travel as they are. */
typedef struct {
    uint32_t magic, kind;
    int32_t rank, size;
    int32_t port; /* where this rank listens for the others */
    uint64_t token;
    char version[32], host[XKD_HOST_NAME];
} greeting;

/* Rank 0's answer. */
typedef struct {
    uint32_t magic, refused;
    char why[256];
} answer;

/* Where a rank listens, sent to all by rank 0. */
typedef struct {
    xkd_address address;
    char host[XKD_HOST_NAME];
} entry;

/* What joining needs at hand. */
typedef struct {
    xkd_context *cx;
    xkd_dist *d;
    const xkd_dist_place *place;
    int *hearts;         /* [size] */
    const char *address; /* of rank 0, and the port and the token there */
    int port;
    uint64_t token;
    entry *entries; /* [size] */
    int listener;
    greeting mine;
    double deadline;
} meeting;

/* Refuses a greeting with a sentence, "" where it is good. Names the rank that speaks. */
static void judge(const meeting *m, const greeting *g, char *why, size_t size)
{
    *why = 0;
    if (strcmp(g->version, m->mine.version) != 0)
        snprintf(why, size, "rank %d (%s) runs version %s and rank 0 version %s: install one version everywhere",
                 g->rank, g->host, g->version, m->mine.version);
    else if (g->size != m->d->size || g->rank < 1 || g->rank >= m->d->size)
        snprintf(why, size, "rank %d of %d (%s) wants to join a run of %d ranks: WORLD_SIZE differs", g->rank, g->size,
                 g->host, m->d->size);
    else if ((g->kind == HEART ? m->hearts : m->d->sockets)[g->rank] >= 0)
        snprintf(why, size, "two processes are rank %d, one of them on %s: RANK must differ", g->rank, g->host);
}

/* Whether a connection speaks our language and belongs to this run. */
static bool read_greeting(const meeting *m, int socket, greeting *g)
{
    double soon = xkd_now() + 5;
    if (!xkd_receive_all(socket, g, sizeof *g, soon < m->deadline ? soon : m->deadline)) return false;
    g->version[sizeof g->version - 1] = g->host[sizeof g->host - 1] = 0;
    return g->magic == MAGIC && g->token == m->token && g->kind <= DATA;
}

/* Rank 0: one connection after the other until all are there. */
static xkd_status receive_ranks(meeting *m)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cx;
    xkd_dist *d = m->d;
    for (int missing = (d->mpi ? 1 : 2) * (d->size - 1); missing > 0;) {
        greeting g;
        answer a = {.magic = MAGIC};
        int socket = xkd_accept(m->listener, m->deadline);
        if (socket < 0) {
            int absent = 1;
            while (absent < d->size - 1 && (d->mpi ? m->hearts : d->sockets)[absent] >= 0) absent++;
            XKD_FAIL(XKD_ERR_PEER, "rank %d of %d did not come within %g s (run.peer_timeout)", absent, d->size,
                     m->place->timeout);
        }
        if (!read_greeting(m, socket, &g)) {
            close(socket);
            continue;
        }
        judge(m, &g, a.why, sizeof a.why);
        a.refused = *a.why != 0;
        if (!xkd_send_all(socket, &a, sizeof a, m->deadline) || a.refused) close(socket);
        if (a.refused) XKD_FAIL(XKD_ERR_CONFIG, "%s", a.why);
        (g.kind == HEART ? m->hearts : d->sockets)[g.rank] = socket;
        entry *e = &m->entries[g.rank];
        e->address.length = sizeof e->address.address;
        (void)getpeername(socket, (struct sockaddr *)&e->address.address, &e->address.length);
        xkd_set_port(&e->address, g.port);
        memcpy(e->host, g.host, sizeof e->host);
        missing--;
    }
    for (int r = 1; r < d->size; r++)
        if (!xkd_send_all(m->hearts[r], m->entries, d->size * (int64_t)sizeof *m->entries, m->deadline))
            XKD_FAIL(XKD_ERR_PEER, "rank %d (%s) is lost while the run starts", r, m->entries[r].host);
fail:
    return status;
}

/* Greets on a connection. */
static xkd_status greet(meeting *m, int socket, kind k)
{
    m->mine.kind = k;
    if (xkd_send_all(socket, &m->mine, sizeof m->mine, m->deadline)) return XKD_OK;
    return xkd_fail(m->cx, XKD_ERR_PEER, "a rank is lost while the run starts");
}

/* Another rank: one connection to rank 0. The first one also shows through which of this machine's addresses the others
 * reach it: there it listens. */
static xkd_status call_rank_0(meeting *m, kind k, int *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cx;
    answer a;
    XKD_TRY(xkd_connect(cx, m->address, m->port, m->deadline, out));
    if (*out < 0)
        XKD_FAIL(XKD_ERR_PEER, "rank 0 does not answer at %s, port %d, within %g s (run.peer_timeout)", m->address,
                 m->port, m->place->timeout);
    if (m->listener < 0) {
        xkd_address mine = {.length = sizeof mine.address};
        (void)getsockname(*out, (struct sockaddr *)&mine.address, &mine.length);
        xkd_set_port(&mine, 0);
        XKD_TRY(xkd_listen(cx, &mine, &m->listener, &m->mine.port));
    }
    XKD_TRY(greet(m, *out, k));
    bool came = xkd_receive_all(*out, &a, sizeof a, m->deadline);
    if (!came && xkd_now() >= m->deadline)
        XKD_FAIL(XKD_ERR_PEER, "rank 0 at %s, port %d, fell silent while the run starts (run.peer_timeout=%g)",
                 m->address, m->port, m->place->timeout);
    if (!came || a.magic != MAGIC)
        XKD_FAIL(XKD_ERR_PEER, "rank 0 at %s, port %d, turned this rank away: is it of this run?", m->address, m->port);
    a.why[sizeof a.why - 1] = 0;
    if (a.refused) XKD_FAIL(XKD_ERR_CONFIG, "%s", a.why);
fail:
    return status;
}

/* The other ranks among themselves: each calls those below it, and is called by those above. */
static xkd_status call_each_other(meeting *m)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cx;
    xkd_dist *d = m->d;
    for (int r = 1; r < d->rank; r++) {
        d->sockets[r] = xkd_connect_to(&m->entries[r].address, m->deadline);
        if (d->sockets[r] < 0) XKD_FAIL(XKD_ERR_PEER, "rank %d (%s) does not answer", r, m->entries[r].host);
        XKD_TRY(greet(m, d->sockets[r], DATA));
    }
    for (int missing = d->size - 1 - d->rank; missing > 0;) {
        greeting g;
        int socket = xkd_accept(m->listener, m->deadline);
        if (socket < 0) XKD_FAIL(XKD_ERR_PEER, "%d ranks did not call rank %d in time", missing, d->rank);
        bool good = read_greeting(m, socket, &g) && g.kind == DATA && g.rank > d->rank && g.rank < d->size;
        if (!good || d->sockets[g.rank] >= 0) {
            close(socket);
            continue;
        }
        d->sockets[g.rank] = socket;
        missing--;
    }
fail:
    return status;
}

static xkd_status join_rank_0(meeting *m)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cx;
    XKD_TRY(call_rank_0(m, HEART, &m->hearts[0]));
    if (!m->d->mpi) XKD_TRY(call_rank_0(m, DATA, &m->d->sockets[0]));
    if (!xkd_receive_all(m->hearts[0], m->entries, m->d->size * (int64_t)sizeof *m->entries, m->deadline))
        XKD_FAIL(XKD_ERR_PEER, "rank 0 is lost while the run starts, or other ranks did not come");
    for (int r = 0; r < m->d->size; r++) m->entries[r].host[XKD_HOST_NAME - 1] = 0;
    if (!m->d->mpi) XKD_TRY(call_each_other(m));
fail:
    return status;
}

xkd_status xkd_dist_meet(xkd_dist *d, const xkd_dist_place *place, int *hearts)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = d->cx;
    char addresses[XKD_ADDRESSES];
    meeting m = {.cx = cx,
                 .d = d,
                 .place = place,
                 .hearts = hearts,
                 .listener = place->listener,
                 .address = place->address,
                 .port = place->port,
                 .token = place->token,
                 .mine = {.magic = MAGIC, .rank = d->rank, .size = d->size},
                 .deadline = xkd_now() + place->timeout};
    snprintf(m.mine.version, sizeof m.mine.version, "%s", xkd_version());
    (void)gethostname(m.mine.host, sizeof m.mine.host - 1);
    XKD_TRY(xkd_alloc(cx, &m.entries, d->size, sizeof *m.entries));
    memcpy(m.entries[0].host, m.mine.host, XKD_HOST_NAME);
    if (d->rank == 0 && m.listener < 0) XKD_TRY(xkd_listen_everywhere(cx, m.port, &m.listener, &m.port));
    if (d->mpi) {
        m.token = (uint64_t)(1e9 * xkd_wall_time()) ^ (uint64_t)getpid() << 40;
        XKD_TRY(xkd_mpi_tell_address(cx, d->rank, &m.port, &m.token, addresses));
        m.address = addresses;
    }
    m.mine.token = m.token;
    XKD_TRY(d->rank == 0 ? receive_ranks(&m) : join_rank_0(&m));
    for (int r = 0; r < d->size; r++) memcpy(d->hosts[r], m.entries[r].host, XKD_HOST_NAME);
fail:
    if (m.listener >= 0) close(m.listener);
    xkd_free(m.entries);
    return status;
}
