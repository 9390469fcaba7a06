/* Attention for heads of 32 and 64: a block has 32 queries, or keys, and goes over the others in tiles of shared memory. Four
 * lanes share a row; each keeps every fourth group of four of its elements in registers. */
#include "attention.h"

enum { LANES = 4, ROWS = 32, ROW_THREADS = LANES * ROWS, TILE = 32, AT_ONCE = 8 };

/* Element e of a lane's part of a row stands at element_of(e) of the row. */
__device__ inline int element_of(int e)
{
    return (e / 4 * LANES + (int)(threadIdx.x % LANES)) * 4 + e % 4;
}

template <int MINE, class T> __device__ inline void load_part(float *part, const T *row, int64_t at)
{
#pragma unroll
    for (int e = 0; e < MINE; e++) part[e] = get(row, at + element_of(e));
}

template <int MINE, class T> __device__ inline void store_part(T *row, int64_t at, const float *part, float factor)
{
#pragma unroll
    for (int e = 0; e < MINE; e++) set(row, at + element_of(e), part[e] * factor);
}

/* This lane's share of a product of two rows. */
template <int MINE> __device__ inline float dot_part(const float *part, const float *row)
{
    float sum = 0;
#pragma unroll
    for (int e = 0; e < MINE; e++) sum += part[e] * row[element_of(e)];
    return sum;
}

template <int MINE> __device__ inline void add_part(float *part, float factor, const float *row)
{
#pragma unroll
    for (int e = 0; e < MINE; e++) part[e] += factor * row[element_of(e)];
}

/* Over the lanes of a row. */
__device__ inline float row_sum(float value)
{
    for (int m = LANES / 2; m; m /= 2) value += __shfl_xor_sync(ALL_LANES, value, m);
    return value;
}

/* Rows [first, first + TILE) of a tensor into shared memory; zeros behind the last. */
template <int WIDTH, class T>
__device__ inline void load_tile(float *tile, const T *from, int64_t at, int64_t stride, int count)
{
    for (int i = (int)threadIdx.x; i < TILE * WIDTH; i += ROW_THREADS)
        tile[i] = i / WIDTH < count ? get(from, at + i / WIDTH * stride + i % WIDTH) : 0;
}

template <class T, int WIDTH> __global__ void __launch_bounds__(ROW_THREADS) tiled_forward(attention<T> a)
{
    enum { MINE = WIDTH / LANES };
    SHARED(float, keys); /* [2, TILE, WIDTH]: keys and values */
    float *values = keys + TILE * WIDTH;
    const head_place place = find_head(a);
    int row = (int)blockIdx.y * ROWS + (int)threadIdx.x / LANES;
    if ((int)blockIdx.y * ROWS >= place.tokens) return; /* the whole block */
    /* Rows behind the last do what the last does, and write nothing. */
    int i = min(row, place.tokens - 1);
    float q[MINE], o[MINE] = {0}, largest = -3.402823466e38f, total = 0;
    load_part<MINE>(q, a.qkv, query_at(a, place, i));
    for (int first = 0; first < place.tokens; first += TILE) {
        int count = min(TILE, place.tokens - first);
        load_tile<WIDTH>(keys, a.qkv, query_at(a, place, first) + a.D, 3 * a.D, count);
        load_tile<WIDTH>(values, a.qkv, query_at(a, place, first) + 2 * a.D, 3 * a.D, count);
        __syncthreads();
        for (int j = 0; j < count; j += AT_ONCE) {
            float score[AT_ONCE], next = largest;
#pragma unroll
            for (int t = 0; t < AT_ONCE; t++) {
                score[t] = a.scale * row_sum(dot_part<MINE>(q, keys + (j + t) * WIDTH));
                if (j + t < count) next = fmaxf(next, score[t]);
            }
            float shrink = expf(largest - next);
            total *= shrink;
            largest = next;
#pragma unroll
            for (int e = 0; e < MINE; e++) o[e] *= shrink;
#pragma unroll
            for (int t = 0; t < AT_ONCE; t++) {
                float p = j + t < count ? expf(score[t] - largest) : 0;
                total += p;
                add_part<MINE>(o, p, values + (j + t) * WIDTH);
            }
        }
        __syncthreads();
    }
    if (row >= place.tokens) return;
    store_part<MINE>(a.o, output_at(a, place, i), o, 1 / total);
    if (threadIdx.x % LANES == 0) a.lse[(place.row + i) * a.H + place.head] = log_sum_value({largest, total});
}

/* As plain_queries. */
template <class T, int WIDTH> __global__ void __launch_bounds__(ROW_THREADS) tiled_queries(attention<T> a)
{
    enum { MINE = WIDTH / LANES };
    SHARED(float, keys); /* [2, TILE, WIDTH]: keys and values */
    float *values = keys + TILE * WIDTH;
    const head_place place = find_head(a);
    int row = (int)blockIdx.y * ROWS + (int)threadIdx.x / LANES;
    if ((int)blockIdx.y * ROWS >= place.tokens) return;
    int i = min(row, place.tokens - 1);
    const int64_t number = (place.row + i) * a.H + place.head;
    float q[MINE], g[MINE], dq[MINE] = {0}, along = 0, lse = a.saved_lse[number];
    load_part<MINE>(q, a.qkv, query_at(a, place, i));
    load_part<MINE>(g, a.d_o, output_at(a, place, i));
#pragma unroll
    for (int e = 0; e < MINE; e++) along += g[e] * get(a.saved_o, output_at(a, place, i) + element_of(e));
    along = row_sum(along);
    for (int first = 0; first < place.tokens; first += TILE) {
        int count = min(TILE, place.tokens - first);
        load_tile<WIDTH>(keys, a.qkv, query_at(a, place, first) + a.D, 3 * a.D, count);
        load_tile<WIDTH>(values, a.qkv, query_at(a, place, first) + 2 * a.D, 3 * a.D, count);
        __syncthreads();
        for (int j = 0; j < count; j++) {
            float p = expf(a.scale * row_sum(dot_part<MINE>(q, keys + j * WIDTH)) - lse);
            float dp = row_sum(dot_part<MINE>(g, values + j * WIDTH));
            add_part<MINE>(dq, a.scale * p * (dp - along), keys + j * WIDTH);
        }
        __syncthreads();
    }
    if (row >= place.tokens) return;
    store_part<MINE>(a.dqkv, query_at(a, place, i), dq, 1);
    if (threadIdx.x % LANES == 0) a.along[number] = along;
}

/* As plain_keys: the tiles are of queries and of do, with the numbers of their rows. */
template <class T, int WIDTH> __global__ void __launch_bounds__(ROW_THREADS) tiled_keys(attention<T> a)
{
    enum { MINE = WIDTH / LANES };
    SHARED(float, queries); /* [2, TILE, WIDTH], [2, TILE] */
    float *grads = queries + TILE * WIDTH, *lse = grads + TILE * WIDTH, *along = lse + TILE;
    const head_place place = find_head(a);
    int row = (int)blockIdx.y * ROWS + (int)threadIdx.x / LANES;
    if ((int)blockIdx.y * ROWS >= place.tokens) return;
    int j = min(row, place.tokens - 1);
    float key[MINE], value[MINE], dk[MINE] = {0}, dv[MINE] = {0};
    const int64_t at = query_at(a, place, j) + a.D;
    load_part<MINE>(key, a.qkv, at);
    load_part<MINE>(value, a.qkv, at + a.D);
    for (int first = 0; first < place.tokens; first += TILE) {
        int count = min(TILE, place.tokens - first), t = (int)threadIdx.x;
        load_tile<WIDTH>(queries, a.qkv, query_at(a, place, first), 3 * a.D, count);
        load_tile<WIDTH>(grads, a.d_o, output_at(a, place, first), a.D, count);
        if (t < count) {
            lse[t] = a.saved_lse[(place.row + first + t) * a.H + place.head];
            along[t] = a.along[(place.row + first + t) * a.H + place.head];
        }
        __syncthreads();
        for (int i = 0; i < count; i++) {
            float p = expf(a.scale * row_sum(dot_part<MINE>(key, queries + i * WIDTH)) - lse[i]);
            float dp = row_sum(dot_part<MINE>(value, grads + i * WIDTH));
            add_part<MINE>(dv, p, grads + i * WIDTH);
            add_part<MINE>(dk, a.scale * p * (dp - along[i]), queries + i * WIDTH);
        }
        __syncthreads();
    }
    if (row >= place.tokens) return;
    store_part<MINE>(a.dqkv, at, dk, 1);
    store_part<MINE>(a.dqkv, at + a.D, dv, 1);
}

template <class T, int WIDTH> static attention_kernels<T> of_width(void)
{
    size_t tiles = 2 * TILE * WIDTH * sizeof(float);
    return {
        tiled_forward<T, WIDTH>,         tiled_queries<T, WIDTH>, tiled_keys<T, WIDTH>, ROW_THREADS, ROWS, tiles, tiles,
        tiles + 2 * TILE * sizeof(float)};
}

template <class T> attention_kernels<T> attention_tiled(int width)
{
    return width == 32 ? of_width<T, 32>() : of_width<T, 64>();
}

template attention_kernels<float> attention_tiled<float>(int);
template attention_kernels<bf16> attention_tiled<bf16>(int);
