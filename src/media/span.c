/* Where the streams of a file really begin and end.
 * Headers tell one length for the file, or none, or a wrong one; draws, reports and manifests need the truth about each
 * stream. Only MP4 without fragments lists every packet in front. All other files are read through once, packet by
 * packet and without decoding, which costs about as much as a checksum of them. */
#include <libavutil/dict.h>
#include <libavutil/intreadwrite.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "media/internal.h"

/* Time stamps of neighbours are out of order by a few frames in damaged files, never by this much: the clock was set
 * anew, as where two recordings were joined. */
static const double STEP_BACK_SECONDS = 0.5;
/* Formats whose clock may jump (AVFMT_TS_DISCONT) do not leave a hole of this length in all their streams otherwise. */
static const double STEP_AHEAD_SECONDS = 10;
/* A stream's own word about its start is finer than the packet's stamp (samples to skip), but never far from it. */
static const double START_SLACK = 0.2;
/* Headers round lengths to a frame; a packet that begins this long after the end is one they do not know of. */
static const double LENGTH_SLACK = 0.1;
/* Pictures this far apart are slides: how long the last one stays cannot be told from the others. */
static const double SLIDE_SECONDS = 0.5;

/* What the packets of one stream say; s on the file's clock. */
typedef struct {
    int64_t packets, times; /* read; with a time stamp */
    double first, key, last, end;
    double previous, widest; /* decoding time of the packet before; largest distance of two */
    double previous_key, key_gap;
    bool has_key;
} track;

/* A microsecond is what manifests keep: a span means the same whether it was read there or found here. */
static double rounded(double seconds)
{
    return (double)llround(seconds * 1e6) / 1e6;
}

static void set_span(double start, double end, double *out_start, double *out_end)
{
    *out_start = rounded(start);
    *out_end = *out_start + rounded(fmax(end - start, 0));
}

void xkd_media_round_span(xkd_media_span *s)
{
    set_span(s->video_start, s->video_end, &s->video_start, &s->video_end);
    set_span(s->audio_start, s->audio_end, &s->audio_start, &s->audio_end);
    s->video_last = rounded(s->video_last);
    s->key_gap = rounded(s->key_gap);
}

void xkd_media_mark_joined(xkd_media_span *s)
{
    s->clock_step = fmax(rounded(fmax(s->video_end - s->video_start, s->audio_end - s->audio_start)), 1e-6);
}

double xkd_media_key_gap(AVStream *stream, double length)
{
    double gap = 0, previous = NAN, base = av_q2d(stream->time_base), first = NAN;
    int count = avformat_index_get_entries_count(stream);
    for (int i = 0; i < count; i++) {
        const AVIndexEntry *e = avformat_index_get_entry(stream, i);
        if (!(e->flags & AVINDEX_KEYFRAME)) continue;
        double time = (double)e->timestamp * base;
        if (isnan(first)) first = time;
        if (!isnan(previous)) gap = fmax(gap, time - previous);
        previous = time;
    }
    return isnan(previous) ? 0 : fmax(gap, first + length - previous);
}

/* Seconds that a demuxer tells to cut from a packet's end, as Opus in its last page. */
static double padding(const AVStream *stream, const AVPacket *packet)
{
    size_t size = 0;
    const uint8_t *skip = av_packet_get_side_data(packet, AV_PKT_DATA_SKIP_SAMPLES, &size);
    if (!skip || size < 8 || stream->codecpar->sample_rate < 1) return 0;
    return (double)AV_RL32(skip + 4) / stream->codecpar->sample_rate;
}

/* True where the clock steps between this packet and what came before. `latest` is the end of all that was read. Pictures
 * are stored out of order, by seconds where they are slides; but a key frame is shown after all that stand before it. */
static bool clock_steps(const xkd_media *m, const track *t, const AVStream *stream, const AVPacket *packet,
                        double stamp, double latest)
{
    if (t->times == 0) return false;
    double time = packet->pts == AV_NOPTS_VALUE ? stamp : (double)packet->pts * av_q2d(stream->time_base);
    bool in_order = stream != m->video || packet->flags & AV_PKT_FLAG_KEY;
    if (in_order && time < t->last - STEP_BACK_SECONDS) return true;
    return m->format->iformat->flags & AVFMT_TS_DISCONT && time > latest + STEP_AHEAD_SECONDS;
}

/* Pictures before the first key frame cannot be decoded: they are no part of the stream. */
static void take_packet(track *t, const AVStream *stream, const AVPacket *packet, double stamp)
{
    double base = av_q2d(stream->time_base);
    double time = packet->pts == AV_NOPTS_VALUE ? stamp : (double)packet->pts * base;
    double end = time + (packet->duration > 0 ? (double)packet->duration * base : 0) - padding(stream, packet);
    if (packet->flags & AV_PKT_FLAG_DISCARD) { /* an edit list hides it; others may need it to be decoded */
        if (packet->flags & AV_PKT_FLAG_KEY && !t->has_key) t->key = t->previous_key = time;
        t->has_key |= (packet->flags & AV_PKT_FLAG_KEY) != 0;
        return;
    }
    if (t->times == 0) {
        t->first = t->last = time;
        t->end = end;
    }
    if (packet->flags & AV_PKT_FLAG_KEY) {
        if (t->has_key) t->key_gap = fmax(t->key_gap, time - t->previous_key);
        if (!t->has_key) t->key = time;
        t->previous_key = time;
        t->has_key = true;
    }
    if (t->times) t->widest = fmax(t->widest, stamp - t->previous);
    t->first = fmin(t->first, time);
    t->last = fmax(t->last, time);
    t->end = fmax(t->end, end);
    t->previous = stamp;
    t->times++;
}

/* Reads the file to its end, or to the packet at which its clock steps; *step is NAN where it does not. */
static xkd_status read_tracks(xkd_media *m, track tracks[XKD_MEDIA_MAX_STREAMS], double *step, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cx;
    AVPacket *packet = av_packet_alloc();
    double latest = -INFINITY;
    int64_t count = 0;
    *step = NAN;
    if (!packet) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", m->name);
    for (int code; (code = av_read_frame(m->format, packet)) >= 0 || code == AVERROR(EAGAIN); av_packet_unref(packet)) {
        if (code < 0) continue;
        if (++count > XKD_MEDIA_MAX_PACKETS) {
            *fault = XKD_FAULT_REFUSED;
            XKD_FAIL(XKD_ERR_DATA, "%s: refused: more than %d packets (cut it into parts)", m->name,
                     XKD_MEDIA_MAX_PACKETS);
        }
        int i = packet->stream_index;
        if (i < 0 || i >= XKD_MEDIA_MAX_STREAMS || packet->size == 0) continue;
        xkd_media_restamp(m, packet);
        const AVStream *stream = m->format->streams[i];
        track *t = &tracks[i];
        t->packets++;
        int64_t stamp = packet->dts == AV_NOPTS_VALUE ? packet->pts : packet->dts;
        if (stamp == AV_NOPTS_VALUE) continue;
        double time = (double)stamp * av_q2d(stream->time_base);
        bool chosen = stream == m->video || stream == m->audio;
        if (chosen && clock_steps(m, t, stream, packet, time, latest)) {
            *step = latest;
            break;
        }
        take_packet(t, stream, packet, time);
        if (chosen) latest = fmax(latest, t->end);
    }
fail:
    av_packet_free(&packet);
    return status;
}

/* What a Matroska track says of its own end: H:MM:SS.fraction in a tag, from the file's zero or from the track's start.
 * NAN: nothing. */
static double claimed_end(const AVStream *stream, const track *t)
{
    const AVDictionaryEntry *tag = av_dict_get(stream->metadata, "DURATION", NULL, AV_DICT_IGNORE_SUFFIX);
    int hours, minutes, used = 0;
    if (!tag || sscanf(tag->value, "%d:%d:%n", &hours, &minutes, &used) != 2 || !used) return NAN;
    double seconds = 3600.0 * hours + 60.0 * minutes + strtod(tag->value + used, NULL);
    if (!(seconds >= 0 && seconds <= XKD_MEDIA_MAX_SECONDS)) return NAN;
    return seconds < t->last ? t->first + seconds : seconds;
}

/* The last picture is shown as long as its track claims, if what was read makes that believable; else for its own
 * duration or one mean interval. `all` is where the last stream of the file ends. */
static double video_end(const AVStream *stream, const track *t, double fps, double all)
{
    double mean = t->times > 1 ? (t->last - t->first) / (double)(t->times - 1) : fps > 0 ? 1 / fps : 0;
    double end = t->end > t->last ? t->end : t->last + mean, claim = claimed_end(stream, t);
    if (!(claim > end)) return end;
    bool irregular = t->times == 1 || t->widest > 1.5 * mean || mean >= SLIDE_SECONDS;
    /* A tag that outlived a cut promises pictures that nothing else in the file bears out. */
    return claim <= fmax(all, end) + fmax(mean, 0.1) && (irregular || claim - t->last <= 2 * mean) ? claim : end;
}

static double start_of(const AVStream *stream, double first)
{
    if (stream->start_time == AV_NOPTS_VALUE) return first;
    double start = (double)stream->start_time * av_q2d(stream->time_base);
    return fabs(start - first) < START_SLACK ? start : first;
}

/* The last packet of a stream's index that no edit list hides; NULL: there is no index. */
static const AVIndexEntry *last_shown(AVStream *stream)
{
    int last = avformat_index_get_entries_count(stream) - 1;
    while (last > 0 && avformat_index_get_entry(stream, last)->flags & AVINDEX_DISCARD_FRAME) last--;
    return last < 0 ? NULL : avformat_index_get_entry(stream, last);
}

/* Seconds on the file's clock at which it stands. */
static double index_end(AVStream *stream)
{
    const AVIndexEntry *last = last_shown(stream);
    return last ? (double)last->timestamp * av_q2d(stream->time_base) : 0;
}

double xkd_media_index_end(const xkd_media *m)
{
    return fmax(m->video ? index_end(m->video) : 0, m->audio ? index_end(m->audio) : 0);
}

/* Headers of MP4 tell lengths of their own beside the tables of packets, and writers leave zeros there, or how long the film
 * was when they saw it last. What an edit list cuts off is no part of the stream. */
static bool covers_index(AVStream *stream)
{
    if (!last_shown(stream)) return true;
    if (stream->duration == AV_NOPTS_VALUE || stream->duration <= 0) return false;
    double base = av_q2d(stream->time_base);
    double start = stream->start_time == AV_NOPTS_VALUE ? 0 : (double)stream->start_time * base;
    return index_end(stream) < start + (double)stream->duration * base + LENGTH_SLACK;
}

bool xkd_media_is_covered(const xkd_media *m)
{
    return !m->open_edits && (!m->video || covers_index(m->video)) && (!m->audio || covers_index(m->audio));
}

/* MP4 and its kin with a plain index: true. Fragments stand beside `moov` at the top level, and their packets are in no
 * index. Anything odd is read through instead. */
bool xkd_media_is_indexed(const xkd_media *m)
{
    if (!strstr(m->format->iformat->name, "mp4")) return false;
    int64_t at = 0;
    for (int boxes = 0; at + 8 <= m->size; boxes++) {
        uint8_t head[16];
        if (boxes == 10000 || pread(m->fd, head, sizeof head, m->first + at) < 8) return false;
        if (!memcmp(head + 4, "moof", 4)) return false;
        uint64_t size = AV_RB32(head);
        if (size == 1) size = AV_RB64(head + 8);
        if (size == 0) break; /* to the end of the file */
        if (size < 8 || size > (uint64_t)(m->size - at)) break;
        at += (int64_t)size;
    }
    return true;
}

/* An edit list may cut into a packet: the packets of one length stand where the first of them begins, not where the sound does. */
double xkd_media_sound_first(xkd_media *m)
{
    int count = m->audio && xkd_media_is_indexed(m) ? avformat_index_get_entries_count(m->audio) : 0;
    for (int i = 0; i < count; i++) {
        const AVIndexEntry *e = avformat_index_get_entry(m->audio, i);
        if (!(e->flags & AVINDEX_DISCARD_FRAME)) return (double)e->timestamp * av_q2d(m->audio->time_base);
    }
    return m->info.audio_start;
}

/* Fills in the spans of m->video and m->audio. A stream without a single packet is none. The caller opens the file anew:
 * it has been read to its end. */
xkd_status xkd_media_scan(xkd_media *m, xkd_media_span *out, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cx;
    static const xkd_media_span NONE;
    track *tracks = av_calloc(XKD_MEDIA_MAX_STREAMS, sizeof *tracks);
    double step, all = -INFINITY;
    *out = NONE;
    if (!tracks) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", m->name);
    XKD_TRY(read_tracks(m, tracks, &step, fault));
    for (int i = 0; i < XKD_MEDIA_MAX_STREAMS; i++)
        if (tracks[i].times) all = fmax(all, tracks[i].end);
    out->known = true;
    /* Pictures or sound without any time stamp are left to the decoder, as before. */
    const track *v = m->video ? &tracks[m->video->index] : NULL, *a = m->audio ? &tracks[m->audio->index] : NULL;
    out->no_video = v && !v->packets;
    out->no_audio = a && !a->packets;
    if (v && v->times) {
        AVRational rate = m->video->avg_frame_rate;
        double first = v->has_key ? fmax(v->key, v->first) : v->first;
        set_span(first > v->first ? first : start_of(m->video, first),
                 video_end(m->video, v, rate.num > 0 ? av_q2d(rate) : 0, all), &out->video_start, &out->video_end);
        out->video_last = rounded(v->last);
        out->key_gap = rounded(fmax(v->key_gap, v->has_key ? v->last - v->previous_key : 0));
    }
    if (a && a->times) set_span(start_of(m->audio, a->first), a->end, &out->audio_start, &out->audio_end);
    double first = fmin(v && v->times ? out->video_start : INFINITY, a && a->times ? out->audio_start : INFINITY);
    /* A step at the very start is one as well: 0 says that there is none. */
    if (!isnan(step)) out->clock_step = isfinite(step - first) ? fmax(rounded(step - first), 1e-6) : 1e-6;
    out->read_end = rounded(isfinite(all) ? all : 0);
fail:
    av_free(tracks);
    return status;
}
