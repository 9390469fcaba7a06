/* A buffer that is refilled where it holds no whole line, and doubled where a line is longer than it. */
#include "base/lines.h"

#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"

/* Large reads, so that servers far away are asked seldom; no list of anything makes a line of 256 MB. */
enum { ROOM = 1 << 20, LONGEST = 256 << 20 };

xkd_status xkd_line_reader_open(xkd_context *cx, const char *path, int64_t limit, xkd_status too_large,
                                xkd_line_reader *r)
{
    xkd_status status = XKD_OK;
    *r = (xkd_line_reader){.path = path, .fd = -1};
    XKD_TRY(xkd_open_read(cx, path, &r->fd, &r->size));
    if (r->size > limit)
        XKD_FAIL(too_large, "%s: %.1f GB are more than the %.1f GB that such a file may have (divide it)", path,
                 (double)r->size / 1e9, (double)limit / 1e9);
    XKD_TRY(xkd_alloc(cx, &r->buffer, ROOM, 1));
    r->room = ROOM;
fail:
    return status;
}

/* Moves what is left to the front and reads behind it. */
static xkd_status refill(xkd_context *cx, xkd_line_reader *r)
{
    xkd_status status = XKD_OK;
    int64_t left = r->to - r->from, more = r->size - r->at;
    if (left == r->room) {
        if (r->room >= LONGEST)
            XKD_FAIL(XKD_ERR_DATA, "%s: has a line of more than %d MB (is it a text file?)", r->path, LONGEST >> 20);
        XKD_TRY(xkd_resize(cx, &r->buffer, r->room, 2 * r->room, 1));
        r->room *= 2;
    }
    memmove(r->buffer, r->buffer + r->from, (size_t)left);
    r->from = 0;
    if (more > r->room - left) more = r->room - left;
    XKD_TRY(xkd_read_at(cx, r->fd, r->path, r->buffer + left, more, r->at));
    r->at += more;
    r->to = left + more;
fail:
    return status;
}

/* Room for `wanted` bytes. */
static xkd_status widen(xkd_context *cx, xkd_line_reader *r, int64_t wanted)
{
    xkd_status status = XKD_OK;
    if (r->room >= wanted) return XKD_OK;
    XKD_TRY(xkd_resize(cx, &r->buffer, r->room, wanted, 1));
    r->room = wanted;
fail:
    return status;
}

xkd_status xkd_line_reader_many(xkd_context *cx, xkd_line_reader *r, int64_t wanted, char **text, int64_t *size)
{
    xkd_status status = XKD_OK;
    const char *stop = NULL;
    *text = NULL;
    XKD_TRY(widen(cx, r, wanted));
    if (r->at < r->size && r->to - r->from < r->room) XKD_TRY(refill(cx, r));
    while (!(stop = memrchr(r->buffer + r->from, '\n', (size_t)(r->to - r->from))) && r->at < r->size)
        XKD_TRY(refill(cx, r));
    if (r->from == r->to) goto fail;
    *text = r->buffer + r->from;
    /* The last line need not have an end. */
    *size = r->at == r->size ? r->to - r->from : stop + 1 - *text;
    r->from += *size;
fail:
    return status;
}

xkd_status xkd_line_reader_next(xkd_context *cx, xkd_line_reader *r, char **line, int64_t *length)
{
    xkd_status status = XKD_OK;
    const char *stop = NULL;
    int64_t seen = 0; /* bytes that hold no end of a line */
    *line = NULL;
    for (;;) {
        int64_t have = r->to - r->from;
        if (have > seen) stop = memchr(r->buffer + r->from + seen, '\n', (size_t)(have - seen));
        if (stop || r->at == r->size) break;
        seen = have;
        XKD_TRY(refill(cx, r));
    }
    if (!stop && r->from == r->to) goto fail;
    *line = r->buffer + r->from;
    *length = (stop ? stop : r->buffer + r->to) - *line;
    r->torn = !stop;
    r->from += *length + (stop != NULL);
fail:
    return status;
}

void xkd_line_reader_close(xkd_line_reader *r)
{
    if (r->path && r->fd >= 0) close(r->fd);
    xkd_free(r->buffer);
    *r = (xkd_line_reader){.fd = -1};
}
