#include "embed_args.h"

#include <inttypes.h>
#include <signal.h>

#include "base/file.h"
#include "data_args.h"

void models_choose(const struct models *models, xkd_embed_options *options)
{
    for (int m = 0; m < XKD_MODALITIES; m++) {
        options->clips.wanted[m] = models->wanted[m];
        options->encoder[m] = models->wanted[m] ? &models->encoder[m] : NULL;
    }
}

static void resumed(void *user, int64_t done, int64_t count)
{
    const struct embed_progress *p = user;
    cli_say(p->cli, "going on: %" PRId64 " of %" PRId64 " files are done", done, count);
}

static void file_done(void *user, const char *path, const xkd_media_result *result, int64_t done, int64_t todo)
{
    const struct embed_progress *p = user;
    struct data_progress bar = {p->cli, p->title, p->start};
    if (result->fault != XKD_FAULT_NONE)
        cli_say(p->cli, "%s: %s: %s", path, xkd_media_fault_name(result->fault), result->message);
    data_show_progress(&bar, done, todo);
}

static int stop(void *user)
{
    (void)user;
    return cli_signal();
}

xkd_status embed_with_progress(struct embed_progress *progress, xkd_backend *be, xkd_embed_job *job,
                               xkd_embed_counts *out)
{
    xkd_context *cx = progress->cli->cx;
    job->user = progress;
    job->resumed = resumed;
    job->file = file_done;
    job->stop = stop;
    xkd_status status = xkd_embed_files(cx, be, job, out);
    if (status != XKD_ERR_INTERRUPTED) return status;
    cli_say(progress->cli, "stopped; the same command goes on");
    xkd_clear_error(cx);
    return cli_signal() == SIGINT ? XKD_ERR_INTERRUPTED : XKD_ERR_PREEMPTED;
}

/* The hash is taken of the work at hand, not of what the file says of itself: only equal work may be skipped. */
xkd_status embed_or_read(struct embed_progress *progress, xkd_backend *be, xkd_embed_job *job, xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = progress->cli->cx;
    xkd_embed_counts counts;
    uint64_t settings;
    if (!xkd_path_exists(job->path)) XKD_TRY(embed_with_progress(progress, be, job, &counts));
    XKD_TRY(xkd_embeddings_read(cx, job->path, out));
    XKD_TRY(xkd_embed_settings(cx, job, &settings));
    if (out->settings != settings)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "%s: holds features of another model, other files or other options: take another --out, or remove it",
                 job->path);
fail:
    return status;
}
