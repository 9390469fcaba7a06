/* Template: what moves, fills, interpolates and pools tokens, in plain C. */
#ifndef STORED
#error "included by ref_f32.c, ref_f64.c and ref_bf16.c"
#endif

/* Reads scattered pixels and writes patches in order. Masked views embed only what is kept, so the work
 * shrinks with M. */
static void NAME(patchify)(xkd_backend *be, void *out, const float *clip, const int32_t *keep, int64_t M,
                           const xkd_patch_geometry *g)
{
    int64_t nh = g->H / g->ph, nw = g->W / g->pw, P = xkd_patch_length(g);
    STORED *to = out;
    (void)be;
    for (int64_t b = 0; b < g->B; b++)
        for (int64_t m = 0; m < M; m++, to += P) {
            int64_t token = keep ? keep[b * M + m] : m, p = 0;
            /* Upper left front corner of the patch in the clip, in pixels. */
            int64_t t0 = token / (nh * nw) * g->pt, h0 = token / nw % nh * g->ph, w0 = token % nw * g->pw;
            for (int64_t t = 0; t < g->pt; t++)
                for (int64_t h = 0; h < g->ph; h++)
                    for (int64_t w = 0; w < g->pw; w++)
                        for (int64_t c = 0; c < g->C; c++)
                            SET(to, p++, clip[(((b * g->C + c) * g->T + t0 + t) * g->H + h0 + h) * g->W + w0 + w]);
        }
}

/* Tables are indexed by the token's place in the grid, not by its place among the kept ones: c + keep[b][m]. */
static void NAME(add_positions)(xkd_backend *be, void *x, const void *e, const void *cls, const void *pos,
                                const int32_t *keep, int64_t B, int64_t M, int64_t D)
{
    const STORED *token = e;
    const EXACT *first = cls, *table = pos;
    int64_t c = cls ? 1 : 0;
    EXACT *out = x;
    (void)be;
    for (int64_t b = 0; b < B; b++) {
        if (c)
            for (int64_t d = 0; d < D; d++) SET(out++, 0, AT(first, d) + AT(table, d));
        for (int64_t m = 0; m < M; m++) {
            const EXACT *row = table + (c + (keep ? keep[b * M + m] : m)) * D;
            for (int64_t d = 0; d < D; d++) SET(out++, 0, AT(token++, 0) + AT(row, d));
        }
    }
}

/* Gradients of shared rows add in the exact type, in the order of samples. */
static void NAME(add_row)(EXACT *to, const STORED *from, int64_t D)
{
    for (int64_t d = 0; d < D; d++) SET(to, d, AT(to, d) + AT(from, d));
}

/* The class token and row 0 of the table meet in one sum, so both get the same gradient. */
static void NAME(add_positions_backward)(xkd_backend *be, void *de, void *dcls, void *dpos, const void *dx,
                                         const int32_t *keep, int64_t B, int64_t M, int64_t D)
{
    int64_t c = dcls ? 1 : 0;
    const STORED *grad = dx;
    EXACT *table = dpos;
    STORED *token = de;
    (void)be;
    for (int64_t b = 0; b < B; b++) {
        if (c) {
            NAME(add_row)(dcls, grad, D);
            NAME(add_row)(table, grad, D);
            grad += D;
        }
        for (int64_t m = 0; m < M; m++, grad += D, token += D) {
            memcpy(token, grad, (size_t)D * sizeof(STORED));
            NAME(add_row)(table + (c + (keep ? keep[b * M + m] : m)) * D, grad, D);
        }
    }
}

/* n = -1 stands for the class token's row, so that one loop covers both layouts. rank is the inverse of
 * `keep`. */
static void NAME(unmask_forward)(xkd_backend *be, void *x, const void *z, const void *mask_token, const void *pos,
                                 const xkd_unmask_args *a)
{
    int64_t c = a->cls ? 1 : 0, D = a->D;
    const EXACT *mask = mask_token;
    EXACT *out = x;
    (void)be;
    for (int64_t b = 0; b < a->B; b++)
        for (int64_t n = -c; n < a->N; n++, out += D) {
            const EXACT *row = (const EXACT *)pos + (c + n) * D;
            int64_t kept = n < 0 ? -c : a->rank[b * a->N + n];
            bool masked = n >= 0 && kept < 0;
            const STORED *from = (const STORED *)z + (b * (a->M + c) + c + (masked ? 0 : kept)) * D;
            for (int64_t d = 0; d < D; d++) SET(out, d, (masked ? AT(mask, d) : AT(from, d)) + AT(row, d));
        }
}

/* Rows of masked tokens go to the one mask token, all others straight back to z; every row of dz is written
 * exactly once, so it needs no clearing. */
static void NAME(unmask_backward)(xkd_backend *be, void *dz, void *dmask, void *dpos, const void *dx,
                                  const xkd_unmask_args *a)
{
    int64_t c = a->cls ? 1 : 0, D = a->D;
    const STORED *grad = dx;
    (void)be;
    for (int64_t b = 0; b < a->B; b++)
        for (int64_t n = -c; n < a->N; n++, grad += D) {
            NAME(add_row)((EXACT *)dpos + (c + n) * D, grad, D);
            int64_t kept = n < 0 ? -1 : a->rank[b * a->N + n];
            if (n >= 0 && kept < 0)
                NAME(add_row)(dmask, grad, D);
            else
                memcpy((STORED *)dz + (b * (a->M + c) + (n < 0 ? 0 : c + kept)) * D, grad, (size_t)D * sizeof(STORED));
        }
}

static void NAME(gather_rows)(xkd_backend *be, void *out, const void *in, const int32_t *index, int64_t n, int64_t D)
{
    (void)be;
    for (int64_t i = 0; i < n * D; i++) SET((STORED *)out, i, AT((const EXACT *)in, index[i / D] * D + i % D));
}

/* Indices are distinct, so storing is enough and nothing is added. */
static void NAME(scatter_rows)(xkd_backend *be, void *din, const void *dout, const int32_t *index, int64_t n,
                               int64_t rows, int64_t D)
{
    (void)be;
    memset(din, 0, (size_t)(rows * D) * sizeof(STORED));
    for (int64_t i = 0; i < n; i++)
        memcpy((STORED *)din + index[i] * D, (const STORED *)dout + i * D, (size_t)D * sizeof(STORED));
}

/* Serial over rows; a row has at most 8 taps (trilinear) and is summed in double. */
static void NAME(sparse_rows)(xkd_backend *be, void *out, const void *in, const xkd_sparse_rows *s, int64_t D,
                              bool accumulate)
{
    (void)be;
    for (int64_t r = 0; r < s->rows_out; r++)
        for (int64_t d = 0; d < D; d++) {
            STORED *to = (STORED *)out + r * D + d;
            double sum = accumulate ? AT(to, 0) : 0;
            for (int32_t k = s->start[r]; k < s->start[r + 1]; k++)
                sum += s->weight[k] * AT((const STORED *)in, s->index[k] * D + d);
            SET(to, 0, sum);
        }
}

/* skip leaves out the class token: the head sees the mean of the patches alone. */
static void NAME(pool_forward)(xkd_backend *be, void *y, const void *x, int64_t B, int64_t tokens, int64_t D,
                               int64_t first, int64_t last)
{
    (void)be;
    for (int64_t b = 0; b < B; b++)
        for (int64_t d = 0; d < D; d++) {
            double sum = 0;
            for (int64_t n = first; n < last; n++) sum += AT((const STORED *)x, (b * tokens + n) * D + d);
            SET((EXACT *)y, b * D + d, sum / (double)(last - first));
        }
}

static void NAME(pool_backward)(xkd_backend *be, void *dx, const void *dy, int64_t B, int64_t tokens, int64_t D,
                                int64_t first, int64_t last)
{
    double share = 1 / (double)(last - first);
    (void)be;
    for (int64_t b = 0; b < B; b++)
        for (int64_t n = first; n < last; n++)
            for (int64_t d = 0; d < D; d++) {
                STORED *to = (STORED *)dx + (b * tokens + n) * D + d;
                SET(to, 0, AT(to, 0) + share * AT((const EXACT *)dy, b * D + d));
            }
}

/* Segment by segment, sequence by sequence; a factor is one float for all tokens of a sequence. */
static void NAME(scale_sequences)(xkd_backend *be, void *y, const void *x, const float *factor,
                                  const xkd_segments *segs, int64_t D)
{
    const STORED *in = x;
    STORED *out = y;
    (void)be;
    for (int64_t s = 0; s < segs->count; s++)
        for (int64_t b = 0; b < segs->items[s].batch; b++, factor++)
            for (int64_t i = 0; i < segs->items[s].tokens * D; i++) SET(out++, 0, (double)*factor * AT(in++, 0));
}

/* The sum and the product are rounded before they are added, as where they are tensors of their own. */
static void NAME(add_sequences)(xkd_backend *be, void *y, const void *x, const void *b, const float *factor,
                                const xkd_segments *segs, int64_t D)
{
    const STORED *in = x;
    const EXACT *bias = b;
    EXACT *out = y;
    (void)be;
    for (int64_t s = 0; s < segs->count; s++)
        for (int64_t q = 0; q < segs->items[s].batch; q++, factor++)
            for (int64_t i = 0; i < segs->items[s].tokens * D; i++, in++, out++) {
                EXACT sum = (EXACT)(AT(in, 0) + AT(bias, i % D)), scaled = (EXACT)((double)*factor * (double)sum);
                SET(out, 0, AT(out, 0) + (double)scaled);
            }
}

/* weight [N]: head average of av_i mean(aa) / mean(av), or of softmax_i(av_i mean(aa)); the outer product
 * av_i * aa_j is never formed because its row means factor. */
static void NAME(refine_weights)(double *weight, const EXACT *self, const EXACT *other, const xkd_refine_args *a)
{
    for (int64_t i = 0; i < a->N; i++) weight[i] = 0;
    for (int64_t h = 0; h < a->H; h++) {
        const EXACT *av = self + h * a->N, *aa = other + h * a->M;
        double self_mean = 0, other_mean = 0, total = 0, largest = -INFINITY;
        for (int64_t i = 0; i < a->N; i++) self_mean += (double)av[i] / (double)a->N;
        for (int64_t j = 0; j < a->M; j++) other_mean += (double)aa[j] / (double)a->M;
        for (int64_t i = 0; i < a->N; i++) largest = fmax(largest, (double)av[i] * other_mean);
        for (int64_t i = 0; i < a->N; i++) total += exp((double)av[i] * other_mean - largest);
        for (int64_t i = 0; i < a->N; i++) {
            double x = (double)av[i] * other_mean;
            weight[i] += (a->softmax ? exp(x - largest) / total : x / self_mean) / (double)a->H;
        }
    }
}

/* Features and attention of sample b; weighted and plain means run side by side, because the scale that keeps
 * the energy needs both. Scratch: N weights, 2D sums. */
static void NAME(refine_pool)(xkd_backend *be, void *y, const xkd_refine_args *a)
{
    double *weight = xkd_backend_scratch(be, 0, (a->N + 2 * a->D) * (int64_t)sizeof(double));
    if (!weight) return;
    double *plain = weight + a->N, *refined = plain + a->D;
    for (int64_t b = 0; b < a->B; b++) {
        const STORED *f = (const STORED *)a->features + (b * a->tokens + a->tokens - a->N) * a->D;
        double plain_energy = 0, refined_energy = 0;
        NAME(refine_weights)
        (weight, (const EXACT *)a->self_attn + b * a->H * a->N, (const EXACT *)a->other_attn + b * a->H * a->M, a);
        for (int64_t d = 0; d < 2 * a->D; d++) plain[d] = 0;
        for (int64_t i = 0; i < a->N; i++)
            for (int64_t d = 0; d < a->D; d++) {
                plain[d] += AT(f, i * a->D + d) / (double)a->N;
                refined[d] += weight[i] * AT(f, i * a->D + d) / (double)a->N;
            }
        for (int64_t d = 0; d < a->D; d++) {
            plain_energy += plain[d] * plain[d];
            refined_energy += refined[d] * refined[d];
        }
        /* 0 only if the weighted features cancel exactly, which those of real clips do not. */
        double s = sqrt(plain_energy / refined_energy);
        for (int64_t d = 0; d < a->D; d++) SET((EXACT *)y, b * a->D + d, s * refined[d]);
    }
}
