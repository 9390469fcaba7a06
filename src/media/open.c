/* Opening a file from a stranger: our descriptor, our lists, our limits.
 * Everything here may be hostile. What is allowed is on lists, what is large is limited before it is
 * decoded, and every fault gets a name that the data report can count. The decoders run in a worker
 * process (worker.c), so that one that crashes takes nothing with it. */
#include "media/media.h"

#include <errno.h>
#include <libavutil/avstring.h>
#include <libavutil/channel_layout.h>
#include <libavutil/display.h>
#include <libavutil/opt.h>
#include <libswresample/swresample.h>
#include <libswscale/swscale.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "media/internal.h"

/* Containers that hold their streams themselves. Left out on purpose: play lists and anything else that names further
 * files (hls, dash, concat, ffconcat, sdp, rtsp, mpls, imf), devices, image sequences, raw streams without time stamps
 * and rare formats whose parsers see little testing. Names are libavformat's. */
static const char FORMATS[] = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,wav,flac,mp3";

/* Decoders by libavcodec's names. */
static const char CODECS[] =
    "h264,hevc,av1,libdav1d,vp8,vp9,libvpx,libvpx-vp9,mpeg4,mpeg1video,mpeg2video,msmpeg4v1,msmpeg4v2,msmpeg4,h263,flv,"
    "wmv1,wmv2,wmv3,vc1,theora,mjpeg,prores,dnxhd,ffv1,"
    "aac,aac_fixed,mp3,mp3float,mp2,mp2float,mp1,mp1float,ac3,eac3,opus,libopus,vorbis,libvorbis,flac,alac,wmav1,wmav2,"
    "wmapro,amrnb,amrwb,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_u8,pcm_s8,pcm_f32le,pcm_f64le,"
    "pcm_alaw,pcm_mulaw,adpcm_ms,adpcm_ima_wav,"
    /* One line each: what a fuzzing run finds to be unsafe is taken out alone. */
    "dca,"
    "truehd,mlp,"
    "adpcm_ima_qt,"
    "nellymoser";

/* Headers round lengths and estimate them where they are not known: less than this missing is no damage. */
static const double MISSING_SECONDS = 0.5, MISSING_SHARE = 0.02;

/* No container begins with as many zero bytes as these. */
static const int64_t MISSING_BYTES = 64;

/* FFmpeg reads in pieces of this size; smaller ones cost calls, larger ones read past what opening a
 * file needs. */
enum { IO_BUFFER = 64 << 10 };

/* In the order of xkd_media_fault; the names appear in bad_clips.jsonl and in reports. */
static const char *const FAULT_NAMES[XKD_FAULT_COUNT] = {"ok",          "missing", "unreadable", "empty",  "not-media",
                                                         "refused",     "broken",  "no-video",   "silent", "short",
                                                         "out-of-sync", "timeout", "crash",      "clock"};

const char *xkd_media_fault_name(xkd_media_fault fault)
{
    return (unsigned)fault < XKD_FAULT_COUNT ? FAULT_NAMES[fault] : "unknown";
}

/* av_strerror fails for unknown codes, which still need some text. */
const char *xkd_av_text(char out[128], int code)
{
    if (av_strerror(code, out, 128) < 0) snprintf(out, 128, "error %d", code);
    return out;
}

/* pread with an offset of our own: the descriptor's offset is shared with the process that sent it. */
static int read_bytes(void *opaque, uint8_t *buffer, int size)
{
    xkd_media *media = opaque;
    /* A member of an archive ends before its file does. */
    if (media->offset >= media->size) return AVERROR_EOF;
    if (size > media->size - media->offset) size = (int)(media->size - media->offset);
    for (;;) {
        ssize_t got = pread(media->fd, buffer, (size_t)size, media->first + media->offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return AVERROR(errno);
        if (got == 0) return AVERROR_EOF;
        xkd_media_close_edits(media, buffer, media->offset, got);
        media->offset += got;
        return (int)got;
    }
}

/* An offset past the end is no error, reads there give the end of file. */
static int64_t seek_bytes(void *opaque, int64_t offset, int whence)
{
    xkd_media *media = opaque;
    int64_t base = 0;
    if (whence & AVSEEK_SIZE) return media->size;
    whence &= ~AVSEEK_FORCE;
    if (whence == SEEK_CUR) base = media->offset;
    if (whence == SEEK_END) base = media->size;
    if (__builtin_add_overflow(base, offset, &base) || base < 0) return AVERROR(EINVAL);
    media->offset = base;
    return base;
}

/* A file must never make us open another one, whatever its play list or reference atom says. */
static int deny_open(AVFormatContext *format, AVIOContext **io, const char *url, int flags, AVDictionary **options)
{
    (void)format, (void)url, (void)flags, (void)options;
    *io = NULL;
    return AVERROR(EACCES);
}

/* Faults of the file are told from things that this program will not do; an unknown code counts as a
 * fault of the file. */
static xkd_media_fault fault_of(int code)
{
    if (code == AVERROR_INVALIDDATA || code == AVERROR_EOF || code == AVERROR(EIO)) return XKD_FAULT_BROKEN;
    if (code == AVERROR_DECODER_NOT_FOUND || code == AVERROR_DEMUXER_NOT_FOUND || code == AVERROR(EINVAL) ||
        code == AVERROR(EACCES) || code == AVERROR_PATCHWELCOME || code == AVERROR(ENOSYS))
        return XKD_FAULT_REFUSED;
    return XKD_FAULT_BROKEN;
}

/* av_match_list knows the aliases, such as mov,mp4,m4a, that one demuxer goes by. */
static int on_list(const char *list, const char *names)
{
    return av_match_list(names, list, ',') > 0;
}

/* FFmpeg 7 recognises a play list only by a name that play lists have, and is told no name here. */
static bool is_play_list(const xkd_media *media)
{
    static const char mark[] = "#EXTM3U";
    char start[sizeof mark - 1];
    return pread(media->fd, start, sizeof start, media->first) == sizeof start && !memcmp(start, mark, sizeof start);
}

/* Zero bytes in front, of which there are many where room was set aside for a download or a copy that did not finish; without
 * those that a container's first number begins with. Looks at the first gigabyte. */
static int64_t leading_zeros(const xkd_media *media)
{
    uint8_t buffer[1 << 14];
    int64_t at = 0, most = media->size < 1 << 30 ? media->size : 1 << 30;
    while (at < most) {
        ssize_t got = pread(media->fd, buffer, sizeof buffer, media->first + at), i = 0;
        while (i < got && at + i < most && !buffer[i]) i++;
        at += i;
        if (got <= 0 || i < got) break;
    }
    if (at + 5 > media->size || pread(media->fd, buffer, 5, media->first + at) != 5) return at;
    if (!memcmp(buffer + 1, "ftyp", 4)) return at - 3; /* 00 00 00 20 f t y p */
    if (!memcmp(buffer, "\1\xBA", 2)) return at - 2;   /* 00 00 01 BA: a program stream */
    return at;
}

/* Why nothing that is known here was recognised. */
static xkd_status refuse_start(const xkd_media *media, const char *name, xkd_media_fault *fault)
{
    int64_t zeros = leading_zeros(media);
    *fault = name && zeros < MISSING_BYTES ? XKD_FAULT_REFUSED : XKD_FAULT_NOT_MEDIA;
    if (zeros == media->size)
        return xkd_fail(media->cx, XKD_ERR_DATA, "%s: all of its %lld bytes are zero (download or copy it again)",
                        media->name, (long long)zeros);
    if (zeros >= MISSING_BYTES)
        return xkd_fail(media->cx, XKD_ERR_DATA,
                        "%s: its first %lld bytes are zero, as in a download that did not finish (download or copy it "
                        "again; or cut them off: tail -c +%lld FILE > NEW)",
                        media->name, (long long)zeros, (long long)zeros + 1);
    if (!name)
        return xkd_fail(media->cx, XKD_ERR_DATA,
                        "%s: not a media file that is known here (docs/media-formats.md lists those)", media->name);
    /* Text and pictures are recognised as something, too: to the user they are no videos at all. */
    return xkd_fail(media->cx, XKD_ERR_DATA, "%s: refused: format %s is not on the list (docs/media-formats.md)",
                    media->name, name);
}

/* Recognises the format by content alone, so that a play list called .mp4 is seen as what it is. */
static xkd_status recognise(xkd_media *media, const AVInputFormat **kind, xkd_media_fault *fault)
{
    *kind = NULL;
    int code = av_probe_input_buffer2(media->io, kind, "", NULL, 0, 1 << 20);
    const char *name = code >= 0 && *kind ? (*kind)->name : is_play_list(media) ? "hls" : NULL;
    if (!name || !on_list(FORMATS, name)) return refuse_start(media, name, fault);
    return XKD_OK;
}

/* The lists are given to FFmpeg as well, so that nested demuxers and codecs are held to them too. */
static xkd_status open_format(xkd_media *media, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = media->cx;
    const AVInputFormat *kind = NULL;
    AVDictionary *options = NULL;
    char text[128];
    unsigned char *buffer = av_malloc(IO_BUFFER);
    if (!buffer) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", media->name);
    media->io = avio_alloc_context(buffer, IO_BUFFER, 0, media, read_bytes, NULL, seek_bytes);
    if (!media->io) {
        av_free(buffer);
        XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", media->name);
    }
    xkd_media_find_open_edits(media);
    XKD_TRY(recognise(media, &kind, fault));
    media->format = avformat_alloc_context();
    if (!media->format) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", media->name);
    media->format->pb = media->io;
    media->format->flags |= AVFMT_FLAG_CUSTOM_IO;
    media->format->io_open = deny_open;
    media->format->max_streams = XKD_MEDIA_MAX_STREAMS;
    media->format->probesize = XKD_MEDIA_PROBE_BYTES;
    media->format->max_analyze_duration = (int64_t)XKD_MEDIA_PROBE_SECONDS * AV_TIME_BASE;
    /* protocol_whitelist "none" names no protocol: nothing but our own reader can be opened. */
    av_dict_set(&options, "format_whitelist", FORMATS, 0);
    av_dict_set(&options, "codec_whitelist", CODECS, 0);
    av_dict_set(&options, "protocol_whitelist", "none", 0);
    int code = avformat_open_input(&media->format, "", kind, &options);
    /* libavformat's word for more streams than it may make. */
    if (code == AVERROR(ENOMEM)) {
        *fault = XKD_FAULT_REFUSED;
        XKD_FAIL(XKD_ERR_DATA, "%s: refused: more than %d streams, or no memory for them", media->name,
                 XKD_MEDIA_MAX_STREAMS);
    }
    if (code < 0) {
        *fault = fault_of(code);
        XKD_FAIL(XKD_ERR_DATA, "%s: %s header: %s", media->name, kind->name, xkd_av_text(text, code));
    }
fail:
    av_dict_free(&options);
    return status;
}

/* One thread and the pixel limit also for the decoders that libavformat opens while it looks for parameters. It takes
 * one dictionary for each stream that it knows by now. Subtitles and attachments are of no interest; what is
 * data so far may turn out to be sound. */
static int find_streams(AVFormatContext *format)
{
    AVDictionary *options[XKD_MEDIA_MAX_STREAMS] = {0};
    for (unsigned i = 0; i < format->nb_streams; i++) {
        enum AVMediaType type = format->streams[i]->codecpar->codec_type;
        if (type == AVMEDIA_TYPE_SUBTITLE || type == AVMEDIA_TYPE_ATTACHMENT)
            format->streams[i]->discard = AVDISCARD_ALL;
    }
    unsigned count = format->nb_streams < XKD_MEDIA_MAX_STREAMS ? format->nb_streams : XKD_MEDIA_MAX_STREAMS;
    for (unsigned i = 0; i < count; i++) {
        av_dict_set(&options[i], "threads", "1", 0);
        av_dict_set_int(&options[i], "max_pixels", XKD_MEDIA_MAX_PIXELS, 0);
        av_dict_set(&options[i], "codec_whitelist", CODECS, 0);
    }
    int code = avformat_find_stream_info(format, count ? options : NULL);
    for (unsigned i = 0; i < count; i++) av_dict_free(&options[i]);
    return code;
}

/* The `number`th stream of its kind; 0: the default one, else the first. *tracks: how many there are. A cover picture in a sound file is a video stream
 * to FFmpeg, but not to us. */
static AVStream *choose_stream(AVFormatContext *format, enum AVMediaType type, int64_t number, int64_t *tracks)
{
    AVStream *best = NULL;
    *tracks = 0;
    for (unsigned i = 0; i < format->nb_streams; i++) {
        AVStream *stream = format->streams[i];
        if (stream->codecpar->codec_type != type || stream->disposition & AV_DISPOSITION_ATTACHED_PIC) continue;
        ++*tracks;
        if (number ? *tracks == number
                   : !best || (stream->disposition & AV_DISPOSITION_DEFAULT &&
                               !(best->disposition & AV_DISPOSITION_DEFAULT)))
            best = stream;
    }
    return best;
}

/* From the header, before a decoder is opened: a decoder allocates by these numbers. */
static xkd_status check_limits(xkd_media *media, const AVCodecParameters *p, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = media->cx;
    *fault = XKD_FAULT_REFUSED;
    if (p->codec_type == AVMEDIA_TYPE_VIDEO) {
        int64_t w = p->width, h = p->height, longer = w > h ? w : h, shorter = w > h ? h : w;
        if (w < 1 || h < 1) {
            *fault = XKD_FAULT_BROKEN;
            XKD_FAIL(XKD_ERR_DATA, "%s: the video stream's size is unknown", media->name);
        }
        if (longer > XKD_MEDIA_MAX_SIDE || w * h > XKD_MEDIA_MAX_PIXELS || longer > shorter * XKD_MEDIA_MAX_ASPECT)
            XKD_FAIL(XKD_ERR_DATA, "%s: refused: frames of %lldx%lld (docs/media-formats.md has the limits)",
                     media->name, (long long)w, (long long)h);
    } else {
        if (p->ch_layout.nb_channels < 1 || p->sample_rate < 1) {
            *fault = XKD_FAULT_BROKEN;
            XKD_FAIL(XKD_ERR_DATA, "%s: the sound stream's rate or channels are unknown", media->name);
        }
        if (p->ch_layout.nb_channels > XKD_MEDIA_MAX_CHANNELS || p->sample_rate > XKD_MEDIA_MAX_RATE)
            XKD_FAIL(XKD_ERR_DATA, "%s: refused: %d channels at %d Hz (docs/media-formats.md has the limits)",
                     media->name, p->ch_layout.nb_channels, p->sample_rate);
    }
    *fault = XKD_FAULT_NONE;
fail:
    return status;
}

/* One thread a decoder: parallelism is over clips, and threads would only fight for processors. */
static xkd_status open_codec(xkd_media *media, AVStream *stream, AVCodecContext **out, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = media->cx;
    AVDictionary *options = NULL;
    char text[128];
    const AVCodec *codec = avcodec_find_decoder(stream->codecpar->codec_id);
    if (!codec || !on_list(CODECS, codec->name)) {
        *fault = XKD_FAULT_REFUSED;
        XKD_FAIL(XKD_ERR_DATA, "%s: refused: codec %s is not on the list (docs/media-formats.md)", media->name,
                 avcodec_get_name(stream->codecpar->codec_id));
    }
    /* Behind the list: what is not on it has not been looked into, and may lack its rate for that alone. */
    XKD_TRY(check_limits(media, stream->codecpar, fault));
    *out = avcodec_alloc_context3(codec);
    if (!*out || avcodec_parameters_to_context(*out, stream->codecpar) < 0)
        XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", media->name);
    (*out)->thread_count = 1;
    (*out)->max_pixels = XKD_MEDIA_MAX_PIXELS;
    (*out)->pkt_timebase = stream->time_base;
    av_dict_set(&options, "codec_whitelist", CODECS, 0);
    int code = avcodec_open2(*out, codec, &options);
    if (code < 0) {
        *fault = fault_of(code);
        XKD_FAIL(XKD_ERR_DATA, "%s: %s: %s", media->name, codec->name, xkd_av_text(text, code));
    }
fail:
    av_dict_free(&options);
    return status;
}

xkd_status xkd_media_renew_sound(xkd_media *media, xkd_media_fault *fault)
{
    avcodec_free_context(&media->audio_codec);
    return open_codec(media, media->audio, &media->audio_codec, fault);
}

/* Phones store turned films with a matrix. Anything between quarter turns would need interpolation
 * and is not done. */
static void read_rotation(xkd_media *media)
{
    const int32_t *m = xkd_av_matrix(media->video);
    if (!m) return;
    /* x' = m0 x + m3 y, y' = m1 x + m4 y: only the nearest multiple of a quarter turn, mirrored or not, is applied. */
    media->transpose = llabs(m[1]) > llabs(m[0]);
    media->flip_x = media->transpose ? m[3] < 0 : m[0] < 0;
    media->flip_y = media->transpose ? m[1] < 0 : m[4] < 0;
    double angle = av_display_rotation_get(m);
    if (isfinite(angle)) media->info.quarter_turns = ((lround(-angle / 90) % 4) + 4) % 4;
}

/* In seconds on the file's clock. */
static double stream_seconds(const AVStream *stream, int64_t time, double otherwise)
{
    return time == AV_NOPTS_VALUE ? otherwise : (double)time * av_q2d(stream->time_base);
}

/* A stream that does not say where it starts or ends takes the file's word. */
static void stream_span(const xkd_media *media, const AVStream *stream, double *start, double *end)
{
    const AVFormatContext *format = media->format;
    double file_start = format->start_time == AV_NOPTS_VALUE ? 0 : (double)format->start_time / AV_TIME_BASE;
    *start = stream_seconds(stream, stream->start_time, file_start);
    double length = 0;
    if (stream->duration != AV_NOPTS_VALUE && stream->duration > 0)
        length = (double)stream->duration * av_q2d(stream->time_base);
    else if (format->duration != AV_NOPTS_VALUE && format->duration > 0)
        length = file_start + (double)format->duration / AV_TIME_BASE - *start;
    *end = *start + fmax(length, 0);
}

/* Cut to fit; names of formats and codecs are shorter. */
static void copy_name(char out[32], const char *name)
{
    snprintf(out, 32, "%s", name ? name : "");
}

/* Of the streams that are wanted and there. A still picture with a song: held, it ends where the sound does. */
static void common_part(xkd_media *media)
{
    xkd_media_info *i = &media->info;
    bool video = media->video && media->options.video, audio = media->audio && media->options.audio;
    /* A file that has nothing of what is wanted is described by what it has. */
    if (!video && !audio) {
        video = media->video != NULL;
        audio = media->audio != NULL;
    }
    if (video && audio && media->options.hold_last_frame) i->video_end = fmax(i->video_end, i->audio_end);
    i->start = video && audio ? fmax(i->video_start, i->audio_start) : video ? i->video_start : i->audio_start;
    i->end = video && audio ? fmin(i->video_end, i->audio_end) : video ? i->video_end : i->audio_end;
}

/* What the header promises and the packets do not keep: such a file was cut off. Compared without the start, as some
 * formats count the length from zero and others from the first packet; so a cut is never seen where there is none. */
static void find_cut(xkd_media *media, const xkd_media_span *span, double claimed)
{
    double all = span->read_end;
    if (claimed > 0 && span->clock_step == 0 && claimed - all > fmax(MISSING_SECONDS, MISSING_SHARE * claimed)) {
        media->info.cut_at = fmax(all, 1e-6);
        media->info.cut_of = claimed;
    }
}

static void copy_span(xkd_media_info *info, const xkd_media_span *span)
{
    info->video_start = span->video_start;
    info->video_end = span->video_end;
    info->audio_start = span->audio_start;
    info->audio_end = span->audio_end;
    info->video_last = span->video_last;
    info->clock_step = span->clock_step;
    info->key_gap = span->key_gap;
}

/* start and end are those of the part that both streams cover: a clip must have picture and sound
 * (method.md section 2). */
static xkd_status describe(xkd_media *media, const xkd_media_span *span, double claimed, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = media->cx;
    xkd_media_info *info = &media->info;
    copy_name(info->format, media->format->iformat->name);
    info->has_video = media->video != NULL;
    info->has_audio = media->audio != NULL;
    if (media->video) {
        const AVCodecParameters *p = media->video->codecpar;
        read_rotation(media);
        AVRational rate =
            media->video->avg_frame_rate.num > 0 ? media->video->avg_frame_rate : media->video->r_frame_rate;
        info->fps = rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 0;
        info->width = media->transpose ? p->height : p->width;
        info->height = media->transpose ? p->width : p->height;
        copy_name(info->video_codec, avcodec_get_name(p->codec_id));
    }
    if (media->audio) {
        const AVCodecParameters *p = media->audio->codecpar;
        info->sample_rate = p->sample_rate;
        info->channels = p->ch_layout.nb_channels;
        copy_name(info->audio_codec, avcodec_get_name(p->codec_id));
    }
    copy_span(info, span);
    find_cut(media, span, claimed);
    common_part(media);
    /* A header may claim anything; lengths bound the work of a whole file, and starts far out would
     * strain arithmetic in time bases. */
    if (info->end - info->start > XKD_MEDIA_MAX_SECONDS || fabs(info->start) > 1e9) {
        *fault = XKD_FAULT_REFUSED;
        XKD_FAIL(XKD_ERR_DATA, "%s: refused: claims to last %.0f s (cut it into parts)", media->name,
                 info->end - info->start);
    }
fail:
    return status;
}

/* Which of the sound tracks was taken, from 1. */
static int64_t track_of(const xkd_media *media)
{
    int64_t track = 0;
    for (unsigned i = 0; i < media->format->nb_streams; i++) {
        const AVStream *stream = media->format->streams[i];
        if (stream->codecpar->codec_type == AVMEDIA_TYPE_AUDIO && !(stream->disposition & AV_DISPOSITION_ATTACHED_PIC))
            track++;
        if (stream == media->audio) break;
    }
    return track;
}

/* The streams of an open format. Only these are read when the file is read through for its spans. */
static xkd_status pick_streams(xkd_media *media, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = media->cx;
    char text[128];
    int code = find_streams(media->format);
    if (code < 0) {
        *fault = fault_of(code);
        XKD_FAIL(XKD_ERR_DATA, "%s: cannot read stream parameters: %s", media->name, xkd_av_text(text, code));
    }
    int64_t pictures, track = media->options.audio_track;
    media->video = choose_stream(media->format, AVMEDIA_TYPE_VIDEO, 0, &pictures);
    media->audio = choose_stream(media->format, AVMEDIA_TYPE_AUDIO, track, &media->info.audio_tracks);
    media->info.audio_track = media->audio ? track_of(media) : 0;
    if (!media->video && !media->audio && media->info.audio_tracks) {
        *fault = XKD_FAULT_NO_AUDIO;
        XKD_FAIL(XKD_ERR_DATA, "%s: has no sound track %lld, only %lld (set data.audio_track to one of them)",
                 media->name, (long long)track, (long long)media->info.audio_tracks);
    }
    if (!media->video && !media->audio) {
        *fault = XKD_FAULT_BROKEN;
        XKD_FAIL(XKD_ERR_DATA, "%s: neither picture nor sound in it", media->name);
    }
fail:
    return status;
}

/* From an index that lists every packet. */
static void indexed_span(const xkd_media *media, xkd_media_span *span)
{
    *span = (xkd_media_span){.known = true};
    if (media->video) {
        stream_span(media, media->video, &span->video_start, &span->video_end);
        span->key_gap = xkd_media_key_gap(media->video, span->video_end - span->video_start);
    }
    if (media->audio) stream_span(media, media->audio, &span->audio_start, &span->audio_end);
    /* The index knows the last picture's own length: nothing is to be added to it. */
    span->video_last = span->video_end;
    span->read_end = fmax(span->video_end, span->audio_end);
    xkd_media_round_span(span);
}

/* The length that the header itself tells; estimates from a bit rate or from the last packets are no promise. 0: none. */
static double header_length(const xkd_media *media)
{
    const AVFormatContext *format = media->format;
    if (!strcmp(format->iformat->name, "wav")) return xkd_media_wav_length(media);
    if (format->duration == AV_NOPTS_VALUE || format->duration_estimation_method != AVFMT_DURATION_FROM_STREAM)
        return 0;
    return (double)format->duration / AV_TIME_BASE;
}

/* Reading a file through leaves demuxer and parsers at its end: it is opened anew, so that a clip does not depend on
 * whether its span was known. */
static xkd_status open_again(xkd_media *media, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    avformat_close_input(&media->format);
    if (media->io) av_freep(&media->io->buffer);
    avio_context_free(&media->io);
    media->offset = 0;
    memset(media->counted, 0, sizeof media->counted);
    XKD_TRY(open_format(media, fault));
    XKD_TRY(pick_streams(media, fault));
fail:
    return status;
}

/* Known from before, from the index, or by reading the file through. */
static xkd_status find_span(xkd_media *media, xkd_media_span *span, double *claimed, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    *claimed = 0;
    bool indexed = !media->options.span.known && xkd_media_is_indexed(media);
    if (media->options.span.known) {
        *span = media->options.span;
    } else if (indexed && xkd_media_is_covered(media)) {
        indexed_span(media, span);
    } else {
        /* The list of packets is a better promise than a length beside it. */
        *claimed = indexed ? xkd_media_index_end(media) : header_length(media);
        /* A length that is longer than a file of which nothing is missing is wrong. */
        if (xkd_media_is_whole(media)) *claimed = 0;
        XKD_TRY(xkd_media_scan(media, span, fault));
        XKD_TRY(open_again(media, fault));
    }
    if (!media->options.span.known && span->clock_step == 0 && xkd_media_is_joined(media)) xkd_media_mark_joined(span);
    span->audio_track = media->options.audio_track;
    if (span->no_video && media->audio) media->video = NULL;
    if (span->no_audio && media->video) media->audio = NULL;
fail:
    return status;
}

/* Only codecs of wanted streams are opened: what is not asked for need not be decodable. */
static xkd_status open_streams(xkd_media *media, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_media_span span;
    double claimed;
    XKD_TRY(pick_streams(media, fault));
    XKD_TRY(find_span(media, &span, &claimed, fault));
    if (media->video && media->options.video) XKD_TRY(open_codec(media, media->video, &media->video_codec, fault));
    if (media->audio && media->options.audio) XKD_TRY(open_codec(media, media->audio, &media->audio_codec, fault));
    XKD_TRY(describe(media, &span, claimed, fault));
    media->options.span = span;
    media->sound_first = xkd_media_sound_first(media);
fail:
    return status;
}

/* Takes over the descriptor, also on failure. The fault says what to count, the message what to
 * print. */
xkd_status xkd_media_open_source(xkd_context *cx, const xkd_source *source, const char *name,
                                 const xkd_media_options *options, xkd_media **out, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_media *media = NULL;
    int fd = source->fd;
    *out = NULL;
    *fault = XKD_FAULT_NONE;
    av_log_set_level(AV_LOG_QUIET); /* libav would print on stderr by itself */
    XKD_TRY(xkd_alloc(cx, &media, 1, sizeof *media));
    *media = (xkd_media){
        .cx = cx, .fd = fd, .first = source->offset, .size = source->size, .options = {.video = true, .audio = true}};
    if (options) media->options = *options;
    fd = -1;
    XKD_TRY(xkd_copy_string(cx, &media->name, name));
    if (source->size == 0) {
        *fault = XKD_FAULT_EMPTY;
        XKD_FAIL(XKD_ERR_DATA, "%s: is empty (copy it again)", name);
    }
    XKD_TRY(open_format(media, fault));
    XKD_TRY(open_streams(media, fault));
    *out = media;
    media = NULL;
fail:
    if (fd >= 0) close(fd);
    xkd_media_free(media);
    return status;
}

/* The fault is a guess from outside: the path is there or it is not. */
xkd_status xkd_media_open(xkd_context *cx, const char *path, xkd_media **out, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_source source = {.fd = -1};
    *out = NULL;
    *fault = XKD_FAULT_NONE;
    status = xkd_open_read(cx, path, &source.fd, &source.size);
    if (status != XKD_OK) {
        *fault = xkd_path_exists(path) ? XKD_FAULT_UNREADABLE : XKD_FAULT_MISSING;
        return status;
    }
    return xkd_media_open_source(cx, &source, path, NULL, out, fault);
}

/* The order matters: codecs refer to streams, streams to the format, the format to our reader. */
void xkd_media_free(xkd_media *media)
{
    if (!media) return;
    avcodec_free_context(&media->video_codec);
    avcodec_free_context(&media->audio_codec);
    if (media->format) avformat_close_input(&media->format); /* leaves our pb alone: AVFMT_FLAG_CUSTOM_IO */
    if (media->io) av_freep(&media->io->buffer);
    avio_context_free(&media->io);
    if (media->fd >= 0) close(media->fd);
    xkd_free(media->name);
    xkd_free(media);
}

const xkd_media_info *xkd_media_about(const xkd_media *media)
{
    return &media->info;
}

/* As they run, not as they were compiled against. OWN is what this program makes of them: raise it where a file comes to give
 * other frames or samples, or the same at other times. */
void xkd_media_decoders(char out[64])
{
    enum { OWN = 2 };
    snprintf(out, 64, "%x %x %x %x %d", avformat_version(), avcodec_version(), swscale_version(), swresample_version(),
             (int)OWN);
}

const xkd_media_span *xkd_media_spans(const xkd_media *media)
{
    return &media->options.span;
}
