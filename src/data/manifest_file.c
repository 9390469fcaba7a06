/* The manifest as a file: JSON Lines, a header with root and classes and then one object a sample. It is input
 * like any other: paths may not leave the root, numbers have ranges, and every message names file and
 * line. */
#include "data/manifest.h"

#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/base64.h"
#include "base/file.h"
#include "data/csv.h"
#include "data/json_name.h"
#include "data/manifest_rows.h"

/* A manifest line holds two paths at most; ten million lines of 400 bytes are more than the largest data sets have. */
static const int64_t MAX_BYTES = (int64_t)4 << 30;
enum { MAX_LABEL = 1000000 };

/* Where an error message points. */
typedef struct {
    xkd_context *cx;
    const char *file;
    int64_t line;
    bool fixed_classes; /* the first line lists them all */
    char *pack;         /* that the paths are in; NULL: they are files. Owned */
    int64_t number;     /* the first line whose label is a number; 0: none */
} place;

static xkd_status check_path(const place *p, const char *path)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    if (!path[0] || path[0] == '/')
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: path \"%s\" is %s (paths are relative to the root, see the first line)",
                 p->file, (long long)p->line, path, path[0] ? "absolute" : "empty");
    if (strlen(path) >= PATH_MAX)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: the path has more than %d bytes", p->file, (long long)p->line, PATH_MAX - 1);
    if (!xkd_manifest_path_is_plain(path))
        XKD_FAIL(XKD_ERR_DATA,
                 "%s:%lld: path \"%s\" has a part \"..\", \".\" or an empty one: it must name a file below the root "
                 "directly",
                 p->file, (long long)p->line, path);
fail:
    return status;
}

/* A missing key or null leaves the value that stands for unknown. */
static xkd_status read_real(const place *p, const json_t *object, const char *key, double *out)
{
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value)) return XKD_OK;
    if (!json_is_number(value))
        return xkd_fail(p->cx, XKD_ERR_DATA, "%s:%lld: \"%s\" must be a number", p->file, (long long)p->line, key);
    *out = json_number_value(value);
    return XKD_OK;
}

/* Counts and sizes: not negative, and no fractions that would be cut off in silence. */
static xkd_status read_integer(const place *p, const json_t *object, const char *key, int64_t *out)
{
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value)) return XKD_OK;
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return xkd_fail(p->cx, XKD_ERR_DATA, "%s:%lld: \"%s\" must be a whole number from 0 on", p->file,
                        (long long)p->line, key);
    *out = json_integer_value(value);
    return XKD_OK;
}

/* Fixed sizes: split and hash. */
static xkd_status read_text(const place *p, const json_t *object, const char *key, char *out, size_t size)
{
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value)) return XKD_OK;
    if (!json_is_string(value) || json_string_length(value) >= size)
        return xkd_fail(p->cx, XKD_ERR_DATA, "%s:%lld: \"%s\" must be a string of less than %zu bytes", p->file,
                        (long long)p->line, key, size);
    memcpy(out, json_string_value(value), json_string_length(value) + 1);
    return XKD_OK;
}

/* With classes in the first line names must be among them; without, a new name becomes a class. */
static xkd_status read_label(place *p, xkd_manifest *m, const json_t *object, int64_t *label)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    const json_t *value = json_object_get(object, "label");
    if (!value || json_is_null(value)) return XKD_OK;
    if (json_is_string(value)) {
        XKD_TRY(xkd_manifest_class(cx, m, json_string_value(value), !p->fixed_classes, label));
        if (*label < 0)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: label \"%s\" is none of the %lld classes of the first line", p->file,
                     (long long)p->line, json_string_value(value), (long long)m->class_count);
        return XKD_OK;
    }
    if (!json_is_integer(value))
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"label\" must be a number or a class name", p->file, (long long)p->line);
    *label = json_integer_value(value);
    /* Without a list of classes any number below MAX_LABEL may be one; the limit keeps tables by class small. */
    int64_t limit = p->fixed_classes ? m->class_count : MAX_LABEL;
    /* Written by some tools for `no label`. */
    if (*label == -1) return XKD_OK;
    if (!p->number) p->number = p->line;
    if (*label < 0 || *label >= limit)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: label %lld is out of range 0 .. %lld (correct it or the classes in line 1)",
                 p->file, (long long)p->line, (long long)*label, (long long)limit - 1);
fail:
    return status;
}

/* The classes of a sample that may have several. */
static xkd_status read_labels(const place *p, const xkd_manifest *m, const json_t *object, xkd_sample *s)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    json_t *list = json_object_get(object, "labels"), *entry;
    int64_t limit = p->fixed_classes ? m->class_count : MAX_LABEL;
    size_t i;
    if (!list) return XKD_OK;
    if (!json_is_array(list)) XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"labels\" must be a list", p->file, (long long)p->line);
    /* A list of no labels stays a sample of several labels, all of them absent: an empty list is not NULL. */
    XKD_TRY(xkd_alloc(cx, &s->labels, (int64_t)json_array_size(list) + 1, sizeof *s->labels));
    json_array_foreach(list, i, entry)
    {
        int64_t label = json_integer_value(entry);
        if (!json_is_integer(entry) || label < 0 || label >= limit)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"labels\" must be numbers in 0 .. %lld", p->file, (long long)p->line,
                     (long long)limit - 1);
        s->labels[s->label_count++] = (int32_t)label;
    }
fail:
    return status;
}

/* Values that no measurement writes would become draws outside of the file. */
static xkd_status read_measures(const place *p, const json_t *object, xkd_sample *s)
{
    xkd_status status = XKD_OK;
    const json_t *picture = json_object_get(object, "has_video");
    if (json_is_boolean(picture)) s->has_video = json_is_true(picture);
    s->measured = json_is_true(json_object_get(object, "probed")) && s->has_video >= 0 && s->has_audio >= 0;
    XKD_TRY(read_integer(p, object, "audio_track", &s->audio_track));
    XKD_TRY(read_real(p, object, "video_last", &s->video_last));
    XKD_TRY(read_real(p, object, "clock_step", &s->clock_step));
    XKD_TRY(read_real(p, object, "key_gap", &s->key_gap));
    const double times[] = {s->video_start, s->audio_start, s->video_last};
    const double lengths[] = {s->video_seconds, s->audio_seconds, s->clock_step, s->key_gap};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        s->measured = s->measured && times[i] > -1e9 && times[i] < 1e9;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        s->measured = s->measured && lengths[i] >= 0 && lengths[i] <= XKD_MEDIA_MAX_SECONDS;
fail:
    return status;
}

/* A member of an archive: how much of the path is the archive's, and where its contents stand there. */
static xkd_status read_member(const place *p, const json_t *object, xkd_sample *s)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    int64_t length = 0;
    if (!json_object_get(object, "tar")) return XKD_OK;
    XKD_TRY(read_integer(p, object, "tar", &length));
    XKD_TRY(read_integer(p, object, "tar_at", &s->member_at));
    if (length < 1 || length >= (int64_t)strlen(s->path) || s->path[length] != '/' || s->member_at < 512 ||
        s->bytes < 0)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s:%lld: a member of an archive needs \"tar\", the bytes of the path that are the archive's, "
                 "\"tar_at\" and \"bytes\"",
                 p->file, (long long)p->line);
    s->archive_length = (int32_t)length;
fail:
    return status;
}

/* Exactly one of `path` and `path_base64`. Unknown keys are ignored, so that users may keep notes of
 * their own. */
static xkd_status read_sample(place *p, xkd_manifest *m, const json_t *object)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    char *decoded = NULL;
    const json_t *path = json_object_get(object, "path"), *coded = json_object_get(object, "path_base64");
    if ((path != NULL) + (coded != NULL) != 1 || !json_is_string(path ? path : coded))
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: needs one string \"path\" or \"path_base64\"", p->file, (long long)p->line);
    const char *fault = NULL;
    if (coded)
        XKD_TRY(xkd_base64_decode(cx, json_string_value(coded), &decoded, &fault));
    else
        XKD_TRY(xkd_copy_string(cx, &decoded, json_string_value(path)));
    if (fault) XKD_FAIL(XKD_ERR_DATA, "%s:%lld: path_base64: %s", p->file, (long long)p->line, fault);
    /* Decoded first, then checked: base64 must not smuggle a path past the rules. */
    XKD_TRY(check_path(p, decoded));
    xkd_sample *s = NULL;
    XKD_TRY(xkd_manifest_add(cx, m, decoded, &s));
    XKD_TRY(read_label(p, m, object, &s->label));
    XKD_TRY(read_labels(p, m, object, s));
    XKD_TRY(read_text(p, object, "split", s->split, sizeof s->split));
    XKD_TRY(read_text(p, object, "hash", s->hash, sizeof s->hash));
    XKD_TRY(read_real(p, object, "video_start", &s->video_start));
    XKD_TRY(read_real(p, object, "video_seconds", &s->video_seconds));
    XKD_TRY(read_real(p, object, "audio_start", &s->audio_start));
    XKD_TRY(read_real(p, object, "audio_seconds", &s->audio_seconds));
    XKD_TRY(read_real(p, object, "fps", &s->fps));
    XKD_TRY(read_integer(p, object, "width", &s->width));
    XKD_TRY(read_integer(p, object, "height", &s->height));
    XKD_TRY(read_integer(p, object, "sample_rate", &s->sample_rate));
    XKD_TRY(read_integer(p, object, "channels", &s->channels));
    XKD_TRY(read_integer(p, object, "bytes", &s->bytes));
    XKD_TRY(read_integer(p, object, "modified", &s->modified));
    const json_t *sound = json_object_get(object, "has_audio");
    if (sound && !json_is_null(sound) && !json_is_boolean(sound))
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"has_audio\" must be true or false", p->file, (long long)p->line);
    if (json_is_boolean(sound)) s->has_audio = json_is_true(sound);
    XKD_TRY(read_measures(p, object, s));
    XKD_TRY(read_member(p, object, s));
fail:
    xkd_free(decoded);
    return status;
}

/* Like a root, but a pack. */
static xkd_status read_pack(place *p, const json_t *object, const char *folder)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    const json_t *pack = json_object_get(object, "pack");
    if (!pack) return XKD_OK;
    const char *text = json_string_value(pack);
    if (!text) XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"pack\" must be a string", p->file, (long long)p->line);
    if (text[0] == '/')
        XKD_TRY(xkd_copy_string(cx, &p->pack, text));
    else
        XKD_TRY(xkd_join_path(cx, &p->pack, folder, text));
fail:
    return status;
}

/* A relative root is relative to the manifest's own folder, so a data set can be moved as a whole. */
static xkd_status read_header(place *p, xkd_manifest *m, const json_t *object, const char *folder)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    const json_t *root = json_object_get(object, "root"), *classes = json_object_get(object, "classes"),
                 *links = json_object_get(object, "follow_links"), *name;
    char *class = NULL;
    size_t i;
    if (json_integer_value(json_object_get(object, "xkd_manifest")) != 1)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: manifest version is not 1 (written by a newer xkd?)", p->file,
                 (long long)p->line);
    if (root && !json_is_string(root))
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"root\" must be a string", p->file, (long long)p->line);
    const char *text = root ? json_string_value(root) : ".";
    /* Freed because xkd_manifest_read has set a default. */
    xkd_free(m->root);
    m->root = NULL;
    if (text[0] == '/')
        XKD_TRY(xkd_copy_string(cx, &m->root, text));
    else if (!strcmp(text, "."))
        XKD_TRY(xkd_copy_string(cx, &m->root, folder));
    else
        XKD_TRY(xkd_join_path(cx, &m->root, folder, text));
    if (links && !json_is_boolean(links))
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"follow_links\" must be true or false", p->file, (long long)p->line);
    m->follow_links = json_is_true(links);
    XKD_TRY(read_pack(p, object, folder));
    if (classes && !json_is_array(classes))
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"classes\" must be a list of names", p->file, (long long)p->line);
    p->fixed_classes = classes != NULL;
    json_array_foreach((json_t *)(uintptr_t)classes, i, name)
    {
        int64_t label;
        xkd_free(class);
        XKD_TRY(xkd_json_name_value(cx, name, &class));
        if (!class) XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"classes\" must be a list of names", p->file, (long long)p->line);
        XKD_TRY(xkd_manifest_class(cx, m, class, true, &label));
        /* The place in the list is the label, so a name twice would leave a gap. */
        if (label != (int64_t)i)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: class \"%s\" is listed twice", p->file, (long long)p->line, class);
    }
fail:
    xkd_free(class);
    return status;
}

/* A path and where it stands, for the message about duplicates. */
typedef struct {
    const char *path;
    int64_t line;
} named_line;

/* Equal paths by line, so that the message names the second one. */
static int compare_lines(const void *a, const void *b)
{
    const named_line *x = a, *y = b;
    int order = strcmp(x->path, y->path);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

/* O(n log n) on pointers; the samples themselves stay in the order of the file. */
static xkd_status check_duplicates(place *p, const xkd_manifest *m, const int64_t *lines)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    named_line *sorted = NULL;
    XKD_TRY(xkd_alloc(cx, &sorted, m->count, sizeof *sorted));
    for (int64_t i = 0; i < m->count; i++) sorted[i] = (named_line){m->samples[i].path, lines[i]};
    qsort(sorted, (size_t)m->count, sizeof *sorted, compare_lines);
    for (int64_t i = 1; i < m->count; i++)
        if (!strcmp(sorted[i - 1].path, sorted[i].path))
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: path \"%s\" stands already in line %lld (remove one of them)", p->file,
                     (long long)sorted[i].line, sorted[i].path, (long long)sorted[i - 1].line);
fail:
    xkd_free(sorted);
    return status;
}

/* A duplicate key would leave open which value counts, so it is refused. */
static xkd_status read_line(place *p, xkd_manifest *m, const char *line, size_t length, const char *folder)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    json_error_t error;
    json_t *object = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
    if (!object)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: bad JSON at column %d: %s (one object a line; `xkd data index` writes them)",
                 p->file, (long long)p->line, error.column, error.text);
    if (!json_is_object(object)) XKD_FAIL(XKD_ERR_DATA, "%s:%lld: not a JSON object", p->file, (long long)p->line);
    if (json_object_get(object, "xkd_manifest")) {
        if (p->line != 1)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"xkd_manifest\" may stand in the first line only", p->file,
                     (long long)p->line);
        XKD_TRY(read_header(p, m, object, folder));
    } else {
        XKD_TRY(read_sample(p, m, object));
    }
fail:
    json_decref(object);
    return status;
}

/* Without a list of classes the names that occur are the classes, in byte order as those of folders: which line comes first
 * does not matter. Numbers beside them would be the numbers of some of these. */
static xkd_status number_by_name(const place *p, xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    char **names = NULL;
    int64_t label;
    if (p->number)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: label is a number where others are names (list the classes in the first line)",
                 p->file, (long long)p->number);
    XKD_TRY(xkd_alloc(cx, &names, m->class_count, sizeof *names));
    memcpy(names, m->classes, (size_t)m->class_count * sizeof *names); /* sorting moves the pointers alone */
    xkd_manifest_sort_classes(m);
    for (int64_t i = 0; i < m->count; i++) {
        xkd_sample *s = &m->samples[i];
        if (s->label < 0) continue;
        XKD_TRY(xkd_manifest_class(cx, m, names[s->label], false, &label));
        s->label = label;
    }
fail:
    xkd_free(names);
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

/* The whole file is read at once; its size is limited. Blank lines count as lines in messages and are
 * otherwise ignored. */
xkd_status xkd_manifest_read(xkd_context *cx, const char *path, xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    char *text = NULL, *folder = NULL;
    int64_t size = 0, *lines = NULL, capacity = 0;
    place p = {.cx = cx, .file = path};
    *m = (xkd_manifest){0};
    XKD_TRY(xkd_read_file(cx, path, MAX_BYTES, XKD_ERR_DATA, &text, &size));
    XKD_TRY(folder_of(cx, path, &folder));
    XKD_TRY(xkd_copy_string(cx, &m->root, folder));
    for (char *line = text + xkd_csv_mark(text, size), *end = text + size; line < end;) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t length = (size_t)((stop ? stop : end) - line);
        p.line++;
        if (strspn(line, " \t\r") < length) XKD_TRY(read_line(&p, m, line, length, folder));
        if (m->count > capacity) {
            XKD_TRY(xkd_resize(cx, &lines, capacity, 2 * m->count + 256, sizeof *lines));
            capacity = 2 * m->count + 256;
        }
        /* A line gives one sample at most; a header or blank line gives none and leaves the entry for the next. */
        if (m->count && !lines[m->count - 1]) lines[m->count - 1] = p.line;
        line += length + 1;
    }
    if (m->count == 0) XKD_FAIL(XKD_ERR_DATA, "%s: no samples in it (make one with `xkd data index DIR`)", path);
    if (!p.fixed_classes && m->class_count) XKD_TRY(number_by_name(&p, m));
    XKD_TRY(check_duplicates(&p, m, lines));
    if (p.pack) XKD_TRY(xkd_manifest_attach(cx, m, path, p.pack));
fail:
    xkd_free(p.pack);
    xkd_free(text);
    xkd_free(folder);
    xkd_free(lines);
    if (status != XKD_OK) xkd_manifest_free(m);
    return status;
}

/* Failures are passed on by pointer, because the object is finished and freed by the caller in any
 * case. */
static void set_path(json_t *object, xkd_context *cx, const char *path, xkd_status *status)
{
    json_t *value = json_string(path); /* NULL where it is no UTF-8 */
    if (value) {
        json_object_set_new(object, "path", value);
        return;
    }
    char *coded = NULL;
    *status = xkd_base64_encode(cx, path, &coded);
    if (*status == XKD_OK) json_object_set_new(object, "path_base64", json_string(coded));
    xkd_free(coded);
}

/* Six decimals are a microsecond, more than containers keep. */
static json_t *rounded(double x)
{
    double scaled = x * 1e6;
    return json_real((double)(int64_t)(scaled + (scaled < 0 ? -0.5 : 0.5)) / 1e6);
}

/* Facts that are not known are left out. */
static void set_facts(json_t *o, const xkd_sample *s)
{
    if (s->label >= 0) json_object_set_new(o, "label", json_integer(s->label));
    if (s->labels) { /* an empty list too: a sample of several labels, none of which it has */
        json_t *list = json_array();
        for (int64_t i = 0; i < s->label_count; i++) json_array_append_new(list, json_integer(s->labels[i]));
        json_object_set_new(o, "labels", list);
    }
    if (s->split[0]) json_object_set_new(o, "split", json_string(s->split));
    if (s->video_seconds > 0 || (s->measured && s->has_video == 1)) {
        json_object_set_new(o, "video_start", rounded(s->video_start));
        json_object_set_new(o, "video_seconds", rounded(s->video_seconds));
        json_object_set_new(o, "fps", rounded(s->fps));
        json_object_set_new(o, "width", json_integer(s->width));
        json_object_set_new(o, "height", json_integer(s->height));
    }
    if (s->has_video >= 0) json_object_set_new(o, "has_video", json_boolean(s->has_video));
    if (s->has_audio >= 0) json_object_set_new(o, "has_audio", json_boolean(s->has_audio));
    if (s->measured) {
        json_object_set_new(o, "probed", json_true());
        if (s->has_video == 1) {
            json_object_set_new(o, "video_last", rounded(s->video_last));
            json_object_set_new(o, "key_gap", rounded(s->key_gap));
        }
        if (s->clock_step > 0) json_object_set_new(o, "clock_step", rounded(s->clock_step));
        if (s->audio_track) json_object_set_new(o, "audio_track", json_integer(s->audio_track));
    }
    if (s->has_audio == 1) {
        if (s->audio_seconds > 0) {
            json_object_set_new(o, "audio_start", rounded(s->audio_start));
            json_object_set_new(o, "audio_seconds", rounded(s->audio_seconds));
        }
        json_object_set_new(o, "sample_rate", json_integer(s->sample_rate));
        json_object_set_new(o, "channels", json_integer(s->channels));
    }
    if (s->archive_length) {
        json_object_set_new(o, "tar", json_integer(s->archive_length));
        json_object_set_new(o, "tar_at", json_integer(s->member_at));
    }
    if (s->bytes >= 0) json_object_set_new(o, "bytes", json_integer(s->bytes));
    if (s->modified >= 0) json_object_set_new(o, "modified", json_integer(s->modified));
    if (s->hash[0]) json_object_set_new(o, "hash", json_string(s->hash));
}

xkd_status xkd_sample_to_json(xkd_context *cx, const xkd_sample *s, json_t **out)
{
    xkd_status status = XKD_OK;
    *out = json_object();
    if (!*out) return xkd_fail(cx, XKD_ERR_MEMORY, "out of memory while writing a manifest");
    set_path(*out, cx, s->path, &status);
    set_facts(*out, s);
    return status;
}

xkd_status xkd_manifest_add_json(xkd_context *cx, xkd_manifest *m, const char *file, int64_t line, const json_t *row)
{
    place p = {.cx = cx, .file = file, .line = line};
    return read_sample(&p, m, row);
}

xkd_status xkd_manifest_add_packed(xkd_context *cx, xkd_manifest *m, const char *file, int64_t number,
                                   const json_t *row)
{
    place p = {.cx = cx, .file = file, .line = number, .fixed_classes = m->class_count > 0};
    return read_sample(&p, m, row);
}

/* 12 digits keep the microsecond of a film of 10^6 s. Consumes the object. */
static xkd_status write_line(xkd_writer *writer, xkd_context *cx, json_t *object)
{
    xkd_status status = XKD_OK;
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(12));
    json_decref(object);
    if (!text) XKD_FAIL(XKD_ERR_MEMORY, "out of memory while writing a manifest");
    XKD_TRY(xkd_writer_write(writer, text, (int64_t)strlen(text)));
    XKD_TRY(xkd_writer_write(writer, "\n", 1));
fail:
    free(text);
    return status;
}

/* Published in one step: an old manifest stays until the new one is whole. */
xkd_status xkd_manifest_write(xkd_context *cx, const xkd_manifest *m, const char *path, const char *root_text)
{
    xkd_status status = XKD_OK;
    xkd_writer *writer = NULL;
    XKD_TRY(xkd_writer_open(cx, path, &writer));
    json_t *header = json_pack("{s:i,s:s}", "xkd_manifest", 1, m->pack ? "pack" : "root", root_text ? root_text : ".");
    if (!header) XKD_FAIL(XKD_ERR_DATA, "%s: the root \"%s\" is no UTF-8 (move the folder)", path, root_text);
    if (m->class_count) {
        json_t *classes = json_array(), *name = NULL;
        for (int64_t i = 0; i < m->class_count && status == XKD_OK; i++) {
            status = xkd_json_name(cx, m->classes[i], &name);
            if (name) json_array_append_new(classes, name);
        }
        json_object_set_new(header, "classes", classes);
    }
    if (m->follow_links) json_object_set_new(header, "follow_links", json_true());
    xkd_status headed = write_line(writer, cx, header); /* frees it, whatever went before */
    XKD_TRY(status);
    XKD_TRY(headed);
    for (int64_t i = 0; i < m->count; i++) {
        json_t *object = json_object();
        set_path(object, cx, m->samples[i].path, &status);
        set_facts(object, &m->samples[i]);
        xkd_status written = write_line(writer, cx, object);
        /* Both statuses: the object must be freed by write_line before the first can be reported. */
        XKD_TRY(status);
        XKD_TRY(written);
    }
    xkd_writer *published = writer;
    writer = NULL;
    XKD_TRY(xkd_writer_commit(published));
fail:
    xkd_writer_abort(writer);
    return status;
}
