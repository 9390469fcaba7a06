/* What the compiler calls before each read and write of a kernel: the kernels are compiled with the instrumentation of the
 * thread sanitizer, and these are our own functions of its names.
 *
 * Every two bytes of shared and of device memory have a shadow: who wrote there last, and who read. Two threads may touch one
 * place, one of them writing, only with a barrier between them, or within a warp a __syncwarp, or in different launches. */
#include "fibers.h"

#include <cstdio>
#include <dlfcn.h>
#include <sys/mman.h>

extern "C" char __ehdr_start __attribute__((visibility("hidden")));
extern "C" char _end __attribute__((visibility("hidden")));

namespace sim
{
namespace
{
enum { GRAIN = 2, CELLS_AT_ONCE = 1 << 20 };
/* Codes of `who` beyond a thread's number: several readers. */
enum : unsigned { WARP_READERS = 1024, BLOCK_READERS = 2000, GRID_READERS = 2001, FENCE = 2002, ATOMIC = 4096 };
/* Behind all intervals: what stands there is ordered before nothing. */
const uint32_t NEVER = 0xffffffffu;

struct stamp {
    uint32_t interval; /* 0: nobody */
    uint16_t who, warp_epoch;
};

struct cell {
    stamp writer, reader;
};

cell *device_shadow;
cell shared_shadow[MOST_SHARED / GRAIN]; /* stamps of earlier blocks are older than this one's begin */

__attribute__((noinline)) void make_device_shadow(void)
{
    size_t bytes = (size_t)(memory_end - memory_begin) / GRAIN * sizeof(cell);
    void *range = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) fault("the simulation has no room for its shadows");
    device_shadow = (cell *)range;
}

/* Whether what was done at the stamp is ordered before what the running thread does; it is not older than all that counts. */
bool is_before(const stamp &s)
{
    unsigned who = s.who & ~(unsigned)ATOMIC;
    if (who == GRID_READERS || s.interval < now.block_began) return false;
    if (s.interval < now.interval) return true;
    if (who < WARP_READERS && who == now.thread) return true;
    unsigned warp = who < WARP_READERS ? who / LANES : who - WARP_READERS;
    return who < BLOCK_READERS && warp == now.thread / LANES && s.warp_epoch < now.warp_epoch;
}

[[noreturn]] void tell_overrun(const char *address, const char *does, size_t offset)
{
    const char *fence = fence_from(address);
    fault("%s memory %zu bytes behind the end of its piece of an arena (code at +0x%zx)", does,
          fence && fence < address ? (size_t)(address - fence) : 0, offset);
}

[[noreturn]] void tell_race(const char *address, const stamp &other, const char *did, const char *does,
                            const void *caller)
{
    Dl_info info;
    size_t offset = dladdr(caller, &info) ? (size_t)((const char *)caller - (const char *)info.dli_fbase) : 0;
    bool shared = address >= shared_begin && address < shared_begin + shared_size;
    unsigned who = other.who & ~(unsigned)ATOMIC;
    char thread[60];
    if (who == FENCE) tell_overrun(address, does, offset);
    if (other.interval < now.block_began || who == GRID_READERS)
        snprintf(thread, sizeof thread, "another block");
    else if (who < WARP_READERS)
        snprintf(thread, sizeof thread, "thread %u", who);
    else
        snprintf(thread, sizeof thread, "several threads");
    fault("race: it %s %s memory at byte %zu, which %s has %s with nothing between them (code at +0x%zx)", does,
          shared ? "shared" : "device", (size_t)(address - (shared ? shared_begin : memory_begin)), thread, did,
          offset);
}

inline stamp mine(void)
{
    return {now.interval, (uint16_t)now.thread, (uint16_t)now.warp_epoch};
}

/* Who reads beside an earlier reader of this launch: their common name. */
inline void add_reader(stamp *reader)
{
    const unsigned who = reader->who, warp = now.thread / LANES;
    const bool same_block = reader->interval >= now.block_began && who != GRID_READERS;
    if (same_block && reader->interval < now.interval)
        *reader = mine();
    else if (!same_block)
        *reader = {now.interval, GRID_READERS, 0};
    else if (who == now.thread)
        reader->warp_epoch = (uint16_t)now.warp_epoch;
    else if ((who < WARP_READERS && who / LANES == warp) || who == WARP_READERS + warp)
        *reader = {now.interval, (uint16_t)(WARP_READERS + warp), (uint16_t)now.warp_epoch};
    else
        *reader = {now.interval, BLOCK_READERS, 0};
}

/* What is older than `begin` was done by an earlier launch, or an earlier block in the same shared memory. */
inline void touch(const char *address, size_t bytes, bool writes, bool atomic, const void *caller)
{
    const bool shared = address >= shared_begin && address < shared_begin + shared_size;
    const uint32_t begin = shared ? now.block_began : now.launch_began;
    if (!shared && !device_shadow) make_device_shadow();
    const size_t offset = (size_t)(address - (shared ? shared_begin : memory_begin));
    cell *base = shared ? shared_shadow : device_shadow, *end = base + (offset + bytes - 1) / GRAIN + 1;
    for (cell *c = base + offset / GRAIN; c < end; c++, address += GRAIN) {
        if (c->writer.interval >= begin && !(atomic && (c->writer.who & ATOMIC)) && !is_before(c->writer))
            tell_race(address, c->writer, "written", writes ? "writes" : "reads", caller);
        if (!writes) {
            if (shared && c->writer.interval < begin)
                fault("reads shared memory at byte %zu, which nobody has written", (size_t)(address - shared_begin));
            if (c->reader.interval < begin)
                c->reader = mine();
            else
                add_reader(&c->reader);
            continue;
        }
        if (c->reader.interval >= begin && !is_before(c->reader))
            tell_race(address, c->reader, "read", "writes", caller);
        c->writer = mine();
        if (atomic) c->writer.who |= ATOMIC;
    }
}

/* Constants of the module, its stacks, and what a launch has copied of its arguments. */
bool is_own(const char *address)
{
    return is_on_stack(address) || is_argument(address) || (address >= &__ehdr_start && address < &_end);
}

/* Whether the place is one that has a shadow; ends the launch where it is no place for a kernel. */
inline bool check_place(const char *address, size_t bytes, bool writes)
{
    if (address >= memory_begin && address < memory_end) {
        const char *end = piece_end(address);
        if (!end || address + bytes > end)
            fault("%s %zu bytes at an address of the device that %s", writes ? "writes" : "reads", bytes,
                  end ? "ends behind its piece" : "belongs to no piece");
        return true;
    }
    if (address >= shared_begin && address < shared_begin + MOST_SHARED) {
        if (address + bytes > shared_begin + shared_size)
            fault("%s %zu bytes behind the %zu of its shared memory", writes ? "writes" : "reads", bytes, shared_size);
        return true;
    }
    if (!is_own(address)) fault("%s memory of the host", writes ? "writes" : "reads");
    return false;
}

inline void access(const void *at, size_t bytes, bool writes, const void *caller)
{
    const char *address = (const char *)at;
    if (!now.in_kernel || bytes == 0) return;
    if (check_place(address, bytes, writes)) touch(address, bytes, writes, false, caller);
}
} // namespace

/* Intervals have 32 bits; when most are used, all begins anew. */
void mark_fence(char *at, size_t bytes)
{
    if (!device_shadow) make_device_shadow();
    const cell closed = {{NEVER, FENCE, 0}, {0, 0, 0}};
    const size_t first = ((size_t)(at - memory_begin) + GRAIN - 1) / GRAIN,
                 end = (size_t)(at + bytes - memory_begin) / GRAIN;
    for (size_t i = first; i < end; i++) device_shadow[i] = closed;
}

void reset_shadow_if_full(void)
{
    if (now.interval < 0xf0000000u) return;
    if (device_shadow)
        madvise(device_shadow, (size_t)(memory_end - memory_begin) / GRAIN * sizeof(cell), MADV_DONTNEED);
    std::memset(shared_shadow, 0, sizeof shared_shadow);
    now.interval = 0;
    mark_fences();
}

} // namespace sim

/* Ordered against other atomics; not itself under the hooks. */
template <class N> static N atomic_add(N *at, N value, const void *caller)
{
    sim::check_place((const char *)at, sizeof *at, true);
    sim::touch((const char *)at, sizeof *at, true, true, caller);
    N old = *at;
    *at = old + value;
    return old;
}

#define ATOMIC_ADD(type)                                           \
    type atomicAdd(type *at, type value)                           \
    {                                                              \
        return atomic_add(at, value, __builtin_return_address(0)); \
    }
ATOMIC_ADD(float)
ATOMIC_ADD(double)
ATOMIC_ADD(int)
ATOMIC_ADD(unsigned)

#define HOOK(name, bytes, writes)                                    \
    extern "C" void __tsan_##name(void *at)                          \
    {                                                                \
        sim::access(at, bytes, writes, __builtin_return_address(0)); \
    }
#define HOOKS(bytes)                          \
    HOOK(read##bytes, bytes, false)           \
    HOOK(write##bytes, bytes, true)           \
    HOOK(unaligned_read##bytes, bytes, false) \
    HOOK(unaligned_write##bytes, bytes, true)
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

extern "C" void __tsan_read_range(void *at, long bytes)
{
    sim::access(at, (size_t)bytes, false, __builtin_return_address(0));
}

extern "C" void __tsan_write_range(void *at, long bytes)
{
    sim::access(at, (size_t)bytes, true, __builtin_return_address(0));
}

extern "C" void __tsan_init(void)
{
}
extern "C" void __tsan_func_entry(void *)
{
}
extern "C" void __tsan_func_exit(void)
{
}
extern "C" void __tsan_vptr_update(void *, void *)
{
}
