/* The host's memory as one of several, and what all of them share. */
#include "base/memory.h"

#include <string.h>

#include "base/alloc.h"

/* Bytes that a reader sees at once of a memory that is not the host's. */
enum { PIECE = 64 << 10 };

static xkd_status take(xkd_memory *memory, xkd_context *cx, void **out, int64_t bytes)
{
    (void)memory;
    return xkd_alloc(cx, out, bytes, 1);
}

static void give(xkd_memory *memory, void *block)
{
    (void)memory;
    xkd_free(block);
}

static void zero(xkd_memory *memory, void *to, int64_t bytes)
{
    (void)memory;
    memset(to, 0, (size_t)bytes);
}

/* Upload and download too: all addresses are the host's. */
static void copy(xkd_memory *memory, void *to, const void *from, int64_t bytes)
{
    (void)memory;
    memcpy(to, from, (size_t)bytes);
}

static xkd_status arrival_new(xkd_memory *memory, xkd_context *cx, xkd_arrival *out)
{
    (void)memory;
    return xkd_alloc(cx, &out->host, out->bytes, 1);
}

static void arrival_free(xkd_memory *memory, xkd_arrival *a)
{
    (void)memory;
    xkd_free(a->host);
}

static void arrival_ask(xkd_memory *memory, xkd_arrival *a, const void *from, int64_t bytes)
{
    (void)memory;
    memcpy(a->host, from, (size_t)bytes);
}

static void arrival_wait(xkd_memory *memory, xkd_arrival *a)
{
    (void)memory;
    (void)a;
}

static xkd_status departure_new(xkd_memory *memory, xkd_context *cx, xkd_departure *out)
{
    (void)memory;
    return xkd_alloc(cx, &out->host, out->bytes, 1);
}

static void departure_free(xkd_memory *memory, xkd_departure *d)
{
    (void)memory;
    xkd_free(d->host);
}

static void departure_wait(xkd_memory *memory, xkd_departure *d)
{
    (void)memory;
    (void)d;
}

xkd_memory *xkd_host_memory(void)
{
    static xkd_memory host = {.name = "host",
                              .host = true,
                              .take = take,
                              .give = give,
                              .zero = zero,
                              .copy = copy,
                              .upload = copy,
                              .download = copy,
                              .arrival_new = arrival_new,
                              .arrival_free = arrival_free,
                              .arrival_ask = arrival_ask,
                              .arrival_wait = arrival_wait,
                              .departure_new = departure_new,
                              .departure_free = departure_free,
                              .departure_wait = departure_wait};
    return &host;
}

static xkd_memory *known(xkd_memory *memory)
{
    return memory ? memory : xkd_host_memory();
}

xkd_status xkd_memory_take(xkd_context *cx, xkd_memory *memory, void **out, int64_t bytes)
{
    *out = NULL;
    return known(memory)->take(known(memory), cx, out, bytes);
}

void xkd_memory_give(xkd_memory *memory, void *block)
{
    if (block) known(memory)->give(known(memory), block);
}

void xkd_memory_zero(xkd_memory *memory, void *to, int64_t bytes)
{
    if (bytes > 0) known(memory)->zero(known(memory), to, bytes);
}

void xkd_memory_copy(xkd_memory *memory, void *to, const void *from, int64_t bytes)
{
    if (bytes > 0) known(memory)->copy(known(memory), to, from, bytes);
}

void xkd_memory_upload(xkd_memory *memory, void *to, const void *host, int64_t bytes)
{
    if (bytes > 0) known(memory)->upload(known(memory), to, host, bytes);
}

void xkd_memory_download(xkd_memory *memory, void *host, const void *from, int64_t bytes)
{
    if (bytes > 0) known(memory)->download(known(memory), host, from, bytes);
}

xkd_status xkd_arrival_new(xkd_context *cx, xkd_memory *memory, xkd_arrival *out, int64_t bytes)
{
    *out = (xkd_arrival){.bytes = bytes};
    xkd_status status = known(memory)->arrival_new(known(memory), cx, out);
    if (status != XKD_OK) *out = (xkd_arrival){0};
    return status;
}

void xkd_arrival_free(xkd_memory *memory, xkd_arrival *a)
{
    if (a->host) known(memory)->arrival_free(known(memory), a);
    *a = (xkd_arrival){0};
}

void xkd_arrival_ask(xkd_memory *memory, xkd_arrival *a, const void *from, int64_t bytes)
{
    if (bytes > 0) known(memory)->arrival_ask(known(memory), a, from, bytes);
}

void xkd_arrival_wait(xkd_memory *memory, xkd_arrival *a)
{
    known(memory)->arrival_wait(known(memory), a);
}

xkd_status xkd_departure_new(xkd_context *cx, xkd_memory *memory, xkd_departure *out, int64_t bytes)
{
    *out = (xkd_departure){.bytes = bytes};
    xkd_status status = known(memory)->departure_new(known(memory), cx, out);
    if (status != XKD_OK) *out = (xkd_departure){0};
    return status;
}

void xkd_departure_free(xkd_memory *memory, xkd_departure *d)
{
    if (d->host) known(memory)->departure_free(known(memory), d);
    *d = (xkd_departure){0};
}

const void *xkd_departure_lend(xkd_memory *memory, void *room, xkd_departure *d, int64_t bytes)
{
    if (xkd_memory_is_host(memory)) return d->host;
    known(memory)->departure_send(known(memory), d, room, bytes);
    return room;
}

void xkd_departure_wait(xkd_memory *memory, xkd_departure *d)
{
    if (d->host) known(memory)->departure_wait(known(memory), d);
}

const void *xkd_memory_lend(xkd_memory *memory, void *room, const void *host, int64_t bytes)
{
    if (xkd_memory_is_host(memory)) return host;
    xkd_memory_upload(memory, room, host, bytes);
    return room;
}

xkd_status xkd_memory_read(xkd_memory *memory, const void *from, int64_t bytes, xkd_memory_reader fn, void *arg)
{
    char piece[PIECE];
    if (xkd_memory_is_host(memory)) return fn(arg, from, bytes);
    for (int64_t done = 0; done < bytes; done += PIECE) {
        int64_t size = bytes - done < PIECE ? bytes - done : PIECE;
        xkd_memory_download(memory, piece, (const char *)from + done, size);
        xkd_status status = fn(arg, piece, size);
        if (status != XKD_OK) return status;
    }
    return XKD_OK;
}
