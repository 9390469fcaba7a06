/* Lists of samples from a folder tree. Whatever the order on disk, samples are sorted
 * by path: their numbers seed the random draws, so they must be the same everywhere. */
#include "data/index.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/added.h"
#include "data/links.h"
#include "data/pack.h"
#include "data/tar.h"

/* Links may form loops; real data sets are a few folders deep. */
enum { MAX_DEPTH = 16 };

/* By name only: whether a file really is one is found out when it is opened. The usual endings of the containers that
 * media/open.c reads, as docs/media-formats.md lists them. */
static const char *const EXTENSIONS[] = {"mp4",  "m4v", "m4a",  "m4b", "m4r",  "mov",  "qt",   "3gp",  "3g2", "3gpp",
                                         "mj2",  "f4v", "f4a",  "mkv", "mka",  "mk3d", "webm", "weba", "avi", "divx",
                                         "mpg",  "mpe", "vob",  "m2p", "mpeg", "ts",   "mts",  "m2ts", "m2t", "tp",
                                         "trp",  "flv", "wmv",  "wma", "asf",  "ogv",  "oga",  "ogg",  "ogm", "ogx",
                                         "opus", "wav", "wave", "bwf", "flac", "mp3",  "mp2",  "mpga"};
/* Folder names that mean a split, and how it is called here. */
static const char *const SPLITS[][2] = {
    {"train", "train"}, {"test", "test"},    {"val", "val"},        {"training", "train"}, {"testing", "test"},
    {"valid", "val"},   {"validate", "val"}, {"validation", "val"}, {"eval", "test"},      {"evaluation", "test"}};

/* What a folder is, by whatever name. */
typedef struct {
    dev_t device;
    ino_t number;
} folder_id;

typedef struct {
    xkd_context *cx;
    const char *root; /* folder that paths are relative to */
    bool follow_links;
    xkd_manifest *manifest;
    int64_t skipped;               /* files that are no media by name */
    int64_t links;                 /* folders that links lead to and that were passed over */
    xkd_names *archives;           /* tar files; NULL: they are passed over */
    folder_id open[MAX_DEPTH + 2]; /* the folders on the way down, to notice a loop */
} scan;

bool xkd_is_media_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof EXTENSIONS / sizeof *EXTENSIONS; i++)
        if (!strcasecmp(dot + 1, EXTENSIONS[i])) return true;
    return false;
}

bool xkd_is_system_name(const char *name)
{
    static const char *const names[] = {"lost+found", "$RECYCLE.BIN", "System Volume Information",
                                        "__MACOSX",   "@eaDir",       "#recycle"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcasecmp(name, names[i])) return true;
    return name[0] == '.';
}

/* Any case of letters. NULL for a folder that is a class. */
const char *xkd_split_of(const char *folder)
{
    for (size_t i = 0; i < sizeof SPLITS / sizeof *SPLITS; i++)
        if (!strcasecmp(folder, SPLITS[i][0])) return SPLITS[i][1];
    return NULL;
}

/* The two functions call each other once per folder level. */
static xkd_status scan_folder(scan *s, const char *relative, int depth);

/* Takes the path over. */
static xkd_status add_archive(scan *s, char **path)
{
    xkd_names *a = s->archives;
    xkd_status status = xkd_reserve(s->cx, &a->items, a->count, &a->capacity, sizeof *a->items);
    if (status != XKD_OK) return status;
    a->items[a->count++] = *path;
    *path = NULL;
    return XKD_OK;
}

/* An entry that vanishes while the folder is read is passed over. */
static xkd_status scan_entry(scan *s, const char *relative, const struct dirent *entry, int depth)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = s->cx;
    char *path = NULL, *full = NULL;
    const char *name = entry->d_name;
    struct stat info = {.st_mode = S_IFREG};
    if (relative[0])
        XKD_TRY(xkd_join_path(cx, &path, relative, name));
    else
        XKD_TRY(xkd_copy_string(cx, &path, name));
    XKD_TRY(xkd_join_path(cx, &full, s->root, path));
    /* Most entries are plain files and most file systems say so: no look at each of a million files. */
    if (entry->d_type != DT_REG && lstat(full, &info) != 0) goto fail;
    /* lstat first: whether a link to a folder is followed is the user's decision. */
    bool link = S_ISLNK(info.st_mode);
    if (link && stat(full, &info) != 0) info.st_mode = S_IFREG; /* a dangling link: `data check` reports it */
    if (S_ISDIR(info.st_mode)) {
        /* A link is followed on request only: it may lead out of the data, or into a loop. */
        s->links += link && !s->follow_links;
        if (!link || s->follow_links) XKD_TRY(scan_folder(s, path, depth + 1));
    } else if (S_ISREG(info.st_mode) && xkd_is_media_name(name)) {
        xkd_sample *sample = NULL;
        XKD_TRY(xkd_manifest_add(cx, s->manifest, path, &sample));
    } else if (S_ISREG(info.st_mode) && s->archives && xkd_is_archive_name(name)) {
        XKD_TRY(add_archive(s, &path));
    } else {
        s->skipped++;
    }
fail:
    xkd_free(path);
    xkd_free(full);
    return status;
}

/* A link to a folder above would be followed for ever. */
static xkd_status enter(scan *s, DIR *folder, const char *name, int depth)
{
    struct stat info;
    if (fstat(dirfd(folder), &info) != 0)
        return xkd_fail(s->cx, XKD_ERR_DATA, "%s: cannot read folder: %s (allow reading it, or move it away)", name,
                        strerror(errno));
    s->open[depth] = (folder_id){info.st_dev, info.st_ino};
    for (int i = 0; i < depth; i++)
        if (s->open[i].device == info.st_dev && s->open[i].number == info.st_ino)
            return xkd_fail(s->cx, XKD_ERR_DATA, "%s: is a link to a folder that it lies in: remove it", name);
    return XKD_OK;
}

/* readdir's order does not matter, samples are sorted later. */
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
    if (depth > MAX_DEPTH)
        XKD_FAIL(XKD_ERR_DATA, "%s: more than %d folders deep (index a folder below, or write a list)", full,
                 MAX_DEPTH);
    folder = opendir(full);
    if (!folder)
        XKD_FAIL(XKD_ERR_DATA, "%s: cannot read folder: %s (allow reading it, or move it away)", full, strerror(errno));
    XKD_TRY(enter(s, folder, full, depth));
    for (;;) {
        /* The end of a folder and an error differ in errno alone. */
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (!entry && errno)
            XKD_FAIL(XKD_ERR_DATA, "%s: cannot read all of the folder: %s (give the command again)", full,
                     strerror(errno));
        if (!entry) break;
        if (!xkd_is_system_name(entry->d_name)) XKD_TRY(scan_entry(s, relative, entry, depth));
    }
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

/* The first folder of a path, copied into `out`; false for a file that lies in none. */
static bool first_folder(const char *path, char *out, size_t size)
{
    size_t length = strcspn(path, "/");
    if (!path[length] || length >= size) return false;
    memcpy(out, path, length);
    out[length] = 0;
    return true;
}

/* What the first folders are called. */
typedef struct {
    bool split[sizeof SPLITS / sizeof *SPLITS]; /* by the word they mean, its first row in the table */
    int splits, others;                         /* different splits; whether there are other folders */
    char a_split[NAME_MAX + 1], other[NAME_MAX + 1];
} first_folders;

static first_folders look_at_folders(const xkd_manifest *m)
{
    first_folders f = {0};
    char folder[NAME_MAX + 1];
    for (int64_t i = 0; i < m->count; i++) {
        if (!first_folder(m->samples[i].path, folder, sizeof folder)) continue;
        const char *split = xkd_split_of(folder);
        size_t row = 0;
        while (split && strcmp(SPLITS[row][1], split) != 0) row++;
        if (split && !f.split[row]) f.splits++;
        if (split) f.split[row] = true;
        if (!split) f.others = 1;
        memcpy(split ? f.a_split : f.other, folder, sizeof folder);
    }
    return f;
}

/* Whether the first folders are splits. ESC-50 and FSD50K have a class called train: beside other classes it is one. Two
 * splits beside something else are left to the user: files of another folder would be in both. */
static xkd_status are_splits(xkd_context *cx, const xkd_manifest *m, bool *out)
{
    first_folders f = look_at_folders(m);
    *out = f.splits > 0 && !f.others;
    if (!f.splits || !f.others) return XKD_OK;
    if (f.splits > 1)
        return xkd_fail(
            cx, XKD_ERR_DATA,
            "%s: %s/ and another folder are called like splits, and beside them lies %s/: move it away, or write "
            "a list of path,label,split ('xkd data index LIST')",
            m->root, f.a_split, f.other);
    xkd_log(cx, XKD_LOG_WARN,
            "%s: %s/ is taken for a class, because folders that are no splits, such as %s/, lie beside it", m->root,
            f.a_split, f.other);
    return XKD_OK;
}

/* split/class/..., class/..., or neither, from the path's first folders.
 * Deeper folders do not matter. */
static xkd_status label_by_folder(xkd_context *cx, xkd_manifest *m, bool splits, xkd_sample *sample)
{
    char folder[NAME_MAX + 1];
    const char *path = sample->path;
    if (!first_folder(path, folder, sizeof folder)) return XKD_OK;
    if (splits) {
        xkd_status status = xkd_sample_set_split(cx, m, sample, xkd_split_of(folder));
        if (status != XKD_OK) return status;
        if (!first_folder(path + strlen(folder) + 1, folder, sizeof folder)) return XKD_OK;
    }
    int64_t label;
    xkd_status status = xkd_manifest_class_of(cx, m, folder, true, &label);
    sample->label = (int32_t)label;
    return status;
}

/* Classes get their numbers in alphabetical order, whatever split shows them first.
 * Twice: the first round finds the names, which are then sorted, and the second gives out the
 * numbers. */
static xkd_status label_all(xkd_context *cx, xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    bool splits;
    XKD_TRY(are_splits(cx, m, &splits));
    for (int64_t i = 0; i < m->count; i++) XKD_TRY(label_by_folder(cx, m, splits, &m->samples[i]));
    xkd_manifest_sort_classes(m);
    for (int64_t i = 0; i < m->count; i++) XKD_TRY(label_by_folder(cx, m, splits, &m->samples[i]));
fail:
    return status;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Of a member that stands in its archive twice the first one found is kept. Returns how many went. */
static int64_t sort_and_drop_repeats(xkd_manifest *m, int64_t first)
{
    int64_t kept = first, all = m->count;
    if (all == first) return 0;
    qsort(m->samples + first, (size_t)(all - first), sizeof *m->samples, compare_samples);
    for (int64_t i = first; i < all; i++) {
        bool again = kept > first && !strcmp(m->samples[kept - 1].path, m->samples[i].path);
        if (!again) m->samples[kept++] = m->samples[i];
    }
    m->count = kept;
    return all - kept;
}

/* Members of all archives, in the order of the archives and within them of their names. */
static xkd_status index_archives(xkd_context *cx, xkd_manifest *m, const xkd_names *archives, bool follow_links)
{
    xkd_status status = XKD_OK;
    xkd_tar_labels labels = {0};
    xkd_tar_findings found = {0};
    int64_t first = m->count;
    for (int64_t i = 0; i < archives->count; i++)
        XKD_TRY(xkd_tar_index(cx, m, archives->items[i], follow_links, &labels, &found));
    XKD_TRY(xkd_tar_label(cx, m, first, &labels));
    found.refused += sort_and_drop_repeats(m, first);
    if (found.refused || found.cut_off)
        xkd_log(cx, XKD_LOG_WARN, "%lld members of archives are left out, and %lld archives are cut off%s%s",
                (long long)found.refused, (long long)found.cut_off, found.example[0] ? ": " : "", found.example);
fail:
    xkd_tar_labels_free(&labels);
    return status;
}

xkd_status xkd_index_archive(xkd_context *cx, const char *path, bool follow_links, xkd_manifest *out)
{
    xkd_status status = XKD_OK;
    const char *slash = strrchr(path, '/');
    char *name = (char *)(uintptr_t)(slash ? slash + 1 : path);
    const xkd_names one = {.items = &name, .count = 1};
    *out = (xkd_manifest){.named = true};
    XKD_TRY(xkd_format_string(cx, &out->root, "%.*s", slash ? (int)(slash - path) + (slash == path) : 1,
                              slash ? path : "."));
    XKD_TRY(index_archives(cx, out, &one, follow_links));
    if (out->count == 0)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s: holds no media files (docs/media-formats.md lists the endings of files that are taken)", path);
    XKD_TRY(xkd_manifest_look_at_names(cx, out, path));
fail:
    if (status != XKD_OK) xkd_manifest_free(out);
    return status;
}

xkd_status xkd_index_folder(xkd_context *cx, const char *folder, bool follow_links, xkd_manifest *out, int64_t *skipped)
{
    xkd_status status = XKD_OK;
    xkd_names archives = {0};
    *out = (xkd_manifest){0};
    scan s = {.cx = cx, .root = folder, .follow_links = follow_links, .manifest = out, .archives = &archives};
    if (!xkd_is_folder(folder)) XKD_FAIL(XKD_ERR_DATA, "%s: no such folder (check the path)", folder);
    /* Paths are stored relative to the folder, so the manifest can move with it. */
    XKD_TRY(xkd_copy_string(cx, &out->root, folder));
    XKD_TRY(scan_folder(&s, "", 0));
    int64_t files = out->count;
    if (files && archives.count)
        XKD_FAIL(XKD_ERR_DATA, "%s: holds files and archives, such as %s and %s: index them apart", folder,
                 out->samples[0].path, archives.items[0]);
    if (archives.count) qsort(archives.items, (size_t)archives.count, sizeof *archives.items, compare_names);
    XKD_TRY(index_archives(cx, out, &archives, follow_links));
    if (out->count == 0)
        XKD_FAIL(XKD_ERR_DATA, "%s: no video files in it (%lld other files)", folder, (long long)s.skipped);
    if (files) {
        qsort(out->samples, (size_t)out->count, sizeof *out->samples, compare_samples);
        XKD_TRY(label_all(cx, out));
    }
    XKD_TRY(xkd_manifest_look_at_names(cx, out, folder));
    if (s.links)
        xkd_log(cx, XKD_LOG_WARN, "%s: %lld links to folders passed over (--follow-links takes what is in them)",
                folder, (long long)s.links);
    if (skipped) *skipped = s.skipped;
fail:
    xkd_free_names(&archives);
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
    if (!xkd_path_exists(path)) XKD_FAIL(XKD_ERR_DATA, "%s: no such folder or manifest (check the path)", path);
    if (xkd_is_pack(path)) return xkd_pack_read(cx, path, out);
    if (xkd_is_archive_name(path) && !xkd_is_folder(path)) return xkd_index_archive(cx, path, follow_links, out);
    /* A file is taken as a manifest whatever it is called. */
    if (xkd_is_folder(path))
        XKD_TRY(xkd_join_path(cx, &inside, path, "manifest.jsonl"));
    else
        XKD_TRY(xkd_copy_string(cx, &inside, path));
    bool listed = xkd_path_exists(inside);
    if (listed)
        XKD_TRY(xkd_manifest_read(cx, inside, out));
    else
        XKD_TRY(xkd_index_folder(cx, path, follow_links, out, &skipped));
    if (listed) XKD_TRY(xkd_manifest_look_at_names(cx, out, inside));
    XKD_TRY(xkd_manifest_check_fact(cx, out, inside, follow_links));
    if (listed && xkd_is_folder(path)) {
        status = xkd_warn_of_added(cx, path, inside, follow_links, out);
        /* What the manifest names may be in order all the same, also beside a folder that may not be read. */
        if (status == XKD_ERR_DATA || status == XKD_ERR_STORAGE) {
            xkd_log(cx, XKD_LOG_WARN, "%s", xkd_last_error(cx));
            xkd_clear_error(cx);
            status = XKD_OK;
        }
        XKD_TRY(status);
    }
fail:
    if (status != XKD_OK) xkd_manifest_free(out);
    xkd_free(inside);
    return status;
}
