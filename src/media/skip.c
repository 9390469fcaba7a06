#include "media/skip.h"

/* Of H.264, by their numbers in the standard. */
enum { SLICE = 1, SEI = 6, DELIMITER = 9, FILLER = 12 };

/* Fields may come in packets of their own, of which one alone is no picture. */
void xkd_skipper_begin(xkd_skipper *s, const xkd_media *m)
{
    const AVCodecParameters *p = m->video ? m->video->codecpar : NULL;
    *s = (xkd_skipper){.media = m, .first = AV_NOPTS_VALUE};
    s->on = p && p->codec_id == AV_CODEC_ID_H264 && p->field_order == AV_FIELD_PROGRESSIVE;
}

void xkd_skipper_clear(xkd_skipper *s)
{
    for (int i = 0; i < s->count; i++) av_packet_free(&s->waiting[i]);
    s->count = 0;
    s->seen_count = s->spared = 0;
    s->first = AV_NOPTS_VALUE;
}

xkd_status xkd_skipper_push(xkd_skipper *s, AVPacket *packet)
{
    AVPacket *kept = av_packet_alloc();
    if (!kept) return xkd_fail(s->media->cx, XKD_ERR_MEMORY, "%s: out of memory", s->media->name);
    av_packet_move_ref(kept, packet);
    if (kept->pts == AV_NOPTS_VALUE) s->on = false;
    if (s->first == AV_NOPTS_VALUE) s->first = kept->pts;
    s->seen[s->seen_count++ % XKD_SKIP_SEEN] = kept->pts;
    s->waiting[s->count++] = kept;
    return XKD_OK;
}

AVPacket *xkd_skipper_pop(xkd_skipper *s, bool all, int64_t *until)
{
    if (s->count == 0 || (s->count <= XKD_SKIP_AHEAD && s->on && !all)) return NULL;
    AVPacket *oldest = s->waiting[0];
    for (int i = 1; i < s->count; i++) s->waiting[i - 1] = s->waiting[i];
    s->count--;
    *until = INT64_MAX;
    for (int64_t i = 0; i < s->seen_count && i < XKD_SKIP_SEEN; i++)
        if (s->seen[i] > oldest->pts && s->seen[i] < *until) *until = s->seen[i];
    return oldest;
}

/* True where the packet is slices that nothing refers to, and what may stand beside them. Anything else in it, such as new
 * parameters, is for the decoder. */
static bool is_unreferenced(const uint8_t *nal, int64_t size, bool *slices)
{
    if (size < 1) return false;
    int type = nal[0] & 31, reference = nal[0] >> 5 & 3;
    if (type == SLICE) *slices = true;
    return type == SLICE ? reference == 0 : type == SEI || type == DELIMITER || type == FILLER;
}

/* As MP4 and Matroska store them: each behind its length. */
static bool spares_by_length(const uint8_t *at, int64_t size, int width)
{
    bool slices = false;
    while (size > width) {
        int64_t length = 0;
        for (int i = 0; i < width; i++) length = length << 8 | at[i];
        if (length < 1 || length > size - width || !is_unreferenced(at + width, length, &slices)) return false;
        at += width + length;
        size -= width + length;
    }
    return slices && size == 0;
}

/* As a transport stream has them: each behind 0 0 1. */
static bool spares_by_mark(const uint8_t *at, int64_t size)
{
    bool slices = false;
    for (int64_t i = 0; i + 3 < size; i++) {
        if (at[i] || at[i + 1] || at[i + 2] != 1) continue;
        if (!is_unreferenced(at + i + 3, size - i - 3, &slices)) return false;
        i += 3;
    }
    return slices;
}

/* New parameters come with it. */
static bool changes_decoder(const AVPacket *packet)
{
    for (int i = 0; i < packet->side_data_elems; i++)
        if (packet->side_data[i].type == AV_PKT_DATA_NEW_EXTRADATA ||
            packet->side_data[i].type == AV_PKT_DATA_PARAM_CHANGE)
            return true;
    return false;
}

/* Pictures shown before the first one belong to the film before the seek: the decoder knows what to do with them. */
bool xkd_skipper_spares(const xkd_skipper *s, const AVPacket *packet)
{
    const AVCodecParameters *p = s->media->video->codecpar;
    if (!s->on || packet->pts == AV_NOPTS_VALUE || packet->pts <= s->first || packet->flags & AV_PKT_FLAG_KEY ||
        changes_decoder(packet))
        return false;
    if (p->extradata_size >= 7 && p->extradata[0] == 1)
        return spares_by_length(packet->data, packet->size, (p->extradata[4] & 3) + 1);
    return spares_by_mark(packet->data, packet->size);
}
