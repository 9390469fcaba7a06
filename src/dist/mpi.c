/* Ranks that mpirun or srun has started. The module with MPI itself is loaded when it is first wanted. */
#include "dist/mpi.h"

#include <ifaddrs.h>
#include <netdb.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/module.h"
#include "dist/mpi_module.h"

/* One a process, like MPI. */
static const xkd_mpi_table *mpi;
static bool threads;

/* NULL, and why. Open MPI's own modules look for its names among the program's. */
static const xkd_mpi_table *load(char *why, size_t size)
{
    const xkd_mpi_table *(*table)(void);
    if (mpi) return mpi;
    void *symbol = xkd_module_symbol("libxkd-mpi.so", "xkd_mpi_table_1", true,
                                     "install the package xkd-mpi, or build with MPI", why, size);
    if (!symbol) return NULL;
    memcpy(&table, &symbol, sizeof table);
    mpi = table();
    return mpi;
}

const char *xkd_dist_mpi_lack(char *version, size_t size)
{
    static char why[4600];
    *version = 0;
    if (!load(why, sizeof why)) return why;
    snprintf(version, size, "%s", mpi->version());
    return "";
}

bool xkd_mpi_started(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i])) return true;
    return false;
}

xkd_status xkd_mpi_place(xkd_context *cx, xkd_dist_place *out)
{
    char why[4600];
    if (!load(why, sizeof why))
        return xkd_fail(
            cx, XKD_ERR_DEVICE,
            "this process was started by mpirun or srun with MPI, and there is no MPI here: %s (or use --ranks, or "
            "torchrun's variables)",
            why);
    if (mpi->start(&out->rank, &out->size, &threads, why, sizeof why) != 0)
        return xkd_fail(cx, XKD_ERR_DEVICE, "MPI does not start: %s", why);
    out->mpi = out->size > 1;
    if (!out->mpi) mpi->end();
    return XKD_OK;
}

/* Numeric addresses of this machine that others may reach, with blanks between them; the loop's only if there is none else. */
static void list_addresses(char *text, size_t size)
{
    struct ifaddrs *list = NULL;
    char number[NI_MAXHOST];
    size_t used = 0;
    *text = 0;
    if (getifaddrs(&list) != 0) list = NULL;
    for (const struct ifaddrs *a = list; a; a = a->ifa_next) {
        bool four = a->ifa_addr && a->ifa_addr->sa_family == AF_INET;
        if (!four || !(a->ifa_flags & IFF_UP) || (a->ifa_flags & IFF_LOOPBACK)) continue;
        if (getnameinfo(a->ifa_addr, sizeof(struct sockaddr_in), number, sizeof number, NULL, 0, NI_NUMERICHOST) != 0)
            continue;
        if (used + strlen(number) + 2 > size) break;
        used += (size_t)snprintf(text + used, size - used, "%s%s", used ? " " : "", number);
    }
    if (list) freeifaddrs(list);
    if (!used) snprintf(text, size, "127.0.0.1");
}

xkd_status xkd_mpi_tell_address(xkd_context *cx, int rank, int *port, uint64_t *token, char address[XKD_ADDRESSES])
{
    struct {
        int port;
        uint64_t token;
        char address[XKD_ADDRESSES];
    } door = {.port = *port, .token = *token};
    char why[400];
    if (rank == 0) list_addresses(door.address, sizeof door.address);
    if (mpi->broadcast(&door, sizeof door, why, sizeof why) != 0) return xkd_fail(cx, XKD_ERR_PEER, "MPI: %s", why);
    *port = door.port;
    *token = door.token;
    memcpy(address, door.address, sizeof door.address);
    return XKD_OK;
}

/* Spins for a moment, since most messages come soon, and then leaves the processor to others. */
typedef struct {
    xkd_dist *d;
    int turns;
} waiting;

static bool goes_on(void *user)
{
    waiting *w = user;
    if (++w->turns < 200)
        sched_yield();
    else
        usleep(50);
    if (w->turns % 1000 == 0) xkd_tick();
    return !w->d->lost;
}

xkd_status xkd_mpi_exchange_all(xkd_dist *d, const xkd_exchange *e)
{
    waiting w = {.d = d};
    const xkd_mpi_exchange m = {e->out, e->out_bytes, e->in, e->in_bytes, goes_on, &w};
    char why[400];
    xkd_tick();
    if (mpi->exchange(&m, why, sizeof why) == 0) return XKD_OK;
    xkd_status status = xkd_dist_look(d);
    return status != XKD_OK ? status : xkd_fail(d->cx, XKD_ERR_PEER, "messages between ranks fail: %s", why);
}

bool xkd_mpi_allows_threads(void)
{
    return threads;
}

void xkd_mpi_end(void)
{
    mpi->end();
}
