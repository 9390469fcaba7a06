/* Template: attention in plain C, one (sequence, head) at a time. */
#ifndef REAL
#error "included by ref_f32.c and ref_f64.c"
#endif

/* Arguments of one call; each task handles one head of one sequence. */
typedef struct {
    xkd_backend *be;
    REAL *o, *lse, *dqkv;                        /* outputs */
    const REAL *qkv, *d_o, *saved_o, *saved_lse; /* [R,3D]; [R,D]; [R,D]; [R,H] */
    const xkd_segments *segs;
    int64_t H, D; /* heads, width */
} NAME(attention);

/* The sequence that item belongs to: its first row and number of tokens. Items count sequences over all segments. */
static int64_t NAME(find_sequence)(const xkd_segments *segs, int64_t item, int64_t *tokens)
{
    int64_t row = 0, s = 0;
    while (item >= segs->items[s].batch) {
        item -= segs->items[s].batch;
        row += segs->items[s].batch * segs->items[s].tokens;
        s++;
    }
    *tokens = segs->items[s].tokens;
    return row + item * *tokens;
}

/* Sequences of all segments; times H it is the number of tasks. */
static int64_t NAME(count_sequences)(const xkd_segments *segs)
{
    int64_t n = 0;
    for (int64_t s = 0; s < segs->count; s++) n += segs->items[s].batch;
    return n;
}

/* Multiply-adds of `per_pair` products over all pairs of tokens; added to the account and returned. */
static int64_t NAME(count_products)(xkd_backend *be, const xkd_segments *segs, int64_t D, int64_t per_pair)
{
    int64_t work = 0;
    for (int64_t s = 0; s < segs->count; s++)
        work += per_pair * segs->items[s].batch * segs->items[s].tokens * segs->items[s].tokens * D;
    be->products += work;
    return work;
}

/* Two passes over the scores of a query: the largest first, then the weights from the log-sum-exp, which is
 * kept for the backward. Scratch: N scores and d sums, in double for either element type. */
static void NAME(attention_head)(void *arg, int64_t item, int thread)
{
    const NAME(attention) *a = arg;
    int64_t N, row = NAME(find_sequence)(a->segs, item / a->H, &N), h = item % a->H, D = a->D, d = D / a->H;
    double scale = 1 / sqrt((double)d), *p = xkd_backend_scratch(a->be, thread, (N + d) * (int64_t)sizeof(double));
    if (!p) return;
    double *sum = p + N;
    for (int64_t i = 0; i < N; i++) {
        const REAL *q = a->qkv + (row + i) * 3 * D + h * d;
        double largest = -INFINITY, total = 0;
        for (int64_t j = 0; j < N; j++) {
            p[j] = scale * NAME(dot)(q, a->qkv + (row + j) * 3 * D + D + h * d, d);
            if (p[j] > largest) largest = p[j];
        }
        for (int64_t j = 0; j < N; j++) total += exp(p[j] - largest);
        double lse = largest + log(total);
        a->lse[(row + i) * a->H + h] = (REAL)lse;
        for (int64_t k = 0; k < d; k++) sum[k] = 0;
        for (int64_t j = 0; j < N; j++) {
            double w = exp(p[j] - lse);
            const REAL *v = a->qkv + (row + j) * 3 * D + 2 * D + h * d;
            for (int64_t k = 0; k < d; k++) sum[k] += w * (double)v[k];
        }
        for (int64_t k = 0; k < d; k++) a->o[(row + i) * D + h * d + k] = (REAL)sum[k];
    }
}

static void NAME(attention_forward)(xkd_backend *be, void *o, void *lse, const void *qkv, const xkd_segments *segs,
                                    int64_t H, int64_t D)
{
    NAME(attention) a = {.be = be, .o = o, .lse = lse, .qkv = qkv, .segs = segs, .H = H, .D = D};
    NAME(run)(be, NAME(count_products)(be, segs, D, 2), NAME(count_sequences)(segs) * H, NAME(attention_head), &a);
}

/* With p = softmax: dv_j = sum_i p_ij do_i; dp_ij = do_i . v_j; ds_ij = p_ij (dp_ij - do_i . o_i);
 * dq_i = scale sum_j ds_ij k_j; dk_j = scale sum_i ds_ij q_i.
 * Gradients of keys and values add up over queries in scratch and are stored once, in double until then. */
static void NAME(attention_head_backward)(void *arg, int64_t item, int thread)
{
    const NAME(attention) *a = arg;
    int64_t N, row = NAME(find_sequence)(a->segs, item / a->H, &N), h = item % a->H, D = a->D, d = D / a->H;
    double scale = 1 / sqrt((double)d);
    double *acc = xkd_backend_scratch(a->be, thread, (2 * N + 1) * d * (int64_t)sizeof(double));
    if (!acc) return;
    double *dk = acc, *dv = acc + N * d, *dq = acc + 2 * N * d;
    for (int64_t k = 0; k < 2 * N * d; k++) acc[k] = 0;
    for (int64_t i = 0; i < N; i++) {
        const REAL *q = a->qkv + (row + i) * 3 * D + h * d, *g = a->d_o + (row + i) * D + h * d;
        double lse = (double)a->saved_lse[(row + i) * a->H + h];
        double along = NAME(dot)(g, a->saved_o + (row + i) * D + h * d, d);
        for (int64_t k = 0; k < d; k++) dq[k] = 0;
        for (int64_t j = 0; j < N; j++) {
            const REAL *key = a->qkv + (row + j) * 3 * D + D + h * d, *v = key + D;
            double p = exp(scale * NAME(dot)(q, key, d) - lse), ds = scale * p * (NAME(dot)(g, v, d) - along);
            for (int64_t k = 0; k < d; k++) {
                dv[j * d + k] += p * (double)g[k];
                dk[j * d + k] += ds * (double)q[k];
                dq[k] += ds * (double)key[k];
            }
        }
        for (int64_t k = 0; k < d; k++) a->dqkv[(row + i) * 3 * D + h * d + k] = (REAL)dq[k];
    }
    for (int64_t j = 0; j < N; j++)
        for (int64_t k = 0; k < d; k++) {
            a->dqkv[(row + j) * 3 * D + D + h * d + k] = (REAL)dk[j * d + k];
            a->dqkv[(row + j) * 3 * D + 2 * D + h * d + k] = (REAL)dv[j * d + k];
        }
}

static void NAME(attention_backward)(xkd_backend *be, void *dqkv, const void *d_o, const void *qkv, const void *o,
                                     const void *lse, const xkd_segments *segs, int64_t H, int64_t D)
{
    NAME(attention)
    a = {.be = be, .dqkv = dqkv, .qkv = qkv, .d_o = d_o, .saved_o = o, .saved_lse = lse, .segs = segs, .H = H, .D = D};
    NAME(run)
    (be, NAME(count_products)(be, segs, D, 5), NAME(count_sequences)(segs) * H, NAME(attention_head_backward), &a);
}

/* The weights are rebuilt from the saved log-sum-exp, so no attention matrix is ever kept. Without class
 * token the mean runs over all query rows. */
static void NAME(attention_probe)(xkd_backend *be, void *w, const void *qkv, const void *lse, int64_t B, int64_t tokens,
                                  int64_t H, int64_t D, bool cls)
{
    int64_t d = D / H, c = cls ? 1 : 0, N = tokens - c, queries = cls ? 1 : tokens;
    double scale = 1 / sqrt((double)d);
    be->products += B * queries * N * D;
    for (int64_t b = 0; b < B; b++)
        for (int64_t h = 0; h < H; h++)
            for (int64_t j = 0; j < N; j++) {
                const REAL *key = (const REAL *)qkv + (b * tokens + c + j) * 3 * D + D + h * d;
                double sum = 0;
                for (int64_t i = 0; i < queries; i++) {
                    const REAL *q = (const REAL *)qkv + (b * tokens + i) * 3 * D + h * d;
                    sum += exp(scale * NAME(dot)(q, key, d) - (double)((const REAL *)lse)[(b * tokens + i) * H + h]);
                }
                ((REAL *)w)[(b * H + h) * N + j] = (REAL)(sum / (double)queries);
            }
}
