/* Finding and loading the module. */
#include "backend/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/module.h"

/* Devices and their modules; one of each a process. */
static struct {
    const char *name, *file, *remedy;
    const xkd_cuda_table *table;
} modules[] = {
    {"cuda", "libxkd-cuda.so", "build where CUDA 13's nvcc and cuBLASLt are", NULL},
    {"cuda-sim", "libxkd-cuda-sim.so", "it is built with the tests, beside the program", NULL},
};

enum { MODULES = sizeof modules / sizeof *modules };

enum { ANY = -2 }; /* number of a device: by the rank's place */

/* The module of a device's name, and the device's number; -1: none. */
static int find_module(const char *name, int *device)
{
    const char *colon = strchr(name, ':');
    size_t length = colon ? (size_t)(colon - name) : strlen(name);
    char *end = NULL;
    *device = ANY;
    if (strcmp(name, "cuda-sim:count") == 0)
        *device = -1;
    else if (colon) {
        if (colon[1] < '0' || colon[1] > '9') return -1;
        *device = (int)strtol(colon + 1, &end, 10);
        if (*end || *device > 1023) return -1;
    }
    for (int m = 0; m < MODULES; m++)
        if (strlen(modules[m].name) == length && strncmp(modules[m].name, name, length) == 0) return m;
    return -1;
}

bool xkd_cuda_is_named(const char *name)
{
    int device;
    return find_module(name, &device) >= 0;
}

/* NULL, and why. */
static const xkd_cuda_table *load(int m, char *why, size_t size)
{
    const xkd_cuda_table *(*table)(void);
    if (modules[m].table) return modules[m].table;
    void *symbol = xkd_module_symbol(modules[m].file, "xkd_cuda_table_4", false, modules[m].remedy, why, size);
    size_t used = strlen(why);
    if (!symbol && strstr(why, "cannot open shared object file"))
        snprintf(why + used, size - used,
                 ": install CUDA 13's libraries (cuBLASLt), or put them where the loader looks");
    if (!symbol && strstr(why, "undefined symbol"))
        snprintf(why + used, size - used,
                 ": it belongs to another version of the program: install both from one build");
    if (!symbol) return NULL;
    memcpy(&table, &symbol, sizeof table);
    modules[m].table = table();
    return modules[m].table;
}

/* The table of this backend's module. */
static const xkd_cuda_table *table_of(const xkd_backend *be)
{
    int device, m = find_module(be->memory->name, &device);
    return modules[m].table;
}

xkd_status xkd_cuda_new(xkd_context *cx, xkd_backend *be, const char *name)
{
    static const xkd_cuda_host host = {xkd_fail};
    xkd_status status = XKD_OK;
    char why[4700];
    int device, m = find_module(name, &device);
    if (be->dtype != XKD_F32 && be->dtype != XKD_BF16)
        return xkd_fail(cx, XKD_ERR_CONFIG, "run.device=%s: not available for %s: take float32 or bfloat16", name,
                        xkd_dtype_name(be->dtype));
    const xkd_cuda_table *table = load(m, why, sizeof why);
    if (!table) return xkd_fail(cx, XKD_ERR_DEVICE, "run.device=%s: %s", name, why);
    if (device == ANY) {
        int there = table->devices();
        device = there ? xkd_context_place(cx) % there : 0;
    }
    XKD_TRY(xkd_pool_new(cx, &be->pool, 1));
    XKD_TRY(table->open(&host, be, device));
fail:
    return status;
}

void xkd_cuda_free(xkd_backend *be)
{
    if (be->cuda) table_of(be)->close(be);
}

xkd_status xkd_cuda_status(xkd_backend *be)
{
    return table_of(be)->status(be);
}

int64_t xkd_cuda_held(const xkd_backend *be)
{
    return table_of(be)->held(be);
}

bool xkd_cuda_place(const xkd_backend *be, char *bus, size_t size)
{
    return table_of(be)->place(be, bus, size);
}

void xkd_cuda_prepare(xkd_backend *be, const xkd_cuda_party *party, char name[XKD_CUDA_MEETING])
{
    table_of(be)->prepare(be, party, name);
}

bool xkd_cuda_meet(xkd_backend *be, const char name[XKD_CUDA_MEETING])
{
    return table_of(be)->meet(be, name);
}

void xkd_cuda_sum(xkd_backend *be, float *x, int64_t n, bool halved)
{
    table_of(be)->sum(be, x, n, halved);
}

bool xkd_cuda_summed(xkd_backend *be)
{
    return table_of(be)->summed(be);
}

void xkd_cuda_part(xkd_backend *be)
{
    table_of(be)->part(be);
}

int xkd_cuda_counts(xkd_backend *be, xkd_cuda_count *out, int size)
{
    return be->cuda ? table_of(be)->count(be, out, size) : 0;
}

bool xkd_cuda_repeat(xkd_backend *be, const void *key, int64_t bytes)
{
    return table_of(be)->repeat(be, key, bytes);
}

void xkd_cuda_repeat_end(xkd_backend *be)
{
    table_of(be)->repeat_end(be);
}

int64_t xkd_cuda_asked(const xkd_backend *be)
{
    return table_of(be)->asked(be);
}

int64_t xkd_cuda_waited(const xkd_backend *be)
{
    return table_of(be)->waited(be);
}

void xkd_cuda_describe(char *versions, size_t versions_size, char *devices, size_t devices_size, char *lack,
                       size_t lack_size)
{
    const xkd_cuda_table *table = load(0, lack, lack_size);
    *versions = *devices = 0;
    if (table) table->describe(versions, versions_size, devices, devices_size, lack, lack_size);
}
