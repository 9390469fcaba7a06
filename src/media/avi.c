/* Time stamps of AVI are counted, not stored: a packet whose head is damaged is passed over, and all that come after it would be
 * early. The index at the end of the file knows which packet stands at which place. */
#include <string.h>

#include "media/internal.h"

/* Bytes of a chunk's head, in front of which the index points. */
enum { CHUNK_HEAD = 8 };

/* The index's entry for a packet at this place; NULL: it has none. */
static const AVIndexEntry *entry_at(AVStream *stream, int64_t place)
{
    int from = 0, to = avformat_index_get_entries_count(stream);
    while (from < to) {
        int middle = from + (to - from) / 2;
        const AVIndexEntry *e = avformat_index_get_entry(stream, middle);
        if (e->pos == place) return e;
        if (e->pos < place) from = middle + 1;
        if (e->pos > place) to = middle;
    }
    return NULL;
}

int64_t xkd_media_restamp(xkd_media *m, AVPacket *packet)
{
    AVStream *stream = m->format->streams[packet->stream_index];
    if (strcmp(m->format->iformat->name, "avi") != 0 || packet->dts == AV_NOPTS_VALUE) return 0;
    if (stream != m->video && stream != m->audio) return 0;
    xkd_counted *c = &m->counted[stream == m->audio];
    const AVIndexEntry *e = entry_at(stream, packet->pos - CHUNK_HEAD);
    int64_t before = c->shift, block = stream->codecpar->block_align;
    /* The index counts packets, or bytes where samples have one size; a packet that is where it should be tells which. */
    if (e && e->timestamp > 0 && !c->unit)
        c->unit = e->timestamp == packet->dts ? 1 : block > 0 && e->timestamp / block == packet->dts ? block : 0;
    if (e && c->unit) c->shift = e->timestamp / c->unit - packet->dts;
    packet->dts += c->shift;
    if (packet->pts != AV_NOPTS_VALUE) packet->pts += c->shift;
    return c->shift > before ? c->shift - before : 0;
}
