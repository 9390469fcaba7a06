/* Whether the files of a set lie inside its root once links are resolved. */
#ifndef XKD_DATA_LINKS_H
#define XKD_DATA_LINKS_H

#include <sys/stat.h>

#include "data/manifest.h"

/* What has been found of the folder looked at last: a set has far fewer folders than files. */
typedef struct {
    char *root, *folder;
    bool folder_out;
} xkd_link_guard;

/* Zero the guard first; free it in any case. A root that is not there has no real path, and nothing lies outside of it. */
xkd_status xkd_link_guard_begin(xkd_context *cx, const xkd_manifest *manifest, xkd_link_guard *out);
void xkd_link_guard_end(xkd_link_guard *guard);

/* *info: of the sample's file, after links; st_mode 0 where there is none. *out: it is reached through a link that leads out of
 * the root. */
xkd_status xkd_link_guard_look(xkd_context *cx, xkd_link_guard *guard, const xkd_manifest *manifest,
                               const xkd_sample *sample, struct stat *info, bool *out);

/* *found: whether any of its files is reached through a link that leads out of the root. XKD_ERR_DATA where
 * there are some and the user has not allowed it (`follow_links`): all of them would be refused when they are opened. Files
 * that are not there are passed over. */
xkd_status xkd_manifest_check_links(xkd_context *cx, const xkd_manifest *manifest, bool follow_links, bool *found);

/* The same by what an index noted, without looking at the files. `path` names the manifest. */
xkd_status xkd_manifest_check_fact(xkd_context *cx, const xkd_manifest *manifest, const char *path, bool follow_links);

/* Whether the real path of a file lies below the real path of a root: /data2 does not lie in /data. */
bool xkd_lies_below(const char *path, const char *root);

#endif
