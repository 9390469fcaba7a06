/* The calls into oneDNN, where it was there at build time. */
#include "backend/cpu/onednn.h"

#include <stddef.h>
#include <stdio.h>

#ifdef XKD_HAVE_ONEDNN
#include <dnnl.h>
#include <omp.h>

/* The thread count is a setting of the calling thread (OpenMP keeps one per thread); it is put back because the caller
 * may be the user's own thread. */
int xkd_onednn_product(int threads, const float *a, const float *b, float *c, int64_t M, int64_t N, int64_t K)
{
    int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    dnnl_status_t status = dnnl_sgemm('N', 'N', M, N, K, 1, a, K, b, N, 0, c, N);
    omp_set_num_threads(before);
    return status != dnnl_success;
}

const char *xkd_onednn_version(char *out, size_t size)
{
    const dnnl_version_t *v = dnnl_version();
    snprintf(out, size, "%d.%d.%d", v->major, v->minor, v->patch);
    return out;
}
#else
int xkd_onednn_product(int threads, const float *a, const float *b, float *c, int64_t M, int64_t N, int64_t K)
{
    (void)threads, (void)a, (void)b, (void)c, (void)M, (void)N, (void)K;
    return 1;
}

const char *xkd_onednn_version(char *out, size_t size)
{
    snprintf(out, size, "not built in: nothing to compare products with");
    return out;
}
#endif
