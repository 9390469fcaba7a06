/* oneDNN's matrix product, which ours is measured against; the only door to that library. */
#ifndef XKD_BACKEND_CPU_ONEDNN_H
#define XKD_BACKEND_CPU_ONEDNN_H

#include <stdint.h>

/* c [M,N] = a [M,K] b [K,N], row-major float32, on `threads` threads of oneDNN's own. 0 on success. */
int xkd_onednn_product(int threads, const float *a, const float *b, float *c, int64_t M, int64_t N, int64_t K);

#endif
