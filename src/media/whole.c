/* Whether a file ends where its container says. Programs leave wrong lengths in headers; a recording that was cut off is told
 * from one that was never longer by the sizes that containers keep beside them. */
#include <libavutil/intreadwrite.h>
#include <string.h>
#include <unistd.h>

#include "media/internal.h"

/* Exactly `count` bytes, up to 16. */
bool xkd_media_read_at(const xkd_media *m, int64_t at, int64_t count, uint8_t out[16])
{
    return at >= 0 && at <= m->size - count && pread(m->fd, out, (size_t)count, m->first + at) == count;
}

/* A number of EBML: as many bytes as its first one has leading zero bits, and one. False where it is unknown. */
static bool read_size(const xkd_media *m, int64_t *at, int64_t *size)
{
    uint8_t b[16];
    int bytes = 1;
    if (!xkd_media_read_at(m, *at, 1, b) || !b[0]) return false;
    while (!(b[0] & 0x80 >> (bytes - 1))) bytes++;
    if (!xkd_media_read_at(m, *at, bytes, b)) return false;
    *size = b[0] & (0x7F >> (bytes - 1));
    bool known = *size != 0x7F >> (bytes - 1);
    for (int i = 1; i < bytes; i++) {
        *size = *size << 8 | b[i];
        known |= b[i] != 0xFF;
    }
    *at += bytes;
    return known;
}

/* The segment that follows the header ends within the file. */
static bool is_whole_matroska(const xkd_media *m)
{
    int64_t at = 4, size;
    uint8_t id[16];
    if (!read_size(m, &at, &size) || size > m->size) return false;
    at += size;
    if (!xkd_media_read_at(m, at, 4, id) || memcmp(id, "\x18\x53\x80\x67", 4) != 0) return false;
    at += 4;
    return read_size(m, &at, &size) && size <= m->size - at;
}

/* Each RIFF chunk, of which long files have several, ends within the file; programs that died left 0 there. */
static bool is_whole_avi(const xkd_media *m)
{
    int64_t at = 0;
    uint8_t b[16];
    while (xkd_media_read_at(m, at, 8, b) && !memcmp(b, "RIFF", 4)) {
        int64_t size = AV_RL32(b + 4);
        if (size < 12 || size > m->size - at - 8) return false;
        at += 8 + size + (size & 1);
    }
    return at > 0;
}

/* The last tag's size stands behind it. */
static bool is_whole_flv(const xkd_media *m)
{
    uint8_t b[16];
    if (!xkd_media_read_at(m, m->size - 4, 4, b)) return false;
    int64_t size = AV_RB32(b);
    return size > 11 && xkd_media_read_at(m, m->size - 4 - size, 4, b) && AV_RB24(b + 1) == size - 11;
}

bool xkd_media_is_whole(const xkd_media *m)
{
    const char *name = m->format->iformat->name;
    if (strstr(name, "matroska")) return is_whole_matroska(m);
    if (!strcmp(name, "avi")) return is_whole_avi(m);
    return !strcmp(name, "flv") && is_whole_flv(m);
}

/* libavformat cuts the length of a WAV file to what is there, so its header is read once more. RF64 has the size of the data
 * in the chunk ds64 in front. The 2 GB and more that programs write which cannot go back to the header promise nothing. Where
 * all bytes are there nothing is missing, whatever the header says of their rate. */
double xkd_media_wav_length(const xkd_media *m)
{
    static const int64_t PLACEHOLDER = 0x7FFFF000;
    int64_t at = 12, rate = 0, large = 0;
    uint8_t b[16];
    for (int chunks = 0; chunks < 1000 && xkd_media_read_at(m, at, 8, b); chunks++) {
        int64_t size = AV_RL32(b + 4), body = at + 8;
        bool format = !memcmp(b, "fmt ", 4), sizes = !memcmp(b, "ds64", 4);
        if (!memcmp(b, "data", 4)) {
            if (size >= PLACEHOLDER) size = large;
            if (size <= m->size - body) return 0;
            return rate > 0 && size < INT64_MAX / 2 ? (double)size / (double)rate : 0;
        }
        if (format && xkd_media_read_at(m, body, 16, b)) rate = AV_RL32(b + 8);
        if (sizes && xkd_media_read_at(m, body, 16, b)) large = (int64_t)(AV_RL64(b + 8) & INT64_MAX);
        at = body + size + (size & 1);
    }
    return 0;
}
