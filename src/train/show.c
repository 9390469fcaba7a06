/* Pictures of what the autoencoder makes of one clip. Made with a forward pass of their own after the update,
 * so that they show the weights that are saved. */
#include "train/show.h"

#include "base/alloc.h"
#include "eval/encode/reconstruction.h"

/* The view, then what was kept, predicted and both together: video as a strip of frames a row, sound as one spectrogram a row. All
 * rows are pictures of one size, so they can be compared by eye. */
static xkd_status draw(xkd_context *cx, const xkd_reconstruction *r, xkd_modality m, const float *clip,
                       xkd_canvas *picture)
{
    const xkd_patch_grid *g = &r->grid;
    const float *rows[] = {clip, r->masked, r->predicted, r->filled};
    const int64_t count = sizeof rows / sizeof *rows, size[3] = {g->T, g->H, g->W};
    if (m == XKD_VIDEO) return xkd_canvas_clips(cx, rows, count, size, picture);
    return xkd_canvas_spectrograms(cx, rows, count, g->H, g->W, picture);
}

/* The clip is fetched from where the pass has it: it may have been made there. */
static xkd_status show_one(xkd_context *cx, const xkd_trainer_inside *t, xkd_modality m, xkd_metrics *metrics,
                           int64_t step)
{
    static const char *const names[] = {"video", "audio"};
    xkd_status status = XKD_OK;
    xkd_reconstruction r = {0};
    xkd_canvas picture = {0};
    const xkd_patch_geometry *g = &t->pass.student[m].run.view[0].geometry;
    int64_t count = g->C * g->T * g->H * g->W;
    float *clip = NULL;
    XKD_TRY(xkd_alloc(cx, &clip, count, sizeof *clip));
    xkd_memory_download(t->be->memory, clip, t->pass.student[m].in.clip[0], count * (int64_t)sizeof *clip);
    XKD_TRY(xkd_reconstruction_of(cx, t->be, &t->pass, m, clip, &r));
    XKD_TRY(draw(cx, &r, m, clip, &picture));
    XKD_TRY(xkd_metrics_picture(metrics, step, names[m], picture.rgb, picture.width, picture.height));
fail:
    xkd_canvas_free(&picture);
    xkd_reconstruction_free(&r);
    xkd_free(clip);
    return status;
}

/* The pass's tensors are overwritten, so this must come between steps. No gradient is touched. */
xkd_status xkd_show_reconstruction(xkd_context *cx, xkd_trainer *trainer, const xkd_pass_input *in,
                                   xkd_metrics *metrics, int64_t step)
{
    xkd_status status = XKD_OK;
    xkd_trainer_inside *t = xkd_trainer_look(trainer);
    if (!t->pass.wants.recon) return XKD_OK;
    xkd_pass_load(&t->pass, in);
    xkd_pass_views(t->be, &t->pass);
    xkd_pass_students(t->be, &t->pass);
    XKD_TRY(xkd_backend_status(t->be));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (t->pass.wants.modality[m]) XKD_TRY(show_one(cx, t, m, metrics, step));
fail:
    return status;
}
