/* Work on rows of tokens and logits that the reference does in one thread: run in parallel over rows or samples. What
 * takes little time goes through the reference's own code, so that there is one definition of what it computes. */
#include "backend/constants.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vector.h"

/* Arguments of one of the operations below; every task reads them and writes rows of its own. */
typedef struct {
    xkd_backend *be;
    const xkd_ops *ref; /* whose functions do the work */
    void *out;
    const void *in, *pos, *cls, *mask_token;
    const float *clip;    /* [B,C,T,H,W] */
    const int32_t *index; /* [B,M] kept tokens or NULL */
    const xkd_patch_geometry *geometry;
    const xkd_unmask_args *unmask;
    int64_t N, M, D; /* rows, tokens of a sample, width */
} job;

/* The reference's functions take plain pointers; tasks hand them addresses of their own sample. */
static stored *row_of(const void *base, int64_t element)
{
    return (stored *)(uintptr_t)base + element;
}

static float *exact_row_of(const void *base, int64_t element)
{
    return (float *)(uintptr_t)base + element;
}

/* Three channels of pw pixels each, side by side: the order of a patch has the channel fastest. */
static void interleave3(stored *out, const float *in, int64_t channel, int64_t pw)
{
    const float *r = in, *g = in + channel, *b = in + 2 * channel;
    for (int64_t w = 0; w < pw; w++) {
        write_one(out + 3 * w, r[w]);
        write_one(out + 3 * w + 1, g[w]);
        write_one(out + 3 * w + 2, b[w]);
    }
}

/* One patch whose first pixel of channel 0 is at `in`. */
static void copy_patch(stored *out, const float *in, const xkd_patch_geometry *g)
{
    int64_t channel = g->T * g->H * g->W, run = g->pw * g->C;
    for (int64_t t = 0; t < g->pt; t++)
        for (int64_t h = 0; h < g->ph; h++, out += run) {
            const float *row = in + (t * g->H + h) * g->W;
            if (g->C == 1)
                for (int64_t i = 0; i < run; i += W) write_part(out + i, vec_load_part(row + i, run - i), run - i);
            else if (g->C == 3)
                interleave3(out, row, channel, g->pw);
            else
                for (int64_t i = 0; i < run; i++) write_one(out + i, row[i % g->C * channel + i / g->C]);
        }
}

/* The patches of one sample; token (t*nh + h)*nw + w, method.md section 3. */
static void patchify_sample(void *arg, int64_t b, int thread)
{
    const job *j = arg;
    const xkd_patch_geometry *g = j->geometry;
    int64_t nh = g->H / g->ph, nw = g->W / g->pw, P = xkd_patch_length(g);
    const float *clip = j->clip + b * g->C * g->T * g->H * g->W;
    (void)thread;
    for (int64_t i = 0; i < j->M; i++) {
        int64_t token = j->index ? j->index[b * j->M + i] : i, t = token / (nh * nw), h = token / nw % nh;
        copy_patch(row_of(j->out, (b * j->M + i) * P),
                   clip + (t * g->pt * g->H + h * g->ph) * g->W + token % nw * g->pw, g);
    }
}

static void patchify(xkd_backend *be, void *out, const float *clip, const int32_t *keep, int64_t M,
                     const xkd_patch_geometry *g)
{
    job j = {.out = out, .clip = clip, .index = keep, .M = M, .geometry = g};
    xkd_parallel_for(be->pool, g->B, patchify_sample, &j);
}

static void add_positions_sample(void *arg, int64_t b, int thread)
{
    const job *j = arg;
    int64_t c = j->cls ? 1 : 0;
    (void)thread;
    j->ref->add_positions(j->be, exact_row_of(j->out, b * (j->M + c) * j->D), row_of(j->in, b * j->M * j->D), j->cls,
                          j->pos, j->index ? j->index + b * j->M : NULL, 1, j->M, j->D);
}

static void add_positions(xkd_backend *be, void *x, const void *e, const void *cls, const void *pos,
                          const int32_t *keep, int64_t B, int64_t M, int64_t D)
{
    job j = {.be = be,
             .ref = xkd_ref_ops(STORED_DTYPE),
             .out = x,
             .in = e,
             .cls = cls,
             .pos = pos,
             .index = keep,
             .M = M,
             .D = D};
    xkd_parallel_for(be->pool, B, add_positions_sample, &j);
}

/* The sample's part of `rank` goes with it; mask token and positions are the same for all. */
static void unmask_sample(void *arg, int64_t b, int thread)
{
    const job *j = arg;
    xkd_unmask_args one = *j->unmask;
    int64_t c = one.cls ? 1 : 0;
    (void)thread;
    one.B = 1;
    one.rank += b * one.N;
    j->ref->unmask_forward(j->be, exact_row_of(j->out, b * (one.N + c) * one.D), row_of(j->in, b * (one.M + c) * one.D),
                           j->mask_token, j->pos, &one);
}

static void unmask_forward(xkd_backend *be, void *x, const void *z, const void *mask_token, const void *pos,
                           const xkd_unmask_args *args)
{
    job j = {.be = be,
             .ref = xkd_ref_ops(STORED_DTYPE),
             .out = x,
             .in = z,
             .mask_token = mask_token,
             .pos = pos,
             .unmask = args};
    xkd_parallel_for(be->pool, args->B, unmask_sample, &j);
}

/* The backend as one thread's task may hand it to the reference: the thread's scratch is number 0, and what the reference
 * counts is not seen by others. */
static xkd_backend for_thread(const xkd_backend *be, int thread)
{
    xkd_backend one = *be;
    one.scratch += thread;
    one.scratch_bytes += thread;
    return one;
}

static void keep_fault(xkd_backend *be, const xkd_backend *one)
{
    if (one->status != XKD_OK) __atomic_store_n(&be->status, one->status, __ATOMIC_RELAXED);
}

/* Gradients of rows that all samples share: a task adds up its own columns, in the order of samples. */
typedef struct {
    stored *de;         /* of the tokens */
    float *dcls, *dpos; /* class or mask token; positional table */
    const stored *dx;
    const int32_t *index;         /* [B,M] of add_positions, or NULL */
    const xkd_unmask_args *where; /* of unmask */
    int64_t B, M, D;
} shared_rows;

enum { COLUMNS_A_TASK = 64 };

static void add_columns(float *to, const stored *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++) to[i] += read_one(from + i);
}

/* The class token and row 0 of the table meet in one sum, so both get the same gradient. */
static void add_positions_columns(void *arg, int64_t task, int thread)
{
    const shared_rows *j = arg;
    int64_t D = j->D, first = task * COLUMNS_A_TASK, n = task_size(task, D, COLUMNS_A_TASK), c = j->dcls ? 1 : 0;
    const stored *grad = j->dx + first;
    (void)thread;
    for (int64_t b = 0; b < j->B; b++) {
        if (c) {
            add_columns(j->dcls + first, grad, n);
            add_columns(j->dpos + first, grad, n);
            grad += D;
        }
        for (int64_t m = 0; m < j->M; m++, grad += D) {
            int64_t at = b * j->M + m, token = j->index ? j->index[at] : m;
            memcpy(j->de + at * D + first, grad, (size_t)n * sizeof *grad);
            add_columns(j->dpos + (c + token) * D + first, grad, n);
        }
    }
}

static void add_positions_backward(xkd_backend *be, void *de, void *dcls, void *dpos, const void *dx,
                                   const int32_t *keep, int64_t B, int64_t M, int64_t D)
{
    shared_rows j = {.de = de, .dcls = dcls, .dpos = dpos, .dx = dx, .index = keep, .B = B, .M = M, .D = D};
    xkd_parallel_for(be->pool, tasks_of(D, COLUMNS_A_TASK), add_positions_columns, &j);
}

/* Rows of masked tokens go to the one mask token, all others straight back to z. */
static void unmask_columns(void *arg, int64_t task, int thread)
{
    const shared_rows *j = arg;
    const xkd_unmask_args *a = j->where;
    int64_t D = a->D, first = task * COLUMNS_A_TASK, width = task_size(task, D, COLUMNS_A_TASK), c = a->cls ? 1 : 0;
    const stored *grad = j->dx + first;
    (void)thread;
    for (int64_t b = 0; b < a->B; b++)
        for (int64_t n = -c; n < a->N; n++, grad += D) {
            int64_t kept = n < 0 ? -1 : a->rank[b * a->N + n];
            add_columns(j->dpos + (c + n) * D + first, grad, width);
            if (n >= 0 && kept < 0)
                add_columns(j->dcls + first, grad, width);
            else
                memcpy(j->de + (b * (a->M + c) + (n < 0 ? 0 : c + kept)) * D + first, grad,
                       (size_t)width * sizeof *grad);
        }
}

static void unmask_backward(xkd_backend *be, void *dz, void *dmask, void *dpos, const void *dx,
                            const xkd_unmask_args *args)
{
    shared_rows j = {.de = dz, .dcls = dmask, .dpos = dpos, .dx = dx, .where = args};
    xkd_parallel_for(be->pool, tasks_of(args->D, COLUMNS_A_TASK), unmask_columns, &j);
}

/* Means over tokens and back, the class token's attention and the refinement: sample by sample. */
typedef struct {
    xkd_backend *be;
    const xkd_ops *ref;
    void *out;
    const void *in, *lse;
    const xkd_refine_args *refine;
    int64_t tokens, H, D, first, last;
} sample_job;

static void pool_forward_sample(void *arg, int64_t b, int thread)
{
    const sample_job *j = arg;
    (void)thread;
    j->ref->pool_forward(j->be, exact_row_of(j->out, b * j->D), row_of(j->in, b * j->tokens * j->D), 1, j->tokens, j->D,
                         j->first, j->last);
}

static void pool_forward(xkd_backend *be, void *y, const void *x, int64_t B, int64_t tokens, int64_t D, int64_t first,
                         int64_t last)
{
    sample_job j = {.be = be,
                    .ref = xkd_ref_ops(STORED_DTYPE),
                    .out = y,
                    .in = x,
                    .tokens = tokens,
                    .D = D,
                    .first = first,
                    .last = last};
    xkd_parallel_for(be->pool, B, pool_forward_sample, &j);
}

static void pool_backward_sample(void *arg, int64_t b, int thread)
{
    const sample_job *j = arg;
    (void)thread;
    j->ref->pool_backward(j->be, row_of(j->out, b * j->tokens * j->D), exact_row_of(j->in, b * j->D), 1, j->tokens,
                          j->D, j->first, j->last);
}

static void pool_backward(xkd_backend *be, void *dx, const void *dy, int64_t B, int64_t tokens, int64_t D,
                          int64_t first, int64_t last)
{
    sample_job j = {.be = be,
                    .ref = xkd_ref_ops(STORED_DTYPE),
                    .out = dx,
                    .in = dy,
                    .tokens = tokens,
                    .D = D,
                    .first = first,
                    .last = last};
    xkd_parallel_for(be->pool, B, pool_backward_sample, &j);
}

static void probe_sample(void *arg, int64_t b, int thread)
{
    const sample_job *j = arg;
    xkd_backend one = for_thread(j->be, thread);
    int64_t N = j->tokens - j->first;
    j->ref->attention_probe(&one, exact_row_of(j->out, b * j->H * N), row_of(j->in, b * j->tokens * 3 * j->D),
                            exact_row_of(j->lse, b * j->tokens * j->H), 1, j->tokens, j->H, j->D, j->first);
    keep_fault(j->be, &one);
}

static void attention_probe(xkd_backend *be, void *w, const void *qkv, const void *lse, int64_t B, int64_t tokens,
                            int64_t H, int64_t D, bool cls)
{
    sample_job j = {.be = be,
                    .ref = xkd_ref_ops(STORED_DTYPE),
                    .out = w,
                    .in = qkv,
                    .lse = lse,
                    .tokens = tokens,
                    .H = H,
                    .D = D,
                    .first = cls};
    be->products += B * (cls ? 1 : tokens) * (tokens - cls) * D;
    xkd_parallel_for(be->pool, B, probe_sample, &j);
}

static void refine_sample(void *arg, int64_t b, int thread)
{
    const sample_job *j = arg;
    xkd_backend view = for_thread(j->be, thread);
    xkd_refine_args one = *j->refine;
    one.features = row_of(one.features, b * one.tokens * one.D);
    one.self_attn = exact_row_of(one.self_attn, b * one.H * one.N);
    one.other_attn = exact_row_of(one.other_attn, b * one.H * one.M);
    one.B = 1;
    j->ref->refine_pool(&view, exact_row_of(j->out, b * one.D), &one);
    keep_fault(j->be, &view);
}

static void refine_pool(xkd_backend *be, void *y, const xkd_refine_args *args)
{
    sample_job j = {.be = be, .ref = xkd_ref_ops(STORED_DTYPE), .out = y, .refine = args};
    xkd_parallel_for(be->pool, args->B, refine_sample, &j);
}

void LEVEL(xkd_cpu_row_ops)(xkd_ops *ops)
{
    ops->patchify = patchify;
    ops->add_positions = add_positions;
    ops->add_positions_backward = add_positions_backward;
    ops->unmask_forward = unmask_forward;
    ops->unmask_backward = unmask_backward;
    ops->pool_forward = pool_forward;
    ops->pool_backward = pool_backward;
    ops->attention_probe = attention_probe;
    ops->refine_pool = refine_pool;
}
