/* Measures the rate that everything else is judged by. Both ways of running a product are tried, because
 * which of them wins depends on the machine. */
#include "backend/cpu/rate.h"

#include "backend/backend.h"
#include "backend/cpu/onednn.h"
#include "base/alloc.h"
#include "base/clock.h"

/* Large enough to leave start-up and packing behind, small enough to end soon. */
enum { M = 4096, N = 3072, K = 3072, REPEATS = 5 };

xkd_status xkd_gemm_rate(xkd_context *cx, int threads, xkd_gemm_rates *out)
{
    xkd_status status = XKD_OK;
    xkd_backend *be = NULL;
    float *a = NULL, *b = NULL, *c = NULL;
    double best[2] = {1e30, 1e30};
    XKD_TRY(xkd_backend_new(cx, &be, "cpu", XKD_F32, threads));
    XKD_TRY(xkd_alloc(cx, &a, (int64_t)M * K, sizeof *a));
    XKD_TRY(xkd_alloc(cx, &b, (int64_t)K * N, sizeof *b));
    XKD_TRY(xkd_alloc(cx, &c, (int64_t)M * N, sizeof *c));
    /* Plain numbers, so that no denormal or NaN slows the product; the values do not matter otherwise. */
    be->ops->fill(be, a, 0.5, (int64_t)M * K);
    be->ops->fill(be, b, 0.25, (int64_t)K * N);
    for (int i = 0; i < 2 * REPEATS; i++) { /* interleaved, so that a busy moment hits both */
        double start = xkd_now();
        if (i % 2)
            be->ops->linear_forward(be, c, a, b, NULL, M, N, K);
        else if (xkd_onednn_product(threads, a, b, c, M, N, K) != 0)
            continue; /* not built in, or refused: then there is nothing to compare with, and its rate is 0 */
        double seconds = xkd_now() - start;
        if (seconds < best[i % 2]) best[i % 2] = seconds;
    }
    /* 2 operations per multiply-add, divided by the shortest time: disturbances only ever make it longer. */
    *out = (xkd_gemm_rates){.own = 2.0 * M * N * K / best[1], .onednn = best[0] < 1e30 ? 2.0 * M * N * K / best[0] : 0};
fail:
    xkd_free(a);
    xkd_free(b);
    xkd_free(c);
    xkd_backend_free(be);
    return status;
}
