/* Template: the optimiser in plain C. */
#ifndef STORED
#error "included by ref_f32.c, ref_f64.c and ref_bf16.c"
#endif

/* The gradient norms of clipping, one tensor at a time. A square that overflows double counts as not finite. */
static void NAME(norms)(xkd_backend *be, double *squares, double *finite, const xkd_vector *list, int64_t count,
                        const double *scalars, int64_t n)
{
    (void)be;
    *finite = 1;
    for (int64_t i = 0; i < count; i++) {
        squares[i] = list[i].x ? NAME(exact_dot)(list[i].x, list[i].x, list[i].n) : 0;
        if (!isfinite(squares[i])) *finite = 0;
    }
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(scalars[i])) *finite = 0;
}

/* Teachers see the parameter as stored, after rounding to the element type. */
static void NAME(average)(const xkd_adamw_args *a, int64_t i)
{
    for (int k = 0; k < 2; k++) {
        EXACT *t = a->ema[k];
        if (!t) continue;
        double momentum = *a->ema_momentum[k];
        double mean = momentum * (double)t[i] + (1 - momentum) * (double)((const EXACT *)a->p)[i];
        t[i] = (EXACT)mean;
        if (a->ema_stored[k]) ((uint16_t *)a->ema_stored[k])[i] = xkd_to_bfloat16((float)t[i]);
    }
}

/* Decoupled weight decay (Loshchilov and Hutter, ICLR 2019) in PyTorch's order of operations. */
static void NAME(adamw_tensor)(const xkd_adamw_args *a, double scale)
{
    EXACT *p = a->p, *m = a->m, *v = a->v;
    const EXACT *g = a->g;
    double lr = a->lr_scale * *a->lr, weight_decay = a->weight_decay ? *a->weight_decay : 0;
    double correction1 = 1 - pow(a->beta1, ++*a->steps), correction2 = 1 - pow(a->beta2, *a->steps);
    for (int64_t i = 0; i < a->n; i++) {
        double grad = scale * (double)g[i];
        double m1 = a->beta1 * (double)m[i] + (1 - a->beta1) * grad;
        double m2 = a->beta2 * (double)v[i] + (1 - a->beta2) * grad * grad;
        double step = lr / correction1 * m1 / (sqrt(m2) / sqrt(correction2) + a->eps);
        m[i] = (EXACT)m1;
        v[i] = (EXACT)m2;
        p[i] = (EXACT)((double)p[i] * (1 - lr * weight_decay) - step);
        if (a->stored) ((uint16_t *)a->stored)[i] = xkd_to_bfloat16((float)p[i]);
        NAME(average)(a, i);
    }
}

static void NAME(adamw)(xkd_backend *be, const xkd_adamw_args *list, int64_t count, const double *squares,
                        const double *finite)
{
    (void)be;
    if (*finite == 0) return;
    for (int64_t i = 0; i < count; i++) {
        if (list[i].g)
            NAME(adamw_tensor)(&list[i], list[i].clip > 0 ? xkd_clip_factor(list[i].clip, squares[i]) : 1);
        else
            for (int64_t k = 0; k < list[i].n; k++) NAME(average)(&list[i], k);
    }
}

/* Sums of all micro-batches, so accumulation does not change the result. */
static void NAME(centre)(xkd_backend *be, void *centre, const void *sum, double m, int64_t rows, int64_t K,
                         const double *finite)
{
    EXACT *c = centre;
    (void)be;
    if (*finite == 0) return;
    for (int64_t k = 0; k < K; k++)
        c[k] = (EXACT)((1 - m) / (double)rows * (double)((const EXACT *)sum)[k] + (m == 0 ? 0 : m * (double)c[k]));
}

static void NAME(multiply)(xkd_backend *be, void *y, const void *x, const float *factor, int64_t n)
{
    (void)be;
    for (int64_t i = 0; i < n; i++) ((EXACT *)y)[i] = (EXACT)((double)((const EXACT *)x)[i] * (double)factor[i]);
}

static void NAME(to_double)(xkd_backend *be, double *y, const void *x, int64_t n)
{
    (void)be;
    for (int64_t i = 0; i < n; i++) y[i] = (double)((const EXACT *)x)[i];
}

static void NAME(from_double)(xkd_backend *be, void *y, const double *x, int64_t n)
{
    (void)be;
    for (int64_t i = 0; i < n; i++) ((EXACT *)y)[i] = (EXACT)x[i];
}
