#include "base/arena.h"

#include "base/alloc.h"

void *xkd_arena_take(xkd_arena *arena, int64_t bytes)
{
    int64_t start = arena->used;
    arena->used = start + (bytes + 63) / 64 * 64;
    if (arena->used > arena->peak) arena->peak = arena->used;
    return arena->memory && arena->used <= arena->size ? arena->memory + start : NULL;
}

void xkd_arena_rewind(xkd_arena *arena, int64_t mark)
{
    arena->used = mark;
}

xkd_status xkd_arena_commit(xkd_context *cx, xkd_arena *arena)
{
    xkd_status status = XKD_OK;
    XKD_TRY(xkd_alloc(cx, &arena->memory, arena->peak, 1));
    arena->size = arena->peak;
    arena->used = arena->peak = 0;
fail:
    return status;
}

xkd_status xkd_arena_check(xkd_context *cx, const xkd_arena *arena)
{
    if (arena->peak <= arena->size) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_INTERNAL, "arena of %lld bytes was asked for %lld", (long long)arena->size,
                    (long long)arena->peak);
}

void xkd_arena_free(xkd_arena *arena)
{
    xkd_free(arena->memory);
    *arena = (xkd_arena){0};
}
