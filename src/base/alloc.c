/* All memory of the library comes through here: sizes are checked for overflow, memory is zeroed, a
 * refusal becomes a message, and a count lets tests see that a training step allocates nothing. Tests
 * can make the n-th allocation fail. */
#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/context.h"
#include "base/machine.h"

/* From this size on memory is aligned to and advised as huge pages: fewer TLB misses in GEMMs. */
static const size_t HUGE_PAGE = (size_t)2 << 20;
/* A cache line, and the widest vector register. */
static const size_t ALIGNMENT = 64;

/* From this size on the machine is asked first: memory is promised freely and taken away by killing the process. */
static const size_t ASK_FROM = (size_t)1 << 30;

/* Counts an allocation. Atomic, because worker threads allocate too. `more`: what it adds to what the process has. */
static xkd_status admit(xkd_context *cx, size_t bytes, size_t more)
{
    xkd_account *account = xkd_context_account(cx);
    int64_t number = atomic_fetch_add(&account->count, 1);
    int64_t fail_at = atomic_load(&account->fail_at);
    size_t available = more >= ASK_FROM ? xkd_available_memory() : SIZE_MAX;
    if (more > available)
        return xkd_fail(cx, XKD_ERR_MEMORY, "out of memory: %.1f GB are wanted, %.1f GB are free", (double)more / 1e9,
                        (double)available / 1e9);
    if (fail_at >= 0 && number >= fail_at)
        return xkd_fail(cx, XKD_ERR_MEMORY, "out of memory: %zu bytes were refused", bytes);
    return XKD_OK;
}

/* Zero bytes give memory of one byte, so that NULL always means failure. */
static xkd_status allocate(xkd_context *cx, void **out, size_t bytes)
{
    void *memory = NULL;
    /* Four huge pages at least, so that rounding up wastes little. */
    size_t alignment = bytes >= 4 * HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    *out = NULL;
    xkd_status status = admit(cx, bytes, bytes);
    if (status != XKD_OK) return status;
    if (posix_memalign(&memory, alignment, bytes ? bytes : 1) != 0)
        return xkd_fail(cx, XKD_ERR_MEMORY, "out of memory: %zu bytes were refused", bytes);
    if (alignment == HUGE_PAGE) madvise(memory, bytes, MADV_HUGEPAGE);
    *out = memory;
    return XKD_OK;
}

/* PTRDIFF_MAX instead of SIZE_MAX: differences of pointers into the block must fit. */
static int too_large(int64_t count, size_t size)
{
    return count < 0 || (size && (uint64_t)count > (uint64_t)PTRDIFF_MAX / size);
}

/* Out parameters are copied as bytes, because a pointer to any pointer type has no type of its own in
 * C. */
xkd_status xkd_alloc(xkd_context *cx, void *out, int64_t count, size_t size)
{
    void *memory = NULL;
    xkd_status status = XKD_OK;
    if (too_large(count, size))
        status = xkd_fail(cx, XKD_ERR_MEMORY, "out of memory: %lld elements of %zu bytes", (long long)count, size);
    else
        status = allocate(cx, &memory, (size_t)count * size);
    if (memory) memset(memory, 0, (size_t)count * size);
    memcpy(out, &memory, sizeof memory);
    return status;
}

/* Allocate, copy, free: realloc would neither keep the alignment nor zero the new part. On failure
 * the old block stays. */
xkd_status xkd_resize(xkd_context *cx, void *inout, int64_t old_count, int64_t new_count, size_t size)
{
    xkd_status status = XKD_OK;
    void *old, *fresh = NULL;
    memcpy(&old, inout, sizeof old);
    XKD_TRY(xkd_alloc(cx, &fresh, new_count, size));
    int64_t kept = old_count < new_count ? old_count : new_count;
    if (old && kept > 0) memcpy(fresh, old, (size_t)kept * size);
    xkd_free(old);
    memcpy(inout, &fresh, sizeof fresh);
fail:
    return status;
}

/* The C library moves large memory by changing its page tables. */
xkd_status xkd_grow(xkd_context *cx, void *inout, int64_t old_count, int64_t new_count, size_t size)
{
    void *old;
    if (too_large(new_count, size))
        return xkd_fail(cx, XKD_ERR_MEMORY, "out of memory: %lld elements of %zu bytes", (long long)new_count, size);
    size_t bytes = (size_t)new_count * size;
    memcpy(&old, inout, sizeof old);
    xkd_status status = admit(cx, bytes, bytes - (size_t)old_count * size);
    if (status != XKD_OK) return status;
    void *fresh = realloc(old, bytes ? bytes : 1);
    if (!fresh) return xkd_fail(cx, XKD_ERR_MEMORY, "out of memory: %zu bytes were refused", bytes);
    memcpy(inout, &fresh, sizeof fresh);
    return XKD_OK;
}

/* Room for one more element behind `count`; doubling keeps n additions at O(n). */
xkd_status xkd_reserve(xkd_context *cx, void *inout, int64_t count, int64_t *capacity, size_t size)
{
    const int64_t first = 64; /* the arrays that grow hold tens to thousands of elements */
    int64_t larger = *capacity ? 2 * *capacity : first;
    if (count < *capacity) return XKD_OK;
    xkd_status status = xkd_resize(cx, inout, *capacity, larger, size);
    if (status == XKD_OK) *capacity = larger;
    return status;
}

void xkd_discard(void *memory, int64_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)memory, end = begin + (uintptr_t)bytes;
    char *first = (char *)memory + (page - begin % page) % page;
    end -= end % page;
    if (end > (uintptr_t)first) (void)madvise(first, end - (uintptr_t)first, MADV_DONTNEED);
}

xkd_status xkd_copy_string(xkd_context *cx, char **out, const char *text)
{
    size_t length = strlen(text) + 1;
    xkd_status status = xkd_alloc(cx, out, (int64_t)length, 1);
    if (status == XKD_OK) memcpy(*out, text, length);
    return status;
}

/* Formatted twice: once to measure. */
xkd_status xkd_format_string(xkd_context *cx, char **out, const char *format, ...)
{
    va_list args;
    *out = NULL;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0) return xkd_fail(cx, XKD_ERR_INTERNAL, "cannot format the string \"%s\"", format);
    xkd_status status = xkd_alloc(cx, out, (int64_t)length + 1, 1);
    if (status != XKD_OK) return status;
    va_start(args, format);
    vsnprintf(*out, (size_t)length + 1, format, args);
    va_end(args);
    return XKD_OK;
}

/* NULL does nothing. */
void xkd_free(void *memory)
{
    free(memory);
}

int64_t xkd_alloc_count(xkd_context *cx)
{
    return atomic_load(&xkd_context_account(cx)->count);
}
