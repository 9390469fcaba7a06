/* Lines may have been sorted, cut or joined with the usual tools, as their form invites to: files are found by their path,
 * and clips by file and number. */
#include "eval/encode/embeddings_lines.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"
#include "data/csv.h"
#include "data/json_name.h"

static const char *const modality_names[XKD_MODALITIES] = {"video", "audio"};
static const int64_t MOST_BYTES = (int64_t)8 << 30; /* the text of 2.5 million clips of 256 numbers */

/* ---- writing ---- */

static void put_labels(xkd_text *t, const xkd_manifest *m, const xkd_sample *s)
{
    if (s->label >= 0) xkd_text_printf(t, ",\"label\":%lld", (long long)s->label);
    if (s->label >= 0 && s->label < m->class_count) {
        xkd_text_puts(t, ",\"class\":");
        xkd_text_json_name(t, m->classes[s->label]);
    }
    int64_t count = xkd_sample_label_count(s);
    const int32_t *labels = count ? s->more->labels : NULL;
    if (!count) return;
    xkd_text_puts(t, ",\"labels\":[");
    for (int64_t k = 0; k < count; k++) xkd_text_printf(t, "%s%d", k ? "," : "", (int)labels[k]);
    xkd_text_puts(t, "]");
    if (!m->class_count) return;
    xkd_text_puts(t, ",\"classes\":[");
    for (int64_t k = 0; k < count; k++) {
        if (k) xkd_text_puts(t, ",");
        xkd_text_json_name(t, m->classes[labels[k]]);
    }
    xkd_text_puts(t, "]");
}

static void put_line(xkd_text *t, const xkd_embeddings *e, int m, int64_t i, int64_t clip)
{
    const xkd_feature_table *f = &e->table[m];
    const xkd_sample *s = &e->files.samples[f->file[i]];
    xkd_text_puts(t, "{\"path\":");
    xkd_text_json_name(t, s->path);
    xkd_text_printf(t, ",\"modality\":\"%s\",\"clip\":%lld,\"seconds\":", modality_names[m], (long long)clip);
    xkd_text_json_number(t, f->seconds[i]);
    if (f->damage[i] > 0) {
        xkd_text_puts(t, ",\"damage\":");
        xkd_text_json_number(t, f->damage[i]);
    }
    if (s->split[0]) {
        xkd_text_puts(t, ",\"split\":");
        xkd_text_json_string(t, s->split);
    }
    put_labels(t, &e->files, s);
    xkd_text_printf(t, ",\"model\":\"%s\",\"pool\":\"%s\",\"layer\":%lld", e->model[m], xkd_feature_kind_names[e->kind],
                    (long long)e->layer);
    if (f->rows > 1) xkd_text_printf(t, ",\"rows\":%lld", (long long)f->rows);
    xkd_text_puts(t, ",\"feature\":[");
    for (int64_t k = 0; k < f->rows * f->width; k++) /* 9 digits bring every float32 back unchanged. */
        xkd_text_printf(t, "%s%.9g", k ? "," : "", f->x[i * f->rows * f->width + k]);
    xkd_text_puts(t, "]}\n");
}

/* A line at a time through one buffer: the text is about three times as large as the numbers. */
xkd_status xkd_embeddings_write_lines(xkd_context *cx, const xkd_embeddings *e, const char *path)
{
    xkd_status status = XKD_OK;
    xkd_writer *writer = NULL;
    xkd_text t = xkd_text_make(cx);
    XKD_TRY(xkd_writer_open(cx, path, &writer));
    for (int m = 0; m < XKD_MODALITIES; m++) {
        const xkd_feature_table *f = &e->table[m];
        int64_t clip = 0;
        for (int64_t i = 0; i < f->count; i++) {
            /* Clips have no number of their own in the table; they are counted within their file. */
            clip = i && f->file[i] == f->file[i - 1] ? clip + 1 : 0;
            xkd_text_clear(&t);
            put_line(&t, e, m, i, clip);
            XKD_TRY(t.status);
            XKD_TRY(xkd_writer_write(writer, t.data, t.size));
        }
    }
    /* Commit renames the temporary file into place. A writer that failed to commit is gone as well, so it is not
     * aborted. */
    status = xkd_writer_commit(writer);
    writer = NULL;
fail:
    xkd_writer_abort(writer);
    xkd_text_free(&t);
    return status;
}

/* ---- reading ---- */

bool xkd_embeddings_are_lines(const char *path)
{
    char start[16 << 10];
    int fd = -1;
    int64_t size;
    xkd_context *cx = xkd_context_new(); /* of its own: an error here is an answer */
    ssize_t got = cx && xkd_open_read(cx, path, &fd, &size) == XKD_OK ? read(fd, start, sizeof start - 1) : -1;
    if (fd >= 0) close(fd);
    xkd_context_free(cx);
    if (got <= 0) return false;
    start[got] = 0;
    const char *line = start + xkd_csv_mark(start, got);
    start[strcspn(start, "\n")] = 0;
    return line[strspn(line, " \t")] == '{' && strstr(line, "\"feature\"") != NULL;
}

/* One line, before the files have their numbers. */
typedef struct {
    xkd_modality modality;
    int64_t clip, file; /* file: into `reading.files`, in order of appearance */
    double seconds, damage;
    float *feature; /* owned */
} row;

typedef struct {
    xkd_context *cx;
    const char *path;
    int64_t line;
    row *rows;
    int64_t count, capacity;
    xkd_manifest index; /* paths as classes, whose table finds them */
    xkd_embeddings *out;
    char **names; /* [name_count] of the classes by number; NULL where no line says */
    int64_t name_count;
    bool described[XKD_MODALITIES], any;
} reading;

static xkd_status wrong(const reading *r, const char *what)
{
    return xkd_fail(r->cx, XKD_ERR_DATA, "%s:%" PRId64 ": %s (lines of 'xkd embed --out F.jsonl' are read)", r->path,
                    r->line, what);
}

/* A class is called alike wherever it comes. */
static xkd_status take_name(reading *r, int64_t label, const json_t *name)
{
    xkd_status status = XKD_OK;
    char *text = NULL;
    if (label < 0 || label > 999999) return wrong(r, "a label is out of range 0 .. 999999");
    XKD_TRY(xkd_json_name_value(r->cx, name, &text));
    if (!text) goto fail;
    if (label >= r->name_count) {
        XKD_TRY(xkd_resize(r->cx, &r->names, r->name_count, 2 * label + 16, sizeof *r->names));
        r->name_count = 2 * label + 16;
    }
    if (r->names[label] && strcmp(r->names[label], text) != 0) {
        status = wrong(r, "its class has another name in an earlier line");
        goto fail;
    }
    if (!r->names[label]) {
        r->names[label] = text;
        text = NULL;
    }
fail:
    xkd_free(text);
    return status;
}

/* The names that a line has for its labels. */
static xkd_status take_names(reading *r, const json_t *object)
{
    xkd_status status = XKD_OK;
    const json_t *label = json_object_get(object, "label"), *labels = json_object_get(object, "labels"),
                 *classes = json_object_get(object, "classes");
    if (label && !json_is_integer(label)) return wrong(r, "\"label\" is no whole number");
    if (label) XKD_TRY(take_name(r, json_integer_value(label), json_object_get(object, "class")));
    for (size_t k = 0; k < json_array_size(labels); k++) {
        const json_t *entry = json_array_get(labels, k);
        if (!json_is_integer(entry)) return wrong(r, "\"labels\" are no whole numbers");
        XKD_TRY(take_name(r, json_integer_value(entry), json_array_get(classes, k)));
    }
fail:
    return status;
}

/* Labels of a file that is met for the first time; they have been looked at. */
static xkd_status take_labels(reading *r, const json_t *object, xkd_sample *s)
{
    xkd_status status = XKD_OK;
    const json_t *label = json_object_get(object, "label"), *labels = json_object_get(object, "labels");
    if (label) s->label = (int32_t)json_integer_value(label);
    if (!labels) return XKD_OK;
    int32_t *numbers;
    int64_t n = (int64_t)json_array_size(labels);
    XKD_TRY(xkd_sample_set_labels(r->cx, &r->out->files, s, n, &numbers));
    for (int64_t k = 0; k < n; k++) numbers[k] = (int32_t)json_integer_value(json_array_get(labels, (size_t)k));
fail:
    return status;
}

/* Whether a line says of a file's labels and split what the first line of that file says. */
static bool agrees(const json_t *object, const char *split, const xkd_sample *s)
{
    const json_t *label = json_object_get(object, "label"), *labels = json_object_get(object, "labels");
    int64_t n = xkd_sample_label_count(s);
    if ((label ? json_integer_value(label) : -1) != s->label || strcmp(split, s->split) != 0) return false;
    if ((int64_t)json_array_size(labels) != n) return false;
    for (int64_t k = 0; k < n; k++)
        if (json_integer_value(json_array_get(labels, (size_t)k)) != s->more->labels[k]) return false;
    return true;
}

static xkd_status take_file(reading *r, const json_t *object, int64_t *file)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    xkd_sample *s;
    const char *split = json_string_value(json_object_get(object, "split"));
    if (!split) split = "";
    XKD_TRY(xkd_json_name_value(r->cx, json_object_get(object, "path"), &path));
    if (!path) {
        status = wrong(r, "\"path\" is no text");
        goto fail;
    }
    XKD_TRY(take_names(r, object));
    XKD_TRY(xkd_manifest_class(r->cx, &r->index, path, true, file));
    if (*file < r->out->files.count) {
        if (!agrees(object, split, &r->out->files.samples[*file]))
            status = wrong(r, "gives its file another label or split than an earlier line");
        goto fail;
    }
    XKD_TRY(xkd_manifest_add(r->cx, &r->out->files, path, &s));
    XKD_TRY(xkd_sample_set_split(r->cx, &r->out->files, s, split));
    XKD_TRY(take_labels(r, object, s));
fail:
    xkd_free(path);
    return status;
}

/* Model, pool and layer of all lines are one; the size of a modality's features is. */
static xkd_status take_description(reading *r, const json_t *object, xkd_modality m, int64_t numbers)
{
    xkd_embeddings *e = r->out;
    xkd_feature_table *t = &e->table[m];
    const char *model = json_string_value(json_object_get(object, "model")),
               *pool = json_string_value(json_object_get(object, "pool"));
    const json_t *layer = json_object_get(object, "layer"), *rows = json_object_get(object, "rows");
    int64_t depth = layer ? json_integer_value(layer) : -1, height = rows ? json_integer_value(rows) : 1;
    xkd_feature_kind kind = XKD_FEATURE_MEAN;
    if (pool && !xkd_feature_kind_of(pool, &kind)) return wrong(r, "\"pool\" is not known");
    if (height < 1 || numbers < 1 || numbers % height)
        return wrong(r, "\"feature\" is empty, or not of as many \"rows\"");
    if (!r->any) {
        e->kind = kind;
        e->layer = depth;
    }
    if (!r->described[m]) {
        snprintf(e->model[m], sizeof e->model[m], "%s", model ? model : "");
        t->rows = height;
        t->width = numbers / height;
    }
    r->any = r->described[m] = true;
    if (kind != e->kind || depth != e->layer || strcmp(e->model[m], model ? model : "") != 0)
        return wrong(r, "is of another model, pool or layer than the lines before it");
    return t->rows == height && t->width == numbers / height ? XKD_OK : wrong(r, "has another number of features");
}

static xkd_status take_feature(reading *r, const json_t *list, row *out)
{
    xkd_status status = XKD_OK;
    size_t i;
    const json_t *entry;
    XKD_TRY(xkd_alloc(r->cx, &out->feature, (int64_t)json_array_size(list), sizeof(float)));
    json_array_foreach((json_t *)(uintptr_t)list, i, entry)
    {
        if (!json_is_number(entry)) return wrong(r, "\"feature\" holds what is no number");
        out->feature[i] = (float)json_number_value(entry);
    }
fail:
    return status;
}

static xkd_status take_line(reading *r, const char *line, size_t length)
{
    xkd_status status = XKD_OK;
    json_error_t error;
    json_t *object = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
    const char *modality = json_string_value(json_object_get(object, "modality"));
    const json_t *feature = json_object_get(object, "feature"), *seconds = json_object_get(object, "seconds"),
                 *clip = json_object_get(object, "clip");
    row fresh = {.clip = json_integer_value(clip),
                 .seconds = json_number_value(seconds),
                 .damage = json_number_value(json_object_get(object, "damage"))}; /* 0 where there is none */
    if (!object || !modality || !json_is_array(feature) || !json_is_number(seconds) || !json_is_integer(clip) ||
        (strcmp(modality, "video") != 0 && strcmp(modality, "audio") != 0)) {
        status = wrong(r, "is no clip with path, modality, clip, seconds and feature");
        goto fail;
    }
    fresh.modality = strcmp(modality, "audio") == 0 ? XKD_AUDIO : XKD_VIDEO;
    XKD_TRY(take_description(r, object, fresh.modality, (int64_t)json_array_size(feature)));
    XKD_TRY(take_file(r, object, &fresh.file));
    XKD_TRY(xkd_reserve(r->cx, &r->rows, r->count, &r->capacity, sizeof *r->rows));
    status = take_feature(r, feature, &fresh);
    r->rows[r->count++] = fresh; /* counted even so, to be freed */
fail:
    json_decref(object);
    return status;
}

/* By modality, file and clip, as the tables have them. */
static int compare_rows(const void *a, const void *b)
{
    const row *x = a, *y = b;
    if (x->modality != y->modality) return x->modality < y->modality ? -1 : 1;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    return (x->clip > y->clip) - (x->clip < y->clip);
}

/* Names only where every class that occurs has one, for a list has no gaps. */
static xkd_status take_classes(reading *r)
{
    int64_t classes = 0, named = 0;
    for (int64_t k = 0; k < r->name_count; k++) {
        if (!r->names[k]) continue;
        named++;
        classes = k + 1;
    }
    if (named < classes) return XKD_OK;
    return xkd_manifest_set_classes(r->cx, &r->out->files, (const char *const *)r->names, classes);
}

static int compare_samples(const void *a, const void *b)
{
    return strcmp(((const xkd_sample *)a)->path, ((const xkd_sample *)b)->path);
}

/* Files by path, as an index has them: the order of lines decides nothing. */
static xkd_status sort_files(reading *r)
{
    xkd_status status = XKD_OK;
    xkd_manifest *files = &r->out->files;
    int64_t *place = NULL, file;
    XKD_TRY(xkd_alloc(r->cx, &place, files->count, sizeof *place));
    qsort(files->samples, (size_t)files->count, sizeof *files->samples, compare_samples);
    for (int64_t i = 0; i < files->count; i++) {
        XKD_TRY(xkd_manifest_class(r->cx, &r->index, files->samples[i].path, false, &file));
        place[file] = i;
    }
    for (int64_t i = 0; i < r->count; i++) r->rows[i].file = place[r->rows[i].file];
fail:
    xkd_free(place);
    return status;
}

static xkd_status fill_tables(reading *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    XKD_TRY(sort_files(r));
    qsort(r->rows, (size_t)r->count, sizeof *r->rows, compare_rows);
    for (int64_t i = 0; i < r->count; i++) {
        row *x = &r->rows[i];
        if (i && compare_rows(&r->rows[i - 1], x) == 0)
            XKD_FAIL(XKD_ERR_DATA, "%s: clip %" PRId64 " of %s stands there twice", r->path, x->clip,
                     r->out->files.samples[x->file].path);
        const xkd_feature_row clip = {x->file, x->seconds, x->damage, x->feature};
        XKD_TRY(xkd_embeddings_add(cx, &r->out->table[x->modality], &clip));
        xkd_free(x->feature);
        x->feature = NULL;
    }
fail:
    return status;
}

xkd_status xkd_embeddings_read_lines(xkd_context *cx, const char *path, xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    reading r = {.cx = cx, .path = path, .out = out};
    char *text = NULL;
    int64_t size = 0;
    *out = (xkd_embeddings){.layer = -1};
    XKD_TRY(xkd_read_file(cx, path, MOST_BYTES, XKD_ERR_DATA, &text, &size));
    for (char *line = text, *end = text + size; line < end;) {
        line += xkd_csv_mark(line, end - line); /* in the middle where files were joined */
        char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t length = (size_t)((stop ? stop : end) - line);
        r.line++;
        if (strspn(line, " \t\r") < length) XKD_TRY(take_line(&r, line, length));
        line += length + 1;
    }
    if (r.count == 0) XKD_FAIL(XKD_ERR_DATA, "%s: holds no features", path);
    XKD_TRY(fill_tables(&r));
    XKD_TRY(take_classes(&r));
fail:
    for (int64_t i = 0; i < r.count; i++) xkd_free(r.rows[i].feature);
    for (int64_t k = 0; k < r.name_count; k++) xkd_free(r.names[k]);
    xkd_free(r.names);
    xkd_free(r.rows);
    xkd_free(text);
    xkd_manifest_free(&r.index);
    return status;
}
