/* The alignment loss over groups of samples: each group is one call of the backend's MMD or CORAL, and the
 * loss is the mean over groups. With groups of the size that one process of the released run had, one process
 * gives the loss of many (method.md section 6). */
#include "loss/align.h"

/* n, all views of both sides of a group. */
static int64_t rows_a_group(const xkd_align *a)
{
    return (a->sides.views_x + a->sides.views_y) * a->group;
}

/* Memory for every group, because the backward comes after all forwards: n x n pair weights in double, and
 * for CORAL the centred rows. */
void xkd_align_plan(xkd_arena *arena, xkd_align *a, xkd_widths element)
{
    int64_t n = rows_a_group(a), groups = a->sides.B / a->group;
    a->weights = xkd_arena_take(arena, groups * n * n * (int64_t)sizeof(double));
    a->centred = a->kind == XKD_ALIGN_CORAL ? xkd_arena_take(arena, groups * n * a->sides.K * element.exact) : NULL;
}

/* The sides, and the saved memory, of group q. */
static xkd_align_sides group_of(const xkd_backend *be, const xkd_align *a, int64_t q, double **weights, void **centred)
{
    int64_t n = rows_a_group(a);
    xkd_align_sides sides = a->sides;
    sides.first = q * a->group;
    sides.samples = a->group;
    sides.divisor = (double)(a->sides.B / a->group);
    *weights = a->weights + q * n * n;
    *centred = a->centred ? xkd_exact_at(be, a->centred, q * n * sides.K) : NULL;
    return sides;
}

/* Remembers the sides: the backward takes gradients at the same values. */
void xkd_align_forward(xkd_backend *be, double *loss, xkd_align *a, const void *x, const void *y)
{
    int64_t groups = a->sides.B / a->group;
    a->sides.x = x;
    a->sides.y = y;
    for (int64_t q = 0; q < groups; q++) {
        double *weights;
        void *centred;
        xkd_align_sides sides = group_of(be, a, q, &weights, &centred);
        if (a->kind == XKD_ALIGN_MMD)
            be->exact->mmd_forward(be, loss, weights, &sides);
        else
            be->exact->coral_forward(be, loss, weights, centred, &sides);
    }
}

/* The mean over groups is in the scale. Gradients add to dx and dy. */
void xkd_align_backward(xkd_backend *be, void *dx, void *dy, xkd_align *a, double scale)
{
    int64_t groups = a->sides.B / a->group;
    for (int64_t q = 0; q < groups; q++) {
        double *weights;
        void *centred;
        xkd_align_sides sides = group_of(be, a, q, &weights, &centred);
        if (a->kind == XKD_ALIGN_MMD)
            be->exact->mmd_backward(be, dx, dy, weights, &sides, scale / (double)groups);
        else
            be->exact->coral_backward(be, dx, dy, weights, centred, &sides, scale / (double)groups);
    }
}
