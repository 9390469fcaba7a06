/* Embedding with a progress bar and signals, for `embed`, `svm` and `eval`: the library's callbacks, and what a stop
 * means for the exit code. */
#include "embed_args.h"

#include <inttypes.h>

#include "base/file.h"
#include "data_args.h"

/* Called once, before the first file. */
static void resumed(void *user, int64_t done, int64_t count)
{
    const struct embed_progress *p = user;
    cli_say(p->cli, "going on: %" PRId64 " of %" PRId64 " files are done", done, count);
}

static void taken(void *user, int64_t count, const char *from)
{
    const struct embed_progress *p = user;
    cli_say(p->cli, "%" PRId64 " files are taken over from %s", count, from);
}

/* A file's fault is told at once and by name; whether there are too many of them is decided at the end. */
static void file_done(void *user, const char *path, const xkd_media_result *result, int64_t done, int64_t todo)
{
    const struct embed_progress *p = user;
    struct data_progress bar = {p->cli, p->title, p->start};
    if (result->fault != XKD_FAULT_NONE)
        cli_say(p->cli, "%s: %s: %s", path, xkd_media_fault_name(result->fault), result->message);
    data_show_progress(&bar, done, todo);
}

/* Between two files, so that what is in the log is whole. */
static int stop(void *user)
{
    (void)user;
    return cli_signal();
}

xkd_status embed_with_progress(struct embed_progress *progress, xkd_backend *be, xkd_embed_job *job,
                               xkd_embed_counts *out)
{
    xkd_context *cx = progress->cli->cx;
    /* The callbacks are the same for every command; the caller sets the rest of the job. */
    job->user = progress;
    job->resumed = resumed;
    job->taken = taken;
    job->file = file_done;
    job->stop = stop;
    xkd_status status = xkd_embed_files(cx, be, job, out);
    /* A stop is no error of the library's: its message is replaced by one that says how to go on. */
    if (status != XKD_ERR_INTERRUPTED) return status;
    return cli_stopped(progress->cli);
}

/* The hash is taken of the work at hand, not of what the file says of itself: only equal work may be skipped. */
xkd_status embed_or_read(struct embed_progress *progress, xkd_backend *be, xkd_embed_job *job, xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = progress->cli->cx;
    xkd_embed_counts counts;
    uint64_t settings;
    if (!xkd_path_exists(job->path)) XKD_TRY(embed_with_progress(progress, be, job, &counts));
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
