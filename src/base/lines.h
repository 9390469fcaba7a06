/* The lines of a text file one after the other, without the whole of it in memory. */
#ifndef XKD_BASE_LINES_H
#define XKD_BASE_LINES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
    const char *path;
    int fd;
    int64_t size, at;       /* of the file; bytes read so far */
    char *buffer;           /* [room] */
    int64_t room, from, to; /* bytes of the buffer that are not yet given out */
    bool torn;              /* the line given out last had no end: the file stops there */
} xkd_line_reader;

/* Opens a regular file; `path` must outlive the reader. XKD_ERR_STORAGE, or `too_large` where it has more than `limit` bytes. */
xkd_status xkd_line_reader_open(xkd_context *cx, const char *path, int64_t limit, xkd_status too_large,
                                xkd_line_reader *out);

/* The next line without its end, not terminated, to be changed at will, valid until the next call; *line is NULL behind the last one.
 * XKD_ERR_DATA for a line of more than 256 MB. */
xkd_status xkd_line_reader_next(xkd_context *cx, xkd_line_reader *reader, char **line, int64_t *length);

/* Many whole lines at once, with their ends: about `wanted` bytes, or the longest line; NULL behind the last one. */
xkd_status xkd_line_reader_many(xkd_context *cx, xkd_line_reader *reader, int64_t wanted, char **text, int64_t *size);

/* Also for a reader that is zero or failed to begin. */
void xkd_line_reader_close(xkd_line_reader *reader);

#endif
