/* Constants of the method that kernels of every backend share; method.md sections 4 and 6. */
#ifndef XKD_BACKEND_CONSTANTS_H
#define XKD_BACKEND_CONSTANTS_H

#include <math.h>

#define XKD_LAYERNORM_EPS 1e-5
#define XKD_L2NORM_EPS 1e-12
#define XKD_PATCH_EPS 1e-6

/* What a gradient of this sum of squares is multiplied with so that its norm is at most `clip` (0: any norm), as the
 * release clips: 1e-6 in the divisor, and only where the factor is below 1. method.md section 7. */
static inline double xkd_clip_factor(double clip, double squares)
{
    return clip > 0 ? fmin(1, clip / (sqrt(squares) + 1e-6)) : 1;
}

/* MMD's kernel k(d) = sum over g of exp(-g d) of a squared distance, and its derivative in d. */
static inline void xkd_mmd_kernel(double distance, double *kernel, double *slope)
{
    static const double gammas[] = {1e-3, 1e-2, 1e-1, 1, 10, 100, 1000};
    *kernel = *slope = 0;
    for (int i = 0; i < 7; i++) {
        double e = exp(-gammas[i] * distance);
        *kernel += e;
        *slope -= gammas[i] * e;
    }
}

#endif
