/* Written when a fold is whole and never changed: what stands there can be trusted by a later call. */
#include "eval/judge/fold_result.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"

/* A result has half a kilobyte. */
static const int64_t MOST_BYTES = 1 << 16;

/* Figures by name: writing, reading and averaging all work from this. */
static const struct {
    const char *key;
    size_t offset;
} keys[] = {{"top1", offsetof(xkd_figures, top1)},
            {"top5", offsetof(xkd_figures, top5)},
            {"clip_top1", offsetof(xkd_figures, clip_top1)},
            {"map", offsetof(xkd_figures, map)},
            {"at", offsetof(xkd_figures, at)}};
enum { KEYS = sizeof keys / sizeof *keys };

/* The k-th figure, to read or to write. Read-only callers pass a copy, so that the constant result needs no cast. */
static double *field(xkd_figures *f, int k)
{
    return (double *)((char *)f + keys[k].offset);
}

static void figures_json(xkd_text *out, const char *name, const xkd_figures *figures)
{
    xkd_figures f = *figures;
    xkd_text_printf(out, ", \"%s\": {", name);
    for (int k = 0; k < KEYS; k++) {
        xkd_text_printf(out, "%s\"%s\": ", k ? ", " : "", keys[k].key);
        xkd_text_json_number(out, *field(&f, k)); /* NAN is written as null */
    }
    xkd_text_puts(out, "}");
}

static void pair_json(xkd_text *out, const char *name, int64_t a, int64_t b)
{
    xkd_text_printf(out, ", \"%s\": [%" PRId64 ", %" PRId64 "]", name, a, b);
}

/* Figures with all their digits: means over folds are made from what is read back. The hash is text, as JSON numbers of
 * many programs hold 53 bits. */
void xkd_fold_result_json(xkd_text *out, const xkd_fold_result *r)
{
    xkd_text_printf(out, "{\"xkd_fold_result\": %d, \"fold\": %" PRId64 ", \"settings\": \"%016" PRIx64 "\"",
                    XKD_FOLD_FORMAT, r->fold, r->settings);
    figures_json(out, "honest", &r->honest);
    figures_json(out, "best", &r->best);
    xkd_text_puts(out, ", \"interval95\": [");
    xkd_text_json_number(out, r->interval[0]);
    xkd_text_puts(out, ", ");
    xkd_text_json_number(out, r->interval[1]);
    xkd_text_puts(out, "]");
    pair_json(out, "files", r->files[0], r->files[1]);
    pair_json(out, "unreadable", r->unreadable[0], r->unreadable[1]);
    pair_json(out, "damaged_clips", r->damaged[0], r->damaged[1]);
    pair_json(out, "listed_missing", r->imported.listed, r->imported.missing);
    pair_json(out, "files_official", r->imported.files, r->imported.official_files);
    pair_json(out, "tests_official", r->imported.tests, r->imported.official_tests);
    pair_json(out, "classes_official", r->imported.classes, r->imported.official_classes);
    xkd_text_puts(out, ", \"seconds\": ");
    xkd_text_json_number(out, r->seconds);
    xkd_text_puts(out, "}");
}

xkd_status xkd_fold_result_write(xkd_context *cx, const char *path, const xkd_fold_result *r)
{
    xkd_text text = xkd_text_make(cx);
    xkd_fold_result_json(&text, r);
    xkd_text_puts(&text, "\n");
    xkd_status status = text.status;
    if (status == XKD_OK) status = xkd_write_file(cx, path, text.data, text.size);
    xkd_text_free(&text);
    return status;
}

/* null stands for what does not exist. JSON has no NAN; a string or nothing is a fault of the file. */
static bool read_number(const json_t *value, double *out)
{
    *out = json_is_number(value) ? json_number_value(value) : NAN;
    return json_is_number(value) || json_is_null(value);
}

static bool read_figures(const json_t *object, xkd_figures *out)
{
    for (int k = 0; k < KEYS; k++)
        if (!read_number(json_object_get(object, keys[k].key), field(out, k))) return false;
    return true;
}

static bool read_pair(const json_t *root, const char *key, int64_t *a, int64_t *b)
{
    const json_t *list = json_object_get(root, key), *x = json_array_get(list, 0), *y = json_array_get(list, 1);
    *a = json_integer_value(x);
    *b = json_integer_value(y);
    return json_is_integer(x) && json_is_integer(y);
}

/* A field that is missing is an error like one of another type: an old or torn result must not pass as 0. Unknown keys
 * are passed over. */
static bool read_all(const json_t *root, xkd_fold_result *out)
{
    const char *settings = json_string_value(json_object_get(root, "settings"));
    const json_t *interval = json_object_get(root, "interval95");
    if (!settings) return false;
    out->settings = strtoull(settings, NULL, 16);
    out->fold = json_integer_value(json_object_get(root, "fold"));
    return read_figures(json_object_get(root, "honest"), &out->honest) &&
           read_figures(json_object_get(root, "best"), &out->best) &&
           read_number(json_array_get(interval, 0), &out->interval[0]) &&
           read_number(json_array_get(interval, 1), &out->interval[1]) &&
           read_pair(root, "files", &out->files[0], &out->files[1]) &&
           read_pair(root, "unreadable", &out->unreadable[0], &out->unreadable[1]) &&
           read_pair(root, "damaged_clips", &out->damaged[0], &out->damaged[1]) &&
           read_pair(root, "listed_missing", &out->imported.listed, &out->imported.missing) &&
           read_pair(root, "files_official", &out->imported.files, &out->imported.official_files) &&
           read_pair(root, "tests_official", &out->imported.tests, &out->imported.official_tests) &&
           read_pair(root, "classes_official", &out->imported.classes, &out->imported.official_classes) &&
           read_number(json_object_get(root, "seconds"), &out->seconds);
}

xkd_status xkd_fold_result_read(xkd_context *cx, const char *path, xkd_fold_result *out)
{
    xkd_status status = XKD_OK;
    char *text = NULL;
    json_t *root = NULL;
    json_error_t error;
    int64_t size, format;
    *out = (xkd_fold_result){0};
    /* The limit keeps a file that was given by mistake, such as a feature file, from being read whole. */
    XKD_TRY(xkd_read_file(cx, path, MOST_BYTES, XKD_ERR_DATA, &text, &size));
    root = json_loadb(text, (size_t)size, JSON_REJECT_DUPLICATES, &error);
    format = json_integer_value(json_object_get(root, "xkd_fold_result")); /* 0: has none */
    if (format > 0 && format != XKD_FOLD_FORMAT)
        XKD_FAIL(XKD_ERR_CONFIG, "%s: is of another version of this program: take another --out", path);
    if (!format || !read_all(root, out))
        XKD_FAIL(XKD_ERR_DATA, "%s: is no result of a fold: remove it, and the fold is done again", path);
fail:
    json_decref(root);
    xkd_free(text);
    return status;
}

/* Figures are read where they stand, so there is no limit to the folds. */
_Static_assert(sizeof(xkd_fold_result) % sizeof(double) == 0, "figures of following folds are whole doubles apart");

/* A figure that one fold does not have (NAN) has no mean either. */
xkd_fold_mean xkd_fold_results_mean(const xkd_fold_result *results, int64_t count, bool best)
{
    xkd_fold_mean out = {{0}};
    for (int k = 0; k < KEYS; k++) {
        const char *first = (const char *)(best ? &results->best : &results->honest) + keys[k].offset;
        xkd_mean_deviation((const double *)(const void *)first, count, sizeof *results / sizeof(double),
                           field(&out.mean, k), field(&out.deviation, k));
    }
    /* A mean of what was chosen is nothing that anyone chose, and a 0 would look like a choice. */
    out.mean.at = out.deviation.at = NAN;
    return out;
}
