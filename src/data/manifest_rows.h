/* Rows of a manifest one by one, for logs of what is being found about a set. */
#ifndef XKD_DATA_MANIFEST_ROWS_H
#define XKD_DATA_MANIFEST_ROWS_H

#include <jansson.h>

#include "data/manifest.h"

/* The row of a sample, as it stands in a manifest; the caller may add keys. */
xkd_status xkd_sample_to_json(xkd_context *cx, const xkd_sample *sample, json_t **out);

/* Appends the sample of a row, with the checks of a manifest. Keys that are not known are passed over. */
xkd_status xkd_manifest_add_json(xkd_context *cx, xkd_manifest *manifest, const char *file, int64_t line,
                                 const json_t *row);

/* The same for record `number` of a pack's shard `file`, whose row is this text; it is changed in between. Classes
 * are those that the manifest has by now, if any. *said: why the file could not be packed, in `texts`; NULL where nothing is said. */
xkd_status xkd_manifest_add_packed(xkd_context *cx, xkd_manifest *manifest, const char *file, int64_t number,
                                   char *text, int64_t size, xkd_pieces *texts, const char **said);

/* Makes the samples those of the pack that have their paths; XKD_ERR_DATA names `file` and the first that is in none. */
xkd_status xkd_manifest_attach(xkd_context *cx, xkd_manifest *manifest, const char *file, const char *pack);

/* Gives *to, of `manifest`, all that *from says of its file, but neither name, place, labels nor split. */
xkd_status xkd_sample_take_facts(xkd_context *cx, xkd_manifest *manifest, xkd_sample *to, const xkd_sample *from);

/* And these as well. */
xkd_status xkd_sample_take_all(xkd_context *cx, xkd_manifest *manifest, xkd_sample *to, const xkd_sample *from);

/* Sets both, in `more` where it is needed. */
xkd_status xkd_sample_set_step_and_track(xkd_context *cx, xkd_manifest *manifest, xkd_sample *sample, double clock_step,
                                         int64_t audio_track);

/* Copies the path into the manifest, with room for a hash before it or without. */
xkd_status xkd_sample_place_path(xkd_context *cx, xkd_manifest *manifest, xkd_sample *sample, const char *path,
                                 bool hash_room);

/* Whether a text is a hash as xkd_sample_set_hash takes it. */
bool xkd_is_hash(const char *text);

#endif
