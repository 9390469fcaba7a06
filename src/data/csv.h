/* Tables in text files, as spreadsheets, pandas and other people's scripts write them: RFC 4180, with any of the usual
 * separators, line ends and a byte order mark. */
#ifndef XKD_DATA_CSV_H
#define XKD_DATA_CSV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
    char *text;  /* points into the table's buffer, without quotes and without blanks around it */
    bool quoted; /* "12" is a name, 12 a number */
} xkd_csv_field;

typedef struct {
    int64_t line;  /* where it begins, counted from 1 */
    int64_t first; /* its fields in `fields` */
    int64_t count;
} xkd_csv_record;

typedef struct {
    char *buffer;
    xkd_csv_field *fields;
    xkd_csv_record *records; /* blank lines and comments are none */
    int64_t field_count, field_capacity, count, capacity;
    int64_t comments;
    char fault[120]; /* why this separator cannot be that of the file; "" where it can */
    int64_t fault_line;
} xkd_csv;

/* What is read: `size` bytes. Lines that begin with # are comments, but for those of which is_row, if there is one, says
 * that they are rows; it is given the line without its end. */
typedef struct {
    const char *text;
    int64_t size;
    bool (*is_row)(const void *data, const char *line, int64_t length);
    const void *data; /* for is_row */
} xkd_csv_text;

/* Reads a text with one separator: ',', ';', '\t', '|', ' ' for runs of blanks and tabs, or 0 for lines of one field. A byte
 * order mark is skipped at the start of any line, as files that were joined have it. What is malformed is not an
 * error of the call but a fault in *out. Free with xkd_csv_free. */
xkd_status xkd_csv_read(xkd_context *cx, const xkd_csv_text *text, char separator, xkd_csv *out);
void xkd_csv_free(xkd_csv *csv);

/* A field of a record; an empty one where the record is shorter. */
const xkd_csv_field *xkd_csv_at(const xkd_csv *csv, int64_t record, int64_t field);

/* A text with a byte order mark of UTF-16, as Excel's "Unicode text", becomes UTF-8 without one: *text, which the caller frees, is
 * replaced. Others stay as they are. XKD_ERR_DATA where a character is cut in half. */
xkd_status xkd_csv_from_utf16(xkd_context *cx, const char *name, char **text, int64_t *size);

/* Bytes of a byte order mark of UTF-8 at the start: 3 or 0. */
int64_t xkd_csv_mark(const char *text, int64_t size);

#endif
