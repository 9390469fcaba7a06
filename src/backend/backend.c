/* Making and freeing a backend: the table of operations it runs, its threads, and the scratch memory that the
 * operations use while they run. What the operations compute is in ref/ and cpu/. */
#include "backend/backend.h"

#include <string.h>

#include "backend/cuda/cuda.h"
#include "backend/guard/guard.h"
#include "backend/open.h"
#include "base/alloc.h"

/* The names are those of the configuration key run.device. Only ref has float64: it is the yardstick of parity
 * tests, where speed does not matter. An unknown pair is the user's mistake and is told with what exists. */
static xkd_status choose(xkd_context *cx, const char *name, xkd_dtype dtype, const xkd_ops **ops)
{
    *ops = NULL;
    bool known = dtype == XKD_F32 || dtype == XKD_BF16;
    if (strcmp(name, "ref") == 0 && (known || dtype == XKD_F64)) *ops = xkd_ref_ops(dtype);
    if (strcmp(name, "cpu") == 0 && known) return xkd_cpu_ops(cx, ops, dtype);
    if (*ops) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_CONFIG,
                    "run.device=%s: not available for %s: use cpu or cuda (float32, bfloat16), or for checking ref or "
                    "guard (float64 too)",
                    name, xkd_dtype_name(dtype));
}

/* A backend that computes on the host's threads, in the host's memory. */
static xkd_status start_threads(xkd_context *cx, xkd_backend *be, const char *name, int threads)
{
    xkd_status status = XKD_OK;
    be->memory = xkd_host_memory();
    XKD_TRY(choose(cx, name, be->dtype, &be->ops));
    XKD_TRY(choose(cx, name, be->exact_dtype, &be->exact));
    XKD_TRY(xkd_pool_new(cx, &be->pool, threads));
    XKD_TRY(xkd_alloc(cx, &be->scratch, threads + 1, sizeof *be->scratch));
    XKD_TRY(xkd_alloc(cx, &be->scratch_bytes, threads + 1, sizeof *be->scratch_bytes));
fail:
    return status;
}

/* The struct is freed as a whole from any point of failure: xkd_backend_free takes one whose parts do not exist yet. */
xkd_status xkd_backend_new(xkd_context *cx, xkd_backend **out, const char *name, xkd_dtype dtype, int threads)
{
    xkd_status status = XKD_OK;
    xkd_backend *be = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &be, 1, sizeof *be));
    *be =
        (xkd_backend){.cx = cx, .dtype = dtype, .exact_dtype = xkd_exact_dtype(dtype), .element = xkd_widths_of(dtype)};
    if (strcmp(name, "guard") == 0 || strncmp(name, "guard:", 6) == 0)
        XKD_TRY(xkd_guard_new(cx, be, name, threads));
    else if (xkd_cuda_is_named(name))
        XKD_TRY(xkd_cuda_new(cx, be, name));
    else
        XKD_TRY(start_threads(cx, be, name, threads));
    /* Ownership passes to the caller; the clean-up below then frees NULL. */
    *out = be;
    be = NULL;
fail:
    xkd_backend_free(be);
    return status;
}

xkd_status xkd_backend_allow_tf32(xkd_context *cx, xkd_backend *be, const char *name)
{
    if (!be->cuda)
        return xkd_fail(cx, XKD_ERR_CONFIG,
                        "run.precision=tf32: run.device=%s has no such products: take cuda, or float32", name);
    be->tf32 = true;
    return XKD_OK;
}

xkd_status xkd_backend_open(xkd_context *cx, xkd_backend **out, const char *name, const xkd_config *config, int threads)
{
    xkd_status status = xkd_backend_new(cx, out, name, xkd_config_dtype(config), threads);
    if (status == XKD_OK && config->precision == XKD_PRECISION_TF32) status = xkd_backend_allow_tf32(cx, *out, name);
    if (status == XKD_OK) return XKD_OK;
    xkd_backend_free(*out);
    *out = NULL;
    return status;
}

void xkd_backend_free(xkd_backend *be)
{
    if (!be) return;
    int threads = be->pool && be->scratch ? xkd_pool_threads(be->pool) : 0;
    for (int i = 0; be->scratch && i <= threads; i++) xkd_free(be->scratch[i]);
    xkd_free(be->scratch);
    xkd_free(be->scratch_bytes);
    xkd_cuda_free(be);
    if (!be->guard) xkd_pool_free(be->pool);
    xkd_guard_free(be->guard);
    xkd_free(be);
}

/* Read and clear in one call, so that the fault of one step is not reported again for the next. */
xkd_status xkd_backend_status(xkd_backend *be)
{
    xkd_status status = be->status;
    if (be->cuda) return xkd_cuda_status(be);
    if (be->guard) xkd_guard_inspect(be->guard);
    if (be->guard && status == XKD_OK) status = xkd_guard_fault(be->guard);
    be->status = XKD_OK;
    return status;
}

xkd_status xkd_backend_seen(xkd_backend *be)
{
    if (be->guard && be->status == XKD_OK) be->status = xkd_guard_fault(be->guard);
    return be->status;
}

bool xkd_backend_repeat(xkd_backend *be, const void *key, int64_t bytes)
{
    return be->cuda && xkd_cuda_repeat(be, key, bytes);
}

void xkd_backend_repeat_end(xkd_backend *be)
{
    if (be->cuda) xkd_cuda_repeat_end(be);
}

int64_t xkd_backend_asked(const xkd_backend *be)
{
    return be->cuda ? xkd_cuda_asked(be) : 0;
}

int64_t xkd_backend_waited(const xkd_backend *be)
{
    return be->cuda ? xkd_cuda_waited(be) : 0;
}

/* The old content is not kept: no operation relies on scratch of an earlier one, and copying would cost a
 * pass over it. */
void *xkd_backend_scratch(xkd_backend *be, int thread, int64_t bytes)
{
    if (bytes <= be->scratch_bytes[thread]) return be->scratch[thread];
    xkd_free(be->scratch[thread]);
    /* Until the new block exists the size is 0, so a failed allocation is never taken for usable memory. */
    be->scratch_bytes[thread] = 0;
    xkd_status status = xkd_alloc(be->cx, &be->scratch[thread], bytes, 1);
    if (status == XKD_OK)
        be->scratch_bytes[thread] = bytes;
    else
        /* Several tasks may fail at once and they store the same kind of fault, so no order between them is
         * needed. */
        __atomic_store_n(&be->status, status, __ATOMIC_RELAXED);
    return be->scratch[thread];
}

void *xkd_backend_shared_scratch(xkd_backend *be, int64_t bytes)
{
    return xkd_backend_scratch(be, xkd_pool_threads(be->pool), bytes);
}

void xkd_backend_settle(xkd_backend *be)
{
    int64_t largest = 0;
    int threads = xkd_pool_threads(be->pool);
    if (!be->scratch) return;
    for (int i = 0; i < threads; i++)
        if (be->scratch_bytes[i] > largest) largest = be->scratch_bytes[i];
    for (int i = 0; i < threads; i++) xkd_backend_scratch(be, i, largest);
}

int64_t xkd_backend_held(const xkd_backend *be)
{
    int64_t bytes = be->cuda ? xkd_cuda_held(be) : 0;
    for (int i = 0; be->scratch && i < xkd_pool_threads(be->pool); i++) bytes += be->scratch_bytes[i];
    return bytes;
}
