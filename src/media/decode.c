/* Decoding a clip or a whole file onto the frame grid. */
#include "media/media.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "media/internal.h"
#include "media/convert.h"
#include "media/skip.h"
#include "media/sound.h"

/* Grid times and time stamps are both rounded to doubles; a frame this close behind a grid time counts as on it. */
static const double TIME_EPSILON = 1e-6;

/* Sound decoders need a little before the first sample: Opus 80 ms, AAC and Vorbis two frames, and the resampler's filter
 * less than a millisecond. A frame of MP3 may take bits from as many as ten frames before it (511 bytes; at 8 kbit/s
 * these are half a second). */
static const double SOUND_PREROLL = 0.1, MP3_PREROLL = 0.6;

/* Steps back, each four times the one before, until picture and sound are there in front of the clip. Sound that is
 * still missing 16 s before was never there: a pause. */
static const double FIRST_STEP_BACK = 1, LAST_STEP_BACK = 16;

/* Between packets of sound: what is longer is missing. Shorter ones stand where streams were joined or stamps are rounded, up to
 * a frame and a half. Opus may leave out 0.4 s of silence. */
static const double HOLE_SECONDS = 0.1, OPUS_HOLE_SECONDS = 0.5, HOLE_FRAMES = 1.5;

/* Decoders deliver the last sound a little late: so much less than its packets hold is no damage. */
static const double SOUND_SLACK = 0.15;

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
    bool sought;      /* not at the file's beginning: the first frame and sound must prove that the seek was right */
    bool again;       /* they did not: decode from further back */
    bool plainly;     /* again, but from the same place: without leaving pictures out */
    bool heard;       /* a packet of sound has been seen since the seek */
    bool passed;      /* sound far before the clip was left out since then */
    double sound_end; /* of the last packet of sound since then; NAN: none yet */
    bool placed;      /* sound has been decoded since then */
    double back;      /* s before the clip's start that are sought in addition */
    int64_t fed, fed_before; /* stamps of the last two packets of pictures that were sent */
    /* Damage within the clip. */
    bool shown_bad, lost;            /* `shown` is damaged; a packet behind it gave no frame */
    int64_t bad_frames;              /* grid frames that show something else than they should */
    double bad_sound, sent, sounded; /* s of damaged sound; of sound sent to the decoder and come out of it */
    int64_t stretches;               /* told to the sink */
    const uint8_t *rgb;              /* [height,width,3], the converter's */
    int64_t width, height;
    int64_t packets; /* read so far, against the limit */
    xkd_skipper skipper;
} run;

/* Grid frame k on the file's clock; computed from k, so that no error adds up. */
static double grid_time(const run *r, int64_t k)
{
    return r->origin + (double)k / r->request->fps;
}

/* Tells the sink what of [time, time + length) lies in the clip. */
static xkd_status tell_damage(run *r, bool video, bool lost, double time, double length)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->media->cx;
    const xkd_media_stretch s = {.video = video,
                                 .lost = lost,
                                 .from = fmax(time, r->origin) - r->origin,
                                 .to = fmin(time + length, r->end) - r->origin};
    if (!r->sink->damage || !(s.to > s.from)) return XKD_OK;
    if (++r->stretches > XKD_MEDIA_MAX_STRETCHES) {
        *r->fault = XKD_FAULT_BROKEN;
        XKD_FAIL(XKD_ERR_DATA, "%s: damaged in more than %d places", r->media->name, XKD_MEDIA_MAX_STRETCHES);
    }
    status = r->sink->damage(r->sink->user, &s);
fail:
    return status;
}

/* Conversion is put off to here: frames that no grid time asks for are never converted. */
static xkd_status deliver_shown(run *r)
{
    xkd_status status = XKD_OK;
    if (!r->converted) {
        XKD_TRY(xkd_convert(r->converter, r->shown, &r->rgb, &r->width, &r->height, r->fault));
        r->converted = true;
    }
    if (r->shown_bad || r->lost) {
        r->bad_frames++;
        XKD_TRY(tell_damage(r, true, false, grid_time(r, r->next), 1 / r->request->fps));
    }
    XKD_TRY(r->sink->frame(r->sink->user, r->rgb, r->width, r->height, r->next));
    r->next++;
    r->tally->frames++;
fail:
    return status;
}

/* A decoder mends damage with pictures of before, whether anything refers to them or not: all of them must be there. A whole
 * file goes out piece by piece and cannot begin anew. */
static void stop_skipping(run *r)
{
    bool skipped = r->skipper.spared > 0 && r->request->mode != XKD_CLIP_WHOLE;
    if (!r->skipper.on) return;
    r->skipper.on = false;
    r->again = r->again || skipped;
    r->plainly = skipped;
}

/* Seconds on the file's clock. A frame without time stamp is put one frame length behind the last one. */
static double picture_time(const run *r, const AVFrame *frame)
{
    int64_t stamp = frame->best_effort_timestamp;
    if (xkd_media_is_packed(r->media->video_codec)) stamp = r->fed_before;
    if (stamp != AV_NOPTS_VALUE) return (double)stamp * av_q2d(r->media->video->time_base);
    return r->have_shown ? r->shown_time + r->frame_seconds : r->media->info.video_start;
}

/* A new frame ends the time of the one before it: that one serves all grid times up to here. */
static xkd_status take_frame(run *r)
{
    xkd_status status = XKD_OK;
    AVFrame *frame = r->frame;
    double base = av_q2d(r->media->video->time_base), time = picture_time(r, frame);
    int64_t duration = xkd_av_duration(frame);
    double length = duration > 0 ? (double)duration * base : r->frame_seconds;
    bool bad = frame->decode_error_flags || frame->flags & AV_FRAME_FLAG_CORRUPT;
    if (bad) {
        r->tally->errors++;
        stop_skipping(r);
    }
    /* What was left out was judged by time stamps in order. */
    if (frame->pts != frame->best_effort_timestamp || (r->have_shown && time < r->shown_time)) stop_skipping(r);
    if (r->again) return XKD_OK;
    /* After a seek the first frame must lie at or before the clip's start; else the index was wrong
     * and frames are missing in front. */
    if (!r->have_shown && r->sought &&
        (time > grid_time(r, 0) + TIME_EPSILON || xkd_media_is_guessed(r->media, frame))) {
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
    /* The first frame also stands for the grid's first time; one that comes later than it should says so. */
    r->shown_bad = bad;
    r->lost = !r->have_shown && time > fmax(grid_time(r, 0), r->media->info.video_start) + r->frame_seconds;
    r->have_shown = true;
    r->converted = false;
    if (r->shown_end > r->tally->video_seen) r->tally->video_seen = r->shown_end;
    while (r->next < r->wanted && r->next == 0 && grid_time(r, 0) + TIME_EPSILON < time) XKD_TRY(deliver_shown(r));
    r->lost = false;
    if (r->next >= r->wanted) r->video_done = true;
fail:
    return status;
}

/* At the end of the stream the last frame serves grid times up to its own end and no further: a clip
 * past the end has fewer frames. Its end is what its track says, or that of the sound where it is held; but only if it is
 * the last one, and not the last that a damaged file gave. */
static xkd_status finish_video(run *r)
{
    xkd_status status = XKD_OK;
    const xkd_media_info *info = &r->media->info;
    const xkd_media_span *span = &r->media->options.span;
    if (r->have_shown &&
        (r->shown_time >= span->video_last - 2 * TIME_EPSILON || r->shown_end + r->frame_seconds >= span->video_end)) {
        r->shown_end = fmax(r->shown_end, info->video_end);
        r->tally->video_seen = fmax(r->tally->video_seen, r->shown_end);
    }
    while (r->have_shown && r->next < r->wanted && grid_time(r, r->next) + TIME_EPSILON < r->shown_end)
        XKD_TRY(deliver_shown(r));
    r->video_done = true;
fail:
    return status;
}

/* How much of a stretch of time lies in the clip. */
static double overlap(const run *r, double time, double length)
{
    return fmax(fmin(time + length, r->end) - fmax(time, r->origin), 0);
}

/* Writers cut PCM into packets of any length, mostly of one; where stamps are exact they are the better word. */
static bool has_fixed_frames(const AVStream *stream)
{
    static const enum AVCodecID FIXED[] = {AV_CODEC_ID_AAC, AV_CODEC_ID_MP3,  AV_CODEC_ID_MP2,
                                           AV_CODEC_ID_AC3, AV_CODEC_ID_EAC3, AV_CODEC_ID_OPUS,
                                           AV_CODEC_ID_DTS, AV_CODEC_ID_FLAC, AV_CODEC_ID_ALAC};
    const AVCodecParameters *p = stream->codecpar;
    for (size_t i = 0; i < sizeof FIXED / sizeof *FIXED; i++)
        if (FIXED[i] == p->codec_id) return true;
    return xkd_media_is_pcm(p->codec_id) && av_q2d(stream->time_base) * p->sample_rate > 2;
}

/* Matroska and FLV round time stamps to a millisecond, sixteen samples, and what was once in one of them keeps such stamps
 * in MP4. Where all frames of a codec have one length, the true end of one is a whole number of them after the stream's
 * start: a clip then has the same samples wherever decoding began. */
static double exact_time(const run *r, const AVFrame *frame, double time)
{
    const AVStream *stream = r->media->audio;
    double tick = av_q2d(stream->time_base), start = r->media->sound_first, slack = fmax(0.75 * tick, 1e-3);
    if (!has_fixed_frames(stream) || frame->nb_samples < 1 || frame->sample_rate < 1) return time;
    double length = (double)frame->nb_samples / frame->sample_rate, step = length;
    if (stream->codecpar->codec_id == AV_CODEC_ID_OPUS) {
        /* It begins with samples to be skipped, and the stamp of what is left of the first frame is moved by as many whole
         * ticks. After a seek the first frame lacks as many, so that its stamp has been rounded twice. Frames are multiples
         * of 2.5 ms. */
        double skipped = (double)r->packet->duration * tick - length;
        if (!(skipped > 0)) skipped = (double)stream->codecpar->initial_padding / frame->sample_rate;
        start += (double)llround(skipped / tick + 1e-6) * tick - skipped; /* 6.5 ms are 7 */
        step = 0.0025;
        slack = 1.1 * tick;
    }
    double snapped = start + (double)llround((time + length - start) / step) * step - length;
    /* Stamps that are exact are left as they are, to the last bit. */
    return fabs(snapped - time) > 1e-9 && fabs(snapped - time) <= fmin(slack, step / 2) ? snapped : time;
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
    double length = (double)frame->nb_samples / (frame->sample_rate > 0 ? frame->sample_rate : 1);
    if ((r->sought || r->passed) && !r->placed) time = exact_time(r, frame, time);
    r->placed = true;
    double inside = overlap(r, time, length);
    r->sounded += inside;
    if (frame->decode_error_flags || frame->flags & AV_FRAME_FLAG_CORRUPT) {
        r->tally->errors++;
        r->bad_sound += inside;
        XKD_TRY(tell_damage(r, false, false, time, length));
    }
    r->tally->audio_seen = time + length;
    XKD_TRY(xkd_sound_add(r->sound, frame, time, r->fault));
    /* Pictures may still be wanted, so only this stream is finished. */
    if (time > r->end) r->audio_done = true;
fail:
    return status;
}

/* A packet that gives nothing: the picture before it stays too long, or its sound is missing. NULL: the end. */
static xkd_status count_error(run *r, bool video, const AVPacket *packet)
{
    if (!video && xkd_media_is_pcm(r->media->audio->codecpar->codec_id)) return XKD_OK;
    r->tally->errors++;
    if (video) {
        r->lost = r->have_shown;
        stop_skipping(r);
        return XKD_OK;
    }
    if (!packet || packet->pts == AV_NOPTS_VALUE) return XKD_OK;
    double base = av_q2d(r->media->audio->time_base);
    return tell_damage(r, false, true, (double)packet->pts * base, (double)packet->duration * base);
}

/* What stood in front of the packet, `missing` units of time of it, is gone. */
static xkd_status count_missing(run *r, const AVStream *stream, int64_t missing)
{
    double base = av_q2d(stream->time_base), length = (double)missing * base;
    double time = (double)r->packet->dts * base - length;
    r->tally->errors++;
    if (stream == r->media->video) {
        r->lost = r->have_shown;
        stop_skipping(r);
        return XKD_OK;
    }
    r->sound_end = NAN; /* told already */
    r->bad_sound += overlap(r, time, length);
    return tell_damage(r, false, true, time, length);
}

/* Packets that a demuxer passed over, as their heads are destroyed, leave nothing but a hole in the clock. Of pictures that
 * would prove nothing: they may come as seldom as they like. */
static xkd_status count_hole(run *r, double from, double to)
{
    double inside = overlap(r, from, to - from);
    if (!(inside > 0)) return XKD_OK;
    r->tally->holes++;
    r->tally->hole_seconds += inside;
    r->bad_sound += inside;
    return tell_damage(r, false, false, from, to - from);
}

/* Looks at the packet's place on the clock. */
static xkd_status find_hole(run *r, const AVPacket *packet)
{
    xkd_status status = XKD_OK;
    if (packet->pts == AV_NOPTS_VALUE) return XKD_OK;
    double base = av_q2d(r->media->audio->time_base);
    double time = (double)packet->pts * base, length = (double)packet->duration * base, before = r->sound_end;
    double least = r->media->audio->codecpar->codec_id == AV_CODEC_ID_OPUS ? OPUS_HOLE_SECONDS : HOLE_SECONDS;
    /* A packet that does not say how long it is may reach to the next. */
    r->sound_end = length > 0 ? time + length : NAN;
    if (!isnan(before) && time - before > fmax(least, HOLE_FRAMES * length)) status = count_hole(r, before, time);
    return status;
}

/* Sends one packet (NULL: the end) and takes all frames that it completes. Damage is counted, not fatal. */
static xkd_status feed(run *r, AVCodecContext *codec, const AVPacket *packet)
{
    xkd_status status = XKD_OK;
    bool video = codec == r->media->video_codec;
    if (video) {
        r->fed_before = r->fed;
        if (packet) r->fed = packet->dts == AV_NOPTS_VALUE ? packet->pts : packet->dts;
    }
    int code = avcodec_send_packet(codec, packet);
    if (code < 0 && code != AVERROR_EOF) status = count_error(r, video, packet);
    while (status == XKD_OK) {
        code = avcodec_receive_frame(codec, r->frame);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) break;
        if (code < 0) {
            status = count_error(r, video, packet);
            break;
        }
        status =
            video ? (r->video_done || r->again ? XKD_OK : take_frame(r)) : (r->audio_done ? XKD_OK : take_sound(r));
        av_frame_unref(r->frame);
    }
    return status;
}

/* Whether a picture from `time` on that is followed by another at `until` at the latest is that of a grid time; the same
 * comparisons as where it would be taken. What comes behind the clip ends it, and is decoded. */
static bool is_shown(const run *r, double time, double until)
{
    int64_t k = (int64_t)floor(fmax((time - r->origin) * r->request->fps, 0)) - 1;
    if (k < 0) k = 0;
    while (grid_time(r, k) + TIME_EPSILON < time) k++;
    return k >= r->wanted || grid_time(r, k) + TIME_EPSILON < until;
}

/* Sends what has waited long enough; `all`: everything, at the end. */
static xkd_status feed_waiting(run *r, bool all)
{
    xkd_status status = XKD_OK;
    double base = av_q2d(r->media->video->time_base);
    AVPacket *packet;
    int64_t until;
    while (status == XKD_OK && !r->again && (packet = xkd_skipper_pop(&r->skipper, all, &until)) != NULL) {
        bool spared = until < INT64_MAX && xkd_skipper_spares(&r->skipper, packet) &&
                      !is_shown(r, (double)packet->pts * base, (double)until * base);
        r->skipper.spared += spared;
        if (!spared && !r->video_done) status = feed(r, r->media->video_codec, packet);
        av_packet_free(&packet);
    }
    return status;
}

static xkd_status feed_video(run *r)
{
    xkd_status status = XKD_OK;
    if (!r->skipper.on && r->skipper.count == 0) return feed(r, r->media->video_codec, r->packet);
    XKD_TRY(xkd_skipper_push(&r->skipper, r->packet));
    XKD_TRY(feed_waiting(r, false));
fail:
    return status;
}

static double preroll(const run *r)
{
    return r->media->audio->codecpar->codec_id == AV_CODEC_ID_MP3 ? MP3_PREROLL : SOUND_PREROLL;
}

/* Sound far before the clip need not be decoded.
 * A packet that ends before the clip less the pre-roll cannot reach it. */
static bool too_early(const run *r, const AVPacket *packet)
{
    if (packet->pts == AV_NOPTS_VALUE) return false;
    double base = av_q2d(r->media->audio->time_base);
    return (double)(packet->pts + packet->duration) * base < r->origin - preroll(r);
}

/* The first sound after a seek must lie early enough for its decoder; pictures may have led to a place behind it. What is not
 * there even far before the clip is a hole. */
static xkd_status check_sound(run *r, const AVPacket *packet)
{
    if (r->heard || packet->pts == AV_NOPTS_VALUE) return XKD_OK;
    double time = (double)packet->pts * av_q2d(r->media->audio->time_base);
    double needed = fmax(r->origin - preroll(r), r->media->info.audio_start);
    r->heard = true;
    if (r->sought && r->back < LAST_STEP_BACK && time > needed + TIME_EPSILON + 1e-3) r->again = true;
    double first = fmax(r->origin, r->media->info.audio_start);
    if (r->sought && !r->again && time > first + OPUS_HOLE_SECONDS) return count_hole(r, first, time);
    return XKD_OK;
}

static xkd_status feed_sound(run *r)
{
    xkd_status status = XKD_OK;
    const AVPacket *packet = r->packet;
    double base = av_q2d(r->media->audio->time_base);
    XKD_TRY(check_sound(r, packet));
    if (r->again) return XKD_OK;
    XKD_TRY(find_hole(r, packet));
    if (too_early(r, packet)) {
        r->passed = true;
        return XKD_OK;
    }
    if (packet->pts != AV_NOPTS_VALUE)
        r->sent += overlap(r, (double)packet->pts * base, (double)packet->duration * base);
    XKD_TRY(feed(r, r->media->audio_codec, packet));
fail:
    return status;
}

/* Both decoders hold frames back; a NULL packet makes them give these out. */
static xkd_status drain(run *r)
{
    xkd_status status = XKD_OK;
    if (!r->video_done) {
        XKD_TRY(feed_waiting(r, true));
        if (!r->again) XKD_TRY(feed(r, r->media->video_codec, NULL));
        /* What the index or the demuxer called a key frame was none: the decoder has waited for one to the end. */
        if (r->sought && !r->have_shown) r->again = true;
        if (r->again) goto fail;
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
        XKD_FAIL(XKD_ERR_DATA, "%s: refused: more than %.0f packets (docs/media-formats.md has the limits)",
                 r->media->name, limit);
    }
fail:
    return status;
}

/* To the key frame at or before the start. Without an index that can fail: then decoding goes on from the beginning.
 * Sound alone seeks by its own stream; otherwise the picture leads, as its key frames are the sparse
 * ones. */
static void seek(run *r)
{
    xkd_media *m = r->media;
    bool by_sound = !r->converter;
    AVStream *stream = by_sound ? m->audio : m->video;
    if (!stream || (by_sound && !r->sound)) return;
    double first = by_sound ? m->info.audio_start : m->info.video_start;
    double time = r->origin - r->back - (r->sound ? preroll(r) : 0);
    /* A whole file goes out piece by piece and cannot begin anew. */
    bool from_start = time <= first || r->request->mode == XKD_CLIP_WHOLE || xkd_media_misses(m);
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
    r->fed = r->fed_before = AV_NOPTS_VALUE;
    if (m->audio_codec) avcodec_flush_buffers(m->audio_codec);
}

/* The seek was wrong. From further back again, in the end from the beginning, with nothing kept of what was decoded:
 * silence that was put where sound was only not yet seen must not stay. */
static xkd_status restart(run *r)
{
    xkd_status status = XKD_OK;
    xkd_media *m = r->media;
    r->again = r->heard = r->passed = r->placed = r->have_shown = r->converted = r->lost = r->shown_bad = false;
    if (!r->plainly) r->back = r->back > 0 ? 4 * r->back : FIRST_STEP_BACK;
    r->plainly = false;
    r->next = r->bad_frames = r->stretches = 0;
    r->bad_sound = r->sent = r->sounded = 0;
    r->sound_end = NAN;
    r->video_done = !r->converter;
    r->audio_done = !r->sound;
    *r->tally = (xkd_media_tally){.audio_seen = m->info.audio_start};
    av_frame_unref(r->shown);
    xkd_skipper_clear(&r->skipper);
    if (r->sound) {
        xkd_sound_free(r->sound);
        r->sound = NULL;
        XKD_TRY(xkd_media_renew_sound(m, r->fault));
        XKD_TRY(xkd_sound_new(m, r->request->audio_rate, r->origin,
                              llround(r->request->duration * (double)r->request->audio_rate), r->sink, &r->sound));
    }
    XKD_TRY(r->sink->begin(r->sink->user, &m->info, r->origin - m->info.start));
    seek(r);
fail:
    return status;
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
            if (!r->again) break;
            /* The last packets of a file may be the first after a seek. */
            XKD_TRY(restart(r));
            continue;
        }
        int index = r->packet->stream_index;
        bool samples = m->audio && index == m->audio->index && xkd_media_is_pcm(m->audio->codecpar->codec_id);
        if (r->packet->flags & AV_PKT_FLAG_CORRUPT && !samples) r->tally->errors++;
        XKD_TRY(xkd_media_check_encryption(m, r->packet, r->fault));
        int64_t missing = xkd_media_restamp(m, r->packet);
        if (missing) status = count_missing(r, m->format->streams[index], missing);
        if (status == XKD_OK && m->video && index == m->video->index && !r->video_done)
            status = feed_video(r);
        else if (status == XKD_OK && m->audio && index == m->audio->index && !r->audio_done)
            status = feed_sound(r);
        av_packet_unref(r->packet);
        if (status == XKD_OK) status = check_packet_count(r);
        if (status == XKD_OK && r->again) status = restart(r);
        if (status != XKD_OK) goto fail;
        if (r->sound && r->request->mode != XKD_CLIP_WHOLE &&
            xkd_sound_delivered(r->sound) >= llround(r->request->duration * (double)r->request->audio_rate))
            r->audio_done = true;
    }
fail:
    av_packet_unref(r->packet);
    return status;
}

/* One start more than there is room for frames: 0, 1, ... room. */
int64_t xkd_media_grid_start(double seconds, double duration, double fps, double place)
{
    int64_t room = (int64_t)floor((seconds - duration) * fps + TIME_EPSILON);
    return room > 0 ? (int64_t)(place * (double)(room + 1)) : 0;
}

/* Where the clip starts, on the common clock.
 * XKD_CLIP_PLACE takes a fraction of the possible starts, so that the draw does not depend on the
 * file's length. */
static double place_start(run *r)
{
    const xkd_media_request *q = r->request;
    double room = fmax(r->media->info.end - r->media->info.start - q->duration, 0), start = 0;
    if (q->mode == XKD_CLIP_AT) start = fmax(q->start, 0);
    if (q->mode == XKD_CLIP_PLACE && q->on_grid)
        start = (double)xkd_media_grid_start(r->media->info.end - r->media->info.start, q->duration, q->fps, q->start) /
                q->fps;
    else if (q->mode == XKD_CLIP_PLACE)
        start = q->start * room;
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
    bool video = q->video && m->video && m->video_codec, audio = q->audio && m->audio && m->audio_codec;
    double start = place_start(r);
    r->end = whole ? INFINITY : r->origin + q->duration;
    r->wanted = whole ? INT64_MAX : llround(q->duration * q->fps);
    r->video_done = !video;
    r->audio_done = !audio;
    r->sound_end = NAN;
    r->fed = r->fed_before = AV_NOPTS_VALUE;
    r->frame_seconds = m->info.fps > 0 ? 1 / m->info.fps : 1 / q->fps;
    r->packet = av_packet_alloc();
    r->frame = av_frame_alloc();
    r->shown = av_frame_alloc();
    if (!r->packet || !r->frame || !r->shown) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", m->name);
    xkd_skipper_begin(&r->skipper, m);
    if (q->all_pictures || !video) r->skipper.on = false;
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
    seek(r);
fail:
    return status;
}

/* Takes a run whose preparation failed. */
static void release(run *r)
{
    av_packet_free(&r->packet);
    av_frame_free(&r->frame);
    av_frame_free(&r->shown);
    xkd_skipper_clear(&r->skipper);
    xkd_converter_free(r->converter);
    xkd_sound_free(r->sound);
}

double xkd_media_sound_damage(double flagged, double lost, double seconds)
{
    double bad = fmax(flagged, lost - SOUND_SLACK);
    return seconds > 0 ? fmin(fmax(bad, 0) / seconds, 1) : 0;
}

/* However short it is, of sound that should be there nothing is too little. */
double xkd_media_heard_damage(double flagged, double lost, double given, double seconds)
{
    if (given <= 0 && seconds > SOUND_SLACK) return 1;
    return xkd_media_sound_damage(flagged, fmax(lost, seconds - given), seconds);
}

double xkd_media_picture_damage(double seconds, double fps, int64_t wanted, int64_t bad, int64_t given)
{
    double expected = fmin(ceil(seconds * fps - TIME_EPSILON), (double)wanted);
    double missing = fmax(expected - (double)given, 0);
    return expected >= 1 ? fmin(((double)bad + missing) / expected, 1) : 0;
}

/* Shares of the clip; see xkd_media_tally. */
static xkd_status judge_damage(run *r)
{
    xkd_status status = XKD_OK;
    const xkd_media_info *info = &r->media->info;
    const xkd_media_request *q = r->request;
    if (r->converter) {
        double length = fmin(r->end, fmax(info->video_end, r->origin)) - r->origin;
        r->tally->video_damage = xkd_media_picture_damage(length, q->fps, r->wanted, r->bad_frames, r->next);
    }
    if (r->sound) {
        double expected = fmin(r->end, fmax(info->audio_end, r->origin)) - r->origin;
        double given = (double)xkd_sound_delivered(r->sound) / (double)q->audio_rate;
        r->tally->audio_damage = xkd_media_heard_damage(r->bad_sound, r->sent - r->sounded, given, expected);
        XKD_TRY(tell_damage(r, false, true, r->origin + given, expected - given));
    }
fail:
    return status;
}

/* Joined recordings have two pictures for one time; streams that never meet have no clip at all. */
static xkd_status check_clock(const xkd_media *m, const xkd_media_request *q, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cx;
    const xkd_media_info *i = &m->info;
    if (i->clock_step > 0) {
        char words[200];
        *fault = XKD_FAULT_CLOCK;
        xkd_media_step_words(i, words);
        XKD_FAIL(XKD_ERR_DATA, "%s: %s", m->name, words);
    }
    if (q->video && q->audio && m->video && m->audio && i->end <= i->start) {
        *fault = XKD_FAULT_SHORT;
        XKD_FAIL(
            XKD_ERR_DATA,
            "%s: pictures (%.2f to %.2f s) and sound (%.2f to %.2f s) have no time in common (use one of them alone)",
            m->name, i->video_start, i->video_end, i->audio_start, i->audio_end);
    }
fail:
    return status;
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
    XKD_TRY(check_clock(media, request, fault));
    XKD_TRY(prepare(&r));
    media->dirty = true;
    XKD_TRY(read_packets(&r));
    tally->samples = r.sound ? xkd_sound_delivered(r.sound) : 0;
    XKD_TRY(judge_damage(&r));
    if (r.converter && tally->frames == 0) {
        *fault = XKD_FAULT_BROKEN;
        XKD_FAIL(XKD_ERR_DATA, "%s: no frame could be decoded at %.2f s", media->name, r.origin - media->info.start);
    }
fail:
    release(&r);
    return status;
}
