/* What this machine's processor reaches in float32 matrix products: the yardstick of `xkd bench` and `xkd doctor`. */
#ifndef XKD_BACKEND_CPU_RATE_H
#define XKD_BACKEND_CPU_RATE_H

#include "base/status.h"

/* Best of 5 of a 4096 x 3072 x 3072 product with `threads` threads, by oneDNN's own threading and by our tiles,
 * whichever is faster; in FLOP/s. Takes 150 MB for about 2 s. */
xkd_status xkd_gemm_rate(xkd_context *cx, int threads, double *flops);

#endif
