/* A context carries the error message, the log and progress callbacks and the allocation account of one user of the library.
 * Nothing is global: two contexts never influence each other. A context may be shared by threads: each handle that is made
 * from it (<xkd/embed.h> and others) keeps its own messages, and only what fails without a handle, such as opening one, leaves
 * its message here, where the first one stays until it is cleared. Programs whose threads open handles side by side and want
 * to know which failed give each thread a context of its own.
 *
 * The library never prints, never exits, and changes neither the environment nor the handling of signals. */
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
XKD_API xkd_context *xkd_context_new(void);
XKD_API void xkd_context_free(xkd_context *cx);

XKD_API void xkd_context_set_log(xkd_context *cx, xkd_log_sink sink, void *user, xkd_log_level level);

/* How far a call has come. */
typedef struct {
    const char *what; /* "embed", "predict", ...; static string */
    int64_t done;     /* of `total` files, clips or steps */
    int64_t total;    /* 0: nobody knows */
} xkd_progress;

/* Called several times a second while a call of <xkd/embed.h>, <xkd/classify.h> or <xkd/clip.h> works, in the thread that made the
 * call. Non-zero ends the call with XKD_ERR_INTERRUPTED; the handle can be used again. It must not call the library with the
 * same handle. */
typedef int (*xkd_progress_sink)(void *user, const xkd_progress *progress);

XKD_API void xkd_context_set_progress(xkd_context *cx, xkd_progress_sink sink, void *user); /* NULL: none */

/* Message of the first error since the last xkd_clear_error, "" if none. Owned by the context, valid until the
 * next failing call. */
XKD_API const char *xkd_last_error(const xkd_context *cx);
XKD_API void xkd_clear_error(xkd_context *cx);

#ifdef __cplusplus
}
#endif
#endif
