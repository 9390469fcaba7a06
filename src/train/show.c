/* Pictures of what the autoencoder makes of one clip. Made with a forward pass of their own after the update,
 * so that they show the weights that are saved. */
#include "train/show.h"

#include <string.h>

#include "base/alloc.h"
#include "report/canvas.h"

/* Rows of a picture, top to bottom. */
enum { VIEW, MASKED, PREDICTED, FILLED, ROWS };

/* The global view's grid: only it is masked and reconstructed. */
static xkd_patch_grid grid_of(const xkd_model_config *c, xkd_modality m)
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

/* hidden [N] and prediction [N,P] of sample 0 of the first global view; the decoder has only the masked patches.
 * Patches that were kept have no prediction; their entries stay 0 and are not drawn. */
static void gather(const xkd_trainer *t, xkd_modality m, int64_t P, uint8_t *hidden, float *prediction)
{
    const xkd_student_run *run = &t->pass.student[m];
    int64_t masked = run->in.mask.N - run->in.mask.kept;
    for (int64_t i = 0; i < masked; i++) {
        int64_t n = run->in.mask.masked[i];
        hidden[n] = 1;
        xkd_tensor_read_floats(t->be->memory, t->be->dtype, prediction + n * P, xkd_at(t->be, run->decoder.pred, i * P),
                               P);
    }
}

/* Video as a strip of frames a row, sound as one spectrogram a row. All rows are pictures of one size, so they can be
 * compared by eye. */
static xkd_status draw(xkd_context *cx, const xkd_patch_grid *g, xkd_modality m, const float *const *rows,
                       xkd_canvas *picture)
{
    const int64_t size[3] = {g->T, g->H, g->W};
    if (m == XKD_VIDEO) return xkd_canvas_clips(cx, rows, ROWS, size, picture);
    return xkd_canvas_spectrograms(cx, rows, ROWS, g->H, g->W, picture);
}

/* rows: the view itself, then three drawn ones in one block of memory. */
static xkd_status show_one(xkd_context *cx, const xkd_trainer *t, xkd_modality m, const float *clip,
                           xkd_metrics *metrics, int64_t step)
{
    static const char *const names[] = {"video", "audio"};
    xkd_status status = XKD_OK;
    xkd_patch_grid g = grid_of(&t->networks.config, m);
    int64_t P = g.pt * g.ph * g.pw * g.C, N = t->pass.student[m].in.mask.N, size = g.C * g.T * g.H * g.W;
    float *memory = NULL, *prediction = NULL;
    uint8_t *hidden = NULL;
    xkd_canvas picture = {0};
    XKD_TRY(xkd_alloc(cx, &memory, (ROWS - 1) * size, sizeof *memory));
    XKD_TRY(xkd_alloc(cx, &prediction, N * P, sizeof *prediction));
    XKD_TRY(xkd_alloc(cx, &hidden, N, 1));
    /* One block of memory: three pictures of C*T*H*W floats. */
    const float *rows[ROWS] = {clip, memory, memory + size, memory + 2 * size};
    gather(t, m, P, hidden, prediction);
    xkd_show_patches(&g, clip, hidden, prediction, t->networks.config.norm_pix_loss, memory, memory + size,
                     memory + 2 * size);
    XKD_TRY(draw(cx, &g, m, rows, &picture));
    XKD_TRY(xkd_metrics_picture(metrics, step, names[m], picture.rgb, picture.width, picture.height));
fail:
    xkd_canvas_free(&picture);
    xkd_free(hidden);
    xkd_free(prediction);
    xkd_free(memory);
    return status;
}

/* The pass's tensors are overwritten, so this must come between steps. No gradient is touched. */
xkd_status xkd_show_reconstruction(xkd_context *cx, xkd_trainer *t, const xkd_pass_input *in, xkd_metrics *metrics,
                                   int64_t step)
{
    xkd_status status = XKD_OK;
    if (!t->pass.wants.recon) return XKD_OK;
    xkd_pass_load(&t->pass, in);
    xkd_pass_students(t->be, &t->pass);
    XKD_TRY(xkd_backend_status(t->be));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (t->pass.wants.modality[m]) XKD_TRY(show_one(cx, t, m, in->clips[m][0], metrics, step));
fail:
    return status;
}
