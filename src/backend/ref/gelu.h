/* Template: the activation in plain C. */
#ifndef STORED
#error "included by ref_f32.c, ref_f64.c and ref_bf16.c"
#endif

/* x Phi(x) with Phi through erf: exact, as in the released networks. */
static void NAME(gelu_forward)(xkd_backend *be, void *y, const void *x, int64_t n)
{
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        double v = AT((const STORED *)x, i);
        SET((STORED *)y, i, 0.5 * v * (1 + erf(v * M_SQRT1_2)));
    }
}

/* dx may be dy: an element is read before its place is written. */
static void NAME(gelu_backward)(xkd_backend *be, void *dx, const void *dy, const void *x, int64_t n)
{
    const double inverse_sqrt_2pi = 0.3989422804014326779;
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        double v = AT((const STORED *)x, i), cdf = 0.5 * (1 + erf(v * M_SQRT1_2));
        double slope = cdf + v * inverse_sqrt_2pi * exp(-0.5 * v * v);
        SET((STORED *)dx, i, AT((const STORED *)dy, i) * slope);
    }
}
