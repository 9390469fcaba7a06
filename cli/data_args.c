/* What the data commands share: configuration, progress, and how a manifest names its root. */
#include "data_args.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "data/check_log.h"
#include "report/progress.h"

/* The model's keys are checked as well, but not against the data's, as no training follows. */
xkd_status data_configure(struct cli *cli, const char *file, char **overrides, int count, xkd_config *config)
{
    xkd_status status = XKD_OK;
    XKD_TRY(xkd_config_init(cli->cx, config));
    if (file) XKD_TRY(xkd_config_load(cli->cx, config, file, false));
    for (int i = 0; i < count; i++) XKD_TRY(xkd_config_override(cli->cx, config, overrides[i]));
    XKD_TRY(xkd_config_finish(cli->cx, config));
fail:
    return status;
}

/* The bar disappears with the last file. */
void data_show_progress(void *user, int64_t done, int64_t total)
{
    const struct data_progress *p = user;
    char line[256];
    xkd_progress_line(line, sizeof line, p->title, 0, done, total, xkd_now() - p->start, "");
    cli_progress(p->cli, done == total ? NULL : line);
    cli_progress_plain(p->cli, p->title, done, total, xkd_now() - p->start);
}

static int stop(void *user)
{
    (void)user;
    return cli_signal();
}

static void resumed(void *user, int64_t done, int64_t total)
{
    const struct data_progress *p = user;
    cli_say(p->cli, "going on: %" PRId64 " of %" PRId64 " files are done; what has changed since is looked at again",
            done, total);
}

/* All settings but those of the machine: findings of a shorter clip or another limit are other findings. */
static xkd_status hash_settings(xkd_context *cx, const xkd_config *config, const xkd_check_options *o, uint64_t *out)
{
    xkd_status status = XKD_OK;
    xkd_config plain = {0}, c = *config;
    char *text = NULL, *whole = NULL;
    XKD_TRY(xkd_config_init(cx, &plain));
    c.run = plain.run;
    c.threads = plain.threads;
    c.data.workers = plain.data.workers;
    /* Nor budgets: what was found is the same, and another one is how a refused work goes on. */
    c.data.max_bad_fraction = plain.data.max_bad_fraction;
    c.data.max_absent_fraction = plain.data.max_absent_fraction;
    XKD_TRY(xkd_config_write_changed(cx, &c, &plain, &text));
    XKD_TRY(xkd_format_string(cx, &whole, "3 %d %d %d\n%s", o->decode, o->hash, o->names_only, text));
    *out = XXH3_64bits(whole, strlen(whole));
fail:
    xkd_config_free(&plain);
    xkd_free(text);
    xkd_free(whole);
    return status;
}

xkd_status data_check(struct data_progress *progress, xkd_manifest *manifest, const xkd_config *config, const char *out,
                      xkd_check_options *options, xkd_finding *findings)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = progress->cli->cx;
    char *log = NULL;
    XKD_TRY(xkd_format_string(cx, &log, "%s.partial", out));
    XKD_TRY(hash_settings(cx, config, options, &options->settings));
    options->log = log;
    options->user = progress;
    options->progress = data_show_progress;
    options->stop = stop;
    options->resumed = resumed;
    cli_catch_signals();
    status = xkd_check(cx, manifest, &config->data, options, findings);
    if (status == XKD_ERR_INTERRUPTED) status = cli_stopped(progress->cli);
fail:
    xkd_free(log);
    return status;
}

xkd_status data_check_done(struct cli *cli, const char *out)
{
    char *log = NULL;
    xkd_status status = xkd_format_string(cli->cx, &log, "%s.partial", out);
    if (status == XKD_OK) status = xkd_check_log_remove(cli->cx, log);
    xkd_free(log);
    return status;
}

/* "." where the manifest lies in its own root, so that the folder can be moved; else the real, absolute path. The
 * caller frees *out. */
xkd_status data_root_text(struct cli *cli, const char *path, const char *root, char **out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    char *folder = NULL, *real_folder = NULL, *real_root = NULL;
    XKD_TRY(xkd_copy_string(cx, &folder, path));
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = 0;
    real_folder = realpath(slash ? folder : ".", NULL);
    real_root = realpath(root, NULL);
    /* Said now, because a manifest with such a root could never be read. */
    if (!real_root) XKD_FAIL(XKD_ERR_DATA, "%s: no such folder (check the path of the root)", root);
    XKD_TRY(xkd_copy_string(cx, out, real_folder && !strcmp(real_folder, real_root) ? "." : real_root));
fail:
    free(real_folder);
    free(real_root);
    xkd_free(folder);
    return status;
}

/* Some are said, so that a mistake in the tree shows at once; a file has all, for a download to be completed by. */
xkd_status data_tell_missing(struct cli *cli, const xkd_import_result *result, const char *manifest)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    char *path = NULL;
    xkd_text said = xkd_text_make(cx), all = xkd_text_make(cx);
    XKD_TRY(xkd_format_string(cx, &path, "%s.missing", manifest));
    if (result->missing.count == 0) {
        XKD_TRY(xkd_remove_file(cx, path));
        goto fail;
    }
    for (int64_t i = 0; i < result->missing.count; i++) xkd_text_printf(&all, "%s\n", result->missing.items[i]);
    xkd_import_missing_text(&said, result);
    XKD_TRY(all.status);
    XKD_TRY(said.status);
    XKD_TRY(xkd_write_file(cx, path, all.data, all.size));
    for (char *line = said.data, *save = NULL; (line = strtok_r(line, "\n", &save)); line = NULL)
        cli_say(cli, "%s", line);
    cli_say(cli, "all names are in %s", path);
fail:
    xkd_text_free(&said);
    xkd_text_free(&all);
    xkd_free(path);
    return status;
}
