/* What the program and its module libxkd-cuda.so know of each other. CUDA stands in a module, so that the program runs, and can
 * be installed, where there is no GPU. The simulation of the tests is a module with the same interface. */
#ifndef XKD_BACKEND_CUDA_MODULE_H
#define XKD_BACKEND_CUDA_MODULE_H

#include <stddef.h>

#include "backend/backend.h"

/* What the module may call of the program. */
typedef struct {
    xkd_status (*fail)(xkd_context *cx, xkd_status status, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
} xkd_cuda_host;

/* What was launched, and what it moved and computed by its own account (xkd_cuda_table.count). */
typedef struct {
    const char *name; /* of the operation */
    long long launches, bytes, flop;
} xkd_cuda_count;

enum { XKD_CUDA_MEETING = 128 };

/* A rank among those whose devices are to meet. */
typedef struct {
    int rank, size;
    int64_t share; /* floats of each rank that sums need memory for */
    /* Asked for as long as this rank waits for others, which takes a moment; false: they are given up. */
    bool (*go_on)(void *user);
    void *user;
} xkd_cuda_party;

typedef struct {
    /* Versions of the libraries, and the devices that are there, each as a line of text. `lack`: why no device can be used, and
     * what to install; empty where one can. */
    void (*describe)(char *versions, size_t versions_size, char *devices, size_t devices_size, char *lack,
                     size_t lack_size);
    /* Fills memory, ops and device of a backend whose context and type are set. Device -1: the simulation's that does no work, so
     * that what a step asks of it can be counted at full size. */
    xkd_status (*open)(const xkd_cuda_host *host, xkd_backend *be, int device);
    void (*close)(xkd_backend *be);
    /* Waits for all work; the first fault since the last call. */
    xkd_status (*status)(xkd_backend *be);
    /* Bytes that operations and sums over ranks have come to hold, besides tensors. */
    int64_t (*held)(const xkd_backend *be);
    /* Devices that there are; 0 where none can be used. */
    int (*devices)(void);

    /* ---- ranks: processes whose devices exchange tensors ---- */
    /* What of all devices of its machine this backend's is, in `bus`. False: there is no library for exchanges (NCCL). */
    bool (*place)(const xkd_backend *be, char *bus, size_t size);
    /* Takes what sums need; rank 0 makes the meeting's name [XKD_CUDA_MEETING]. A fault of this and of what follows is the
     * backend's. */
    void (*prepare)(xkd_backend *be, const xkd_cuda_party *party, char *name);
    /* Waits for all, which must be prepared. False: the others were given up, or there is a fault. */
    bool (*meet)(xkd_backend *be, const char *name);
    /* x [n] of the device = sum over ranks, in float32 in the order of dist.h, beside what is asked for later, and behind what was
     * before; `halved`: sent as bfloat16. */
    void (*sum)(xkd_backend *be, float *x, int64_t n, bool halved);
    /* Whether all sums are there, or there is a fault. Never behind a sum in which the others were given up. */
    bool (*summed)(xkd_backend *be);
    /* Gives up what is under way, and leaves. */
    void (*part)(xkd_backend *be);

    /* From now on counts by operation; with `out` gives the counts so far and starts anew. The number of them. */
    int (*count)(xkd_backend *be, xkd_cuda_count *out, int size);
    /* As xkd_backend_repeat and xkd_backend_repeat_end; never while operations are counted. */
    bool (*repeat)(xkd_backend *be, const void *key, int64_t bytes);
    void (*repeat_end)(xkd_backend *be);
    /* What the host has asked of the device so far: launches, copies and whole graphs. */
    int64_t (*asked)(const xkd_backend *be);
    /* How often it has waited for work that it did not know to be done. */
    int64_t (*waited)(const xkd_backend *be);
} xkd_cuda_table;

/* The module's one symbol; its number changes with this header and with the table of operations. */
#ifdef __cplusplus
extern "C"
#endif
    __attribute__((visibility("default"))) const xkd_cuda_table *
    xkd_cuda_table_4(void);

#endif
