/* The manifest as a file is input like any other. It is read a line at a time, as it may have ten million of them. */
#include <jansson.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/file.h"
#include "base/lines.h"
#include "base/machine.h"
#include "base/pool.h"
#include "data/csv.h"
#include "data/json_name.h"
#include "data/manifest_row.h"
#include "data/manifest_rows.h"

/* A folder or file that a header names, relative to the manifest's own folder. */
static xkd_status read_place(const xkd_row_place *p, const json_t *value, const char *key, const char *folder,
                             char **out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    char *text = NULL;
    XKD_TRY(xkd_json_name_value(cx, value, &text));
    if (!text) XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"%s\" must be a string", p->file, (long long)p->line, key);
    if (text[0] == '/')
        XKD_TRY(xkd_copy_string(cx, out, text));
    else if (!strcmp(text, "."))
        XKD_TRY(xkd_copy_string(cx, out, folder));
    else
        XKD_TRY(xkd_join_path(cx, out, folder, text));
fail:
    xkd_free(text);
    return status;
}

/* A relative root is relative to the manifest's own folder, so a data set can be moved as a whole. */
static xkd_status read_header(xkd_row_place *p, xkd_manifest *m, const json_t *object, const char *folder)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    const json_t *root = json_object_get(object, "root"), *classes = json_object_get(object, "classes"),
                 *links = json_object_get(object, "follow_links"), *pack = json_object_get(object, "pack"), *name;
    char *class = NULL;
    size_t i;
    if (json_integer_value(json_object_get(object, "xkd_manifest")) != 1)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: manifest version is not 1 (written by a newer xkd?)", p->file,
                 (long long)p->line);
    /* xkd_manifest_read has set a default: the manifest's folder. */
    if (root) {
        xkd_free(m->root);
        m->root = NULL;
        XKD_TRY(read_place(p, root, "root", folder, &m->root));
    }
    if (links && !json_is_boolean(links))
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"follow_links\" must be true or false", p->file, (long long)p->line);
    m->follow_links = json_is_true(links);
    if (pack) XKD_TRY(read_place(p, pack, "pack", folder, &p->pack));
    if (classes && !json_is_array(classes))
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"classes\" must be a list of names", p->file, (long long)p->line);
    p->fixed_classes = classes != NULL;
    json_array_foreach((json_t *)(uintptr_t)classes, i, name)
    {
        int64_t label;
        xkd_free(class);
        XKD_TRY(xkd_json_name_value(cx, name, &class));
        if (!class) XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"classes\" must be a list of names", p->file, (long long)p->line);
        XKD_TRY(xkd_manifest_class_of(cx, m, class, true, &label));
        /* The place in the list is the label, so a name twice would leave a gap. */
        if (label != (int64_t)i)
            XKD_FAIL(XKD_ERR_DATA,
                     "%s:%lld: class \"%s\" is listed twice, and blanks around names do not count (take one of them "
                     "out, or index again)",
                     p->file, (long long)p->line, class);
    }
fail:
    xkd_free(class);
    return status;
}

/* Whether a line counts: all but blank ones. */
static bool is_blank(const char *line, int64_t length)
{
    int64_t i = 0;
    while (i < length && (line[i] == ' ' || line[i] == '\t' || line[i] == '\r')) i++;
    return i == length;
}

/* A duplicate key would leave open which value counts, so it is refused. */
static xkd_status read_json(xkd_row_place *p, xkd_manifest *m, xkd_row *row, const char *line, int64_t length,
                            const char *folder)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    json_error_t error;
    json_t *object = json_loadb(line, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!object)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: bad JSON at column %d: %s (one object a line; `xkd data index` writes them)",
                 p->file, (long long)p->line, error.column, error.text);
    if (!json_is_object(object))
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: not a JSON object (one object a line; `xkd data index` writes them)", p->file,
                 (long long)p->line);
    if (json_object_get(object, "xkd_manifest")) {
        if (p->line != 1)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"xkd_manifest\" may stand in the first line only (take it out here)",
                     p->file, (long long)p->line);
        XKD_TRY(read_header(p, m, object, folder));
    } else {
        XKD_TRY(xkd_row_of_json(cx, row, object));
        XKD_TRY(xkd_row_take(p, m, row));
    }
fail:
    json_decref(object);
    return status;
}

/* ---- many lines ---- */

/* What one thread reads, and what it has made of it. */
typedef struct {
    xkd_row_place place;
    xkd_manifest
        m; /* its samples go to the whole one piece by piece, its strings at the end; classes may be borrowed */
    xkd_row row;
    char *text;
    int64_t size, before; /* of the text; lines that are counted before it */
    bool ascending;       /* the paths of `samples` stand in byte order, each once */
    xkd_status status;
} part;

/* Threads, and the text of each. A short manifest is not worth a thread. */
enum { MOST_PARTS = 16, PART_BYTES = 4 << 20 };

typedef struct {
    xkd_context *cx;
    const char *folder;
    xkd_manifest *m;
    xkd_row_place *place; /* of the whole */
    part parts[MOST_PARTS];
    int count;
    bool ascending;
} reading;

/* Appends the samples of the part's text to the part's. */
static xkd_status read_part(part *p, const char *folder)
{
    xkd_status status = XKD_OK;
    p->m.count = 0;
    p->ascending = true;
    p->place.line = p->before;
    p->place.number = 0;
    for (char *line = p->text, *end = p->text + p->size; line < end;) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        int64_t length = (stop ? stop : end) - line, had = p->m.count;
        bool plain = false;
        p->place.line++;
        if (!is_blank(line, length)) {
            XKD_TRY(xkd_row_scan(p->place.cx, &p->row, line, length, &plain));
            status = plain ? xkd_row_take(&p->place, &p->m, &p->row)
                           : read_json(&p->place, &p->m, &p->row, line, length, folder);
            if (plain) xkd_row_restore(&p->row);
            XKD_TRY(status);
        }
        if (had && p->m.count > had) p->ascending &= strcmp(p->m.samples[had - 1].path, p->m.samples[had].path) < 0;
        line += length + 1;
    }
fail:
    return status;
}

static void read_one(void *arg, int64_t index, int thread)
{
    reading *r = arg;
    (void)thread;
    r->parts[index].status = read_part(&r->parts[index], r->folder);
}

/* Names that are classes get the numbers that they have in the whole. */
static xkd_status renumber(reading *r, part *p)
{
    xkd_status status = XKD_OK;
    int64_t *number = NULL;
    if (r->place->fixed_classes || !p->m.class_count) return XKD_OK;
    XKD_TRY(xkd_alloc(r->cx, &number, p->m.class_count, sizeof *number));
    for (int64_t k = 0; k < p->m.class_count; k++)
        XKD_TRY(xkd_manifest_class(r->cx, r->m, p->m.classes[k], true, &number[k]));
    for (int64_t i = 0; i < p->m.count; i++) {
        int32_t *label = &p->m.samples[i].label;
        if (*label >= 0 && *label < p->m.class_count) *label = (int32_t)number[*label];
    }
fail:
    xkd_free(number);
    return status;
}

/* Moves a part's samples behind those of the whole. */
static xkd_status append(reading *r, part *p)
{
    xkd_status status = XKD_OK;
    xkd_manifest *m = r->m;
    XKD_TRY(renumber(r, p));
    XKD_TRY(xkd_manifest_reserve(r->cx, m, p->m.count));
    r->ascending &= p->ascending;
    if (m->count && p->m.count) r->ascending &= strcmp(m->samples[m->count - 1].path, p->m.samples[0].path) < 0;
    if (p->m.count) memcpy(m->samples + m->count, p->m.samples, (size_t)p->m.count * sizeof *m->samples);
    m->count += p->m.count;
    m->trimmed |= p->m.trimmed;
fail:
    return status;
}

/* Counts the lines of parts together. A part that failed is read again by itself, now that its first line is known: the message
 * names it. */
static xkd_status take_part(reading *r, part *p)
{
    xkd_status status = XKD_OK;
    int64_t first = r->place->line;
    if (p->status != XKD_OK) {
        xkd_context *own = p->place.cx;
        p->place.cx = r->cx;
        p->before = first;
        status = read_part(p, r->folder);
        p->place.cx = own;
        XKD_TRY(status);
    }
    r->place->line += p->place.line - p->before;
    if (p->place.number && !r->place->number) r->place->number = p->place.number - p->before + first;
    XKD_TRY(append(r, p));
fail:
    return status;
}

/* About equal pieces of whole lines. */
static void cut(reading *r, char *text, int64_t size)
{
    char *end = text + size;
    for (int i = 0; i < r->count; i++) {
        char *stop = text + (end - text) / (r->count - i);
        if (stop > text && stop < end) stop = memchr(stop - 1, '\n', (size_t)(end - stop + 1));
        stop = !stop || i == r->count - 1 ? end : stop == end ? end : stop + (*stop == '\n');
        r->parts[i].text = text;
        r->parts[i].size = stop - text;
        r->parts[i].before = 1; /* no header is in it */
        text = stop;
    }
}

/* Without a list of classes each part has its own; with one they look names up in it, which changes nothing. */
static xkd_status begin_parts(reading *r, const xkd_line_reader *lines)
{
    xkd_status status = XKD_OK;
    int processors = xkd_processor_count();
    r->count = lines->size < 2 * PART_BYTES ? 1 : processors < MOST_PARTS ? processors : MOST_PARTS;
    for (int i = 0; i < r->count; i++) {
        part *p = &r->parts[i];
        p->place = *r->place;
        p->place.cx = xkd_context_branch(r->cx);
        if (!p->place.cx) return xkd_fail(r->cx, XKD_ERR_MEMORY, "%s: out of memory", r->place->file);
        if (r->place->fixed_classes) XKD_TRY(xkd_manifest_lend_classes(r->cx, r->m, &p->m));
    }
fail:
    return status;
}

static void end_parts(reading *r)
{
    for (int i = 0; i < r->count; i++) {
        part *p = &r->parts[i];
        xkd_pieces_join(&r->m->pieces, &p->m.pieces);
        if (!r->place->fixed_classes) xkd_manifest_free_classes(&p->m);
        xkd_free(p->m.samples);
        xkd_row_free(&p->row);
        xkd_context_free(p->place.cx);
    }
}

/* Behind the first line. */
static xkd_status read_parts(reading *r, xkd_line_reader *lines)
{
    xkd_status status = XKD_OK;
    xkd_pool *pool = NULL;
    char *text;
    int64_t size;
    XKD_TRY(begin_parts(r, lines));
    if (r->count > 1) XKD_TRY(xkd_pool_new(r->cx, &pool, r->count));
    for (;;) {
        XKD_TRY(xkd_line_reader_many(r->cx, lines, r->count > 1 ? r->count * (int64_t)PART_BYTES : 0, &text, &size));
        if (!text) break;
        cut(r, text, size);
        if (pool) xkd_parallel_for(pool, r->count, read_one, r);
        if (!pool) read_one(r, 0, 0);
        for (int i = 0; i < r->count; i++) XKD_TRY(take_part(r, &r->parts[i]));
    }
fail:
    xkd_pool_free(pool);
    end_parts(r);
    return status;
}

/* The first line, which alone may be a header. */
static xkd_status read_first(xkd_row_place *p, xkd_manifest *m, xkd_line_reader *lines, const char *folder)
{
    xkd_status status = XKD_OK;
    xkd_row row = {.room = 0};
    char *line;
    int64_t length;
    XKD_TRY(xkd_line_reader_next(p->cx, lines, &line, &length));
    if (!line) goto fail;
    p->line = 1;
    int64_t mark = xkd_csv_mark(line, length);
    if (!is_blank(line + mark, length - mark)) XKD_TRY(read_json(p, m, &row, line + mark, length - mark, folder));
fail:
    xkd_row_free(&row);
    return status;
}

/* The line that sample `wanted` stands in, counted anew: nobody keeps ten million numbers for an error. `in_first`: line 1 is
 * that of a sample, and neither the header nor blank. */
static int64_t line_of(xkd_context *cx, const char *path, int64_t wanted, bool in_first)
{
    xkd_line_reader lines;
    char *line = NULL;
    int64_t length, at = 0, sample = -1;
    xkd_status status = xkd_line_reader_open(cx, path, INT64_MAX, XKD_ERR_DATA, &lines);
    while (status == XKD_OK && sample < wanted) {
        status = xkd_line_reader_next(cx, &lines, &line, &length);
        if (status != XKD_OK || !line) break;
        sample += at++ ? !is_blank(line, length) : in_first;
    }
    xkd_line_reader_close(&lines);
    return at;
}

/* A table of sample numbers by the hash of their paths, at most two thirds full; the samples stay in the order of the file. */
static xkd_status check_duplicates(xkd_context *cx, const char *file, const xkd_manifest *m, bool in_first)
{
    xkd_status status = XKD_OK;
    uint32_t *table = NULL;
    int64_t slots = 64;
    if (m->count >= UINT32_MAX) XKD_FAIL(XKD_ERR_DATA, "%s: more than 2^32 samples (divide it)", file);
    while (2 * slots < 3 * m->count) slots *= 2;
    XKD_TRY(xkd_alloc(cx, &table, slots, sizeof *table));
    for (int64_t i = 0; i < m->count; i++) {
        const char *path = m->samples[i].path;
        uint64_t at = XXH3_64bits(path, strlen(path)) & (uint64_t)(slots - 1);
        for (; table[at]; at = (at + 1) & (uint64_t)(slots - 1))
            if (!strcmp(m->samples[table[at] - 1].path, path))
                XKD_FAIL(XKD_ERR_DATA, "%s:%lld: path \"%s\" stands already in line %lld (remove one of them)", file,
                         (long long)line_of(cx, file, i, in_first), path,
                         (long long)line_of(cx, file, table[at] - 1, in_first));
        table[at] = (uint32_t)(i + 1);
    }
fail:
    xkd_free(table);
    return status;
}

/* Without a list of classes the names that occur are the classes, in byte order as those of folders: which line comes first
 * does not matter. Numbers beside them would be the numbers of some of these. */
static xkd_status number_by_name(const xkd_row_place *p, xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    char **names = NULL;
    int64_t *number = NULL;
    if (p->number)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: label is a number where others are names (list the classes in the first line)",
                 p->file, (long long)p->number);
    XKD_TRY(xkd_alloc(cx, &names, m->class_count, sizeof *names));
    XKD_TRY(xkd_alloc(cx, &number, m->class_count, sizeof *number));
    memcpy(names, m->classes, (size_t)m->class_count * sizeof *names); /* sorting moves the pointers alone */
    xkd_manifest_sort_classes(m);
    for (int64_t k = 0; k < m->class_count; k++) XKD_TRY(xkd_manifest_class(cx, m, names[k], false, &number[k]));
    for (int64_t i = 0; i < m->count; i++)
        if (m->samples[i].label >= 0) m->samples[i].label = (int32_t)number[m->samples[i].label];
fail:
    xkd_free(names);
    xkd_free(number);
    return status;
}

/* The folder part of a path, "." if it has none.
 * "/file" has the folder "/". */
static xkd_status folder_of(xkd_context *cx, const char *path, char **out)
{
    xkd_status status = xkd_copy_string(cx, out, path);
    if (status != XKD_OK) return status;
    char *slash = strrchr(*out, '/');
    if (slash) {
        slash[slash == *out] = 0;
        return XKD_OK;
    }
    xkd_free(*out);
    return xkd_copy_string(cx, out, ".");
}

/* Blank lines count as lines in messages and are otherwise ignored. */
xkd_status xkd_manifest_read(xkd_context *cx, const char *path, xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    xkd_line_reader lines = {.fd = -1};
    char *folder = NULL;
    reading *r = NULL;
    xkd_row_place p = {.cx = cx, .file = path};
    *m = (xkd_manifest){0};
    XKD_TRY(xkd_line_reader_open(cx, path, XKD_MANIFEST_MOST_BYTES, XKD_ERR_DATA, &lines));
    XKD_TRY(folder_of(cx, path, &folder));
    XKD_TRY(xkd_copy_string(cx, &m->root, folder));
    XKD_TRY(read_first(&p, m, &lines, folder));
    bool in_first = m->count > 0;
    XKD_TRY(xkd_alloc(cx, &r, 1, sizeof *r));
    *r = (reading){.cx = cx, .folder = folder, .m = m, .place = &p, .ascending = true};
    XKD_TRY(read_parts(r, &lines));
    if (m->count == 0) XKD_FAIL(XKD_ERR_DATA, "%s: no samples in it (make one with `xkd data index DIR`)", path);
    if (!p.fixed_classes && m->class_count) XKD_TRY(number_by_name(&p, m));
    if (!r->ascending) XKD_TRY(check_duplicates(cx, path, m, in_first));
    if (p.pack) XKD_TRY(xkd_manifest_attach(cx, m, path, p.pack));
fail:
    xkd_free(p.pack);
    xkd_free(folder);
    xkd_free(r);
    xkd_line_reader_close(&lines);
    if (status != XKD_OK) xkd_manifest_free(m);
    return status;
}
