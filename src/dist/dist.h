/* The processes of one training: who they are, and how they exchange numbers. Every process of a run has a rank from 0 to
 * size - 1. Ranks call the functions below in the same order with the same sizes; each returns when this rank's part is done.
 *
 * A rank that dies, hangs or gives up is found by heartbeats on connections of their own (heart.c). From then on every
 * function returns XKD_ERR_PEER with a message that names the rank. NULL is a process alone: it has rank 0 of 1, and
 * everything it exchanges is with itself. */
#ifndef XKD_DIST_DIST_H
#define XKD_DIST_DIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/status.h"

typedef struct xkd_dist xkd_dist;

enum { XKD_MOST_RANKS = 4096, XKD_MOST_NUMBERS = 8 };

/* Where a process stands before it has met the others. */
typedef struct {
    int rank, size;
    bool mpi;            /* messages go through MPI, which also tells the address; else over TCP */
    const char *address; /* where rank 0 listens: names or numbers with blanks between them, any of which may do */
    int port;
    int listener;   /* rank 0: a socket that listens there already; -1: none */
    uint64_t token; /* the same on all ranks; connections with another one are turned away */
    double timeout; /* s without a sign of life or progress after which a rank counts as lost */
    /* Called from a thread of this module when a rank was lost and this process has not left `timeout` seconds later: it must end
     * the process. NULL: nothing is done. */
    void (*give_up)(void *user, const char *why);
    void *user;
} xkd_dist_place;

/* Reads the environment: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them, and XKD_LISTENER and XKD_TOKEN,
 * which `--ranks` adds; else what mpirun, or srun with MPI, sets (it starts MPI then); else what srun sets. size 1 where
 * nothing is set. XKD_ERR_CONFIG where it contradicts itself, XKD_ERR_DEVICE where MPI is wanted and not there. */
xkd_status xkd_dist_place_read(xkd_context *cx, xkd_dist_place *out);

/* Whether this program can use MPI: "" and the library's version in `version`, or why not. */
const char *xkd_dist_mpi_lack(char *version, size_t size);

/* Meets the other ranks; waits for them `place->timeout` seconds at most. *out is NULL for a size of 1. XKD_ERR_PEER
 * where one does not come, XKD_ERR_CONFIG where one is of another version or does not fit in. Leave with xkd_dist_leave. */
xkd_status xkd_dist_join(xkd_context *cx, const xkd_dist_place *place, xkd_dist **out);

/* Ends the part of this rank. With XKD_OK it waits until all ranks have come here and returns XKD_ERR_PEER where one will
 * not; with any other status the others are told that this rank ended so, and why. Frees `dist`, which may be NULL. */
xkd_status xkd_dist_leave(xkd_dist *dist, xkd_status status, const char *why);

int xkd_dist_rank(const xkd_dist *dist);
int xkd_dist_size(const xkd_dist *dist);
/* Name of the machine that a rank runs on; "" for a process alone. Belongs to `dist`. */
const char *xkd_dist_host(const xkd_dist *dist, int rank);

/* Rank 0 logs which machines there are and which ranks they run. */
xkd_status xkd_dist_tell(xkd_dist *dist);

/* Processors for this rank: those that it may use, shared with the ranks of the same machine that may use the same ones. */
xkd_status xkd_dist_processors(xkd_dist *dist, int *out);

/* all [size,bytes]: `mine` of every rank, in order of ranks; it may stand at its place there already. */
xkd_status xkd_dist_gather(xkd_dist *dist, void *all, const void *mine, int64_t bytes);

/* The same with pieces of different sizes: *all has sizes[r] bytes of rank r one behind the other. The caller frees it with
 * xkd_free. sizes [size]. Not for a process alone. */
xkd_status xkd_dist_gather_sized(xkd_dist *dist, void **all, int64_t *sizes, const void *mine, int64_t bytes);

/* data = that of rank 0. */
xkd_status xkd_dist_broadcast(xkd_dist *dist, void *data, int64_t bytes);

/* XKD_ERR_CONFIG where this rank's number is not that of rank 0; `what` says what it has: "other files". */
xkd_status xkd_dist_compare(xkd_context *cx, xkd_dist *dist, uint64_t mine, const char *what);

/* values[i] = the largest of all ranks; at most XKD_MOST_NUMBERS of them. */
xkd_status xkd_dist_largest(xkd_dist *dist, int64_t *values, int count);

/* x [n] = sum over ranks, added in float32 in a fixed binary tree: ((0+1)+(2+3))+..., the same bits on every rank. Each
 * rank adds up its share of x and sends it round, 2 (size-1)/size of x a rank each way, as a ring does. */
xkd_status xkd_dist_sum(xkd_dist *dist, float *x, int64_t n);

/* From now on sums travel as bfloat16, rounded to nearest even when they are sent, and are added in float32: half the bytes,
 * and still the same bits on every rank. Called by all ranks. */
xkd_status xkd_dist_halve(xkd_dist *dist);

/* Where all ranks compute on GPUs of their own and have NCCL, tensors are added up on them from now on: in the same order, so to
 * the same bits. Elsewhere nothing changes. Called by all ranks; `be` must stay until xkd_dist_part_devices. Rank 0 logs what
 * holds. XKD_ERR_DEVICE where the GPUs do not come together. */
xkd_status xkd_dist_meet_devices(xkd_dist *dist, xkd_backend *be);
void xkd_dist_part_devices(xkd_dist *dist);
/* Whether x of xkd_dist_sum_later is an address of a device. */
bool xkd_dist_on_devices(const xkd_dist *dist);

/* Bytes of the buckets in which `size` ranks add up: those of a rank's host, `halved` as of xkd_dist_halve, and those of its
 * GPU. 0 for a process alone. */
int64_t xkd_dist_host_buckets(int64_t size, bool halved);
int64_t xkd_dist_device_buckets(int64_t size);

/* xkd_dist_sum beside what the caller goes on with, in the order of the calls. Until xkd_dist_wait returns nobody may touch x or
 * call another function of this header; it returns the first fault. Where devices have met, x is theirs, and so is the work. */
xkd_status xkd_dist_sum_later(xkd_dist *dist, float *x, int64_t n);
xkd_status xkd_dist_wait(xkd_dist *dist);

#endif
