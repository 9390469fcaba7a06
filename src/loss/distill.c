/* Distillation with a centre; the formulas are with the backend's kd_forward. One direction (teacher of one
 * modality, student of the other) per call. */
#include "loss/distill.h"

void xkd_distill_forward(xkd_backend *be, double *loss, double *entropy, void *s_lse, void *t_lse,
                         const xkd_kd_args *args)
{
    be->ops->kd_forward(be, loss, entropy, s_lse, t_lse, args);
}

void xkd_distill_backward(xkd_backend *be, void *ds, const xkd_kd_args *args, const void *s_lse, const void *t_lse,
                          double scale)
{
    be->ops->kd_backward(be, ds, args, s_lse, t_lse, scale);
}

/* centre = m centre + (1 - m) sum / count, where sum and count cover all micro-batches of a step, so
 * accumulation does not change the result. */
void xkd_centre_update(xkd_backend *be, void *centre, const void *sum, double m, int64_t count, int64_t K)
{
    be->ops->axpby(be, centre, sum, (1 - m) / (double)count, m, K);
}
