/* Threads of a block as fibers, and what they wait for. */
#include "fibers.h"

#include <cstdarg>
#include <cstdio>
#include <string>
#include <sys/mman.h>
#include <vector>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

/* ---- the switch: saves what a call must keep, and goes on on another stack ---- */

#if defined(__x86_64__)
asm(R"(
.text
.globl cudasim_switch
.hidden cudasim_switch
.type cudasim_switch,@function
cudasim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cudasim_switch,.-cudasim_switch
)");
enum { SAVED = 6, RETURN_AT = 6, FRAME = 8 };
#elif defined(__aarch64__)
asm(R"(
.text
.globl cudasim_switch
.hidden cudasim_switch
.type cudasim_switch,%function
cudasim_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size cudasim_switch,.-cudasim_switch
)");
enum { SAVED = 20, RETURN_AT = 11, FRAME = 22 };
#endif

namespace sim
{
dim3 thread_index, block_index, block_size, grid_size;
running_place now;
char *shared_begin;
size_t shared_size;

namespace
{
enum wait_kind { READY, AT_BARRIER, AT_WARP, ENDED };
enum { STACK = 64 << 10, GUARD = 4096 };

struct fiber {
    wait_kind state;
    bool begun;
    dim3 index;
#if defined(__x86_64__) || defined(__aarch64__)
    void *sp;
#else
    ucontext_t context;
#endif
    const char *file; /* where it waits */
    int line;
    int from;
    uint64_t bits;
    void (*all)(void **lanes);                                /* of a meeting */
    std::vector<std::pair<char *, std::vector<char>>> copies; /* cp.async under way */
    std::vector<size_t> groups;                               /* copies up to the end of each committed group */
};

fiber fibers[MOST_THREADS], home;
char *stacks;
std::vector<int> ready;
int current, threads, live;
/* Lanes of a warp that wait for others to come with the same mask. */
struct meeting {
    warp_operation what;
    unsigned mask, here;
};
struct warp_state {
    unsigned epoch;  /* whole __syncwarps in this interval */
    unsigned absent; /* lanes that have ended or never were */
    std::vector<meeting> meetings;
};
warp_state warps[MOST_THREADS / LANES];
job *body;
std::string fault_text;
bool faulted;
uint64_t random_state;

} // namespace

uint64_t draw(void)
{
    if (!random_state) {
        const char *seed = std::getenv("XKD_CUDASIM_SEED");
        random_state = 0x9e3779b97f4a7c15u * (seed ? std::strtoull(seed, nullptr, 10) + 1 : 1);
    }
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

namespace
{
void end_of_fiber(void);

/* A fiber begins here, on its own stack. */
void entry(void)
{
    body->thread();
    end_of_fiber();
}
} // namespace

#if defined(__x86_64__) || defined(__aarch64__)
extern "C" void cudasim_switch(void **save_sp, void *to_sp);

namespace
{
void prepare(fiber *f, int number)
{
    uintptr_t top = (uintptr_t)(stacks + (size_t)(number + 1) * STACK) & ~(uintptr_t)63;
    void **frame = (void **)top - FRAME;
    for (int i = 0; i < FRAME; i++) frame[i] = nullptr;
    frame[RETURN_AT] = (void *)entry;
    f->sp = frame;
}

void change(fiber *from, fiber *to)
{
    cudasim_switch(&from->sp, to->sp);
}
} // namespace
#else
namespace
{
void prepare(fiber *f, int number)
{
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = stacks + (size_t)number * STACK + GUARD;
    f->context.uc_stack.ss_size = STACK - GUARD;
    f->context.uc_link = nullptr;
    makecontext(&f->context, entry, 0);
}

void change(fiber *from, fiber *to)
{
    swapcontext(&from->context, &to->context);
}
} // namespace
#endif

namespace
{
/* A page without rights at the low end of each stack. Shared memory has a range of its own, that no other data are near. */
void make_stacks(void)
{
    if (stacks) return;
    shared_begin = (char *)mmap(nullptr, MOST_SHARED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (shared_begin == MAP_FAILED) std::abort();
    stacks = (char *)mmap(nullptr, (size_t)MOST_THREADS * STACK, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) std::abort();
    for (int i = 0; i < MOST_THREADS; i++) mprotect(stacks + (size_t)i * STACK, GUARD, PROT_NONE);
}

/* The threads that are ready go on in an order that is drawn; from a fiber, the next one is entered directly. */
fiber *next_fiber(void)
{
    if (faulted || ready.empty()) return &home;
    size_t pick = draw() % ready.size();
    current = ready[pick];
    ready[pick] = ready.back();
    ready.pop_back();
    fiber *f = &fibers[current];
    if (!f->begun) {
        f->begun = true;
        prepare(f, current);
    }
    thread_index = f->index;
    now.thread = (unsigned)current;
    now.warp_epoch = warps[current / LANES].epoch;
    return f;
}

void leave(fiber *self)
{
    fiber *next = next_fiber();
    if (next != self) change(self, next);
}

void release_barrier(void)
{
    if (live == 0) return;
    for (int i = 0; i < threads; i++)
        if (fibers[i].state != AT_BARRIER && fibers[i].state != ENDED) return;
    now.interval++;
    for (warp_state &w : warps) w.epoch = 0;
    for (int i = 0; i < threads; i++)
        if (fibers[i].state == AT_BARRIER) {
            fibers[i].state = READY;
            ready.push_back(i);
        }
}

void end_of_fiber(void)
{
    fiber *self = &fibers[current];
    self->state = ENDED;
    warps[current / LANES].absent |= 1u << current % LANES;
    if (!self->groups.empty() || !self->copies.empty())
        note_fault("%s: a thread ends while copies to shared memory are under way", now.kernel);
    live--;
    release_barrier(); /* those that have ended are not waited for */
    leave(self);
    std::abort(); /* nobody comes back here */
}

const char *short_name(const char *file)
{
    const char *slash = std::strrchr(file, '/');
    return slash ? slash + 1 : file;
}

/* Nobody can go on: who waits where. */
void tell_deadlock(void)
{
    std::string places;
    for (int i = 0; i < threads; i++) {
        const fiber &f = fibers[i];
        if (f.state != AT_BARRIER && f.state != AT_WARP) continue;
        char place[200];
        snprintf(place, sizeof place, "%s:%d (%s)", short_name(f.file), f.line,
                 f.state == AT_BARRIER ? "the block" : "its warp");
        if (places.find(place) == std::string::npos) places += std::string(places.empty() ? "" : ", ") + place;
    }
    note_fault("%s, block (%u,%u,%u): deadlock: threads wait at %s", now.kernel, block_index.x, block_index.y,
               block_index.z, places.c_str());
}

void run_block(void)
{
    now.block_began = ++now.interval;
    live = threads;
    ready.clear();
    for (warp_state &w : warps) {
        w.epoch = w.absent = 0;
        w.meetings.clear();
    }
    for (int i = 0; i < threads; i++) {
        fibers[i].state = READY;
        fibers[i].begun = false;
        fibers[i].copies.clear();
        fibers[i].groups.clear();
        ready.push_back(i);
    }
    std::memset(shared_begin, 0xff, shared_size); /* NaN, or an index that is nowhere */
    change(&home, next_fiber());
    if (!faulted && live > 0) tell_deadlock();
}
} // namespace

void note_fault(const char *format, ...)
{
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!faulted) fault_text = text;
    faulted = true;
}

void fault(const char *format, ...)
{
    char text[500];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    note_fault("%s, block (%u,%u,%u), thread %u: %s", now.kernel, block_index.x, block_index.y, block_index.z,
               now.thread, text);
    now.in_kernel = false;
    change(&fibers[current], &home); /* the block's fibers are dropped as they are */
    std::abort();
}

const char *last_fault(void)
{
    return faulted ? fault_text.c_str() : nullptr;
}

void forget_fault(void)
{
    faulted = false;
}

bool is_on_stack(const void *address)
{
    return (const char *)address >= stacks && (const char *)address < stacks + (size_t)MOST_THREADS * STACK;
}

bool is_argument(const void *address)
{
    return body && address >= (const void *)body && (const char *)address < (const char *)body + body->bytes;
}

bool run_grid(const char *kernel, dim3 grid, dim3 block, size_t shared, job *work)
{
    int64_t blocks = (int64_t)grid.x * grid.y * grid.z;
    threads = (int)(block.x * block.y * block.z);
    make_stacks();
    shared_size = shared;
    block_size = block;
    grid_size = grid;
    body = work;
    now.kernel = kernel;
    now.launch_began = now.interval + 1;
    for (int i = 0; i < threads; i++)
        fibers[i].index = dim3((unsigned)i % block.x, (unsigned)i / block.x % block.y, (unsigned)i / block.x / block.y);
    /* An order of blocks that meets each once: steps of a number that shares no factor with theirs. */
    int64_t step = (int64_t)(draw() % (uint64_t)blocks) | 1, at = (int64_t)(draw() % (uint64_t)blocks);
    while (std::__gcd(step, blocks) != 1) step += 2;
    now.in_kernel = true;
    for (int64_t b = 0; b < blocks && !faulted; b++, at = (at + step) % blocks) {
        block_index = dim3((unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y), (unsigned)(at / grid.x / grid.y));
        run_block();
    }
    now.in_kernel = false;
    reset_shadow_if_full();
    return !faulted;
}

/* ---- what a kernel calls ---- */

void *shared_memory(void)
{
    return shared_begin;
}

int lane(void)
{
    return current % LANES;
}

void block_barrier(const char *file, int line)
{
    fiber *self = &fibers[current];
    self->state = AT_BARRIER;
    self->file = file;
    self->line = line;
    release_barrier();
    leave(self);
}

namespace
{
/* Lanes on different lines may not do one thing together. */
void do_together(int first)
{
    void *lanes[LANES];
    for (int l = 0; l < LANES; l++) {
        const fiber &f = fibers[first + l];
        lanes[l] = (void *)(uintptr_t)f.bits;
        if (f.all != fibers[current].all)
            fault("lanes of a warp are at %s:%d and at %s:%d", short_name(f.file), f.line,
                  short_name(fibers[current].file), fibers[current].line);
    }
    fibers[current].all(lanes);
}

/* All lanes of the mask are here: their answers. */
void finish_exchange(int first, unsigned mask, warp_operation what)
{
    uint64_t brought[LANES], votes = 0;
    if (what == WARP_MEET) do_together(first);
    for (int l = 0; l < LANES; l++) {
        brought[l] = fibers[first + l].bits;
        if ((mask >> l & 1) && brought[l]) votes |= (uint64_t)1 << l;
    }
    for (int l = 0; l < LANES; l++) {
        fiber *f = &fibers[first + l];
        if (!(mask >> l & 1)) continue;
        if (what == WARP_SHUFFLE && !(mask >> (f->from & 31) & 1))
            fault("lane %d reads lane %d, which its mask does not name (%s:%d)", l, f->from, short_name(f->file),
                  f->line);
        f->bits = what == WARP_BALLOT ? votes : what == WARP_SHUFFLE ? brought[f->from & 31] : 0;
        f->state = READY;
        if (first + l != current) ready.push_back(first + l);
    }
    /* Only what the whole warp does orders its memory here. */
    if (what == WARP_SYNC && mask == ~0u) now.warp_epoch = ++warps[first / LANES].epoch;
}
} // namespace

uint64_t warp_exchange(warp_operation what, unsigned mask, uint64_t bits, int from, const char *file, int line)
{
    fiber *self = &fibers[current];
    warp_state *warp = &warps[current / LANES];
    const unsigned me = 1u << current % LANES;
    if (!(mask & me)) fault("a lane is not in its own mask (%s:%d)", short_name(file), line);
    if (mask & warp->absent)
        fault("a mask names lane %d, which has ended (%s:%d)", __builtin_ctz(mask & warp->absent), short_name(file),
              line);
    self->state = AT_WARP;
    self->file = file;
    self->line = line;
    self->from = from;
    self->bits = bits;
    size_t m = 0;
    while (m < warp->meetings.size() && (warp->meetings[m].mask != mask || warp->meetings[m].what != what)) m++;
    if (m == warp->meetings.size()) warp->meetings.push_back({what, mask, 0});
    warp->meetings[m].here |= me;
    if (warp->meetings[m].here == mask) {
        warp->meetings.erase(warp->meetings.begin() + (long)m);
        finish_exchange(current / LANES * LANES, mask, what);
        ready.push_back(current); /* the one that came last may go on last */
    }
    leave(self);
    return self->bits;
}

void warp_meet(void *mine, void (*all)(void **lanes), const char *file, int line)
{
    fibers[current].all = all;
    warp_exchange(WARP_MEET, ~0u, (uint64_t)(uintptr_t)mine, 0, file, line);
}

/* ---- cp.async ---- */

void copy_begin(void *to, const void *from, size_t bytes)
{
    const char *source = (const char *)from;
    if ((char *)to < shared_begin || (char *)to + bytes > shared_begin + shared_size)
        fault("cp.async to %p, which is not shared memory", to);
    if ((uintptr_t)to % bytes || (uintptr_t)from % bytes) fault("cp.async of %zu bytes is not aligned", bytes);
    fibers[current].copies.emplace_back((char *)to, std::vector<char>(source, source + bytes));
}

void copy_commit(void)
{
    fiber &f = fibers[current];
    f.groups.push_back(f.copies.size());
}

extern "C" void __tsan_write_range(void *at, long bytes);

/* Done at the wait and not before: who reads earlier reads what was there. */
void copy_wait(int groups_left)
{
    fiber &f = fibers[current];
    if ((int)f.groups.size() <= groups_left) return;
    size_t done = f.groups.size() - (size_t)groups_left, count = f.groups[done - 1];
    for (size_t i = 0; i < count; i++) {
        __tsan_write_range(f.copies[i].first, (long)f.copies[i].second.size());
        std::memcpy(f.copies[i].first, f.copies[i].second.data(), f.copies[i].second.size());
    }
    f.copies.erase(f.copies.begin(), f.copies.begin() + (long)count);
    f.groups.erase(f.groups.begin(), f.groups.begin() + (long)done);
    for (size_t &g : f.groups) g -= count;
}
} // namespace sim
