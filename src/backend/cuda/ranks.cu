/* Sums over ranks where the tensors lie. Each rank gets its share of a bucket from all, adds the shares up in a fixed binary tree
 * over the ranks, and sends the sum round: the bytes of a ring, and the bits of src/dist/dist.c. */
#include "kernel.h"
#include "state.h"

#include <stdio.h>
#include <stdlib.h>

/* Sums that wait for their equals in a tree over at most 65 536 ranks. */
enum { MOST_WAITING = 17 };

struct xkd_cuda_ranks {
    dev_ranks link;
    dev_stream stream; /* beside that of the operations */
    dev_event ready, summed;
    int rank, size;
    int64_t share; /* floats of a rank's share of a full bucket */
    xkd_cuda_party party;
    bool given_up;     /* the others, in a sum that will never be */
    float *room;       /* [size,share] the shares received */
    bf16 *sent, *came; /* in bfloat16, [size,share] each: the two halves of room */
};

/* Rank r has elements [r * each, (r + 1) * each) of a bucket of n, as far as there are any. */
struct cut {
    int64_t n, each;
};

static int64_t begin_of(cut c, int r)
{
    return r * c.each < c.n ? r * c.each : c.n;
}

static int64_t size_of(cut c, int r)
{
    int64_t left = c.n - begin_of(c, r);
    return left < c.each ? left : c.each;
}

/* What ranks have at one place: this rank's own number as it is, the others' as they were sent. */
template <class T> struct places {
    const float *own; /* [n] */
    const T *came;    /* [size,n] */
    int64_t n;
    int rank;
    __device__ float at(int r, int64_t i) const
    {
        return r == rank ? own[i] : get(came, r * n + i);
    }
};

/* ((0+1)+(2+3))+...: a sum waits until its equal is there, and what waits at the end is added from the last on. */
template <class T> __device__ static float tree_sum(const places<T> &p, int size, int64_t i)
{
    float waiting[MOST_WAITING];
    int count = 0;
    for (int r = 0; r < size; r++) {
        float sum = p.at(r, i);
        for (int bits = r; bits & 1; bits >>= 1) sum = waiting[--count] + sum;
        waiting[count++] = sum;
    }
    for (; count > 1; count--) waiting[count - 2] += waiting[count - 1];
    return waiting[0];
}

/* out [n] = the sums; with `half` also as they are sent. */
template <class T> __global__ void sum_kernel(float *out, bf16 *half, places<T> p, int size)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.n) return;
    float sum = tree_sum(p, size, i);
    out[i] = sum;
    if (half) half[i] = __float2bfloat16_rn(sum);
}

__global__ void round_kernel(bf16 *out, const float *x, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = __float2bfloat16_rn(x[i]);
}

__global__ void widen_kernel(float *out, const bf16 *x, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = get(x, i);
}

template <class... P, class... A>
static bool launch(xkd_backend *be, const char *name, void (*kernel)(P...), int64_t n, A... args)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    if (n == 0) return be->status == XKD_OK;
    return cuda_check(
        be, dev_launch(name, kernel, dim3(blocks_for(n, THREADS)), dim3(THREADS), 0, cuda->ranks->stream, args...),
        name);
}

/* To every other rank its part of `from`, out_each elements of type T apart and out(r) of them, and from it into `to` likewise. */
struct side {
    char *data;
    int64_t step; /* bytes from one rank's part to the next one's; 0: all have the same */
    cut sizes;
    int own; /* -1: the size is that of the other rank's share, else of this one's */
};

static size_t part_bytes(const side *s, int r, size_t element)
{
    return (size_t)size_of(s->sizes, s->own < 0 ? r : s->own) * element;
}

/* Until the link is ready for more. False: the others were given up, or there is a fault. */
static bool wait_for_others(xkd_backend *be, const char *what)
{
    xkd_cuda_ranks *k = ((xkd_cuda *)be->cuda)->ranks;
    for (bool ready = false;;) {
        if (!cuda_check(be, dev_ranks_ready(k->link, &ready), what)) return false;
        if (ready) return true;
        k->given_up = !k->party.go_on(k->party.user);
        if (k->given_up) return false;
    }
}

static bool exchange(xkd_backend *be, const side *out, const side *in, size_t element)
{
    xkd_cuda_ranks *k = ((xkd_cuda *)be->cuda)->ranks;
    int error = dev_exchange_begin(k->link);
    for (int r = 0; r < k->size && !error; r++) {
        size_t sent = part_bytes(out, r, element), received = part_bytes(in, r, element);
        if (r == k->rank) continue;
        if (sent) error = dev_send(k->link, out->data + r * out->step, sent, r, k->stream);
        if (!error && received) error = dev_receive(k->link, in->data + r * in->step, received, r, k->stream);
    }
    int end = dev_exchange_end(k->link);
    const char *what = "an exchange between ranks";
    return cuda_check(be, error ? error : end, what) && wait_for_others(be, what);
}

/* Shares of `x` go to the ranks that add them up, and come here as rows of `room`. */
static bool exchange_shares(xkd_backend *be, void *x, void *room, cut c, size_t element)
{
    int rank = ((xkd_cuda *)be->cuda)->ranks->rank;
    const side out = {(char *)x, c.each * (int64_t)element, c, -1};
    const side in = {(char *)room, size_of(c, rank) * (int64_t)element, c, rank};
    return exchange(be, &out, &in, element);
}

/* The sum of this rank's share goes to all, and theirs come to their places in `x`. */
static bool exchange_sums(xkd_backend *be, void *x, cut c, size_t element)
{
    int rank = ((xkd_cuda *)be->cuda)->ranks->rank;
    const side out = {(char *)x + begin_of(c, rank) * (int64_t)element, 0, c, rank};
    const side in = {(char *)x, c.each * (int64_t)element, c, -1};
    return exchange(be, &out, &in, element);
}

static bool sum_bucket(xkd_backend *be, float *x, int64_t n)
{
    xkd_cuda_ranks *k = ((xkd_cuda *)be->cuda)->ranks;
    const cut c = {n, (n + k->size - 1) / k->size};
    float *own = x + begin_of(c, k->rank);
    const places<float> p = {own, k->room, size_of(c, k->rank), k->rank};
    return exchange_shares(be, x, k->room, c, sizeof *x) &&
           launch(be, "sum_kernel", sum_kernel<float>, p.n, own, (bf16 *)NULL, p, k->size) &&
           exchange_sums(be, x, c, sizeof *x);
}

/* The same in half the bytes: all take the sums as they were sent. */
static bool sum_bucket_halved(xkd_backend *be, float *x, int64_t n)
{
    xkd_cuda_ranks *k = ((xkd_cuda *)be->cuda)->ranks;
    const cut c = {n, (n + k->size - 1) / k->size};
    float *own = x + begin_of(c, k->rank);
    const places<bf16> p = {own, k->came, size_of(c, k->rank), k->rank};
    return launch(be, "round_kernel", round_kernel, n, k->sent, x, n) &&
           exchange_shares(be, k->sent, k->came, c, sizeof *k->sent) &&
           launch(be, "sum_kernel", sum_kernel<bf16>, p.n, own, k->sent + begin_of(c, k->rank), p, k->size) &&
           exchange_sums(be, k->sent, c, sizeof *k->sent) && launch(be, "widen_kernel", widen_kernel, n, x, k->sent, n);
}

void cuda_ranks_sum(xkd_backend *be, float *x, int64_t n, bool halved)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    xkd_cuda_ranks *k = cuda->ranks;
    int64_t bucket = k->share * k->size;
    if (be->status != XKD_OK || k->given_up) return;
    cuda_interrupt(cuda); /* other ranks are no part of a graph */
    /* Behind what made the numbers. */
    int error = dev_event_record(k->ready, cuda->stream);
    if (!error) error = dev_stream_after(k->stream, k->ready);
    bool well = cuda_check(be, error, "a sum over ranks");
    for (int64_t at = 0; well && at < n; at += bucket) {
        int64_t count = n - at < bucket ? n - at : bucket;
        well = halved ? sum_bucket_halved(be, x + at, count) : sum_bucket(be, x + at, count);
    }
    if (well) cuda_check(be, dev_event_record(k->summed, k->stream), "a sum over ranks");
}

bool cuda_ranks_summed(xkd_backend *be)
{
    xkd_cuda_ranks *k = ((xkd_cuda *)be->cuda)->ranks;
    bool done = true, ready;
    if (be->status != XKD_OK) return true;
    if (k->given_up) return false;
    int error = dev_event_done(k->summed, &done);
    if (!error) error = dev_ranks_ready(k->link, &ready);
    return !cuda_check(be, error, "a sum over ranks") || done;
}

void cuda_ranks_part(xkd_backend *be)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    xkd_cuda_ranks *k = cuda->ranks;
    if (!k) return;
    cuda->ranks = NULL;
    /* Before anything waits for the stream: what is under way may wait for a rank that is lost. */
    dev_ranks_leave(k->link);
    if (k->stream) dev_stream_free(k->stream);
    if (k->ready) dev_event_free(k->ready);
    if (k->summed) dev_event_free(k->summed);
    if (k->room) dev_give(k->room);
    free(k);
}

void cuda_ranks_prepare(xkd_backend *be, const xkd_cuda_party *party, char *name)
{
    int64_t floats = party->share * party->size;
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    xkd_cuda_ranks *k = (xkd_cuda_ranks *)calloc(1, sizeof *k);
    if (!k) {
        be->status = cuda->host->fail(be->cx, XKD_ERR_MEMORY, "out of memory");
        return;
    }
    cuda->ranks = k;
    k->party = *party;
    k->rank = party->rank;
    k->size = party->size;
    k->share = party->share;
    int error = dev_take((void **)&k->room, (size_t)floats * sizeof(float));
    k->sent = (bf16 *)k->room;
    k->came = k->sent + floats;
    if (!error) error = dev_stream_new(&k->stream);
    if (!error) error = dev_event_new(&k->ready);
    if (!error) error = dev_event_new(&k->summed);
    bool well = cuda_check(be, error, "buckets for sums over ranks");
    if (well && party->rank == 0) well = cuda_check(be, dev_ranks_name(name), "NCCL");
    if (!well) cuda_ranks_part(be);
}

bool cuda_ranks_meet(xkd_backend *be, const char *name)
{
    const char *what = "NCCL, when ranks met";
    xkd_cuda_ranks *k = ((xkd_cuda *)be->cuda)->ranks;
    bool met = cuda_check(be, dev_ranks_meet(&k->link, name, k->rank, k->size), what) && wait_for_others(be, what);
    if (!met) cuda_ranks_part(be);
    return met;
}

int64_t cuda_ranks_held(const xkd_backend *be)
{
    const xkd_cuda_ranks *k = ((const xkd_cuda *)be->cuda)->ranks;
    return k ? k->share * k->size * (int64_t)sizeof *k->room : 0;
}

bool cuda_ranks_place(const xkd_backend *be, char *bus, size_t size)
{
    dev_properties p;
    if (dev_ranks_version() == 0 || dev_describe(((xkd_cuda *)be->cuda)->device, &p)) return false;
    snprintf(bus, size, "%s", p.bus);
    return true;
}
