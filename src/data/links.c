/* One look a folder and one a file: a set has far fewer folders than files, and most files are no links. */
#include "data/links.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/file.h"

bool xkd_lies_below(const char *path, const char *root)
{
    size_t length = strlen(root);
    if (strcmp(root, "/") == 0) return true;
    return strncmp(path, root, length) == 0 && path[length] == '/';
}

/* Whether what a path resolves to lies outside. False for what is not there. */
static bool leads_out(const char *path, const char *root)
{
    char *real = realpath(path, NULL);
    bool out = real && strcmp(real, root) != 0 && !xkd_lies_below(real, root);
    free(real);
    return out;
}

/* Of one file; `folder` is the last one looked at, with what was found of it. */
static xkd_status look(xkd_context *cx, const xkd_manifest *m, const xkd_sample *s, const char *root, char *folder,
                       bool *folder_out, bool *out)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    struct stat info;
    XKD_TRY(xkd_join_path(cx, &path, m->root, s->path));
    char *slash = strrchr(path, '/');
    if (slash && strlen(path) < PATH_MAX) {
        *slash = 0;
        if (strcmp(path, folder) != 0) {
            strcpy(folder, path);
            *folder_out = leads_out(*path ? path : "/", root);
        }
        *slash = '/';
    }
    bool link = lstat(path, &info) == 0 && S_ISLNK(info.st_mode);
    *out = link ? leads_out(path, root) : *folder_out;
fail:
    xkd_free(path);
    return status;
}

xkd_status xkd_manifest_check_links(xkd_context *cx, const xkd_manifest *m, bool follow_links, bool *found)
{
    xkd_status status = XKD_OK;
    char folder[PATH_MAX] = "", *root = realpath(m->root, NULL);
    bool folder_out = false, out;
    const char *first = NULL;
    int64_t count = 0;
    for (int64_t i = 0; root && i < m->count; i++) {
        XKD_TRY(look(cx, m, &m->samples[i], root, folder, &folder_out, &out));
        if (out && !first) first = m->samples[i].path;
        count += out;
    }
    *found = count > 0;
    if (count && !follow_links)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s: %" PRId64 " of %" PRId64
                 " files are reached through links that lead out of this folder, such as %s: "
                 "allow it with --follow-links",
                 m->root, count, m->count, first);
fail:
    free(root);
    return status;
}

xkd_status xkd_manifest_check_fact(xkd_context *cx, const xkd_manifest *m, const char *path, bool follow_links)
{
    if (!m->follow_links || follow_links) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_DATA,
                    "%s: names files that are reached through links out of %s: allow it with --follow-links", path,
                    m->root);
}
