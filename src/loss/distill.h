/* Cross-modal knowledge distillation; method.md section 6, "KD". */
#ifndef XKD_LOSS_DISTILL_H
#define XKD_LOSS_DISTILL_H

#include "backend/backend.h"

/* *loss and *entropy in nats; s_lse [R], t_lse [B] saved. */
void xkd_distill_forward(xkd_backend *be, double *loss, double *entropy, void *s_lse, void *t_lse,
                         const xkd_kd_args *args);

/* ds [R,K] += scale * gradient. */
void xkd_distill_backward(xkd_backend *be, void *ds, const xkd_kd_args *args, const void *s_lse, const void *t_lse,
                          double scale);

/* centre [K] = m * centre + (1 - m) * sum / count, after use; sum [K] adds up teacher logits over micro-batches and
 * ranks, count their rows. */
void xkd_centre_update(xkd_backend *be, void *centre, const void *sum, double m, int64_t count, int64_t K);

#endif
