/* Bump allocation from one block. A plan is a function that takes memory in a fixed order; it runs
 * once without memory, which adds up sizes, and once after the commit, which hands out addresses. */
#include "base/arena.h"

static int64_t red_zone(const xkd_arena *arena)
{
    return arena->of && !arena->whole ? arena->of->red_zone : 0;
}

/* Multiples of 64 bytes keep every piece aligned like the block. NULL while measuring. What rounding adds belongs to the zone. */
void *xkd_arena_take(xkd_arena *arena, int64_t bytes)
{
    int64_t start = arena->used, zone = red_zone(arena), end = start + (bytes + 63) / 64 * 64 + zone;
    arena->used = end;
    if (end > arena->peak) arena->peak = end;
    if (!arena->memory || end > arena->size) return NULL;
    if (zone) arena->of->fence(arena->of, arena->memory + start + bytes, end - start - bytes);
    return arena->memory + start;
}

void *xkd_arena_room(xkd_arena *arena, int64_t bytes)
{
    return xkd_memory_is_host(arena->of) ? NULL : xkd_arena_take(arena, bytes);
}

/* What was taken behind the mark may be given out again: two users whose lives do not overlap share
 * memory. */
void xkd_arena_rewind(xkd_arena *arena, int64_t mark)
{
    if (red_zone(arena) == 0) arena->used = mark;
}

/* The plan must now be run again, from the start. */
xkd_status xkd_arena_commit(xkd_context *cx, xkd_arena *arena)
{
    xkd_status status = XKD_OK;
    void *block;
    XKD_TRY(xkd_memory_take(cx, arena->of, &block, arena->peak));
    arena->memory = block;
    arena->size = arena->peak;
    arena->used = arena->peak = 0;
fail:
    return status;
}

xkd_status xkd_arena_borrow(xkd_context *cx, xkd_arena *arena, const xkd_arena *owner)
{
    if (arena->peak > owner->size)
        return xkd_fail(cx, XKD_ERR_INTERNAL, "a plan of %lld bytes in an arena of %lld", (long long)arena->peak,
                        (long long)owner->size);
    if (red_zone(owner)) return xkd_arena_commit(cx, arena);
    *arena = (xkd_arena){.of = owner->of, .memory = owner->memory, .size = owner->size, .borrowed = true};
    return XKD_OK;
}

/* A plan that takes more the second time would get NULL; this names the fault instead. */
xkd_status xkd_arena_check(xkd_context *cx, const xkd_arena *arena)
{
    if (arena->peak <= arena->size) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_INTERNAL, "arena of %lld bytes was asked for %lld", (long long)arena->size,
                    (long long)arena->peak);
}

void xkd_arena_free(xkd_arena *arena)
{
    if (!arena->borrowed) xkd_memory_give(arena->of, arena->memory);
    *arena = (xkd_arena){.of = arena->of, .whole = arena->whole};
}
