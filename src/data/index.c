/* Lists of samples from a folder tree or a text file. Whatever the order on disk, samples are sorted
 * by path: their numbers seed the random draws, so they must be the same everywhere. */
#include "data/index.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/file.h"

/* Links may form loops; real data sets are a few folders deep. */
enum { MAX_DEPTH = 16 };
static const int64_t MAX_LIST_BYTES = (int64_t)1 << 30;

/* By name only: whether a file really is one is found out when it is opened. */
static const char *const EXTENSIONS[] = {"mp4", "m4v", "mov",  "mkv",  "webm", "avi", "mpg", "mpeg",
                                         "ts",  "mts", "m2ts", "flv",  "wmv",  "asf", "ogv", "ogg",
                                         "3gp", "3g2", "wav",  "flac", "mp3",  "m4a"};
/* Folder names that mean a split, and how it is called here. */
static const char *const SPLITS[][2] = {{"train", "train"}, {"test", "test"},      {"val", "val"},
                                        {"valid", "val"},   {"validation", "val"}, {"eval", "test"}};

typedef struct {
    xkd_context *cx;
    const char *root; /* folder that paths are relative to */
    bool follow_links;
    xkd_manifest *manifest;
    int64_t skipped; /* files that are no media by name */
} scan;

bool xkd_is_media_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof EXTENSIONS / sizeof *EXTENSIONS; i++)
        if (!strcasecmp(dot + 1, EXTENSIONS[i])) return true;
    return false;
}

/* Any case of letters. NULL for a folder that is a class. */
static const char *split_of(const char *folder)
{
    for (size_t i = 0; i < sizeof SPLITS / sizeof *SPLITS; i++)
        if (!strcasecmp(folder, SPLITS[i][0])) return SPLITS[i][1];
    return NULL;
}

/* The two functions call each other once per folder level. */
static xkd_status scan_folder(scan *s, const char *relative, int depth);

/* An entry that vanishes while the folder is read is passed over. */
static xkd_status scan_entry(scan *s, const char *relative, const char *name, int depth)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = s->cx;
    char *path = NULL, *full = NULL;
    struct stat info;
    if (relative[0])
        XKD_TRY(xkd_join_path(cx, &path, relative, name));
    else
        XKD_TRY(xkd_copy_string(cx, &path, name));
    XKD_TRY(xkd_join_path(cx, &full, s->root, path));
    if (lstat(full, &info) != 0) goto fail;
    /* lstat first: whether a link to a folder is followed is the user's decision. */
    bool link = S_ISLNK(info.st_mode);
    if (link && stat(full, &info) != 0) info.st_mode = S_IFREG; /* a dangling link: `data check` reports it */
    if (S_ISDIR(info.st_mode)) {
        /* A link is followed on request only: it may lead out of the data, or into a loop. */
        if (!link || s->follow_links) XKD_TRY(scan_folder(s, path, depth + 1));
    } else if (S_ISREG(info.st_mode) && xkd_is_media_name(name)) {
        xkd_sample *sample = NULL;
        XKD_TRY(xkd_manifest_add(cx, s->manifest, path, &sample));
    } else {
        s->skipped++;
    }
fail:
    xkd_free(path);
    xkd_free(full);
    return status;
}

/* Hidden files and folders are left out. readdir's order does not matter, samples are sorted later. */
static xkd_status scan_folder(scan *s, const char *relative, int depth)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = s->cx;
    char *full = NULL;
    DIR *folder = NULL;
    if (relative[0])
        XKD_TRY(xkd_join_path(cx, &full, s->root, relative));
    else
        XKD_TRY(xkd_copy_string(cx, &full, s->root));
    /* The depth is what ends a loop of links. */
    if (depth > MAX_DEPTH) XKD_FAIL(XKD_ERR_DATA, "%s: more than %d folders deep (a loop of links?)", full, MAX_DEPTH);
    folder = opendir(full);
    if (!folder) XKD_FAIL(XKD_ERR_DATA, "%s: cannot read folder: %s", full, strerror(errno));
    /* An error while reading ends the loop like the folder's end. */
    for (const struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.') XKD_TRY(scan_entry(s, relative, entry->d_name, depth));
fail:
    if (folder) closedir(folder);
    xkd_free(full);
    return status;
}

/* Byte order, independent of the locale. */
static int compare_samples(const void *a, const void *b)
{
    return strcmp(((const xkd_sample *)a)->path, ((const xkd_sample *)b)->path);
}

/* split/class/..., class/..., or neither, from the path's first folders.
 * Deeper folders do not matter. */
static xkd_status label_by_folder(xkd_context *cx, xkd_manifest *m, xkd_sample *sample)
{
    xkd_status status = XKD_OK;
    char *copy = NULL, *save = NULL;
    XKD_TRY(xkd_copy_string(cx, &copy, sample->path));
    /* The file's own name is not a folder. */
    char *name = strrchr(copy, '/');
    if (!name) goto fail;
    *name = 0;
    char *folder = strtok_r(copy, "/", &save);
    const char *split = folder ? split_of(folder) : NULL;
    if (split) {
        snprintf(sample->split, sizeof sample->split, "%s", split);
        folder = strtok_r(NULL, "/", &save);
    }
    if (folder) XKD_TRY(xkd_manifest_class(cx, m, folder, true, &sample->label));
fail:
    xkd_free(copy);
    return status;
}

/* Pointers to names, in byte order like the samples. */
static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Classes get their numbers in alphabetical order, whatever split shows them first.
 * Twice: the first round finds the names, which are then sorted, and the second gives out the
 * numbers. */
static xkd_status label_all(xkd_context *cx, xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    for (int64_t i = 0; i < m->count; i++) XKD_TRY(label_by_folder(cx, m, &m->samples[i]));
    if (m->class_count) qsort(m->classes, (size_t)m->class_count, sizeof *m->classes, compare_names);
    for (int64_t i = 0; i < m->count; i++) XKD_TRY(label_by_folder(cx, m, &m->samples[i]));
fail:
    return status;
}

xkd_status xkd_index_folder(xkd_context *cx, const char *folder, bool follow_links, xkd_manifest *out, int64_t *skipped)
{
    xkd_status status = XKD_OK;
    *out = (xkd_manifest){0};
    scan s = {.cx = cx, .root = folder, .follow_links = follow_links, .manifest = out};
    if (!xkd_is_folder(folder)) XKD_FAIL(XKD_ERR_DATA, "%s: no such folder", folder);
    /* Paths are stored relative to the folder, so the manifest can move with it. */
    XKD_TRY(xkd_copy_string(cx, &out->root, folder));
    XKD_TRY(scan_folder(&s, "", 0));
    if (out->count == 0)
        XKD_FAIL(XKD_ERR_DATA, "%s: no video files in it (%lld other files)", folder, (long long)s.skipped);
    qsort(out->samples, (size_t)out->count, sizeof *out->samples, compare_samples);
    XKD_TRY(label_all(cx, out));
    if (skipped) *skipped = s.skipped;
fail:
    if (status != XKD_OK) xkd_manifest_free(out);
    return status;
}

/* In place; also takes the carriage return of files from Windows. */
static char *trim(char *text)
{
    while (isspace((unsigned char)*text)) text++;
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1])) *--end = 0;
    return text;
}

/* Cuts a line into path, label, split; missing ones are "".
 * With commas a path may hold blanks; without, the last blank separates the label, so it may as well. */
static void cut_line(char *line, char *fields[3])
{
    static char NOTHING[1];
    fields[0] = line;
    fields[1] = fields[2] = NOTHING;
    char *comma = strchr(line, ',');
    if (comma) {
        *comma = 0;
        fields[1] = comma + 1;
        char *second = strchr(fields[1], ',');
        if (second) {
            *second = 0;
            /* Unsplit words beyond two commas end up in the split, which is then too long or unknown. */
            fields[2] = trim(second + 1);
        }
    } else {
        char *blank = strrchr(line, ' '), *tab = strrchr(line, '\t');
        /* Whichever stands last: a list may use either. */
        if (tab > blank) blank = tab;
        if (blank) {
            *blank = 0;
            fields[1] = blank + 1;
        }
    }
    fields[0] = trim(fields[0]);
    fields[1] = trim(fields[1]);
}

/* A label is a number or a name; which of them the list uses is checked once it has been read. */
static xkd_status add_line(xkd_context *cx, xkd_manifest *m, const char *list, int64_t number, char *line)
{
    xkd_status status = XKD_OK;
    char *fields[3], *end = NULL;
    xkd_sample *sample = NULL;
    cut_line(line, fields);
    const char *path = fields[0];
    /* As `find . -name '*.mp4'` writes it. */
    while (!strncmp(path, "./", 2)) path += 2;
    /* A list is input: it must not lead out of the data folder, nor name what the manifest's reader refuses. */
    if (!xkd_manifest_path_is_plain(path))
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: path \"%s\" must be relative and inside the root (--root DIR)", list,
                 (long long)number, path);
    XKD_TRY(xkd_manifest_add(cx, m, path, &sample));
    if (strlen(fields[2]) >= sizeof sample->split)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: split \"%s\" is too long", list, (long long)number, fields[2]);
    snprintf(sample->split, sizeof sample->split, "%.*s", (int)sizeof sample->split - 1, fields[2]);
    if (!fields[1][0]) return XKD_OK;
    errno = 0;
    /* strtoll needs all of the field; "12abc" is a name. */
    long long value = strtoll(fields[1], &end, 10);
    if (*end == 0) {
        if (errno || value < 0 || value > 999999)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: label %s is out of range 0 .. 999999", list, (long long)number, fields[1]);
        sample->label = value;
    } else {
        int64_t label;
        XKD_TRY(xkd_manifest_class(cx, m, fields[1], true, &label));
        sample->label = label;
    }
fail:
    return status;
}

/* Blank lines and lines that begin with # are skipped. The list need not be sorted. */
xkd_status xkd_index_list(xkd_context *cx, const char *list, const char *root, xkd_manifest *out)
{
    xkd_status status = XKD_OK;
    char *text = NULL, *save = NULL;
    int64_t size = 0, number = 0;
    *out = (xkd_manifest){0};
    XKD_TRY(xkd_read_file(cx, list, MAX_LIST_BYTES, XKD_ERR_DATA, &text, &size));
    if (memchr(text, 0, (size_t)size)) XKD_FAIL(XKD_ERR_DATA, "%s: is no text file", list);
    XKD_TRY(xkd_copy_string(cx, &out->root, root));
    for (char *line = text; line; line = save) {
        save = strchr(line, '\n');
        if (save) *save++ = 0;
        number++;
        line = trim(line);
        if (!line[0] || line[0] == '#') continue;
        if (number == 1 && !strncmp(line, "path,", 5)) continue; /* a CSV header */
        XKD_TRY(add_line(cx, out, list, number, line));
    }
    if (out->count == 0) XKD_FAIL(XKD_ERR_DATA, "%s: no lines \"path label\" or \"path,label[,split]\" in it", list);
    /* Whether numbers or names were used shows in whether any class was made. */
    bool numbers = out->class_count == 0;
    qsort(out->samples, (size_t)out->count, sizeof *out->samples, compare_samples);
    /* Neighbours after sorting. A sample listed twice would count twice in every epoch and once in
     * the user's mind. */
    for (int64_t i = 1; i < out->count; i++)
        if (!strcmp(out->samples[i - 1].path, out->samples[i].path))
            XKD_FAIL(XKD_ERR_DATA, "%s: path \"%s\" stands there twice (remove one)", list, out->samples[i].path);
    if (!numbers)
        for (int64_t i = 0; i < out->count; i++)
            if (out->samples[i].label >= out->class_count)
                XKD_FAIL(XKD_ERR_DATA, "%s: label %lld of \"%s\" is a number where others are names", list,
                         (long long)out->samples[i].label, out->samples[i].path);
fail:
    xkd_free(text);
    if (status != XKD_OK) xkd_manifest_free(out);
    return status;
}

/* A folder with a manifest is taken by it: it holds what an index over the folder cannot know, such
 * as lengths and hashes. */
xkd_status xkd_manifest_load(xkd_context *cx, const char *path, bool follow_links, xkd_manifest *out)
{
    xkd_status status = XKD_OK;
    char *inside = NULL;
    int64_t skipped = 0;
    *out = (xkd_manifest){0};
    if (!path || !path[0]) XKD_FAIL(XKD_ERR_CONFIG, "no data given: --data DIR or MANIFEST");
    if (!xkd_path_exists(path)) XKD_FAIL(XKD_ERR_DATA, "%s: no such folder or manifest", path);
    /* A file is taken as a manifest whatever it is called. */
    if (!xkd_is_folder(path)) return xkd_manifest_read(cx, path, out);
    XKD_TRY(xkd_join_path(cx, &inside, path, "manifest.jsonl"));
    if (xkd_path_exists(inside))
        XKD_TRY(xkd_manifest_read(cx, inside, out));
    else
        XKD_TRY(xkd_index_folder(cx, path, follow_links, out, &skipped));
fail:
    xkd_free(inside);
    return status;
}
