/* The tree of sums of one process. Its shape follows from the number of a part alone: behind part i as many sums are
 * merged as i has trailing ones in binary, and what waits behind the last part is added from the smallest up. */
#include "optim/parts.h"

#include "base/alloc.h"

/* Bytes that pass through the host at once, where a backend has memory of its own. */
enum { STAGE = 4 << 20 };

/* Elements that are worth a message of their own while the backward pass goes on. */
static const int64_t PIECE = (int64_t)2 << 20;

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
    *out = (xkd_parts){.count = count, .parts = parts, .most = xkd_parts_waiting(parts), .piece = PIECE};
    for (int v = 0; v < count; v++) out->vectors[v] = vectors[v];
    out->arena.of = be->memory;
    for (int round = 0; round < 2; round++) { /* measure, then assign */
        for (int k = 0; k < out->most; k++)
            for (int v = 0; v < count; v++)
                out->sums[k][v] = xkd_arena_take(&out->arena, vectors[v].n * be->element.exact);
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
    for (int v = 0; v < p->count; v++) be->exact->fill(be, p->vectors[v].x, 0, p->vectors[v].n);
}

void xkd_parts_begin(xkd_backend *be, xkd_parts *p)
{
    p->done = 0;
    p->waiting = 0;
    p->sent_count = 0;
    p->status = XKD_OK;
    p->growing = (xkd_part_piece){0};
    clear(be, p);
}

/* Elements [first, end) of vector v += those of the waiting sum. */
static void add_waiting(xkd_backend *be, xkd_parts *p, int sum, int v, int64_t first, int64_t end)
{
    be->exact->axpby(be, xkd_exact_at(be, p->vectors[v].x, first), xkd_exact_at(be, p->sums[sum][v], first), 1, 1,
                     end - first);
}

/* The sum that came last joins the vectors. */
static void merge(xkd_backend *be, xkd_parts *p)
{
    p->waiting--;
    for (int v = 0; v < p->count; v++) add_waiting(be, p, p->waiting, v, 0, p->vectors[v].n);
}

/* The same of all that wait, for a stretch of a vector. */
static void merge_all(xkd_backend *be, xkd_parts *p, int v, int64_t first, int64_t end)
{
    for (int sum = p->waiting - 1; sum >= 0; sum--) add_waiting(be, p, sum, v, first, end);
}

/* What has not been sent of the first vector, from *at on; false at its end. Pieces lie apart from each other, and there are
 * few of them. */
static bool next_gap(const xkd_parts *p, int64_t *at, xkd_part_piece *gap)
{
    int64_t n = p->vectors[0].n;
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < p->sent_count; i++) {
            if (p->sent[i].first > *at || p->sent[i].end <= *at) continue;
            *at = p->sent[i].end;
            moved = true;
        }
    }
    if (*at >= n) return false;
    *gap = (xkd_part_piece){*at, n};
    for (int i = 0; i < p->sent_count; i++)
        if (p->sent[i].first > *at && p->sent[i].first < gap->end) gap->end = p->sent[i].first;
    *at = gap->end;
    return true;
}

/* The last part: what was sent has its sums already. */
static void end_parts(xkd_backend *be, xkd_parts *p)
{
    xkd_part_piece gap;
    for (int64_t at = 0; next_gap(p, &at, &gap);) merge_all(be, p, 0, gap.first, gap.end);
    for (int v = 1; v < p->count; v++) merge_all(be, p, v, 0, p->vectors[v].n);
    p->waiting = 0;
}

void xkd_parts_add(xkd_backend *be, xkd_parts *p)
{
    if (p->done + 1 == p->parts) {
        p->done++;
        end_parts(be, p);
        return;
    }
    for (int64_t bits = p->done++; bits & 1; bits >>= 1) merge(be, p);
    for (int v = 0; v < p->count; v++)
        xkd_memory_copy(be->memory, p->sums[p->waiting][v], p->vectors[v].x, p->vectors[v].n * be->element.exact);
    p->waiting++;
    clear(be, p);
}

/* Whether sums go on their way from where they lie. */
static bool can_send(const xkd_backend *be, const xkd_dist *dist)
{
    return xkd_memory_is_host(be->memory) || xkd_dist_on_devices(dist);
}

/* A piece that is long enough for the link goes on its way. */
static void send_piece(xkd_backend *be, xkd_parts *p, xkd_dist *dist)
{
    xkd_part_piece piece = p->growing;
    p->growing = (xkd_part_piece){0};
    if (piece.end == piece.first || p->sent_count == XKD_PARTS_PIECES || p->status != XKD_OK) return;
    merge_all(be, p, 0, piece.first, piece.end);
    p->sent[p->sent_count++] = piece;
    p->status = xkd_dist_sum_later(dist, xkd_exact_at(be, p->vectors[0].x, piece.first), piece.end - piece.first);
}

void xkd_parts_ready(xkd_backend *be, xkd_parts *p, xkd_dist *dist, int64_t first, int64_t n)
{
    xkd_part_piece *g = &p->growing;
    if (!dist || p->done + 1 != p->parts || !can_send(be, dist)) return;
    /* Gradients become complete from the back of a network to its front, as they lie in the vector. */
    if (g->end > g->first && first + n == g->first)
        g->first = first;
    else {
        send_piece(be, p, dist);
        *g = (xkd_part_piece){first, first + n};
    }
    if (g->end - g->first >= p->piece) send_piece(be, p, dist);
}

xkd_status xkd_pass_through(xkd_context *cx, xkd_dist *dist, xkd_memory *memory, void *x, int64_t bytes,
                            xkd_piece_fn fn)
{
    xkd_status status = XKD_OK;
    char *stage = NULL;
    if (xkd_memory_is_host(memory)) return fn(dist, x, bytes);
    XKD_TRY(xkd_alloc(cx, &stage, STAGE, 1));
    for (int64_t at = 0; at < bytes; at += STAGE) {
        int64_t n = bytes - at < STAGE ? bytes - at : STAGE;
        xkd_memory_download(memory, stage, (char *)x + at, n);
        XKD_TRY(fn(dist, stage, n));
        xkd_memory_upload(memory, (char *)x + at, stage, n);
    }
fail:
    xkd_free(stage);
    return status;
}

static xkd_status sum_piece(xkd_dist *dist, void *piece, int64_t bytes)
{
    return xkd_dist_sum(dist, piece, bytes / (int64_t)sizeof(float));
}

/* n exact elements at x, over all ranks. */
static xkd_status join(xkd_backend *be, xkd_dist *dist, void *x, int64_t n)
{
    if (xkd_dist_on_devices(dist)) return xkd_dist_sum_later(dist, x, n);
    return xkd_pass_through(be->cx, dist, be->memory, x, n * be->element.exact, sum_piece);
}

xkd_status xkd_parts_join(xkd_backend *be, xkd_parts *p, xkd_dist *dist)
{
    xkd_status status = XKD_OK;
    xkd_part_piece gap;
    if (!dist) return XKD_OK;
    XKD_TRY(xkd_dist_wait(dist));
    XKD_TRY(p->status);
    for (int64_t at = 0; next_gap(p, &at, &gap);)
        XKD_TRY(join(be, dist, xkd_exact_at(be, p->vectors[0].x, gap.first), gap.end - gap.first));
    for (int v = 1; v < p->count; v++) XKD_TRY(join(be, dist, p->vectors[v].x, p->vectors[v].n));
    XKD_TRY(xkd_dist_wait(dist));
fail:
    return status;
}
