/* A file that is added changes the time of its folder, and so does a folder that is. The time of change of a file is its arrival
 * here, also where a copy keeps the time of writing. */
#include "data/added.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/index.h"

typedef struct {
    xkd_context *cx;
    const char *root;
    bool follow_links;
    struct timespec written; /* of the manifest */
    xkd_manifest folders;    /* their names, relative to the root, as classes: a table that finds them */
    xkd_manifest found;      /* files that came later than the manifest */
} look;

/* Or at the same time: file systems count in ticks of some milliseconds. */
static bool is_later(struct timespec a, struct timespec b)
{
    return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec >= b.tv_nsec);
}

/* With all that it lies in, up to the root, which is "". */
static xkd_status note_folder(look *l, char *name)
{
    xkd_status status = XKD_OK;
    int64_t number;
    for (;;) {
        int64_t had = l->folders.class_count;
        XKD_TRY(xkd_manifest_class(l->cx, &l->folders, name, true, &number));
        if (l->folders.class_count == had || !*name) break;
        char *slash = strrchr(name, '/');
        *(slash ? slash : name) = 0;
    }
fail:
    return status;
}

/* Rows of one folder mostly stand together. */
static xkd_status note_folders(look *l, const xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    const char *last = "";
    size_t last_length = 0;
    char *name = NULL;
    for (int64_t i = 0; i < m->count; i++) {
        const char *path = m->samples[i].path, *slash = strrchr(path, '/');
        size_t length = slash ? (size_t)(slash - path) : 0;
        if (i && length == last_length && !memcmp(path, last, length)) continue;
        xkd_free(name);
        XKD_TRY(xkd_format_string(l->cx, &name, "%.*s", (int)length, path));
        XKD_TRY(note_folder(l, name));
        last = path;
        last_length = length;
    }
fail:
    xkd_free(name);
    return status;
}

/* As deep as an index goes. */
static bool is_deep(const char *name)
{
    int depth = 0;
    for (; *name; name++) depth += *name == '/';
    return depth > 16;
}

/* One entry of a folder that was changed: a file that came later, or a folder that may have been. */
static xkd_status look_at_entry(look *l, char *relative)
{
    xkd_status status = XKD_OK;
    char *full = NULL;
    struct stat info;
    xkd_sample *s;
    XKD_TRY(xkd_join_path(l->cx, &full, l->root, relative));
    if (lstat(full, &info) != 0) goto fail;
    bool later = is_later(info.st_ctim, l->written), link = S_ISLNK(info.st_mode);
    if (link && stat(full, &info) != 0) goto fail;
    if (S_ISREG(info.st_mode) && later && xkd_is_media_name(relative))
        XKD_TRY(xkd_manifest_add(l->cx, &l->found, relative, &s));
    else if (S_ISDIR(info.st_mode) && (!link || l->follow_links) && !is_deep(relative))
        XKD_TRY(note_folder(l, relative));
fail:
    xkd_free(full);
    return status;
}

static xkd_status look_into(look *l, const char *relative, const char *full)
{
    xkd_status status = XKD_OK;
    xkd_names names = {0};
    char *path = NULL;
    XKD_TRY(xkd_list_folder(l->cx, full, &names));
    for (int64_t i = 0; i < names.count; i++) {
        if (xkd_is_system_name(names.items[i])) continue;
        xkd_free(path);
        path = NULL;
        if (*relative)
            XKD_TRY(xkd_join_path(l->cx, &path, relative, names.items[i]));
        else
            XKD_TRY(xkd_copy_string(l->cx, &path, names.items[i]));
        XKD_TRY(look_at_entry(l, path));
    }
fail:
    xkd_free(path);
    xkd_free_names(&names);
    return status;
}

/* The list of folders grows while it is gone through. A folder that is new to it may have been copied with its time. */
static xkd_status look_into_changed(look *l)
{
    xkd_status status = XKD_OK;
    char *full = NULL;
    struct stat info;
    int64_t known = l->folders.class_count;
    for (int64_t k = 0; k < l->folders.class_count; k++) {
        const char *name = l->folders.classes[k];
        xkd_free(full);
        full = NULL;
        if (*name)
            XKD_TRY(xkd_join_path(l->cx, &full, l->root, name));
        else
            XKD_TRY(xkd_copy_string(l->cx, &full, l->root));
        if (stat(full, &info) == 0 && S_ISDIR(info.st_mode) && (k >= known || is_later(info.st_mtim, l->written)))
            XKD_TRY(look_into(l, name, full));
    }
fail:
    xkd_free(full);
    return status;
}

/* Of the files found those that the manifest does not have, and the first of them in byte order. */
static xkd_status count_unknown(look *l, const xkd_manifest *m, int64_t *count, const char **example)
{
    xkd_status status = XKD_OK;
    xkd_manifest table = {0};
    uint8_t *known = NULL;
    int64_t n = l->found.count, number;
    for (int64_t i = 0; i < n; i++) XKD_TRY(xkd_manifest_class(l->cx, &table, l->found.samples[i].path, true, &number));
    XKD_TRY(xkd_alloc(l->cx, &known, n, 1));
    for (int64_t i = 0; n && i < m->count; i++) {
        XKD_TRY(xkd_manifest_class(l->cx, &table, m->samples[i].path, false, &number));
        if (number >= 0) known[number] = 1;
    }
    for (int64_t i = 0; i < n; i++) {
        const char *path = l->found.samples[i].path;
        if (known[i]) continue;
        ++*count;
        if (!*example || strcmp(path, *example) < 0) *example = path;
    }
fail:
    xkd_free(known);
    xkd_manifest_free_classes(&table);
    return status;
}

xkd_status xkd_warn_of_added(xkd_context *cx, const char *folder, const char *path, bool follow_links,
                             const xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    look l = {.cx = cx, .root = folder, .follow_links = follow_links};
    struct stat written, root, info;
    int64_t added = 0;
    const char *example = NULL;
    /* A manifest of files elsewhere, or in a pack, says nothing of this folder. */
    if (stat(path, &written) != 0 || stat(folder, &info) != 0 || stat(m->root, &root) != 0) return XKD_OK;
    if (info.st_dev != root.st_dev || info.st_ino != root.st_ino) return XKD_OK;
    l.written = written.st_mtim;
    XKD_TRY(note_folders(&l, m));
    XKD_TRY(look_into_changed(&l));
    XKD_TRY(count_unknown(&l, m, &added, &example));
    if (added)
        xkd_log(
            cx, XKD_LOG_WARN,
            "%s: does not have %lld files that were added to the folder since, such as %s ('xkd data index %s' takes "
            "them in)",
            path, (long long)added, example, folder);
fail:
    xkd_manifest_free(&l.folders);
    xkd_manifest_free(&l.found);
    return status;
}
