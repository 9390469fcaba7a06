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

xkd_status xkd_link_guard_begin(xkd_context *cx, const xkd_manifest *m, xkd_link_guard *g)
{
    xkd_status status = XKD_OK;
    char *real = realpath(m->root, NULL);
    if (real) XKD_TRY(xkd_copy_string(cx, &g->root, real));
    XKD_TRY(xkd_alloc(cx, &g->folder, PATH_MAX, 1));
fail:
    free(real);
    return status;
}

void xkd_link_guard_end(xkd_link_guard *g)
{
    xkd_free(g->root);
    xkd_free(g->folder);
    *g = (xkd_link_guard){0};
}

xkd_status xkd_link_guard_look(xkd_context *cx, xkd_link_guard *g, const xkd_manifest *m, const xkd_sample *s,
                               struct stat *info, bool *out)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    *info = (struct stat){0};
    *out = false;
    XKD_TRY(xkd_sample_file(cx, m, s, &path));
    char *slash = strrchr(path, '/');
    if (g->root && slash && strlen(path) < PATH_MAX) {
        *slash = 0;
        if (strcmp(path, g->folder) != 0) {
            strcpy(g->folder, path);
            g->folder_out = leads_out(*path ? path : "/", g->root);
        }
        *slash = '/';
    }
    bool link = lstat(path, info) == 0 && S_ISLNK(info->st_mode);
    if (g->root) *out = link ? leads_out(path, g->root) : g->folder_out;
    if (link && stat(path, info) != 0) *info = (struct stat){0};
fail:
    xkd_free(path);
    return status;
}

xkd_status xkd_manifest_check_links(xkd_context *cx, const xkd_manifest *m, bool follow_links, bool *found)
{
    xkd_status status = XKD_OK;
    xkd_link_guard guard = {0};
    struct stat info;
    bool out;
    const char *first = NULL;
    int64_t count = 0;
    *found = false;
    XKD_TRY(xkd_link_guard_begin(cx, m, &guard));
    for (int64_t i = 0; guard.root && i < m->count; i++) {
        XKD_TRY(xkd_link_guard_look(cx, &guard, m, &m->samples[i], &info, &out));
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
    xkd_link_guard_end(&guard);
    return status;
}

xkd_status xkd_manifest_check_fact(xkd_context *cx, const xkd_manifest *m, const char *path, bool follow_links)
{
    if (!m->follow_links || follow_links) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_DATA,
                    "%s: names files that are reached through links out of %s: allow it with --follow-links", path,
                    m->root);
}
