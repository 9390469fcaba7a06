/* The one place where the runtime of the GPU and its library of products have names: the rest of this folder calls these and
 * no other. device.cu and device_ranks.cu give them CUDA, cuBLASLt and NCCL; the simulation of the tests gives them the host
 * (tests/cudasim).
 *
 * Functions return 0 or an error, of which dev_error_text knows a sentence. Pointers are the device's unless they are called
 * host. Work on a stream is done late and in order. */
#ifndef XKD_BACKEND_CUDA_DEVICE_H
#define XKD_BACKEND_CUDA_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#ifdef XKD_CUDASIM
#include "cudasim.h"
#else
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#endif

typedef struct dev_stream_state *dev_stream;
typedef struct dev_event_state *dev_event;
typedef struct dev_graph_state *dev_graph;
typedef struct dev_gemm_state *dev_gemm;
typedef struct dev_ranks_state *dev_ranks;
typedef __nv_bfloat16 bf16;

struct dev_properties {
    char name[128];
    int major, minor; /* of the architecture */
    size_t memory;    /* bytes */
    int processors;
    char bus[32]; /* where it sits in its machine: no two devices have the same */
};

enum { DEV_NO_MEMORY = 2 }; /* CUDA's number of it */
const char *dev_error_text(int error);
bool dev_error_is_memory(int error);

/* Versions as major * 1000 + minor * 10; 0: there is none. */
int dev_driver_version(void);
int dev_runtime_version(void);
int dev_gemm_version(void);

int dev_count(int *count);
int dev_describe(int device, dev_properties *out);
/* Whether kernels were built for the device's architecture. */
int dev_has_kernels(void);
/* All that follows is meant for this device. On a simulation -1 is one that does no work: for counting what is asked of it. */
int dev_use(int device);

int dev_take(void **out, size_t bytes);
int dev_give(void *block);
int dev_take_pinned(void **out_host, size_t bytes);
int dev_give_pinned(void *host);

int dev_stream_new(dev_stream *out);
int dev_stream_free(dev_stream stream);
/* Waits until all work of the stream is done. */
int dev_stream_wait(dev_stream stream);
int dev_event_new(dev_event *out);
int dev_event_free(dev_event event);
int dev_event_record(dev_event event, dev_stream stream);
int dev_event_wait(dev_event event);                      /* the host waits */
int dev_stream_after(dev_stream stream, dev_event event); /* the stream does */
int dev_event_done(dev_event event, bool *done);          /* nobody waits */

/* Of a simulation alone: bytes behind a piece of memory that nothing may touch (0 elsewhere), and where they are, from when the
 * stream has come by until their block is given back. */
size_t dev_red_zone(void);
int dev_fence(void *at, size_t bytes, dev_stream stream);

int dev_zero(void *to, size_t bytes, dev_stream stream);
int dev_copy(void *to, const void *from, size_t bytes, dev_stream stream);
/* Pinned host memory must stay as it is until the stream has come by; of other memory a copy is taken at once. */
int dev_upload(void *to, const void *host, size_t bytes, dev_stream stream);
/* The host may read when the stream has come by. */
int dev_download(void *host, const void *from, size_t bytes, dev_stream stream);

/* What is asked of the stream between begin and end is not done but kept, to be launched as a whole. */
int dev_capture_begin(dev_stream stream);
int dev_capture_end(dev_stream stream, dev_graph *out);
int dev_graph_launch(dev_graph graph, dev_stream stream);
int dev_graph_free(dev_graph graph);

/* y [M,N] = a [M,K] b [K,N] + c [M,N] + bias [N], row-major; what is NULL is left out, and c may be y. Sums run in float32. */
enum dev_type { DEV_F32, DEV_BF16 };
struct dev_product {
    void *y;
    const void *a, *b, *c, *bias;
    int64_t M, N, K;
    bool a_stored_km, b_stored_nk; /* the operand is stored transposed: a as [K,M], b as [N,K] */
    dev_type in, out;              /* of a and b; of y and c. The bias has that of y */
    bool tf32;                     /* float32 operands may lose mantissa */
};
int dev_gemm_new(dev_gemm *out);
int dev_gemm_free(dev_gemm gemm);
int dev_multiply(dev_gemm gemm, const dev_product *product, dev_stream stream);

/* Exchange between the devices of several processes. They meet under a name that one of them makes and the others are told. An
 * exchange is whatever is sent and received between its begin and its end; it is done on the stream. Nobody waits: behind the
 * beginning of a meeting and the end of an exchange dev_ranks_ready is asked until all is ready for more, with these ranks and on
 * the stream. */
enum { DEV_RANKS_NAME = 128 };
int dev_ranks_version(void); /* of the library: 0 where there is none */
int dev_ranks_name(char name[DEV_RANKS_NAME]);
int dev_ranks_meet(dev_ranks *out, const char name[DEV_RANKS_NAME], int rank, int size);
int dev_ranks_ready(dev_ranks ranks, bool *ready);
/* What is under way is given up. */
int dev_ranks_leave(dev_ranks ranks);
int dev_exchange_begin(dev_ranks ranks);
int dev_send(dev_ranks ranks, const void *from, size_t bytes, int to, dev_stream stream);
int dev_receive(dev_ranks ranks, void *to, size_t bytes, int from, dev_stream stream);
int dev_exchange_end(dev_ranks ranks);
/* Of errors from these functions, which dev_error_text passes on. */
enum { DEV_RANKS_ERRORS = 200000 };
const char *dev_ranks_error_text(int error);

#ifndef XKD_CUDASIM
int dev_launch_kernel(const void *kernel, dim3 grid, dim3 block, void **args, size_t shared, dev_stream stream);
int dev_allow_shared(const void *kernel, size_t bytes);

/* kernel<<<grid, block, shared, stream>>>(args...); `name` is for the simulation. */
template <class... P, class... A>
int dev_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, dev_stream stream,
               A... args)
{
    (void)name;
    struct pack {
        static int call(const void *function, dim3 g, dim3 b, size_t bytes, dev_stream s, P... parameters)
        {
            void *list[] = {(void *)&parameters...};
            return dev_launch_kernel(function, g, b, list, bytes, s);
        }
    };
    int error = shared > 48 << 10 ? dev_allow_shared((const void *)kernel, shared) : 0;
    return error ? error : pack::call((const void *)kernel, grid, block, shared, stream, args...);
}

/* The block's shared memory as an array; its size is given at the launch. */
#define SHARED(type, name)                                         \
    extern __shared__ __align__(16) unsigned char shared_bytes_[]; \
    type *name = reinterpret_cast<type *>(shared_bytes_)
#endif

#endif
