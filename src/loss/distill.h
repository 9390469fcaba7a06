/* Cross-modal knowledge distillation; method.md section 6, "KD". */
#ifndef XKD_LOSS_DISTILL_H
#define XKD_LOSS_DISTILL_H

#include "backend/backend.h"

/* *loss and *entropy in nats, in the backend's memory; s_lse [R], t_lse [B] saved. */
void xkd_distill_forward(xkd_backend *be, double *loss, double *entropy, void *s_lse, void *t_lse,
                         const xkd_kd_args *args);

/* ds [R,K] += scale * gradient. */
void xkd_distill_backward(xkd_backend *be, void *ds, const xkd_kd_args *args, const void *s_lse, const void *t_lse,
                          double scale);

#endif
