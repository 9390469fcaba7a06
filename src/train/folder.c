/* The folder of a run: who may use it, and what --force removes. Other files in it are the user's and stay. */
#include "train/folder.h"

#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/pool.h"

/* Files of a run that --force removes: those in a subfolder that begin and end like this. */
static const struct {
    const char *subfolder, *begins, *ends;
} made_by_runs[] = {
    {"checkpoints", "step-", ".safetensors"},
    {"tensorboard", "events.out.tfevents.", ""},
    {"pictures", "video-", ".png"},
    {"pictures", "audio-", ".png"},
    {"curves", "", ".svg"},
    {"backbones", "", ".safetensors"},
    {"", "bad_clips.jsonl", ""},
    {"", "report.html", ""},
    {"", "classifier.safetensors", ""},
    {"", "best.safetensors", ""},
    {"", "tests.jsonl", ""},
    {"", "classes.json", ""},
};

/* Both ends must match; an empty string matches anything. */
static bool matches(const char *name, const char *begins, const char *ends)
{
    size_t length = strlen(name), tail = strlen(ends);
    return strncmp(name, begins, strlen(begins)) == 0 && length >= tail && strcmp(name + length - tail, ends) == 0;
}

/* Names are matched one by one and nothing is removed recursively: a wrong path costs no more than files that
 * look like a run's. */
static xkd_status remove_matching(xkd_context *cx, const char *folder, const char *begins, const char *ends)
{
    xkd_status status = XKD_OK;
    xkd_names names = {0};
    if (!xkd_is_folder(folder)) return XKD_OK;
    XKD_TRY(xkd_list_folder(cx, folder, &names));
    for (int64_t i = 0; i < names.count; i++) {
        if (!matches(names.items[i], begins, ends)) continue;
        XKD_TRY(xkd_remove_in(cx, folder, names.items[i]));
    }
fail:
    xkd_free_names(&names);
    return status;
}

/* A subfolder that does not exist is no error. The metrics files are not in the list: their writer truncates
 * them. */
static xkd_status remove_former_run(xkd_context *cx, const char *folder)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    for (size_t i = 0; i < sizeof made_by_runs / sizeof *made_by_runs; i++) {
        XKD_TRY(xkd_join_path(cx, &path, folder, made_by_runs[i].subfolder));
        XKD_TRY(remove_matching(cx, path, made_by_runs[i].begins, made_by_runs[i].ends));
        xkd_free(path);
        path = NULL;
    }
fail:
    xkd_free(path);
    return status;
}

/* A lock file left by a run that ended early does not make a folder a run. */
static xkd_status refuse_if_used(xkd_context *cx, const char *path)
{
    xkd_names names = {0};
    xkd_status status = xkd_list_folder(cx, path, &names);
    int64_t others = 0;
    for (int64_t i = 0; i < names.count; i++) others += strcmp(names.items[i], ".lock") != 0;
    xkd_free_names(&names);
    if (status == XKD_OK && others > 0)
        status = xkd_fail(cx, XKD_ERR_CONFIG,
                          "%s: exists and is not empty: --resume goes on with it, --force starts anew", path);
    return status;
}

/* Check, create, lock, clear, in this order: nothing is removed before the lock shows that no other process
 * is using the folder. */
xkd_status xkd_run_folder_open(xkd_context *cx, const char *path, xkd_run_mode mode, xkd_run_folder *out)
{
    xkd_status status = XKD_OK;
    char *lock = NULL;
    *out = (xkd_run_folder){.lock = -1};
    if (mode == XKD_RUN_RESUME && !xkd_is_folder(path))
        XKD_FAIL(XKD_ERR_CONFIG, "%s: no run to resume: leave out --resume to start one", path);
    XKD_TRY(xkd_copy_string(cx, &out->path, path));
    XKD_TRY(xkd_join_path(cx, &out->checkpoints, path, "checkpoints"));
    XKD_TRY(xkd_join_path(cx, &out->backbones, path, "backbones"));
    XKD_TRY(xkd_make_folder(cx, path));
    if (mode == XKD_RUN_NEW) XKD_TRY(refuse_if_used(cx, path));
    XKD_TRY(xkd_join_path(cx, &lock, path, ".lock"));
    XKD_TRY(xkd_lock_file(cx, lock, &out->lock));
    if (mode == XKD_RUN_FORCE) XKD_TRY(remove_former_run(cx, path));
fail:
    xkd_free(lock);
    if (status != XKD_OK) xkd_run_folder_close(out);
    return status;
}

/* Closing the descriptor gives the lock back. The lock file stays, because removing it would race with a
 * process that has just opened it. */
void xkd_run_folder_close(xkd_run_folder *folder)
{
    if (folder->lock >= 0) close(folder->lock);
    xkd_free(folder->path);
    xkd_free(folder->checkpoints);
    xkd_free(folder->backbones);
    *folder = (xkd_run_folder){.lock = -1};
}

/* The resolved configuration of the newest call; those of earlier ones are in their checkpoints. */
xkd_status xkd_run_folder_write_config(xkd_context *cx, const xkd_run_folder *folder, const char *yaml)
{
    char *path;
    xkd_status status = xkd_join_path(cx, &path, folder->path, "config.yaml");
    if (status != XKD_OK) return status;
    status = xkd_write_file(cx, path, yaml, (int64_t)strlen(yaml));
    xkd_free(path);
    return status;
}

/* After the configuration's text was made: that keeps "auto" for a resume on another machine. */
void xkd_run_fill_in_machine(xkd_config *config)
{
    int processors = xkd_processor_count();
    if (config->threads == 0) config->threads = processors;
    if (config->data.workers == 0) config->data.workers = processors;
}

/* A difference is a warning and not an error: more epochs or another folder are good reasons to resume. The section
 * `run:` is left out, since it says nothing about what is learnt. */
void xkd_run_compare_configs(xkd_context *cx, const char *before, const char *now)
{
    /* Both texts come from the same writer, so lines correspond; keys are compared line by line and named by
     * their line. */
    bool run = false;
    while (*before && *now) {
        int a = (int)strcspn(before, "\n"), b = (int)strcspn(now, "\n");
        if (*now != ' ') run = strncmp(now, "run:", 4) == 0;
        if (!run && (a != b || strncmp(before, now, (size_t)a) != 0))
            xkd_log(cx, XKD_LOG_WARN, "resume: the configuration changed from '%.*s' to '%.*s'",
                    a - (int)strspn(before, " "), before + strspn(before, " "), b - (int)strspn(now, " "),
                    now + strspn(now, " "));
        before += a + (before[a] != 0);
        now += b + (now[b] != 0);
    }
}
