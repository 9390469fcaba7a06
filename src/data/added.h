/* Files that have come into a folder behind its manifest. */
#ifndef XKD_DATA_ADDED_H
#define XKD_DATA_ADDED_H

#include "data/manifest.h"

/* Warns of files in `folder` that its manifest at `path`, read into *m, hides. Only folders that were changed since are looked
 * into, and those in them that it has no file of: a set of ten million files has a thousandth as many folders. What an index left
 * out was there before. */
xkd_status xkd_warn_of_added(xkd_context *cx, const char *folder, const char *path, bool follow_links,
                             const xkd_manifest *m);

#endif
