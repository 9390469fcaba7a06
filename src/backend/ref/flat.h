/* Template: flat vectors in plain C. */
#ifndef STORED
#error "included by ref_f32.c, ref_f64.c and ref_bf16.c"
#endif

static void NAME(mse_forward)(xkd_backend *be, double *loss, const void *pred, const void *target, int64_t n)
{
    double sum = 0;
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        double e = AT((const STORED *)pred, i) - AT((const EXACT *)target, i);
        sum += e * e;
    }
    *loss = sum / (double)n;
}

static void NAME(mse_backward)(xkd_backend *be, void *dpred, const void *pred, const void *target, double scale,
                               int64_t n)
{
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        double e = AT((const STORED *)pred, i) - AT((const EXACT *)target, i);
        SET((STORED *)dpred, i, scale * 2 * e / (double)n);
    }
}

/* b = 0 does not read y, which may be uninitialised. */
static void NAME(axpby)(xkd_backend *be, void *y, const void *x, double a, double b, int64_t n)
{
    (void)be;
    for (int64_t i = 0; i < n; i++)
        SET((STORED *)y, i, a * AT((const STORED *)x, i) + (b == 0 ? 0 : b * AT((STORED *)y, i)));
}

static void NAME(fill)(xkd_backend *be, void *x, double value, int64_t n)
{
    (void)be;
    for (int64_t i = 0; i < n; i++) SET((STORED *)x, i, value);
}
