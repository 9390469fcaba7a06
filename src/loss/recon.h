/* Masked reconstruction loss; method.md section 4: targets are raw patches, with norm_pix each normalised by its own
 * mean and unbiased variance; mean squared error over the masked patches of the batch. */
#ifndef XKD_LOSS_RECON_H
#define XKD_LOSS_RECON_H

#include "backend/backend.h"

/* pred, target [R,P]; target is normalised in place. */
void xkd_recon_forward(xkd_backend *be, double *loss, const void *pred, void *target, int64_t R, int64_t P,
                       bool norm_pix);

/* dpred [R,P] = scale * gradient; dpred may be pred. */
void xkd_recon_backward(xkd_backend *be, void *dpred, const void *pred, const void *target, int64_t R, int64_t P,
                        double scale);

#endif
