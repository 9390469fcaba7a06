/* The optimiser over all tensors at once: one launch for the squares of gradients and one to add them up, one for AdamW, the
 * averages and the copies, behind a small one for what a tensor's elements share. A block has CHUNK elements of one tensor. */
#include <string.h>

#include "kernel.h"
#include "state.h"

enum { CHUNK = 1 << 14 };

/* A list of tensors, and the number of the first block of each with the number of all at the end, on the device. */
struct tensor_list {
    const void *items;
    const unsigned *first; /* [count+1] */
    unsigned blocks;
};

/* False: out of memory. The list is that of every step, so its copy stays. */
static bool bring_list(xkd_backend *be, const void *list, int64_t item_bytes, int64_t count,
                       int64_t (*length)(const void *list, int64_t i), tensor_list *out)
{
    int64_t list_bytes = count * item_bytes, bytes = list_bytes + (count + 1) * (int64_t)sizeof(unsigned);
    char *whole = (char *)cuda_list(be, bytes);
    if (!whole) return false;
    unsigned *first = (unsigned *)(whole + list_bytes), blocks = 0;
    memcpy(whole, list, (size_t)list_bytes);
    for (int64_t i = 0; i < count; i++) {
        first[i] = blocks;
        blocks += blocks_for(length(list, i), CHUNK);
    }
    first[count] = blocks;
    out->blocks = blocks;
    out->items = cuda_keep(be, whole, bytes);
    out->first = (const unsigned *)((const char *)out->items + list_bytes);
    return out->items != NULL;
}

/* The tensor of this block: the last that begins at it or before it. */
__device__ inline int64_t find_tensor(const unsigned *first, int64_t count)
{
    int64_t low = 0, high = count;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (first[middle] <= blockIdx.x)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* ---- norms ---- */

__global__ void square_chunks(double *partial, const xkd_vector *list, const unsigned *first, int64_t count)
{
    SHARED(double, room); /* [WARPS] */
    int64_t t = find_tensor(first, count), begin = (int64_t)(blockIdx.x - first[t]) * CHUNK;
    int64_t end = begin + CHUNK < list[t].n ? begin + CHUNK : list[t].n;
    const float *x = (const float *)list[t].x;
    double sum = 0;
    for (int64_t i = begin + threadIdx.x; x && i < end; i += THREADS) sum += (double)x[i] * (double)x[i];
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

struct norm_args {
    double *squares, *finite;
    const double *partial, *scalars;
    const unsigned *first;
    int64_t count, n;
};

/* One block; a thread adds up a tensor's chunks in order. */
__global__ void add_squares(norm_args a)
{
    SHARED(int, room); /* [WARPS] */
    int faults = 0;
    for (int64_t t = threadIdx.x; t < a.count; t += THREADS) {
        double sum = 0;
        for (unsigned b = a.first[t]; b < a.first[t + 1]; b++) sum += a.partial[b];
        a.squares[t] = sum;
        if (!isfinite(sum)) faults++;
    }
    for (int64_t i = threadIdx.x; i < a.n; i += THREADS)
        if (!isfinite(a.scalars[i])) faults++;
    faults = block_sum(faults, room);
    if (threadIdx.x == 0) *a.finite = faults ? 0 : 1;
}

static int64_t vector_length(const void *list, int64_t i)
{
    return ((const xkd_vector *)list)[i].n;
}

static void norms(xkd_backend *be, double *squares, double *finite, const xkd_vector *list, int64_t count,
                  const double *scalars, int64_t n)
{
    int64_t elements = 0;
    tensor_list vectors;
    for (int64_t i = 0; i < count; i++) elements += list[i].n;
    if (!cuda_begin(be, __func__, 4 * elements, 2 * elements)) return;
    if (!bring_list(be, list, sizeof *list, count, vector_length, &vectors)) return;
    double *partial = (double *)cuda_scratch(be, (int64_t)vectors.blocks * (int64_t)sizeof *partial);
    if (!partial) return;
    LAUNCH(be, square_chunks, vectors.blocks, THREADS, WARPS * sizeof(double), partial,
           (const xkd_vector *)vectors.items, vectors.first, count);
    LAUNCH(be, add_squares, 1, THREADS, WARPS * sizeof(int),
           norm_args{squares, finite, partial, scalars, vectors.first, count, n});
}

/* ---- AdamW ---- */

/* Numbers of one tensor that are the same for all its elements; PyTorch's order of operations. */
struct adamw_numbers {
    float scale, decay, step, root, momentum[2];
};

/* A thread a tensor; counts the step. */
__global__ void adamw_begin(adamw_numbers *numbers, const xkd_adamw_args *list, int64_t count, const double *squares,
                            const double *finite)
{
    int64_t t = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (t >= count || *finite == 0) return;
    const xkd_adamw_args &a = list[t];
    adamw_numbers n = adamw_numbers();
    for (int k = 0; k < 2; k++)
        if (a.ema[k]) n.momentum[k] = (float)*a.ema_momentum[k];
    if (a.g) {
        double scale = a.clip > 0 ? fmin(1.0, a.clip / (sqrt(squares[t]) + 1e-6)) : 1;
        double lr = a.lr_scale * *a.lr, decay = a.weight_decay ? *a.weight_decay : 0, steps = *a.steps + 1;
        *a.steps = steps;
        n.scale = (float)scale;
        n.decay = (float)(1 - lr * decay);
        n.step = (float)(lr / (1 - pow(a.beta1, steps)));
        n.root = (float)(1 / sqrt(1 - pow(a.beta2, steps)));
    }
    numbers[t] = n;
}

__device__ inline void adamw_element(const xkd_adamw_args &a, const adamw_numbers &n, int64_t i)
{
    float *p = (float *)a.p;
    float value = p[i];
    if (a.g) {
        float *m = (float *)a.m, *v = (float *)a.v, g = n.scale * ((const float *)a.g)[i];
        float m1 = (float)a.beta1 * m[i] + (float)(1 - a.beta1) * g;
        float m2 = (float)a.beta2 * v[i] + (float)(1 - a.beta2) * g * g;
        m[i] = m1;
        v[i] = m2;
        value = value * n.decay - n.step * m1 / (sqrtf(m2) * n.root + (float)a.eps);
        p[i] = value;
        if (a.stored) set((bf16 *)a.stored, i, value);
    }
    for (int k = 0; k < 2; k++) {
        float *t = (float *)a.ema[k];
        if (!t) continue;
        t[i] = n.momentum[k] * t[i] + (1 - n.momentum[k]) * value;
        if (a.ema_stored[k]) set((bf16 *)a.ema_stored[k], i, t[i]);
    }
}

/* The tensors with a gradient, or those of which only averages are taken. */
__global__ void adamw_chunks(const adamw_numbers *numbers, const xkd_adamw_args *list, const unsigned *first,
                             int64_t count, const double *finite, bool trained)
{
    if (*finite == 0) return;
    int64_t t = find_tensor(first, count), begin = (int64_t)(blockIdx.x - first[t]) * CHUNK;
    const xkd_adamw_args &a = list[t];
    if ((a.g != NULL) != trained) return;
    int64_t end = begin + CHUNK < a.n ? begin + CHUNK : a.n;
    adamw_numbers n = numbers[t];
    for (int64_t i = begin + threadIdx.x; i < end; i += THREADS) adamw_element(a, n, i);
}

static int64_t adamw_length(const void *list, int64_t i)
{
    return ((const xkd_adamw_args *)list)[i].n;
}

/* Bytes of a list: p, m, v are read and written, g is read; an average is read and written, and p read for it where it is
 * not trained; copies are written. */
static int64_t adamw_bytes(const xkd_adamw_args *list, int64_t count)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t passes = list[i].g ? 7 : 1, copies = list[i].stored ? 1 : 0;
        for (int k = 0; k < 2; k++) {
            passes += list[i].ema[k] ? 2 : 0;
            copies += list[i].ema_stored[k] ? 1 : 0;
        }
        bytes += list[i].n * (passes * (int64_t)sizeof(float) + copies * (int64_t)sizeof(bf16));
    }
    return bytes;
}

/* A tensor that is averaged alone may be one that was trained, so these come behind in a launch of their own. */
static void adamw(xkd_backend *be, const xkd_adamw_args *list, int64_t count, const double *squares,
                  const double *finite)
{
    bool trained = false, averaged = false;
    tensor_list tensors;
    if (!cuda_begin(be, __func__, adamw_bytes(list, count), 0)) return;
    if (!bring_list(be, list, sizeof *list, count, adamw_length, &tensors)) return;
    adamw_numbers *numbers = (adamw_numbers *)cuda_scratch(be, count * (int64_t)sizeof *numbers);
    if (!numbers) return;
    const xkd_adamw_args *items = (const xkd_adamw_args *)tensors.items;
    for (int64_t i = 0; i < count; i++) *(list[i].g ? &trained : &averaged) = true;
    LAUNCH(be, adamw_begin, blocks_for(count, THREADS), THREADS, 0, numbers, items, count, squares, finite);
    for (int pass = 0; pass < 2; pass++)
        if (pass == 0 ? trained : averaged)
            LAUNCH(be, adamw_chunks, tensors.blocks, THREADS, 0, (const adamw_numbers *)numbers, items, tensors.first,
                   count, finite, pass == 0);
}

void cuda_fill_optim(xkd_ops *ops)
{
    ops->norms = norms;
    ops->adamw = adamw;
}
