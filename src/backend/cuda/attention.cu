/* Attention's operations, and its kernels for heads of any width: one warp a query, or a key, and no matrix of weights. */
#include "attention.h"

/* ---- plain kernels. Per warp in shared memory: two rows of the head's width, and two numbers a lane ---- */

struct warp_room {
    float *first, *second; /* [width] */
    float *p, *ds;         /* [WARP] */
};

__device__ inline warp_room room_of_warp(float *shared, int width)
{
    float *room = shared + warp_number() * 2 * (width + WARP);
    return {room, room + width, room + 2 * width, room + 2 * width + WARP};
}

static size_t plain_room(int width)
{
    return WARPS * 2 * (size_t)(width + WARP) * sizeof(float);
}

template <class T> __device__ inline float dot(const float *a, const T *b, int64_t at, int width)
{
    float sum = 0;
    for (int k = 0; k < width; k++) sum += a[k] * get(b, at + k);
    return sum;
}

/* Keys in tiles of a warp's width: a lane scores one of them, and then adds up some elements of the output over all. */
template <class T> __global__ void plain_forward(attention<T> a)
{
    SHARED(float, shared);
    const head_place place = find_head(a);
    int i = (int)blockIdx.y * WARPS + warp_number(), width = a.D / a.H;
    if (i >= place.tokens) return;
    warp_room room = room_of_warp(shared, width);
    float *q = room.first, *o = room.second, largest = -3.402823466e38f, total = 0;
    for (int k = lane_number(); k < width; k += WARP) {
        q[k] = get(a.qkv, query_at(a, place, i) + k);
        o[k] = 0;
    }
    __syncwarp();
    for (int first = 0; first < place.tokens; first += WARP) {
        int j = first + lane_number(), count = min(WARP, place.tokens - first);
        bool here = j < place.tokens;
        float score = here ? a.scale * dot(q, a.qkv, query_at(a, place, j) + a.D, width) : largest;
        float next = fmaxf(largest, warp_max(score)), shrink = expf(largest - next);
        float p = here ? expf(score - next) : 0;
        total = total * shrink + warp_sum(p);
        largest = next;
        room.p[lane_number()] = p;
        __syncwarp();
        for (int k = lane_number(); k < width; k += WARP) {
            float sum = o[k] * shrink;
            for (int t = 0; t < count; t++) sum += room.p[t] * get(a.qkv, query_at(a, place, first + t) + 2 * a.D + k);
            o[k] = sum;
        }
        __syncwarp();
    }
    for (int k = lane_number(); k < width; k += WARP) set(a.o, output_at(a, place, i) + k, o[k] / total);
    if (lane_number() == 0) a.lse[(place.row + i) * a.H + place.head] = log_sum_value({largest, total});
}

/* With p = softmax: dp_ij = do_i . v_j; ds_ij = scale p_ij (dp_ij - do_i . o_i); dq_i = sum_j ds_ij k_j. */
template <class T> __global__ void plain_queries(attention<T> a)
{
    SHARED(float, shared);
    const head_place place = find_head(a);
    int i = (int)blockIdx.y * WARPS + warp_number(), width = a.D / a.H;
    if (i >= place.tokens) return;
    warp_room room = room_of_warp(shared, width);
    float *q = room.first, *g = room.second, along = 0;
    const int64_t at = output_at(a, place, i), number = (place.row + i) * a.H + place.head;
    for (int k = lane_number(); k < width; k += WARP) {
        q[k] = get(a.qkv, query_at(a, place, i) + k);
        g[k] = get(a.d_o, at + k);
        along += g[k] * get(a.saved_o, at + k);
    }
    along = warp_sum(along);
    if (lane_number() == 0) a.along[number] = along;
    __syncwarp();
    for (int base = 0; base < width; base += WARP) {
        /* The sum of one element stays in a register; scores are made again for each WARP elements of a wide head. */
        float sum = 0;
        for (int first = 0; first < place.tokens; first += WARP) {
            int j = first + lane_number(), count = min(WARP, place.tokens - first), k = base + lane_number();
            if (j < place.tokens) {
                int64_t key = query_at(a, place, j) + a.D;
                float p = expf(a.scale * dot(q, a.qkv, key, width) - a.saved_lse[number]);
                room.ds[lane_number()] = a.scale * p * (dot(g, a.qkv, key + a.D, width) - along);
            }
            __syncwarp();
            for (int t = 0; k < width && t < count; t++)
                sum += room.ds[t] * get(a.qkv, query_at(a, place, first + t) + a.D + k);
            __syncwarp();
        }
        if (base + lane_number() < width) set(a.dqkv, query_at(a, place, i) + base + lane_number(), sum);
    }
}

/* dk_j = sum_i ds_ij q_i; dv_j = sum_i p_ij do_i. */
template <class T> __global__ void plain_keys(attention<T> a)
{
    SHARED(float, shared);
    const head_place place = find_head(a);
    int j = (int)blockIdx.y * WARPS + warp_number(), width = a.D / a.H;
    if (j >= place.tokens) return;
    warp_room room = room_of_warp(shared, width);
    float *key = room.first, *value = room.second;
    const int64_t at = query_at(a, place, j) + a.D;
    for (int k = lane_number(); k < width; k += WARP) {
        key[k] = get(a.qkv, at + k);
        value[k] = get(a.qkv, at + a.D + k);
    }
    __syncwarp();
    for (int base = 0; base < width; base += WARP) {
        float dk = 0, dv = 0;
        for (int first = 0; first < place.tokens; first += WARP) {
            int i = first + lane_number(), count = min(WARP, place.tokens - first), k = base + lane_number();
            if (i < place.tokens) {
                int64_t number = (place.row + i) * a.H + place.head;
                float p = expf(a.scale * dot(key, a.qkv, query_at(a, place, i), width) - a.saved_lse[number]);
                room.p[lane_number()] = p;
                room.ds[lane_number()] =
                    a.scale * p * (dot(value, a.d_o, output_at(a, place, i), width) - a.along[number]);
            }
            __syncwarp();
            for (int t = 0; k < width && t < count; t++) {
                dk += room.ds[t] * get(a.qkv, query_at(a, place, first + t) + k);
                dv += room.p[t] * get(a.d_o, output_at(a, place, first + t) + k);
            }
            __syncwarp();
        }
        if (base + lane_number() >= width) continue;
        set(a.dqkv, at + base + lane_number(), dk);
        set(a.dqkv, at + a.D + base + lane_number(), dv);
    }
}

template <class T> attention_kernels<T> attention_plain(int width)
{
    size_t room = plain_room(width);
    return {plain_forward<T>, plain_queries<T>, plain_keys<T>, THREADS, WARPS, room, room, room};
}

/* ---- operations ---- */

static bool has_tiles(int width)
{
    return width == 32 || width == 64;
}

static attention_kernels<float> kernels_for(int width, const float *, const float *, const float *)
{
    return has_tiles(width) ? attention_tiled<float>(width) : attention_plain<float>(width);
}

static attention_kernels<bf16> kernels_for(int width, const bf16 *qkv, const bf16 *o, const bf16 *d_o)
{
    if (!has_tiles(width)) return attention_plain<bf16>(width);
    bool aligned = ((uintptr_t)qkv | (uintptr_t)o | (uintptr_t)d_o) % 16 == 0;
    return aligned ? attention_mma(width) : attention_tiled<bf16>(width);
}

/* Multiply-adds of `per_pair` products over all pairs of tokens. */
static int64_t pairs(const xkd_segments *segs, int64_t D, int64_t per_pair)
{
    int64_t work = 0;
    for (int64_t s = 0; s < segs->count; s++)
        work += per_pair * segs->items[s].batch * segs->items[s].tokens * segs->items[s].tokens * D;
    return work;
}

/* The next segments of the list; false at its end. Empty ones are left out. */
static bool next_segments(const xkd_segments *segs, int64_t *at, int64_t *row, segment_list *out, int64_t *sequences,
                          int64_t *longest)
{
    out->count = 0;
    *sequences = *longest = 0;
    for (; *at < segs->count && out->count < SEGMENTS; ++*at) {
        const xkd_segment *s = &segs->items[*at];
        out->row[out->count] = *row;
        out->batch[out->count] = s->batch;
        out->tokens[out->count] = s->tokens;
        *row += s->batch * s->tokens;
        *sequences += s->batch;
        if (s->tokens > *longest) *longest = s->tokens;
        if (s->batch > 0 && s->tokens > 0) out->count++;
    }
    return out->count > 0;
}

template <class T> static attention<T> arguments(const void *qkv, const void *o, const void *lse, int64_t H, int64_t D)
{
    attention<T> a = attention<T>();
    a.qkv = (const T *)qkv;
    a.saved_o = (const T *)o;
    a.saved_lse = (const float *)lse;
    a.H = (int)H;
    a.D = (int)D;
    a.scale = 1 / sqrtf((float)(D / H));
    return a;
}

template <class T>
static void attention_forward(xkd_backend *be, void *o, void *lse, const void *qkv, const xkd_segments *segs, int64_t H,
                              int64_t D)
{
    attention<T> a = arguments<T>(qkv, NULL, NULL, H, D);
    attention_kernels<T> k = kernels_for((int)(D / H), a.qkv, (const T *)o, (const T *)NULL);
    int64_t work = pairs(segs, D, 2), at = 0, row = 0, sequences, longest;
    be->products += work;
    if (!cuda_begin(be, __func__, segs->rows * (4 * D * (int64_t)sizeof(T) + 4 * H), 2 * work)) return;
    a.o = (T *)o;
    a.lse = (float *)lse;
    while (next_segments(segs, &at, &row, &a.segs, &sequences, &longest)) {
        dim3 grid((unsigned)(sequences * H), blocks_for(longest, k.rows));
        cuda_launch(be, __func__, k.forward, grid, k.threads, k.forward_shared, a);
    }
}

template <class T>
static void attention_backward(xkd_backend *be, void *dqkv, const void *d_o, const void *qkv, const void *o,
                               const void *lse, const xkd_segments *segs, int64_t H, int64_t D)
{
    attention<T> a = arguments<T>(qkv, o, lse, H, D);
    attention_kernels<T> k = kernels_for((int)(D / H), a.qkv, (const T *)dqkv, (const T *)d_o);
    int64_t work = pairs(segs, D, 5), at = 0, row = 0, sequences, longest;
    be->products += work;
    if (!cuda_begin(be, __func__, segs->rows * (9 * D * (int64_t)sizeof(T) + 8 * H), 2 * work)) return;
    a.dqkv = (T *)dqkv;
    a.d_o = (const T *)d_o;
    a.along = (float *)cuda_scratch(be, segs->rows * H * (int64_t)sizeof(float));
    while (a.along && next_segments(segs, &at, &row, &a.segs, &sequences, &longest)) {
        dim3 grid((unsigned)(sequences * H), blocks_for(longest, k.rows));
        cuda_launch(be, __func__, k.queries, grid, k.threads, k.queries_shared, a);
        cuda_launch(be, __func__, k.keys, grid, k.threads, k.keys_shared, a);
    }
}

/* One weight: of key c + j, for the class token (c = 1) or the mean over all queries. */
template <class T> struct probe_element {
    float *w;
    const T *qkv;
    const float *lse;
    int64_t tokens, H, D, c;
    float scale;
    __device__ void operator()(int64_t i) const
    {
        int64_t N = tokens - c, b = i / (H * N), h = i / N % H, j = i % N, width = D / H, queries = c ? 1 : tokens;
        int64_t first = b * tokens * 3 * D + h * width, key = first + (c + j) * 3 * D + D;
        float sum = 0;
        for (int64_t q = 0; q < queries; q++) {
            float score = 0;
            for (int64_t k = 0; k < width; k++) score += get(qkv, first + q * 3 * D + k) * get(qkv, key + k);
            sum += expf(scale * score - lse[(b * tokens + q) * H + h]);
        }
        w[i] = sum / (float)queries;
    }
};

template <class T>
static void attention_probe(xkd_backend *be, void *w, const void *qkv, const void *lse, int64_t B, int64_t tokens,
                            int64_t H, int64_t D, bool cls)
{
    int64_t c = cls ? 1 : 0, N = tokens - c, queries = cls ? 1 : tokens;
    be->products += B * queries * N * D;
    if (!cuda_begin(be, __func__, B * tokens * D * (int64_t)sizeof(T) + 4 * B * H * N, 2 * B * queries * N * D)) return;
    cuda_each(
        be, __func__,
        probe_element<T>{(float *)w, (const T *)qkv, (const float *)lse, tokens, H, D, c, 1 / sqrtf((float)(D / H))},
        B * H * N);
}

template <class T> void cuda_fill_attention(xkd_ops *ops)
{
    ops->attention_forward = attention_forward<T>;
    ops->attention_backward = attention_backward<T>;
    ops->attention_probe = attention_probe<T>;
}

template void cuda_fill_attention<float>(xkd_ops *);
template void cuda_fill_attention<bf16>(xkd_ops *);
