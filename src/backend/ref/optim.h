/* Template: optimiser and flat vectors in plain C. */
#ifndef REAL
#error "included by ref_f32.c and ref_f64.c"
#endif

/* The gradient norm of clipping, one tensor at a time. */
static double NAME(sum_squares)(xkd_backend *be, const void *x, int64_t n)
{
    (void)be;
    return NAME(dot)(x, x, n);
}

/* Decoupled weight decay (Loshchilov and Hutter, ICLR 2019) in PyTorch's order of operations. */
static void NAME(adamw)(xkd_backend *be, const xkd_adamw_args *a)
{
    REAL *p = a->p, *m = a->m, *v = a->v;
    const REAL *g = a->g;
    (void)be;
    for (int64_t i = 0; i < a->n; i++) {
        double grad = a->grad_scale * (double)g[i];
        double m1 = a->beta1 * (double)m[i] + (1 - a->beta1) * grad;
        double m2 = a->beta2 * (double)v[i] + (1 - a->beta2) * grad * grad;
        double step = a->lr / a->correction1 * m1 / (sqrt(m2) / sqrt(a->correction2) + a->eps);
        m[i] = (REAL)m1;
        v[i] = (REAL)m2;
        p[i] = (REAL)((double)p[i] * (1 - a->lr * a->weight_decay) - step);
        /* The teachers see the parameter as stored, after rounding to the element type. */
        for (int k = 0; k < 2; k++) {
            REAL *t = a->ema[k];
            if (t) t[i] = (REAL)(a->ema_momentum[k] * (double)t[i] + (1 - a->ema_momentum[k]) * (double)p[i]);
        }
    }
}

static void NAME(ema)(xkd_backend *be, void *t, const void *s, double m, int64_t n)
{
    (void)be;
    for (int64_t i = 0; i < n; i++)
        ((REAL *)t)[i] = (REAL)(m * (double)((REAL *)t)[i] + (1 - m) * (double)((const REAL *)s)[i]);
}

/* b = 0 does not read y, which may be uninitialised. */
static void NAME(axpby)(xkd_backend *be, void *y, const void *x, double a, double b, int64_t n)
{
    (void)be;
    for (int64_t i = 0; i < n; i++)
        ((REAL *)y)[i] = (REAL)(a * (double)((const REAL *)x)[i] + (b == 0 ? 0 : b * (double)((REAL *)y)[i]));
}

static void NAME(fill)(xkd_backend *be, void *x, double value, int64_t n)
{
    (void)be;
    for (int64_t i = 0; i < n; i++) ((REAL *)x)[i] = (REAL)value;
}
