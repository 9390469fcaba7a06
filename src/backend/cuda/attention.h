/* Attention as its kernels see it: sequences packed one behind the other, and one head of one sequence a block. */
#ifndef XKD_BACKEND_CUDA_ATTENTION_H
#define XKD_BACKEND_CUDA_ATTENTION_H

#include "kernel.h"
#include "state.h"

/* As many segments as a launch takes; longer lists are several launches. */
enum { SEGMENTS = 8 };

struct segment_list {
    int count;
    int64_t row[SEGMENTS], batch[SEGMENTS], tokens[SEGMENTS];
};

template <class T> struct attention {
    T *o, *dqkv;            /* [R,D], [R,3D] */
    float *lse, *along;     /* [R,H]: log-sum-exp, and do . o for the backward */
    const T *qkv, *d_o;     /* [R,3D], [R,D] */
    const T *saved_o;       /* [R,D] */
    const float *saved_lse; /* [R,H] */
    segment_list segs;
    int H, D;
    float scale; /* 1 / sqrt(D/H) */
};

/* The head and the sequence of a block: its first row and its number of tokens. */
struct head_place {
    int64_t row;
    int tokens, head;
};

template <class T> __device__ inline head_place find_head(const attention<T> &a)
{
    int64_t sequence = blockIdx.x / (unsigned)a.H;
    int s = 0;
    while (sequence >= a.segs.batch[s]) sequence -= a.segs.batch[s++];
    return {a.segs.row[s] + sequence * a.segs.tokens[s], (int)a.segs.tokens[s], (int)(blockIdx.x % (unsigned)a.H)};
}

/* Where a token's query of this head stands in qkv; its key stands D behind, its value 2D. */
template <class T> __device__ inline int64_t query_at(const attention<T> &a, const head_place &p, int64_t token)
{
    return (p.row + token) * 3 * a.D + p.head * (a.D / a.H);
}

/* Where it stands in o and do. */
template <class T> __device__ inline int64_t output_at(const attention<T> &a, const head_place &p, int64_t token)
{
    return (p.row + token) * a.D + p.head * (a.D / a.H);
}

/* Kernels of a width: forward, gradient of queries (which leaves `along`), gradient of keys and values. `rows` is how many
 * queries or keys a block has. */
template <class T> struct attention_kernels {
    void (*forward)(attention<T>), (*queries)(attention<T>), (*keys)(attention<T>);
    int threads, rows;
    size_t forward_shared, queries_shared, keys_shared;
};

template <class T> attention_kernels<T> attention_plain(int width);
/* Widths 32 and 64. */
template <class T> attention_kernels<T> attention_tiled(int width);
/* The same widths on tensor cores; tensors begin at multiples of 16 bytes. */
attention_kernels<bf16> attention_mma(int width);

#endif
