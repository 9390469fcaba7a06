/* Running statistics of batch norm, as torch.nn.BatchNorm1d has them: they move by `momentum` towards the mean and the unbiased
 * variance of each batch, from wherever they are, and a file is judged by them. Numbers worked out by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "absent_device.h"
#include "backend/backend.h"
#include "base/memory.h"

enum { ROWS = 2, WIDTH = 2 };

typedef struct {
    xkd_backend *be;
    float *x, *w, *b, *y; /* [ROWS,WIDTH], [WIDTH], [WIDTH], [ROWS,WIDTH]; the device's, as the rest */
    double *mean, *inv, *running[2];
} room;

static void *take(room *r, xkd_context *cx, int64_t bytes)
{
    void *block;
    if (xkd_memory_take(cx, r->be->memory, &block, bytes) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    return block;
}

static void see_batch(room *r, const xkd_batchnorm_args *a, const float x[ROWS * WIDTH])
{
    xkd_memory_upload(r->be->memory, r->x, x, ROWS * WIDTH * (int64_t)sizeof *x);
    r->be->exact->batchnorm_forward(r->be, r->y, a);
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-6 * fmax(1, fabs(want)))) fail_msg("%.9g, expected %.9g", got, want);
}

static void two_batches(void **state)
{
    const char *device = *state;
    static const float first[] = {1, -4, 3, -8}, second[] = {5, 0, 9, 2}, probe[] = {0.88F, 1, 2.88F, 3};
    static const float weight[] = {2, 1}, bias[] = {0.5F, -1};
    static const double zero[WIDTH] = {0, 0}, one[WIDTH] = {1, 1};
    /* Column 0 has means 2 and 7, variances 2 and 8; column 1 means -6 and 1, variances 8 and 2. */
    static const double mean[] = {0.1 * 2 * 0.9 + 0.1 * 7, 0.1 * -6 * 0.9 + 0.1 * 1};
    static const double variance[] = {(0.9 + 0.1 * 2) * 0.9 + 0.1 * 8, (0.9 + 0.1 * 8) * 0.9 + 0.1 * 2};
    double running[2][WIDTH];
    float y[ROWS * WIDTH];
    room r = {0};
    xkd_context *cx = xkd_context_new();
    if (xkd_backend_new(cx, &r.be, device, XKD_F32, 1) != XKD_OK) {
        if (!may_be_absent(device)) fail_msg("%s", xkd_last_error(cx));
        xkd_context_free(cx);
        skip();
    }
    xkd_memory *m = r.be->memory;
    r.x = take(&r, cx, sizeof y);
    r.y = take(&r, cx, sizeof y);
    r.w = take(&r, cx, sizeof weight);
    r.b = take(&r, cx, sizeof bias);
    r.mean = take(&r, cx, sizeof zero);
    r.inv = take(&r, cx, sizeof zero);
    for (int k = 0; k < 2; k++) r.running[k] = take(&r, cx, sizeof zero);
    xkd_memory_upload(m, r.w, weight, sizeof weight);
    xkd_memory_upload(m, r.b, bias, sizeof bias);
    xkd_memory_upload(m, r.running[0], zero, sizeof zero);
    xkd_memory_upload(m, r.running[1], one, sizeof one);
    const xkd_batchnorm_args a = {r.x, r.w, r.b, r.mean, r.inv, {r.running[0], r.running[1]}, 1e-5, 0.1, ROWS, WIDTH};
    see_batch(&r, &a, first);
    see_batch(&r, &a, second);
    for (int k = 0; k < 2; k++) xkd_memory_download(m, running[k], r.running[k], sizeof zero);
    for (int d = 0; d < WIDTH; d++) {
        near(running[0][d], mean[d]);
        near(running[1][d], variance[d]);
    }
    xkd_memory_upload(m, r.x, probe, sizeof probe);
    r.be->exact->batchnorm_apply(r.be, r.y, &a);
    xkd_memory_download(m, y, r.y, sizeof y);
    for (int i = 0; i < ROWS * WIDTH; i++) {
        int d = i % WIDTH;
        near(y[i], (probe[i] - mean[d]) / sqrt(variance[d] + 1e-5) * weight[d] + bias[d]);
    }
    assert_int_equal(xkd_backend_status(r.be), XKD_OK);
    void *const blocks[] = {r.x, r.y, r.w, r.b, r.mean, r.inv, r.running[0], r.running[1]};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) xkd_memory_give(m, blocks[i]);
    xkd_backend_free(r.be);
    xkd_context_free(cx);
}

#define ON(device)                                                                                \
    {                                                                                             \
        "running statistics of two batches on " device, two_batches, NULL, NULL, (void *)(device) \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {ON("ref"), ON("cpu"), ON("guard"), ON("cuda-sim"), ON("cuda")};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
