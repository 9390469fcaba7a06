/* The one place that allocates. Memory is zeroed and 64-byte aligned, so that SIMD code may use aligned loads. */
#ifndef XKD_BASE_ALLOC_H
#define XKD_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Allocates count * size bytes, checked for overflow, and stores the pointer in *(void **)out. A count of 0 gives a
 * valid pointer. On failure *out is NULL and the status is XKD_ERR_MEMORY. Free with xkd_free. */
xkd_status xkd_alloc(xkd_context *cx, void *out, int64_t count, size_t size);

/* Grows or shrinks *(void **)inout, which may be NULL, from old_count to new_count elements; new elements are zero.
 * On failure the old memory stays. */
xkd_status xkd_resize(xkd_context *cx, void *inout, int64_t old_count, int64_t new_count, size_t size);

/* The same for arrays of any size that grow in small steps: large ones are moved without a copy, and memory that was never
 * written takes none. New elements are not zeroed. */
xkd_status xkd_grow(xkd_context *cx, void *inout, int64_t old_count, int64_t new_count, size_t size);

/* Makes room for one more element of a growing array of `count` elements: doubles it where *capacity is reached. */
xkd_status xkd_reserve(xkd_context *cx, void *inout, int64_t count, int64_t *capacity, size_t size);

/* Copies a string. The caller frees *out with xkd_free. */
xkd_status xkd_copy_string(xkd_context *cx, char **out, const char *text);

/* printf into a new string. The caller frees *out with xkd_free. */
xkd_status xkd_format_string(xkd_context *cx, char **out, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Gives the whole pages within `bytes` of an allocation back to the system, for what is large and no longer read. The memory stays
 * the caller's; what was in it is lost. */
void xkd_discard(void *memory, int64_t bytes);

void xkd_free(void *memory);

/* Allocations that this context has made so far. */
int64_t xkd_alloc_count(xkd_context *cx);

#endif
