/* The call into oneDNN. Its thread count is a setting of the calling thread (OpenMP keeps one per thread); it is put
 * back because the caller may be the user's own thread. */
#include "backend/cpu/onednn.h"

#include <dnnl.h>
#include <omp.h>

int xkd_onednn_product(int threads, const float *a, const float *b, float *c, int64_t M, int64_t N, int64_t K)
{
    int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    dnnl_status_t status = dnnl_sgemm('N', 'N', M, N, K, 1, a, K, b, N, 0, c, N);
    omp_set_num_threads(before);
    return status != dnnl_success;
}
