/* A run's folder as data. Files may be torn or of other hands: lines that say nothing are passed over. */
#include "report/run_files.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"
#include "data/json_name.h"

/* 4 GB of CSV are some 10 million steps; a log of bad files ends with the run long before. */
static const int64_t CSV_LIMIT = (int64_t)4 << 30, LOG_LIMIT = (int64_t)1 << 30, CONFIG_LIMIT = 1 << 20;
enum { MOST_BAD_FILES = 1000, TEST_COLUMNS = 6 };
static const char *const test_columns[TEST_COLUMNS] = {"epoch", "clip_top1", "clip_top5", "top1", "top5", "map"};

static void figures_free(xkd_figures *f)
{
    xkd_free(f->text);
    xkd_free(f->names);
    xkd_free(f->values);
}

/* Up to `end`; 0 for the whole text. */
static int64_t count_char(const char *text, char c, char end)
{
    int64_t n = 0;
    for (; *text && *text != end; text++) n += *text == c;
    return n;
}

/* Our own CSV: no quotes, no empty cells, "nan" for what was not measured. */
static xkd_status read_csv(xkd_context *cx, const char *path, xkd_figures *f)
{
    xkd_status status = XKD_OK;
    int64_t size;
    XKD_TRY(xkd_read_file(cx, path, CSV_LIMIT, XKD_ERR_DATA, &f->text, &size));
    f->columns = 1 + count_char(f->text, ',', '\n');
    /* The heading is the first line, so it is no row; neither is a last line without an end. */
    f->rows = count_char(f->text, '\n', 0) - 1;
    if (f->rows < 1) {
        f->rows = f->columns = 0;
        goto fail;
    }
    XKD_TRY(xkd_alloc(cx, &f->names, f->columns, sizeof *f->names));
    XKD_TRY(xkd_alloc(cx, &f->values, f->columns * f->rows, sizeof *f->values));
    char *at = f->text;
    for (int64_t c = 0; c < f->columns; c++) {
        f->names[c] = at;
        at += strcspn(at, ",\n");
        *at++ = 0;
    }
    /* Stored by column, as a chart wants one column whole. A line that is too short has no figures at its end. */
    for (int64_t row = 0; row < f->rows; row++) {
        for (int64_t c = 0; c < f->columns; c++) {
            char *end = at;
            double value = *at && *at != '\n' ? strtod(at, &end) : NAN;
            f->values[c * f->rows + row] = end > at ? value : NAN;
            at = end + strcspn(end, ",\n");
            at += *at == ',';
        }
        at += strcspn(at, "\n");
        at += *at == '\n';
    }
fail:
    return status;
}

const double *xkd_figures_column(const xkd_figures *f, const char *name)
{
    for (int64_t c = 0; c < f->columns && f->rows > 0; c++)
        if (strcmp(f->names[c], name) == 0) return f->values + c * f->rows;
    return NULL;
}

/* Calls `take` with every line that is a JSON object. */
static xkd_status each_object(xkd_context *cx, const char *folder, const char *name,
                              xkd_status (*take)(xkd_context *cx, xkd_run_files *out, const json_t *line),
                              xkd_run_files *out)
{
    xkd_status status = XKD_OK;
    char *path = NULL, *text = NULL;
    int64_t size;
    XKD_TRY(xkd_join_path(cx, &path, folder, name));
    if (!xkd_path_exists(path)) goto fail;
    status = xkd_read_file(cx, path, LOG_LIMIT, XKD_ERR_DATA, &text, &size);
    if (status == XKD_ERR_DATA || status == XKD_ERR_STORAGE) {
        /* The log costs its table, not the report. */
        xkd_log(cx, XKD_LOG_WARN, "report: without what %s holds: %s", name, xkd_last_error(cx));
        xkd_clear_error(cx);
        status = XKD_OK;
        goto fail;
    }
    XKD_TRY(status);
    for (const char *line = text; *line && status == XKD_OK;) {
        size_t length = strcspn(line, "\n");
        json_t *object = json_loadb(line, length, 0, NULL);
        if (json_is_object(object)) status = take(cx, out, object);
        json_decref(object);
        line += length + (line[length] == '\n');
    }
fail:
    xkd_free(path);
    xkd_free(text);
    return status;
}

/* A file that is met again counts once more. Linear search, which the limit bounds. */
static xkd_status take_bad(xkd_context *cx, xkd_run_files *out, const json_t *line)
{
    xkd_status status = XKD_OK;
    const char *reason = json_string_value(json_object_get(line, "reason"));
    const char *message = json_string_value(json_object_get(line, "message"));
    char *path = NULL;
    XKD_TRY(xkd_json_name_value(cx, json_object_get(line, "path"), &path));
    if (!path) goto fail;
    for (int64_t i = 0; i < out->bad_count; i++)
        if (strcmp(out->bad[i].path, path) == 0) {
            out->bad[i].times++;
            goto fail;
        }
    if (out->bad_count == MOST_BAD_FILES) goto fail;
    XKD_TRY(xkd_reserve(cx, &out->bad, out->bad_count, &out->bad_capacity, sizeof *out->bad));
    xkd_bad_file *bad = &out->bad[out->bad_count++];
    *bad = (xkd_bad_file){.path = path, .times = 1};
    path = NULL;
    XKD_TRY(xkd_copy_string(cx, &bad->reason, reason ? reason : ""));
    XKD_TRY(xkd_copy_string(cx, &bad->message, message ? message : ""));
fail:
    xkd_free(path);
    return status;
}

/* Rows grow by one: values are kept by column, and there are few tests. */
static xkd_status take_test(xkd_context *cx, xkd_run_files *out, const json_t *line)
{
    xkd_status status = XKD_OK;
    xkd_figures *t = &out->tests;
    double *values = NULL;
    if (!t->names) {
        XKD_TRY(xkd_alloc(cx, &t->names, TEST_COLUMNS, sizeof *t->names));
        for (int c = 0; c < TEST_COLUMNS; c++) t->names[c] = (char *)test_columns[c];
        t->columns = TEST_COLUMNS;
    }
    XKD_TRY(xkd_alloc(cx, &values, TEST_COLUMNS * (t->rows + 1), sizeof *values));
    for (int64_t c = 0; c < TEST_COLUMNS; c++) {
        const json_t *value = json_object_get(line, test_columns[c]);
        if (t->rows) memcpy(values + c * (t->rows + 1), t->values + c * t->rows, (size_t)t->rows * sizeof *values);
        values[c * (t->rows + 1) + t->rows] = json_is_number(value) ? json_number_value(value) : NAN;
    }
    xkd_free(t->values);
    t->values = values;
    t->rows++;
fail:
    return status;
}

/* A configuration of another version costs the comparison with the defaults, not the report. */
static xkd_status read_config(xkd_context *cx, const char *folder, xkd_run_files *out)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    int64_t size;
    XKD_TRY(xkd_config_init(cx, &out->config));
    XKD_TRY(xkd_join_path(cx, &path, folder, "config.yaml"));
    if (!xkd_path_exists(path)) {
        XKD_TRY(xkd_copy_string(cx, &out->config_text, ""));
        goto fail;
    }
    XKD_TRY(xkd_read_file(cx, path, CONFIG_LIMIT, XKD_ERR_DATA, &out->config_text, &size));
    status = xkd_config_parse(cx, &out->config, path, out->config_text, size, false);
    out->config_known = status == XKD_OK;
    if (status == XKD_ERR_CONFIG) {
        xkd_log(cx, XKD_LOG_WARN, "%s: is shown as it is: %s", path, xkd_last_error(cx));
        xkd_clear_error(cx);
        xkd_config_free(&out->config);
        out->config = (xkd_config){0};
        status = xkd_config_init(cx, &out->config);
    }
fail:
    xkd_free(path);
    return status;
}

/* Steps of the first epoch times the epochs, once a second epoch or a whole first one shows how long it is. */
static int64_t total_steps(const xkd_run_files *f)
{
    const double *epoch = xkd_figures_column(&f->metrics, "epoch"), *step = xkd_figures_column(&f->metrics, "step");
    if (!epoch || !step || !f->config_known) return 0;
    for (int64_t i = 1; i < f->metrics.rows; i++)
        if (epoch[i] == epoch[0] + 1 && epoch[0] == 0) return (int64_t)step[i - 1] * f->config.train.epochs;
    return 0;
}

/* The lock of a run that goes on cannot be had. A lock file is not made where there is none. */
static bool is_running(xkd_context *cx, const char *folder)
{
    char *lock = NULL;
    int fd = -1;
    bool held = false;
    if (xkd_join_path(cx, &lock, folder, ".lock") == XKD_OK && xkd_path_exists(lock)) {
        held = xkd_lock_file(cx, lock, &fd) == XKD_ERR_CONFIG;
        if (fd >= 0) close(fd);
    }
    xkd_clear_error(cx);
    xkd_free(lock);
    return held;
}

xkd_status xkd_run_files_read(xkd_context *cx, const char *folder, int64_t total, xkd_run_files *out)
{
    xkd_status status = XKD_OK;
    char *csv = NULL;
    *out = (xkd_run_files){0};
    if (!xkd_is_folder(folder)) XKD_FAIL(XKD_ERR_STORAGE, "%s: is no folder: name the folder of a run", folder);
    XKD_TRY(xkd_copy_string(cx, &out->folder, folder));
    XKD_TRY(read_config(cx, folder, out));
    XKD_TRY(xkd_join_path(cx, &csv, folder, "metrics.csv"));
    if (xkd_path_exists(csv))
        XKD_TRY(read_csv(cx, csv, &out->metrics));
    else if (!*out->config_text)
        XKD_FAIL(XKD_ERR_STORAGE, "%s: holds neither metrics.csv nor config.yaml: name the folder of a run", folder);
    XKD_TRY(each_object(cx, folder, "bad_clips.jsonl", take_bad, out));
    XKD_TRY(each_object(cx, folder, "tests.jsonl", take_test, out));
    const double *step = xkd_figures_column(&out->metrics, "step");
    if (step) out->steps = (int64_t)fmin(fmax(step[out->metrics.rows - 1], 0), 1e15);
    out->total = total ? total : total_steps(out);
    out->running = !total && is_running(cx, folder);
fail:
    xkd_free(csv);
    return status;
}

void xkd_run_files_free(xkd_run_files *f)
{
    for (int64_t i = 0; i < f->bad_count; i++) {
        xkd_free(f->bad[i].path);
        xkd_free(f->bad[i].reason);
        xkd_free(f->bad[i].message);
    }
    xkd_free(f->bad);
    figures_free(&f->metrics);
    figures_free(&f->tests);
    xkd_config_free(&f->config);
    xkd_free(f->config_text);
    xkd_free(f->folder);
    *f = (xkd_run_files){0};
}
