/* Chunks double from a few hundred bytes, as most tables are small, to some MB, so that what is left of the last one is
 * little beside a large table. */
#include "base/pieces.h"

#include <string.h>

#include "base/alloc.h"

enum { FIRST = 256, MOST = 4 << 20 };

struct xkd_pieces_chunk {
    struct xkd_pieces_chunk *before;
    int64_t used, size; /* of `bytes` */
    _Alignas(16) char bytes[];
};

/* Room for a piece of `bytes`, whatever its alignment. */
static xkd_status add_chunk(xkd_context *cx, xkd_pieces *b, int64_t bytes)
{
    struct xkd_pieces_chunk *chunk;
    int64_t size = b->last ? 2 * b->last->size : FIRST;
    if (size > MOST) size = MOST;
    if (size < bytes + 16) size = bytes + 16;
    xkd_status status = xkd_alloc(cx, &chunk, (int64_t)sizeof *chunk + size, 1);
    if (status != XKD_OK) return status;
    chunk->size = size;
    chunk->before = b->last;
    b->last = chunk;
    b->bytes += (int64_t)sizeof *chunk + size;
    return XKD_OK;
}

xkd_status xkd_pieces_take(xkd_context *cx, xkd_pieces *b, int64_t bytes, size_t alignment, void *out)
{
    xkd_status status = XKD_OK;
    int64_t mask = (int64_t)alignment - 1;
    if (!b->last || ((b->last->used + mask) & ~mask) > b->last->size - bytes) XKD_TRY(add_chunk(cx, b, bytes));
    struct xkd_pieces_chunk *c = b->last;
    c->used = (c->used + mask) & ~mask;
    void *piece = c->bytes + c->used;
    c->used += bytes;
    memcpy(out, &piece, sizeof piece);
fail:
    return status;
}

xkd_status xkd_pieces_copy(xkd_context *cx, xkd_pieces *b, const char *text, int64_t length, const char **out)
{
    char *piece;
    xkd_status status = xkd_pieces_take(cx, b, length + 1, 1, &piece);
    if (status != XKD_OK) return status;
    memcpy(piece, text, (size_t)length);
    *out = piece;
    return XKD_OK;
}

void xkd_pieces_join(xkd_pieces *b, xkd_pieces *from)
{
    struct xkd_pieces_chunk *first = from->last;
    if (!first) return;
    while (first->before) first = first->before;
    first->before = b->last;
    b->last = from->last;
    b->bytes += from->bytes;
    *from = (xkd_pieces){0};
}

void xkd_pieces_each(const xkd_pieces *b, void (*fn)(void *user, char *bytes, int64_t used), void *user)
{
    for (struct xkd_pieces_chunk *c = b->last; c; c = c->before) fn(user, c->bytes, c->used);
}

void xkd_pieces_free(xkd_pieces *b)
{
    while (b->last) {
        struct xkd_pieces_chunk *before = b->last->before;
        xkd_free(b->last);
        b->last = before;
    }
    b->bytes = 0;
}
