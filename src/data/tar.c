/* Reading tar: POSIX ustar and pax, GNU and the old form. Everything is a stranger's: sizes are held against the archive,
 * names against what a manifest may have, and what is no plain file is passed over and counted. */
#include "data/tar.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/index.h"

enum {
    BLOCK = 512,
    MOST_MEMBERS = 10000000, /* of an archive: a terabyte of small files */
    MOST_EXTRA = 1 << 16,    /* bytes of a long name or of pax records; both hold one name */
    MOST_NOTE = 1 << 20,     /* of a .json or .cls */
    MOST_LABEL = 1000000,
    NAME_ROOM = PATH_MAX
};

/* Fields of a header that are used; places as in POSIX. */
typedef struct {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100], magic[6], version[2],
        user[32], group[32], major[8], minor[8], prefix[155], rest[12];
} header;

_Static_assert(sizeof(header) == BLOCK, "a header is one block");

/* One archive on its way in. */
typedef struct {
    xkd_context *cx;
    xkd_manifest *m;
    const char *archive; /* below the root */
    int fd;
    int64_t size, at; /* at: of the next header */
    int64_t members;
    char name[NAME_ROOM]; /* of the member at hand */
    int64_t long_size;    /* of pax: -1: none */
    bool long_name, sparse;
    /* The sample at hand: members with one key stand together. */
    char key[NAME_ROOM];
    int64_t sample; /* in the manifest; -1: no medium yet */
    char *label;    /* of the key; NULL: none */
    char split[16];
    xkd_tar_labels *labels;
    xkd_tar_findings *findings;
} tar;

bool xkd_is_archive_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && dot != name && !strcasecmp(dot, ".tar");
}

/* ---- headers ---- */

/* Octal digits between blanks, or GNU's binary for what they cannot hold; -1: neither. */
static int64_t number(const char *field, size_t width)
{
    int64_t value = 0;
    size_t i = 0;
    if ((unsigned char)field[0] == 0x80) {
        for (i = 1; i < width; i++) {
            if (value > INT64_MAX >> 9) return -1;
            value = value << 8 | (unsigned char)field[i];
        }
        return value;
    }
    while (i < width && field[i] == ' ') i++;
    if (i == width || !field[i]) return -1;
    for (; i < width && field[i] && field[i] != ' '; i++) {
        if (field[i] < '0' || field[i] > '7') return -1;
        value = value << 3 | (field[i] - '0');
    }
    return value;
}

/* Old writers took the bytes for signed. */
static bool sum_is_right(const header *h)
{
    const unsigned char *bytes = (const unsigned char *)h;
    int64_t plain = 0, odd = 0, said = number(h->sum, sizeof h->sum);
    for (int i = 0; i < BLOCK; i++) {
        bool blank = i >= (int)offsetof(header, sum) && i < (int)offsetof(header, type);
        plain += blank ? ' ' : bytes[i];
        odd += blank ? ' ' : (signed char)bytes[i];
    }
    return said == plain || said == odd;
}

static bool is_empty(const header *h)
{
    const char *bytes = (const char *)h;
    for (int i = 0; i < BLOCK; i++)
        if (bytes[i]) return false;
    return true;
}

static void note(tar *t, const char *name, const char *why)
{
    if (!t->findings->example[0])
        snprintf(t->findings->example, sizeof t->findings->example, "%.80s: %.100s: %s", t->archive, name, why);
}

static void refuse(tar *t, const char *why)
{
    t->findings->refused++;
    note(t, t->name, why);
}

static xkd_status read_block(tar *t, void *out, int64_t size, int64_t at)
{
    return xkd_read_at(t->cx, t->fd, t->archive, out, size, at);
}

/* ---- names that do not fit ---- */

/* "LENGTH key=value\n", one behind the other. */
static void read_pax(tar *t, char *text, int64_t size)
{
    for (char *line = text, *end = text + size; line < end;) {
        char *key = NULL;
        long length = strtol(line, &key, 10);
        if (length < 5 || length > end - line || *key != ' ' || line[length - 1] != '\n') return;
        line[length - 1] = 0;
        char *value = strchr(++key, '=');
        if (value) {
            *value++ = 0;
            if (!strcmp(key, "path") && strlen(value) < NAME_ROOM) {
                snprintf(t->name, sizeof t->name, "%s", value);
                t->long_name = true;
            }
            if (!strcmp(key, "size")) t->long_size = strtoll(value, NULL, 10);
            if (!strncmp(key, "GNU.sparse", 10)) t->sparse = true;
        }
        line += length;
    }
}

/* A member that describes the next one. */
static xkd_status read_extra(tar *t, char type, int64_t size, int64_t at)
{
    xkd_status status = XKD_OK;
    char *text = NULL;
    if (size > MOST_EXTRA) {
        snprintf(t->name, sizeof t->name, "member %lld", (long long)t->members);
        refuse(t, "its name is longer than any name can be");
        return XKD_OK;
    }
    XKD_TRY(xkd_alloc(t->cx, &text, size + 1, 1));
    XKD_TRY(read_block(t, text, size, at));
    if (type == 'x') read_pax(t, text, size);
    if (type == 'L' && strlen(text) < NAME_ROOM) {
        snprintf(t->name, sizeof t->name, "%s", text);
        t->long_name = true;
    }
fail:
    xkd_free(text);
    return status;
}

/* ---- samples ---- */

/* The key ends at the first dot of the last part, as WebDataset has it. */
static size_t key_length(const char *name)
{
    const char *slash = strrchr(name, '/'), *last = slash ? slash + 1 : name;
    return (size_t)(last - name) + strcspn(last, ".");
}

/* Hands the label to the sample, whichever of them came first. */
static xkd_status end_key(tar *t)
{
    xkd_status status = XKD_OK;
    if (t->sample >= 0) {
        xkd_tar_labels *l = t->labels;
        XKD_TRY(xkd_reserve(t->cx, &l->names, l->count, &l->capacity, sizeof *l->names));
        l->names[l->count++] = t->label;
        t->label = NULL;
        if (t->split[0]) XKD_TRY(xkd_sample_set_split(t->cx, t->m, &t->m->samples[t->sample], t->split));
    }
fail:
    xkd_free(t->label);
    t->label = NULL;
    t->sample = -1;
    t->split[0] = 0;
    return status;
}

static xkd_status begin_key(tar *t)
{
    xkd_status status = XKD_OK;
    size_t length = key_length(t->name);
    if (strlen(t->key) == length && !strncmp(t->key, t->name, length)) return XKD_OK;
    XKD_TRY(end_key(t));
    snprintf(t->key, sizeof t->key, "%.*s", (int)length, t->name);
fail:
    return status;
}

static xkd_status add_medium(tar *t, int64_t at, int64_t bytes)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    xkd_sample *s;
    xkd_sample_more *more;
    if (t->sample >= 0) {
        refuse(t, "a second medium of its key");
        return XKD_OK;
    }
    if (!xkd_manifest_path_is_plain(t->name) || strlen(t->archive) + strlen(t->name) + 2 > NAME_ROOM) {
        refuse(t, "its name is absolute, has \"..\", or is too long");
        return XKD_OK;
    }
    XKD_TRY(xkd_join_path(t->cx, &path, t->archive, t->name));
    XKD_TRY(xkd_manifest_add(t->cx, t->m, path, &s));
    XKD_TRY(xkd_sample_edit_more(t->cx, t->m, s, &more));
    more->archive_length = (int32_t)strlen(t->archive);
    more->member_at = at;
    s->bytes = bytes;
    t->sample = t->m->count - 1;
fail:
    xkd_free(path);
    return status;
}

/* Without the blanks and ends of lines around it; NULL where nothing is left. */
static xkd_status keep_label(tar *t, const char *text)
{
    while (*text == ' ' || *text == '\t' || *text == '\n' || *text == '\r') text++;
    size_t length = strlen(text);
    while (length && strchr(" \t\r\n", text[length - 1])) length--;
    if (!length) return XKD_OK;
    xkd_free(t->label);
    t->label = NULL;
    return xkd_format_string(t->cx, &t->label, "%.*s", (int)length, text);
}

/* "label", "cls", "class" or "category" as a number or a name, and "split". Other keys are the user's own. */
static xkd_status read_json(tar *t, const char *text, int64_t size)
{
    static const char *const KEYS[] = {"label", "cls", "class", "category"};
    xkd_status status = XKD_OK;
    char digits[32];
    json_t *o = json_loadb(text, (size_t)size, 0, NULL);
    if (!json_is_object(o)) refuse(t, "is no JSON object");
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        const json_t *v = json_object_get(o, KEYS[i]);
        if (json_is_string(v)) XKD_TRY(keep_label(t, json_string_value(v)));
        if (json_is_integer(v)) {
            snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(v));
            XKD_TRY(keep_label(t, digits));
        }
        if (json_is_string(v) || json_is_integer(v)) break;
    }
    const char *split = json_string_value(json_object_get(o, "split"));
    if (split && strlen(split) < sizeof t->split) snprintf(t->split, sizeof t->split, "%s", split);
fail:
    json_decref(o);
    return status;
}

static xkd_status read_note(tar *t, bool json, int64_t at, int64_t bytes)
{
    xkd_status status = XKD_OK;
    char *text = NULL;
    if (bytes > MOST_NOTE) {
        refuse(t, "has more than a megabyte");
        return XKD_OK;
    }
    XKD_TRY(xkd_alloc(t->cx, &text, bytes + 1, 1));
    XKD_TRY(read_block(t, text, bytes, at));
    XKD_TRY(json ? read_json(t, text, bytes) : keep_label(t, text));
fail:
    xkd_free(text);
    return status;
}

static xkd_status take_file(tar *t, int64_t at, int64_t bytes)
{
    xkd_status status = XKD_OK;
    const char *dot = strrchr(t->name, '.');
    bool json = dot && !strcasecmp(dot, ".json"),
         class = dot && (!strcasecmp(dot, ".cls") || !strcasecmp(dot, ".class"));
    XKD_TRY(begin_key(t));
    if (xkd_is_media_name(t->name)) return add_medium(t, at, bytes);
    if (json || class) return read_note(t, json, at, bytes);
fail:
    return status;
}

/* ---- the archive ---- */

static void name_of(tar *t, const header *h)
{
    bool has_prefix = !memcmp(h->magic, "ustar", 6) && h->prefix[0];
    if (t->long_name) return;
    if (has_prefix)
        snprintf(t->name, sizeof t->name, "%.155s/%.100s", h->prefix, h->name);
    else
        snprintf(t->name, sizeof t->name, "%.100s", h->name);
}

/* What `tar cf x.tar ./folder` puts in front. */
static void strip_dot(tar *t)
{
    while (t->name[0] == '.' && t->name[1] == '/') memmove(t->name, t->name + 2, strlen(t->name + 2) + 1);
}

static const char *refusal(const tar *t, char type)
{
    switch (type) {
    case '1':
    case '2': return "is a link";
    case '3':
    case '4': return "is a device";
    case '6': return "is a FIFO";
    case 'S': return "is sparse";
    case '0':
    case 0: return t->sparse ? "is sparse" : NULL;
    default: return "is of a kind that is not known here";
    }
}

/* One member. *more: false at the end, or where what follows cannot be trusted. */
static xkd_status take_member(tar *t, bool *more)
{
    xkd_status status = XKD_OK;
    header h;
    *more = false;
    if (t->size - t->at < BLOCK) return XKD_OK;
    XKD_TRY(read_block(t, &h, BLOCK, t->at));
    if (is_empty(&h)) return XKD_OK;
    int64_t at = t->at + BLOCK, bytes = number(h.size, sizeof h.size);
    name_of(t, &h);
    if (!sum_is_right(&h)) {
        t->findings->cut_off++;
        note(t, t->members ? "after its last whole member" : "", "there is no header where one should be");
        return XKD_OK;
    }
    if (t->long_size >= 0 && h.type != 'x' && h.type != 'g') bytes = t->long_size;
    if (bytes < 0 || bytes > t->size - at) {
        t->findings->cut_off++;
        note(t, t->name, "is longer than what is left of the archive");
        return XKD_OK;
    }
    if (++t->members > MOST_MEMBERS) {
        refuse(t, "more members than an archive can have");
        return XKD_OK;
    }
    bool extra = h.type == 'L' || h.type == 'K' || h.type == 'x' || h.type == 'g';
    const char *why = extra || h.type == '5' ? NULL : refusal(t, h.type);
    if (h.type == 'x' || h.type == 'L') {
        XKD_TRY(read_extra(t, h.type, bytes, at));
    } else if (why) {
        refuse(t, why);
    } else if (!extra && h.type != '5') {
        strip_dot(t);
        XKD_TRY(take_file(t, at, bytes));
    }
    if (!extra) {
        t->long_name = t->sparse = false;
        t->long_size = -1;
    }
    t->at = at + (bytes + BLOCK - 1) / BLOCK * BLOCK;
    *more = true;
fail:
    return status;
}

/* By its first header: text called .tar is a mistake that should be told as one. */
static xkd_status check_kind(tar *t)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = t->cx;
    header h;
    if (t->size < BLOCK)
        XKD_FAIL(XKD_ERR_DATA, "%s: is no tar archive (compressed ones must be unpacked first)", t->archive);
    XKD_TRY(read_block(t, &h, BLOCK, 0));
    if (!is_empty(&h) && !sum_is_right(&h))
        XKD_FAIL(XKD_ERR_DATA, "%s: is no tar archive (compressed ones must be unpacked first)", t->archive);
fail:
    return status;
}

/* train/..., or train-000012.tar as data sets on object stores are called. */
static void split_by_name(const char *archive, char split[16])
{
    const char *slash = strrchr(archive, '/');
    char word[16];
    split[0] = 0;
    for (const char *part = slash ? slash + 1 : archive; part; part = part == archive ? NULL : archive) {
        size_t length = strcspn(part, part == archive && slash ? "/" : "-_.");
        if (length >= sizeof word) continue;
        snprintf(word, sizeof word, "%.*s", (int)length, part);
        const char *found = xkd_split_of(word);
        if (found && !split[0]) snprintf(split, 16, "%s", found);
    }
}

xkd_status xkd_tar_index(xkd_context *cx, xkd_manifest *m, const char *archive, bool follow_links,
                         xkd_tar_labels *labels, xkd_tar_findings *findings)
{
    xkd_status status = XKD_OK;
    tar *t = NULL;
    int64_t first = m->count;
    bool more = true;
    char split[16];
    xkd_source source = {.fd = -1};
    xkd_media_fault fault;
    const xkd_sample file = {.path = archive};
    XKD_TRY(xkd_alloc(cx, &t, 1, sizeof *t));
    XKD_TRY(xkd_manifest_open(cx, m, &file, follow_links, &source, &fault));
    *t = (tar){.cx = cx,
               .m = m,
               .archive = archive,
               .fd = source.fd,
               .size = source.size,
               .long_size = -1,
               .sample = -1,
               .labels = labels,
               .findings = findings};
    XKD_TRY(check_kind(t));
    while (more) XKD_TRY(take_member(t, &more));
    XKD_TRY(end_key(t));
    split_by_name(archive, split);
    for (int64_t i = first; split[0] && i < m->count; i++)
        if (!m->samples[i].split[0]) XKD_TRY(xkd_sample_set_split(cx, m, &m->samples[i], split));
    int64_t bytes, modified;
    xkd_file_stamp(source.fd, &bytes, &modified);
    for (int64_t i = first; i < m->count; i++) m->samples[i].modified = modified;
fail:
    if (t) xkd_free(t->label);
    xkd_free(t);
    if (source.fd >= 0) close(source.fd);
    return status;
}

/* ---- labels ---- */

static int64_t label_number(const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);
    return *end || value < 0 || value >= MOST_LABEL ? -1 : value;
}

xkd_status xkd_tar_label(xkd_context *cx, xkd_manifest *m, int64_t first, xkd_tar_labels *l)
{
    xkd_status status = XKD_OK;
    bool numbers = true;
    for (int64_t i = 0; i < l->count; i++) numbers = numbers && (!l->names[i] || label_number(l->names[i]) >= 0);
    /* Twice: the first round finds the names, which are then sorted, and the second gives out the numbers. */
    for (int round = 0; round < 2; round++) {
        for (int64_t i = 0; i < l->count; i++) {
            xkd_sample *s = &m->samples[first + i];
            int64_t label = -1;
            if (l->names[i] && numbers) label = label_number(l->names[i]);
            if (l->names[i] && !numbers) XKD_TRY(xkd_manifest_class_of(cx, m, l->names[i], true, &label));
            s->label = (int32_t)label;
        }
        if (!numbers && !round) xkd_manifest_sort_classes(m);
    }
fail:
    xkd_tar_labels_free(l);
    return status;
}

void xkd_tar_labels_free(xkd_tar_labels *l)
{
    for (int64_t i = 0; i < l->count; i++) xkd_free(l->names[i]);
    xkd_free(l->names);
    *l = (xkd_tar_labels){0};
}

xkd_status xkd_tar_check(xkd_context *cx, int fd, int64_t archive_size, const char *archive, int64_t at, int64_t bytes)
{
    xkd_status status = XKD_OK;
    header h;
    if (at < BLOCK || bytes < 0 || at > archive_size || bytes > archive_size - at)
        XKD_FAIL(XKD_ERR_DATA, "%s: is shorter than when it was indexed (xkd data index)", archive);
    XKD_TRY(xkd_read_at(cx, fd, archive, &h, BLOCK, at - BLOCK));
    int64_t size = number(h.size, sizeof h.size);
    /* Sizes that need pax stand in front of this header. */
    if (!sum_is_right(&h) || (h.type != '0' && h.type != 0) || (size != bytes && bytes < (int64_t)8 << 30))
        XKD_FAIL(XKD_ERR_DATA, "%s: is another archive than was indexed (xkd data index)", archive);
fail:
    return status;
}
