/* The names of src/backend/cuda/device.h on the host. Streams run late: nothing is done before somebody waits for it, and then
 * in order, so that a wait that is missing shows. Products are those of the reference backend. */
#include "backend/cuda/device.h"

#include <cstdio>
#include <unistd.h>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "fibers.h"

extern "C" {
#include "backend/backend.h"
}

/* Errors: sim::FAULT, of which the simulation has a text, and those of a caller. */
enum { OUT_OF_MEMORY = 2, NO_DEVICE = 3, NOT_SIMULATED = 4 };

typedef std::function<int()> task;
using sim::FAULT;
using sim::PENDING;

namespace sim
{
struct stream {
    std::deque<task> queue;
    uint64_t asked = 0, done = 0; /* tasks so far */
    std::vector<task> *capture = nullptr;
};
} // namespace sim

struct dev_event_state {
    sim::stream *on = nullptr;
    uint64_t number = 0; /* of the last task before it */
};

struct dev_graph_state {
    std::vector<task> tasks;
};

struct dev_gemm_state {
    xkd_context *cx;
    xkd_backend *ref;
};

static std::map<char *, size_t> pinned; /* of the host, by begin: bytes */
static bool idle;                       /* work is asked for and not done */
static int captures;                    /* streams that are being captured */
static int stuck;                       /* the first fault of a task stays, as that of a device does */

/* What CUDA refuses while a stream is captured. */
static bool may_not(const char *what)
{
    if (captures) sim::note_fault("%s while a stream is captured", what);
    if (captures) stuck = FAULT;
    return captures;
}

static sim::stream *of(dev_stream stream)
{
    return (sim::stream *)stream;
}

const char *dev_error_text(int error)
{
    static const char *const texts[] = {"no error", "", "out of memory", "no such device",
                                        "a product that is not simulated"};
    if (error >= DEV_RANKS_ERRORS) return dev_ranks_error_text(error);
    if (error == FAULT && sim::last_fault()) return sim::last_fault();
    return error > 0 && error < 5 ? texts[error] : "an unknown error";
}

bool dev_error_is_memory(int error)
{
    return error == OUT_OF_MEMORY;
}

int dev_driver_version(void)
{
    return 13000;
}

int dev_runtime_version(void)
{
    return 13000;
}

int dev_gemm_version(void)
{
    return 13000;
}

int dev_count(int *count)
{
    *count = 1;
    return 0;
}

int dev_describe(int device, dev_properties *out)
{
    if (device != 0) return NO_DEVICE;
    *out = dev_properties();
    snprintf(out->name, sizeof out->name, "a simulation on the host");
    out->major = 9;
    out->memory = (size_t)1 << 34;
    out->processors = 1;
    snprintf(out->bus, sizeof out->bus, "sim-%d", (int)getpid()); /* each process has its own */
    return 0;
}

int dev_has_kernels(void)
{
    return 0;
}

int dev_use(int device)
{
    sim::forget_fault();
    stuck = 0;
    idle = device == -1;
    return device <= 0 ? 0 : NO_DEVICE;
}

/* ---- streams ---- */

/* A task that waits for another process is called until it is done, or once where the caller does not wait. */
static int run(sim::stream *s, uint64_t until, bool wait = true)
{
    sim::open_memory();
    while (s->done < until && !s->queue.empty()) {
        int result = stuck ? 0 : s->queue.front()();
        if (result == PENDING && wait) continue;
        if (result == PENDING) break;
        if (result) stuck = result;
        s->queue.pop_front();
        s->done++;
    }
    sim::close_memory();
    return stuck;
}

/* What a program may leave undone before the simulation does some of it: for the host's memory alone. */
enum { MOST_WAITING = 1 << 14 };

int sim::put(stream *s, task work)
{
    if (idle) return 0;
    if (s->capture) {
        s->capture->push_back(std::move(work));
        return stuck;
    }
    s->queue.push_back(std::move(work));
    s->asked++;
    return s->queue.size() > MOST_WAITING ? run(s, s->asked - MOST_WAITING / 2) : stuck;
}

int sim::launch(stream *s, const char *kernel, dim3 grid, dim3 block, size_t shared, job *own)
{
    std::shared_ptr<job> work(own);
    unsigned threads = block.x * block.y * block.z;
    if (threads == 0 || threads > MOST_THREADS || threads % LANES || shared > 227 << 10 || grid.y > 65535 ||
        grid.z > 65535 || (int64_t)grid.x * grid.y * grid.z == 0) {
        note_fault("%s: a launch of %u x %u x %u blocks of %u threads with %zu bytes of shared memory is refused",
                   kernel, grid.x, grid.y, grid.z, threads, shared);
        return stuck = FAULT;
    }
    return put(s, [=]() { return run_grid(kernel, grid, block, shared, work.get()) ? 0 : (int)FAULT; });
}

int dev_stream_new(dev_stream *out)
{
    *out = (dev_stream) new sim::stream();
    return 0;
}

int dev_stream_wait(dev_stream stream)
{
    if (may_not("a wait")) return stuck;
    return run(of(stream), of(stream)->asked);
}

int dev_stream_free(dev_stream stream)
{
    int error = dev_stream_wait(stream);
    delete of(stream);
    return error;
}

int dev_event_new(dev_event *out)
{
    *out = new dev_event_state();
    return 0;
}

int dev_event_free(dev_event event)
{
    delete event;
    return 0;
}

int dev_event_record(dev_event event, dev_stream stream)
{
    if (may_not("an event for the host")) return stuck;
    event->on = of(stream);
    event->number = of(stream)->asked;
    return stuck;
}

int dev_event_wait(dev_event event)
{
    if (may_not("a wait")) return stuck;
    return event->on ? run(event->on, event->number) : stuck;
}

int dev_event_done(dev_event event, bool *done)
{
    int error = event->on ? run(event->on, event->number, false) : stuck;
    *done = !event->on || event->on->done >= event->number;
    return error;
}

int dev_stream_after(dev_stream stream, dev_event event)
{
    sim::stream *on = event->on;
    uint64_t number = event->number;
    return on ? sim::put(of(stream), [=]() { return run(on, number); }) : stuck;
}

/* ---- memory ---- */

int dev_take(void **out, size_t bytes)
{
    if (may_not("taking memory")) return stuck;
    *out = sim::take_memory(bytes);
    return *out ? 0 : OUT_OF_MEMORY;
}

/* CUDA waits for all work before memory goes; here, work that still uses it is a fault. */
int dev_give(void *block)
{
    if (may_not("giving memory back")) return stuck;
    if (sim::give_memory(block)) return 0;
    sim::note_fault("memory is given back that was not taken");
    return stuck = FAULT;
}

/* A device that does no work keeps the layout that a GPU has. */
size_t dev_red_zone(void)
{
    return idle ? 0 : 256;
}

int dev_fence(void *at, size_t bytes, dev_stream stream)
{
    return sim::put(of(stream), [=]() {
        sim::add_fence((char *)at, bytes);
        return 0;
    });
}

int dev_take_pinned(void **out_host, size_t bytes)
{
    if (may_not("taking memory")) return stuck;
    *out_host = calloc(1, bytes);
    if (!*out_host) return OUT_OF_MEMORY;
    pinned[(char *)*out_host] = bytes;
    return 0;
}

int dev_give_pinned(void *host)
{
    pinned.erase((char *)host);
    free(host);
    return 0;
}

static bool is_pinned(const void *host)
{
    auto next = pinned.upper_bound((char *)(uintptr_t)host);
    if (next == pinned.begin()) return false;
    --next;
    return (const char *)host < next->first + next->second;
}

bool sim::is_device(const void *from, size_t bytes, const char *what)
{
    char *end = bytes ? piece_end(from) : (char *)(uintptr_t)from, *fence = fence_from(from);
    if (fence && (const char *)from + bytes > fence && bytes) end = std::min(end, fence);
    if (bytes == 0 || (end && (const char *)from + bytes <= end)) return true;
    note_fault("%s of %zu bytes at an address of the device that %s", what, bytes,
               end ? "ends behind its piece" : "belongs to no piece");
    return false;
}

int dev_zero(void *to, size_t bytes, dev_stream stream)
{
    return sim::put(of(stream), [=]() {
        if (!sim::is_device(to, bytes, "zeroing")) return (int)FAULT;
        memset(to, 0, bytes);
        return 0;
    });
}

int dev_copy(void *to, const void *from, size_t bytes, dev_stream stream)
{
    return sim::put(of(stream), [=]() {
        if (!sim::is_device(to, bytes, "a copy") || !sim::is_device(from, bytes, "a copy")) return (int)FAULT;
        memcpy(to, from, bytes);
        return 0;
    });
}

int dev_upload(void *to, const void *host, size_t bytes, dev_stream stream)
{
    std::shared_ptr<std::vector<char>> own;
    if (!is_pinned(host)) own = std::make_shared<std::vector<char>>((const char *)host, (const char *)host + bytes);
    return sim::put(of(stream), [=]() {
        if (!sim::is_device(to, bytes, "an upload")) return (int)FAULT;
        memcpy(to, own ? own->data() : host, bytes);
        return 0;
    });
}

int dev_download(void *host, const void *from, size_t bytes, dev_stream stream)
{
    if (idle) memset(host, 0, bytes);
    return sim::put(of(stream), [=]() {
        if (!sim::is_device(from, bytes, "a download")) return (int)FAULT;
        memcpy(host, from, bytes);
        return 0;
    });
}

/* ---- graphs ---- */

int dev_capture_begin(dev_stream stream)
{
    of(stream)->capture = new std::vector<task>();
    captures++;
    return stuck;
}

int dev_capture_end(dev_stream stream, dev_graph *out)
{
    *out = new dev_graph_state();
    (*out)->tasks = std::move(*of(stream)->capture);
    delete of(stream)->capture;
    of(stream)->capture = nullptr;
    captures--;
    return stuck;
}

int dev_graph_launch(dev_graph graph, dev_stream stream)
{
    for (const task &t : graph->tasks) sim::put(of(stream), t);
    return stuck;
}

int dev_graph_free(dev_graph graph)
{
    delete graph;
    return 0;
}

/* ---- products ---- */

int dev_gemm_new(dev_gemm *out)
{
    dev_gemm gemm = new dev_gemm_state();
    gemm->cx = xkd_context_new();
    if (!gemm->cx || xkd_backend_new(gemm->cx, &gemm->ref, "ref", XKD_F32, 2) != XKD_OK) {
        dev_gemm_free(gemm);
        return OUT_OF_MEMORY;
    }
    *out = gemm;
    return 0;
}

int dev_gemm_free(dev_gemm gemm)
{
    if (!gemm) return 0;
    xkd_backend_free(gemm->ref);
    xkd_context_free(gemm->cx);
    delete gemm;
    return 0;
}

/* The three forms that linear layers need. */
static bool multiply_floats(xkd_backend *ref, const dev_product &p)
{
    if (!p.a_stored_km && p.b_stored_nk && !p.c)
        ref->ops->linear_forward(ref, p.y, p.a, p.b, p.bias, p.M, p.N, p.K);
    else if (!p.a_stored_km && p.b_stored_nk)
        ref->ops->linear_residual_forward(ref, p.y, p.c, p.a, p.b, p.bias, p.M, p.N, p.K);
    else if (!p.a_stored_km && !p.b_stored_nk && !p.c && !p.bias)
        ref->ops->linear_backward_data(ref, p.y, p.a, p.b, p.M, p.K, p.N);
    else if (p.a_stored_km && !p.b_stored_nk && p.c == p.y && !p.bias)
        ref->ops->linear_backward_weight(ref, p.y, NULL, p.a, p.b, p.K, p.M, p.N);
    else
        return false;
    return true;
}

/* To the nearest number of 11 bits, as a product in TF32 does with what it multiplies. */
static float to_tf32(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (!std::isfinite(x)) return x;
    bits = (bits + 0xfff + (bits >> 13 & 1)) & ~(uint32_t)0x1fff;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static const void *rounded(std::vector<float> *room, const void *from, int64_t n)
{
    room->resize((size_t)n);
    for (int64_t i = 0; i < n; i++) (*room)[(size_t)i] = to_tf32(((const float *)from)[i]);
    return room->data();
}

static const void *widened(std::vector<float> *room, const void *from, dev_type type, int64_t n)
{
    if (!from || type == DEV_F32) return from;
    room->resize((size_t)n);
    for (int64_t i = 0; i < n; i++) (*room)[(size_t)i] = __bfloat162float(((const bf16 *)from)[i]);
    return room->data();
}

/* bfloat16 operands are widened, and the result is rounded once. */
static bool multiply(xkd_backend *ref, const dev_product &p)
{
    std::vector<float> a, b, c, bias, y;
    dev_product wide = p;
    wide.a = widened(&a, p.a, p.in, p.M * p.K);
    wide.b = widened(&b, p.b, p.in, p.N * p.K);
    wide.c = widened(&c, p.c, p.out, p.M * p.N);
    wide.bias = widened(&bias, p.bias, p.out, p.N);
    if (p.tf32) {
        wide.a = rounded(&a, wide.a, p.M * p.K);
        wide.b = rounded(&b, wide.b, p.N * p.K);
    }
    if (p.out == DEV_F32) return multiply_floats(ref, wide);
    y.resize((size_t)(p.M * p.N));
    wide.y = y.data();
    if (!multiply_floats(ref, wide)) return false;
    for (int64_t i = 0; i < p.M * p.N; i++) ((bf16 *)p.y)[i] = __float2bfloat16_rn(y[(size_t)i]);
    return true;
}

static size_t size_of(dev_type type)
{
    return type == DEV_BF16 ? 2 : 4;
}

int dev_multiply(dev_gemm gemm, const dev_product *product, dev_stream stream)
{
    dev_product p = *product;
    return sim::put(of(stream), [=]() {
        size_t in = size_of(p.in), out = size_of(p.out);
        bool ours = sim::is_device(p.a, (size_t)(p.M * p.K) * in, "a product") &&
                    sim::is_device(p.b, (size_t)(p.N * p.K) * in, "a product") &&
                    sim::is_device(p.y, (size_t)(p.M * p.N) * out, "a product") &&
                    (!p.c || sim::is_device(p.c, (size_t)(p.M * p.N) * out, "a product")) &&
                    (!p.bias || sim::is_device(p.bias, (size_t)p.N * out, "a product"));
        if (!ours) return (int)FAULT;
        return multiply(gemm->ref, p) ? 0 : (int)NOT_SIMULATED;
    });
}
