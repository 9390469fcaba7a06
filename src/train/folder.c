/* The folder of a run: who may use it, and what --force removes. Other files in it are the user's and stay. */
#include "train/folder.h"

#include <stdbool.h>
#include <stdio.h>
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

static xkd_status refuse_if_missing(xkd_context *cx, const char *path)
{
    if (xkd_is_folder(path)) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_CONFIG, "%s: no run to resume: leave out --resume to start one", path);
}

/* The lock is taken and given back: a folder in use by a run is refused as that run would refuse it. */
xkd_status xkd_run_folder_check(xkd_context *cx, const char *path, xkd_run_mode mode)
{
    xkd_status status = XKD_OK;
    char *lock = NULL;
    int fd = -1;
    if (mode == XKD_RUN_RESUME) XKD_TRY(refuse_if_missing(cx, path));
    XKD_TRY(xkd_check_folder(cx, path));
    if (!xkd_path_exists(path)) goto fail;
    if (mode == XKD_RUN_NEW) XKD_TRY(refuse_if_used(cx, path));
    XKD_TRY(xkd_join_path(cx, &lock, path, ".lock"));
    if (xkd_path_exists(lock)) XKD_TRY(xkd_lock_file(cx, lock, &fd));
fail:
    if (fd >= 0) close(fd);
    xkd_free(lock);
    return status;
}

/* Check, create, lock, clear, in this order: nothing is removed before the lock shows that no other process
 * is using the folder. */
xkd_status xkd_run_folder_open(xkd_context *cx, const char *path, xkd_run_mode mode, xkd_run_folder *out)
{
    xkd_status status = XKD_OK;
    char *lock = NULL;
    *out = (xkd_run_folder){.lock = -1};
    if (mode == XKD_RUN_RESUME) XKD_TRY(refuse_if_missing(cx, path));
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

/* A line of the writer's text, "key: value" below the maps that its blanks say. */
typedef struct {
    char key[128]; /* whole, with its maps: "run.device" */
    const char *text;
    int length; /* of text, without the blanks in front; 0 at the end */
} config_line;

/* Reads the line at *at and moves *at behind it. `line` holds the one before it, whose maps are kept as far as the new
 * line is indented. False at the end. */
static bool next_line(const char **at, config_line *line)
{
    if (!**at) return false;
    int blanks = (int)strspn(*at, " "), depth = blanks / 2;
    line->text = *at + blanks;
    line->length = (int)strcspn(line->text, "\n");
    *at = line->text + line->length + (line->text[line->length] != 0);
    char *end = line->key;
    for (; depth > 0 && (end = strchr(end, '.')) != NULL; depth--) end++;
    if (!end) end = line->key;
    snprintf(end, sizeof line->key - (size_t)(end - line->key), "%.*s.", (int)strcspn(line->text, ":\n"), line->text);
    return true;
}

static bool is_among(const char *key, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(key, list[i]) == 0) return true;
    return false;
}

/* Of the section `run:` only these say something about what is learnt. The micro-batches of a process follow from train.parts
 * and the number of ranks. */
static bool says_what_is_learnt(const char *key)
{
    static const char *const learnt[] = {"run.device.", "run.precision.", "run.overfit."};
    if (strcmp(key, "train.accumulate.") == 0) return false;
    return strncmp(key, "run.", 4) != 0 || is_among(key, learnt, sizeof learnt / sizeof *learnt);
}

/* Paths may lead to the same files by other names on another machine, each machine has its processors, and rank 0 alone
 * writes. */
static bool must_be_shared(const char *key)
{
    static const char *const local[] = {"data.path.", "data.workers.", "data.cache."};
    static const char *const steers[] = {"run.device.",        "run.precision.",     "run.overfit.",
                                         "run.max_steps.",     "run.max_bad_steps.", "run.bad_step_window.",
                                         "run.picture_steps.", "run.probe_epochs."};
    if (strncmp(key, "run.", 4) == 0) return is_among(key, steers, sizeof steers / sizeof *steers);
    return !is_among(key, local, sizeof local / sizeof *local);
}

/* Calls say for each pair of lines of chosen keys that differ, until it returns false. Keys are looked up by name, since another version of
 * the program may have more of them. */
static void each_difference(const char *before, const char *now, bool (*is_chosen)(const char *key),
                            bool (*say)(void *, const config_line *, const config_line *), void *arg)
{
    config_line a = {0};
    for (const char *at = before; next_line(&at, &a);) {
        config_line b = {0};
        bool found = false;
        if (!is_chosen(a.key)) continue;
        for (const char *from = now; !found && next_line(&from, &b);) found = strcmp(a.key, b.key) == 0;
        if (found && (a.length != b.length || strncmp(a.text, b.text, (size_t)a.length) != 0) && !say(arg, &a, &b))
            return;
    }
}

static bool warn_of(void *cx, const config_line *a, const config_line *b)
{
    xkd_log(cx, XKD_LOG_WARN, "resume: the configuration changed from '%.*s' to '%.*s'", a->length, a->text, b->length,
            b->text);
    return true;
}

/* A difference is a warning and not an error: more epochs or another folder are good reasons to resume. */
void xkd_run_compare_configs(xkd_context *cx, const char *before, const char *now)
{
    each_difference(before, now, says_what_is_learnt, warn_of, cx);
}

/* Where the first difference is written. */
typedef struct {
    char *text;
    size_t size;
} sentence;

static bool write_first(void *arg, const config_line *a, const config_line *b)
{
    sentence *s = arg;
    snprintf(s->text, s->size, "'%.*s' and not '%.*s'", b->length < 150 ? b->length : 150, b->text,
             a->length < 150 ? a->length : 150, a->text);
    return false;
}

bool xkd_run_first_difference(const char *first, const char *here, char *text, size_t size)
{
    sentence s = {text, size};
    *text = 0;
    each_difference(first, here, must_be_shared, write_first, &s);
    return *text != 0;
}
