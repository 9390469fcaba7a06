/* Files that were joined byte by byte (cat a.mp4 b.mp4 > c.mp4), in containers whose demuxers end with the first of them: what
 * stands behind would never be seen, and nothing would say so. Other containers go on, and their clock steps (span.c). */
#include <libavutil/intreadwrite.h>
#include <stdio.h>
#include <string.h>

#include "media/internal.h"

/* Boxes of MP4 and tags of FLV that are looked at. */
enum { MOST_PARTS = 5000000 };

/* The second ftyp box at the top level. Fragments may stand behind headers of their own, and are read on. */
static int64_t second_mp4(const xkd_media *m)
{
    uint8_t b[16];
    int64_t at = 0;
    for (int64_t k = 0; k < MOST_PARTS && xkd_media_read_at(m, at, 8, b); k++) {
        int64_t size = AV_RB32(b);
        if (at > 0 && !memcmp(b + 4, "ftyp", 4)) return at;
        if (!memcmp(b + 4, "moof", 4)) return 0;
        if (size == 1) size = xkd_media_read_at(m, at, 16, b) ? (int64_t)(AV_RB64(b + 8) & INT64_MAX) : 0;
        if (size < 8 || size > m->size - at) return 0;
        at += size;
    }
    return 0;
}

/* Behind the chunk that is the whole of a WAV file. */
static int64_t second_wav(const xkd_media *m)
{
    uint8_t b[16];
    if (!xkd_media_read_at(m, 0, 8, b)) return 0;
    int64_t at = 8 + (int64_t)AV_RL32(b + 4) + (b[4] & 1);
    return xkd_media_read_at(m, at, 12, b) && !memcmp(b, "RIFF", 4) && !memcmp(b + 8, "WAVE", 4) ? at : 0;
}

/* Behind the last tag, of which each is followed by its size. */
static int64_t second_flv(const xkd_media *m)
{
    uint8_t b[16];
    int64_t at = xkd_media_read_at(m, 0, 9, b) ? (int64_t)AV_RB32(b + 5) + 4 : 0;
    for (int64_t k = 0; k < MOST_PARTS && xkd_media_read_at(m, at, 11, b); k++) {
        if (!memcmp(b, "FLV\1", 4)) return at;
        int64_t next = at + 11 + AV_RB24(b + 1);
        if (!xkd_media_read_at(m, next, 4, b) || AV_RB32(b) != next - at) return 0;
        at = next + 4;
    }
    return 0;
}

/* The top level of ASF is objects: a GUID and a size. The header's comes again. */
static int64_t second_asf(const xkd_media *m)
{
    uint8_t header[16], b[16];
    int64_t at = 0;
    if (!xkd_media_read_at(m, 0, 16, header)) return 0;
    for (int64_t k = 0; k < MOST_PARTS && xkd_media_read_at(m, at, 16, b); k++) {
        if (at > 0 && !memcmp(b, header, 16)) return at;
        if (!xkd_media_read_at(m, at + 16, 8, b)) return 0;
        int64_t size = (int64_t)(AV_RL64(b) & INT64_MAX);
        if (size < 24 || size > m->size - at) return 0;
        at += size;
    }
    return 0;
}

bool xkd_media_is_joined(const xkd_media *m)
{
    const char *name = m->format->iformat->name;
    if (strstr(name, "mp4")) return second_mp4(m) > 0;
    if (!strcmp(name, "wav")) return second_wav(m) > 0;
    if (!strcmp(name, "flv")) return second_flv(m) > 0;
    return !strcmp(name, "asf") && second_asf(m) > 0;
}

void xkd_media_step_words(const xkd_media_info *i, char out[200])
{
    static const char *const ENDING[] = {"mp4", "wav", "flv", "asf"};
    for (size_t k = 0; k < sizeof ENDING / sizeof *ENDING; k++)
        if (strstr(i->format, ENDING[k])) {
            snprintf(out, 200,
                     "another recording begins after %.2f s, where its clock starts again (ffmpeg -f concat joins "
                     "recordings)",
                     i->clock_step);
            return;
        }
    snprintf(
        out, 200,
        "the clock steps after %.2f s, as where recordings were joined (ffmpeg -i FILE -c copy NEW.mkv makes it even)",
        i->clock_step);
}
