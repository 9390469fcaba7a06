/* What the importers of data/import_*.c share. */
#ifndef XKD_DATA_IMPORT_PARTS_H
#define XKD_DATA_IMPORT_PARTS_H

#include "data/import.h"
#include "data/index.h"

/* AudioSet's unbalanced list, the largest, has 100 MB. */
#define XKD_MOST_LIST_BYTES ((int64_t)1 << 30)

typedef struct {
    xkd_context *cx;
    const char *root;
    const xkd_import_options *options;
    xkd_manifest *manifest;
    xkd_import_result *result;
} xkd_import_job;

/* A text file as lines without their ends (LF, CRLF, no byte order mark). */
typedef struct {
    char *text, *path;
    char *next;
    int64_t number; /* of the line last given */
} xkd_lines;

/* Opens ROOT/a or, if that is not there, ROOT/b (NULL: no other place). XKD_ERR_DATA where neither exists. */
xkd_status xkd_lines_open(const xkd_import_job *job, const char *a, const char *b, xkd_lines *out);
void xkd_lines_close(xkd_lines *lines);
/* The next line, NULL at the end. */
char *xkd_lines_next(xkd_lines *lines);

enum { XKD_MOST_FIELDS = 16 };
/* Splits a CSV line in place: fields may be quoted, a doubled quote is one, blanks around fields are cut. Returns the
 * number of fields, -1 for an open quote. */
int xkd_csv_split(char *line, char *fields[XKD_MOST_FIELDS]);

/* Adds ROOT/path; one that is not there is noted in the result; too many fail later. *sample is NULL then. */
xkd_status xkd_import_add(xkd_import_job *job, const char *path, int64_t label, const char *split, xkd_sample **sample);

/* Adds ROOT/path, which was found in a folder and stands in no list. */
xkd_status xkd_import_add_found(xkd_import_job *job, const char *path, int64_t label, const char *split);

/* In sorted names: the first media file that begins with `stem` and goes on with '.' or '_'; NULL: none. whole: not one
 * that goes on with a segment, as _000001_000011. */
const char *xkd_import_find(const xkd_names *names, const char *stem, bool whole);

/* The readers. */
xkd_status xkd_import_ucf101(xkd_import_job *job);
xkd_status xkd_import_hmdb51(xkd_import_job *job);
xkd_status xkd_import_kinetics400(xkd_import_job *job);
xkd_status xkd_import_kinetics_sound(xkd_import_job *job);
xkd_status xkd_import_esc50(xkd_import_job *job);
xkd_status xkd_import_fsd50k(xkd_import_job *job);
xkd_status xkd_import_audioset(xkd_import_job *job);

#endif
