/* The optimiser over all tensors at once: one launch for the squares of gradients and one to add them up, one for AdamW, the
 * averages and the copies. A block has CHUNK elements of one tensor. */
#include "kernel.h"
#include "state.h"

enum { CHUNK = 1 << 14 };

/* Lists of tensors: their fields, and the number of the first block of each, with the number of all at the end. */
static unsigned *first_blocks(unsigned *first, int64_t count, int64_t (*length)(const void *list, int64_t i),
                              const void *list)
{
    unsigned blocks = 0;
    for (int64_t i = 0; i < count; i++) {
        first[i] = blocks;
        blocks += blocks_for(length(list, i), CHUNK);
    }
    first[count] = blocks;
    return first;
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

/* A list and the first blocks of its items, together on the device; `room` bytes stand in front of them in scratch. NULL: out
 * of memory. */
static char *upload_list(xkd_backend *be, const void *list, int64_t list_bytes, const unsigned *first, int64_t count,
                         int64_t room)
{
    int64_t blocks = (count + 1) * (int64_t)sizeof *first, at = (room + 15) / 16 * 16;
    char *scratch = (char *)cuda_scratch(be, at + list_bytes + blocks);
    if (!scratch) return NULL;
    cuda_upload(be, scratch + at, list, list_bytes);
    cuda_upload(be, scratch + at + list_bytes, first, blocks);
    return scratch;
}

static int64_t vector_length(const void *list, int64_t i)
{
    return ((const xkd_vector *)list)[i].n;
}

static void norms(xkd_backend *be, double *squares, double *finite, const xkd_vector *list, int64_t count,
                  const double *scalars, int64_t n)
{
    int64_t elements = 0, list_bytes = count * (int64_t)sizeof *list;
    for (int64_t i = 0; i < count; i++) elements += list[i].n;
    if (!cuda_begin(be, __func__, 4 * elements, 2 * elements)) return;
    unsigned *first = (unsigned *)cuda_list(be, (count + 1) * (int64_t)sizeof *first);
    if (!first) return;
    first_blocks(first, count, vector_length, list);
    int64_t room = (int64_t)first[count] * (int64_t)sizeof(double), at = (room + 15) / 16 * 16;
    char *scratch = upload_list(be, list, list_bytes, first, count, room);
    if (!scratch) return;
    const unsigned *blocks = (const unsigned *)(scratch + at + list_bytes);
    LAUNCH(be, square_chunks, first[count], THREADS, WARPS * sizeof(double), (double *)scratch,
           (const xkd_vector *)(scratch + at), blocks, count);
    LAUNCH(be, add_squares, 1, THREADS, WARPS * sizeof(int),
           norm_args{squares, finite, (const double *)scratch, scalars, blocks, count, n});
}

/* ---- AdamW ---- */

/* Numbers of one tensor that are the same for all its elements; PyTorch's order of operations. */
struct adamw_numbers {
    float scale, decay, step, root, momentum[2];
};

__device__ inline adamw_numbers numbers_of(const xkd_adamw_args &a, const double *squares)
{
    adamw_numbers n;
    double scale = 1;
    if (a.g && a.clip > 0) scale = fmin(1.0, a.clip / (sqrt(*squares) + 1e-6));
    n.scale = (float)scale;
    n.decay = (float)(1 - a.lr * a.weight_decay);
    n.step = (float)(a.lr / a.correction1);
    n.root = (float)(1 / sqrt(a.correction2));
    for (int k = 0; k < 2; k++) n.momentum[k] = (float)a.ema_momentum[k];
    return n;
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
__global__ void adamw_chunks(const xkd_adamw_args *list, const unsigned *first, int64_t count, const double *squares,
                             const double *finite, bool trained)
{
    if (*finite == 0) return;
    int64_t t = find_tensor(first, count), begin = (int64_t)(blockIdx.x - first[t]) * CHUNK;
    const xkd_adamw_args &a = list[t];
    if ((a.g != NULL) != trained) return;
    int64_t end = begin + CHUNK < a.n ? begin + CHUNK : a.n;
    adamw_numbers n = numbers_of(a, squares + t);
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
    int64_t list_bytes = count * (int64_t)sizeof *list;
    if (!cuda_begin(be, __func__, adamw_bytes(list, count), 0)) return;
    unsigned *first = (unsigned *)cuda_list(be, (count + 1) * (int64_t)sizeof *first);
    if (!first) return;
    first_blocks(first, count, adamw_length, list);
    char *scratch = upload_list(be, list, list_bytes, first, count, 0);
    if (!scratch) return;
    for (int64_t i = 0; i < count; i++) *(list[i].g ? &trained : &averaged) = true;
    for (int pass = 0; pass < 2; pass++)
        if (pass == 0 ? trained : averaged)
            LAUNCH(be, adamw_chunks, first[count], THREADS, 0, (const xkd_adamw_args *)scratch,
                   (const unsigned *)(scratch + list_bytes), count, squares, finite, pass == 0);
}

void cuda_fill_optim(xkd_ops *ops)
{
    ops->norms = norms;
    ops->adamw = adamw;
}
