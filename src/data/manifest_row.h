/* One row of a manifest as it is read: what its keys hold, whichever way the text was taken apart. */
#ifndef XKD_DATA_MANIFEST_ROW_H
#define XKD_DATA_MANIFEST_ROW_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "data/manifest.h"

/* Keys that mean something, in the order in which they are written; others are the user's. */
/* clang-format off */
#define XKD_ROW_KEYS(KEY) \
    KEY(path) KEY(path_base64) KEY(label) KEY(labels) KEY(split) KEY(video_start) KEY(video_seconds) KEY(fps) KEY(width) \
    KEY(height) KEY(has_video) KEY(has_audio) KEY(probed) KEY(video_last) KEY(key_gap) KEY(clock_step) KEY(audio_track) \
    KEY(audio_start) KEY(audio_seconds) KEY(sample_rate) KEY(channels) KEY(tar) KEY(tar_at) KEY(bytes) KEY(modified) \
    KEY(hash) KEY(hash_of) KEY(pack_fault)
/* clang-format on */
#define XKD_ROW_NUMBER(NAME) XKD_ROW_##NAME,
typedef enum { XKD_ROW_KEYS(XKD_ROW_NUMBER) XKD_ROW_COUNT } xkd_row_key;

typedef struct {
    enum {
        XKD_ROW_ABSENT,
        XKD_ROW_FALSE,
        XKD_ROW_TRUE,
        XKD_ROW_WHOLE,
        XKD_ROW_REAL,
        XKD_ROW_TEXT,
        XKD_ROW_LIST,
        XKD_ROW_OTHER
    } kind;        /* null counts as absent */
    int64_t whole; /* also the entries of a list */
    double real;   /* of both kinds of numbers */
    const char *text;
    int64_t length; /* of the text; it ends with a 0 as well */
    bool ascii;
} xkd_row_value;

typedef struct {
    xkd_row_value value[XKD_ROW_COUNT];
    int64_t *list; /* [room] of "labels"; -1 for what is no whole number. Owned */
    int64_t room;
} xkd_row;

void xkd_row_free(xkd_row *row);

/* Takes a line apart in place where it is one of the plain kind that xkd writes; *plain is false for all others, right or
 * wrong, whose text stays as it was. */
xkd_status xkd_row_scan(xkd_context *cx, xkd_row *row, char *line, int64_t length, bool *plain);

/* Gives the text of a plain line back as it was; its values end with it. */
void xkd_row_restore(const xkd_row *row);

/* The same of a parsed object, which must outlive the row. */
xkd_status xkd_row_of_json(xkd_context *cx, xkd_row *row, const json_t *object);

/* Where an error message points, and what the rows so far have settled. */
typedef struct {
    xkd_context *cx;
    const char *file;
    int64_t line;
    bool fixed_classes; /* the first line lists them all */
    char *pack;         /* that the paths are in; NULL: they are files. Owned */
    int64_t number;     /* the first line whose label is a number; 0: none */
} xkd_row_place;

/* Checks a row and appends its sample. XKD_ERR_DATA names file and line. */
xkd_status xkd_row_take(xkd_row_place *place, xkd_manifest *manifest, const xkd_row *row);

#endif
