/* Work on rows of tokens and logits that the reference does in one thread: run in parallel over rows or samples, each
 * by the reference's own code, so that there is one definition of what they compute. */
#include <stddef.h>

#include "backend/cpu/kernels/kernels.h"

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
static float *row_of(const void *base, int64_t element)
{
    return (float *)(uintptr_t)base + element;
}

/* The clip of one sample as a batch of one. */
static void patchify_sample(void *arg, int64_t b, int thread)
{
    const job *j = arg;
    const xkd_patch_geometry *g = j->geometry;
    xkd_patch_geometry one = *g;
    (void)thread;
    one.B = 1;
    j->ref->patchify(j->be, row_of(j->out, b * j->M * xkd_patch_length(g)), j->clip + b * g->C * g->T * g->H * g->W,
                     j->index ? j->index + b * j->M : NULL, j->M, &one);
}

static void patchify(xkd_backend *be, void *out, const float *clip, const int32_t *keep, int64_t M,
                     const xkd_patch_geometry *g)
{
    job j = {.be = be, .ref = xkd_ref_ops(XKD_F32), .out = out, .clip = clip, .index = keep, .M = M, .geometry = g};
    xkd_parallel_for(be->pool, g->B, patchify_sample, &j);
}

static void add_positions_sample(void *arg, int64_t b, int thread)
{
    const job *j = arg;
    int64_t c = j->cls ? 1 : 0;
    (void)thread;
    j->ref->add_positions(j->be, row_of(j->out, b * (j->M + c) * j->D), row_of(j->in, b * j->M * j->D), j->cls, j->pos,
                          j->index ? j->index + b * j->M : NULL, 1, j->M, j->D);
}

static void add_positions(xkd_backend *be, void *x, const void *e, const void *cls, const void *pos,
                          const int32_t *keep, int64_t B, int64_t M, int64_t D)
{
    job j = {.be = be,
             .ref = xkd_ref_ops(XKD_F32),
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
    j->ref->unmask_forward(j->be, row_of(j->out, b * (one.N + c) * one.D), row_of(j->in, b * (one.M + c) * one.D),
                           j->mask_token, j->pos, &one);
}

static void unmask_forward(xkd_backend *be, void *x, const void *z, const void *mask_token, const void *pos,
                           const xkd_unmask_args *args)
{
    job j = {
        .be = be, .ref = xkd_ref_ops(XKD_F32), .out = x, .in = z, .mask_token = mask_token, .pos = pos, .unmask = args};
    xkd_parallel_for(be->pool, args->B, unmask_sample, &j);
}

/* The number of rows is not that of samples here, so tasks are blocks of rows. */
static void patch_normalize_rows(void *arg, int64_t task, int thread)
{
    const job *j = arg;
    (void)thread;
    j->ref->patch_normalize(j->be, row_of(j->out, task * ROWS_A_TASK * j->D), task_size(task, j->N, ROWS_A_TASK), j->D);
}

static void patch_normalize(xkd_backend *be, void *x, int64_t R, int64_t P)
{
    job j = {.be = be, .ref = xkd_ref_ops(XKD_F32), .out = x, .N = R, .D = P};
    xkd_parallel_for(be->pool, tasks_of(R, ROWS_A_TASK), patch_normalize_rows, &j);
}

/* Their backwards stay the reference's: they add over samples into shared rows, and in index order. */
void LEVEL(xkd_cpu_row_ops)(xkd_ops *ops)
{
    ops->patchify = patchify;
    ops->add_positions = add_positions;
    ops->unmask_forward = unmask_forward;
    ops->patch_normalize = patch_normalize;
}
