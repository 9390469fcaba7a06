/* A context carries the error message, the log sink and the allocation account of one user of the library.
 * Nothing is global: two contexts never influence each other. A context may be shared by threads. */
#ifndef XKD_CONTEXT_H
#define XKD_CONTEXT_H

#include <stdint.h>
#include <xkd/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct xkd_context xkd_context;

typedef enum { XKD_LOG_ERROR, XKD_LOG_WARN, XKD_LOG_INFO, XKD_LOG_DEBUG } xkd_log_level;

/* Receives one log line without a newline. `line` is valid only during the call. Calls are serialised. */
typedef void (*xkd_log_sink)(void *user, xkd_log_level level, const char *line);

/* Makes a context, or returns NULL when out of memory. The caller frees it with xkd_context_free. Logs go nowhere
 * until a sink is set. */
xkd_context *xkd_context_new(void);
void xkd_context_free(xkd_context *cx);

void xkd_context_set_log(xkd_context *cx, xkd_log_sink sink, void *user, xkd_log_level level);

/* Message of the first error since the last xkd_clear_error, "" if none. Owned by the context, valid until the
 * next failing call. */
const char *xkd_last_error(const xkd_context *cx);
void xkd_clear_error(xkd_context *cx);

#ifdef __cplusplus
}
#endif
#endif
