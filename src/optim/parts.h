/* Sums over the parts of a step: gradients and centre sums of one micro-batch each, added in a fixed binary tree over the
 * parts. A tree does not depend on who computes which part, so ranks times accumulated micro-batches give the bits of as
 * many micro-batches in one process wherever both numbers are powers of two.
 *
 * Part p of P: p = rank * accumulate + micro-batch. Within a process the tree is that of a binary counter: a sum waits until
 * its equal is there. A step of one part needs no memory for it. */
#ifndef XKD_OPTIM_PARTS_H
#define XKD_OPTIM_PARTS_H

#include "backend/backend.h"
#include "base/arena.h"
#include "config/config.h"
#include "dist/dist.h"

enum { XKD_PARTS_PIECES = 128 };
enum { XKD_PARTS_VECTORS = 1 + XKD_MODALITIES, XKD_PARTS_WAITING = 17 /* of at most 65 536 parts */ };

typedef struct {
    void *x; /* [n] exact: where a part's values are made, and at the end the sum of all */
    int64_t n;
} xkd_part_vector;

/* Elements [first, end) of the first vector. */
typedef struct {
    int64_t first, end;
} xkd_part_piece;

typedef struct {
    xkd_part_vector vectors[XKD_PARTS_VECTORS];
    int count;                                        /* of vectors */
    int64_t parts;                                    /* of a step in this process */
    int64_t done;                                     /* of the step in work */
    int waiting;                                      /* sums that wait for their equals */
    int most;                                         /* that ever wait */
    void *sums[XKD_PARTS_WAITING][XKD_PARTS_VECTORS]; /* [n] each */
    xkd_arena arena;
    /* Of the last part of a step of several ranks: pieces of the first vector that are on their way to the other ranks while
     * the backward pass goes on, and the one that is being put together. In the order in which they were sent. */
    xkd_part_piece sent[XKD_PARTS_PIECES], growing;
    int sent_count;
    xkd_status status; /* of sending them, told by xkd_parts_join */
    int64_t piece;     /* elements that are worth a message of their own */
} xkd_parts;

/* Sums that wait at once for their equals, at most, in a step of `parts`. */
int xkd_parts_waiting(int64_t parts);

/* For vectors [count] in the memory of `be`, which the caller owns. Free with xkd_parts_free. */
xkd_status xkd_parts_new(xkd_context *cx, xkd_parts *out, xkd_backend *be, const xkd_part_vector *vectors, int count,
                         int64_t parts);
void xkd_parts_free(xkd_parts *p);

/* A step begins: the vectors are zero. */
void xkd_parts_begin(xkd_backend *be, xkd_parts *p);

/* A part's values are in the vectors. Behind the last part they hold the sums over all; else they are zero again. */
void xkd_parts_add(xkd_backend *be, xkd_parts *p);

/* Elements [first, first+n) of the first vector are those of the whole part already, though the part is not over: of a step's
 * last one they go on their way to the other ranks. On the host's memory, and on devices that have met; elsewhere nothing is
 * done. */
void xkd_parts_ready(xkd_backend *be, xkd_parts *p, xkd_dist *dist, int64_t first, int64_t n);

/* The sums over the parts of all ranks (dist NULL: those of this process), behind the last part. Tensors of F32. */
xkd_status xkd_parts_join(xkd_backend *be, xkd_parts *p, xkd_dist *dist);

/* Calls fn for x [bytes] of `memory`: in place on the host's, else piece by piece through the host. */
typedef xkd_status (*xkd_piece_fn)(xkd_dist *dist, void *piece, int64_t bytes);
xkd_status xkd_pass_through(xkd_context *cx, xkd_dist *dist, xkd_memory *memory, void *x, int64_t bytes,
                            xkd_piece_fn fn);

#endif
