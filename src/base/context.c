/* A context holds what other libraries keep in globals: the first error's message, the log, and the
 * count of allocations. Contexts are independent of each other, so are threads with contexts of their
 * own. */
#include "base/context.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xkd/version.h>

#include "base/status.h"

/* Long enough for two paths of PATH_MAX and a sentence; longer messages are cut. */
enum { MESSAGE_SIZE = 9000 };

struct xkd_context {
    xkd_context *parent;  /* whose log, progress and account count; NULL: its own */
    pthread_mutex_t lock; /* guards everything below except `account` */
    char message[MESSAGE_SIZE];
    xkd_log_sink sink;
    void *sink_user;
    xkd_log_level level;
    xkd_progress_sink progress;
    void *progress_user;
    xkd_account account;
    _Atomic int place;
};

static xkd_context *root_of(xkd_context *cx)
{
    while (cx->parent) cx = cx->parent;
    return cx;
}

/* Names for logs and JSON; the switch has no default, so the compiler tells when one is missing. */
const char *xkd_status_name(xkd_status status)
{
    switch (status) {
    case XKD_OK: return "ok";
    case XKD_ERR_INTERNAL: return "internal";
    case XKD_ERR_CONFIG: return "config";
    case XKD_ERR_DATA: return "data";
    case XKD_ERR_CHECKPOINT: return "checkpoint";
    case XKD_ERR_STORAGE: return "storage";
    case XKD_ERR_NUMERIC: return "numeric";
    case XKD_ERR_PEER: return "peer";
    case XKD_ERR_MEMORY: return "memory";
    case XKD_ERR_DEVICE: return "device";
    case XKD_ERR_PREEMPTED: return "preempted";
    case XKD_ERR_INTERRUPTED: return "interrupted";
    }
    return "unknown";
}

#define QUOTE(x) #x
#define DOTTED(a, b, c) QUOTE(a) "." QUOTE(b) "." QUOTE(c)

const char *xkd_version(void)
{
    return DOTTED(XKD_VERSION_MAJOR, XKD_VERSION_MINOR, XKD_VERSION_PATCH);
}

/* calloc instead of xkd_alloc, which needs a context. */
xkd_context *xkd_context_new(void)
{
    xkd_context *cx = calloc(1, sizeof *cx);
    if (!cx) return NULL;
    if (pthread_mutex_init(&cx->lock, NULL) != 0) {
        free(cx);
        return NULL;
    }
    /* -1: no failure is injected. */
    cx->account.fail_at = -1;
    return cx;
}

xkd_context *xkd_context_branch(xkd_context *parent)
{
    xkd_context *cx = xkd_context_new();
    if (cx) cx->parent = parent;
    return cx;
}

void xkd_context_hand_up(xkd_context *branch)
{
    if (branch->message[0]) xkd_fail(branch->parent, XKD_ERR_INTERNAL, "%s", branch->message);
}

void xkd_context_free(xkd_context *cx)
{
    if (!cx) return;
    pthread_mutex_destroy(&cx->lock);
    free(cx);
}

/* May be called while other threads log. */
void xkd_context_set_log(xkd_context *cx, xkd_log_sink sink, void *user, xkd_log_level level)
{
    pthread_mutex_lock(&cx->lock);
    cx->sink = sink;
    cx->sink_user = user;
    cx->level = level;
    pthread_mutex_unlock(&cx->lock);
}

void xkd_context_set_progress(xkd_context *cx, xkd_progress_sink sink, void *user)
{
    pthread_mutex_lock(&cx->lock);
    cx->progress = sink;
    cx->progress_user = user;
    pthread_mutex_unlock(&cx->lock);
}

bool xkd_wants_progress(xkd_context *cx)
{
    xkd_context *root = root_of(cx);
    pthread_mutex_lock(&root->lock);
    bool wants = root->progress != NULL;
    pthread_mutex_unlock(&root->lock);
    return wants;
}

/* The callback is called outside the lock: those of two handles may come at once, and one may log. */
xkd_status xkd_tell_progress(xkd_context *cx, const char *what, int64_t done, int64_t total)
{
    xkd_context *root = root_of(cx);
    pthread_mutex_lock(&root->lock);
    xkd_progress_sink sink = root->progress;
    void *user = root->progress_user;
    pthread_mutex_unlock(&root->lock);
    const xkd_progress progress = {what, done, total};
    if (sink && sink(user, &progress)) return xkd_fail(cx, XKD_ERR_INTERRUPTED, "%s: stopped by the caller", what);
    return XKD_OK;
}

/* Valid until the next failure or clearing. Not locked: meant for the thread that got the status. */
const char *xkd_last_error(const xkd_context *cx)
{
    return cx->message;
}

void xkd_clear_error(xkd_context *cx)
{
    pthread_mutex_lock(&cx->lock);
    cx->message[0] = 0;
    pthread_mutex_unlock(&cx->lock);
}

/* The first message wins: what fails later, mostly in cleaning up, is a consequence. */
xkd_status xkd_fail(xkd_context *cx, xkd_status status, const char *format, ...)
{
    va_list args;
    pthread_mutex_lock(&cx->lock);
    if (!cx->message[0]) {
        va_start(args, format);
        vsnprintf(cx->message, sizeof cx->message, format, args);
        va_end(args);
    }
    pthread_mutex_unlock(&cx->lock);
    return status;
}

/* For callers that know what the failing part belonged to. The end of an overlong message is cut. */
void xkd_error_prefix(xkd_context *cx, const char *format, ...)
{
    char prefix[MESSAGE_SIZE / 2];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(prefix, sizeof prefix - 2, format, args);
    va_end(args);
    if (length < 0) return;
    if ((size_t)length > sizeof prefix - 3) length = (int)sizeof prefix - 3;
    memcpy(prefix + length, ": ", 3);
    size_t shift = (size_t)length + 2;
    pthread_mutex_lock(&cx->lock);
    size_t keep = strlen(cx->message);
    if (keep > sizeof cx->message - shift - 1) keep = sizeof cx->message - shift - 1;
    memmove(cx->message + shift, cx->message, keep);
    memcpy(cx->message, prefix, shift);
    cx->message[shift + keep] = 0;
    pthread_mutex_unlock(&cx->lock);
}

/* Formatted outside the lock; the sink is called inside it, so its lines never mix. */
void xkd_log(xkd_context *cx, xkd_log_level level, const char *format, ...)
{
    char line[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    cx = root_of(cx);
    pthread_mutex_lock(&cx->lock);
    if (cx->sink && level <= cx->level) cx->sink(cx->sink_user, level, line);
    pthread_mutex_unlock(&cx->lock);
}

void xkd_context_set_place(xkd_context *cx, int place)
{
    root_of(cx)->place = place;
}

int xkd_context_place(xkd_context *cx)
{
    return root_of(cx)->place;
}

xkd_account *xkd_context_account(xkd_context *cx)
{
    return &root_of(cx)->account;
}
