/* Decoding a clip or a whole file onto the frame grid. */
#include "media/media.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "media/internal.h"
#include "media/convert.h"
#include "media/sound.h"

/* Grid times and time stamps are both rounded to doubles; a frame this close behind a grid time counts as on it. */
static const double TIME_EPSILON = 1e-6;

/* Sound decoders need a little before the first sample: Opus 80 ms, AAC and MP3 two frames; the resampler's filter
 * less than a millisecond. */
static const double SOUND_PREROLL = 0.1;

/* One decoding run. Frames of a stream come in order of presentation; each is held back until the
 * next one shows up, since only then is it known which grid times it serves. */
typedef struct {
    xkd_media *media;
    const xkd_media_request *request;
    const xkd_media_sink *sink;
    xkd_media_tally *tally;
    xkd_media_fault *fault;
    AVPacket *packet;                                   /* one of each, used over and over */
    AVFrame *frame, *shown;                             /* `shown`: the last frame whose time may be needed again */
    xkd_converter *converter;                           /* NULL: no picture wanted */
    xkd_sound *sound;                                   /* NULL: no sound wanted */
    double origin;                                      /* grid time 0 on the file's clock */
    double end;                                         /* of the clip; +inf for a whole file */
    int64_t wanted;                                     /* grid frames; INT64_MAX for a whole file */
    int64_t next;                                       /* next grid frame to deliver */
    double shown_time, shown_end, frame_seconds;        /* s, on the file's clock */
    bool have_shown, converted, video_done, audio_done; /* converted: rgb holds `shown` */
    bool sought;        /* not at the file's beginning: the first frame must prove that the seek was right */
    bool again;         /* it was not: decode from the beginning */
    const uint8_t *rgb; /* [height,width,3], the converter's */
    int64_t width, height;
    int64_t packets; /* read so far, against the limit */
} run;

/* Grid frame k on the file's clock; computed from k, so that no error adds up. */
static double grid_time(const run *r, int64_t k)
{
    return r->origin + (double)k / r->request->fps;
}

/* Conversion is put off to here: frames that no grid time asks for are never converted. */
static xkd_status deliver_shown(run *r)
{
    xkd_status status = XKD_OK;
    if (!r->converted) {
        XKD_TRY(xkd_convert(r->converter, r->shown, &r->rgb, &r->width, &r->height, r->fault));
        r->converted = true;
    }
    XKD_TRY(r->sink->frame(r->sink->user, r->rgb, r->width, r->height, r->next));
    r->next++;
    r->tally->frames++;
fail:
    return status;
}

/* A new frame ends the time of the one before it: that one serves all grid times up to here.
 * A frame without time stamp is put one frame length behind the last one. */
static xkd_status take_frame(run *r)
{
    xkd_status status = XKD_OK;
    AVFrame *frame = r->frame;
    double base = av_q2d(r->media->video->time_base);
    double time = frame->best_effort_timestamp == AV_NOPTS_VALUE
                      ? (r->have_shown ? r->shown_time + r->frame_seconds : r->media->info.video_start)
                      : (double)frame->best_effort_timestamp * base;
    double length = frame->pkt_duration > 0 ? (double)frame->pkt_duration * base : r->frame_seconds;
    if (frame->decode_error_flags || frame->flags & AV_FRAME_FLAG_CORRUPT) r->tally->errors++;
    /* After a seek the first frame must lie at or before the clip's start; else the index was wrong
     * and frames are missing in front. */
    if (!r->have_shown && r->sought && time > grid_time(r, 0) + TIME_EPSILON) {
        r->again = true;
        return XKD_OK;
    }
    if (r->have_shown && time < r->shown_time) return XKD_OK; /* damaged order: keep the later one */
    while (r->have_shown && r->next < r->wanted && grid_time(r, r->next) + TIME_EPSILON < time)
        XKD_TRY(deliver_shown(r));
    av_frame_unref(r->shown);
    av_frame_move_ref(r->shown, frame);
    r->shown_time = time;
    r->shown_end = time + fmax(length, 0);
    r->have_shown = true;
    r->converted = false;
    if (r->shown_end > r->tally->video_seen) r->tally->video_seen = r->shown_end;
    /* The first frame also stands for grid times before it. */
    while (r->next < r->wanted && r->next == 0 && grid_time(r, 0) + TIME_EPSILON < time) XKD_TRY(deliver_shown(r));
    if (r->next >= r->wanted) r->video_done = true;
fail:
    return status;
}

/* At the end of the stream the last frame serves grid times up to its own end and no further: a clip
 * past the end has fewer frames. */
static xkd_status finish_video(run *r)
{
    xkd_status status = XKD_OK;
    while (r->have_shown && r->next < r->wanted && grid_time(r, r->next) + TIME_EPSILON < r->shown_end)
        XKD_TRY(deliver_shown(r));
    r->video_done = true;
fail:
    return status;
}

/* audio_seen is where sound has been decoded to, which `data check` compares with what the header
 * says. */
static xkd_status take_sound(run *r)
{
    xkd_status status = XKD_OK;
    AVFrame *frame = r->frame;
    double base = av_q2d(r->media->audio->time_base);
    double time = frame->best_effort_timestamp == AV_NOPTS_VALUE ? r->tally->audio_seen
                                                                 : (double)frame->best_effort_timestamp * base;
    if (frame->decode_error_flags || frame->flags & AV_FRAME_FLAG_CORRUPT) r->tally->errors++;
    r->tally->audio_seen = time + (double)frame->nb_samples / (frame->sample_rate > 0 ? frame->sample_rate : 1);
    XKD_TRY(xkd_sound_add(r->sound, frame, time, r->fault));
    /* Pictures may still be wanted, so only this stream is finished. */
    if (time > r->end) r->audio_done = true;
fail:
    return status;
}

/* Sends one packet (NULL: the end) and takes all frames that it completes. Damage is counted, not fatal. */
static xkd_status feed(run *r, AVCodecContext *codec, const AVPacket *packet)
{
    xkd_status status = XKD_OK;
    bool video = codec == r->media->video_codec;
    int code = avcodec_send_packet(codec, packet);
    if (code < 0 && code != AVERROR_EOF) r->tally->errors++;
    for (;;) {
        code = avcodec_receive_frame(codec, r->frame);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) break;
        if (code < 0) {
            r->tally->errors++;
            break;
        }
        status =
            video ? (r->video_done || r->again ? XKD_OK : take_frame(r)) : (r->audio_done ? XKD_OK : take_sound(r));
        av_frame_unref(r->frame);
        if (status != XKD_OK) break;
    }
    return status;
}

/* Sound far before the clip need not be decoded.
 * A packet that ends before the clip less the pre-roll cannot reach it. */
static bool too_early(const run *r, const AVPacket *packet)
{
    if (packet->stream_index != r->media->audio->index || packet->pts == AV_NOPTS_VALUE) return false;
    double base = av_q2d(r->media->audio->time_base);
    return (double)(packet->pts + packet->duration) * base < grid_time(r, 0) - SOUND_PREROLL;
}

/* Both decoders hold frames back; a NULL packet makes them give these out. */
static xkd_status drain(run *r)
{
    xkd_status status = XKD_OK;
    if (!r->video_done) {
        XKD_TRY(feed(r, r->media->video_codec, NULL));
        XKD_TRY(finish_video(r));
    }
    if (!r->audio_done) {
        XKD_TRY(feed(r, r->media->audio_codec, NULL));
        XKD_TRY(xkd_sound_finish(r->sound));
    }
fail:
    return status;
}

/* A damaged or hostile file may hold any number of packets without a single frame. The bound is
 * generous: real files stay far below it. */
static xkd_status check_packet_count(run *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->media->cx;
    double seconds = fmax(r->media->info.end - r->media->info.start, 1) + 10;
    double limit = fmin(seconds * XKD_MEDIA_MAX_PACKETS_PER_SECOND, 1e15);
    if (r->request->mode != XKD_CLIP_WHOLE) limit = fmin(limit, XKD_MEDIA_MAX_PACKETS_TO_START);
    if ((double)++r->packets > limit) {
        *r->fault = XKD_FAULT_REFUSED;
        XKD_FAIL(XKD_ERR_DATA, "%s: refused: more than %.0f packets", r->media->name, limit);
    }
fail:
    return status;
}

/* To the key frame at or before the start. Without an index that can fail: then decoding goes on from the beginning.
 * Sound alone seeks by its own stream; otherwise the picture leads, as its key frames are the sparse
 * ones. */
static void seek(run *r, double time)
{
    xkd_media *m = r->media;
    bool by_sound = r->video_done || !m->video;
    AVStream *stream = by_sound ? m->audio : m->video;
    double first = by_sound ? m->info.audio_start : m->info.video_start;
    if (by_sound) time -= SOUND_PREROLL;
    bool from_start = time <= first;
    if (from_start && !m->dirty) return;
    int64_t stamp = (int64_t)floor((from_start ? first : time) / av_q2d(stream->time_base) + TIME_EPSILON);
    r->sought = !from_start;
    /* Transport streams have no index, and a search by time stamps may miss even the first key frame. */
    bool by_bytes = from_start && m->format->iformat->flags & AVFMT_TS_DISCONT;
    if (by_bytes || av_seek_frame(m->format, stream->index, stamp, AVSEEK_FLAG_BACKWARD) < 0) {
        r->sought = false;
        if (by_bytes || av_seek_frame(m->format, stream->index, stamp, AVSEEK_FLAG_ANY | AVSEEK_FLAG_BACKWARD) < 0)
            av_seek_frame(m->format, -1, 0, AVSEEK_FLAG_BYTE | AVSEEK_FLAG_ANY);
    }
    if (m->video_codec) avcodec_flush_buffers(m->video_codec);
    if (m->audio_codec) avcodec_flush_buffers(m->audio_codec);
}

/* Reads until both streams have what they need, the file ends, or the limit of packets is reached. A
 * read error is counted and ends the file: what was decoded until then is kept. */
static xkd_status read_packets(run *r)
{
    xkd_status status = XKD_OK;
    xkd_media *m = r->media;
    while (!r->video_done || !r->audio_done) {
        int code = av_read_frame(m->format, r->packet);
        if (code == AVERROR(EAGAIN)) continue;
        if (code < 0) {
            if (code != AVERROR_EOF) r->tally->errors++;
            XKD_TRY(drain(r));
            break;
        }
        int index = r->packet->stream_index;
        if (r->packet->flags & AV_PKT_FLAG_CORRUPT) r->tally->errors++;
        if (m->video && index == m->video->index && !r->video_done)
            status = feed(r, m->video_codec, r->packet);
        else if (m->audio && index == m->audio->index && !r->audio_done && !too_early(r, r->packet))
            status = feed(r, m->audio_codec, r->packet);
        av_packet_unref(r->packet);
        if (status == XKD_OK) status = check_packet_count(r);
        /* The seek was wrong: from the beginning again, with the decoders flushed. `sought` is then
         * off, so this happens once. */
        if (r->again) seek(r, m->info.video_start);
        r->again = false;
        if (status != XKD_OK) goto fail;
        if (r->sound && r->request->mode != XKD_CLIP_WHOLE &&
            xkd_sound_delivered(r->sound) >= llround(r->request->duration * (double)r->request->audio_rate))
            r->audio_done = true;
    }
fail:
    av_packet_unref(r->packet);
    return status;
}

/* Where the clip starts, on the common clock.
 * XKD_CLIP_PLACE takes a fraction of the possible starts, so that the draw does not depend on the
 * file's length. */
static double place_start(run *r)
{
    const xkd_media_request *q = r->request;
    double room = fmax(r->media->info.end - r->media->info.start - q->duration, 0), start = 0;
    if (q->mode == XKD_CLIP_AT) start = fmax(q->start, 0);
    if (q->mode == XKD_CLIP_PLACE) start = q->start * room;
    r->origin = r->media->info.start + start;
    return start;
}

/* Unused streams are discarded by the demuxer, which saves parsing them. */
static xkd_status prepare(run *r)
{
    xkd_status status = XKD_OK;
    xkd_media *m = r->media;
    xkd_context *cx = m->cx;
    const xkd_media_request *q = r->request;
    bool whole = q->mode == XKD_CLIP_WHOLE;
    bool video = q->video && m->video, audio = q->audio && m->audio;
    double start = place_start(r);
    r->end = whole ? INFINITY : r->origin + q->duration;
    r->wanted = whole ? INT64_MAX : llround(q->duration * q->fps);
    r->video_done = !video;
    r->audio_done = !audio;
    r->frame_seconds = m->info.fps > 0 ? 1 / m->info.fps : 1 / q->fps;
    r->packet = av_packet_alloc();
    r->frame = av_frame_alloc();
    r->shown = av_frame_alloc();
    if (!r->packet || !r->frame || !r->shown) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", m->name);
    if (video) XKD_TRY(xkd_converter_new(m, q->short_side, q->stream_colour, &r->converter));
    int64_t samples = whole ? -1 : llround(q->duration * (double)q->audio_rate);
    if (audio) XKD_TRY(xkd_sound_new(m, q->audio_rate, r->origin, samples, r->sink, &r->sound));
    for (unsigned i = 0; i < m->format->nb_streams; i++) {
        AVStream *stream = m->format->streams[i];
        bool used = (video && stream == m->video) || (audio && stream == m->audio);
        stream->discard = used ? AVDISCARD_DEFAULT : AVDISCARD_ALL;
    }
    XKD_TRY(r->sink->begin(r->sink->user, &m->info, start));
    r->tally->audio_seen = m->info.audio_start;
    seek(r, r->origin);
fail:
    return status;
}

/* Takes a run whose preparation failed. */
static void release(run *r)
{
    av_packet_free(&r->packet);
    av_frame_free(&r->frame);
    av_frame_free(&r->shown);
    xkd_converter_free(r->converter);
    xkd_sound_free(r->sound);
}

/* The media is marked dirty: another decode of the same open file must seek back, even to the
 * beginning. */
xkd_status xkd_media_decode(xkd_media *media, const xkd_media_request *request, const xkd_media_sink *sink,
                            xkd_media_tally *tally, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = media->cx;
    run r = {.media = media, .request = request, .sink = sink, .tally = tally, .fault = fault};
    *tally = (xkd_media_tally){0};
    *fault = XKD_FAULT_NONE;
    if (!(request->fps > 0 && request->fps <= 1000) || request->audio_rate < 1000 || request->short_side < 0 ||
        (request->mode != XKD_CLIP_WHOLE && !(request->duration > 0 && request->duration <= XKD_MEDIA_MAX_SECONDS)))
        XKD_FAIL(XKD_ERR_CONFIG, "%s: impossible request: %g s at %g fps, %lld Hz", media->name, request->duration,
                 request->fps, (long long)request->audio_rate);
    XKD_TRY(prepare(&r));
    media->dirty = true;
    XKD_TRY(read_packets(&r));
    tally->samples = r.sound ? xkd_sound_delivered(r.sound) : 0;
    if (request->video && media->video && tally->frames == 0) {
        *fault = XKD_FAULT_BROKEN;
        XKD_FAIL(XKD_ERR_DATA, "%s: no frame could be decoded at %.2f s", media->name, r.origin - media->info.start);
    }
fail:
    release(&r);
    return status;
}
