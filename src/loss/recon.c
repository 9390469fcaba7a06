/* Reconstruction loss of the masked patches: mean squared error, optionally against patches normalised by
 * their own mean and unbiased variance. */
#include "loss/recon.h"

void xkd_recon_forward(xkd_backend *be, double *loss, const void *pred, void *target, int64_t R, int64_t P,
                       bool norm_pix)
{
    /* In place: the raw patches are not needed again. */
    if (norm_pix) be->exact->patch_normalize(be, target, R, P);
    be->ops->mse_forward(be, loss, pred, target, R * P);
}

/* dpred may be pred. Targets carry no gradient. */
void xkd_recon_backward(xkd_backend *be, void *dpred, const void *pred, const void *target, int64_t R, int64_t P,
                        double scale)
{
    be->ops->mse_backward(be, dpred, pred, target, scale, R * P);
}
