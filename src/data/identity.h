/* What tells the contents of a sample's file from those of another file of the same name. */
#ifndef XKD_DATA_IDENTITY_H
#define XKD_DATA_IDENTITY_H

#include "data/manifest.h"

/* Hash of the manifest's content hash where it has one and the file still has the size it was taken of; else of size and
 * time of change; 0 for a file that is not there. The root is no part of it: a mount elsewhere holds the same files. */
xkd_status xkd_sample_identity(xkd_context *cx, const xkd_manifest *manifest, const xkd_sample *sample, uint64_t *out);

#endif
