/* The decoder of the masked autoencoder (method.md section 4) and its loss. Its input is the student's latent
 * of the global views, its output the patches that were masked; kept patches are dropped before out_proj,
 * which then works on about 80 % of the rows, and the loss needs no mask. */
#include "model/autoencoder.h"

#include "base/alloc.h"
#include "loss/recon.h"

/* Linears are declared only where widths differ, as in the release: files of such models lack those names
 * too. */
xkd_status xkd_decoder_declare(const xkd_declare *at, xkd_decoder *out, const xkd_model_config *config,
                               const xkd_backbone *encoder)
{
    xkd_status status = XKD_OK;
    xkd_vit_size size = config->decoder;
    int64_t D = encoder->blocks.width, N = xkd_grid_tokens(encoder->grid), c = xkd_cls_rows(encoder);
    xkd_declare exact = *at; /* of what is added to exact rows */
    exact.exact = true;
    *out = (xkd_decoder){.N = N, .P = encoder->embed.in, .cls = c, .norm_pix = config->norm_pix_loss};
    XKD_TRY(xkd_declare_param(&exact, &out->mask_token, "mask_token", (xkd_shape){3, {1, 1, size.width}},
                              XKD_INIT_NORMAL, 0.02));
    XKD_TRY(xkd_declare_param(&exact, &out->pos, "dec_pos_embed", (xkd_shape){3, {1, N + c, size.width}},
                              XKD_INIT_TRUNC_NORMAL, 0.02));
    if (D != size.width)
        XKD_TRY(xkd_declare_linear(at, &out->mid, "mid_proj", D, size.width, true, XKD_INIT_XAVIER, 0));
    XKD_TRY(xkd_transformer_declare(at, &out->blocks, "decoder", size));
    if (size.width != out->P)
        XKD_TRY(xkd_declare_linear(at, &out->out, "out_proj", size.width, out->P, true, XKD_INIT_XAVIER, 0));
fail:
    return status;
}

/* Parameters belong to the table; only the list of blocks is the decoder's. */
void xkd_decoder_free(xkd_decoder *d)
{
    xkd_transformer_free(&d->blocks);
}

/* B counts all masked clips of the pass, g views of every sample. Sizes: `gathered` and `pred` share memory
 * where there is no out_proj. */
xkd_status xkd_decoder_plan(xkd_context *cx, xkd_arena *arena, const xkd_decoder *d, int64_t B, int64_t kept,
                            xkd_widths element, xkd_decoder_run *run)
{
    xkd_status status = XKD_OK;
    int64_t c = d->cls ? 1 : 0, width = d->blocks.width, masked = d->N - kept;
    run->B = B;
    run->kept = kept;
    run->masked = masked;
    if (!run->item) XKD_TRY(xkd_alloc(cx, &run->item, 1, sizeof *run->item)); /* on the first of two calls */
    *run->item = (xkd_segment){B, d->N + c};
    xkd_segments segs = {1, run->item, B * (d->N + c)};
    if (d->mid.w) run->z = xkd_arena_take(arena, B * (kept + c) * width * element.stored);
    XKD_TRY(xkd_transformer_plan(cx, arena, &d->blocks, &segs, element, true, &run->blocks));
    run->gathered = xkd_arena_take(arena, B * masked * width * element.stored);
    run->pred = d->out.w ? xkd_arena_take(arena, B * masked * d->P * element.stored) : run->gathered;
    run->target = xkd_arena_take(arena, B * masked * d->P * element.exact);
    run->dx = xkd_arena_take(arena, segs.rows * width * element.stored);
fail:
    return status;
}

void xkd_decoder_run_free(xkd_decoder_run *run)
{
    xkd_transformer_saved_free(&run->blocks);
    xkd_free(run->item);
    *run = (xkd_decoder_run){0};
}

/* latent [B,M+c,D] in order of noise -> mid_proj -> grid order with mask tokens -> blocks -> masked rows only
 * -> out_proj. `unmask` writes straight into the first block's input. */
void xkd_decoder_forward(xkd_backend *be, const xkd_decoder *d, xkd_decoder_run *run, const void *latent,
                         const float *const *clips, const xkd_patch_geometry *geometry, const xkd_masking *mask,
                         const xkd_block_scratch *scratch, double *loss)
{
    const xkd_ops *ops = be->ops;
    int64_t c = d->cls ? 1 : 0, width = d->blocks.width, rows = run->B * run->masked;
    const void *z = latent;
    if (d->mid.w) {
        ops->linear_forward(be, run->z, latent, d->mid.w->value, d->mid.b->value, run->B * (run->kept + c), width,
                            d->mid.in);
        z = run->z;
    }
    xkd_unmask_args where = {mask->rank, run->B, d->N, run->kept, width, d->cls};
    ops->unmask_forward(be, xkd_transformer_input(&run->blocks, scratch), z, d->mask_token->value, d->pos->value,
                        &where);
    xkd_transformer_forward(be, &d->blocks, &run->blocks, scratch);
    ops->gather_rows(be, run->gathered, xkd_transformer_output(&run->blocks, scratch), mask->rows, rows, width);
    if (d->out.w)
        ops->linear_forward(be, run->pred, run->gathered, d->out.w->value, d->out.b->value, rows, d->P, width);
    /* Targets come from the clips, view by view, since every view is a tensor of its own; only the masked
     * patches are cut out. */
    for (int64_t v = 0; v * geometry->B < run->B; v++) {
        int64_t first = v * geometry->B * run->masked;
        be->exact->patchify(be, xkd_exact_at(be, run->target, first * d->P), clips[v], mask->masked + first,
                            run->masked, geometry);
    }
    xkd_recon_forward(be, loss, run->pred, run->target, rows, d->P, d->norm_pix);
}

/* pred becomes its own gradient, gathered that of the block output: nothing more is needed of either. */
void xkd_decoder_backward(xkd_backend *be, const xkd_decoder *d, xkd_decoder_run *run, void *dlatent,
                          const void *latent, const xkd_masking *mask, const xkd_block_scratch *scratch, double scale)
{
    const xkd_ops *ops = be->ops;
    int64_t c = d->cls ? 1 : 0, width = d->blocks.width, rows = run->B * run->masked;
    xkd_recon_backward(be, run->pred, run->pred, run->target, rows, d->P, scale);
    if (d->out.w) {
        xkd_linear_weights(be, &d->out, run->pred, run->gathered, rows);
        ops->linear_backward_data(be, run->gathered, run->pred, d->out.w->value, rows, d->P, width);
    }
    /* Rows that were not predicted have no gradient of their own, so all others are 0. */
    ops->scatter_rows(be, run->dx, run->gathered, mask->rows, rows, run->blocks.segs.rows, width);
    xkd_transformer_backward(be, &d->blocks, &run->blocks, run->dx, scratch);
    /* scratch->n is free again after the blocks' backward and is large enough: it covers every transformer of
     * the pass. */
    void *dz = d->mid.w ? scratch->n : dlatent;
    xkd_unmask_args where = {mask->rank, run->B, d->N, run->kept, width, d->cls};
    ops->unmask_backward(be, dz, d->mask_token->grad, d->pos->grad, run->dx, &where);
    if (!d->mid.w) return;
    xkd_linear_weights(be, &d->mid, dz, latent, run->B * (run->kept + c));
    ops->linear_backward_data(be, dlatent, dz, d->mid.w->value, run->B * (run->kept + c), width, d->mid.in);
}
