/* What the simulation must see: kernels that are wrong, each in one way, beside those that are right. Reports in TAP. */
#include "backend/cuda/device.h"

#include <csignal>
#include <cstdio>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

enum { N = 64 };

static int failed, number;

static void tell(bool good, const std::string &name)
{
    printf("%sok %d - %s\n", good ? "" : "not ", ++number, name.c_str());
    failed += !good;
}

static dev_stream stream;

/* What a kernel of one float array and one block of N threads ends with: "" or the fault. */
template <class K>
static std::string run(K kernel, unsigned blocks = 1, int64_t floats = N, size_t shared = N * sizeof(float))
{
    void *x = nullptr;
    dev_use(0);
    if (dev_take(&x, (size_t)floats * sizeof(float))) return "no memory";
    int error = dev_zero(x, (size_t)floats * sizeof(float), stream);
    if (!error) error = dev_launch("kernel", kernel, dim3(blocks), dim3(N), shared, stream, (float *)x);
    std::string text = error ? dev_error_text(error) : "";
    error =
        dev_stream_wait(stream); /* also behind a launch that was refused: what was asked before it uses the memory */
    if (text.empty() && error) text = dev_error_text(error);
    dev_give(x);
    return text;
}

static void wants(const char *name, const std::string &got, const char *part)
{
    bool good = *part ? got.find(part) != std::string::npos : got.empty();
    tell(good, name);
    if (!good) printf("# wanted \"%s\", got \"%s\"\n", part, got.c_str());
}

/* ---- kernels ---- */

template <bool BARRIER> __global__ void reverse(float *x)
{
    SHARED(float, room);
    room[threadIdx.x] = 0;
    __syncthreads();
    room[threadIdx.x] = (float)threadIdx.x;
    if (BARRIER) __syncthreads();
    x[threadIdx.x] = room[N - 1 - threadIdx.x];
}

/* The second round overwrites what slow threads still read. */
template <bool BARRIER> __global__ void two_rounds(float *x)
{
    SHARED(float, room);
    for (int round = 0; round < 2; round++) {
        room[threadIdx.x] = (float)(threadIdx.x + (unsigned)round);
        __syncthreads();
        x[threadIdx.x] += room[N - 1 - threadIdx.x];
        if (BARRIER) __syncthreads();
    }
}

template <bool SYNC> __global__ void within_a_warp(float *x)
{
    SHARED(float, room);
    room[threadIdx.x] = 0;
    __syncthreads();
    room[threadIdx.x] = 1;
    if (SYNC) __syncwarp();
    x[threadIdx.x] = room[threadIdx.x ^ 1];
}

/* A shuffle moves registers and orders no memory. */
__global__ void shuffle_is_no_barrier(float *x)
{
    SHARED(float, room);
    room[threadIdx.x] = 0;
    __syncthreads();
    room[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
    x[threadIdx.x] = room[threadIdx.x ^ 1];
}

__global__ void blocks_meet(float *x)
{
    x[threadIdx.x] += 1;
}

__global__ void blocks_read_and_one_writes(float *x)
{
    if (threadIdx.x == 0) x[1 + blockIdx.x] = x[0];
    if (blockIdx.x == 1 && threadIdx.x == 0) x[0] = 1;
}

__global__ void blocks_apart(float *x)
{
    x[blockIdx.x * blockDim.x + threadIdx.x] += 1;
}

__global__ void atomics(float *x)
{
    atomicAdd(x, 1.0f);
}

__global__ void atomic_and_plain(float *x)
{
    if (threadIdx.x == 0)
        x[0] = 1;
    else
        atomicAdd(x, 1.0f);
}

__global__ void behind_the_end(float *x)
{
    x[threadIdx.x + 1] = 1;
}

__global__ void before_the_begin(float *x)
{
    x[(int)threadIdx.x - 1] = 1;
}

static float of_the_host[N];
__global__ void heap(float *x)
{
    float *other = (float *)(uintptr_t)x[0]; /* 0: no address of the device's */
    x[threadIdx.x] = other[threadIdx.x];
}

__global__ void behind_shared(float *x)
{
    SHARED(float, room);
    room[threadIdx.x + 1] = 1;
    __syncthreads();
    x[threadIdx.x] = room[threadIdx.x + 1];
}

__global__ void not_written(float *x)
{
    SHARED(float, room);
    if (threadIdx.x > 0) room[threadIdx.x] = 1;
    __syncthreads();
    x[threadIdx.x] = room[threadIdx.x];
}

__global__ void half_wait(float *x)
{
    if (threadIdx.x >= 32 && threadIdx.x < 48)
        __syncwarp();
    else
        __syncthreads();
    x[threadIdx.x] = 1;
}

__global__ void ended_lane(float *x)
{
    if (threadIdx.x == 3) return;
    x[threadIdx.x] = __shfl_sync(0xffffffffu, 1.0f, 3);
}

/* Those that have ended are not waited for. */
__global__ void ended_threads(float *x)
{
    if (threadIdx.x >= 40) return;
    __syncthreads();
    x[threadIdx.x] = 1;
}

__global__ void beyond_its_mask(float *x)
{
    if (threadIdx.x < 16) x[threadIdx.x] = __shfl_sync(0x0000ffffu, 1.0f, 20);
}

/* Sums, votes, half masks: 496 + 32 votes + the lane before. */
__global__ void warp_words(float *x)
{
    int lane = (int)threadIdx.x % 32;
    float sum = (float)lane;
    for (int m = 16; m; m /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, m);
    unsigned odd = __ballot_sync(0xffffffffu, lane & 1);
    float half = 0;
    if (lane < 16) half = __shfl_down_sync(0x0000ffffu, (float)lane, lane < 15 ? 1 : 0);
    bool good =
        sum == 496 && odd == 0xaaaaaaaau && __any_sync(0xffffffffu, lane == 7) && !__all_sync(0xffffffffu, lane == 7);
    x[threadIdx.x] = good && half == (lane < 15 ? (float)lane + 1 : lane == 15 ? 15.0f : 0.0f) ? 1.0f : 0.0f;
}

template <bool WAIT> __global__ void async_copy(float *x)
{
    SHARED(float, room);
    sim::copy_begin(room + threadIdx.x, x + threadIdx.x, sizeof(float));
    sim::copy_commit();
    if (WAIT) sim::copy_wait(0);
    __syncthreads();
    x[threadIdx.x] = room[N - 1 - threadIdx.x] + 1;
    sim::copy_wait(0);
}

static void kernels(void)
{
    wants("a barrier orders", run(reverse<true>), "");
    wants("a missing barrier is a race", run(reverse<false>), "race: it");
    wants("a second barrier orders rounds", run(two_rounds<true>), "");
    wants("a missing second barrier is a race", run(two_rounds<false>), "race: it");
    wants("__syncwarp orders a warp", run(within_a_warp<true>), "");
    wants("a missing __syncwarp is a race", run(within_a_warp<false>), "race: it");
    wants("a shuffle orders no memory", run(shuffle_is_no_barrier), "race: it");
    wants("blocks on one place are a race", run(blocks_meet, 3), "which another block has");
    wants("a block writes what others read", run(blocks_read_and_one_writes, 3), "race: it");
    wants("blocks on places of their own", run(blocks_apart, 3, 3 * N), "");
    wants("atomics meet", run(atomics, 3), "");
    wants("an atomic and a plain write do not", run(atomic_and_plain), "race: it");
    wants("a write behind a piece", run(behind_the_end), "at an address of the device that");
    wants("a write before a piece", run(before_the_begin), "belongs to no piece");
    wants("an address that is not the device's", run(heap), "memory of the host");
    wants("a write behind shared memory", run(behind_shared), "behind the 256 of its shared memory");
    wants("shared memory that nobody wrote", run(not_written), "which nobody has written");
    wants("more shared memory than there is", run(reverse<true>, 1, N, 228 << 10), "is refused");
    std::string deadlock = run(half_wait);
    wants("a deadlock names the kernel", deadlock, "kernel, block (0,0,0): deadlock");
    wants("and where threads wait", deadlock, "(its warp)");
    wants("a mask with a lane that has ended", run(ended_lane), "names lane 3, which has ended");
    wants("a barrier without those that have ended", run(ended_threads), "");
    wants("a lane that the mask does not name", run(beyond_its_mask), "reads lane 20, which its mask does not name");
    wants("cp.async is there after its wait", run(async_copy<true>), "");
    wants("and not before", run(async_copy<false>), "which nobody has written");
}

/* ---- values, streams, memory ---- */

static std::vector<float> fetch(const void *from, size_t n)
{
    std::vector<float> out(n);
    dev_download(out.data(), from, n * sizeof(float), stream);
    dev_stream_wait(stream);
    return out;
}

static void values(void)
{
    void *x = nullptr;
    dev_use(0);
    dev_take(&x, N * sizeof(float));
    dev_launch("kernel", warp_words, dim3(1), dim3(N), 0, stream, (float *)x);
    bool good = true;
    for (float value : fetch(x, N)) good = good && value == 1;
    tell(good, "shuffles and votes");
    dev_zero(x, N * sizeof(float), stream);
    dev_launch("kernel", atomics, dim3(3), dim3(N), 0, stream, (float *)x);
    tell(fetch(x, 1)[0] == 3 * N, "a sum of atomics");
    dev_give(x);
    tell(__bfloat162float(__float2bfloat16_rn(1 + 1.0f / 256)) == 1 &&
             __bfloat162float(__float2bfloat16_rn(1 + 3.0f / 256)) == 1 + 2.0f / 128,
         "bfloat16 rounds to even");
}

static void streams(void)
{
    void *x = nullptr, *y = nullptr, *pinned = nullptr;
    dev_use(0);
    float early = 5, late = 0;
    dev_stream other;
    dev_event event;
    dev_graph graph;
    dev_stream_new(&other);
    dev_event_new(&event);
    dev_take(&x, sizeof early);
    dev_take(&y, sizeof early);
    dev_take_pinned(&pinned, sizeof early);
    dev_upload(x, &early, sizeof early, stream);
    early = 6; /* ordinary memory was copied at once */
    dev_download(&late, x, sizeof late, stream);
    tell(late == 0, "nothing is done before it is waited for");
    dev_stream_wait(stream);
    tell(late == 5, "and then in order");
    *(float *)pinned = 7;
    dev_upload(x, pinned, sizeof early, stream);
    *(float *)pinned = 8;
    dev_download(&late, x, sizeof late, stream);
    dev_stream_wait(stream);
    tell(late == 8, "pinned memory is read when the stream comes by");
    dev_event_record(event, stream);
    dev_upload(x, &early, sizeof early, stream);
    dev_stream_after(other, event);
    dev_copy(y, x, sizeof early, other);
    dev_download(&late, y, sizeof late, other);
    dev_stream_wait(other);
    tell(late == 8, "a stream without a wait for it does not see what another is asked");
    dev_event_record(event, stream);
    dev_stream_after(other, event);
    dev_copy(y, x, sizeof early, other);
    dev_download(&late, y, sizeof late, other);
    dev_stream_wait(other);
    tell(late == 6, "and sees it with one");
    dev_capture_begin(stream);
    dev_launch("kernel", blocks_apart, dim3(1), dim3(32), 0, stream, (float *)x);
    dev_capture_end(stream, &graph);
    dev_give(x);
    dev_take(&x, N * sizeof(float));
    dev_zero(x, N * sizeof(float), stream);
    dev_graph graph_of_new;
    dev_capture_begin(stream);
    dev_launch("kernel", blocks_apart, dim3(1), dim3(N), 0, stream, (float *)x);
    dev_capture_end(stream, &graph_of_new);
    tell(fetch(x, 1)[0] == 0, "what is captured is not done");
    for (int i = 0; i < 3; i++) dev_graph_launch(graph_of_new, stream);
    tell(fetch(x, 1)[0] == 3, "a graph is done as often as it is launched");
    dev_graph_launch(graph, stream);
    int error = dev_stream_wait(stream);
    tell(error && strstr(dev_error_text(error), "belongs to no piece"), "memory that was given back is no piece");
    dev_graph unused;
    dev_use(0);
    dev_capture_begin(stream);
    error = dev_stream_wait(stream);
    dev_capture_end(stream, &unused);
    dev_graph_free(unused);
    tell(error && strstr(dev_error_text(error), "a wait while a stream is captured"), "a wait is refused in a capture");
    dev_use(0);
    dev_graph_free(graph);
    dev_graph_free(graph_of_new);
    dev_give(x);
    dev_give(y);
    dev_give_pinned(pinned);
    dev_event_free(event);
    dev_stream_free(other);
}

static void closed_memory(void)
{
    void *x = nullptr;
    int status = 0;
    dev_use(0);
    dev_take(&x, sizeof(float));
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        of_the_host[0] = *(volatile float *)x;
        _exit(0);
    }
    waitpid(child, &status, 0);
    tell(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "the host cannot read device memory");
}

/* ---- red zones ---- */

template <class K> static std::string beside_a_zone(K kernel, size_t fenced)
{
    void *x = nullptr;
    dev_use(0);
    dev_take(&x, 4 * N * sizeof(float));
    dev_zero(x, 4 * N * sizeof(float), stream);
    if (fenced) dev_fence((float *)x + N, fenced, stream);
    dev_launch("kernel", kernel, dim3(1), dim3(N), N * sizeof(float), stream, (float *)x);
    std::string text = dev_stream_wait(stream) ? dev_error_text(1) : "";
    dev_give(x);
    return text;
}

__global__ void reads_behind(float *x)
{
    x[threadIdx.x] = threadIdx.x == N - 1 ? x[N + 1] : 0;
}

__global__ void adds_behind(float *x)
{
    if (threadIdx.x == 3) atomicAdd(x + N, 1.0f);
}

__global__ void beyond_the_zone(float *x)
{
    x[threadIdx.x + 2 * N] = 1;
}

__global__ void last_half(float *x)
{
    ((uint16_t *)x)[2 * N + threadIdx.x % 2] = 1;
}

static void red_zones(void)
{
    const size_t zone = N * sizeof(float);
    void *x = nullptr;
    std::vector<float> host(N + 1);
    wants("a write one element behind a piece", beside_a_zone(behind_the_end, zone),
          "writes memory 0 bytes behind the end of its piece of an arena");
    wants("a read", beside_a_zone(reads_behind, zone), "reads memory 4 bytes behind the end");
    wants("an atomic", beside_a_zone(adds_behind, zone), "writes memory 0 bytes behind");
    wants("a write of two bytes", beside_a_zone(last_half, zone), "bytes behind the end");
    wants("what stays in its piece is well", beside_a_zone(warp_words, zone), "");
    wants("and so is what lies behind the zone", beside_a_zone(beyond_the_zone, zone), "");
    wants("and a piece without one", beside_a_zone(behind_the_end, 0), "");
    dev_use(0);
    dev_take(&x, 4 * N * sizeof(float));
    dev_fence((float *)x + N, zone, stream);
    dev_download(host.data(), x, N * sizeof(float), stream);
    tell(dev_stream_wait(stream) == 0, "a copy up to the zone");
    dev_download(host.data(), x, (N + 1) * sizeof(float), stream);
    int error = dev_stream_wait(stream);
    tell(error && strstr(dev_error_text(error), "ends behind its piece"), "and one into it");
    dev_use(0);
    dev_upload((float *)x + N, host.data(), sizeof(float), stream);
    tell(dev_stream_wait(stream) != 0, "and one within it");
    dev_use(0);
    dev_give(x);
}

int main(void)
{
    dev_stream_new(&stream);
    red_zones();
    kernels();
    values();
    streams();
    closed_memory();
    dev_stream_free(stream);
    printf("1..%d\n", number);
    return failed != 0;
}
