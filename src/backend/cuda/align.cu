/* Domain alignment: MMD and CORAL. Pairs of rows in tiles, in double: kernels of distances near 0 are steep. */
#include "loss.h"
#include "backend/constants.h"

enum { SIDE = 16, TILE_THREADS = SIDE * SIDE, DEPTH = 32, GRAD_ROWS = 8, GRAD_THREADS = 128 };

struct align_sides {
    const float *x, *y;
    int64_t of_x, n; /* rows of X, of both */
    int64_t B, K, first, samples;
};

/* Where row i of the union stands in its side: samples [first, first + samples) of each view, view by view. */
__device__ inline int64_t row_at(const align_sides &a, int64_t i)
{
    if (i >= a.of_x) i -= a.of_x;
    return (i / a.samples * a.B + a.first + i % a.samples) * a.K;
}

__device__ inline const float *align_row(const align_sides &a, int64_t i)
{
    return (i >= a.of_x ? a.y : a.x) + row_at(a, i);
}

static align_sides sides(const xkd_align_sides *a)
{
    int64_t of_x = a->views_x * a->samples;
    return {(const float *)a->x, (const float *)a->y, of_x, of_x + a->views_y * a->samples, a->B, a->K, a->first,
            a->samples};
}

/* ---- pairs ---- */

struct rows_of_sides {
    align_sides a;
    __device__ const float *operator()(int64_t i) const
    {
        return align_row(a, i);
    }
};

struct rows_of_matrix {
    const float *x;
    int64_t K;
    __device__ const float *operator()(int64_t i) const
    {
        return x + i * K;
    }
};

/* weights = 4 c k'(distance), and the pair's part of the loss. */
struct mmd_pair {
    double *weights;
    int64_t of_x, n;
    __device__ double add(double sum, float p, float q) const
    {
        double difference = (double)p - (double)q;
        return sum + difference * difference;
    }
    __device__ double finish(int64_t i, int64_t j, double distance) const
    {
        double x = (double)of_x, y = (double)(n - of_x), kernel = 0, slope = 0;
        double c = (i < of_x) != (j < of_x) ? -1 / (x * y) : i < of_x ? 1 / (x * x) : 1 / (y * y);
        for (double gamma = 1e-3, k = 0; k < 7; k++, gamma *= 10) {
            double e = exp(-gamma * distance);
            kernel += e;
            slope -= gamma * e;
        }
        weights[i * n + j] = weights[j * n + i] = 4 * c * slope;
        return c * kernel;
    }
};

/* The sign carries the minus of the mixed terms. */
__device__ inline double coral_side(int64_t of_x, int64_t n, int64_t i)
{
    return i < of_x ? (double)(of_x - 1) : -(double)(n - of_x - 1);
}

struct coral_pair {
    double *gram;
    int64_t of_x, n;
    __device__ double add(double sum, float p, float q) const
    {
        return sum + (double)p * (double)q;
    }
    __device__ double finish(int64_t i, int64_t j, double product) const
    {
        gram[i * n + j] = gram[j * n + i] = product;
        return product * product / (coral_side(of_x, n, i) * coral_side(of_x, n, j));
    }
};

/* One tile of pairs (i, j), j's tile not behind i's; partial [tiles, tiles]: the sum of what its pairs finish with, those off
 * the diagonal twice. */
template <class R, class P> __global__ void pair_tile(double *partial, R row, P pair, int64_t n, int64_t K)
{
    SHARED(float, p); /* [2, SIDE, DEPTH + 1], and [WARPS] doubles */
    float *q = p + SIDE * (DEPTH + 1);
    double *room = (double *)(q + SIDE * (DEPTH + 1)), sum = 0;
    int column = (int)threadIdx.x % SIDE, line = (int)threadIdx.x / SIDE;
    int64_t i = (int64_t)blockIdx.y * SIDE + line, j = (int64_t)blockIdx.x * SIDE + column, depth = K;
    if (blockIdx.x > blockIdx.y) depth = 0; /* the mirror image of another tile */
    for (int64_t first = 0; first < depth; first += DEPTH) {
        for (int at = (int)threadIdx.x; at < SIDE * DEPTH; at += TILE_THREADS) {
            int64_t r = at / DEPTH, k = first + at % DEPTH, of_p = (int64_t)blockIdx.y * SIDE + r;
            int64_t of_q = (int64_t)blockIdx.x * SIDE + r;
            p[r * (DEPTH + 1) + at % DEPTH] = k < K && of_p < n ? row(of_p)[k] : 0;
            q[r * (DEPTH + 1) + at % DEPTH] = k < K && of_q < n ? row(of_q)[k] : 0;
        }
        __syncthreads();
        for (int k = 0; k < DEPTH; k++) sum = pair.add(sum, p[line * (DEPTH + 1) + k], q[column * (DEPTH + 1) + k]);
        __syncthreads();
    }
    double part = depth > 0 && j <= i && i < n ? (i == j ? 1 : 2) * pair.finish(i, j, sum) : 0;
    part = block_sum(part, room);
    if (threadIdx.x == 0) partial[(int64_t)blockIdx.y * gridDim.x + blockIdx.x] = part;
}

/* *loss += scale * sum over pairs. */
template <class R, class P>
static void all_pairs(xkd_backend *be, const char *name, double *loss, double *partial, double scale, R row, P pair,
                      int64_t n, int64_t K)
{
    unsigned tiles = blocks_for(n, SIDE);
    size_t shared = 2 * SIDE * (DEPTH + 1) * sizeof(float) + WARPS * sizeof(double);
    cuda_launch(be, name, pair_tile<R, P>, dim3(tiles, tiles), TILE_THREADS, shared, partial, row, pair, n, K);
    sum_rows(be, name, loss, partial, (int64_t)tiles * tiles, scale, true);
}

static int64_t tiles_of(int64_t n)
{
    int64_t tiles = (n + SIDE - 1) / SIDE;
    return tiles * tiles;
}

/* ---- gradients: column k of GRAD_ROWS rows a thread, so that a row is read once for all of them ---- */

struct align_grad {
    float *dx, *dy;
    align_sides a;
    const double *pairs; /* [n,n] */
    double scale;
};

__device__ inline float *grad_row(const align_grad &g, int64_t i)
{
    return (i >= g.a.of_x ? g.dy : g.dx) + row_at(g.a, i);
}

/* dz_i = sum_j w_ij (z_i - z_j); a pair of weight 0 adds nothing whatever its rows are. */
__global__ void mmd_gradient(align_grad g)
{
    int64_t k = (int64_t)blockIdx.x * GRAD_THREADS + threadIdx.x, first = (int64_t)blockIdx.y * GRAD_ROWS;
    double own[GRAD_ROWS], sum[GRAD_ROWS];
    if (k >= g.a.K) return;
    int count = (int)(g.a.n - first < GRAD_ROWS ? g.a.n - first : GRAD_ROWS);
    for (int r = 0; r < GRAD_ROWS; r++) {
        own[r] = r < count ? (double)align_row(g.a, first + r)[k] : 0;
        sum[r] = r < count ? (double)grad_row(g, first + r)[k] : 0;
    }
    for (int64_t j = 0; j < g.a.n; j++) {
        double other = (double)align_row(g.a, j)[k];
        for (int r = 0; r < GRAD_ROWS; r++) {
            double w = r < count ? g.scale * g.pairs[(first + r) * g.a.n + j] : 0;
            if (w != 0) sum[r] += w * (own[r] - other);
        }
    }
    for (int r = 0; r < count; r++) grad_row(g, first + r)[k] = (float)sum[r];
}

/* Of the covariances 4 gram_ij / (K^2 side_i side_j) centred_j, of the means 2 difference / (K m). */
__global__ void coral_gradient(align_grad g, const float *centred, const double *difference)
{
    int64_t k = (int64_t)blockIdx.x * GRAD_THREADS + threadIdx.x, first = (int64_t)blockIdx.y * GRAD_ROWS;
    int64_t n = g.a.n, of_x = g.a.of_x;
    double K = (double)g.a.K, sum[GRAD_ROWS];
    if (k >= g.a.K) return;
    int count = (int)(n - first < GRAD_ROWS ? n - first : GRAD_ROWS);
    for (int r = 0; r < GRAD_ROWS; r++) {
        double size = first + r < of_x ? (double)of_x : -(double)(n - of_x);
        sum[r] = r < count ? (double)grad_row(g, first + r)[k] + g.scale * 2 / (K * size) * difference[k] : 0;
    }
    for (int64_t j = 0; j < n; j++) {
        double other = (double)centred[j * g.a.K + k] * g.scale * 4 / (K * K * coral_side(of_x, n, j));
        for (int r = 0; r < GRAD_ROWS; r++)
            if (r < count) sum[r] += g.pairs[(first + r) * n + j] / coral_side(of_x, n, first + r) * other;
    }
    for (int r = 0; r < count; r++) grad_row(g, first + r)[k] = (float)sum[r];
}

static void launch_gradient(xkd_backend *be, const align_grad &g, const float *centred, const double *difference)
{
    dim3 grid(blocks_for(g.a.K, GRAD_THREADS), blocks_for(g.a.n, GRAD_ROWS));
    if (centred)
        LAUNCH(be, coral_gradient, grid, GRAD_THREADS, 0, g, centred, difference);
    else
        LAUNCH(be, mmd_gradient, grid, GRAD_THREADS, 0, g);
}

/* ---- operations ---- */

static void mmd_forward(xkd_backend *be, double *loss, double *weights, const xkd_align_sides *args)
{
    align_sides a = sides(args);
    if (!cuda_begin(be, __func__, a.n * a.K * 4 + 8 * a.n * a.n, 3 * a.n * a.n / 2 * a.K)) return;
    double *partial = (double *)cuda_scratch(be, tiles_of(a.n) * (int64_t)sizeof(double));
    if (!partial) return;
    all_pairs(be, __func__, loss, partial, 1 / args->divisor, rows_of_sides{a}, mmd_pair{weights, a.of_x, a.n}, a.n,
              a.K);
}

static void mmd_backward(xkd_backend *be, void *dx, void *dy, const double *weights, const xkd_align_sides *args,
                         double scale)
{
    align_grad g = {(float *)dx, (float *)dy, sides(args), weights, scale};
    if (!cuda_begin(be, __func__, 3 * g.a.n * g.a.K * 4 + 8 * g.a.n * g.a.n, 3 * g.a.n * g.a.n * g.a.K)) return;
    launch_gradient(be, g, NULL, NULL);
}

/* Rows less the means of their side, and the difference of the two means of this column. */
struct centre_column {
    align_sides a;
    float *centred;     /* [n,K], or NULL */
    double *difference; /* [K] */
    __device__ void operator()(int64_t k) const
    {
        double mean[2] = {0, 0};
        for (int64_t i = 0; i < a.n; i++) {
            double size = i < a.of_x ? (double)a.of_x : (double)(a.n - a.of_x);
            mean[i >= a.of_x] += (double)align_row(a, i)[k] / size;
        }
        difference[k] = mean[0] - mean[1];
        for (int64_t i = 0; centred && i < a.n; i++)
            centred[i * a.K + k] = (float)((double)align_row(a, i)[k] - mean[i >= a.of_x]);
    }
};

struct square_of {
    enum { COUNT = 1 };
    const double *x;
    __device__ void add(double *sum, int64_t i) const
    {
        sum[0] += x[i] * x[i];
    }
};

/* Loss of the means, and of the Gram matrix of the centred rows: the K x K covariances never exist. */
static void coral_forward(xkd_backend *be, double *loss, double *gram, void *centred, const xkd_align_sides *args)
{
    align_sides a = sides(args);
    double K = (double)a.K;
    if (!cuda_begin(be, __func__, 4 * a.n * a.K * 4 + 8 * a.n * a.n, a.n * a.n * a.K)) return;
    /* sum_all takes scratch from its begin. */
    int64_t sums = (tiles_of(a.n) > SUM_BLOCKS ? tiles_of(a.n) : SUM_BLOCKS);
    double *scratch = (double *)cuda_scratch(be, (sums + a.K) * (int64_t)sizeof(double));
    if (!scratch) return;
    cuda_each(be, __func__, centre_column{a, (float *)centred, scratch + sums}, a.K);
    sum_all(be, __func__, sum_target{{loss}, {1 / (K * args->divisor)}, true}, square_of{scratch + sums}, a.K);
    all_pairs(be, __func__, loss, scratch, 1 / (K * K * args->divisor), rows_of_matrix{(const float *)centred, a.K},
              coral_pair{gram, a.of_x, a.n}, a.n, a.K);
}

static void coral_backward(xkd_backend *be, void *dx, void *dy, const double *gram, const void *centred,
                           const xkd_align_sides *args, double scale)
{
    align_grad g = {(float *)dx, (float *)dy, sides(args), gram, scale};
    if (!cuda_begin(be, __func__, 4 * g.a.n * g.a.K * 4 + 8 * g.a.n * g.a.n, 2 * g.a.n * g.a.n * g.a.K)) return;
    double *difference = (double *)cuda_scratch(be, g.a.K * (int64_t)sizeof(double));
    if (!difference) return;
    cuda_each(be, __func__, centre_column{g.a, NULL, difference}, g.a.K);
    launch_gradient(be, g, (const float *)centred, difference);
}

void cuda_fill_align(xkd_ops *ops)
{
    ops->mmd_forward = mmd_forward;
    ops->mmd_backward = mmd_backward;
    ops->coral_forward = coral_forward;
    ops->coral_backward = coral_backward;
}
