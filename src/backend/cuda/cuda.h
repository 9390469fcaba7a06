/* The devices "cuda:N" and "cuda", which is the first one, or of several ranks on a machine each its own: a GPU of NVIDIA's, through a module that is loaded when it is first wanted, from beside the
 * program or the folder that it is installed in, and from nowhere else. "cuda-sim" is the same code on a simulation; its module
 * is built for tests and never installed; "cuda-sim:count" does no work, for counting what a step asks of a device. */
#ifndef XKD_BACKEND_CUDA_CUDA_H
#define XKD_BACKEND_CUDA_CUDA_H

#include "backend/cuda/module.h"

/* Whether the name is one of these devices'. */
bool xkd_cuda_is_named(const char *name);

/* Fills ops, memory, pool and device of `be`, of which context and type are set. XKD_ERR_DEVICE where there is no module or no
 * device, with what to install. */
xkd_status xkd_cuda_new(xkd_context *cx, xkd_backend *be, const char *name);
void xkd_cuda_free(xkd_backend *be);
xkd_status xkd_cuda_status(xkd_backend *be);
int64_t xkd_cuda_held(const xkd_backend *be);

/* Exchange with other ranks, as module.h has it; dist/dist.h is who calls it. */
bool xkd_cuda_place(const xkd_backend *be, char *bus, size_t size);
void xkd_cuda_prepare(xkd_backend *be, const xkd_cuda_party *party, char name[XKD_CUDA_MEETING]);
bool xkd_cuda_meet(xkd_backend *be, const char name[XKD_CUDA_MEETING]);
void xkd_cuda_sum(xkd_backend *be, float *x, int64_t n, bool halved);
bool xkd_cuda_summed(xkd_backend *be);
void xkd_cuda_part(xkd_backend *be);

bool xkd_cuda_repeat(xkd_backend *be, const void *key, int64_t bytes);
void xkd_cuda_repeat_end(xkd_backend *be);
int64_t xkd_cuda_asked(const xkd_backend *be);
int64_t xkd_cuda_waited(const xkd_backend *be);

/* Counts launches by operation from now on; with `out`, gives those so far. Their number; 0 on other devices. */
int xkd_cuda_counts(xkd_backend *be, xkd_cuda_count *out, int size);

/* What there is of CUDA: versions and devices, and why no device can be used, with what to install ("": one can be). */
void xkd_cuda_describe(char *versions, size_t versions_size, char *devices, size_t devices_size, char *lack,
                       size_t lack_size);

#endif
