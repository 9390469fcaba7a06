/* Domain alignment between the two modalities; method.md section 6: MMD, or CORAL, over groups of samples. */
#ifndef XKD_LOSS_ALIGN_H
#define XKD_LOSS_ALIGN_H

#include "backend/backend.h"
#include "base/arena.h"
#include "config/config.h"

/* One alignment term and what its backward needs. */
typedef struct {
    xkd_align_loss kind;
    xkd_align_sides sides; /* first and samples are set for each group */
    int64_t group;         /* samples a group; divides B */
    double *weights;       /* [B/group, n, n], n rows a group of both sides together */
    void *centred;         /* [n,K] a group, CORAL only: [B/group, n, K] */
} xkd_align;

/* Plans memory; sides.{views_x,views_y,B,K}, kind and group are filled in. */
void xkd_align_plan(xkd_arena *arena, xkd_align *a, xkd_widths element);

/* *loss, in the backend's memory, += the mean over groups. */
void xkd_align_forward(xkd_backend *be, double *loss, xkd_align *a, const void *x, const void *y);

/* dx [views_x*B,K], dy [views_y*B,K] += scale * gradient. */
void xkd_align_backward(xkd_backend *be, void *dx, void *dy, xkd_align *a, double scale);

#endif
