/* Attention in bfloat16 on tensor cores, for heads of 32 and 64. A warp has 16 queries, or keys, in registers, and the block goes
 * over the others in tiles of shared memory, of which the next is on its way while one is worked on. Weights and their gradients
 * are rounded to bfloat16 as operands; their sums are float32. */
#include "attention.h"
#include "mma.h"

#include <string.h>

enum { MMA_WARPS = 4, MMA_THREADS = MMA_WARPS * WARP, OWN = 16, BLOCK_ROWS = MMA_WARPS * OWN };
/* Rows of tiles are 16 bytes longer than a head, so that eight of them lie in different banks. */
enum { PAD = 8, FORWARD_TILE = 64, BACKWARD_TILE = 32 };

/* Lane l of a warp: row g and column pair t of what mma.h describes. */
__device__ inline int lane_g(void)
{
    return lane_number() / 4;
}

__device__ inline int lane_t(void)
{
    return lane_number() % 4;
}

/* Over the lanes of a row. */
__device__ inline float quad_sum(float value)
{
    for (int m = 2; m; m /= 2) value += __shfl_xor_sync(ALL_LANES, value, m);
    return value;
}

__device__ inline float quad_max(float value)
{
    for (int m = 2; m; m /= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, m));
    return value;
}

/* Rows [0, count) of a tensor on their way to a tile; zeros behind them. */
template <int TILE, int WIDTH>
__device__ inline void fetch_tile(bf16 *tile, const bf16 *from, int64_t stride, int count)
{
    const int chunks = WIDTH / 8;
    for (int i = (int)threadIdx.x; i < TILE * chunks; i += MMA_THREADS) {
        int row = i / chunks, column = i % chunks * 8;
        bf16 *to = tile + row * (WIDTH + PAD) + column;
        if (row < count)
            copy_async_16(to, from + row * stride + column);
        else
            *(uint4 *)to = uint4{0, 0, 0, 0};
    }
}

/* The operand of this warp's rows: those of lanes g and g + 8. */
template <int WIDTH> __device__ inline void load_rows(unsigned (*a)[4], const bf16 *low, const bf16 *high)
{
#pragma unroll
    for (int k = 0; k < WIDTH / 16; k++) {
        int column = 16 * k + 2 * lane_t();
        a[k][0] = *(const unsigned *)(low + column);
        a[k][1] = *(const unsigned *)(high + column);
        a[k][2] = *(const unsigned *)(low + column + 8);
        a[k][3] = *(const unsigned *)(high + column + 8);
    }
}

/* c [16,TILE] = a [16,WIDTH] times the tile's rows */
template <int TILE, int WIDTH>
__device__ inline void times_rows(float (*c)[4], const unsigned (*a)[4], const bf16 *tile)
{
    const int lane = lane_number();
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
        c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0;
#pragma unroll
        for (int k = 0; k < WIDTH / 32; k++) {
            unsigned b[4];
            load_matrices(b, tile + (8 * n + lane % 8) * (WIDTH + PAD) + 32 * k + lane / 8 * 8);
            multiply_add(c[n], a[2 * k], b);
            multiply_add(c[n], a[2 * k + 1], b + 2);
        }
    }
}

/* c [16,WIDTH] += what s [16,TILE] rounds to, times the tile */
template <int TILE, int WIDTH> __device__ inline void add_product(float (*c)[4], const float (*s)[4], const bf16 *tile)
{
    const int lane = lane_number();
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) {
        unsigned a[4], b[4];
        as_operand(a, s[2 * k], s[2 * k + 1]);
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n += 2) {
            int row = 16 * k + lane / 8 % 2 * 8 + lane % 8, column = (n + lane / 16) * 8;
            load_matrices_transposed(b, tile + row * (WIDTH + PAD) + column);
            multiply_add(c[n], a, b);
            multiply_add(c[n + 1], a, b + 2);
        }
    }
}

/* Rows g and g + 8 of c, where they are rows of the sequence. */
template <int WIDTH>
__device__ inline void store_rows(bf16 *low, bf16 *high, const float (*c)[4], const float factor[2], bool low_is,
                                  bool high_is)
{
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++) {
        int column = 8 * n + 2 * lane_t();
        if (low_is) *(unsigned *)(low + column) = pack(c[n][0] * factor[0], c[n][1] * factor[0]);
        if (high_is) *(unsigned *)(high + column) = pack(c[n][2] * factor[1], c[n][3] * factor[1]);
    }
}

/* Which rows of the sequence this lane has; behind the last, what the last has. */
struct own_rows {
    int row[2], at[2];
    bool is[2];
};

__device__ inline own_rows find_rows(const head_place &place)
{
    own_rows own;
    for (int h = 0; h < 2; h++) {
        own.row[h] = (int)blockIdx.y * BLOCK_ROWS + warp_number() * OWN + lane_g() + 8 * h;
        own.is[h] = own.row[h] < place.tokens;
        own.at[h] = min(own.row[h], place.tokens - 1);
    }
    return own;
}

/* Keys and values of a tile. */
template <int TILE, int WIDTH>
__device__ inline void fetch_keys(bf16 *tile, const attention<bf16> &a, const head_place &place, int first)
{
    const bf16 *from = a.qkv + query_at(a, place, first) + a.D;
    int count = min(TILE, place.tokens - first);
    fetch_tile<TILE, WIDTH>(tile, from, 3 * a.D, count);
    fetch_tile<TILE, WIDTH>(tile + TILE * (WIDTH + PAD), from + a.D, 3 * a.D, count);
}

/* Scores become weights relative to the largest so far, and what was summed before shrinks with it. */
template <int TILE, int WIDTH>
__device__ inline void online_softmax(float (*s)[4], float (*o)[4], float largest[2], float total[2], float scale,
                                      int count)
{
    float next[2] = {largest[0], largest[1]}, shrink[2];
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            s[n][e] *= scale;
            if (8 * n + 2 * lane_t() + e % 2 < count) next[e / 2] = fmaxf(next[e / 2], s[n][e]);
        }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        next[h] = quad_max(next[h]);
        shrink[h] = expf(largest[h] - next[h]);
        largest[h] = next[h];
        total[h] *= shrink[h];
    }
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            s[n][e] = 8 * n + 2 * lane_t() + e % 2 < count ? expf(s[n][e] - largest[e / 2]) : 0;
            total[e / 2] += s[n][e];
        }
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) o[n][e] *= shrink[e / 2];
}

template <int WIDTH> __global__ void __launch_bounds__(MMA_THREADS) mma_forward(attention<bf16> a)
{
    const int TILE = FORWARD_TILE, stage = 2 * TILE * (WIDTH + PAD);
    SHARED(bf16, shared); /* two stages of keys and values */
    const head_place place = find_head(a);
    if ((int)blockIdx.y * BLOCK_ROWS >= place.tokens) return; /* the whole block */
    const own_rows own = find_rows(place);
    unsigned q[WIDTH / 16][4];
    float o[WIDTH / 8][4] = {{0}}, largest[2] = {-3.402823466e38f, -3.402823466e38f}, total[2] = {0, 0};
    load_rows<WIDTH>(q, a.qkv + query_at(a, place, own.at[0]), a.qkv + query_at(a, place, own.at[1]));
    fetch_keys<TILE, WIDTH>(shared, a, place, 0);
    for (int first = 0, turn = 0; first < place.tokens; first += TILE, turn ^= 1) {
        const bf16 *keys = shared + turn * stage;
        float s[TILE / 8][4];
        copy_async_wait();
        __syncthreads(); /* this tile is there, and nobody reads the other */
        if (first + TILE < place.tokens) fetch_keys<TILE, WIDTH>(shared + (turn ^ 1) * stage, a, place, first + TILE);
        times_rows<TILE, WIDTH>(s, q, keys);
        online_softmax<TILE, WIDTH>(s, o, largest, total, a.scale, place.tokens - first);
        add_product<TILE, WIDTH>(o, s, keys + TILE * (WIDTH + PAD));
    }
    for (int h = 0; h < 2; h++) total[h] = quad_sum(total[h]);
    const float factor[2] = {1 / total[0], 1 / total[1]};
    store_rows<WIDTH>(a.o + output_at(a, place, own.at[0]), a.o + output_at(a, place, own.at[1]), o, factor, own.is[0],
                      own.is[1]);
    for (int h = 0; h < 2; h++)
        if (own.is[h] && lane_t() == 0)
            a.lse[(place.row + own.at[h]) * a.H + place.head] = log_sum_value({largest[h], total[h]});
}

/* do . o of this lane's two rows, from do's operand. */
template <int WIDTH>
__device__ inline void dot_rows(float along[2], const unsigned (*g)[4], const bf16 *low, const bf16 *high)
{
    unsigned o[WIDTH / 16][4];
    load_rows<WIDTH>(o, low, high);
    along[0] = along[1] = 0;
#pragma unroll
    for (int k = 0; k < WIDTH / 16; k++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            along[e % 2] += low_of(g[k][e]) * low_of(o[k][e]) + high_of(g[k][e]) * high_of(o[k][e]);
    for (int h = 0; h < 2; h++) along[h] = quad_sum(along[h]);
}

/* As plain_queries. */
template <int WIDTH> __global__ void __launch_bounds__(MMA_THREADS) mma_queries(attention<bf16> a)
{
    const int TILE = BACKWARD_TILE, stage = 2 * TILE * (WIDTH + PAD);
    SHARED(bf16, shared); /* two stages of keys and values */
    const head_place place = find_head(a);
    if ((int)blockIdx.y * BLOCK_ROWS >= place.tokens) return;
    const own_rows own = find_rows(place);
    const int64_t out[2] = {output_at(a, place, own.at[0]), output_at(a, place, own.at[1])};
    unsigned q[WIDTH / 16][4], g[WIDTH / 16][4];
    float dq[WIDTH / 8][4] = {{0}}, along[2], lse[2];
    load_rows<WIDTH>(q, a.qkv + query_at(a, place, own.at[0]), a.qkv + query_at(a, place, own.at[1]));
    load_rows<WIDTH>(g, a.d_o + out[0], a.d_o + out[1]);
    dot_rows<WIDTH>(along, g, a.saved_o + out[0], a.saved_o + out[1]);
    for (int h = 0; h < 2; h++) {
        int64_t number = (place.row + own.at[h]) * a.H + place.head;
        lse[h] = a.saved_lse[number];
        if (own.is[h] && lane_t() == 0) a.along[number] = along[h];
    }
    fetch_keys<TILE, WIDTH>(shared, a, place, 0);
    for (int first = 0, turn = 0; first < place.tokens; first += TILE, turn ^= 1) {
        const bf16 *keys = shared + turn * stage;
        float s[TILE / 8][4], dp[TILE / 8][4];
        copy_async_wait();
        __syncthreads();
        if (first + TILE < place.tokens) fetch_keys<TILE, WIDTH>(shared + (turn ^ 1) * stage, a, place, first + TILE);
        times_rows<TILE, WIDTH>(s, q, keys);
        times_rows<TILE, WIDTH>(dp, g, keys + TILE * (WIDTH + PAD));
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                bool here = first + 8 * n + 2 * lane_t() + e % 2 < place.tokens;
                float p = here ? expf(a.scale * s[n][e] - lse[e / 2]) : 0;
                s[n][e] = a.scale * p * (dp[n][e] - along[e / 2]);
            }
        add_product<TILE, WIDTH>(dq, s, keys);
    }
    const float one[2] = {1, 1};
    store_rows<WIDTH>(a.dqkv + query_at(a, place, own.at[0]), a.dqkv + query_at(a, place, own.at[1]), dq, one,
                      own.is[0], own.is[1]);
}

/* Queries and do of a tile, and the numbers of their rows. */
template <int TILE, int WIDTH>
__device__ inline void fetch_queries(bf16 *tile, float *numbers, const attention<bf16> &a, const head_place &place,
                                     int first)
{
    int count = min(TILE, place.tokens - first), t = (int)threadIdx.x;
    fetch_tile<TILE, WIDTH>(tile, a.qkv + query_at(a, place, first), 3 * a.D, count);
    fetch_tile<TILE, WIDTH>(tile + TILE * (WIDTH + PAD), a.d_o + output_at(a, place, first), a.D, count);
    if (t >= TILE) return;
    int64_t number = (place.row + first + t) * a.H + place.head;
    numbers[t] = t < count ? a.saved_lse[number] : 0;
    numbers[TILE + t] = t < count ? a.along[number] : 0;
}

/* As plain_keys: rows are keys, columns queries. */
template <int WIDTH> __global__ void __launch_bounds__(MMA_THREADS) mma_keys(attention<bf16> a)
{
    const int TILE = BACKWARD_TILE, stage = 2 * TILE * (WIDTH + PAD);
    SHARED(bf16, shared); /* two stages of queries and do, then two of lse and along */
    float *numbers = (float *)(shared + 2 * stage);
    const head_place place = find_head(a);
    if ((int)blockIdx.y * BLOCK_ROWS >= place.tokens) return;
    const own_rows own = find_rows(place);
    const int64_t at[2] = {query_at(a, place, own.at[0]) + a.D, query_at(a, place, own.at[1]) + a.D};
    unsigned key[WIDTH / 16][4], value[WIDTH / 16][4];
    float dk[WIDTH / 8][4] = {{0}}, dv[WIDTH / 8][4] = {{0}};
    load_rows<WIDTH>(key, a.qkv + at[0], a.qkv + at[1]);
    load_rows<WIDTH>(value, a.qkv + at[0] + a.D, a.qkv + at[1] + a.D);
    fetch_queries<TILE, WIDTH>(shared, numbers, a, place, 0);
    for (int first = 0, turn = 0; first < place.tokens; first += TILE, turn ^= 1) {
        const bf16 *queries = shared + turn * stage, *grads = queries + TILE * (WIDTH + PAD);
        const float *lse = numbers + turn * 2 * TILE, *along = lse + TILE;
        float p[TILE / 8][4], ds[TILE / 8][4];
        copy_async_wait();
        __syncthreads();
        if (first + TILE < place.tokens)
            fetch_queries<TILE, WIDTH>(shared + (turn ^ 1) * stage, numbers + (turn ^ 1) * 2 * TILE, a, place,
                                       first + TILE);
        times_rows<TILE, WIDTH>(p, key, queries);
        times_rows<TILE, WIDTH>(ds, value, grads);
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int i = 8 * n + 2 * lane_t() + e % 2;
                p[n][e] = first + i < place.tokens ? expf(a.scale * p[n][e] - lse[i]) : 0;
                ds[n][e] = a.scale * p[n][e] * (ds[n][e] - along[i]);
            }
        add_product<TILE, WIDTH>(dv, p, grads);
        add_product<TILE, WIDTH>(dk, ds, queries);
    }
    const float one[2] = {1, 1};
    store_rows<WIDTH>(a.dqkv + at[0], a.dqkv + at[1], dk, one, own.is[0], own.is[1]);
    store_rows<WIDTH>(a.dqkv + at[0] + a.D, a.dqkv + at[1] + a.D, dv, one, own.is[0], own.is[1]);
}

template <int WIDTH> static attention_kernels<bf16> of_width(void)
{
    constexpr size_t row = 2 * 2 * (WIDTH + PAD) * sizeof(bf16), backward = BACKWARD_TILE * row;
    static_assert(2 * FORWARD_TILE * row <= 160 << 10 && FORWARD_TILE * row <= 48 << 10,
                  "two blocks fit an SM of every architecture, and none has to ask for more than 48 KB");
    return {mma_forward<WIDTH>, mma_queries<WIDTH>, mma_keys<WIDTH>, MMA_THREADS,
            BLOCK_ROWS,         FORWARD_TILE * row, backward,        backward + 4 * BACKWARD_TILE * sizeof(float)};
}

attention_kernels<bf16> attention_mma(int width)
{
    return width == 32 ? of_width<32>() : of_width<64>();
}
