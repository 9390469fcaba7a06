/* The public interface of manifests: what files there are. */
#include <xkd/clip.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/index.h"
#include "data/links.h"
#include "data/manifest.h"

struct xkd_listing {
    xkd_manifest manifest;
    char **paths; /* [count] root and path */
};

xkd_status xkd_listing_open(xkd_context *cx, const char *path, const char *split, int follow_links, xkd_listing **out)
{
    xkd_status status = XKD_OK;
    xkd_listing *l = NULL;
    bool found;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &l, 1, sizeof *l));
    if (!xkd_path_exists(path)) XKD_FAIL(XKD_ERR_DATA, "%s: no such file or folder (check the path)", path);
    XKD_TRY(xkd_manifest_load(cx, path, follow_links, &l->manifest));
    if (l->manifest.pack)
        XKD_FAIL(XKD_ERR_DATA, "%s: a pack has no files of its own to list (`xkd data unpack` makes some)", path);
    for (int64_t i = 0; i < l->manifest.count; i++)
        if (xkd_sample_archive_length(&l->manifest.samples[i]))
            XKD_FAIL(XKD_ERR_DATA, "%s: %s lies in an archive and has no path of its own (unpack the archive)", path,
                     l->manifest.samples[i].path);
    if (split) xkd_manifest_keep_split(&l->manifest, split);
    if (l->manifest.count == 0 && split)
        XKD_FAIL(XKD_ERR_DATA, "%s: has no file of split '%s' (leave the split out, or name another)", path, split);
    if (l->manifest.count == 0)
        XKD_FAIL(XKD_ERR_DATA, "%s: holds no media files (`xkd data index` says what it passes over)", path);
    /* A reader opens whatever path it is given, so what a stranger's folder points to is asked about here. */
    XKD_TRY(xkd_manifest_check_links(cx, &l->manifest, follow_links, &found));
    XKD_TRY(xkd_alloc(cx, &l->paths, l->manifest.count, sizeof *l->paths));
    for (int64_t i = 0; i < l->manifest.count; i++)
        XKD_TRY(xkd_join_path(cx, &l->paths[i], l->manifest.root, l->manifest.samples[i].path));
    *out = l;
    l = NULL;
fail:
    xkd_listing_close(l);
    return status;
}

void xkd_listing_close(xkd_listing *l)
{
    if (!l) return;
    for (int64_t i = 0; l->paths && i < l->manifest.count; i++) xkd_free(l->paths[i]);
    xkd_free(l->paths);
    xkd_manifest_free(&l->manifest);
    xkd_free(l);
}

int64_t xkd_listing_count(const xkd_listing *l)
{
    return l->manifest.count;
}

xkd_listed_file xkd_listing_file(const xkd_listing *l, int64_t i)
{
    if (i < 0 || i >= l->manifest.count) return (xkd_listed_file){0};
    const xkd_sample *s = &l->manifest.samples[i];
    int64_t labels = xkd_sample_label_count(s);
    return (xkd_listed_file){.path = l->paths[i],
                             .split = s->split,
                             .label = labels ? s->more->labels[0] : s->label,
                             .labels = s->more ? s->more->labels : NULL,
                             .label_count = labels,
                             .video_seconds = s->video_seconds,
                             .audio_seconds = s->audio_seconds};
}

int64_t xkd_listing_class_count(const xkd_listing *l)
{
    return l->manifest.class_count;
}

const char *xkd_listing_class(const xkd_listing *l, int64_t k)
{
    return k >= 0 && k < l->manifest.class_count ? l->manifest.classes[k] : NULL;
}
