/* From the columns of a list (data/list_columns) to samples: paths below the root, classes, splits. */
#include "data/list.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"
#include "data/index.h"
#include "data/list_columns.h"

static const int64_t MAX_LIST_BYTES = (int64_t)1 << 30;
enum { MAX_LABEL = 999999, MAX_SPLIT = 15 };

/* One call of xkd_index_list. */
typedef struct {
    xkd_context *cx;
    const char *list, *root;
    char *real_root; /* without links; NULL where there is no such folder */
    xkd_list_columns columns;
    bool windows; /* paths are written with backslashes */
    xkd_manifest *out;
    int64_t *lines;     /* [rows] where each sample stands */
    const char **names; /* [rows] labels that are names; NULL: none */
} reading;

/* ---- the text ---- */

/* Text in another form would give one wrong path a line, or none at all. */
static xkd_status check_text(xkd_context *cx, const char *list, const char *text, int64_t size)
{
    const char *first = text + xkd_csv_mark(text, size);
    first += strspn(first, " \t\r\n");
    if (first == text + size) return xkd_fail(cx, XKD_ERR_DATA, "%s: has no rows (was it cut off?)", list);
    if (memchr(text, 0, (size_t)size)) return xkd_fail(cx, XKD_ERR_DATA, "%s: is no text file (save it as CSV)", list);
    if (*first == '{' || *first == '[')
        return xkd_fail(cx, XKD_ERR_DATA,
                        "%s: is JSON: a manifest (one object a line) is used as it is, and other JSON written as CSV "
                        "with a first line such as path,label",
                        list);
    return XKD_OK;
}

/* ---- paths ---- */

static void slashes(char *path)
{
    for (; *path; path++)
        if (*path == '\\') *path = '/';
}

/* Whether `root` has a file of this name, of which a copy of at most PATH_MAX bytes is looked for. */
static bool lies_below(const char *root, const char *name, size_t length, bool windows)
{
    char path[2 * PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%.*s", root ? root : ".", (int)length, name);
    if (length >= PATH_MAX || n < 0 || (size_t)n >= sizeof path) return false;
    if (windows) slashes(path + n - length);
    return xkd_path_exists(path);
}

/* HMDB51 has films whose names begin with #. Such a line is a row unless only the file without it is there: then the row was
 * commented out. In a comment a blank stands behind the #, or there is no name of a file; play lists write #EXT. */
static bool is_row(const void *data, const char *line, int64_t length)
{
    const reading *r = data;
    char name[PATH_MAX];
    if (length > 4 && memcmp(line, "#EXT", 4) == 0) return false;
    for (int64_t i = 1; i <= length && i < PATH_MAX; i++) {
        if (i < length && !strchr(",;\t ", line[i])) continue;
        if (i == 1) return false;
        snprintf(name, sizeof name, "%.*s", (int)i, line);
        if (!xkd_is_media_name(name)) continue;
        return lies_below(r->root, line, (size_t)i, false) || !lies_below(r->root, line + 1, (size_t)i - 1, false);
    }
    return false;
}

/* As Windows writes them: if all rows that have any separator have that one, or if that is how the files are found that
 * are not there as they stand ("videos/cat\\1.mp4" comes of Python). */
static bool are_windows_paths(const reading *r)
{
    const xkd_list_columns *c = &r->columns;
    bool some = false, mixed = false;
    for (int64_t i = c->header; i < c->csv.count; i++) {
        const char *path = xkd_csv_at(&c->csv, i, c->path)->text;
        mixed |= strchr(path, '/') != NULL;
        some |= strchr(path, '\\') != NULL;
    }
    if (!some || !mixed) return some;
    some = false;
    for (int64_t i = c->header; i < c->csv.count; i++) {
        const char *path = xkd_csv_at(&c->csv, i, c->path)->text;
        if (!strchr(path, '\\')) continue;
        if (lies_below(r->root, path, strlen(path), false)) return false;
        some |= lies_below(r->root, path, strlen(path), true);
    }
    return some;
}

/* An absolute path below the root, by either of its names, becomes relative to it. NULL: it lies elsewhere. */
static const char *below(const char *path, const char *root)
{
    size_t length = root ? strlen(root) : 0;
    while (length > 1 && root[length - 1] == '/') length--;
    if (!length || strncmp(path, root, length) != 0) return NULL;
    if (length > 1 && path[length] != '/') return NULL; /* /data2 does not lie in /data */
    path += length;
    return path + strspn(path, "/");
}

/* *path is what the sample will be called. */
static xkd_status relative_path(const reading *r, int64_t line, char **path)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    if (r->windows) slashes(*path);
    /* As `find . -name '*.mp4'` writes it. */
    while (!strncmp(*path, "./", 2)) *path += 2;
    if (**path == '/') {
        const char *inside = below(*path, r->root);
        if (!inside) inside = below(*path, r->real_root);
        if (!inside)
            XKD_FAIL(XKD_ERR_DATA,
                     "%s:%" PRId64
                     ": path \"%s\" is absolute and not below %s: name a folder above all of them, such as "
                     "--root / (and --out FILE for the manifest)",
                     r->list, line, *path, r->root);
        *path += inside - *path;
        /* "//" names the same file as "/", and a manifest holds one name of each. */
        char *to = *path;
        for (const char *at = *path; *at; at++)
            if (at[0] != '/' || at[1] != '/') *to++ = *at;
        *to = 0;
    }
    /* A list is input: it must not lead out of the data folder, nor name what the manifest's reader refuses. */
    if (!xkd_manifest_path_is_plain(*path) || strlen(*path) >= PATH_MAX)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s:%" PRId64 ": path \"%.200s\" must name a file inside the root, without \"..\" (--root DIR)",
                 r->list, line, *path);
fail:
    return status;
}

/* ---- labels ---- */

/* Quotes keep blanks around a name, which a spreadsheet does not show. */
static void trim(const reading *r, char *name)
{
    size_t length;
    const char *start = xkd_class_trim(name, &length);
    if (length == strlen(name)) return;
    memmove(name, start, length);
    name[length] = 0;
    r->out->trimmed = true;
}

/* -1, in lists of other programs. */
static bool is_none(const xkd_csv_field *f)
{
    int64_t value;
    return !f->quoted && xkd_list_number(f, &value) && value == -1;
}

/* A number of a class; -1, in lists of other programs, is none. */
static xkd_status take_number(const reading *r, int64_t line, const xkd_csv_field *f, xkd_sample *s)
{
    int64_t value;
    if (!*f->text || !xkd_list_number(f, &value)) return XKD_OK;
    if (value < -1 || value > MAX_LABEL)
        return xkd_fail(r->cx, XKD_ERR_DATA, "%s:%" PRId64 ": label %s is out of range -1 .. %d", r->list, line,
                        f->text, MAX_LABEL);
    s->label = value;
    return XKD_OK;
}

/* Numbers among names are most likely a slip; who means them quotes them. -1 is no label among names as well. */
static xkd_status check_name(const reading *r, int64_t line, const xkd_csv_field *f)
{
    int64_t value;
    if (f->quoted || !xkd_list_any_number(f) || is_none(f)) return XKD_OK;
    if (!xkd_list_number(f, &value))
        return xkd_fail(r->cx, XKD_ERR_DATA,
                        "%s:%" PRId64 ": label %s is no number of a class (quote it to make it a name: \"%s\")",
                        r->list, line, f->text, f->text);
    return xkd_fail(r->cx, XKD_ERR_DATA,
                    "%s:%" PRId64 ": label %s is a number where others are names (quote it to make it a name: \"%s\")",
                    r->list, line, f->text, f->text);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names in order and once each; *count of them. The caller frees *out. */
static xkd_status sorted_names(xkd_context *cx, const char *const *names, int64_t rows, const char ***out,
                               int64_t *count)
{
    const char **sorted = NULL;
    *count = 0;
    xkd_status status = xkd_alloc(cx, &sorted, rows, sizeof *sorted);
    *out = sorted;
    if (status != XKD_OK) return status;
    int64_t n = 0;
    for (int64_t i = 0; i < rows; i++)
        if (names[i]) sorted[n++] = names[i];
    qsort(sorted, (size_t)n, sizeof *sorted, compare_names);
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || strcmp(sorted[*count - 1], sorted[i]) != 0) sorted[(*count)++] = sorted[i];
    return XKD_OK;
}

/* Index among sorted names, which hold it. */
static int64_t place_of(const char **sorted, int64_t count, const char *name)
{
    const char **found = bsearch(&name, sorted, (size_t)count, sizeof *sorted, compare_names);
    return found - sorted;
}

/* Classes are numbered by name, as those of folders are: the order of rows does not matter. */
static xkd_status number_by_name(const reading *r)
{
    xkd_status status = XKD_OK;
    const char **sorted = NULL;
    int64_t count = 0;
    XKD_TRY(sorted_names(r->cx, r->names, r->out->count, &sorted, &count));
    XKD_TRY(xkd_manifest_set_classes(r->cx, r->out, sorted, count));
    for (int64_t i = 0; i < r->out->count; i++)
        if (r->names[i]) r->out->samples[i].label = place_of(sorted, count, r->names[i]);
fail:
    xkd_free(sorted);
    return status;
}

/* A column of numbers beside the names numbers them, where each name has one number and they are 0, 1, 2, ... */
static xkd_status number_by_column(const reading *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const char **sorted = NULL, **classes = NULL;
    int64_t count = 0;
    XKD_TRY(sorted_names(cx, r->names, r->out->count, &sorted, &count));
    XKD_TRY(xkd_alloc(cx, &classes, count, sizeof *classes));
    for (int64_t i = 0; i < r->out->count; i++) {
        int64_t label = r->out->samples[i].label;
        if (!r->names[i] && label < 0) continue;
        if (!r->names[i] || label < 0 || label >= count || (classes[label] && strcmp(classes[label], r->names[i]) != 0))
            XKD_FAIL(XKD_ERR_DATA,
                     "%s:%" PRId64 ": label %" PRId64 " beside the name \"%s\": the numbers of %" PRId64
                     " names must be 0 .. %" PRId64 ", one for each (leave out one of the two columns)",
                     r->list, r->lines[i], label, r->names[i] ? r->names[i] : "", count, count - 1);
        classes[label] = r->names[i];
    }
    /* A name with two numbers leaves another number without a name. */
    for (int64_t k = 0; k < count; k++)
        if (!classes[k] || (bsearch(&classes[k], sorted, (size_t)count, sizeof *sorted, compare_names) == NULL))
            XKD_FAIL(XKD_ERR_DATA,
                     "%s: no class has the number %" PRId64 ", and a name has two (leave out that column)", r->list, k);
    XKD_TRY(xkd_manifest_set_classes(cx, r->out, classes, count));
fail:
    xkd_free(sorted);
    xkd_free(classes);
    return status;
}

/* ---- several labels a row ---- */

/* The next element of a list as Python or JSON writes it, [1, 'a'], terminated in place; NULL at the end. */
static char *next_element(char **at)
{
    char *start = *at + strspn(*at, " ,"), *end = start;
    if (!*start) return NULL;
    if (*start == '\'' || *start == '"') {
        for (end = ++start; *end && *end != start[-1]; end++) continue;
        *at = end + (*end != 0);
        *end = 0;
        return start;
    }
    end += strcspn(end, ",");
    *at = end + (*end != 0);
    *end = 0;
    while (end > start && end[-1] == ' ') *--end = 0;
    return start;
}

/* Cuts the brackets off; false where the field has none. */
static bool take_brackets(char **at)
{
    size_t length = strlen(*at);
    if (length < 2 || **at != '[' || (*at)[length - 1] != ']') return false;
    (*at)[length - 1] = 0;
    ++*at;
    return true;
}

/* The next part of a field of several labels, terminated in place; NULL at the end. A comma with a blank behind it belongs
 * to a name ("Female speech, woman speaking"). */
static char *next_part(char **at)
{
    char *start = *at + strspn(*at, " ");
    if (!*start) return NULL;
    char *end = start;
    while (*end && *end != ';' && *end != '|' && !(*end == ',' && end[1] != ' ')) end++;
    *at = end + (*end != 0);
    *end = 0;
    while (end > start && end[-1] == ' ') *--end = 0;
    return start;
}

/* Numbers of classes where all parts are numbers: as names they would be sorted as text. */
static bool are_numbers(const xkd_names *parts)
{
    int64_t value;
    for (int64_t i = 0; i < parts->count; i++)
        if (!xkd_list_number(&(xkd_csv_field){parts->items[i], false}, &value) || value < 0 || value > MAX_LABEL)
            return false;
    return parts->count > 0;
}

/* Number of a part: its own, or its place among the names. */
static int64_t number_of(const char **sorted, int64_t count, char *part)
{
    int64_t value = -1;
    if (sorted) return place_of(sorted, count, part);
    xkd_list_number(&(xkd_csv_field){part, false}, &value);
    return value;
}

/* Whether a row, whose parts begin at `from`, has this one already: a label given twice is one. */
static bool has_part(const xkd_names *parts, int64_t from, const char *part)
{
    for (int64_t i = from; i < parts->count; i++)
        if (strcmp(parts->items[i], part) == 0) return true;
    return false;
}

/* Parts are counted and listed first; then the names have their numbers. */
static xkd_status take_parts(const reading *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_list_columns *c = &r->columns;
    xkd_names parts = {0};
    const char **sorted = NULL;
    int64_t count = 0, *first = NULL;
    bool several = false;
    XKD_TRY(xkd_alloc(cx, &first, r->out->count + 1, sizeof *first));
    for (int64_t i = 0; i < r->out->count; i++) {
        char *at = xkd_csv_at(&c->csv, i + c->header, c->label)->text;
        bool list = take_brackets(&at);
        for (char *part; (part = list ? next_element(&at) : next_part(&at));) {
            bool quoted = list && strchr("'\"", part[-1]);
            trim(r, part);
            if (!*part || xkd_list_missing(&(xkd_csv_field){part, quoted}) || has_part(&parts, first[i], part))
                continue;
            XKD_TRY(xkd_reserve(cx, &parts.items, parts.count, &parts.capacity, sizeof *parts.items));
            parts.items[parts.count++] = part;
        }
        first[i + 1] = parts.count;
        several |= first[i + 1] - first[i] > 1;
    }
    if (!are_numbers(&parts)) {
        XKD_TRY(sorted_names(cx, (const char *const *)parts.items, parts.count, &sorted, &count));
        XKD_TRY(xkd_manifest_set_classes(cx, r->out, sorted, count));
    }
    for (int64_t i = 0; i < r->out->count; i++) {
        xkd_sample *s = &r->out->samples[i];
        int64_t n = first[i + 1] - first[i];
        int32_t *labels;
        if (!several && n == 1) s->label = (int32_t)number_of(sorted, count, parts.items[first[i]]);
        if (!several) continue;
        XKD_TRY(xkd_sample_set_labels(cx, r->out, s, n, &labels));
        for (int64_t k = 0; k < n; k++) labels[k] = (int32_t)number_of(sorted, count, parts.items[first[i] + k]);
    }
fail:
    xkd_free(parts.items); /* the names are the table's */
    xkd_free(sorted);
    xkd_free(first);
    return status;
}

/* ---- rows ---- */

static xkd_status add_row(reading *r, int64_t record)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_list_columns *c = &r->columns;
    int64_t line = c->csv.records[record].line, row = record - c->header;
    char *path = xkd_csv_at(&c->csv, record, c->path)->text;
    const char *split = c->split >= 0 ? xkd_csv_at(&c->csv, record, c->split)->text : "";
    xkd_sample *sample = NULL;
    XKD_TRY(relative_path(r, line, &path));
    XKD_TRY(xkd_manifest_add(cx, r->out, path, &sample));
    r->lines[row] = line;
    if (strlen(split) > MAX_SPLIT)
        XKD_FAIL(XKD_ERR_DATA, "%s:%" PRId64 ": split \"%.100s\" has more than %d bytes (shorten it)", r->list, line,
                 split, MAX_SPLIT);
    XKD_TRY(xkd_sample_set_split(cx, r->out, sample, split));
    if (c->label < 0 || c->labels) goto fail;
    const xkd_csv_field *label = xkd_csv_at(&c->csv, record, c->label);
    if (c->numbers) {
        XKD_TRY(take_number(r, line, label, sample));
        label = c->name >= 0 ? xkd_csv_at(&c->csv, record, c->name) : NULL;
    } else {
        XKD_TRY(check_name(r, line, label));
    }
    if (label) trim(r, label->text);
    if (label && *label->text && (c->name >= 0 || !is_none(label))) r->names[row] = label->text;
fail:
    return status;
}

/* A path and where it stands. */
typedef struct {
    const char *path;
    int64_t line;
} placed;

static int compare_placed(const void *a, const void *b)
{
    const placed *x = a, *y = b;
    int order = strcmp(x->path, y->path);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

/* A sample listed twice would count twice in every epoch and once in the user's mind. */
static xkd_status check_twice(const reading *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    placed *sorted = NULL;
    int64_t n = r->out->count;
    XKD_TRY(xkd_alloc(cx, &sorted, n, sizeof *sorted));
    for (int64_t i = 0; i < n; i++) sorted[i] = (placed){r->out->samples[i].path, r->lines[i]};
    qsort(sorted, (size_t)n, sizeof *sorted, compare_placed);
    for (int64_t i = 1; i < n; i++)
        if (strcmp(sorted[i - 1].path, sorted[i].path) == 0)
            XKD_FAIL(XKD_ERR_DATA,
                     "%s:%" PRId64 ": path \"%s\" stands already in line %" PRId64 " (remove one of them)", r->list,
                     sorted[i].line, sorted[i].path, sorted[i - 1].line);
fail:
    xkd_free(sorted);
    return status;
}

/* "columns: path=1 label=2; 4 rows". */
static xkd_status describe(const reading *r, char **out)
{
    xkd_text t = xkd_text_make(r->cx);
    const xkd_list_columns *c = &r->columns;
    const struct {
        const char *name;
        int64_t column;
    } columns[] = {{"path", c->path}, {"label", c->label}, {"name", c->name}, {"split", c->split}};
    xkd_text_puts(&t, "columns:");
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        if (columns[i].column >= 0) xkd_text_printf(&t, " %s=%" PRId64, columns[i].name, columns[i].column + 1);
    xkd_text_printf(&t, "; %" PRId64 " rows", r->out->count);
    if (c->csv.comments) xkd_text_printf(&t, ", %" PRId64 " comments", c->csv.comments);
    if (c->missing) xkd_text_printf(&t, ", %s read as empty in %" PRId64 " fields", c->missing_word, c->missing);
    if (c->repeated) xkd_text_printf(&t, ", names again in %" PRId64 " lines", c->repeated);
    if (r->windows) xkd_text_puts(&t, ", \\ read as /");
    if (c->passed_over) xkd_text_puts(&t, "; passed over:");
    for (int64_t i = 0; c->passed_over && i < c->columns; i++) {
        if (i == c->path || i == c->label || i == c->name || i == c->split) continue;
        const char *name = c->header ? xkd_csv_at(&c->csv, 0, i)->text : "";
        xkd_text_printf(&t, " %s%s%" PRId64, name, *name ? "=" : "", i + 1);
    }
    return xkd_text_take(&t, out);
}

static int compare_samples(const void *a, const void *b)
{
    return strcmp(((const xkd_sample *)a)->path, ((const xkd_sample *)b)->path);
}

static xkd_status read_rows(reading *r)
{
    xkd_status status = XKD_OK;
    const xkd_list_columns *c = &r->columns;
    int64_t rows = c->csv.count - c->header;
    XKD_TRY(xkd_alloc(r->cx, &r->lines, rows, sizeof *r->lines));
    XKD_TRY(xkd_alloc(r->cx, &r->names, rows, sizeof *r->names));
    r->windows = are_windows_paths(r);
    for (int64_t i = c->header; i < c->csv.count; i++) XKD_TRY(add_row(r, i));
    XKD_TRY(check_twice(r));
    if (c->labels)
        XKD_TRY(take_parts(r));
    else if (c->label >= 0 && !c->numbers)
        XKD_TRY(number_by_name(r));
    else if (c->name >= 0)
        XKD_TRY(number_by_column(r));
fail:
    return status;
}

xkd_status xkd_index_list(xkd_context *cx, const char *list, const char *root, xkd_manifest *out, char **understood)
{
    xkd_status status = XKD_OK;
    reading r = {.cx = cx, .list = list, .root = root, .out = out};
    char *text = NULL;
    int64_t size = 0;
    *out = (xkd_manifest){0};
    if (understood) *understood = NULL;
    XKD_TRY(xkd_read_file(cx, list, MAX_LIST_BYTES, XKD_ERR_DATA, &text, &size));
    XKD_TRY(xkd_csv_from_utf16(cx, list, &text, &size));
    XKD_TRY(check_text(cx, list, text, size));
    XKD_TRY(xkd_copy_string(cx, &out->root, root));
    r.real_root = realpath(root, NULL);
    XKD_TRY(xkd_list_columns_find(cx, list, &(xkd_csv_text){text, size, is_row, &r}, &r.columns));
    XKD_TRY(read_rows(&r));
    XKD_TRY(xkd_manifest_look_at_names(cx, out, list));
    if (understood) XKD_TRY(describe(&r, understood));
    /* The order of a list is its author's; samples are sorted as those of a folder. */
    qsort(out->samples, (size_t)out->count, sizeof *out->samples, compare_samples);
fail:
    free(r.real_root);
    xkd_free(r.lines);
    xkd_free(r.names);
    xkd_csv_free(&r.columns.csv);
    xkd_free(text);
    if (status != XKD_OK) xkd_manifest_free(out);
    return status;
}
