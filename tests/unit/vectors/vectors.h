/* What the vector functions of one level do, found by code compiled for that level and judged by code that runs
 * everywhere. */
#ifndef XKD_TESTS_VECTORS_H
#define XKD_TESTS_VECTORS_H

#include <stdbool.h>

typedef struct {
    double exp_error;                            /* largest relative error on [-87, 0] */
    bool exp_ends;                               /* 0 far below, 1 at 0, NaN for NaN */
    double cdf_error, density_error, tail_error; /* absolute, absolute, relative below 0 */
    bool gelu_ends;                              /* infinities and NaN as in x * Phi(x) */
    bool nan_wins;                               /* in the maximum, from either side */
    bool parts;                                  /* part loads and stores touch what they should */
    bool sums;                                   /* of lanes, float and double */
} vector_report;

#endif
