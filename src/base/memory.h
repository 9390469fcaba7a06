/* Where tensors live: the host's memory, or a device's. A piece of a device's memory has an address that only the device
 * and the functions here may use; the host reads and writes what is in it through upload and download.
 *
 * Work and copies on one memory happen in the order in which they were asked for. Faults of a device are kept and told by
 * the status of its backend. A NULL memory is the host's. */
#ifndef XKD_BASE_MEMORY_H
#define XKD_BASE_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct xkd_memory xkd_memory;

/* What comes to the host while both go on with their work: a copy is asked for now and read later. One at a time. */
typedef struct {
    void *host;    /* [bytes] pinned where the memory has it; to be read behind xkd_arrival_wait alone */
    int64_t bytes; /* of `host` */
    void *state;   /* the memory's own */
} xkd_arrival;

/* What goes from the host while both go on with their work: the host fills it, has it sent, and leaves it alone until it has
 * gone. */
typedef struct {
    void *host;    /* [bytes] zeros at first, 64-byte aligned; pinned where the memory has it */
    int64_t bytes; /* of `host` */
    void *state;   /* the memory's own */
} xkd_departure;

struct xkd_memory {
    const char *name;
    bool host; /* its addresses are the host's: upload and download are plain copies */
    bool late; /* work on it goes on while the host does other things: a result that is read at once costs a wait */
    xkd_status (*take)(xkd_memory *memory, xkd_context *cx, void **out, int64_t bytes);
    void (*give)(xkd_memory *memory, void *block);
    void (*zero)(xkd_memory *memory, void *to, int64_t bytes);
    void (*copy)(xkd_memory *memory, void *to, const void *from, int64_t bytes);
    void (*upload)(xkd_memory *memory, void *to, const void *host, int64_t bytes);
    void (*download)(xkd_memory *memory, void *host, const void *from, int64_t bytes);
    xkd_status (*arrival_new)(xkd_memory *memory, xkd_context *cx, xkd_arrival *out);
    void (*arrival_free)(xkd_memory *memory, xkd_arrival *a);
    void (*arrival_ask)(xkd_memory *memory, xkd_arrival *a, const void *from, int64_t bytes);
    void (*arrival_wait)(xkd_memory *memory, xkd_arrival *a);
    xkd_status (*departure_new)(xkd_memory *memory, xkd_context *cx, xkd_departure *out);
    void (*departure_free)(xkd_memory *memory, xkd_departure *d);
    /* Of memory that is not the host's. */
    void (*departure_send)(xkd_memory *memory, xkd_departure *d, void *to, int64_t bytes);
    void (*departure_wait)(xkd_memory *memory, xkd_departure *d);
    /* Devices of tests alone: bytes behind each piece of an arena that nothing may touch (arena.h); 0: none. `fence` is called
     * for them, once the block is taken. */
    int64_t red_zone;
    void (*fence)(xkd_memory *memory, void *at, int64_t bytes);
};

xkd_memory *xkd_host_memory(void);

/* *out: `bytes` of zeros, 64-byte aligned on a device. XKD_ERR_MEMORY where they are not there. Goes back with
 * xkd_memory_give, which takes NULL. */
xkd_status xkd_memory_take(xkd_context *cx, xkd_memory *memory, void **out, int64_t bytes);
void xkd_memory_give(xkd_memory *memory, void *block);

/* Within the memory: zeros, and a copy of what does not overlap. */
void xkd_memory_zero(xkd_memory *memory, void *to, int64_t bytes);
void xkd_memory_copy(xkd_memory *memory, void *to, const void *from, int64_t bytes);

/* From and to the host. `host` may be reused when the call returns. */
void xkd_memory_upload(xkd_memory *memory, void *to, const void *host, int64_t bytes);
void xkd_memory_download(xkd_memory *memory, void *host, const void *from, int64_t bytes);

/* Room for `bytes` that arrive. Free with xkd_arrival_free, which takes one that is {0}. */
xkd_status xkd_arrival_new(xkd_context *cx, xkd_memory *memory, xkd_arrival *out, int64_t bytes);
void xkd_arrival_free(xkd_memory *memory, xkd_arrival *a);

/* Asks for what stands at `from` behind all work asked for so far; the host goes on. */
void xkd_arrival_ask(xkd_memory *memory, xkd_arrival *a, const void *from, int64_t bytes);

/* Waits for what was asked for last, and for no later work; a->host holds it then. After a fault of the device it holds
 * zeros. */
void xkd_arrival_wait(xkd_memory *memory, xkd_arrival *a);

/* Room for `bytes` that depart. Free with xkd_departure_free, which waits, and takes one that is {0}. */
xkd_status xkd_departure_new(xkd_context *cx, xkd_memory *memory, xkd_departure *out, int64_t bytes);
void xkd_departure_free(xkd_memory *memory, xkd_departure *d);

/* The first `bytes` as an argument of operations: themselves where operations read the host's memory, else their copy in `room`,
 * which is asked for and not waited for. Either way they must stay as they are until xkd_departure_wait. */
const void *xkd_departure_lend(xkd_memory *memory, void *room, xkd_departure *d, int64_t bytes);

/* Waits until what was sent last has gone, and for no later work. */
void xkd_departure_wait(xkd_memory *memory, xkd_departure *d);

/* An array of the host as an argument of operations: itself where operations read the host's memory, else its copy in
 * `room`. On the host it must stay as it is until the operations are over. */
const void *xkd_memory_lend(xkd_memory *memory, void *room, const void *host, int64_t bytes);

/* Calls fn for the bytes in order, piece by piece, each readable by the host during the call; ends with the first status
 * that is not XKD_OK and returns it. */
typedef xkd_status (*xkd_memory_reader)(void *arg, const void *piece, int64_t bytes);
xkd_status xkd_memory_read(xkd_memory *memory, const void *from, int64_t bytes, xkd_memory_reader fn, void *arg);

static inline bool xkd_memory_is_host(const xkd_memory *memory)
{
    return !memory || memory->host;
}

static inline bool xkd_memory_is_late(const xkd_memory *memory)
{
    return memory && memory->late;
}

#endif
