/* A bump arena that is planned once: the same planning function runs twice, first on a measuring arena (no memory,
 * pointers NULL) and then on one that holds exactly what was measured. Nothing is freed singly.
 *
 * On a memory with red zones one lies behind every piece, and no piece shares its place with another one, at no time: rewinding
 * gives nothing back, and to borrow is to commit. So a zone is one as long as the arena is there, and whatever goes beyond its
 * piece meets it. Such an arena is larger than a plan says; devices that people use have none. */
#ifndef XKD_BASE_ARENA_H
#define XKD_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include <stdbool.h>

#include "base/memory.h"
#include "base/status.h"

typedef struct {
    xkd_memory *of; /* whose memory it will be; set before anything is taken. NULL: the host's */
    char *memory;   /* NULL while measuring */
    int64_t used;   /* bytes handed out, each piece rounded up to 64 */
    int64_t peak;   /* highest `used` seen */
    int64_t size;   /* bytes of `memory` */
    bool borrowed;  /* `memory` is another arena's */
    bool whole;     /* set before anything is taken: all pieces are also used as one, so no zones lie between them */
} xkd_arena;

/* Next piece of `bytes`, 64-byte aligned. NULL while measuring or when the arena is full (see xkd_arena_check). */
void *xkd_arena_take(xkd_arena *arena, int64_t bytes);

/* Room for an array of the host that operations will read (xkd_memory_lend): none on the host's own memory. */
void *xkd_arena_room(xkd_arena *arena, int64_t bytes);

/* Gives back everything taken since `mark` (a former value of arena->used). */
void xkd_arena_rewind(xkd_arena *arena, int64_t mark);

/* Turns a measured arena into one with memory for its peak, empty again. */
xkd_status xkd_arena_commit(xkd_context *cx, xkd_arena *arena);

/* The same with the memory of another arena, which must outlive it and is not used at the same time; an error if that is too
 * small. */
xkd_status xkd_arena_borrow(xkd_context *cx, xkd_arena *arena, const xkd_arena *owner);

/* An error if more was taken than the arena holds: the two planning passes differed. */
xkd_status xkd_arena_check(xkd_context *cx, const xkd_arena *arena);

void xkd_arena_free(xkd_arena *arena);

#endif
