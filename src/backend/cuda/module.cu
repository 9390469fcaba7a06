/* The module's table: memory, the life of a backend, what can be used here, and what is launched. */
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static xkd_cuda *of(xkd_memory *memory)
{
    return (xkd_cuda *)memory;
}

bool cuda_check(xkd_backend *be, int error, const char *what)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    if (error == 0) return true;
    if (be->status != XKD_OK) return false;
    if (dev_error_is_memory(error))
        be->status = cuda->host->fail(be->cx, XKD_ERR_MEMORY,
                                      "%s:%d is out of memory in %s: take a smaller dataset.batch_size, or more "
                                      "train.accumulate",
                                      be->memory->name, cuda->device, what);
    else
        be->status = cuda->host->fail(be->cx, XKD_ERR_DEVICE, "%s:%d failed in %s: %s", be->memory->name, cuda->device,
                                      what, dev_error_text(error));
    return false;
}

/* ---- memory ---- */

static xkd_status take(xkd_memory *memory, xkd_context *cx, void **out, int64_t bytes)
{
    xkd_cuda *cuda = of(memory);
    cuda_interrupt(cuda);
    int error = dev_take(out, (size_t)(bytes ? bytes : 1));
    if (!error) error = dev_zero(*out, (size_t)bytes, cuda->stream);
    if (!error) return XKD_OK;
    *out = NULL;
    if (dev_error_is_memory(error))
        return cuda->host->fail(
            cx, XKD_ERR_MEMORY,
            "%s:%d has no %.2f GB free: take a smaller dataset.batch_size, or more train.accumulate", memory->name,
            cuda->device, (double)bytes / 1e9);
    return cuda->host->fail(cx, XKD_ERR_DEVICE, "%s:%d: %s", memory->name, cuda->device, dev_error_text(error));
}

static void note_wait(xkd_cuda *cuda, int64_t asked)
{
    if (asked <= cuda->done) return;
    cuda->waited++;
    cuda->done = asked;
}

int cuda_wait_all(xkd_cuda *cuda)
{
    note_wait(cuda, cuda->asked);
    return dev_stream_wait(cuda->stream);
}

int cuda_wait(xkd_cuda *cuda, const xkd_cuda_mark *mark)
{
    note_wait(cuda, mark->asked);
    return dev_event_wait(mark->event);
}

int cuda_mark(xkd_cuda *cuda, xkd_cuda_mark *mark)
{
    mark->asked = cuda->asked;
    return dev_event_record(mark->event, cuda->stream);
}

/* For what travels on its own: 0, or an error. */
static int new_mark(void **out)
{
    xkd_cuda_mark *mark = (xkd_cuda_mark *)calloc(1, sizeof *mark);
    *out = mark;
    return mark ? dev_event_new(&mark->event) : DEV_NO_MEMORY;
}

static void free_mark(void *state)
{
    xkd_cuda_mark *mark = (xkd_cuda_mark *)state;
    if (mark && mark->event) dev_event_free(mark->event);
    free(mark);
}

/* Work that still uses the block is waited for. */
static void give(xkd_memory *memory, void *block)
{
    xkd_cuda *cuda = of(memory);
    cuda_forget_stretches(cuda);
    cuda_check(cuda->be, cuda_wait_all(cuda), "the work before a release");
    dev_give(block);
}

/* In its turn: the block's zeroing may not have been done. */
static void fence(xkd_memory *memory, void *at, int64_t bytes)
{
    xkd_cuda *cuda = of(memory);
    cuda_interrupt(cuda);
    cuda_check(cuda->be, dev_fence(at, (size_t)bytes, cuda->stream), "a red zone");
}

static void zero(xkd_memory *memory, void *to, int64_t bytes)
{
    cuda_asked(of(memory));
    cuda_check(of(memory)->be, dev_zero(to, (size_t)bytes, of(memory)->stream), "zeroing");
}

static void copy(xkd_memory *memory, void *to, const void *from, int64_t bytes)
{
    cuda_asked(of(memory));
    cuda_check(of(memory)->be, dev_copy(to, from, (size_t)bytes, of(memory)->stream), "a copy");
}

static void upload(xkd_memory *memory, void *to, const void *host, int64_t bytes)
{
    cuda_upload(of(memory)->be, to, host, bytes);
}

static void download(xkd_memory *memory, void *host, const void *from, int64_t bytes)
{
    xkd_cuda *cuda = of(memory);
    cuda_interrupt(cuda);
    cuda_asked(cuda);
    int error = dev_download(host, from, (size_t)bytes, cuda->stream);
    if (!error) error = cuda_wait_all(cuda);
    /* What is not copied is at least not left over. */
    if (!cuda_check(cuda->be, error, "a download")) memset(host, 0, (size_t)bytes);
}

static xkd_status arrival_new(xkd_memory *memory, xkd_context *cx, xkd_arrival *out)
{
    xkd_cuda *cuda = of(memory);
    cuda_interrupt(cuda);
    int error = dev_take_pinned(&out->host, (size_t)out->bytes);
    if (!error) error = new_mark(&out->state);
    if (!error) return XKD_OK;
    free_mark(out->state);
    if (out->host) dev_give_pinned(out->host);
    return cuda->host->fail(cx, dev_error_is_memory(error) ? XKD_ERR_MEMORY : XKD_ERR_DEVICE,
                            "%s:%d has no pinned memory for results: %s", memory->name, cuda->device,
                            dev_error_text(error));
}

/* A copy may be on its way. */
static void arrival_free(xkd_memory *memory, xkd_arrival *a)
{
    cuda_interrupt(of(memory));
    cuda_check(of(memory)->be, cuda_wait_all(of(memory)), "the work before a release");
    free_mark(a->state);
    dev_give_pinned(a->host);
}

static void arrival_ask(xkd_memory *memory, xkd_arrival *a, const void *from, int64_t bytes)
{
    xkd_cuda *cuda = of(memory);
    cuda_interrupt(cuda);
    cuda_asked(cuda);
    int error = dev_download(a->host, from, (size_t)bytes, cuda->stream);
    if (!error) error = cuda_mark(cuda, (xkd_cuda_mark *)a->state);
    cuda_check(cuda->be, error, "a download");
}

static void arrival_wait(xkd_memory *memory, xkd_arrival *a)
{
    xkd_backend *be = of(memory)->be;
    cuda_interrupt(of(memory));
    bool well =
        be->status == XKD_OK && cuda_check(be, cuda_wait(of(memory), (xkd_cuda_mark *)a->state), "the work asked for");
    if (!well) memset(a->host, 0, (size_t)a->bytes);
}

static xkd_status departure_new(xkd_memory *memory, xkd_context *cx, xkd_departure *out)
{
    xkd_cuda *cuda = of(memory);
    cuda_interrupt(cuda);
    int error = dev_take_pinned(&out->host, (size_t)out->bytes);
    if (!error) memset(out->host, 0, (size_t)out->bytes);
    if (!error) error = new_mark(&out->state);
    if (!error) return XKD_OK;
    free_mark(out->state);
    if (out->host) dev_give_pinned(out->host);
    out->host = NULL;
    if (!dev_error_is_memory(error))
        return cuda->host->fail(cx, XKD_ERR_DEVICE, "%s:%d: %s", memory->name, cuda->device, dev_error_text(error));
    return cuda->host->fail(
        cx, XKD_ERR_MEMORY,
        "%s:%d has no %.2f GB of pinned memory for a batch: take a smaller dataset.batch_size, more "
        "train.accumulate, or run.augment=cpu",
        memory->name, cuda->device, (double)out->bytes / 1e9);
}

/* A copy may be on its way. */
static void departure_free(xkd_memory *memory, xkd_departure *d)
{
    xkd_cuda *cuda = of(memory);
    cuda_interrupt(cuda);
    if (cuda->carrier) cuda_check(cuda->be, dev_stream_wait(cuda->carrier), "an upload");
    free_mark(d->state);
    dev_give_pinned(d->host);
}

/* The landing that was used longest ago, for a departure of `bytes` at most: it is as large as that once and for all. NULL: out of
 * memory, and the backend knows. */
static xkd_cuda_landing *next_landing(xkd_cuda *cuda, size_t bytes)
{
    xkd_backend *be = cuda->be;
    xkd_cuda_landing *l = &cuda->landing[cuda->next_landing];
    cuda->next_landing = (cuda->next_landing + 1) % XKD_LANDINGS;
    if (be->status != XKD_OK) return NULL;
    if (!cuda->carrier && !cuda_check(be, dev_stream_new(&cuda->carrier), "a stream for uploads")) return NULL;
    if (!l->taken.event && !cuda_check(be, dev_event_new(&l->taken.event), "an upload")) return NULL;
    if (l->bytes >= bytes) return l;
    if (l->used && !cuda_check(be, cuda_wait_all(cuda), "the work before a larger landing")) return NULL;
    if (l->room) dev_give(l->room);
    l->room = NULL;
    l->bytes = 0;
    l->used = false;
    if (!cuda_check(be, dev_take(&l->room, bytes), "memory where a batch lands")) return NULL;
    l->bytes = bytes;
    return l;
}

/* The bytes travel beside the work that was asked for before, and come to their place in its order, by a copy within the device,
 * which is some fifty times as fast. So a step that was asked for while another is at work finds its batch there, and graphs have
 * one address to read. */
static void departure_send(xkd_memory *memory, xkd_departure *d, void *to, int64_t bytes)
{
    xkd_cuda *cuda = of(memory);
    xkd_cuda_mark *gone = (xkd_cuda_mark *)d->state;
    cuda_interrupt(cuda);
    xkd_cuda_landing *l = next_landing(cuda, (size_t)d->bytes);
    if (!l) return;
    cuda_asked(cuda);
    int error = l->used ? dev_stream_after(cuda->carrier, l->taken.event) : 0;
    if (!error) error = dev_upload(l->room, d->host, (size_t)bytes, cuda->carrier);
    if (!error) error = dev_event_record(gone->event, cuda->carrier);
    gone->asked = l->taken.asked; /* for nothing later does it wait */
    if (!error) error = dev_stream_after(cuda->stream, gone->event);
    cuda_asked(cuda);
    if (!error) error = dev_copy(to, l->room, (size_t)bytes, cuda->stream);
    if (!error) error = cuda_mark(cuda, &l->taken);
    l->used = true;
    cuda_check(cuda->be, error, "an upload");
}

static void departure_wait(xkd_memory *memory, xkd_departure *d)
{
    xkd_backend *be = of(memory)->be;
    cuda_interrupt(of(memory));
    if (be->status == XKD_OK) cuda_check(be, cuda_wait(of(memory), (xkd_cuda_mark *)d->state), "an upload");
}

/* The stage that was used longest ago, large enough and read by the stream. */
static xkd_cuda_stage *next_stage(xkd_backend *be, size_t bytes)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    xkd_cuda_stage *s = &cuda->stage[cuda->next_stage];
    cuda->next_stage = (cuda->next_stage + 1) % STAGES;
    if (s->used && !cuda_check(be, cuda_wait(cuda, &s->passed), "an upload")) return NULL;
    s->used = false;
    if (!s->passed.event && !cuda_check(be, dev_event_new(&s->passed.event), "an upload")) return NULL;
    if (s->bytes >= bytes) return s;
    if (s->host) dev_give_pinned(s->host);
    s->host = NULL;
    s->bytes = 0;
    if (!cuda_check(be, dev_take_pinned(&s->host, bytes), "pinned memory")) return NULL;
    s->bytes = bytes;
    return s;
}

/* Through pinned memory, so that the host goes on at once; in pieces, so that this stays small. */
void cuda_upload(xkd_backend *be, void *to, const void *host, int64_t bytes)
{
    const int64_t piece = 4 << 20;
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    cuda_interrupt(cuda);
    for (int64_t at = 0; at < bytes && be->status == XKD_OK; at += piece) {
        size_t n = (size_t)(bytes - at < piece ? bytes - at : piece);
        xkd_cuda_stage *s = next_stage(be, n);
        if (!s) return;
        memcpy(s->host, (const char *)host + at, n);
        cuda_asked(cuda);
        int error = dev_upload((char *)to + at, s->host, n, cuda->stream);
        if (!error) error = cuda_mark(cuda, &s->passed);
        s->used = cuda_check(be, error, "an upload");
    }
}

void *cuda_scratch(xkd_backend *be, int64_t bytes)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    if (be->status != XKD_OK) return NULL;
    if ((size_t)bytes <= cuda->scratch_bytes) return cuda->scratch;
    /* Earlier operations may still use the old one, and graphs would go on to. */
    cuda_drop_graphs(cuda);
    if (!cuda_check(be, cuda_wait_all(cuda), "the work before a larger scratch")) return NULL;
    if (cuda->scratch) dev_give(cuda->scratch);
    cuda->scratch = NULL;
    cuda->scratch_bytes = 0;
    if (!cuda_check(be, dev_take(&cuda->scratch, (size_t)bytes), "scratch")) return NULL;
    cuda->scratch_bytes = (size_t)bytes;
    return cuda->scratch;
}

void *cuda_list(xkd_backend *be, int64_t bytes)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    if ((size_t)bytes <= cuda->list_bytes) return cuda->list;
    free(cuda->list);
    cuda->list = malloc((size_t)bytes);
    cuda->list_bytes = cuda->list ? (size_t)bytes : 0;
    if (!cuda->list) be->status = cuda->host->fail(be->cx, XKD_ERR_MEMORY, "out of memory for a list of tensors");
    return cuda->list;
}

static void forget(xkd_cuda_kept *k)
{
    free(k->host);
    if (k->device) dev_give(k->device);
    *k = xkd_cuda_kept();
}

/* The one that was made longest ago goes. */
const void *cuda_keep(xkd_backend *be, const void *host, int64_t bytes)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    if (be->status != XKD_OK) return NULL;
    for (int i = 0; i < KEPT; i++)
        if (cuda->kept[i].bytes == (size_t)bytes && memcmp(cuda->kept[i].host, host, (size_t)bytes) == 0)
            return cuda->kept[i].device;
    xkd_cuda_kept *k = &cuda->kept[cuda->next_kept];
    if (k->device)
        cuda_forget_stretches(cuda);
    else
        cuda_interrupt(cuda);
    cuda->next_kept = (cuda->next_kept + 1) % KEPT;
    if (k->device && !cuda_check(be, cuda_wait_all(cuda), "the work before another list")) return NULL;
    forget(k);
    k->host = malloc((size_t)bytes);
    if (!k->host) be->status = cuda->host->fail(be->cx, XKD_ERR_MEMORY, "out of memory for a list of tensors");
    if (!k->host || !cuda_check(be, dev_take(&k->device, (size_t)bytes), "a list of tensors")) return NULL;
    memcpy(k->host, host, (size_t)bytes);
    k->bytes = (size_t)bytes;
    cuda_upload(be, k->device, host, bytes);
    return be->status == XKD_OK ? k->device : NULL;
}

/* ---- operations ---- */

bool cuda_begin(xkd_backend *be, const char *operation, int64_t bytes, int64_t flop)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    if (be->status != XKD_OK) return false;
    if (!cuda->counting) return true;
    int i = 0;
    while (i < cuda->counted && strcmp(cuda->counts[i].name, operation) != 0) i++;
    if (i == COUNTS) return true;
    if (i == cuda->counted) cuda->counts[cuda->counted++] = xkd_cuda_count{operation, 0, 0, 0};
    cuda->now = &cuda->counts[i];
    cuda->now->bytes += bytes;
    cuda->now->flop += flop;
    return true;
}

void cuda_multiply(xkd_backend *be, const dev_product *product)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    be->products += product->M * product->N * product->K;
    if (be->status != XKD_OK || product->M == 0) return;
    if (cuda->now) cuda->now->launches++;
    cuda_asked(cuda);
    cuda_check(be, dev_multiply(cuda->gemm, product, cuda->stream), "a matrix product");
}

static int count(xkd_backend *be, xkd_cuda_count *out, int size)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    int n = out && cuda->counted < size ? cuda->counted : out ? size : 0;
    for (int i = 0; i < n; i++) out[i] = cuda->counts[i];
    cuda->counting = true;
    cuda->counted = 0;
    cuda->now = NULL;
    return n;
}

/* ---- the backend ---- */

template <class T> static const xkd_ops *operations(void)
{
    static xkd_ops ops;
    ops.name = XKD_CUDA_NAME;
    cuda_fill_products<T>(&ops);
    cuda_fill_rows<T>(&ops);
    cuda_fill_flat<T>(&ops);
    cuda_fill_attention<T>(&ops);
    cuda_fill_tokens<T>(&ops);
    cuda_fill_loss<T>(&ops);
    cuda_fill_video_view(&ops);
    cuda_fill_audio_view(&ops);
    cuda_fill_align(&ops);
    cuda_fill_classify(&ops);
    cuda_fill_optim(&ops);
    return &ops;
}

static void close(xkd_backend *be)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    if (!cuda) return;
    cuda_ranks_part(be);
    cuda_forget_stretches(cuda);
    if (cuda->stream) cuda_wait_all(cuda);
    for (int i = 0; i < STAGES; i++) {
        if (cuda->stage[i].host) dev_give_pinned(cuda->stage[i].host);
        if (cuda->stage[i].passed.event) dev_event_free(cuda->stage[i].passed.event);
    }
    if (cuda->carrier) dev_stream_free(cuda->carrier);
    for (int i = 0; i < XKD_LANDINGS; i++) {
        if (cuda->landing[i].room) dev_give(cuda->landing[i].room);
        if (cuda->landing[i].taken.event) dev_event_free(cuda->landing[i].taken.event);
    }
    for (int i = 0; i < KEPT; i++) forget(&cuda->kept[i]);
    if (cuda->scratch) dev_give(cuda->scratch);
    dev_gemm_free(cuda->gemm);
    if (cuda->stream) dev_stream_free(cuda->stream);
    free(cuda->list);
    free(cuda);
    be->cuda = NULL;
    be->memory = NULL;
}

/* Why no device can be used, and what to install; empty where one can. */
static void find_lack(char *lack, size_t size)
{
    int count = 0, driver = dev_driver_version(), runtime = dev_runtime_version();
    *lack = 0;
    if (driver == 0) {
        snprintf(lack, size, "there is no NVIDIA driver: install one for CUDA %d (Debian: nvidia-driver)",
                 runtime / 1000);
        return;
    }
    if (driver / 1000 < runtime / 1000) {
        snprintf(lack, size, "the NVIDIA driver is for CUDA %d.%d: install one for CUDA %d or later", driver / 1000,
                 driver % 1000 / 10, runtime / 1000);
        return;
    }
    int error = dev_count(&count);
    if (error || count == 0)
        snprintf(lack, size, "the NVIDIA driver finds no device: %s",
                 error ? dev_error_text(error) : "is a GPU fitted?");
}

static xkd_status choose_device(const xkd_cuda_host *host, xkd_backend *be, int device)
{
    int count = 0, error;
    char lack[300];
    dev_properties p;
    find_lack(lack, sizeof lack);
    if (*lack) return host->fail(be->cx, XKD_ERR_DEVICE, "run.device=%s: %s", XKD_CUDA_NAME, lack);
    dev_count(&count);
    if (device < 0 && dev_use(device) == 0) return XKD_OK;
    if (device < 0 || device >= count)
        return host->fail(be->cx, XKD_ERR_DEVICE, "run.device=%s:%d: there %s %d device%s here, numbered from 0",
                          XKD_CUDA_NAME, device, count == 1 ? "is" : "are", count, count == 1 ? "" : "s");
    error = dev_use(device);
    if (!error) error = dev_describe(device, &p);
    if (error)
        return host->fail(be->cx, XKD_ERR_DEVICE, "run.device=%s:%d: %s", XKD_CUDA_NAME, device, dev_error_text(error));
    if (dev_has_kernels() == 0) return XKD_OK;
    return host->fail(
        be->cx, XKD_ERR_DEVICE,
        "run.device=%s:%d: %s has architecture %d.%d, for which this build has no kernels: take one of 8.0 "
        "or later, or build with XKD_CUDA_ARCHITECTURES",
        XKD_CUDA_NAME, device, p.name, p.major, p.minor);
}

static xkd_status open(const xkd_cuda_host *host, xkd_backend *be, int device)
{
    xkd_status status = choose_device(host, be, device);
    if (status != XKD_OK) return status;
    xkd_cuda *cuda = (xkd_cuda *)calloc(1, sizeof *cuda);
    if (!cuda) return host->fail(be->cx, XKD_ERR_MEMORY, "out of memory");
    cuda->memory.name = XKD_CUDA_NAME;
    cuda->memory.red_zone = (int64_t)dev_red_zone();
    cuda->memory.fence = fence;
    cuda->memory.take = take;
    cuda->memory.give = give;
    cuda->memory.zero = zero;
    cuda->memory.copy = copy;
    cuda->memory.upload = upload;
    cuda->memory.download = download;
    cuda->memory.late = true;
    cuda->memory.arrival_new = arrival_new;
    cuda->memory.arrival_free = arrival_free;
    cuda->memory.arrival_ask = arrival_ask;
    cuda->memory.arrival_wait = arrival_wait;
    cuda->memory.departure_new = departure_new;
    cuda->memory.departure_free = departure_free;
    cuda->memory.departure_send = departure_send;
    cuda->memory.departure_wait = departure_wait;
    cuda->be = be;
    cuda->host = host;
    cuda->device = device;
    be->cuda = cuda;
    be->memory = &cuda->memory;
    be->ops = be->dtype == XKD_BF16 ? operations<bf16>() : operations<float>();
    be->exact = operations<float>();
    if (cuda_check(be, dev_stream_new(&cuda->stream), "its stream"))
        cuda_check(be, dev_gemm_new(&cuda->gemm), "cuBLASLt");
    status = be->status;
    if (status != XKD_OK) close(be);
    return status;
}

static xkd_status status_of(xkd_backend *be)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    cuda_interrupt(cuda);
    cuda_check(be, cuda_wait_all(cuda), "the work asked for");
    xkd_status status = be->status;
    be->status = XKD_OK;
    return status;
}

static int64_t held(const xkd_backend *be)
{
    const xkd_cuda *cuda = (const xkd_cuda *)be->cuda;
    int64_t landings = 0;
    for (int i = 0; i < XKD_LANDINGS; i++) landings += (int64_t)cuda->landing[i].bytes;
    return (int64_t)cuda->scratch_bytes + landings + cuda_ranks_held(be);
}

static int64_t asked(const xkd_backend *be)
{
    return ((const xkd_cuda *)be->cuda)->asked;
}

static int64_t waited(const xkd_backend *be)
{
    return ((const xkd_cuda *)be->cuda)->waited;
}

static void describe(char *versions, size_t versions_size, char *devices, size_t devices_size, char *lack,
                     size_t lack_size)
{
    const struct {
        const char *name;
        int version; /* 0: it is not here */
    } list[] = {{"CUDA", dev_runtime_version()},
                {", cuBLASLt", dev_gemm_version()},
                {", NCCL", dev_ranks_version()},
                {", driver for CUDA", dev_driver_version()}};
    int count = 0;
    size_t used = 0, told = 0;
    for (const auto &part : list)
        if (part.version && told < versions_size)
            told += (size_t)snprintf(versions + told, versions_size - told, "%s %d.%d", part.name, part.version / 1000,
                                     part.version % 1000 / 10);
    *devices = 0;
    find_lack(lack, lack_size);
    if (*lack || dev_count(&count)) return;
    for (int i = 0; i < count && used + 1 < devices_size; i++) {
        dev_properties p;
        if (dev_describe(i, &p)) continue;
        used += (size_t)snprintf(devices + used, devices_size - used, "%s%d: %s (%d.%d, %.0f GB)", i ? ", " : "", i,
                                 p.name, p.major, p.minor, (double)p.memory / 1e9);
    }
}

static int devices(void)
{
    int count = 0;
    return dev_count(&count) ? 0 : count;
}

const xkd_cuda_table *xkd_cuda_table_4(void)
{
    static const xkd_cuda_table table = {describe,
                                         open,
                                         close,
                                         status_of,
                                         held,
                                         devices,
                                         cuda_ranks_place,
                                         cuda_ranks_prepare,
                                         cuda_ranks_meet,
                                         cuda_ranks_sum,
                                         cuda_ranks_summed,
                                         cuda_ranks_part,
                                         count,
                                         cuda_repeat,
                                         cuda_repeat_end,
                                         asked,
                                         waited};
    return &table;
}
