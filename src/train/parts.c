/* The tree of sums of one process. Its shape follows from the number of a part alone: behind part i as many sums are
 * merged as i has trailing ones in binary, and what waits behind the last part is added from the smallest up. */
#include "train/parts.h"

int xkd_parts_waiting(int64_t parts)
{
    int most = 0;
    for (int64_t i = 1; i < parts; i++) {
        int waiting = __builtin_popcountll((unsigned long long)i);
        if (waiting > most) most = waiting;
    }
    return most;
}

xkd_status xkd_parts_new(xkd_context *cx, xkd_parts *out, xkd_backend *be, const xkd_part_vector *vectors, int count,
                         int64_t parts)
{
    xkd_status status = XKD_OK;
    *out = (xkd_parts){.count = count, .parts = parts, .most = xkd_parts_waiting(parts)};
    for (int v = 0; v < count; v++) out->vectors[v] = vectors[v];
    out->arena.of = be->memory;
    for (int round = 0; round < 2; round++) { /* measure, then assign */
        for (int k = 0; k < out->most; k++)
            for (int v = 0; v < count; v++) out->sums[k][v] = xkd_arena_take(&out->arena, vectors[v].n * be->size);
        if (round == 0) XKD_TRY(xkd_arena_commit(cx, &out->arena));
    }
fail:
    return status;
}

void xkd_parts_free(xkd_parts *p)
{
    xkd_arena_free(&p->arena);
}

static void clear(xkd_backend *be, xkd_parts *p)
{
    for (int v = 0; v < p->count; v++) be->ops->fill(be, p->vectors[v].x, 0, p->vectors[v].n);
}

void xkd_parts_begin(xkd_backend *be, xkd_parts *p)
{
    p->done = 0;
    p->waiting = 0;
    clear(be, p);
}

/* The sum that came last joins the vectors. */
static void merge(xkd_backend *be, xkd_parts *p)
{
    p->waiting--;
    for (int v = 0; v < p->count; v++)
        be->ops->axpby(be, p->vectors[v].x, p->sums[p->waiting][v], 1, 1, p->vectors[v].n);
}

void xkd_parts_add(xkd_backend *be, xkd_parts *p)
{
    for (int64_t bits = p->done++; bits & 1; bits >>= 1) merge(be, p);
    if (p->done == p->parts) {
        while (p->waiting) merge(be, p);
        return;
    }
    for (int v = 0; v < p->count; v++)
        xkd_memory_copy(be->memory, p->sums[p->waiting][v], p->vectors[v].x, p->vectors[v].n * be->size);
    p->waiting++;
    clear(be, p);
}
