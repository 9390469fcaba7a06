/* Many small pieces of memory that are freed together, one behind the other: strings of a table with millions of rows. */
#ifndef XKD_BASE_PIECES_H
#define XKD_BASE_PIECES_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Empty when zero. Pieces stay where they are. */
typedef struct xkd_pieces {
    struct xkd_pieces_chunk *last; /* each knows the one before */
    int64_t bytes;                 /* of all chunks */
} xkd_pieces;

/* A zeroed piece, aligned to `alignment`, a power of two up to 16. */
xkd_status xkd_pieces_take(xkd_context *cx, xkd_pieces *pieces, int64_t bytes, size_t alignment, void *out);

/* A copy of `length` bytes with a 0 behind them. */
xkd_status xkd_pieces_copy(xkd_context *cx, xkd_pieces *pieces, const char *text, int64_t length, const char **out);

/* Takes over all that `from` has. */
void xkd_pieces_join(xkd_pieces *pieces, xkd_pieces *from);

/* Calls fn for the bytes that are used of each block that pieces lie in. */
void xkd_pieces_each(const xkd_pieces *pieces, void (*fn)(void *user, char *bytes, int64_t used), void *user);

void xkd_pieces_free(xkd_pieces *pieces);

#endif
