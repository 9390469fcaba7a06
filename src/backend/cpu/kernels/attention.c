/* Attention of one (sequence, head) at a time. Scores are made turned around, S^T = K Q^T, in panels of NR queries: a
 * query is then a lane, softmax needs no sum across lanes, and a panel is already packed as the right operand of
 * O^T = V^T P^T. Panels stay in the first- or second-level cache. The backward recomputes scores from the saved
 * log-sum-exp (Dao et al., FlashAttention, 2022).
 *
 * Every sum over keys, queries or a head's width is one chain in index order: a query's bits depend on its sequence
 * alone. */
#include "backend/cpu/kernels/product.h"

/* Queries whose gradients meet in one chain of the sums for keys and values; the scores of a block of them, twice,
 * are 290 KB for the 561 tokens of a global audio view. */
enum { BLOCK = 64, PANELS = BLOCK / NR };

/* Rows of a head are packed this far apart (a constant, so that it is part of the instruction): the width 64 of the
 * public models and less, or up to KC. Wider heads go to the reference. */
enum { NARROW = 64, NARROW_ROW = NARROW + 16 };

typedef struct {
    xkd_backend *be;
    stored *o, *dqkv; /* outputs */
    float *lse;
    const stored *qkv, *d_o, *saved_o; /* inputs; saved_*: outputs of the forward */
    const float *saved_lse;
    const xkd_segments *segs; /* how the R rows divide into sequences */
    int64_t H, D;
} attention;

/* The sequence and head of a task. Tasks count heads of all sequences of all segments. */
typedef struct {
    int64_t row, N, head, d; /* first row, tokens, head number, width of a head */
    int64_t D;
    int64_t keys, wide; /* N and d up to multiples of MR */
    float scale;        /* 1 / sqrt(d) */
} slice;

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* Finds the task's rows. The walk over segments is as long as there are views, a handful, and needs no table. */
static slice slice_of(const attention *a, int64_t index)
{
    int64_t row = 0, s = 0, sequence = index / a->H;
    for (; sequence >= a->segs->items[s].batch; s++) {
        sequence -= a->segs->items[s].batch;
        row += a->segs->items[s].batch * a->segs->items[s].tokens;
    }
    int64_t N = a->segs->items[s].tokens, d = a->D / a->H;
    return (slice){row + sequence * N, N, index % a->H, d, a->D, round_up(N, MR), round_up(d, MR), 1 / sqrtf((float)d)};
}

/* Memory of a task, cut from the thread's scratch. */
typedef struct {
    float *at;
} cutter;

static float *cut(cutter *c, int64_t floats)
{
    float *p = c->at;
    c->at += round_up(floats, 16) + 16; /* off the same cache sets */
    return p;
}

static int64_t row_of(const slice *s)
{
    return s->d <= NARROW ? NARROW_ROW : A_ROW;
}

/* A panel of columns of one operand holds N values of each. */
static int64_t column_panel(const slice *s)
{
    return s->N * MR + 16;
}

/* panel [keys][NR] = rows [keys][d] (packed, row_of apart) times b [d][NR], in the vectors that hold `queries`. */
static void scores_panel(const slice *s, float *panel, const float *rows, const float *b, int64_t queries)
{
    vec acc[MR][NV];
    for (int64_t i = 0; i < s->keys; i += MR) {
        tile_zero(acc);
        if (s->d <= NARROW)
            tile_add_product(acc, queries, s->d, rows + i * NARROW_ROW, NARROW_ROW, 1, b);
        else
            tile_add_product(acc, queries, s->d, rows + i * A_ROW, A_ROW, 1, b);
        tile_store(acc, panel + i * NR, NULL, NR);
    }
}

/* out [wide][NR] = sum over keys of columns (packed in panels of MR) times panel [N][NR], in the vectors that hold
 * `queries`. */
static void weighted_sum(const slice *s, float *out, const float *columns, const float *panel, int64_t queries)
{
    vec acc[MR][NV];
    for (int64_t i = 0; i < s->wide; i += MR) {
        tile_zero(acc);
        tile_add_product(acc, queries, s->N, columns + i / MR * column_panel(s), 1, MR, panel);
        tile_store(acc, out + i * NR, NULL, NR);
    }
}

/* A block of TB x TB turned around into stored numbers. */
INLINE void turn_block(stored *out, int64_t ld, const float *in)
{
#ifdef XKD_HALF
    float wide[TB * TB];
    transpose_block(wide, TB, in, NR);
    for (int r = 0; r < TB; r++)
        for (int c = 0; c < TB; c++) write_one(out + r * ld + c, wide[r * TB + c]);
#else
    transpose_block(out, ld, in, NR);
#endif
}

/* out [rows][d], ld apart = in [d][NR] turned around. */
static void turn_around(stored *out, int64_t ld, const float *in, int64_t rows, int64_t d)
{
    for (int64_t r = 0; r < rows; r += TB)
        for (int64_t c = 0; c < d; c += TB) {
            if (r + TB <= rows && c + TB <= d) {
                turn_block(out + r * ld + c, ld, in + c * NR + r);
                continue;
            }
            for (int64_t i = r; i < rows && i < r + TB; i++)
                for (int64_t j = c; j < d && j < c + TB; j++) write_one(out + i * ld + j, in[j * NR + i]);
        }
}

/* Softmax over the N keys of each lane of so many vectors, without its division: panel = exp(scale s - shift), shift = scale * largest.
 * Relative to the largest score exp never overflows, and the sum is at least 1, so that logarithm and quotient are
 * safe. The sum goes through partial sums of 32 keys, which keeps its error small. */
static void exponentials(float *panel, int64_t N, int vectors, float scale, float *shift, float *sum)
{
    for (int v = 0; v < vectors; v++) {
        float *p = panel + v * W;
        vec largest = vec_load(p), total = vec_set(0);
        for (int64_t i = 1; i < N; i++) largest = vec_max(largest, vec_load(p + i * NR));
        vec by = largest * scale;
        for (int64_t i = 0; i < N;) {
            vec part = vec_set(0);
            for (int64_t end = i + 32 < N ? i + 32 : N; i < end; i++) {
                vec e = vec_exp_negative(vec_fma(vec_load(p + i * NR), vec_set(scale), -by));
                vec_store(p + i * NR, e);
                part += e;
            }
            total += part;
        }
        vec_store(shift + v * W, by);
        vec_store(sum + v * W, total);
    }
}

static int64_t forward_floats(const slice *s)
{
    return s->keys * row_of(s) + s->wide / MR * column_panel(s) + s->keys * NR + (s->d + s->wide) * NR + 5 * 32;
}

/* One head of one sequence: S^T = K Q^T, P^T = exp(scale S^T - shift), O^T = V^T P^T / sum. The sum divides the d
 * outputs of a query at the end and not its N probabilities, which is N/d times less work. */
static void forward_head(void *arg, int64_t index, int thread)
{
    const attention *a = arg;
    slice s = slice_of(a, index);
    int64_t ld = 3 * s.D;
    const stored *q = a->qkv + s.row * ld + s.head * s.d, *k = q + s.D, *v = k + s.D;
    cutter memory = {xkd_backend_scratch(a->be, thread, forward_floats(&s) * (int64_t)sizeof(float))};
    if (!memory.at) return;
    float *k_rows = cut(&memory, s.keys * row_of(&s)), *v_columns = cut(&memory, s.wide / MR * column_panel(&s));
    float *panel = cut(&memory, s.keys * NR), *q_panel = cut(&memory, s.d * NR), *out = cut(&memory, s.wide * NR);
    pack_rows(k_rows, row_of(&s), k, ld, s.N, s.d);
    pack_columns(v_columns, column_panel(&s), v, ld, s.d, s.N);
    for (int64_t first = 0; first < s.N; first += NR) {
        int64_t rows = s.N - first < NR ? s.N - first : NR;
        float shift[NR], sum[NR], *lse = a->lse + (s.row + first) * a->H + s.head;
        pack_transposed_panel(q_panel, q + first * ld, ld, rows, s.d);
        scores_panel(&s, panel, k_rows, q_panel, rows);
        exponentials(panel, s.N, vectors_of(rows), s.scale, shift, sum);
        weighted_sum(&s, out, v_columns, panel, rows);
        for (int64_t c = 0; c < s.d; c++)
            for (int w = 0; w < vectors_of(rows); w++)
                vec_store(out + c * NR + w * W, vec_load(out + c * NR + w * W) / vec_load(sum + w * W));
        turn_around(a->o + (s.row + first) * s.D + s.head * s.d, s.D, out, rows, s.d);
        for (int64_t r = 0; r < rows; r++) lse[r * a->H] = shift[r] + logf(sum[r]);
    }
}

/* What the backward of one head works with. */
typedef struct {
    float *k_rows, *v_rows, *k_columns; /* packed for S^T, dP^T and dQ^T */
    float *p, *ds;                      /* [PANELS][keys][NR] of a block */
    float *q_panel, *do_panel;          /* [d][NR] of a panel */
    float *q_block, *do_block;          /* [d up to NR][BLOCK][NR] of a block, for dK and dV */
    float *out;                         /* [wide][NR] */
    float *dk, *dv;                     /* [N][d]: sums over the blocks */
} backward_memory;

/* In all as many floats as backward_floats says. */
static backward_memory backward_cut(const slice *s, cutter *c)
{
    int64_t block = round_up(s->d, NR) * BLOCK;
    backward_memory m = {.k_rows = cut(c, s->keys * row_of(s)), .v_rows = cut(c, s->keys * row_of(s))};
    m.k_columns = cut(c, s->wide / MR * column_panel(s));
    m.p = cut(c, s->keys * BLOCK);
    m.ds = cut(c, s->keys * BLOCK);
    m.q_panel = cut(c, s->d * NR);
    m.do_panel = cut(c, s->d * NR);
    m.q_block = cut(c, block);
    m.do_block = cut(c, block);
    m.out = cut(c, s->wide * NR);
    m.dk = cut(c, s->N * s->d);
    m.dv = cut(c, s->N * s->d);
    return m;
}

static int64_t backward_floats(const slice *s)
{
    int64_t rows = 2 * s->keys * row_of(s) + s->wide / MR * column_panel(s);
    return rows + 2 * (s->keys + round_up(s->d, NR)) * BLOCK + (2 * s->d + s->wide) * NR + 2 * s->N * s->d + 12 * 32;
}

/* P^T and dS^T of one panel of queries, from scores and dP^T: P = exp(scale S - lse), dS = scale P (dP - along), where
 * along = dO . O is equal to sum_j P_j dP_j. Lanes past the last query hold 0 in both, or nothing where their whole vector
 * does: nobody reads them. */
static void panel_gradients(const attention *a, const slice *s, int64_t first, int64_t rows, float *p, float *ds)
{
    float lse[NR], along[NR], factor[NR];
    for (int64_t r = 0; r < NR; r++) {
        int64_t at = (s->row + first + r) * s->D + s->head * s->d;
        lse[r] = r < rows ? a->saved_lse[(s->row + first + r) * a->H + s->head] : INFINITY;
        along[r] = r < rows ? stored_dot(a->d_o + at, a->saved_o + at, s->d) : 0;
        factor[r] = s->scale;
    }
    for (int v = 0; v < vectors_of(rows); v++) {
        vec shift = vec_load(lse + v * W), less = vec_load(along + v * W), scale = vec_load(factor + v * W);
        for (int64_t i = 0; i < s->N; i++) {
            float *at = p + i * NR + v * W, *d = ds + i * NR + v * W;
            vec e = vec_exp_negative(vec_fma(vec_load(at), scale, -shift));
            vec_store(at, e);
            vec_store(d, scale * e * (vec_load(d) - less));
        }
    }
}

/* out [N][d] (+)= sum over the block's queries of panels [..][keys][NR] turned around times b [..][BLOCK][NR];
 * `count` queries exist. */
static void key_gradients(const slice *s, float *out, const float *panels, const float *b, int64_t count, bool add)
{
    vec acc[MR][NV];
    int64_t ld = s->d;
    for (int64_t j = 0; j < s->d; j += NR)
        for (int64_t i = 0; i < s->N; i += MR) {
            float *c = out + i * ld + j;
            int64_t rows = s->N - i < MR ? s->N - i : MR, columns = s->d - j < NR ? s->d - j : NR;
            tile_zero(acc);
            for (int64_t q = 0; q < count; q += NR) {
                int64_t queries = count - q < NR ? count - q : NR;
                const float *left = panels + (q / NR * s->keys + i) * NR, *right = b + j * BLOCK + q * NR;
                tile_add_product(acc, columns, queries, left, NR, 1, right);
            }
            if (rows == MR && columns == NR)
                tile_store(acc, c, add ? c : NULL, ld);
            else
                tile_store_part(acc, c, add ? c : NULL, ld, rows, columns);
        }
}

/* out [N][d], ld apart = in [N][d]. */
static void store_rows(stored *out, int64_t ld, const float *in, int64_t N, int64_t d)
{
    for (int64_t i = 0; i < N; i++)
        for (int64_t j = 0; j < d; j += W) write_part(out + i * ld + j, vec_load_part(in + i * d + j, d - j), d - j);
}

/* dQ = dS K, dK = dS^T Q, dV = P^T dO. A task owns one head of one sequence, so nobody else writes its
 * columns of dqkv and no two threads ever add to one value. */
static void backward_head(void *arg, int64_t index, int thread)
{
    const attention *a = arg;
    slice s = slice_of(a, index);
    int64_t ld = 3 * s.D;
    const stored *q = a->qkv + s.row * ld + s.head * s.d, *k = q + s.D, *v = k + s.D;
    const stored *d_o = a->d_o + s.row * s.D + s.head * s.d;
    stored *dq = a->dqkv + s.row * ld + s.head * s.d;
    cutter memory = {xkd_backend_scratch(a->be, thread, backward_floats(&s) * (int64_t)sizeof(float))};
    if (!memory.at) return;
    backward_memory m = backward_cut(&s, &memory);
    pack_rows(m.k_rows, row_of(&s), k, ld, s.N, s.d);
    pack_rows(m.v_rows, row_of(&s), v, ld, s.N, s.d);
    pack_columns(m.k_columns, column_panel(&s), k, ld, s.d, s.N);
    for (int64_t block = 0; block < s.N; block += BLOCK) {
        int64_t count = s.N - block < BLOCK ? s.N - block : BLOCK;
        for (int64_t j = 0; j < count; j += NR) {
            int64_t first = block + j, rows = count - j < NR ? count - j : NR;
            float *p = m.p + j * s.keys, *ds = m.ds + j * s.keys;
            pack_transposed_panel(m.q_panel, q + first * ld, ld, rows, s.d);
            pack_transposed_panel(m.do_panel, d_o + first * s.D, s.D, rows, s.d);
            scores_panel(&s, p, m.k_rows, m.q_panel, rows);
            scores_panel(&s, ds, m.v_rows, m.do_panel, rows);
            panel_gradients(a, &s, first, rows, p, ds);
            weighted_sum(&s, m.out, m.k_columns, ds, rows);
            turn_around(dq + first * ld, ld, m.out, rows, s.d);
        }
        for (int64_t j = 0; j < s.d; j += NR) {
            int64_t columns = s.d - j < NR ? s.d - j : NR;
            pack_panel(m.q_block + j * BLOCK, q + block * ld + j, ld, columns, count);
            pack_panel(m.do_block + j * BLOCK, d_o + block * s.D + j, s.D, columns, count);
        }
        key_gradients(&s, m.dk, m.ds, m.q_block, count, block > 0);
        key_gradients(&s, m.dv, m.p, m.do_block, count, block > 0);
    }
    store_rows(dq + s.D, ld, m.dk, s.N, s.d);
    store_rows(dq + 2 * s.D, ld, m.dv, s.N, s.d);
}

/* Tasks, and the account of multiply-adds for `per_pair` products over all pairs of tokens. */
static int64_t account(xkd_backend *be, const attention *a, int64_t per_pair)
{
    int64_t sequences = 0;
    for (int64_t s = 0; s < a->segs->count; s++) {
        const xkd_segment *item = &a->segs->items[s];
        be->products += per_pair * item->batch * item->tokens * item->tokens * a->D;
        sequences += item->batch;
    }
    return sequences * a->H;
}

static void attention_forward(xkd_backend *be, void *o, void *lse, const void *qkv, const xkd_segments *segs, int64_t H,
                              int64_t D)
{
    attention a = {.be = be, .o = o, .lse = lse, .qkv = qkv, .segs = segs, .H = H, .D = D};
    /* Two products over pairs: Q K^T and P V. */
    int64_t tasks = account(be, &a, 2);
    if (D / H > KC)
        xkd_ref_ops(STORED_DTYPE)->attention_forward(be, o, lse, qkv, segs, H, D);
    else
        xkd_parallel_for(be->pool, tasks, forward_head, &a);
}

static void attention_backward(xkd_backend *be, void *dqkv, const void *d_o, const void *qkv, const void *o,
                               const void *lse, const xkd_segments *segs, int64_t H, int64_t D)
{
    attention a = {
        .be = be, .dqkv = dqkv, .qkv = qkv, .d_o = d_o, .saved_o = o, .saved_lse = lse, .segs = segs, .H = H, .D = D};
    /* Five: the scores again, dP, dQ, dK, dV. */
    int64_t tasks = account(be, &a, 5);
    if (D / H > KC)
        xkd_ref_ops(STORED_DTYPE)->attention_backward(be, dqkv, d_o, qkv, o, lse, segs, H, D);
    else
        xkd_parallel_for(be->pool, tasks, backward_head, &a);
}

void LEVEL(xkd_cpu_attention_ops)(xkd_ops *ops)
{
    ops->attention_forward = attention_forward;
    ops->attention_backward = attention_backward;
}
