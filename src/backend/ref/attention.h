/* Template: attention in plain C, one (sequence, head) at a time. */
#ifndef STORED
#error "included by ref_f32.c, ref_f64.c and ref_bf16.c"
#endif

/* Arguments of one call; each task handles one head of one sequence. */
typedef struct {
    xkd_backend *be;
    STORED *o, *dqkv; /* outputs */
    EXACT *lse;
    const STORED *qkv, *d_o, *saved_o; /* [R,3D]; [R,D]; [R,D] */
    const EXACT *saved_lse;            /* [R,H] */
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
        const STORED *q = a->qkv + (row + i) * 3 * D + h * d;
        double largest = -INFINITY, total = 0;
        for (int64_t j = 0; j < N; j++) {
            p[j] = scale * NAME(dot)(q, a->qkv + (row + j) * 3 * D + D + h * d, d);
            if (p[j] > largest) largest = p[j];
        }
        for (int64_t j = 0; j < N; j++) total += exp(p[j] - largest);
        double lse = largest + log(total);
        SET(a->lse, (row + i) * a->H + h, lse);
        for (int64_t k = 0; k < d; k++) sum[k] = 0;
        for (int64_t j = 0; j < N; j++) {
            double w = exp(p[j] - lse);
            const STORED *v = a->qkv + (row + j) * 3 * D + 2 * D + h * d;
            for (int64_t k = 0; k < d; k++) sum[k] += w * AT(v, k);
        }
        for (int64_t k = 0; k < d; k++) SET(a->o, (row + i) * D + h * d + k, sum[k]);
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
        const STORED *q = a->qkv + (row + i) * 3 * D + h * d, *g = a->d_o + (row + i) * D + h * d;
        double lse = AT(a->saved_lse, (row + i) * a->H + h);
        double along = NAME(dot)(g, a->saved_o + (row + i) * D + h * d, d);
        for (int64_t k = 0; k < d; k++) dq[k] = 0;
        for (int64_t j = 0; j < N; j++) {
            const STORED *key = a->qkv + (row + j) * 3 * D + D + h * d, *v = key + D;
            double p = exp(scale * NAME(dot)(q, key, d) - lse), ds = scale * p * (NAME(dot)(g, v, d) - along);
            for (int64_t k = 0; k < d; k++) {
                dv[j * d + k] += p * AT(g, k);
                dk[j * d + k] += ds * AT(q, k);
                dq[k] += ds * AT(key, k);
            }
        }
        for (int64_t k = 0; k < d; k++) SET(a->dqkv, (row + i) * 3 * D + h * d + k, dq[k]);
    }
    for (int64_t j = 0; j < N; j++)
        for (int64_t k = 0; k < d; k++) {
            SET(a->dqkv, (row + j) * 3 * D + D + h * d + k, dk[j * d + k]);
            SET(a->dqkv, (row + j) * 3 * D + 2 * D + h * d + k, dv[j * d + k]);
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
                const STORED *key = (const STORED *)qkv + (b * tokens + c + j) * 3 * D + D + h * d;
                double sum = 0;
                for (int64_t i = 0; i < queries; i++) {
                    const STORED *q = (const STORED *)qkv + (b * tokens + i) * 3 * D + h * d;
                    sum += exp(scale * NAME(dot)(q, key, d) - AT((const EXACT *)lse, (b * tokens + i) * H + h));
                }
                SET((EXACT *)w, (b * H + h) * N + j, sum / (double)queries);
            }
}
