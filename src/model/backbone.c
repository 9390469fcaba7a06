/* Encoders: how the views of one modality are laid out in one [R,D] tensor, and the pass through them. Row
 * order: view by view, within a view sample by sample, within a sample the class token and then the patches. */
#include "model/backbone.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

/* A spectrogram is a clip of one frame and one channel, with frequency for height and time for width; all
 * code below treats both alike. */
static void geometry_of(const xkd_model_config *c, xkd_modality modality, xkd_backbone *b)
{
    b->modality = modality;
    if (modality == XKD_VIDEO) {
        b->C = c->channels;
        b->pt = c->vid_patch_t;
        b->ph = c->vid_patch_h;
        b->pw = c->vid_patch_w;
        b->grid = (xkd_grid){c->num_frames / b->pt, c->frame_height / b->ph, c->frame_width / b->pw};
    } else {
        b->C = 1;
        b->pt = 1;
        b->ph = c->spec_patch_f;
        b->pw = c->spec_patch_t;
        b->grid = (xkd_grid){1, c->spec_freq / b->ph, c->spec_time / b->pw};
    }
}

/* Gives the rows of shared blocks their second name, e.g. aud_student.backbone.encoder.blocks.0.norm1.weight.
 * Only blocks are shared; patch embedding, positions, class token and encoder_norm are not (method.md section
 * 8). */
static xkd_status alias_blocks(const xkd_declare *at, const char *owner_prefix)
{
    xkd_status status = XKD_OK;
    size_t length = strlen(owner_prefix);
    for (int64_t i = 0; i < at->params->count; i++) {
        xkd_param *row = at->params->rows[i];
        char name[XKD_PARAM_NAME];
        if (strncmp(row->name, owner_prefix, length) != 0 || strncmp(row->name + length, "encoder.blocks.", 15) != 0)
            continue;
        /* Bounds of the format keep the compiler sure that the name fits; real names are shorter. */
        snprintf(name, sizeof name, "%.40s%.55s", at->prefix, row->name + length);
        XKD_TRY(xkd_params_add_alias(at->cx, at->params, row, name, true));
    }
fail:
    return status;
}

/* The second backbone gets a copy of the list of blocks, which points at the owner's parameters: gradients of
 * both modalities add up in them. */
static xkd_status share_blocks(const xkd_declare *at, xkd_backbone *out, const xkd_backbone *owner)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = at->cx;
    /* The owner's prefix is what stands before "encoder_norm" in one of its names. */
    const char *name = owner->norm.w->name, *end = strstr(name, "encoder_norm");
    char prefix[XKD_PARAM_NAME] = "";
    memcpy(prefix, name, (size_t)(end - name));
    out->blocks = owner->blocks;
    out->blocks.blocks = NULL;
    XKD_TRY(xkd_alloc(cx, &out->blocks.blocks, owner->blocks.depth, sizeof *out->blocks.blocks));
    memcpy(out->blocks.blocks, owner->blocks.blocks, (size_t)owner->blocks.depth * sizeof *out->blocks.blocks);
    XKD_TRY(alias_blocks(at, prefix));
fail:
    return status;
}

/* Rows are declared in the order of the public state dict. The class token's positional row exists only where
 * there is a class token. */
xkd_status xkd_backbone_declare(const xkd_declare *at, xkd_backbone *out, const xkd_model_config *config,
                                xkd_modality modality, xkd_vit_size size, const xkd_backbone *shared)
{
    xkd_status status = XKD_OK;
    int64_t D = size.width;
    xkd_declare exact = *at; /* of what is added to exact rows */
    exact.exact = true;
    *out = (xkd_backbone){0};
    geometry_of(config, modality, out);
    int64_t P = out->pt * out->ph * out->pw * out->C, N = xkd_grid_tokens(out->grid);
    const char *embed = modality == XKD_VIDEO ? "cuboid_embed.proj" : "patch_embed.proj";
    if (config->cls_token)
        XKD_TRY(xkd_declare_param(&exact, &out->cls, "cls_token", (xkd_shape){3, {1, 1, D}}, XKD_INIT_NORMAL, 0.02));
    XKD_TRY(xkd_declare_param(&exact, &out->pos, "enc_pos_embed", (xkd_shape){3, {1, N + xkd_cls_rows(out), D}},
                              XKD_INIT_TRUNC_NORMAL, 0.02));
    XKD_TRY(xkd_declare_linear(at, &out->embed, embed, P, D, true, XKD_INIT_XAVIER, 0));
    if (shared)
        XKD_TRY(share_blocks(at, out, shared));
    else
        XKD_TRY(xkd_transformer_declare(at, &out->blocks, "encoder", size));
    XKD_TRY(xkd_declare_norm(at, &out->norm, "encoder_norm", D));
fail:
    return status;
}

void xkd_backbone_free(xkd_backbone *b)
{
    xkd_transformer_free(&b->blocks);
}

/* Sizes come from the configuration or from a recorded batch; neither may make a patch reach over the edge. */
static xkd_status check_view(xkd_context *cx, const xkd_backbone *b, const xkd_view_shape *s)
{
    if (s->B > 0 && s->T > 0 && s->H > 0 && s->W > 0 && s->T % b->pt == 0 && s->H % b->ph == 0 && s->W % b->pw == 0)
        return XKD_OK;
    return xkd_fail(
        cx, XKD_ERR_CONFIG,
        "a %s view of %lld x %lld x %lld cannot be cut into patches of %lld x %lld x %lld: choose sizes that "
        "are multiples",
        b->modality == XKD_VIDEO ? "video" : "audio", (long long)s->T, (long long)s->H, (long long)s->W,
        (long long)b->pt, (long long)b->ph, (long long)b->pw);
}

/* Decides everything that depends on shapes: rows of each view, where it starts, and whether its positions
 * are interpolated. A masked view must have the model's own grid, because the decoder puts tokens back into
 * that grid. */
xkd_status xkd_backbone_run_new(xkd_context *cx, const xkd_backbone *b, const xkd_view_shape *shapes, int64_t views,
                                xkd_backbone_run *run)
{
    xkd_status status = XKD_OK;
    *run = (xkd_backbone_run){.views = views};
    XKD_TRY(xkd_alloc(cx, &run->view, views, sizeof *run->view));
    XKD_TRY(xkd_alloc(cx, &run->items, views, sizeof *run->items));
    for (int64_t v = 0; v < views; v++) {
        const xkd_view_shape *s = &shapes[v];
        xkd_view_run *view = &run->view[v];
        XKD_TRY(check_view(cx, b, s));
        view->geometry = (xkd_patch_geometry){s->B, b->C, s->T, s->H, s->W, b->pt, b->ph, b->pw};
        xkd_grid grid = {s->T / b->pt, s->H / b->ph, s->W / b->pw};
        view->resampled = grid.t != b->grid.t || grid.h != b->grid.h || grid.w != b->grid.w;
        if (view->resampled && s->kept)
            XKD_FAIL(XKD_ERR_CONFIG, "a masked view must have the size of the model's global view");
        if (view->resampled)
            XKD_TRY(xkd_resample_make(cx, &view->resample, b->grid, grid, b->modality == XKD_AUDIO, xkd_cls_rows(b)));
        view->tokens = s->kept ? s->kept : xkd_grid_tokens(grid);
        view->first = run->segs.rows;
        view->first_patch = run->patch_rows;
        run->items[v] = (xkd_segment){s->B, view->tokens + xkd_cls_rows(b)};
        run->segs.rows += s->B * run->items[v].tokens;
        run->patch_rows += s->B * view->tokens;
    }
    run->segs.count = views;
    run->segs.items = run->items;
fail:
    return status;
}

/* Takes a half-made run: pointers that were never set are NULL. */
void xkd_backbone_run_free(xkd_backbone_run *run)
{
    for (int64_t v = 0; run->view && v < run->views; v++) {
        xkd_resample_free(&run->view[v].resample);
        xkd_memory_give(run->view[v].memory, run->view[v].room);
    }
    xkd_free(run->view);
    xkd_free(run->items);
    xkd_transformer_saved_free(&run->blocks);
    *run = (xkd_backbone_run){0};
}

/* The matrices of an interpolation where operations can read them. They are not the arena's: what is planned there may lie
 * over other activations, and these are brought over once. */
static xkd_status place_resample(xkd_context *cx, xkd_memory *memory, xkd_view_run *view)
{
    xkd_status status = XKD_OK;
    const xkd_resample *r = &view->resample;
    view->forward = r->forward;
    view->backward = r->backward;
    if (xkd_memory_is_host(memory)) return XKD_OK;
    if (!view->room) {
        view->memory = memory;
        XKD_TRY(xkd_memory_take(cx, memory, &view->room, r->bytes));
        xkd_memory_upload(memory, view->room, r->memory, r->bytes);
    }
    view->forward = xkd_resample_at(r, &r->forward, view->room);
    view->backward = xkd_resample_at(r, &r->backward, view->room);
fail:
    return status;
}

/* Interpolated positions need memory of their own, and a gradient only where there is a backward. R x D of
 * output, and the blocks' share. */
xkd_status xkd_backbone_plan(xkd_context *cx, xkd_arena *arena, const xkd_backbone *b, xkd_widths element, bool keep,
                             xkd_backbone_run *run)
{
    xkd_status status = XKD_OK;
    int64_t D = b->blocks.width, R = run->segs.rows;
    run->patches = xkd_arena_take(arena, run->patch_rows * b->embed.in * element.stored);
    for (int64_t v = 0; v < run->views; v++) {
        int64_t count = (run->view[v].tokens + xkd_cls_rows(b)) * D;
        if (!run->view[v].resampled) continue;
        XKD_TRY(place_resample(cx, arena->of, &run->view[v]));
        run->view[v].pos = xkd_arena_take(arena, count * element.exact);
        if (keep) run->view[v].dpos = xkd_arena_take(arena, count * element.exact);
    }
    XKD_TRY(xkd_transformer_plan(cx, arena, &b->blocks, &run->segs, element, keep, &run->blocks));
    run->mean = xkd_arena_take(arena, R * element.exact);
    run->rstd = xkd_arena_take(arena, R * element.exact);
    run->z = xkd_arena_take(arena, R * D * element.stored);
fail:
    return status;
}

/* One embedding product for all views together. Positions are then added view by view, because tables and
 * kept tokens differ. */
void xkd_backbone_forward(xkd_backend *be, const xkd_backbone *b, xkd_backbone_run *run, const float *const *clips,
                          const int32_t *const *keep, const xkd_block_scratch *scratch)
{
    const xkd_ops *ops = be->ops;
    int64_t D = b->blocks.width, P = b->embed.in;
    for (int64_t v = 0; v < run->views; v++) {
        const xkd_view_run *view = &run->view[v];
        ops->patchify(be, xkd_at(be, run->patches, view->first_patch * P), clips[v], keep[v], view->tokens,
                      &view->geometry);
    }
    void *e = scratch->n; /* [patch_rows,D]: not needed again */
    ops->linear_forward(be, e, run->patches, b->embed.w->value, b->embed.b->value, run->patch_rows, D, P);
    for (int64_t v = 0; v < run->views; v++) {
        const xkd_view_run *view = &run->view[v];
        if (view->resampled) be->exact->sparse_rows(be, view->pos, b->pos->value, &view->forward, D, false);
        ops->add_positions(be, xkd_exact_at(be, xkd_transformer_input(&run->blocks, scratch), view->first * D),
                           xkd_at(be, e, view->first_patch * D), xkd_value(b->cls),
                           view->resampled ? view->pos : b->pos->value, keep[v], view->geometry.B, view->tokens, D);
    }
    xkd_transformer_forward(be, &b->blocks, &run->blocks, scratch);
    ops->residual_layernorm_forward(be, run->z, run->blocks.out, run->mean, run->rstd,
                                    xkd_transformer_output(&run->blocks, scratch), b->norm.w->value, b->norm.b->value,
                                    run->segs.rows, D);
}

/* The reverse: encoder_norm, blocks, positions, embedding. Nothing goes on to the pixels. dz holds the
 * gradients of the stages in turn. */
void xkd_backbone_backward(xkd_backend *be, const xkd_backbone *b, xkd_backbone_run *run, void *dz,
                           const int32_t *const *keep, const xkd_block_scratch *scratch)
{
    const xkd_ops *ops = be->ops;
    int64_t D = b->blocks.width;
    xkd_norm_backward(
        be, &b->norm,
        &(xkd_layernorm_grad){
            .dx = dz, .dy = dz, .x = run->blocks.out, .mean = run->mean, .rstd = run->rstd, .R = run->segs.rows});
    xkd_transformer_backward(be, &b->blocks, &run->blocks, dz, scratch);
    void *de = scratch->n;
    for (int64_t v = 0; v < run->views; v++) {
        const xkd_view_run *view = &run->view[v];
        void *dpos = view->resampled ? view->dpos : b->pos->grad;
        /* The gradient of interpolated rows is summed up first and then spread over the table through the
         * transpose. */
        if (view->resampled) be->exact->fill(be, dpos, 0, (view->tokens + xkd_cls_rows(b)) * D);
        ops->add_positions_backward(be, xkd_at(be, de, view->first_patch * D), xkd_grad(b->cls), dpos,
                                    xkd_at(be, dz, view->first * D), keep[v], view->geometry.B, view->tokens, D);
        if (view->resampled) be->exact->sparse_rows(be, b->pos->grad, dpos, &view->backward, D, true);
    }
    xkd_linear_weights(be, &b->embed, de, run->patches, run->patch_rows);
}
