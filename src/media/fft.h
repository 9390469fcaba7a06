/* Real Fourier transform (libavutil's tx). */
#ifndef XKD_MEDIA_FFT_H
#define XKD_MEDIA_FFT_H

#include <stdint.h>

#include "base/status.h"

typedef struct xkd_fft xkd_fft;

/* A plan for n real inputs; n even, its factors 2, 3, 5, ... as libavutil offers. XKD_ERR_CONFIG where it has none.
 * One thread at a time may use a plan. */
xkd_status xkd_fft_new(xkd_context *cx, int64_t n, xkd_fft **out);
void xkd_fft_free(xkd_fft *fft); /* NULL is allowed */

/* in: [n], 64-byte aligned, destroyed; out: [n/2+1] complex numbers as (re, im) pairs, 64-byte aligned. */
void xkd_fft_run(xkd_fft *fft, float *in, float *out);

#endif
