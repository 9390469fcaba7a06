/* Views on their way to the device. Masks are drawn by the host: they are a sort of a few hundred numbers a clip. */
#include "model/inputs.h"

#include "base/alloc.h"

xkd_status xkd_inputs_new(xkd_context *cx, xkd_inputs *out, const xkd_backbone_run *run, int64_t masked, int64_t N,
                          int64_t kept)
{
    xkd_status status = XKD_OK;
    int64_t B = run->view[0].geometry.B;
    *out = (xkd_inputs){.views = run->views, .masked = masked};
    XKD_TRY(xkd_alloc(cx, &out->clip, run->views, sizeof *out->clip));
    XKD_TRY(xkd_alloc(cx, &out->keep, run->views, sizeof *out->keep));
    XKD_TRY(xkd_alloc(cx, &out->room, run->views, sizeof *out->room));
    XKD_TRY(xkd_alloc(cx, &out->bytes, run->views, sizeof *out->bytes));
    for (int64_t v = 0; v < run->views; v++) {
        const xkd_patch_geometry *g = &run->view[v].geometry;
        out->bytes[v] = g->B * g->C * g->T * g->H * g->W * (int64_t)sizeof(float);
    }
    XKD_TRY(xkd_masking_new(cx, &out->mask, masked * B, N, kept));
fail:
    return status;
}

void xkd_inputs_are_raw(xkd_inputs *in, const xkd_raw_plan *plan, xkd_modality modality)
{
    in->raw = plan;
    in->modality = modality;
}

void xkd_inputs_free(xkd_inputs *in)
{
    xkd_free(in->clip);
    xkd_free(in->keep);
    xkd_free(in->room);
    xkd_free(in->bytes);
    xkd_masking_free(&in->mask);
    *in = (xkd_inputs){0};
}

/* The arrays of a mask and their lengths, in one order. */
typedef struct {
    int32_t *from, **to;
    int64_t bytes;
} table;

static void tables_of(xkd_inputs *in, table out[4])
{
    const xkd_masking *m = &in->mask;
    int64_t kept = m->B * m->kept * (int64_t)sizeof(int32_t), all = m->B * m->N * (int64_t)sizeof(int32_t);
    out[0] = (table){m->keep, &in->tables.keep, kept};
    out[1] = (table){m->rank, &in->tables.rank, all};
    out[2] = (table){m->masked, &in->tables.masked, all - kept};
    out[3] = (table){m->rows, &in->tables.rows, all - kept};
}

void xkd_inputs_plan(xkd_arena *arena, xkd_inputs *in)
{
    table tables[4];
    tables_of(in, tables);
    for (int64_t v = 0; v < in->views; v++)
        in->room[v] = in->raw ? xkd_arena_take(arena, in->bytes[v]) : xkd_arena_room(arena, in->bytes[v]);
    for (int i = 0; i < 4; i++) in->table_room[i] = xkd_arena_room(arena, tables[i].bytes);
}

/* The cast takes back the const of what is lent: operations only read the tables. */
void xkd_inputs_load(xkd_memory *memory, xkd_inputs *in, const float *const *clips, const float *noise,
                     int64_t cls_rows)
{
    table tables[4];
    xkd_masking_draw(&in->mask, noise, cls_rows);
    in->tables = in->mask;
    in->tables.order = NULL;
    tables_of(in, tables);
    for (int i = 0; i < 4; i++)
        *tables[i].to =
            (int32_t *)(uintptr_t)xkd_memory_lend(memory, in->table_room[i], tables[i].from, tables[i].bytes);
    for (int64_t v = 0; v < in->views; v++)
        in->clip[v] = in->raw ? in->room[v] : xkd_memory_lend(memory, in->room[v], clips[v], in->bytes[v]);
    for (int64_t v = 0; v < in->masked; v++)
        in->keep[v] = in->tables.keep + v * (in->mask.B / in->masked) * in->mask.kept;
}

void xkd_inputs_make(xkd_backend *be, xkd_inputs *in, const void *block, int64_t B)
{
    for (int64_t v = 0; v < in->views; v++) xkd_raw_view(be, in->raw, block, in->modality, v, B, in->room[v]);
}
