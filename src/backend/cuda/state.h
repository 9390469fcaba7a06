/* What the operations of this backend share on the host: the device, its stream, scratch, and how a kernel is launched. */
#ifndef XKD_BACKEND_CUDA_STATE_H
#define XKD_BACKEND_CUDA_STATE_H

#include "device.h"

extern "C" {
#include "backend/cuda/module.h"
}

enum { COUNTS = 128, STAGES = 32, KEPT = 8, GRAPHS = 12, KEY_BYTES = 64 };

/* A place in the work that was asked for, which the host may wait for. */
struct xkd_cuda_mark {
    dev_event event;
    int64_t asked; /* of the device by then */
};

/* Pinned memory through which arrays of the host travel, one piece a call in turn. There are more of them than two steps have arrays, so
 * that the host need not wait for the step before. */
struct xkd_cuda_stage {
    void *host;
    size_t bytes;
    xkd_cuda_mark passed; /* the stream has read it */
    bool used;
};

/* The device's memory where what departs from the host lands, beside the work that goes on, before that is done with its place. */
struct xkd_cuda_landing {
    void *room;
    size_t bytes;
    xkd_cuda_mark taken; /* the stream of the operations has read it */
    bool used;
};

struct xkd_cuda_ranks;
/* An array of the host, and its copy on the device. */
struct xkd_cuda_kept {
    void *host, *device;
    size_t bytes;
};

/* A stretch of operations (xkd_backend_repeat) and, from the second time on, the graph of them. */
struct xkd_cuda_stretch {
    unsigned char key[KEY_BYTES];
    size_t bytes;     /* of the key; 0: the place is free */
    long long used;   /* when it was asked for last, by the count of all */
    bool unfit;       /* something in it can only be done at once */
    dev_graph graph;  /* NULL: none yet */
    int64_t products; /* multiply-adds in it */
};

struct xkd_cuda {
    xkd_memory memory; /* first: the memory's functions get its address */
    xkd_backend *be;
    const xkd_cuda_host *host;
    int device;
    dev_stream stream;
    dev_stream carrier; /* of departures, beside it */
    xkd_cuda_landing landing[XKD_LANDINGS];
    int next_landing;
    dev_gemm gemm;
    void *scratch;
    size_t scratch_bytes;
    void *list; /* of the host: cuda_list */
    size_t list_bytes;
    xkd_cuda_kept kept[KEPT];
    int next_kept;
    xkd_cuda_stage stage[STAGES];
    int next_stage;
    xkd_cuda_ranks *ranks; /* the other processes, once they have met; NULL */
    xkd_cuda_stretch stretch[GRAPHS];
    xkd_cuda_stretch *recording; /* what is asked for goes into its graph; NULL: is done */
    long long stretches;         /* asked for so far */
    int64_t asked;               /* of the device: launches, copies, graphs */
    int64_t done;                /* of these, as far as the host has waited */
    int64_t waited;              /* how often it did, for what it did not know to be done */
    xkd_cuda_count *now;         /* of the running operation; NULL: nothing is counted */
    xkd_cuda_count counts[COUNTS];
    int counted;
    bool counting;
};

/* Keeps the first fault. Whether all is well. */
bool cuda_check(xkd_backend *be, int error, const char *what);

/* Waits for all work, and for what was asked for before a mark was set; as functions of device.h otherwise. */
int cuda_wait_all(xkd_cuda *cuda);
int cuda_wait(xkd_cuda *cuda, const xkd_cuda_mark *mark);
/* Here, on the stream of the operations. */
int cuda_mark(xkd_cuda *cuda, xkd_cuda_mark *mark);

/* Begins an operation, which reads and writes `bytes` and computes `flop` at least. False: an earlier one has failed, and
 * nothing is to be done. */
bool cuda_begin(xkd_backend *be, const char *operation, int64_t bytes, int64_t flop);

/* Device memory that one operation uses; NULL: out of memory, and the backend knows. */
void *cuda_scratch(xkd_backend *be, int64_t bytes);

/* The next array of n in scratch that begins at `room` (NULL: it is only measured), on 64 bytes. */
template <class N> N *carve(char *room, int64_t *used, int64_t n)
{
    N *here = room ? (N *)(room + *used) : NULL;
    *used += (n * (int64_t)sizeof(N) + 63) / 64 * 64;
    return here;
}

/* Memory of the host for one list at a time; NULL likewise. */
void *cuda_list(xkd_backend *be, int64_t bytes);

/* The device's copy of an array of the host, which stays for later calls with the same bytes: what every step needs is brought
 * once. NULL: out of memory, likewise. */
const void *cuda_keep(xkd_backend *be, const void *host, int64_t bytes);

/* Copies an array of the host to the device. */
void cuda_upload(xkd_backend *be, void *to, const void *host, int64_t bytes);

/* In front of what a graph cannot hold - a wait, memory that comes or goes, a copy from or to the host: what was recorded so
 * far is done, and the rest of the stretch is done at once, now and later. */
void cuda_interrupt(xkd_cuda *cuda);

/* No graph may be launched again, since scratch has moved: the stretches are recorded anew. */
void cuda_drop_graphs(xkd_cuda *cuda);

/* The same where keys may have come to mean something else: the stretches are done launch by launch first. */
void cuda_forget_stretches(xkd_cuda *cuda);

/* xkd_backend_repeat and xkd_backend_repeat_end. */
bool cuda_repeat(xkd_backend *be, const void *key, int64_t bytes);
void cuda_repeat_end(xkd_backend *be);

/* y = a b + c + bias, as device.h has it. */
void cuda_multiply(xkd_backend *be, const dev_product *product);

/* Exchange with other ranks: the module's functions of these names (module.h). */
bool cuda_ranks_place(const xkd_backend *be, char *bus, size_t size);
void cuda_ranks_prepare(xkd_backend *be, const xkd_cuda_party *party, char *name);
bool cuda_ranks_meet(xkd_backend *be, const char *name);
void cuda_ranks_sum(xkd_backend *be, float *x, int64_t n, bool halved);
bool cuda_ranks_summed(xkd_backend *be);
void cuda_ranks_part(xkd_backend *be);
/* Bytes of their room on the device. */
int64_t cuda_ranks_held(const xkd_backend *be);

/* One more thing was asked of the device, unless it only goes into a graph. */
static inline void cuda_asked(xkd_cuda *cuda)
{
    if (!cuda->recording) cuda->asked++;
}

template <class... P, class... A>
void cuda_launch(xkd_backend *be, const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                 A... args)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    if (be->status != XKD_OK || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    if (cuda->now) cuda->now->launches++;
    cuda_asked(cuda);
    cuda_check(be, dev_launch(name, kernel, grid, block, shared, cuda->stream, args...), name);
}

/* LAUNCH(be, kernel, grid, block, shared bytes, arguments...); a kernel with several template arguments in parentheses. */
#define LAUNCH(be, kernel, ...) cuda_launch(be, #kernel, kernel, __VA_ARGS__)

static inline unsigned blocks_for(int64_t n, int64_t per_block)
{
    return (unsigned)((n + per_block - 1) / per_block);
}

/* Elements, one at a time and independent of each other: f(i) for i in [0, n). Each thread has EACH of them, a block apart,
 * so that as many reads are under way. */
enum { EACH = 4, EACH_THREADS = 256 };

template <class F> __global__ void each_kernel(F f, int64_t n)
{
    int64_t first = (int64_t)blockIdx.x * EACH * EACH_THREADS + threadIdx.x;
    for (int e = 0; e < EACH; e++)
        if (first + e * EACH_THREADS < n) f(first + e * EACH_THREADS);
}

template <class F> void cuda_each(xkd_backend *be, const char *name, F f, int64_t n)
{
    cuda_launch(be, name, each_kernel<F>, blocks_for(n, EACH * EACH_THREADS), EACH_THREADS, 0, f, n);
}

/* sum [K] += column sums of x [R,K]. */
template <class T> void cuda_column_sum(xkd_backend *be, float *sum, const T *x, int64_t R, int64_t K);

/* The slots that a file fills: for elements of type T, with float where the table wants exact numbers. */
template <class T> void cuda_fill_products(xkd_ops *ops);
template <class T> void cuda_fill_rows(xkd_ops *ops);
template <class T> void cuda_fill_flat(xkd_ops *ops);
template <class T> void cuda_fill_attention(xkd_ops *ops);
template <class T> void cuda_fill_tokens(xkd_ops *ops);
template <class T> void cuda_fill_loss(xkd_ops *ops);
void cuda_fill_video_view(xkd_ops *ops);
void cuda_fill_audio_view(xkd_ops *ops);
void cuda_fill_align(xkd_ops *ops);
void cuda_fill_classify(xkd_ops *ops);
void cuda_fill_optim(xkd_ops *ops);

#endif
