/* Error idiom of the whole library.
 *
 *     xkd_status f(xkd_context *cx, ...)
 *     {
 *         xkd_status status = XKD_OK;
 *         XKD_TRY(g(cx));
 *         if (bad) XKD_FAIL(XKD_ERR_DATA, "%s:%d: ... (remedy)", path, line);
 *     fail:
 *         release what only this function owns;
 *         return status;
 *     }
 *
 * The place that detects a fault writes the message (file, place, remedy); callers only propagate. */
#ifndef XKD_BASE_STATUS_H
#define XKD_BASE_STATUS_H

#include <xkd/context.h>

/* Stores the message (the first one wins until cleared) and returns `status`. */
xkd_status xkd_fail(xkd_context *cx, xkd_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " in front of the stored message, for callers that know a place the callee could not. */
void xkd_error_prefix(xkd_context *cx, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Which of the ranks that run on its machine this process is, from 0: GPUs are shared out by it. */
void xkd_context_set_place(xkd_context *cx, int place);
int xkd_context_place(xkd_context *cx);

void xkd_log(xkd_context *cx, xkd_log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define XKD_TRY(expr)                    \
    do {                                 \
        status = (expr);                 \
        if (status != XKD_OK) goto fail; \
    } while (0)

#define XKD_FAIL(...)                       \
    do {                                    \
        status = xkd_fail(cx, __VA_ARGS__); \
        goto fail;                          \
    } while (0)

#endif
