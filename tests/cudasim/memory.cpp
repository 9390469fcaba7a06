/* Device memory of the simulation: a range of addresses that the host can use only while a kernel or a copy runs. Pieces begin
 * on pages of their own, with closed pages between them, and addresses are never given out twice. */
#include "fibers.h"

#include <cstdlib>
#include <iterator>
#include <map>
#include <sys/mman.h>

namespace sim
{
char *memory_begin, *memory_end;

namespace
{
const size_t RANGE = (size_t)1 << 37, PAGE = 4096;
std::map<char *, size_t> pieces; /* by begin: bytes */
size_t used;                     /* of the range */
size_t taken;                    /* by pieces that are there */
std::map<char *, size_t> fences; /* by begin: bytes */
int open_count;
/* The piece that was found last: most accesses meet it again. */
char *last_begin, *last_end;

size_t pages(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

void protect_all(int rights)
{
    for (const auto &p : pieces) mprotect(p.first, pages(p.second), rights);
}
} // namespace

size_t memory_size(void)
{
    const char *text = getenv("XKD_CUDASIM_MEMORY");
    return text ? strtoull(text, nullptr, 10) : RANGE;
}

void *take_memory(size_t bytes)
{
    if (!memory_begin) {
        void *range = mmap(nullptr, RANGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (range == MAP_FAILED) return nullptr;
        memory_begin = (char *)range;
        memory_end = memory_begin + RANGE;
    }
    if (bytes > memory_size() || taken > memory_size() - bytes) return nullptr;
    if (bytes > RANGE || used + pages(bytes) + PAGE > RANGE) return nullptr;
    char *piece = memory_begin + used;
    used += pages(bytes) + PAGE;
    pieces[piece] = bytes;
    taken += bytes;
    if (open_count) mprotect(piece, pages(bytes), PROT_READ | PROT_WRITE);
    return piece;
}

bool give_memory(void *block)
{
    auto found = pieces.find((char *)block);
    if (found == pieces.end()) return false;
    madvise(found->first, pages(found->second), MADV_DONTNEED);
    mprotect(found->first, pages(found->second), PROT_NONE);
    fences.erase(fences.lower_bound(found->first), fences.lower_bound(found->first + found->second));
    taken -= found->second;
    pieces.erase(found);
    last_begin = last_end = nullptr;
    return true;
}

char *piece_end(const void *address)
{
    char *at = (char *)address;
    if (at >= last_begin && at < last_end) return last_end;
    auto next = pieces.upper_bound(at);
    if (next == pieces.begin()) return nullptr;
    --next;
    if (at >= next->first + next->second) return nullptr;
    last_begin = next->first;
    last_end = next->first + next->second;
    return last_end;
}

void add_fence(char *at, size_t bytes)
{
    fences[at] = bytes;
    mark_fence(at, bytes);
}

void mark_fences(void)
{
    for (const auto &f : fences) mark_fence(f.first, f.second);
}

char *fence_from(const void *address)
{
    char *at = (char *)address;
    auto next = fences.upper_bound(at);
    if (next != fences.begin()) {
        auto before = std::prev(next);
        if (at < before->first + before->second) return before->first;
    }
    return next == fences.end() ? nullptr : next->first;
}

void open_memory(void)
{
    if (open_count++ == 0) protect_all(PROT_READ | PROT_WRITE);
}

void close_memory(void)
{
    if (--open_count == 0) protect_all(PROT_NONE);
}
} // namespace sim
