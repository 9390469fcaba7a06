/* Single-threaded float32 matrix product; the only door to oneDNN. */
#ifndef XKD_BACKEND_CPU_GEMM_H
#define XKD_BACKEND_CPU_GEMM_H

#include <stdbool.h>
#include <stdint.h>

/* Row-major: c [M,N] = alpha * op(a) op(b) + beta * c, ld* are row strides. a is [M,K], with transpose_a [K,M];
 * b is [K,N], with transpose_b [N,K]. Runs on the calling thread alone: oneDNN splits K over threads where the output
 * is small, and results would then depend on their number. 0 on success. */
typedef struct {
    bool transpose_a, transpose_b;
    int64_t M, N, K;
    float alpha, beta;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
} xkd_gemm;

int xkd_gemm_run(const xkd_gemm *g);

/* c [M,N] = a [M,K] b [K,N] with oneDNN's own threads; only to measure what it reaches. 0 on success. */
int xkd_gemm_threaded(int threads, const float *a, const float *b, float *c, int64_t M, int64_t N, int64_t K);

#endif
