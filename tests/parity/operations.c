#include "operations.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "tensor/params.h"

#define OPS be->ops
#define D0 d[0]
#define D1 d[1]
#define D2 d[2]
#define D3 d[3]
#define D4 d[4]
#define SIZES(name, ...)                                                                                               \
    static void name(const int64_t *d, int64_t *n)                                                                     \
    {                                                                                                                  \
        const int64_t sizes[] = {__VA_ARGS__};                                                                         \
        (void)d;                                                                                                       \
        memcpy(n, sizes, sizeof sizes);                                                                                \
    }
#define RUN(name, ...)                                                                                                 \
    static void name(xkd_backend *be, void **t, const int64_t *d)                                                      \
    {                                                                                                                  \
        (void)d;                                                                                                       \
        __VA_ARGS__;                                                                                                   \
    }

/* Memory of the backend for the length of one operation. */
enum { MOST_ROOMS = 8, MOST_HOST = 1 << 20 };
static void *rooms[MOST_ROOMS];
static int room_count;
static void *room(xkd_backend *be, int64_t bytes)
{
    if (room_count == MOST_ROOMS || xkd_memory_take(be->cx, be->memory, &rooms[room_count], bytes) != XKD_OK) return NULL;
    return rooms[room_count++];
}
/* An array of the host's as an argument. */
static void *lend(xkd_backend *be, const void *host, int64_t bytes)
{
    void *to = room(be, bytes);
    if (to) xkd_memory_upload(be->memory, to, host, bytes);
    return to;
}
void operations_give_back(xkd_backend *be)
{
    while (room_count) xkd_memory_give(be->memory, rooms[--room_count]);
}
/* A tensor as the host may read it, until the next call. */
static void *fetch(xkd_backend *be, const void *tensor, int64_t bytes)
{
    static double host[MOST_HOST];
    if (bytes > (int64_t)sizeof host) return NULL;
    xkd_memory_download(be->memory, host, tensor, bytes);
    return host;
}
/* Variances and second moments are not negative. */
static void square(xkd_backend *be, void *tensor, xkd_dtype type, int64_t n)
{
    void *x = fetch(be, tensor, n * xkd_dtype_size(type));
    for (int64_t i = 0; i < n; i++) xkd_set(type, x, i, xkd_get(type, x, i) * xkd_get(type, x, i));
    xkd_memory_upload(be->memory, tensor, x, n * xkd_dtype_size(type));
}

static int64_t by_d0(const int64_t *d) { return d[0]; }
static int64_t by_d1(const int64_t *d) { return d[1]; }
static int64_t by_d2(const int64_t *d) { return d[2]; }
static int64_t by_total(const int64_t *d) { return d[0] * d[1]; }
static int64_t one(const int64_t *d) { (void)d; return 1; }

/* Linear layers: M N K; full, odd, one row, larger than one tile, each of the three longer than a block of the sums, and those that
 * sums run over in more than one round. */
#define LINEAR_SHAPES {{3, 5, 7}, {64, 48, 32}, {1, 1, 1}, {300, 400, 96}, {40, 70, 900}, {900, 33, 40}, {17, 820, 15}, {5, 7, 3101}, \
    {3101, 7, 5}}
SIZES(s_linear, D0 * D1, D0 * D2, D1 * D2, D1)
RUN(r_linear, OPS->linear_forward(be, t[0], t[1], t[2], t[3], D0, D1, D2))
SIZES(s_linear_plain, D0 * D1, D0 * D2, D1 * D2)
RUN(r_linear_plain, OPS->linear_forward(be, t[0], t[1], t[2], NULL, D0, D1, D2))
SIZES(s_linear_gelu, D0 * D1, D0 * D1, D0 * D2, D1 * D2, D1)
RUN(r_linear_gelu, OPS->linear_gelu_forward(be, t[0], t[1], t[2], t[3], t[4], D0, D1, D2))
SIZES(s_linear_residual, D0 * D1, D0 * D1, D0 * D2, D1 * D2, D1)
RUN(r_linear_residual, OPS->linear_residual_forward(be, t[0], t[1], t[2], t[3], t[4], D0, D1, D2))
SIZES(s_linear_in_place, D0 * D1, D0 * D2, D1 * D2, D1)
RUN(r_linear_in_place, OPS->linear_residual_forward(be, t[0], t[0], t[1], t[2], t[3], D0, D1, D2))
SIZES(s_backward_data, D0 * D2, D0 * D1, D1 * D2)
RUN(r_backward_data, OPS->linear_backward_data(be, t[0], t[1], t[2], D0, D1, D2))
SIZES(s_gelu_data, D0 * D2, D0 * D2, D0 * D1, D1 * D2, D0 * D2)
RUN(r_gelu_data, OPS->linear_gelu_backward_data(be, t[0], t[1], t[2], t[3], t[4], D0, D1, D2))
SIZES(s_gelu_data_in_place, D0 * D2, D0 * D2, D0 * D1, D1 * D2)
RUN(r_gelu_data_in_place, OPS->linear_gelu_backward_data(be, t[0], t[1], t[2], t[3], t[1], D0, D1, D2))
SIZES(s_backward_weight, D1 * D2, D1, D0 * D1, D0 * D2)
RUN(r_backward_weight, OPS->linear_backward_weight(be, t[0], t[1], t[2], t[3], D0, D1, D2))

/* Rows: R D. */
#define ROW_SHAPES {{1, 2}, {5, 7}, {70, 33}, {40, 768}}
SIZES(s_ln, D0 * D1, D0, D0, D0 * D1, D1, D1)
RUN(r_ln, OPS->layernorm_forward(be, t[0], t[1], t[2], t[3], t[4], t[5], D0, D1))
SIZES(s_ln_plain, D0 * D1, D0, D0, D0 * D1)
RUN(r_ln_plain, OPS->layernorm_forward(be, t[0], t[1], t[2], t[3], NULL, NULL, D0, D1))
SIZES(s_residual_ln, D0 * D1, D0 * D1, D0, D0, D0 * D1, D1, D1)
RUN(r_residual_ln, OPS->residual_layernorm_forward(be, t[0], t[1], t[2], t[3], t[4], t[5], t[6], D0, D1))
SIZES(s_residual_ln_alone, D0 * D1, D0, D0, D0 * D1, D1, D1)
RUN(r_residual_ln_alone, OPS->residual_layernorm_forward(be, t[0], NULL, t[1], t[2], t[3], t[4], t[5], D0, D1))
/* The saved mean and rstd are made by the forward, into tensors of their own. */
SIZES(s_ln_back, D0 * D1, D1, D1, D0, D0, D0 * D1, D0 * D1, D0 * D1, D1, D1)
RUN(r_ln_back, OPS->layernorm_forward(be, t[0], t[3], t[4], t[7], t[8], t[9], D0, D1);
    OPS->layernorm_backward(be, &(xkd_layernorm_grad){t[0], t[1], t[2], t[5], t[6], t[7], t[3], t[4], t[8], D0, D1}))
SIZES(s_ln_back_plain, D0 * D1, D0, D0, D0 * D1)
RUN(r_ln_back_plain, void *y = room(be, D0 * D1 * be->element.stored); /* the rows' own output is not read */
    OPS->layernorm_forward(be, y, t[1], t[2], t[3], NULL, NULL, D0, D1);
    OPS->layernorm_backward(be, &(xkd_layernorm_grad){t[0], NULL, NULL, NULL, t[0], t[3], t[1], t[2], NULL, D0, D1}))
SIZES(s_two, D0 * D1, D0 * D1)
RUN(r_gelu, OPS->gelu_forward(be, t[0], t[1], D0 * D1))
SIZES(s_three, D0 * D1, D0 * D1, D0 * D1)
RUN(r_gelu_back, OPS->gelu_backward(be, t[0], t[1], t[2], D0 * D1))
SIZES(s_l2, D0 * D1, D0, D0 * D1)
RUN(r_l2, OPS->l2norm_forward(be, t[0], t[1], t[2], D0, D1))
SIZES(s_l2_back, D0 * D1, D0 * D1, D0, D0 * D1, D0 * D1)
RUN(r_l2_back, OPS->l2norm_forward(be, t[1], t[2], t[4], D0, D1);
    OPS->l2norm_backward(be, t[0], t[3], t[1], t[2], D0, D1))
SIZES(s_wn, D0 * D1, D0, D0 * D1, D0)
RUN(r_wn, OPS->weightnorm_forward(be, t[0], t[1], t[2], t[3], D0, D1))
SIZES(s_wn_back, D0 * D1, D0 * D1, D0, D0 * D1, D0 * D1, D0)
RUN(r_wn_back, OPS->weightnorm_forward(be, t[1], t[2], t[4], t[5], D0, D1);
    OPS->weightnorm_backward(be, t[0], t[3], t[4], t[5], t[2], D0, D1))
SIZES(s_column_sum, D1, D0 * D1)
RUN(r_column_sum, OPS->column_sum(be, t[0], t[1], D0, D1))
RUN(r_patch_normalize, OPS->patch_normalize(be, t[0], D0, D1))
SIZES(s_one, D0 * D1)

/* Attention: B N H head-width, and a second segment of B+1 sequences of N/2+1 tokens. */
#define ATTENTION_SHAPES {{2, 5, 2, 3}, {1, 1, 1, 4}, {1, 130, 3, 16}, {2, 300, 2, 64}, {1, 70, 2, 72}, {1, 9, 1, 400}, {2, 45, 2, 32}}
#define AROWS (D0 * D1 + (D0 + 1) * (D1 / 2 + 1))
#define AWIDTH (D2 * D3)
#define SEGMENTS                                                                                                       \
    xkd_segment items[] = {{D0, D1}, {D0 + 1, D1 / 2 + 1}};                                                            \
    xkd_segments segs = {2, items, AROWS}
SIZES(s_attention, AROWS * AWIDTH, AROWS * D2, AROWS * 3 * AWIDTH)
RUN(r_attention, SEGMENTS; OPS->attention_forward(be, t[0], t[1], t[2], &segs, D2, AWIDTH))
SIZES(s_attention_back, AROWS * 3 * AWIDTH, AROWS * AWIDTH, AROWS * D2, AROWS * AWIDTH, AROWS * 3 * AWIDTH)
RUN(r_attention_back, SEGMENTS; OPS->attention_forward(be, t[1], t[2], t[4], &segs, D2, AWIDTH);
    OPS->attention_backward(be, t[0], t[3], t[4], t[1], t[2], &segs, D2, AWIDTH))
SIZES(s_probe, D0 * D2 * D1, D0 * D1 * AWIDTH, D0 * D1 * D2, D0 * D1 * 3 * AWIDTH)
static void probe(xkd_backend *be, void **t, const int64_t *d, bool cls)
{
    xkd_segment item = {D0, D1};
    xkd_segments segs = {1, &item, D0 * D1};
    OPS->attention_forward(be, t[1], t[2], t[3], &segs, D2, AWIDTH);
    be->exact->fill(be, t[0], 0, D0 * D2 * D1); /* with a class token the last D0*D2 elements are not written */
    OPS->attention_probe(be, t[0], t[3], t[2], D0, D1, D2, AWIDTH, cls);
}
RUN(r_probe_cls, probe(be, t, d, true))
RUN(r_probe_mean, probe(be, t, d, false))

/* Tokens: B N M D; kept tokens of sample b are (b + 2i) mod N, distinct while 2M <= N or N odd. */
#define TOKEN_SHAPES {{1, 5, 2, 3}, {3, 9, 4, 8}, {2, 31, 13, 33}}
enum { MOST_TOKENS = 256 };
static void make_keep(int32_t *keep, int32_t *rank, const int64_t *d)
{
    for (int64_t i = 0; i < D0 * D1; i++) rank[i] = -1;
    for (int64_t b = 0; b < D0; b++)
        for (int64_t i = 0; i < D2; i++) {
            keep[b * D2 + i] = (int32_t)((b + 2 * i) % D1);
            rank[b * D1 + keep[b * D2 + i]] = (int32_t)i;
        }
}
#define KEEP                                                                                                           \
    int32_t host_keep[MOST_TOKENS], host_rank[MOST_TOKENS];                                                            \
    make_keep(host_keep, host_rank, d);                                                                                \
    const int32_t *keep = lend(be, host_keep, D0 * D2 * (int64_t)sizeof *keep);                                        \
    const int32_t *rank = lend(be, host_rank, D0 * D1 * (int64_t)sizeof *rank);                                        \
    (void)keep, (void)rank
SIZES(s_positions, D0 * (D2 + 1) * D3, D0 * D2 * D3, D3, (D1 + 1) * D3)
RUN(r_positions, KEEP; OPS->add_positions(be, t[0], t[1], t[2], t[3], keep, D0, D2, D3))
SIZES(s_positions_all, D0 * D2 * D3, D0 * D2 * D3, D1 * D3)
RUN(r_positions_all, OPS->add_positions(be, t[0], t[1], NULL, t[2], NULL, D0, D2, D3))
SIZES(s_positions_back, D0 * D2 * D3, D3, (D1 + 1) * D3, D0 * (D2 + 1) * D3)
RUN(r_positions_back, KEEP; OPS->add_positions_backward(be, t[0], t[1], t[2], t[3], keep, D0, D2, D3))
SIZES(s_unmask, D0 * (D1 + 1) * D3, D0 * (D2 + 1) * D3, D3, (D1 + 1) * D3)
#define UNMASK &(xkd_unmask_args){rank, D0, D1, D2, D3, true}
RUN(r_unmask, KEEP; OPS->unmask_forward(be, t[0], t[1], t[2], t[3], UNMASK))
SIZES(s_unmask_back, D0 * (D2 + 1) * D3, D3, (D1 + 1) * D3, D0 * (D1 + 1) * D3)
RUN(r_unmask_back, KEEP; OPS->unmask_backward(be, t[0], t[1], t[2], t[3], UNMASK))
/* Clips of D0 samples and D3 channels: D1 patches in time, 3 x 2 in space, of 2 x 3 x 4 pixels; M = D2 of them. */
static xkd_patch_geometry clip_of(const int64_t *d)
{
    return (xkd_patch_geometry){.B = D0, .C = D3, .T = 2 * D1, .H = 9, .W = 8, .pt = 2, .ph = 3, .pw = 4};
}
static int64_t clip_floats(const int64_t *d) { xkd_patch_geometry g = clip_of(d); return g.B * g.C * g.T * g.H * g.W; }
static int64_t clip_patch(const int64_t *d) { xkd_patch_geometry g = clip_of(d); return xkd_patch_length(&g); }
#define PATCH_SHAPES {{1, 1, 1, 1}, {2, 1, 5, 3}, {3, 2, 7, 2}, {2, 3, 18, 3}}
enum { MOST_FLOATS = 1 << 17 };
/* The clip is always float32: the backend's own input is turned into one. */
static void patches(xkd_backend *be, void **t, const int64_t *d, bool all)
{
    xkd_patch_geometry g = clip_of(d);
    int32_t keep[MOST_TOKENS];
    int64_t count = clip_floats(d), N = xkd_patch_tokens(&g);
    static float clip[MOST_FLOATS];
    const void *numbers = fetch(be, t[1], count * be->element.stored);
    for (int64_t i = 0; i < count; i++) clip[i] = (float)xkd_get(be->dtype, numbers, i);
    for (int64_t i = 0; i < D0 * D2; i++) keep[i] = (int32_t)((5 * i + i / D2) % N);
    OPS->patchify(be, t[0], lend(be, clip, count * (int64_t)sizeof *clip),
                  all ? NULL : lend(be, keep, D0 * D2 * (int64_t)sizeof *keep), all ? N : D2, &g);
}
SIZES(s_patches, D0 * D2 * clip_patch(d), clip_floats(d))
RUN(r_patches, patches(be, t, d, false))
SIZES(s_patches_all, D0 * D1 * 6 * clip_patch(d), clip_floats(d))
RUN(r_patches_all, patches(be, t, d, true))

SIZES(s_gather, D2 * D3, D1 * D3)
RUN(r_gather, KEEP; OPS->gather_rows(be, t[0], t[1], keep, D2, D3))
SIZES(s_scatter, D1 * D3, D2 * D3)
RUN(r_scatter, KEEP; OPS->scatter_rows(be, t[0], t[1], keep, D2, D1, D3))
SIZES(s_pool, D0 * D3, D0 * D1 * D3)
RUN(r_pool, OPS->pool_forward(be, t[0], t[1], D0, D1, D3, 1, D1))
SIZES(s_pool_back, D0 * D1 * D3, D0 * D3)
RUN(r_pool_back, OPS->pool_backward(be, t[0], t[1], D0, D1, D3, 1, D1))
RUN(r_pool_first, OPS->pool_forward(be, t[0], t[1], D0, D1, D3, 0, 1))
/* Factors, targets and the like are floats whatever the backend computes in. */
static float *floats(xkd_backend *be, int64_t n, float step)
{
    static float numbers[MOST_FLOATS];
    for (int64_t i = 0; i < n; i++) numbers[i] = (float)(i % 7) * step;
    return lend(be, numbers, n * (int64_t)sizeof *numbers);
}
/* Two segments: D0 sequences of D1 tokens and one of D2. */
SIZES(s_scale, (D0 * D1 + D2) * D3, (D0 * D1 + D2) * D3)
#define TWO_SEGMENTS                                                                                                   \
    const xkd_segment items[] = {{D0, D1}, {1, D2}};                                                                   \
    xkd_segments segs = {2, items, D0 * D1 + D2}
RUN(r_scale_sequences, TWO_SEGMENTS; OPS->scale_sequences(be, t[0], t[1], floats(be, D0 + 1, 0.3f), &segs, D3))
SIZES(s_scale_in_place, (D0 * D1 + D2) * D3)
RUN(r_scale_in_place, TWO_SEGMENTS; OPS->scale_sequences(be, t[0], t[0], floats(be, D0 + 1, 0.3f), &segs, D3))
SIZES(s_add_sequences, (D0 * D1 + D2) * D3, (D0 * D1 + D2) * D3, D3)
RUN(r_add_sequences, TWO_SEGMENTS; OPS->add_sequences(be, t[0], t[1], t[2], floats(be, D0 + 1, 0.3f), &segs, D3))
SIZES(s_sparse, D2 * D3, D1 * D3)
static void sparse(xkd_backend *be, void **t, const int64_t *d, bool accumulate)
{
    int32_t start[MOST_TOKENS], index[MOST_TOKENS];
    double weight[MOST_TOKENS];
    for (int64_t r = 0; r <= D2; r++) start[r] = (int32_t)(2 * r);
    for (int64_t k = 0; k < 2 * D2; k++) {
        index[k] = (int32_t)(3 * k % D1);
        weight[k] = 0.25 + 0.01 * (double)k;
    }
    xkd_sparse_rows rows = {D2, D1, lend(be, start, (D2 + 1) * (int64_t)sizeof *start),
                            lend(be, index, 2 * D2 * (int64_t)sizeof *index),
                            lend(be, weight, 2 * D2 * (int64_t)sizeof *weight)};
    OPS->sparse_rows(be, t[0], t[1], &rows, D3, accumulate);
}
RUN(r_sparse, sparse(be, t, d, false))
RUN(r_sparse_add, sparse(be, t, d, true))
/* Refinement: B N M D, two heads. Attention is positive. */
SIZES(s_refine, D0 * D3, D0 * D2 * 2, D0 * D1 * 2, D0 * (D1 + 1) * D3, D0 * 2 * D1, D0 * 2 * D2)
static void refine(xkd_backend *be, void **t, const int64_t *d, bool softmax)
{
    be->exact->gelu_forward(be, t[2], t[4], D0 * 2 * D1); /* some numbers that are not symmetric about 0 */
    be->exact->gelu_forward(be, t[1], t[5], D0 * 2 * D2);
    xkd_refine_args a = {.features = t[3], .self_attn = t[2], .other_attn = t[1], .B = D0, .tokens = D1 + 1, .D = D3,
                         .H = 2, .N = D1, .M = D2, .softmax = softmax};
    OPS->refine_pool(be, t[0], &a);
}
RUN(r_refine_mean, refine(be, t, d, false))
RUN(r_refine_softmax, refine(be, t, d, true))

/* Losses: R or views, B, K. */
SIZES(s_mse, 1, D0 * D1, D0 * D1)
RUN(r_mse, OPS->mse_forward(be, t[0], t[1], t[2], D0 * D1))
RUN(r_mse_back, OPS->mse_backward(be, t[0], t[1], t[2], 0.7, D0 * D1))
#define KD_SHAPES {{2, 2, 5}, {6, 3, 40}, {4, 1, 1000}}
static const double TEMPERATURES[] = {0.5, 0.3};
#define KD_ARGS                                                                                                        \
    const double *temps = lend(be, TEMPERATURES, sizeof TEMPERATURES);                                                 \
    xkd_kd_args a = {t[4], t[5], t[6], temps, temps + 1, D0, D1, D2}
SIZES(s_kd, 1, 1, D0, D1, D0 * D2, D1 * D2, D2)
RUN(r_kd, KD_ARGS; OPS->kd_forward(be, t[0], t[1], t[2], t[3], &a))
SIZES(s_kd_back, D0 * D2, 2, D0, D1, D0 * D2, D1 * D2, D2)
RUN(r_kd_back, KD_ARGS; OPS->kd_forward(be, t[1], (double *)t[1] + 1, t[2], t[3], &a);
    OPS->kd_backward(be, t[0], &a, t[2], t[3], 0.7))
/* Alignment: views_x views_y B K, all samples but the first. */
#define ALIGN_SHAPES {{1, 1, 3, 6}, {2, 3, 4, 40}, {4, 1, 3, 64}, {2, 1, 11, 1037}}
#define AN ((D0 + D1) * (D2 - 1))
#define ALIGN_ARGS(x, y) xkd_align_sides a = {x, y, D0, D1, D2, D3, 1, D2 - 1, 3}
SIZES(s_mmd, 1, AN * AN, D0 * D2 * D3, D1 * D2 * D3)
RUN(r_mmd, ALIGN_ARGS(t[2], t[3]); OPS->mmd_forward(be, t[0], t[1], &a))
SIZES(s_mmd_back, D0 * D2 * D3, D1 * D2 * D3, 1, AN * AN, D0 * D2 * D3, D1 * D2 * D3)
RUN(r_mmd_back, ALIGN_ARGS(t[4], t[5]); OPS->mmd_forward(be, t[2], t[3], &a);
    OPS->mmd_backward(be, t[0], t[1], t[3], &a, 0.7))
SIZES(s_coral, 1, AN * AN, AN * D3, D0 * D2 * D3, D1 * D2 * D3)
RUN(r_coral, ALIGN_ARGS(t[3], t[4]); OPS->coral_forward(be, t[0], t[1], t[2], &a))
SIZES(s_coral_back, D0 * D2 * D3, D1 * D2 * D3, 1, AN * AN, AN * D3, D0 * D2 * D3, D1 * D2 * D3)
RUN(r_coral_back, ALIGN_ARGS(t[5], t[6]); OPS->coral_forward(be, t[2], t[3], t[4], &a);
    OPS->coral_backward(be, t[0], t[1], t[3], t[4], &a, 0.7))
static int64_t by_k(const int64_t *d) { return d[3]; }

/* Optimiser: D0*D1 elements; v is squared first, because second moments are not negative. */
SIZES(s_adamw, D0 * D1, D0 * D1, D0 * D1, D0 * D1, D0 * D1, D0 * D1, 1)
/* A gradient too large for the clip, and an average alone. */
static void adamw(xkd_backend *be, void **t, const int64_t *d, double finite, bool copies)
{
    const double squares[] = {4, 0};
    square(be, t[2], be->exact_dtype, D0 * D1);
    enum { LR, DECAY, MOMENTUM };
    const double numbers[] = {0.02, 0.3, 0.9, 0.8, 0.7}, steps = 1;
    double *n = lend(be, numbers, sizeof numbers), *counter = t[copies ? 9 : 6];
    xkd_memory_upload(be->memory, counter, &steps, sizeof steps);
    xkd_adamw_args a = {.p = t[0], .m = t[1], .v = t[2], .g = t[4], .ema = {t[3], t[3]},
                        .ema_momentum = {n + MOMENTUM, n + MOMENTUM + 1}, .n = D0 * D1, .clip = 1, .lr_scale = 0.5,
                        .lr = n + LR, .weight_decay = n + DECAY, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8,
                        .steps = counter};
    xkd_adamw_args list[] = {a, {.p = t[0], .ema = {t[5]}, .ema_momentum = {n + MOMENTUM + 2}, .n = D0 * D1}};
    if (copies && be->dtype == XKD_BF16) {
        list[0].stored = t[6];
        list[0].ema_stored[0] = list[0].ema_stored[1] = t[7];
        list[1].ema_stored[0] = t[8];
    }
    OPS->adamw(be, list, 2, lend(be, squares, sizeof squares), lend(be, &finite, sizeof finite));
    /* Where both kinds are of one type there are no copies, and what they should be is the masters. */
    for (int i = 0; copies && be->dtype != XKD_BF16 && i < 3; i++)
        OPS->axpby(be, t[6 + i], t[(int[]){0, 3, 5}[i]], 1, 0, D0 * D1);
}
SIZES(s_adamw_copies, D0 * D1, D0 * D1, D0 * D1, D0 * D1, D0 * D1, D0 * D1, D0 * D1, D0 * D1, D0 * D1, 1)
RUN(r_adamw_copies, adamw(be, t, d, 1, true))
RUN(r_adamw, adamw(be, t, d, 1, false))
RUN(r_adamw_not_finite, adamw(be, t, d, 0, false))
SIZES(s_centre, D0 * D1, D0 * D1, 1)
RUN(r_centre, xkd_memory_upload(be->memory, t[2], &(double){1}, sizeof(double)); OPS->centre(be, t[0], t[1], 0.9, 3, D0 * D1, t[2]))
RUN(r_centre_not_finite, xkd_memory_upload(be->memory, t[2], &(double){0}, sizeof(double)); OPS->centre(be, t[0], t[1], 0.9, 3, D0 * D1, t[2]))
RUN(r_multiply, OPS->multiply(be, t[0], t[1], floats(be, D0 * D1, 0.5f), D0 * D1))
RUN(r_to_double, OPS->to_double(be, t[0], t[1], D0 * D1))
RUN(r_from_double, OPS->to_double(be, t[1], t[2], D0 * D1); OPS->from_double(be, t[0], t[1], D0 * D1))
/* Batch norm: B D. */
#define BATCH_SHAPES {{2, 1}, {5, 7}, {9, 33}, {32, 300}}
#define BATCHNORM(mean, inv, mean_run, var_run, x, w, b)                                                               \
    xkd_batchnorm_args a = {x, w, b, mean, inv, {mean_run, var_run}, 1e-5, 0.1, D0, D1}
SIZES(s_batchnorm, D0 * D1, D1, D1, D1, D1, D0 * D1, D1, D1)
RUN(r_batchnorm, BATCHNORM(t[1], t[2], t[3], t[4], t[5], t[6], t[7]); OPS->batchnorm_forward(be, t[0], &a))
SIZES(s_batchnorm_apply, D0 * D1, D1, D1, D0 * D1, D1, D1)
RUN(r_batchnorm_apply, BATCHNORM(NULL, NULL, t[1], t[2], t[3], t[4], t[5]); square(be, t[2], XKD_F64, D1);
    OPS->batchnorm_apply(be, t[0], &a))
SIZES(s_batchnorm_back, D0 * D1, D1, D1, D1, D1, D1, D1, D0 * D1, D0 * D1, D1)
RUN(r_batchnorm_back, BATCHNORM(t[3], t[4], t[5], t[6], t[7], t[9], t[9]); OPS->batchnorm_forward(be, t[0], &a);
    OPS->batchnorm_backward(be, t[0], t[1], t[2], t[8], &a))
/* Classifiers: B K. Targets are 0, 0.3, 0.6 and so on. */
SIZES(s_classify, 1, D0 * D1, D0 * D1)
RUN(r_softmax, OPS->classify(be, t[0], t[1], t[2], floats(be, D0 * D1, 0.3f), XKD_CLASSIFY_SOFTMAX, D0, D1))
RUN(r_sigmoid, OPS->classify(be, t[0], t[1], t[2], floats(be, D0 * D1, 0.15f), XKD_CLASSIFY_SIGMOID, D0, D1))
static void scores(xkd_backend *be, void **t, const int64_t *d, xkd_classify_kind kind)
{
    static double wide[MOST_FLOATS];
    float *out = floats(be, D0 * D1, 0);
    OPS->classify_scores(be, out, t[1], kind, D0, D1);
    const float *scores = fetch(be, out, D0 * D1 * (int64_t)sizeof *scores);
    for (int64_t i = 0; i < D0 * D1; i++) wide[i] = (double)scores[i];
    xkd_memory_upload(be->memory, t[0], wide, D0 * D1 * (int64_t)sizeof *wide);
}
RUN(r_softmax_scores, scores(be, t, d, XKD_CLASSIFY_SOFTMAX))
RUN(r_sigmoid_scores, scores(be, t, d, XKD_CLASSIFY_SIGMOID))
SIZES(s_energy, 2, D0 * D1)
RUN(r_energy, OPS->column_energy(be, t[0], t[1], D0, D1))
RUN(r_axpby, OPS->axpby(be, t[0], t[1], 0.3, -0.6, D0 * D1))
RUN(r_scale, OPS->axpby(be, t[0], t[1], 0.3, 0, D0 * D1))
RUN(r_fill, OPS->fill(be, t[0], 0.125, D0 * D1))
SIZES(s_norms, 2, 1, D0 * D1)
static void norms(xkd_backend *be, void **t, const int64_t *d, double scalar)
{
    const xkd_vector list[] = {{t[2], D0 * D1}, {NULL, 0}};
    const double scalars[] = {1, scalar};
    OPS->norms(be, t[0], t[1], list, 2, lend(be, scalars, sizeof scalars), 2);
}
RUN(r_norms, norms(be, t, d, 2))
RUN(r_norms_scalar, norms(be, t, d, INFINITY))
/* Views: B T H W and the sides of the largest box, or B F columns n_fft hop. What each clip is changed by is drawn, but for the
 * sizes of its box: the largest, the smallest, and others. */
enum { MOST_BYTES = 1 << 20, SOUND_RATE = 4000, CANVAS = 3 };
static double between(xkd_rng *rng, double low, double high) { return xkd_rng_range(rng, low, high); }
static xkd_video_change draw_video(xkd_rng *rng, int64_t b, const int64_t *d)
{
    int64_t order[XKD_COLOURS] = {0, 1, 2, 3};
    xkd_video_change c = {.height = (int32_t)(b == 0 ? d[4] : b == 1 ? 1 : 1 + xkd_rng_below(rng, d[4])),
                          .width = (int32_t)(b == 0 ? d[4] : b == 1 ? 1 : 1 + xkd_rng_below(rng, d[4])),
                          .flip = b % 2,
                          .grey = b % 5 == 4,
                          .colours = (int32_t)(b % (XKD_COLOURS + 1))};
    xkd_rng_shuffle(rng, order, XKD_COLOURS);
    for (int i = 0; i < XKD_COLOURS; i++) {
        c.colour[i] = (int32_t)order[i];
        c.factor[i] = order[i] == XKD_HUE ? between(rng, -0.5, 0.5) : between(rng, 0, 2);
    }
    if (b % 3 == 2) return c;
    c.taps = (int32_t)xkd_image_blur_taps(5, d[2], d[3]);
    xkd_image_blur_weights(c.taps, between(rng, 0.1, 2), c.along_x);
    xkd_image_blur_weights(c.taps, between(rng, 0.1, 2), c.along_y);
    return c;
}
/* Floats that a view left, as doubles. */
static void widen(xkd_backend *be, void *out, const float *view, int64_t n)
{
    static double wide[MOST_HOST];
    const float *floats = fetch(be, view, n * (int64_t)sizeof *floats);
    for (int64_t i = 0; i < n; i++) wide[i] = (double)floats[i];
    xkd_memory_upload(be->memory, out, wide, n * (int64_t)sizeof *wide);
}
SIZES(s_video_view, D0 * 3 * D1 * D2 * D3)
static void video_view(xkd_backend *be, void **t, const int64_t *d)
{
    static uint8_t bytes[MOST_BYTES];
    static xkd_video_change changes[16];
    int64_t used = 0, n = D0 * 3 * D1 * D2 * D3;
    for (int64_t b = 0; b < D0; b++) {
        xkd_rng rng = xkd_rng_make(5, 0, (uint32_t)b, (uint32_t)d[4], XKD_RNG_TEST);
        changes[b] = draw_video(&rng, b, d);
        changes[b].at = used;
        int64_t size = 3 * D1 * changes[b].height * changes[b].width;
        /* Smooth pictures and noise; some are grey, whose hue is none. */
        for (int64_t i = 0; i < size; i++)
            bytes[used + i] = (uint8_t)(b % 4 == 0 ? xkd_rng_below(&rng, 256) : b % 4 == 3 ? i / 3 : i * 7 + i % 3 * 80);
        used += size;
    }
    float *clip = room(be, n * (int64_t)sizeof *clip);
    xkd_video_view_args a = {lend(be, bytes, used), lend(be, changes, (int64_t)sizeof changes), D0, D1, D2, D3, D4, D4};
    OPS->video_view(be, clip, &a);
    widen(be, t[0], clip, n);
}
static xkd_audio_change draw_audio(xkd_rng *rng, int64_t b, const int64_t *d)
{
    xkd_audio_change c = {.gain = (float)between(rng, 0.5, 1.5),
                          .warp = b % 2,
                          .crop = b % 3 != 1,
                          .canvas_height = (int32_t)(D1 + b % CANVAS),
                          .canvas_width = (int32_t)(D2 + b % CANVAS * 2)};
    c.warp_centre = 1 + (int32_t)xkd_rng_below(rng, D2 - 1);
    c.warp_to = 1 + (int32_t)xkd_rng_below(rng, D2 - 1);
    c.height = 1 + (int32_t)xkd_rng_below(rng, c.canvas_height);
    c.width = 1 + (int32_t)xkd_rng_below(rng, c.canvas_width);
    c.top = (int32_t)xkd_rng_below(rng, c.canvas_height - c.height + 1);
    c.left = (int32_t)xkd_rng_below(rng, c.canvas_width - c.width + 1);
    return c;
}
SIZES(s_audio_view, D0 * D1 * D2)
static void audio_view(xkd_backend *be, void **t, const int64_t *d)
{
    static int16_t sound[MOST_BYTES];
    static xkd_audio_change changes[16];
    xkd_mel *mel = NULL;
    int64_t samples = (D2 - 1) * D4 + D4 / 2, n = D0 * D1 * D2;
    for (int64_t b = 0; b < D0; b++) {
        xkd_rng rng = xkd_rng_make(6, 0, (uint32_t)b, (uint32_t)D3, XKD_RNG_TEST);
        changes[b] = draw_audio(&rng, b, d);
        changes[b].at = 2 * b * samples;
        /* A loud tone and quiet noise, noise alone, and silence behind its middle. */
        for (int64_t i = 0; i < samples; i++) {
            double tone = b % 3 == 0 ? 30000 * sin(0.3 * (double)i) : 0, noise = 20 * xkd_rng_normal(&rng);
            sound[b * samples + i] = (int16_t)(b % 3 == 2 && i > samples / 2 ? 0 : tone + noise);
        }
    }
    if (xkd_mel_new(be->cx, SOUND_RATE, D3, D4, D1, &mel) != XKD_OK) return; /* the output stays NaN */
    float *spec = room(be, n * (int64_t)sizeof *spec);
    xkd_audio_view_args a = {.from = lend(be, sound, 2 * D0 * samples),
                             .change = lend(be, changes, (int64_t)sizeof changes),
                             .tables = xkd_mel_tables_of(mel),
                             .B = D0,
                             .shape = {samples, D1, D2, -4, 4},
                             .canvas_height = D1 + CANVAS,
                             .canvas_width = D2 + 2 * CANVAS};
    OPS->audio_view(be, spec, &a);
    widen(be, t[0], spec, n);
    xkd_mel_free(mel);
}
/* One step of a byte is 1.7e-2 in the clip: far more than is allowed. Spectrograms, of size 2 to 4, may be off by 1e-3. */
#define VIDEO_VIEW_SHAPES {{1, 1, 4, 4, 6}, {6, 2, 9, 7, 12}, {12, 1, 16, 20, 25}, {5, 1, 8, 8, 8}, {7, 2, 33, 31, 12}}
#define AUDIO_VIEW_SHAPES {{1, 4, 5, 64, 20}, {7, 12, 30, 256, 50}, {3, 8, 9, 96, 30}}

#define FLAT_SHAPES {{1, 1}, {3, 11}, {250, 300}}

const operation operations[] = {
    {"video_view", "d", s_video_view, video_view, one, VIDEO_VIEW_SHAPES, 0},
    {"audio_view", "d", s_audio_view, audio_view, one, AUDIO_VIEW_SHAPES, 250},
    {"linear_forward", "oiii", s_linear, r_linear, by_d2, LINEAR_SHAPES, 0},
    {"linear_forward without bias", "oii", s_linear_plain, r_linear_plain, by_d2, LINEAR_SHAPES, 0},
    {"linear_gelu_forward", "osiii", s_linear_gelu, r_linear_gelu, by_d2, LINEAR_SHAPES, 0},
    {"linear_residual_forward", "OIiiI", s_linear_residual, r_linear_residual, by_d2, LINEAR_SHAPES, 0},
    {"linear_residual_forward in place", "AiiI", s_linear_in_place, r_linear_in_place, by_d2, LINEAR_SHAPES, 0},
    {"linear_backward_data", "oii", s_backward_data, r_backward_data, by_d1, LINEAR_SHAPES, 0},
    {"linear_gelu_backward_data", "osiii", s_gelu_data, r_gelu_data, by_d1, LINEAR_SHAPES, 0},
    {"linear_gelu_backward_data in place", "oaii", s_gelu_data_in_place, r_gelu_data_in_place, by_d1, LINEAR_SHAPES, 0},
    {"linear_backward_weight", "AAii", s_backward_weight, r_backward_weight, by_d0, LINEAR_SHAPES, 0},
    {"layernorm_forward", "oSSiII", s_ln, r_ln, by_d1, ROW_SHAPES, 50},
    {"residual_layernorm_forward", "ooSSIII", s_residual_ln, r_residual_ln, by_d1, ROW_SHAPES, 50},
    {"residual_layernorm_forward without a copy", "oSSIII", s_residual_ln_alone, r_residual_ln_alone, by_d1, ROW_SHAPES, 50},
    {"layernorm_forward without affine", "oSSi", s_ln_plain, r_ln_plain, by_d1, ROW_SHAPES, 50},
    {"layernorm_backward", "oAASSiiiII", s_ln_back, r_ln_back, by_d1, ROW_SHAPES, 200},
    {"layernorm_backward without affine, in place", "aSSi", s_ln_back_plain, r_ln_back_plain, by_d1, ROW_SHAPES, 200},
    {"gelu_forward", "oi", s_two, r_gelu, one, FLAT_SHAPES, 0},
    {"gelu_backward", "oii", s_three, r_gelu_back, one, FLAT_SHAPES, 0},
    {"l2norm_forward", "OSi", s_l2, r_l2, by_d1, ROW_SHAPES, 0},
    {"l2norm_backward", "oSSIi", s_l2_back, r_l2_back, by_d1, ROW_SHAPES, 10},
    {"weightnorm_forward", "OSII", s_wn, r_wn, by_d1, ROW_SHAPES, 0},
    {"weightnorm_backward", "ASSIII", s_wn_back, r_wn_back, by_d1, ROW_SHAPES, 10},
    {"attention_forward", "oSi", s_attention, r_attention, by_d1, ATTENTION_SHAPES, 4},
    {"attention_backward", "osSii", s_attention_back, r_attention_back, by_d1, ATTENTION_SHAPES, 20},
    {"attention_probe of the class token", "OsSi", s_probe, r_probe_cls, by_d1, ATTENTION_SHAPES, 4},
    {"attention_probe mean", "OsSi", s_probe, r_probe_mean, by_d1, ATTENTION_SHAPES, 4},
    {"patchify of kept tokens", "oi", s_patches, r_patches, one, PATCH_SHAPES, 0},
    {"patchify of all", "oi", s_patches_all, r_patches_all, one, PATCH_SHAPES, 0},
    {"add_positions", "OiII", s_positions, r_positions, one, TOKEN_SHAPES, 0},
    {"add_positions of all tokens", "OiI", s_positions_all, r_positions_all, one, TOKEN_SHAPES, 0},
    {"add_positions_backward", "oAAi", s_positions_back, r_positions_back, by_d0, TOKEN_SHAPES, 0},
    {"unmask_forward", "OiII", s_unmask, r_unmask, one, TOKEN_SHAPES, 0},
    {"unmask_backward", "oAAi", s_unmask_back, r_unmask_back, by_total, TOKEN_SHAPES, 0},
    {"gather_rows", "oI", s_gather, r_gather, one, TOKEN_SHAPES, 0},
    {"scatter_rows", "oi", s_scatter, r_scatter, one, TOKEN_SHAPES, 0},
    {"pool_forward", "Oi", s_pool, r_pool, by_d1, TOKEN_SHAPES, 0},
    {"pool_forward of one token", "Oi", s_pool, r_pool_first, one, TOKEN_SHAPES, 0},
    {"scale_sequences", "oi", s_scale, r_scale_sequences, one, TOKEN_SHAPES, 0},
    {"scale_sequences in place", "a", s_scale_in_place, r_scale_in_place, one, TOKEN_SHAPES, 0},
    {"add_sequences", "AiI", s_add_sequences, r_add_sequences, one, TOKEN_SHAPES, 0},
    {"pool_backward", "aI", s_pool_back, r_pool_back, one, TOKEN_SHAPES, 0},
    {"sparse_rows", "oi", s_sparse, r_sparse, one, TOKEN_SHAPES, 0},
    {"sparse_rows accumulating", "ai", s_sparse, r_sparse_add, one, TOKEN_SHAPES, 0},
    {"refine_pool mean", "OSSiII", s_refine, r_refine_mean, by_d1, TOKEN_SHAPES, 2000},
    {"refine_pool softmax", "OSSiII", s_refine, r_refine_softmax, by_d1, TOKEN_SHAPES, 50},
    {"patch_normalize", "A", s_one, r_patch_normalize, by_d1, ROW_SHAPES, 50},
    {"mse_forward", "diI", s_mse, r_mse, one, FLAT_SHAPES, 0},
    {"mse_backward", "oiI", s_three, r_mse_back, one, FLAT_SHAPES, 0},
    {"kd_forward", "ddSSIII", s_kd, r_kd, by_d2, KD_SHAPES, 10},
    {"kd_backward", "AdSSIII", s_kd_back, r_kd_back, by_d2, KD_SHAPES, 10},
    {"mmd_forward", "edII", s_mmd, r_mmd, by_k, ALIGN_SHAPES, 10},
    {"mmd_backward", "AAedII", s_mmd_back, r_mmd_back, by_k, ALIGN_SHAPES, 10},
    {"coral_forward", "edSII", s_coral, r_coral, by_k, ALIGN_SHAPES, 10},
    {"coral_backward", "AAedSII", s_coral_back, r_coral_back, by_k, ALIGN_SHAPES, 10},
    {"column_sum", "AI", s_column_sum, r_column_sum, by_d0, ROW_SHAPES, 0},
    {"column_energy", "dI", s_energy, r_energy, by_total, ROW_SHAPES, 0},
    {"batchnorm_forward", "OddeeIII", s_batchnorm, r_batchnorm, by_d0, BATCH_SHAPES, 50},
    {"batchnorm_apply", "OeeIII", s_batchnorm_apply, r_batchnorm_apply, one, BATCH_SHAPES, 50},
    {"batchnorm_backward", "OAAddeeIII", s_batchnorm_back, r_batchnorm_back, by_d0, BATCH_SHAPES, 500},
    {"classify one class", "dOI", s_classify, r_softmax, by_d1, ROW_SHAPES, 10},
    {"classify several classes", "dOI", s_classify, r_sigmoid, one, ROW_SHAPES, 10},
    {"classify_scores one class", "dI", s_two, r_softmax_scores, by_d1, ROW_SHAPES, 0},
    {"classify_scores several classes", "dI", s_two, r_sigmoid_scores, one, ROW_SHAPES, 0},
    {"norms", "ddI", s_norms, r_norms, one, FLAT_SHAPES, 0},
    {"norms with a scalar that is not finite", "ddI", s_norms, r_norms_scalar, one, FLAT_SHAPES, 0},
    {"adamw", "AAAAIAe", s_adamw, r_adamw, one, FLAT_SHAPES, 10},
    {"adamw with working copies", "AAAAIAoooe", s_adamw_copies, r_adamw_copies, one, FLAT_SHAPES, 10},
    {"adamw where something is not finite", "AAAAIAe", s_adamw, r_adamw_not_finite, one, FLAT_SHAPES, 0},
    {"centre", "AId", s_centre, r_centre, one, FLAT_SHAPES, 0},
    {"centre where something is not finite", "AId", s_centre, r_centre_not_finite, one, FLAT_SHAPES, 0},
    {"multiply", "OI", s_two, r_multiply, one, FLAT_SHAPES, 0},
    {"to_double", "dI", s_two, r_to_double, one, FLAT_SHAPES, 0},
    {"from_double", "OdI", s_three, r_from_double, one, FLAT_SHAPES, 0},
    {"axpby", "ai", s_two, r_axpby, one, FLAT_SHAPES, 0},
    {"axpby without y", "oi", s_two, r_scale, one, FLAT_SHAPES, 0},
    {"fill", "o", s_one, r_fill, one, FLAT_SHAPES, 0},
};

const int operation_count = sizeof operations / sizeof *operations;
