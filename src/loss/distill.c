/* Distillation with a centre; the formulas are with the backend's kd_forward. One direction (teacher of one
 * modality, student of the other) per call. */
#include "loss/distill.h"

void xkd_distill_forward(xkd_backend *be, double *loss, double *entropy, void *s_lse, void *t_lse,
                         const xkd_kd_args *args)
{
    be->exact->kd_forward(be, loss, entropy, s_lse, t_lse, args);
}

void xkd_distill_backward(xkd_backend *be, void *ds, const xkd_kd_args *args, const void *s_lse, const void *t_lse,
                          double scale)
{
    be->exact->kd_backward(be, ds, args, s_lse, t_lse, scale);
}
