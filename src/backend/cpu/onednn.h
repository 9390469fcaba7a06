/* oneDNN's matrix product, which ours is measured against; the only door to that library, which is optional. */
#ifndef XKD_BACKEND_CPU_ONEDNN_H
#define XKD_BACKEND_CPU_ONEDNN_H

#include <stddef.h>
#include <stdint.h>

/* c [M,N] = a [M,K] b [K,N], row-major float32, on `threads` threads of oneDNN's own. 0 on success, 1 where
 * oneDNN is not built in or refuses. */
int xkd_onednn_product(int threads, const float *a, const float *b, float *c, int64_t M, int64_t N, int64_t K);

/* Version of the library that is loaded, or a word that it is not built in; returns out. */
const char *xkd_onednn_version(char *out, size_t size);

#endif
