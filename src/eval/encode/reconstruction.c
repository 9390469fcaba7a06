/* From the decoder's predictions of masked patches to clips. */
#include "eval/encode/reconstruction.h"

#include "base/alloc.h"

/* Only the global view is masked and reconstructed. */
xkd_patch_grid xkd_reconstruction_grid(const xkd_model_config *c, xkd_modality m)
{
    if (m == XKD_VIDEO)
        return (xkd_patch_grid){.C = c->channels,
                                .T = c->num_frames,
                                .H = c->frame_height,
                                .W = c->frame_width,
                                .pt = c->vid_patch_t,
                                .ph = c->vid_patch_h,
                                .pw = c->vid_patch_w};
    return (xkd_patch_grid){
        .C = 1, .T = 1, .H = c->spec_freq, .W = c->spec_time, .pt = 1, .ph = c->spec_patch_f, .pw = c->spec_patch_t};
}

/* hidden [N] and prediction [N,P]; the decoder has only the masked patches. Patches that were kept have no prediction; their
 * entries stay 0 and are not drawn. */
static void gather(const xkd_backend *be, const xkd_student_run *run, int64_t P, xkd_reconstruction *r,
                   float *prediction)
{
    r->hidden_count = run->in.mask.N - run->in.mask.kept;
    for (int64_t i = 0; i < r->hidden_count; i++) {
        int64_t n = run->in.mask.masked[i];
        r->hidden[n] = 1;
        xkd_tensor_read_floats(be->memory, be->dtype, prediction + n * P, xkd_at(be, run->decoder.pred, i * P), P);
    }
}

xkd_status xkd_reconstruction_of(xkd_context *cx, const xkd_backend *be, const xkd_pass *pass, xkd_modality m,
                                 const float *clip, xkd_reconstruction *out)
{
    xkd_status status = XKD_OK;
    const xkd_student_run *run = &pass->student[m];
    float *prediction = NULL;
    *out = (xkd_reconstruction){.grid = xkd_reconstruction_grid(&pass->networks->config, m), .patches = run->in.mask.N};
    const xkd_patch_grid *g = &out->grid;
    int64_t P = g->pt * g->ph * g->pw * g->C, size = g->C * g->T * g->H * g->W;
    XKD_TRY(xkd_alloc(cx, &out->masked, 3 * size, sizeof *out->masked));
    XKD_TRY(xkd_alloc(cx, &out->hidden, out->patches, 1));
    XKD_TRY(xkd_alloc(cx, &prediction, out->patches * P, sizeof *prediction));
    out->predicted = out->masked + size;
    out->filled = out->masked + 2 * size;
    gather(be, run, P, out, prediction);
    xkd_show_patches(g, clip, out->hidden, prediction, pass->networks->config.norm_pix_loss, out->masked,
                     out->predicted, out->filled);
fail:
    xkd_free(prediction);
    return status;
}

void xkd_reconstruction_free(xkd_reconstruction *r)
{
    xkd_free(r->hidden);
    xkd_free(r->masked);
    *r = (xkd_reconstruction){0};
}
