/* What evaluations say: one place for the words, whoever shows them. */
#include "eval/encode/listener.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/file.h"
#include "eval/encode/embed_ranks.h"

void xkd_say(const xkd_listener *listener, const char *format, ...)
{
    char line[9000]; /* two paths and a sentence, as in a message (base/context.c) */
    va_list args;
    if (!listener || !listener->say) return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    listener->say(listener->user, line);
}

/* What the callbacks of a job know. */
typedef struct {
    const xkd_listener *listener;
    const char *title;
    double start;
} hearing;

/* Called once, before the first file. */
static void resumed(void *user, int64_t done, int64_t count)
{
    const hearing *h = user;
    xkd_say(h->listener, "going on: %" PRId64 " of %" PRId64 " files are done", done, count);
}

static void taken(void *user, int64_t count, const char *from)
{
    const hearing *h = user;
    xkd_say(h->listener, "%" PRId64 " files are taken over from %s", count, from);
}

/* A file's fault is told at once and by name; whether there are too many of them is decided at the end. */
static void file_done(void *user, const char *path, const xkd_media_result *result, int64_t done, int64_t todo)
{
    const hearing *h = user;
    const xkd_listener *l = h->listener;
    if (result->fault != XKD_FAULT_NONE)
        xkd_say(l, "%s: %s: %s", path, xkd_media_fault_name(result->fault), result->message);
    if (l && l->progress) l->progress(l->user, h->title, h->start, done, todo);
}

/* Between two files, so that what is in the log is whole. */
static int stop(void *user)
{
    const hearing *h = user;
    return h->listener && h->listener->stop ? h->listener->stop(h->listener->user) : 0;
}

xkd_status xkd_embed_files_heard(xkd_context *cx, xkd_backend *be, const char *title, xkd_embed_job *job,
                                 const xkd_listener *listener, xkd_embed_counts *out)
{
    hearing h = {listener, title, xkd_now()};
    job->user = &h;
    job->resumed = resumed;
    job->taken = taken;
    job->file = file_done;
    job->stop = stop;
    return job->dist ? xkd_embed_files_shared(cx, be, job, out) : xkd_embed_files(cx, be, job, out);
}

/* The hash is taken of the work at hand, not of what the file says of itself: only equal work may be skipped. */
xkd_status xkd_embed_or_read(xkd_context *cx, xkd_backend *be, const char *title, xkd_embed_job *job,
                             const xkd_listener *listener, xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    xkd_embed_counts counts;
    uint64_t settings;
    bool exists = xkd_path_exists(job->path);
    XKD_TRY(xkd_dist_broadcast(job->dist, &exists, sizeof exists));
    if (!exists) XKD_TRY(xkd_embed_files_heard(cx, be, title, job, listener, &counts));
    /* Read as soon as the file exists: it was written as a whole. */
    XKD_TRY(xkd_embeddings_read(cx, job->path, out));
    /* Nor is it replaced unasked: figures may have been made from it. */
    if (out->settings == 0)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "%s: does not say with which options it was made (an earlier version or 'xkd embed --join' wrote it): "
                 "take another --out, or remove it",
                 job->path);
    XKD_TRY(xkd_embed_settings(cx, job, &settings));
    if (out->settings != settings)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "%s: holds features of another model, other files or other options: take another --out, or remove it",
                 job->path);
fail:
    return status;
}
