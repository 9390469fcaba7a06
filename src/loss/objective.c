/* The weighted mean of the pairs of terms. */
#include "loss/objective.h"

/* In the order of xkd_loss. The names are those of the release's logs. */
const char *const xkd_loss_names[XKD_LOSS_COUNT] = {
    "vid_recon_loss", "aud_recon_loss", "as2vs_align_loss", "vt2at_align_loss", "vt2as_kd_loss",
    "at2vs_kd_loss",  "recon_loss",     "cmkd_loss",        "alignment_loss",   "loss",
};

void xkd_objective(const xkd_step_config *c, double loss[XKD_LOSS_COUNT])
{
    loss[XKD_LOSS_RECON] = (loss[XKD_LOSS_VID_RECON] + loss[XKD_LOSS_AUD_RECON]) / 2;
    loss[XKD_LOSS_KD] = loss[XKD_LOSS_ALIGN] = 0;
    if (c->modality != XKD_TRAIN_BOTH) {
        loss[XKD_LOSS_RECON] = loss[XKD_LOSS_VID_RECON] + loss[XKD_LOSS_AUD_RECON]; /* one of them is 0 */
        loss[XKD_LOSS_TOTAL] = loss[XKD_LOSS_RECON];
        return;
    }
    loss[XKD_LOSS_KD] = (loss[XKD_LOSS_KD_VT2AS] + loss[XKD_LOSS_KD_AT2VS]) / 2;
    loss[XKD_LOSS_ALIGN] = (loss[XKD_LOSS_ALIGN_STUDENTS] + loss[XKD_LOSS_ALIGN_TEACHERS]) / 2;
    /* L = (a L_align + c L_kd + r L_recon) / (a + c + r). */
    loss[XKD_LOSS_TOTAL] = (c->align_coeff * loss[XKD_LOSS_ALIGN] + c->cmkd_coeff * loss[XKD_LOSS_KD] +
                            c->recon_coeff * loss[XKD_LOSS_RECON]) /
                           (c->align_coeff + c->cmkd_coeff + c->recon_coeff);
}

double xkd_objective_scale(const xkd_step_config *c, double coefficient)
{
    if (c->modality != XKD_TRAIN_BOTH) return 1;
    return coefficient / (c->align_coeff + c->cmkd_coeff + c->recon_coeff) / 2;
}
