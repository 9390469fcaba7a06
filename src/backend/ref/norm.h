/* Template: normalisation in plain C. */
#ifndef STORED
#error "included by ref_f32.c, ref_f64.c and ref_bf16.c"
#endif

/* Two passes for the variance, biased (divided by D) as in PyTorch. Statistics are rounded to the element
 * type only where they are saved. */
#define DEFINE_LAYERNORM(name, type)                                                                        \
    static void NAME(name)(xkd_backend * be, void *y, void *mean, void *rstd, const void *x, const void *w, \
                           const void *b, int64_t R, int64_t D)                                             \
    {                                                                                                       \
        const EXACT *weight = w, *bias = b;                                                                 \
        (void)be;                                                                                           \
        for (int64_t r = 0; r < R; r++) {                                                                   \
            const type *in = (const type *)x + r * D;                                                       \
            STORED *out = (STORED *)y + r * D;                                                              \
            double sum = 0, squares = 0;                                                                    \
            for (int64_t d = 0; d < D; d++) sum += AT(in, d);                                               \
            double m = sum / (double)D;                                                                     \
            for (int64_t d = 0; d < D; d++) squares += (AT(in, d) - m) * (AT(in, d) - m);                   \
            double s = 1 / sqrt(squares / (double)D + XKD_LAYERNORM_EPS);                                   \
            SET((EXACT *)mean, r, m);                                                                       \
            SET((EXACT *)rstd, r, s);                                                                       \
            for (int64_t d = 0; d < D; d++) {                                                               \
                double n = (AT(in, d) - m) * s;                                                             \
                SET(out, d, weight ? AT(weight, d) * n + AT(bias, d) : n);                                  \
            }                                                                                               \
        }                                                                                                   \
    }
DEFINE_LAYERNORM(layernorm_forward, STORED)
DEFINE_LAYERNORM(exact_layernorm_forward, EXACT)
#undef DEFINE_LAYERNORM

/* With n = (x - mean) rstd and e = dy w:  dx = rstd (e - mean(e) - n mean(e n)).
 * dw and db add up over rows in index order. dx is written after both sums over the row are known, element by
 * element, so it may be dy or the residual. */
static void NAME(layernorm_backward)(xkd_backend *be, const xkd_layernorm_grad *a)
{
    const EXACT *weight = a->w;
    EXACT *dw = a->dw, *db = a->db;
    int64_t D = a->D;
    (void)be;
    for (int64_t r = 0; r < a->R; r++) {
        const STORED *x = (const STORED *)a->x + r * D, *dy = (const STORED *)a->dy + r * D;
        const STORED *residual = a->residual ? (const STORED *)a->residual + r * D : NULL;
        STORED *dx = (STORED *)a->dx + r * D;
        double m = AT((const EXACT *)a->mean, r), s = AT((const EXACT *)a->rstd, r), e_sum = 0, en_sum = 0;
        for (int64_t d = 0; d < D; d++) {
            double n = (AT(x, d) - m) * s, e = AT(dy, d) * (weight ? AT(weight, d) : 1);
            e_sum += e;
            en_sum += e * n;
            if (dw) SET(dw, d, AT(dw, d) + AT(dy, d) * n);
            if (db) SET(db, d, AT(db, d) + AT(dy, d));
        }
        for (int64_t d = 0; d < D; d++) {
            double n = (AT(x, d) - m) * s, e = AT(dy, d) * (weight ? AT(weight, d) : 1);
            double grad = s * (e - e_sum / (double)D - n * en_sum / (double)D);
            SET(dx, d, grad + (residual ? AT(residual, d) : 0));
        }
    }
}

static void NAME(residual_layernorm_forward)(xkd_backend *be, void *y, void *kept, void *mean, void *rstd,
                                             const void *x, const void *w, const void *b, int64_t R, int64_t D)
{
    NAME(exact_layernorm_forward)(be, y, mean, rstd, x, w, b, R, D);
    for (int64_t i = 0; kept && kept != x && i < R * D; i++) SET((STORED *)kept, i, AT((const EXACT *)x, i));
}

/* The bound keeps a zero row from becoming NaN; 1/norm is saved for the backward. */
static void NAME(l2norm_forward)(xkd_backend *be, void *y, void *inv, const void *x, int64_t R, int64_t D)
{
    (void)be;
    for (int64_t r = 0; r < R; r++) {
        const STORED *in = (const STORED *)x + r * D;
        double norm = sqrt(NAME(dot)(in, in, D)), scale = 1 / (norm > XKD_L2NORM_EPS ? norm : XKD_L2NORM_EPS);
        SET((EXACT *)inv, r, scale);
        for (int64_t d = 0; d < D; d++) SET((EXACT *)y, r * D + d, AT(in, d) * scale);
    }
}

/* Projects dy onto the tangent of the unit sphere at y. For rows below the bound this is not the exact
 * derivative, as they are not normalised; they do not occur in training. */
static void NAME(l2norm_backward)(xkd_backend *be, void *dx, const void *dy, const void *y, const void *inv, int64_t R,
                                  int64_t D)
{
    (void)be;
    for (int64_t r = 0; r < R; r++) {
        const EXACT *out = (const EXACT *)y + r * D, *g = (const EXACT *)dy + r * D;
        double along = NAME(exact_dot)(out, g, D), scale = AT((const EXACT *)inv, r);
        for (int64_t d = 0; d < D; d++) SET((STORED *)dx, r * D + d, scale * (AT(g, d) - AT(out, d) * along));
    }
}

/* Rows of v are the K prototypes of the head's last layer. With gain 1 the rows of w are unit vectors. */
static void NAME(weightnorm_forward)(xkd_backend *be, void *w, void *inv, const void *v, const void *g, int64_t K,
                                     int64_t D)
{
    (void)be;
    for (int64_t k = 0; k < K; k++) {
        const EXACT *in = (const EXACT *)v + k * D;
        double scale = 1 / sqrt(NAME(exact_dot)(in, in, D)), gain = (double)((const EXACT *)g)[k];
        ((EXACT *)inv)[k] = (EXACT)scale;
        for (int64_t d = 0; d < D; d++) ((EXACT *)w)[k * D + d] = (EXACT)(gain * scale * (double)in[d]);
    }
}

/* Adds to dv; the component along v is removed because scaling v changes nothing. The gain is frozen and gets
 * no gradient. */
static void NAME(weightnorm_backward)(xkd_backend *be, void *dv, const void *dw, const void *v, const void *g,
                                      const void *inv, int64_t K, int64_t D)
{
    (void)be;
    for (int64_t k = 0; k < K; k++) {
        const EXACT *in = (const EXACT *)v + k * D, *grad = (const EXACT *)dw + k * D;
        double scale = (double)((const EXACT *)inv)[k], gain = (double)((const EXACT *)g)[k];
        double along = NAME(exact_dot)(in, grad, D) * scale;
        for (int64_t d = 0; d < D; d++) {
            double add = gain * scale * ((double)grad[d] - (double)in[d] * scale * along);
            ((EXACT *)dv)[k * D + d] = (EXACT)((double)((EXACT *)dv)[k * D + d] + add);
        }
    }
}
