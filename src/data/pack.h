/* A pack: a folder of shards with the decoded clips of a manifest, taken wherever a manifest is (docs/pack-format.md). Its
 * samples are those of the manifest in the same order, so that draws are the same; a file that could not be packed keeps
 * its place and its fault. */
#ifndef XKD_DATA_PACK_H
#define XKD_DATA_PACK_H

#include <stdbool.h>

#include <xkd/clip.h>

#include "data/manifest.h"
#include "media/record.h"

#define XKD_SHARD_ENDING ".xkdpack"
#define XKD_PACK_FILE "pack.json"
#define XKD_FIRST_SHARD "000000000000" XKD_SHARD_ENDING /* shards are named by their first sample */

/* What all records have in common. */
typedef struct {
    int64_t samples;    /* of the manifest */
    int64_t short_side; /* 0: as in the files */
    xkd_record_options record;
    bool streams[XKD_MODALITIES];
    bool stream_colour, hold_last_frame;
    int64_t audio_track;
    int64_t shard_bytes; /* that a shard is meant to have */
    uint64_t rows;       /* of the manifest: names, labels, splits */
} xkd_pack_settings;

/* As text, with the classes of the manifest: what stands in pack.json and in front of each shard. The caller frees *out. */
xkd_status xkd_pack_settings_write(xkd_context *cx, const xkd_pack_settings *settings, const xkd_manifest *classes,
                                   char **out);
/* The other way; classes are added to those of *classes. XKD_ERR_DATA names `file`. */
xkd_status xkd_pack_settings_read(xkd_context *cx, const char *file, const char *text, xkd_pack_settings *out,
                                  xkd_manifest *classes);

typedef struct xkd_pack xkd_pack;

/* Whether a folder is a pack, whole or not. */
bool xkd_is_pack(const char *path);

/* Reads the indexes. The manifest's samples have their numbers in the pack, which it keeps. XKD_ERR_DATA where shards are
 * missing, damaged or of another pack. */
xkd_status xkd_pack_read(xkd_context *cx, const char *folder, xkd_manifest *out);

xkd_pack *xkd_pack_share(xkd_pack *pack);
void xkd_pack_release(xkd_pack *pack); /* NULL is allowed */

const char *xkd_pack_folder(const xkd_pack *pack);
const xkd_pack_settings *xkd_pack_about(const xkd_pack *pack);

/* Opens record number `record`: the caller closes out->fd. A fault that it was packed with, or that its shard has now, is
 * XKD_ERR_DATA with *fault. Threads may share the pack. */
xkd_status xkd_pack_open(xkd_context *cx, xkd_pack *pack, int64_t record, xkd_source *out, xkd_media_fault *fault);

/* Name of the shard that holds it. */
const char *xkd_pack_shard(const xkd_pack *pack, int64_t record);

/* What stands for the contents of a record: other settings or other frames are another number. */
uint64_t xkd_pack_identity(const xkd_pack *pack, int64_t record);

/* XKD_ERR_CONFIG where the pack cannot give what is asked for: larger frames, another grid, rate, colour or track. */
xkd_status xkd_pack_fits(xkd_context *cx, const xkd_pack *pack, const xkd_media_request *request);

/* Asks the system to read the part of the record that a clip at the fraction `place` of its starts is in. */
void xkd_pack_ahead(xkd_pack *pack, int64_t record, double place);

#endif
