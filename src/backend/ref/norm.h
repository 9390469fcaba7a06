/* Template: normalisation and activation in plain C. */
#ifndef REAL
#error "included by ref_f32.c and ref_f64.c"
#endif

/* Two passes for the variance, biased (divided by D) as in PyTorch. Statistics are rounded to the element
 * type only where they are saved. */
static void NAME(layernorm_forward)(xkd_backend *be, void *y, void *mean, void *rstd, const void *x, const void *w,
                                    const void *b, int64_t R, int64_t D)
{
    const REAL *weight = w, *bias = b;
    (void)be;
    for (int64_t r = 0; r < R; r++) {
        const REAL *in = (const REAL *)x + r * D;
        REAL *out = (REAL *)y + r * D;
        double sum = 0, squares = 0;
        for (int64_t d = 0; d < D; d++) sum += (double)in[d];
        double m = sum / (double)D;
        for (int64_t d = 0; d < D; d++) squares += ((double)in[d] - m) * ((double)in[d] - m);
        double s = 1 / sqrt(squares / (double)D + XKD_LAYERNORM_EPS);
        ((REAL *)mean)[r] = (REAL)m;
        ((REAL *)rstd)[r] = (REAL)s;
        for (int64_t d = 0; d < D; d++) {
            double n = ((double)in[d] - m) * s;
            out[d] = (REAL)(weight ? n * (double)weight[d] + (double)bias[d] : n);
        }
    }
}

/* With n = (x - mean) rstd and e = dy w:  dx = rstd (e - mean(e) - n mean(e n)).
 * dw and db add up over rows in index order. dx is written after both sums over the row are known, element by
 * element, so it may be dy or the residual. */
static void NAME(layernorm_backward)(xkd_backend *be, const xkd_layernorm_grad *a)
{
    const REAL *weight = a->w;
    REAL *dw = a->dw, *db = a->db;
    int64_t D = a->D;
    (void)be;
    for (int64_t r = 0; r < a->R; r++) {
        const REAL *x = (const REAL *)a->x + r * D, *dy = (const REAL *)a->dy + r * D;
        const REAL *residual = a->residual ? (const REAL *)a->residual + r * D : NULL;
        REAL *dx = (REAL *)a->dx + r * D;
        double m = (double)((const REAL *)a->mean)[r], s = (double)((const REAL *)a->rstd)[r], e_sum = 0, en_sum = 0;
        for (int64_t d = 0; d < D; d++) {
            double n = ((double)x[d] - m) * s, e = (double)dy[d] * (weight ? (double)weight[d] : 1);
            e_sum += e;
            en_sum += e * n;
            if (dw) dw[d] = (REAL)((double)dw[d] + (double)dy[d] * n);
            if (db) db[d] = (REAL)((double)db[d] + (double)dy[d]);
        }
        for (int64_t d = 0; d < D; d++) {
            double n = ((double)x[d] - m) * s, e = (double)dy[d] * (weight ? (double)weight[d] : 1);
            double grad = s * (e - e_sum / (double)D - n * en_sum / (double)D);
            dx[d] = (REAL)(grad + (residual ? (double)residual[d] : 0));
        }
    }
}

/* x Phi(x) with Phi through erf: exact, as in the released networks. */
static void NAME(gelu_forward)(xkd_backend *be, void *y, const void *x, int64_t n)
{
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        double v = (double)((const REAL *)x)[i];
        ((REAL *)y)[i] = (REAL)(0.5 * v * (1 + erf(v * M_SQRT1_2)));
    }
}

/* dx may be dy: an element is read before its place is written. */
static void NAME(gelu_backward)(xkd_backend *be, void *dx, const void *dy, const void *x, int64_t n)
{
    const double inverse_sqrt_2pi = 0.3989422804014326779;
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        double v = (double)((const REAL *)x)[i], cdf = 0.5 * (1 + erf(v * M_SQRT1_2));
        double slope = cdf + v * inverse_sqrt_2pi * exp(-0.5 * v * v);
        ((REAL *)dx)[i] = (REAL)((double)((const REAL *)dy)[i] * slope);
    }
}

/* The bound keeps a zero row from becoming NaN; 1/norm is saved for the backward. */
static void NAME(l2norm_forward)(xkd_backend *be, void *y, void *inv, const void *x, int64_t R, int64_t D)
{
    (void)be;
    for (int64_t r = 0; r < R; r++) {
        const REAL *in = (const REAL *)x + r * D;
        double norm = sqrt(NAME(dot)(in, in, D)), scale = 1 / (norm > XKD_L2NORM_EPS ? norm : XKD_L2NORM_EPS);
        ((REAL *)inv)[r] = (REAL)scale;
        for (int64_t d = 0; d < D; d++) ((REAL *)y)[r * D + d] = (REAL)((double)in[d] * scale);
    }
}

/* Projects dy onto the tangent of the unit sphere at y. For rows below the bound this is not the exact
 * derivative, as they are not normalised; they do not occur in training. */
static void NAME(l2norm_backward)(xkd_backend *be, void *dx, const void *dy, const void *y, const void *inv, int64_t R,
                                  int64_t D)
{
    (void)be;
    for (int64_t r = 0; r < R; r++) {
        const REAL *out = (const REAL *)y + r * D, *g = (const REAL *)dy + r * D;
        double along = NAME(dot)(out, g, D), scale = (double)((const REAL *)inv)[r];
        for (int64_t d = 0; d < D; d++)
            ((REAL *)dx)[r * D + d] = (REAL)(scale * ((double)g[d] - (double)out[d] * along));
    }
}

/* Rows of v are the K prototypes of the head's last layer. With gain 1 the rows of w are unit vectors. */
static void NAME(weightnorm_forward)(xkd_backend *be, void *w, void *inv, const void *v, const void *g, int64_t K,
                                     int64_t D)
{
    (void)be;
    for (int64_t k = 0; k < K; k++) {
        const REAL *in = (const REAL *)v + k * D;
        double scale = 1 / sqrt(NAME(dot)(in, in, D)), gain = (double)((const REAL *)g)[k];
        ((REAL *)inv)[k] = (REAL)scale;
        for (int64_t d = 0; d < D; d++) ((REAL *)w)[k * D + d] = (REAL)(gain * scale * (double)in[d]);
    }
}

/* Adds to dv; the component along v is removed because scaling v changes nothing. The gain is frozen and gets
 * no gradient. */
static void NAME(weightnorm_backward)(xkd_backend *be, void *dv, const void *dw, const void *v, const void *g,
                                      const void *inv, int64_t K, int64_t D)
{
    (void)be;
    for (int64_t k = 0; k < K; k++) {
        const REAL *in = (const REAL *)v + k * D, *grad = (const REAL *)dw + k * D;
        double scale = (double)((const REAL *)inv)[k], gain = (double)((const REAL *)g)[k];
        double along = NAME(dot)(in, grad, D) * scale;
        for (int64_t d = 0; d < D; d++) {
            double add = gain * scale * ((double)grad[d] - (double)in[d] * scale * along);
            ((REAL *)dv)[k * D + d] = (REAL)((double)((REAL *)dv)[k * D + d] + add);
        }
    }
}
