/* The two ranges of addresses of a guard, and what its operations do before and behind each call. */
#include "backend/guard/guard.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

/* Reserved addresses cost nothing. They are never given out twice, so memory that was given back stays unreadable. */
static const int64_t RANGE = (int64_t)1 << 36;
static const int64_t PAGE = 4096;
/* Bytes behind each piece of an arena, and what stands in them. */
enum { RED_ZONE = 256, MARK = 0xA5 };

typedef struct {
    unsigned char *at; /* in the range that can be read */
    int64_t bytes;
} fence;

struct xkd_guard {
    xkd_memory memory; /* first: the memory's functions get its address */
    char *closed;      /* [RANGE] addresses that tensors have; no rights */
    char *open;        /* [RANGE] the same bytes to read and write */
    int64_t used;      /* bytes of the range that were given out */
    xkd_backend *behind;
    xkd_context *cx;
    xkd_status fault; /* of a copy */
    bool foreign;     /* an argument of the operation that comes was no address of ours */
    int64_t calls, fail_at;
    void *list;
    int64_t list_bytes;
    fence *fences;
    int64_t fence_count, fence_capacity;
};

static bool is_ours(const xkd_guard *g, const void *address, int64_t bytes)
{
    const char *p = address;
    return p >= g->closed && p + bytes <= g->closed + RANGE;
}

static char *opened(const xkd_guard *g, const void *address)
{
    return g->open + ((const char *)address - g->closed);
}

/* A page in front keeps the size for `give`, and one behind stays closed. */
static xkd_status take(xkd_memory *memory, xkd_context *cx, void **out, int64_t bytes)
{
    xkd_guard *g = (xkd_guard *)memory;
    int64_t size = (bytes + PAGE - 1) / PAGE * PAGE + PAGE;
    if (g->used + size + PAGE > RANGE || mprotect(g->open + g->used, (size_t)size, PROT_READ | PROT_WRITE) != 0)
        return xkd_fail(cx, XKD_ERR_MEMORY, "guard: out of memory: %lld bytes were refused", (long long)bytes);
    memcpy(g->open + g->used, &size, sizeof size);
    *out = g->closed + g->used + PAGE;
    g->used += size + PAGE;
    return XKD_OK;
}

static void add_fence(xkd_memory *memory, void *at, int64_t bytes)
{
    xkd_guard *g = (xkd_guard *)memory;
    fence f = {(unsigned char *)opened(g, at), bytes};
    xkd_status status = xkd_reserve(g->cx, &g->fences, g->fence_count, &g->fence_capacity, sizeof f);
    if (status != XKD_OK) {
        g->fault = status;
        return;
    }
    memset(f.at, MARK, (size_t)bytes);
    ASAN_POISON_MEMORY_REGION(f.at, (size_t)bytes);
    g->fences[g->fence_count++] = f;
}

/* Told once: the zone is as new behind it. Under the sanitizer nothing can have been written. */
static void inspect_fence(xkd_guard *g, const fence *f)
{
    int64_t i = 0;
#ifdef __SANITIZE_ADDRESS__
    i = f->bytes;
#endif
    while (i < f->bytes && f->at[i] == MARK) i++;
    if (i == f->bytes) return;
    memset(f->at, MARK, (size_t)f->bytes);
    g->fault = xkd_fail(g->cx, XKD_ERR_INTERNAL,
                        "guard: something was written %lld bytes behind the end of a piece of an arena", (long long)i);
}

void xkd_guard_inspect(xkd_guard *g)
{
    for (int64_t i = 0; i < g->fence_count; i++) inspect_fence(g, &g->fences[i]);
}

/* Those of a block that goes. */
static void drop_fences(xkd_guard *g, const char *begin, int64_t size)
{
    int64_t left = 0;
    for (int64_t i = 0; i < g->fence_count; i++) {
        const fence *f = &g->fences[i];
        bool goes = (char *)f->at >= begin && (char *)f->at < begin + size;
        if (goes) {
            inspect_fence(g, f);
            ASAN_UNPOISON_MEMORY_REGION(f->at, (size_t)f->bytes);
        } else {
            g->fences[left++] = *f;
        }
    }
    g->fence_count = left;
}

/* The pages go back to the system; the addresses stay closed. */
static void give(xkd_memory *memory, void *block)
{
    xkd_guard *g = (xkd_guard *)memory;
    char *begin = opened(g, block) - PAGE;
    int64_t size;
    memcpy(&size, begin, sizeof size);
    drop_fences(g, begin, size);
    madvise(begin, (size_t)size, MADV_DONTNEED);
    mprotect(begin, (size_t)size, PROT_NONE);
}

/* A copy from or to an address that is not ours is a mistake of the caller: it is kept and not done. */
static bool check(xkd_guard *g, const void *address, int64_t bytes, const char *what)
{
    if (is_ours(g, address, bytes)) return true;
    g->fault = xkd_fail(g->cx, XKD_ERR_INTERNAL, "guard: %s of an address that is not the device's", what);
    return false;
}

static void zero(xkd_memory *memory, void *to, int64_t bytes)
{
    xkd_guard *g = (xkd_guard *)memory;
    if (check(g, to, bytes, "zeroing")) memset(opened(g, to), 0, (size_t)bytes);
}

static void copy(xkd_memory *memory, void *to, const void *from, int64_t bytes)
{
    xkd_guard *g = (xkd_guard *)memory;
    if (check(g, to, bytes, "copy") && check(g, from, bytes, "copy"))
        memcpy(opened(g, to), opened(g, from), (size_t)bytes);
}

static void upload(xkd_memory *memory, void *to, const void *host, int64_t bytes)
{
    xkd_guard *g = (xkd_guard *)memory;
    if (check(g, to, bytes, "upload")) memcpy(opened(g, to), host, (size_t)bytes);
}

static void download(xkd_memory *memory, void *host, const void *from, int64_t bytes)
{
    xkd_guard *g = (xkd_guard *)memory;
    memset(host, 0, (size_t)bytes); /* what is not copied is at least not left over */
    if (check(g, from, bytes, "download")) memcpy(host, opened(g, from), (size_t)bytes);
}

/* What arrives stands behind, and is shown by the wait: numbers that are read without it are NaN. */
static xkd_status arrival_new(xkd_memory *memory, xkd_context *cx, xkd_arrival *out)
{
    (void)memory;
    xkd_status status = xkd_alloc(cx, &out->host, 2 * out->bytes, 1);
    if (status == XKD_OK) out->state = (char *)out->host + out->bytes;
    return status;
}

static void arrival_free(xkd_memory *memory, xkd_arrival *a)
{
    (void)memory;
    xkd_free(a->host);
}

static void arrival_ask(xkd_memory *memory, xkd_arrival *a, const void *from, int64_t bytes)
{
    memset(a->host, 0xff, (size_t)a->bytes);
    download(memory, a->state, from, bytes);
}

static void arrival_wait(xkd_memory *memory, xkd_arrival *a)
{
    (void)memory;
    memcpy(a->host, a->state, (size_t)a->bytes);
}

/* What departs is copied when it is sent. */
static void departure_send(xkd_memory *memory, xkd_departure *d, void *to, int64_t bytes)
{
    upload(memory, to, d->host, bytes);
}

static xkd_status read_name(xkd_context *cx, xkd_guard *g, const char *name)
{
    char *end = NULL;
    const char *number = strchr(name, ':');
    g->fail_at = -1;
    if (!number) return XKD_OK;
    g->fail_at = strtoll(number + 1, &end, 10);
    if (number[1] && !*end && g->fail_at >= 0) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_CONFIG, "run.device=%s: want guard or guard:N, N the operation that fails", name);
}

static xkd_status reserve(xkd_context *cx, char **out)
{
    void *range = mmap(NULL, (size_t)RANGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) return xkd_fail(cx, XKD_ERR_MEMORY, "guard: cannot reserve its range of addresses");
    *out = range;
    return XKD_OK;
}

/* float32 and bfloat16 run on the CPU's backend, which is fast enough for whole trainings; float64 on the reference. */
xkd_status xkd_guard_new(xkd_context *cx, xkd_backend *be, const char *name, int threads)
{
    xkd_status status = XKD_OK;
    xkd_guard *g = NULL;
    XKD_TRY(xkd_alloc(cx, &g, 1, sizeof *g));
    be->guard = g;
    g->cx = cx;
    g->memory = (xkd_memory){.name = "guard",
                             .late = true,
                             .red_zone = RED_ZONE,
                             .fence = add_fence,
                             .take = take,
                             .give = give,
                             .zero = zero,
                             .copy = copy,
                             .upload = upload,
                             .download = download,
                             .arrival_new = arrival_new,
                             .arrival_free = arrival_free,
                             .arrival_ask = arrival_ask,
                             .arrival_wait = arrival_wait,
                             .departure_new = xkd_host_memory()->departure_new,
                             .departure_free = xkd_host_memory()->departure_free,
                             .departure_send = departure_send,
                             .departure_wait = xkd_host_memory()->departure_wait};
    XKD_TRY(read_name(cx, g, name));
    XKD_TRY(reserve(cx, &g->closed));
    XKD_TRY(reserve(cx, &g->open));
    XKD_TRY(xkd_backend_new(cx, &g->behind, be->dtype == XKD_F64 ? "ref" : "cpu", be->dtype, threads));
    be->memory = &g->memory;
    be->ops = xkd_guard_ops();
    be->exact = xkd_guard_exact_ops();
    be->pool = g->behind->pool;
fail:
    return status;
}

void xkd_guard_free(xkd_guard *g)
{
    if (!g) return;
    xkd_backend_free(g->behind);
    if (g->closed) munmap(g->closed, (size_t)RANGE);
    if (g->open) drop_fences(g, g->open, RANGE);
    if (g->open) munmap(g->open, (size_t)RANGE);
    xkd_free(g->fences);
    xkd_free(g->list);
    xkd_free(g);
}

xkd_status xkd_guard_fault(xkd_guard *g)
{
    xkd_status fault = g->fault;
    g->fault = XKD_OK;
    return fault;
}

void *xkd_guard_open(xkd_backend *be, const void *address)
{
    xkd_guard *g = be->guard;
    if (!address) return NULL;
    if (is_ours(g, address, 1)) return opened(g, address);
    g->foreign = true;
    return NULL;
}

xkd_backend *xkd_guard_enter(xkd_backend *be, const char *operation)
{
    xkd_guard *g = be->guard;
    bool foreign = g->foreign, fails = g->fail_at >= 0 && g->calls++ >= g->fail_at;
    g->foreign = false;
    if (be->status != XKD_OK) return NULL;
    be->status = xkd_guard_fault(g);
    if (foreign)
        be->status =
            xkd_fail(g->cx, XKD_ERR_INTERNAL, "guard: %s was given an address that is not the device's", operation);
    if (fails) be->status = xkd_fail(g->cx, XKD_ERR_DEVICE, "guard: %s was made to fail", operation);
    return be->status == XKD_OK ? g->behind : NULL;
}

/* The account of products is read from the guard, the one of faults too. */
void xkd_guard_leave(xkd_backend *be)
{
    xkd_backend *behind = be->guard->behind;
    be->products = behind->products;
    if (behind->status != XKD_OK && be->status == XKD_OK) be->status = xkd_backend_status(behind);
}

void *xkd_guard_list(xkd_backend *be, int64_t bytes)
{
    xkd_guard *g = be->guard;
    xkd_status status = XKD_OK;
    if (bytes > g->list_bytes) status = xkd_resize(g->cx, &g->list, g->list_bytes, bytes, 1);
    if (status == XKD_OK && bytes > g->list_bytes) g->list_bytes = bytes;
    if (status != XKD_OK && be->status == XKD_OK) be->status = status;
    return status == XKD_OK ? g->list : NULL;
}
