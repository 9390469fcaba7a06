/* Norms of rows, one warp a row, and sums of columns. */
#include "kernel.h"
#include "state.h"
#include "backend/constants.h"

enum { ROW_WARPS = 4 };

/* The row of this warp. */
__device__ inline int64_t warp_row(void)
{
    return (int64_t)blockIdx.x * ROW_WARPS + warp_number();
}

/* Two passes for the variance, as in PyTorch; the row comes from the cache from the second on. X is T or float, and `kept`
 * NULL or a copy of x. */
template <class T, class X>
__global__ void layernorm_rows(T *y, T *kept, float *mean, float *rstd, const X *x, const float *w, const float *b,
                               int64_t R, int64_t D)
{
    int64_t r = warp_row();
    if (r >= R) return;
    const X *in = x + r * D;
    float sum = 0, squares = 0;
    for (int64_t d = lane_number(); d < D; d += WARP) sum += get(in, d);
    float m = warp_sum(sum) / (float)D;
    for (int64_t d = lane_number(); d < D; d += WARP) squares += (get(in, d) - m) * (get(in, d) - m);
    float s = 1 / sqrtf(warp_sum(squares) / (float)D + (float)XKD_LAYERNORM_EPS);
    for (int64_t d = lane_number(); d < D; d += WARP) {
        float n = (get(in, d) - m) * s;
        if (kept) set(kept + r * D, d, get(in, d));
        set(y + r * D, d, w ? n * w[d] + b[d] : n);
    }
    if (lane_number() == 0) {
        mean[r] = m;
        rstd[r] = s;
    }
}

template <class T>
static void layernorm_forward(xkd_backend *be, void *y, void *mean, void *rstd, const void *x, const void *w,
                              const void *b, int64_t R, int64_t D)
{
    if (!cuda_begin(be, __func__, 2 * R * D * (int64_t)sizeof(T) + 8 * R, 8 * R * D)) return;
    LAUNCH(be, (layernorm_rows<T, T>), blocks_for(R, ROW_WARPS), ROW_WARPS * WARP, 0, (T *)y, (T *)NULL, (float *)mean,
           (float *)rstd, (const T *)x, (const float *)w, (const float *)b, R, D);
}

template <class T>
static void residual_layernorm_forward(xkd_backend *be, void *y, void *kept, void *mean, void *rstd, const void *x,
                                       const void *w, const void *b, int64_t R, int64_t D)
{
    T *copy = kept == x ? NULL : (T *)kept;
    int64_t bytes = sizeof(float) + (copy ? 2 : 1) * sizeof(T);
    if (!cuda_begin(be, __func__, R * D * bytes + 8 * R, 8 * R * D)) return;
    LAUNCH(be, (layernorm_rows<T, float>), blocks_for(R, ROW_WARPS), ROW_WARPS * WARP, 0, (T *)y, copy, (float *)mean,
           (float *)rstd, (const float *)x, (const float *)w, (const float *)b, R, D);
}

template <class T> struct layernorm_grad {
    T *dx;
    const T *residual, *dy, *x;
    const float *w, *mean, *rstd;
    int64_t R, D;
};

/* With n = (x - mean) rstd and e = dy w: dx = residual + rstd (e - mean(e) - n mean(e n)). Both sums are known before a place
 * of dx is written, which may be dy's or the residual's. */
template <class T> __global__ void layernorm_gradient(layernorm_grad<T> a)
{
    int64_t r = warp_row(), first = r * a.D;
    if (r >= a.R) return;
    float m = a.mean[r], s = a.rstd[r], e_sum = 0, en_sum = 0;
    for (int64_t d = lane_number(); d < a.D; d += WARP) {
        float e = get(a.dy, first + d) * (a.w ? a.w[d] : 1);
        e_sum += e;
        en_sum += e * ((get(a.x, first + d) - m) * s);
    }
    e_sum = warp_sum(e_sum) / (float)a.D;
    en_sum = warp_sum(en_sum) / (float)a.D;
    for (int64_t d = lane_number(); d < a.D; d += WARP) {
        float n = (get(a.x, first + d) - m) * s, e = get(a.dy, first + d) * (a.w ? a.w[d] : 1);
        float residual = a.residual ? get(a.residual, first + d) : 0;
        set(a.dx, first + d, residual + s * (e - e_sum - n * en_sum));
    }
}

/* ---- sums of columns, in two steps: over groups of rows, and over the groups ---- */

enum { COLUMNS = 32, COLUMN_ROWS = 8, GROUP_ROWS = 256 };

/* partial [groups, F::COUNT, K]: sums of f over the group's rows, of which each of COLUMN_ROWS threads of a column takes every
 * COLUMN_ROWSth. */
template <class F> __global__ void column_groups(float *partial, F f, int64_t R, int64_t K)
{
    SHARED(float, room); /* [F::COUNT, COLUMN_ROWS, COLUMNS] */
    int column = (int)threadIdx.x, row = (int)threadIdx.y;
    int64_t k = (int64_t)blockIdx.x * COLUMNS + column, first = (int64_t)blockIdx.y * GROUP_ROWS;
    int64_t end = first + GROUP_ROWS < R ? first + GROUP_ROWS : R;
    float sum[F::COUNT] = {0};
    for (int64_t r = first + row; k < K && r < end; r += COLUMN_ROWS) f.add(sum, r, k);
    for (int c = 0; c < F::COUNT; c++) room[(c * COLUMN_ROWS + row) * COLUMNS + column] = sum[c];
    __syncthreads();
    if (row >= F::COUNT || k >= K) return;
    float total = 0;
    for (int i = 0; i < COLUMN_ROWS; i++) total += room[(row * COLUMN_ROWS + i) * COLUMNS + column];
    partial[((int64_t)blockIdx.y * F::COUNT + row) * K + k] = total;
}

/* out[c] [K] += the groups' sums, in order. */
struct column_total {
    float *out[2];
    const float *partial;
    int64_t groups, count, K;
    __device__ void operator()(int64_t i) const
    {
        float total = 0;
        for (int64_t g = 0; g < groups; g++) total += partial[(g * count) * K + i];
        float *to = out[i / K];
        if (to) to[i % K] += total;
    }
};

/* first [K] += sum over rows of what f adds up, and second [K] where f has two. Either may be NULL. */
template <class F>
static void add_columns(xkd_backend *be, const char *name, float *first, float *second, F f, int64_t R, int64_t K)
{
    int64_t groups = (R + GROUP_ROWS - 1) / GROUP_ROWS;
    float *partial = (float *)cuda_scratch(be, groups * F::COUNT * K * (int64_t)sizeof *partial);
    size_t shared = F::COUNT * COLUMN_ROWS * COLUMNS * sizeof(float);
    dim3 grid(blocks_for(K, COLUMNS), (unsigned)groups), block(COLUMNS, COLUMN_ROWS);
    if (!partial || groups == 0) return;
    cuda_launch(be, name, column_groups<F>, grid, block, shared, partial, f, R, K);
    cuda_each(be, name, column_total{{first, second}, partial, groups, F::COUNT, K}, F::COUNT * K);
}

template <class T> struct column_values {
    enum { COUNT = 1 };
    const T *x;
    int64_t K;
    __device__ void add(float *sum, int64_t r, int64_t k) const
    {
        sum[0] += get(x, r * K + k);
    }
};

template <class T> void cuda_column_sum(xkd_backend *be, float *sum, const T *x, int64_t R, int64_t K)
{
    add_columns(be, __func__, sum, (float *)NULL, column_values<T>{x, K}, R, K);
}

static void column_sum(xkd_backend *be, void *sum, const void *x, int64_t R, int64_t K)
{
    if (!cuda_begin(be, __func__, R * K * (int64_t)sizeof(float), R * K)) return;
    cuda_column_sum(be, (float *)sum, (const float *)x, R, K);
}

/* dw and db of a LayerNorm. */
template <class T> struct layernorm_columns {
    enum { COUNT = 2 };
    const T *dy, *x;
    const float *mean, *rstd;
    int64_t D;
    __device__ void add(float *sum, int64_t r, int64_t d) const
    {
        float g = get(dy, r * D + d);
        sum[0] += g * ((get(x, r * D + d) - mean[r]) * rstd[r]);
        sum[1] += g;
    }
};

/* The columns first: dx may be dy. */
template <class T> static void layernorm_backward(xkd_backend *be, const xkd_layernorm_grad *a)
{
    layernorm_grad<T> g = {(T *)a->dx,
                           (const T *)a->residual,
                           (const T *)a->dy,
                           (const T *)a->x,
                           (const float *)a->w,
                           (const float *)a->mean,
                           (const float *)a->rstd,
                           a->R,
                           a->D};
    int64_t passes = 3 + (a->residual ? 1 : 0) + (a->dw || a->db ? 2 : 0);
    if (!cuda_begin(be, __func__, passes * a->R * a->D * (int64_t)sizeof(T), 14 * a->R * a->D)) return;
    if (a->dw || a->db)
        add_columns(be, __func__, (float *)a->dw, (float *)a->db, layernorm_columns<T>{g.dy, g.x, g.mean, g.rstd, a->D},
                    a->R, a->D);
    LAUNCH(be, layernorm_gradient<T>, blocks_for(a->R, ROW_WARPS), ROW_WARPS * WARP, 0, g);
}

/* ---- unit rows ---- */

template <class T> __global__ void l2norm_rows(float *y, float *inv, const T *x, int64_t R, int64_t D)
{
    int64_t r = warp_row(), first = r * D;
    if (r >= R) return;
    float squares = 0;
    for (int64_t d = lane_number(); d < D; d += WARP) squares += get(x, first + d) * get(x, first + d);
    float norm = sqrtf(warp_sum(squares));
    /* The bound keeps a row of zeros from becoming NaN. */
    float scale = 1 / (norm > (float)XKD_L2NORM_EPS ? norm : (float)XKD_L2NORM_EPS);
    for (int64_t d = lane_number(); d < D; d += WARP) y[first + d] = get(x, first + d) * scale;
    if (lane_number() == 0) inv[r] = scale;
}

template <class T> static void l2norm_forward(xkd_backend *be, void *y, void *inv, const void *x, int64_t R, int64_t D)
{
    if (!cuda_begin(be, __func__, R * D * (int64_t)(sizeof(T) + sizeof(float)), 3 * R * D)) return;
    LAUNCH(be, l2norm_rows<T>, blocks_for(R, ROW_WARPS), ROW_WARPS * WARP, 0, (float *)y, (float *)inv, (const T *)x, R,
           D);
}

/* dx = inv (dy - y (y . dy)); dx may be dy. */
template <class T>
__global__ void l2norm_gradient(T *dx, const float *dy, const float *y, const float *inv, int64_t R, int64_t D)
{
    int64_t r = warp_row(), first = r * D;
    if (r >= R) return;
    float along = 0;
    for (int64_t d = lane_number(); d < D; d += WARP) along += y[first + d] * dy[first + d];
    along = warp_sum(along);
    for (int64_t d = lane_number(); d < D; d += WARP)
        set(dx, first + d, inv[r] * (dy[first + d] - y[first + d] * along));
}

template <class T>
static void l2norm_backward(xkd_backend *be, void *dx, const void *dy, const void *y, const void *inv, int64_t R,
                            int64_t D)
{
    if (!cuda_begin(be, __func__, R * D * (int64_t)(sizeof(T) + 2 * sizeof(float)), 5 * R * D)) return;
    LAUNCH(be, l2norm_gradient<T>, blocks_for(R, ROW_WARPS), ROW_WARPS * WARP, 0, (T *)dx, (const float *)dy,
           (const float *)y, (const float *)inv, R, D);
}

/* Rows of v are prototypes of gain g. */
__global__ void weightnorm_rows(float *w, float *inv, const float *v, const float *g, int64_t K, int64_t D)
{
    int64_t k = warp_row(), first = k * D;
    if (k >= K) return;
    float squares = 0;
    for (int64_t d = lane_number(); d < D; d += WARP) squares += v[first + d] * v[first + d];
    float scale = 1 / sqrtf(warp_sum(squares));
    for (int64_t d = lane_number(); d < D; d += WARP) w[first + d] = g[k] * scale * v[first + d];
    if (lane_number() == 0) inv[k] = scale;
}

static void weightnorm_forward(xkd_backend *be, void *w, void *inv, const void *v, const void *g, int64_t K, int64_t D)
{
    if (!cuda_begin(be, __func__, 2 * K * D * (int64_t)sizeof(float), 4 * K * D)) return;
    LAUNCH(be, weightnorm_rows, blocks_for(K, ROW_WARPS), ROW_WARPS * WARP, 0, (float *)w, (float *)inv,
           (const float *)v, (const float *)g, K, D);
}

/* The part along v goes, because scaling v changes nothing. */
__global__ void weightnorm_gradient(float *dv, const float *dw, const float *v, const float *g, const float *inv,
                                    int64_t K, int64_t D)
{
    int64_t k = warp_row(), first = k * D;
    if (k >= K) return;
    float along = 0, scale = inv[k];
    for (int64_t d = lane_number(); d < D; d += WARP) along += v[first + d] * dw[first + d];
    along = warp_sum(along) * scale;
    for (int64_t d = lane_number(); d < D; d += WARP)
        dv[first + d] += g[k] * scale * (dw[first + d] - v[first + d] * scale * along);
}

static void weightnorm_backward(xkd_backend *be, void *dv, const void *dw, const void *v, const void *g,
                                const void *inv, int64_t K, int64_t D)
{
    if (!cuda_begin(be, __func__, 4 * K * D * (int64_t)sizeof(float), 7 * K * D)) return;
    LAUNCH(be, weightnorm_gradient, blocks_for(K, ROW_WARPS), ROW_WARPS * WARP, 0, (float *)dv, (const float *)dw,
           (const float *)v, (const float *)g, (const float *)inv, K, D);
}

/* Patches about their mean, with the unbiased variance. */
__global__ void normalize_rows(float *x, int64_t R, int64_t P)
{
    int64_t r = warp_row();
    if (r >= R) return;
    float *row = x + r * P, sum = 0, squares = 0;
    for (int64_t p = lane_number(); p < P; p += WARP) sum += row[p];
    float mean = warp_sum(sum) / (float)P;
    for (int64_t p = lane_number(); p < P; p += WARP) squares += (row[p] - mean) * (row[p] - mean);
    float scale = 1 / sqrtf(warp_sum(squares) / (float)(P - 1) + (float)XKD_PATCH_EPS);
    for (int64_t p = lane_number(); p < P; p += WARP) row[p] = (row[p] - mean) * scale;
}

static void patch_normalize(xkd_backend *be, void *x, int64_t R, int64_t P)
{
    if (!cuda_begin(be, __func__, 2 * R * P * (int64_t)sizeof(float), 6 * R * P)) return;
    LAUNCH(be, normalize_rows, blocks_for(R, ROW_WARPS), ROW_WARPS * WARP, 0, (float *)x, R, P);
}

template <class T> void cuda_fill_rows(xkd_ops *ops)
{
    ops->layernorm_forward = layernorm_forward<T>;
    ops->residual_layernorm_forward = residual_layernorm_forward<T>;
    ops->layernorm_backward = layernorm_backward<T>;
    ops->l2norm_forward = l2norm_forward<T>;
    ops->l2norm_backward = l2norm_backward<T>;
    ops->weightnorm_forward = weightnorm_forward;
    ops->weightnorm_backward = weightnorm_backward;
    ops->patch_normalize = patch_normalize;
    ops->column_sum = column_sum;
}

template void cuda_column_sum<float>(xkd_backend *, float *, const float *, int64_t, int64_t);
template void cuda_column_sum<bf16>(xkd_backend *, float *, const bf16 *, int64_t, int64_t);
template void cuda_fill_rows<float>(xkd_ops *);
template void cuda_fill_rows<bf16>(xkd_ops *);
