/* What this machine's processor reaches in float32 matrix products: the yardstick of `xkd bench` and `xkd doctor`. */
#ifndef XKD_BACKEND_CPU_RATE_H
#define XKD_BACKEND_CPU_RATE_H

#include "base/status.h"

/* In FLOP/s. */
typedef struct {
    double own, onednn; /* onednn: 0 where it is not built in */
} xkd_gemm_rates;

/* Best of 5 of a 4096 x 3072 x 3072 product with `threads` threads, by our kernels and by oneDNN, interleaved. The
 * yardstick is the faster. Takes 150 MB for about 4 s. */
xkd_status xkd_gemm_rate(xkd_context *cx, int threads, xkd_gemm_rates *out);

static inline double xkd_gemm_best(const xkd_gemm_rates *r)
{
    return r->own > r->onednn ? r->own : r->onednn;
}

#endif
