/* A folder of videos -> manifest. */
#ifndef XKD_DATA_INDEX_H
#define XKD_DATA_INDEX_H

#include "data/manifest.h"

/* Whether a file's ending is one of a media format; the case does not matter. */
bool xkd_is_media_name(const char *name);

/* Whether a file or folder of this name belongs to a system and not to the data: hidden ones, and the bins, thumbnails and
 * lost pieces that systems keep among people's files. */
bool xkd_is_system_name(const char *name);

/* What a folder's name means as a split: "train", "test", "val"; NULL: nothing. */
const char *xkd_split_of(const char *folder);

/* The samples of one tar archive, whose folder becomes the root. */
xkd_status xkd_index_archive(xkd_context *cx, const char *path, bool follow_links, xkd_manifest *out);

/* Lists the media files below `folder`, by their extensions, sorted by path. Folders whose names xkd_split_of knows are splits;
 * the folders below them (or below `folder` itself) are classes; files that lie in none have no label. In a folder of tar
 * archives their members are the samples (data/tar.h), with labels of their own. Hidden files are left out, links to folders are
 * followed only with follow_links. XKD_ERR_DATA where there is no video. *skipped counts other files. */
xkd_status xkd_index_folder(xkd_context *cx, const char *folder, bool follow_links, xkd_manifest *out,
                            int64_t *skipped);

/* A manifest (*.jsonl), a pack, a tar archive, or a folder: its manifest.jsonl if it has one, else its files. */
xkd_status xkd_manifest_load(xkd_context *cx, const char *path, bool follow_links, xkd_manifest *out);

#endif
