/* A folder of videos -> manifest. */
#ifndef XKD_DATA_INDEX_H
#define XKD_DATA_INDEX_H

#include "data/manifest.h"

/* Whether a file's ending is one of a media format; the case does not matter. */
bool xkd_is_media_name(const char *name);

/* Lists the media files below `folder`, by their extensions, sorted by path. Folders named train, test, val, valid,
 * validation or eval are splits; the folders below them (or below `folder` itself) are classes; files that lie in none
 * have no label. Hidden files are left out, links to folders are followed only with follow_links. XKD_ERR_DATA where
 * there is no video. *skipped counts other files. */
xkd_status xkd_index_folder(xkd_context *cx, const char *folder, bool follow_links, xkd_manifest *out,
                            int64_t *skipped);

/* A manifest (*.jsonl), or a folder: its manifest.jsonl if it has one, else its files. */
xkd_status xkd_manifest_load(xkd_context *cx, const char *path, bool follow_links, xkd_manifest *out);

#endif
