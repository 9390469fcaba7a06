/* Edit lists of MP4 whose last edit has no length.
 * ISO/IEC 14496-12 (8.6.6): a segment_duration of 0 lasts to the end of the media; who writes a file while it is recorded knows
 * no other. libavformat takes 0 for no time at all and drops all but a few packets. So it is told the longest time there is:
 * those bytes of the file are replaced while it is read. */
#include <libavutil/intreadwrite.h>
#include <string.h>
#include <unistd.h>

#include "media/internal.h"

/* From the file to an edit list. */
static const char PATH[][5] = {"moov", "trak", "edts", "elst"};
enum { MOST_BOXES = 10000 };

/* In units of the film, which has up to ten million of them a second. */
static const uint8_t LONGEST[] = {0xFF, 0xFF, 0xFF, 0xFF}, LONGEST_64[] = {0, 0, 0x10, 0, 0, 0, 0, 0};

static bool read_at(const xkd_media *m, int64_t at, int64_t count, uint8_t *out)
{
    return at >= 0 && at <= m->size - count && pread(m->fd, out, (size_t)count, m->first + at) == count;
}

/* Notes where the last edit's length stands if that is 0 and the edit shows something. */
static void look_at_list(xkd_media *m, int64_t at, int64_t end)
{
    uint8_t b[16];
    if (!read_at(m, at, 8, b) || b[0] > 1) return;
    int64_t number = b[0] ? 8 : 4, size = 2 * number + 4, count = AV_RB32(b + 4);
    if (count < 1 || count > (end - at - 8) / size) return;
    at += 8 + (count - 1) * size;
    if (!read_at(m, at, 2 * number, b)) return;
    bool open =
        number == 8 ? AV_RB64(b) == 0 && AV_RB64(b + 8) != UINT64_MAX : AV_RB32(b) == 0 && AV_RB32(b + 4) != UINT32_MAX;
    if (open && m->open_edits < XKD_MEDIA_MAX_STREAMS)
        m->open_edit[m->open_edits++] = (xkd_open_edit){.at = at, .wide = number == 8};
}

/* The boxes between two places of the file, `depth` steps down the path. Goes no further than the first `moov`. */
static void walk(xkd_media *m, int64_t at, int64_t end, size_t depth, int *left)
{
    uint8_t b[16];
    while (at + 8 <= end && --*left > 0 && read_at(m, at, 8, b)) {
        uint64_t size = AV_RB32(b);
        int64_t head = 8;
        bool wanted = !memcmp(b + 4, PATH[depth], 4);
        if (size == 0) size = (uint64_t)(end - at);
        if (size == 1) {
            if (!read_at(m, at, 16, b)) return;
            size = AV_RB64(b + 8);
            head = 16;
        }
        if (size < (uint64_t)head || size > (uint64_t)(end - at)) return;
        int64_t next = at + (int64_t)size;
        if (wanted && depth + 1 == sizeof PATH / sizeof *PATH) look_at_list(m, at + head, next);
        if (wanted && depth + 1 < sizeof PATH / sizeof *PATH) walk(m, at + head, next, depth + 1, left);
        if (wanted && depth == 0) return;
        at = next;
    }
}

void xkd_media_find_open_edits(xkd_media *m)
{
    int left = MOST_BOXES;
    m->open_edits = 0;
    walk(m, 0, m->size, 0, &left);
}

void xkd_media_close_edits(const xkd_media *m, uint8_t *buffer, int64_t at, int64_t size)
{
    for (int i = 0; i < m->open_edits; i++) {
        const xkd_open_edit *e = &m->open_edit[i];
        const uint8_t *longest = e->wide ? LONGEST_64 : LONGEST;
        for (int64_t k = 0; k < (e->wide ? 8 : 4); k++)
            if (e->at + k >= at && e->at + k < at + size) buffer[e->at + k - at] = longest[k];
    }
}
