/* The calls into oneDNN. Its thread count is a setting of the calling thread (OpenMP keeps one per thread),
 * so a pool thread that lowers it to 1 changes nothing for others; it is put back because the caller may be
 * the user's own thread. */
#include "backend/cpu/gemm.h"

#include <dnnl.h>
#include <omp.h>

/* dnnl_sgemm is row-major and knows transposition by letter; the leading dimensions are those of the stored
 * matrix. */
int xkd_gemm_run(const xkd_gemm *g)
{
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    dnnl_status_t status = dnnl_sgemm(g->transpose_a ? 'T' : 'N', g->transpose_b ? 'T' : 'N', g->M, g->N, g->K,
                                      g->alpha, g->a, g->lda, g->b, g->ldb, g->beta, g->c, g->ldc);
    omp_set_num_threads(threads);
    return status != dnnl_success;
}

int xkd_gemm_threaded(int threads, const float *a, const float *b, float *c, int64_t M, int64_t N, int64_t K)
{
    int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    dnnl_status_t status = dnnl_sgemm('N', 'N', M, N, K, 1, a, K, b, N, 0, c, N);
    omp_set_num_threads(before);
    return status != dnnl_success;
}
