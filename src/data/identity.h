/* What tells the contents of a sample's file from those of another file of the same name. */
#ifndef XKD_DATA_IDENTITY_H
#define XKD_DATA_IDENTITY_H

#include "data/manifest.h"

/* The manifest's hash of the contents, where it has one and the file is still the one it was made of: by size, and by time of
 * change where the manifest has it. Else of size and time of change; 0 for a file that is not there and has no hash. The root
 * is no part of it: a mount elsewhere holds the same files. */
xkd_status xkd_sample_identity(xkd_context *cx, const xkd_manifest *manifest, const xkd_sample *sample, uint64_t *out);

/* Of what is there now: size and time of change as they were found, whatever the manifest says. */
uint64_t xkd_stamp_identity(const xkd_sample *sample, int64_t bytes, int64_t modified);

/* XXH3-128 as 32 hex digits; the descriptor is read with pread. XKD_HASH_FULL: of all contents. XKD_HASH_HEAD: of the size and
 * the first and the last 64 KiB, where containers have their indexes: files that were encoded, cut or tagged differently, and
 * downloads that are not complete, differ there, while a change in the middle alone goes unseen. */
xkd_status xkd_hash_file(xkd_context *cx, const xkd_source *file, int of, char out[33]);

#endif
