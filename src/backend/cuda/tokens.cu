/* What moves, fills, interpolates and pools tokens: one element of the output a time. */
#include "kernel.h"
#include "state.h"

/* ---- patches and positions ---- */

template <class T> struct patch_element {
    T *out;
    const float *clip;
    const int32_t *keep;
    int64_t M, P;
    xkd_patch_geometry g;
    /* A patch is (t,h,w,c) with c fastest. */
    __device__ void operator()(int64_t i) const
    {
        int64_t p = i % P, m = i / P % M, b = i / P / M, nh = g.H / g.ph, nw = g.W / g.pw;
        int64_t token = keep ? keep[b * M + m] : m, c = p % g.C, w = p / g.C % g.pw, h = p / g.C / g.pw % g.ph;
        int64_t t = p / g.C / g.pw / g.ph + token / (nh * nw) * g.pt;
        h += token / nw % nh * g.ph;
        w += token % nw * g.pw;
        set(out, i, clip[(((b * g.C + c) * g.T + t) * g.H + h) * g.W + w]);
    }
};

template <class T>
static void patchify(xkd_backend *be, void *out, const float *clip, const int32_t *keep, int64_t M,
                     const xkd_patch_geometry *g)
{
    int64_t P = xkd_patch_length(g), n = g->B * M * P;
    if (!cuda_begin(be, __func__, n * (int64_t)(sizeof(T) + sizeof(float)), 0)) return;
    cuda_each(be, __func__, patch_element<T>{(T *)out, clip, keep, M, P, *g}, n);
}

template <class T> struct position_element {
    float *x;
    const T *e;
    const float *cls, *pos;
    const int32_t *keep;
    int64_t M, D, c;
    __device__ void operator()(int64_t i) const
    {
        int64_t d = i % D, m = i / D % (M + c) - c, b = i / D / (M + c);
        if (m < 0) {
            x[i] = cls[d] + pos[d];
            return;
        }
        int64_t place = c + (keep ? keep[b * M + m] : m);
        x[i] = get(e, (b * M + m) * D + d) + pos[place * D + d];
    }
};

template <class T>
static void add_positions(xkd_backend *be, void *x, const void *e, const void *cls, const void *pos,
                          const int32_t *keep, int64_t B, int64_t M, int64_t D)
{
    int64_t c = cls ? 1 : 0, n = B * (M + c) * D;
    if (!cuda_begin(be, __func__, n * (int64_t)(sizeof(T) + 2 * sizeof(float)), n)) return;
    cuda_each(be, __func__,
              position_element<T>{(float *)x, (const T *)e, (const float *)cls, (const float *)pos, keep, M, D, c}, n);
}

/* The gradient of the table. Tokens of one sample stand at different places, those of different samples at the same ones, so
 * samples are added one after the other: a block has COLUMNS columns, and its threads the tokens. */
enum { COLUMNS = 32, TOKENS = 16 };

template <class T> struct position_grad {
    T *de;
    float *dcls, *dpos;
    const T *dx;
    const int32_t *keep;
    int64_t B, M, D, c;
};

template <class T> __global__ void position_gradient(position_grad<T> a)
{
    int64_t d = (int64_t)blockIdx.x * COLUMNS + threadIdx.x;
    for (int64_t b = 0; b < a.B; b++) {
        const T *dx = a.dx + b * (a.M + a.c) * a.D;
        for (int64_t m = (int64_t)threadIdx.y - a.c; d < a.D && m < a.M; m += TOKENS) {
            float g = get(dx, (a.c + m) * a.D + d);
            int64_t place = m < 0 ? 0 : a.c + (a.keep ? a.keep[b * a.M + m] : m);
            a.dpos[place * a.D + d] += g;
            if (m < 0)
                a.dcls[d] += g;
            else
                set(a.de, (b * a.M + m) * a.D + d, g);
        }
        __syncthreads();
    }
}

template <class T>
static void add_positions_backward(xkd_backend *be, void *de, void *dcls, void *dpos, const void *dx,
                                   const int32_t *keep, int64_t B, int64_t M, int64_t D)
{
    int64_t c = dcls ? 1 : 0, n = B * (M + c) * D;
    if (!cuda_begin(be, __func__, n * (int64_t)(2 * sizeof(T) + 2 * sizeof(float)), n)) return;
    LAUNCH(be, position_gradient<T>, blocks_for(D, COLUMNS), dim3(COLUMNS, TOKENS), 0,
           position_grad<T>{(T *)de, (float *)dcls, (float *)dpos, (const T *)dx, keep, B, M, D, c});
}

/* ---- masks ---- */

template <class T> struct unmask_element {
    float *x;
    const T *z;
    const float *mask, *pos;
    const int32_t *rank;
    int64_t N, M, D, c;
    __device__ void operator()(int64_t i) const
    {
        int64_t d = i % D, n = i / D % (N + c) - c, b = i / D / (N + c), kept = n < 0 ? -c : rank[b * N + n];
        float value = n >= 0 && kept < 0 ? mask[d] : get(z, (b * (M + c) + c + kept) * D + d);
        x[i] = value + pos[(c + n) * D + d];
    }
};

template <class T>
static void unmask_forward(xkd_backend *be, void *x, const void *z, const void *mask_token, const void *pos,
                           const xkd_unmask_args *a)
{
    int64_t c = a->cls ? 1 : 0, n = a->B * (a->N + c) * a->D;
    int64_t bytes = 2 * n * (int64_t)sizeof(float) + a->B * (a->M + c) * a->D * (int64_t)sizeof(T);
    if (!cuda_begin(be, __func__, bytes, n)) return;
    cuda_each(be, __func__,
              unmask_element<T>{(float *)x, (const T *)z, (const float *)mask_token, (const float *)pos, a->rank, a->N,
                                a->M, a->D, c},
              n);
}

/* One place and column over all samples: kept rows go back to z, the sum over all to the table, that over the masked ones to
 * `masked` [N,D], which is summed over places afterwards. */
template <class T> struct unmask_gradient {
    T *dz;
    float *masked, *dpos;
    const T *dx;
    const int32_t *rank;
    int64_t B, N, M, D, c;
    __device__ void operator()(int64_t i) const
    {
        int64_t d = i % D, n = i / D - c;
        float all = 0, hidden = 0;
        for (int64_t b = 0; b < B; b++) {
            float g = get(dx, (b * (N + c) + c + n) * D + d);
            int64_t kept = n < 0 ? -c : rank[b * N + n];
            all += g;
            if (n >= 0 && kept < 0)
                hidden += g;
            else
                set(dz, (b * (M + c) + c + kept) * D + d, g);
        }
        dpos[i] += all;
        if (n >= 0) masked[n * D + d] = hidden;
    }
};

template <class T>
static void unmask_backward(xkd_backend *be, void *dz, void *dmask, void *dpos, const void *dx,
                            const xkd_unmask_args *a)
{
    int64_t c = a->cls ? 1 : 0, n = a->B * (a->N + c) * a->D;
    if (!cuda_begin(be, __func__, (n + a->B * (a->M + c) * a->D) * (int64_t)sizeof(T), n)) return;
    /* cuda_column_sum takes scratch of its own, and so must not find its operand there: it is behind what that needs. */
    int64_t partial = (a->N + 255) / 256 * a->D * (int64_t)sizeof(float), room = a->N * a->D * (int64_t)sizeof(float);
    char *scratch = (char *)cuda_scratch(be, partial + room);
    if (!scratch) return;
    float *masked = (float *)(scratch + partial);
    cuda_each(be, __func__,
              unmask_gradient<T>{(T *)dz, masked, (float *)dpos, (const T *)dx, a->rank, a->B, a->N, a->M, a->D, c},
              (a->N + c) * a->D);
    cuda_column_sum(be, (float *)dmask, masked, a->N, a->D);
}

/* ---- rows ---- */

template <class T> struct gather_element {
    T *out;
    const float *in;
    const int32_t *index;
    int64_t D;
    __device__ void operator()(int64_t i) const
    {
        set(out, i, in[index[i / D] * D + i % D]);
    }
};

template <class T>
static void gather_rows(xkd_backend *be, void *out, const void *in, const int32_t *index, int64_t n, int64_t D)
{
    if (!cuda_begin(be, __func__, n * D * (int64_t)(sizeof(T) + sizeof(float)), 0)) return;
    cuda_each(be, __func__, gather_element<T>{(T *)out, (const float *)in, index, D}, n * D);
}

template <class T> struct scatter_element {
    T *din;
    const T *dout;
    const int32_t *index;
    int64_t D;
    __device__ void operator()(int64_t i) const
    {
        din[index[i / D] * D + i % D] = dout[i];
    }
};

template <class T>
static void scatter_rows(xkd_backend *be, void *din, const void *dout, const int32_t *index, int64_t n, int64_t rows,
                         int64_t D)
{
    if (!cuda_begin(be, __func__, (rows + 2 * n) * D * (int64_t)sizeof(T), 0)) return;
    be->memory->zero(be->memory, din, rows * D * (int64_t)sizeof(T));
    cuda_each(be, __func__, scatter_element<T>{(T *)din, (const T *)dout, index, D}, n * D);
}

template <class T> struct sparse_element {
    T *out;
    const T *in;
    const int32_t *start, *index;
    const double *weight;
    int64_t D;
    bool accumulate;
    __device__ void operator()(int64_t i) const
    {
        int64_t r = i / D;
        float sum = accumulate ? get(out, i) : 0;
        for (int32_t k = start[r]; k < start[r + 1]; k++) sum += (float)weight[k] * get(in, index[k] * D + i % D);
        set(out, i, sum);
    }
};

template <class T>
static void sparse_rows(xkd_backend *be, void *out, const void *in, const xkd_sparse_rows *s, int64_t D,
                        bool accumulate)
{
    if (!cuda_begin(be, __func__, (s->rows_out + s->rows_in) * D * (int64_t)sizeof(T), 0)) return;
    cuda_each(be, __func__, sparse_element<T>{(T *)out, (const T *)in, s->start, s->index, s->weight, D, accumulate},
              s->rows_out * D);
}

template <class T> struct pool_element {
    float *y;
    const T *x;
    int64_t tokens, D, first, last;
    __device__ void operator()(int64_t i) const
    {
        float sum = 0;
        for (int64_t n = first; n < last; n++) sum += get(x, (i / D * tokens + n) * D + i % D);
        y[i] = sum / (float)(last - first);
    }
};

template <class T>
static void pool_forward(xkd_backend *be, void *y, const void *x, int64_t B, int64_t tokens, int64_t D, int64_t first,
                         int64_t last)
{
    if (!cuda_begin(be, __func__, B * (last - first) * D * (int64_t)sizeof(T), 0)) return;
    cuda_each(be, __func__, pool_element<T>{(float *)y, (const T *)x, tokens, D, first, last}, B * D);
}

template <class T> struct pool_gradient {
    T *dx;
    const float *dy;
    int64_t tokens, D, first, count;
    __device__ void operator()(int64_t i) const
    {
        int64_t b = i / D / count, at = (b * tokens + first + i / D % count) * D + i % D;
        set(dx, at, get(dx, at) + dy[b * D + i % D] / (float)count);
    }
};

template <class T>
static void pool_backward(xkd_backend *be, void *dx, const void *dy, int64_t B, int64_t tokens, int64_t D,
                          int64_t first, int64_t last)
{
    if (!cuda_begin(be, __func__, 2 * B * (last - first) * D * (int64_t)sizeof(T), 0)) return;
    cuda_each(be, __func__, pool_gradient<T>{(T *)dx, (const float *)dy, tokens, D, first, last - first},
              B * (last - first) * D);
}

/* Elements [0, n) of one segment. */
template <class T> struct scale_element {
    T *y;
    const T *x;
    const float *factor;
    int64_t each;
    __device__ void operator()(int64_t i) const
    {
        set(y, i, factor[i / each] * get(x, i));
    }
};

template <class T> struct add_scaled_element {
    float *y;
    const T *x;
    const float *factor, *b;
    int64_t each, D;
    __device__ void operator()(int64_t i) const
    {
        y[i] += factor[i / each] * (get(x, i) + b[i % D]);
    }
};

template <class T>
static void scale_sequences(xkd_backend *be, void *y, const void *x, const float *factor, const xkd_segments *segs,
                            int64_t D)
{
    int64_t at = 0, sequence = 0;
    if (!cuda_begin(be, __func__, 2 * segs->rows * D * (int64_t)sizeof(T), 0)) return;
    for (int64_t s = 0; s < segs->count; s++) {
        int64_t each = segs->items[s].tokens * D, n = segs->items[s].batch * each;
        cuda_each(be, __func__, scale_element<T>{(T *)y + at, (const T *)x + at, factor + sequence, each}, n);
        at += n;
        sequence += segs->items[s].batch;
    }
}

template <class T>
static void add_sequences(xkd_backend *be, void *y, const void *x, const void *b, const float *factor,
                          const xkd_segments *segs, int64_t D)
{
    int64_t at = 0, sequence = 0;
    if (!cuda_begin(be, __func__, segs->rows * D * (int64_t)(sizeof(T) + 2 * sizeof(float)), 0)) return;
    for (int64_t s = 0; s < segs->count; s++) {
        int64_t each = segs->items[s].tokens * D, n = segs->items[s].batch * each;
        add_scaled_element<T> f = {(float *)y + at, (const T *)x + at, factor + sequence, (const float *)b, each, D};
        cuda_each(be, __func__, f, n);
        at += n;
        sequence += segs->items[s].batch;
    }
}

/* ---- refinement ---- */

template <class T> struct refine_args {
    float *y, *weight; /* [B,D]; [B,N] */
    const T *features;
    const float *self, *other;
    int64_t tokens, D, H, N, M;
    bool softmax;
};

/* Sum over a block of f(i) for i in [0, n); the same in every thread. */
template <class F> __device__ inline float sum_over(int64_t n, float *room, F f)
{
    float sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) sum += f(i);
    return block_sum(sum, room);
}

struct element_of {
    const float *x;
    __device__ float operator()(int64_t i) const
    {
        return x[i];
    }
};

/* weight [N] of one sample: the mean over heads of av_i mean(aa) / mean(av), or of softmax_i(av_i mean(aa)). A thread has the
 * same elements in every loop. */
template <class T>
__device__ inline void refine_weights(const refine_args<T> &a, float *weight, float *room, log_sum *sums)
{
    int64_t b = blockIdx.x;
    for (int64_t i = threadIdx.x; i < a.N; i += THREADS) weight[i] = 0;
    for (int64_t h = 0; h < a.H; h++) {
        const float *av = a.self + (b * a.H + h) * a.N, *aa = a.other + (b * a.H + h) * a.M;
        float self_mean = sum_over(a.N, room, element_of{av}) / (float)a.N;
        float other_mean = sum_over(a.M, room, element_of{aa}) / (float)a.M;
        log_sum all = log_sum_empty();
        for (int64_t i = threadIdx.x; i < a.N; i += THREADS) log_sum_add(&all, {av[i] * other_mean, 1});
        all = block_log_sum(all, sums);
        for (int64_t i = threadIdx.x; i < a.N; i += THREADS) {
            float x = av[i] * other_mean;
            weight[i] += (a.softmax ? expf(x - all.largest) / all.sum : x / self_mean) / (float)a.H;
        }
    }
    __syncthreads();
}

/* The plain and the weighted mean of each column, and the factor that keeps the energy of the plain ones. */
template <class T> __global__ void refine_sample(refine_args<T> a)
{
    SHARED(float, room); /* [WARPS], [2 WARPS] */
    int64_t b = blockIdx.x;
    float *weight = a.weight + b * a.N, plain_energy = 0, refined_energy = 0;
    const T *f = a.features + (b * a.tokens + a.tokens - a.N) * a.D;
    refine_weights(a, weight, room, (log_sum *)(room + WARPS));
    for (int64_t d = threadIdx.x; d < a.D; d += THREADS) {
        float plain = 0, refined = 0;
        for (int64_t i = 0; i < a.N; i++) {
            plain += get(f, i * a.D + d);
            refined += weight[i] * get(f, i * a.D + d);
        }
        a.y[b * a.D + d] = refined / (float)a.N;
        plain_energy += plain / (float)a.N * (plain / (float)a.N);
        refined_energy += refined / (float)a.N * (refined / (float)a.N);
    }
    float scale = sqrtf(block_sum(plain_energy, room) / block_sum(refined_energy, room));
    for (int64_t d = threadIdx.x; d < a.D; d += THREADS) a.y[b * a.D + d] *= scale;
}

template <class T> static void refine_pool(xkd_backend *be, void *y, const xkd_refine_args *a)
{
    if (!cuda_begin(be, __func__, a->B * a->N * a->D * (int64_t)sizeof(T) + 4 * a->B * a->H * (a->N + a->M),
                    4 * a->B * a->N * a->D))
        return;
    float *weight = (float *)cuda_scratch(be, a->B * a->N * (int64_t)sizeof(float));
    if (!weight) return;
    refine_args<T> args = {(float *)y,
                           weight,
                           (const T *)a->features,
                           (const float *)a->self_attn,
                           (const float *)a->other_attn,
                           a->tokens,
                           a->D,
                           a->H,
                           a->N,
                           a->M,
                           a->softmax};
    LAUNCH(be, refine_sample<T>, (unsigned)a->B, THREADS, 3 * WARPS * sizeof(float), args);
}

template <class T> void cuda_fill_tokens(xkd_ops *ops)
{
    ops->patchify = patchify<T>;
    ops->add_positions = add_positions<T>;
    ops->add_positions_backward = add_positions_backward<T>;
    ops->unmask_forward = unmask_forward<T>;
    ops->unmask_backward = unmask_backward<T>;
    ops->gather_rows = gather_rows<T>;
    ops->scatter_rows = scatter_rows<T>;
    ops->sparse_rows = sparse_rows<T>;
    ops->pool_forward = pool_forward<T>;
    ops->pool_backward = pool_backward<T>;
    ops->scale_sequences = scale_sequences<T>;
    ops->add_sequences = add_sequences<T>;
    ops->refine_pool = refine_pool<T>;
}

template void cuda_fill_tokens<float>(xkd_ops *);
template void cuda_fill_tokens<bf16>(xkd_ops *);
