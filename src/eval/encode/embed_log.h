/* The work file of an embedding run: one record a finished file, appended and checked by a hash, so that a run that was
 * stopped goes on behind the last whole record, and memory does not grow with the number of files. */
#ifndef XKD_EVAL_ENCODE_EMBED_LOG_H
#define XKD_EVAL_ENCODE_EMBED_LOG_H

#include "eval/encode/embed.h"

typedef struct xkd_embed_log xkd_embed_log;

/* Sizes of features and what else must not change between sittings. */
typedef struct {
    int64_t size[XKD_MODALITIES]; /* floats of a clip's features; 0: modality not wanted */
    uint64_t settings;            /* hash of models, options and names; contents stand with the records */
} xkd_embed_log_head;

/* One record. Memory belongs to the log until the next call. */
typedef struct {
    int64_t at; /* where it stands, for xkd_embed_log_read */
    int64_t number;
    uint64_t identity; /* of the file's contents when it was read (data/identity.h) */
    xkd_media_fault fault;
    int64_t count[XKD_MODALITIES];
    const float *feature[XKD_MODALITIES];
    const double *seconds[XKD_MODALITIES], *damage[XKD_MODALITIES];
} xkd_embed_record;

/* Opens the log at `path` or makes it; with `anew` whatever is there is dropped. A torn last record is cut off. A
 * log of other settings or of an earlier version is XKD_ERR_CONFIG and stays as it is. Free with xkd_embed_log_close. */
xkd_status xkd_embed_log_open(xkd_context *cx, const char *path, const xkd_embed_log_head *head, bool anew,
                              xkd_embed_log **out);
void xkd_embed_log_close(xkd_embed_log *log); /* NULL is allowed */

/* Appends one file, called `number`; *at, if not NULL: where. A file may be appended again: its last record counts. */
xkd_status xkd_embed_log_add(xkd_embed_log *log, int64_t number, uint64_t identity, const xkd_embedded *file,
                             int64_t *at);

/* Reads from the first record on (`rewind`) or the next one; *found is false behind the last. */
xkd_status xkd_embed_log_next(xkd_embed_log *log, bool rewind, xkd_embed_record *record, bool *found);

/* The record that stands at `at`. */
xkd_status xkd_embed_log_read(xkd_embed_log *log, int64_t at, xkd_embed_record *record);

#endif
