/* Writing small films: for the synthetic data set and for tests. The file is composed in memory and
 * published at once, so that a reader never sees half of one. Bit-exact flags and one thread: the
 * same frames give the same file. */
#include "media/encode.h"

#include <errno.h>
#include <libavutil/channel_layout.h>
#include <libavutil/display.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "media/internal.h"

/* What has been written so far: every muxer wants to seek back and fill in sizes. */
typedef struct {
    xkd_context *cx;
    uint8_t *bytes;
    int64_t size, capacity, offset; /* bytes: [capacity], size of them valid */
} memory_file;

struct xkd_encoder {
    xkd_context *cx;
    memory_file file;
    char *path; /* own copy */
    xkd_encode_options options;
    AVFormatContext *format;
    AVStream *video, *audio;
    AVCodecContext *video_codec, *audio_codec;
    struct SwsContext *sws;
    AVFrame *picture, *sound; /* reused for every frame */
    AVPacket *packet;
    int64_t samples;    /* encoded so far */
    int64_t held;       /* samples waiting in `sound` */
    int64_t last_stamp; /* of the picture, in the codec's time base; -1: none yet */
};

bool xkd_encoder_has_h264(void)
{
    return avcodec_find_encoder_by_name("libx264") != NULL;
}

/* What FFmpeg refuses is a matter of options or of the build, so of the configuration. */
static xkd_status refuse(xkd_encoder *e, const char *what, int code)
{
    char text[128];
    xkd_status status = code == AVERROR(ENOMEM) ? XKD_ERR_MEMORY : XKD_ERR_CONFIG;
    return xkd_fail(e->cx, status, "%s: cannot encode: %s: %s", e->path, what, xkd_av_text(text, code));
}

/* Grows to twice what is needed, so that the cost of copying stays proportional to the size of the
 * film. */
static int memory_write(void *opaque, xkd_av_written *data, int count)
{
    memory_file *file = opaque;
    int64_t end = file->offset + count;
    if (end > file->capacity) {
        int64_t capacity = 2 * end;
        if (xkd_resize(file->cx, &file->bytes, file->capacity, capacity, 1) != XKD_OK) return AVERROR(ENOMEM);
        file->capacity = capacity;
    }
    memcpy(file->bytes + file->offset, data, (size_t)count);
    file->offset = end;
    if (end > file->size) file->size = end;
    return count;
}

static int64_t memory_seek(void *opaque, int64_t offset, int whence)
{
    memory_file *file = opaque;
    /* FFmpeg asks for the size in this way. */
    if (whence & AVSEEK_SIZE) return file->size;
    whence &= ~AVSEEK_FORCE;
    if (whence == SEEK_CUR) offset += file->offset;
    if (whence == SEEK_END) offset += file->size;
    if (offset < 0) return AVERROR(EINVAL);
    file->offset = offset;
    return offset;
}

/* FFmpeg owns the buffer from here on and may replace it; xkd_encoder_abort frees what is there then. */
static xkd_status open_memory(xkd_encoder *e)
{
    enum { BUFFER = 32 << 10 };
    unsigned char *buffer = av_malloc(BUFFER);
    e->file.cx = e->cx;
    if (buffer) e->format->pb = avio_alloc_context(buffer, BUFFER, 1, &e->file, NULL, memory_write, memory_seek);
    if (e->format->pb) return XKD_OK;
    av_free(buffer);
    return xkd_fail(e->cx, XKD_ERR_MEMORY, "%s: out of memory", e->path);
}

/* H.264 where the build has it, as real data sets do; MPEG-4 part 2 is in every build. */
static const AVCodec *choose_video(const xkd_encode_options *o)
{
    if (o->video_codec) return avcodec_find_encoder_by_name(o->video_codec);
    if (o->format && !strcmp(o->format, "webm")) return avcodec_find_encoder_by_name("libvpx");
    const AVCodec *codec = avcodec_find_encoder_by_name("libx264");
    return codec ? codec : avcodec_find_encoder(AV_CODEC_ID_MPEG4);
}

/* AVI gets plain PCM, because it has no good place for AAC. */
static const AVCodec *choose_audio(const xkd_encode_options *o)
{
    const AVCodec *codec = NULL;
    if (o->audio_codec) return avcodec_find_encoder_by_name(o->audio_codec);
    if (o->format && !strcmp(o->format, "webm")) codec = avcodec_find_encoder_by_name("libvorbis");
    if (o->format && !strcmp(o->format, "avi")) codec = avcodec_find_encoder(AV_CODEC_ID_PCM_S16LE);
    return codec ? codec : avcodec_find_encoder(AV_CODEC_ID_AAC);
}

/* Time base: 512 ticks a frame, so that frames need not lie on the grid of frame numbers. */
static xkd_status add_video(xkd_encoder *e)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cx;
    const xkd_encode_options *o = &e->options;
    const AVCodec *codec = choose_video(o);
    if (!codec) XKD_FAIL(XKD_ERR_CONFIG, "%s: this FFmpeg has no encoder %s", e->path, o->video_codec);
    AVCodecContext *c = e->video_codec = avcodec_alloc_context3(codec);
    e->video = avformat_new_stream(e->format, NULL);
    if (!c || !e->video) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", e->path);
    bool avi = o->format && !strcmp(o->format, "avi"); /* knows frame numbers only */
    c->width = (int)o->width;
    c->height = (int)o->height;
    c->time_base = (AVRational){1, (int)o->fps * (avi ? 1 : 512)};
    c->framerate = (AVRational){(int)o->fps, 1};
    c->pix_fmt = AV_PIX_FMT_YUV420P;
    c->gop_size = o->key_frames ? (int)o->key_frames : 250;
    /* Threads would change the rate control's decisions and with them the bytes. */
    c->thread_count = 1;
    c->flags |= AV_CODEC_FLAG_BITEXACT;
    if (avi) c->max_b_frames = 0;
    if (e->format->oformat->flags & AVFMT_GLOBALHEADER) c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    if (o->video_bits)
        c->bit_rate = o->video_bits;
    else if (codec->id != AV_CODEC_ID_H264)
        /* One byte a pixel and second: enough for the old codecs to keep moving shapes sharp. */
        c->bit_rate = 8 * o->width * o->height;
    if (codec->id == AV_CODEC_ID_H264) {
        av_opt_set(c->priv_data, "preset", "veryfast", 0);
        /* x264's macroblock tree gives other bytes with other memory addresses: files would differ from run to run. */
        av_opt_set(c->priv_data, "mbtree", "0", 0);
    }
    if (codec->id == AV_CODEC_ID_VP8) av_opt_set(c->priv_data, "deadline", "realtime", 0);
    int code = avcodec_open2(c, codec, NULL);
    if (code < 0) XKD_TRY(refuse(e, codec->name, code));
    avcodec_parameters_from_context(e->video->codecpar, c);
    e->video->time_base = c->time_base;
    e->video->avg_frame_rate = c->framerate;
    if (o->quarter_turns) {
        int32_t *matrix = xkd_av_new_matrix(e->video);
        if (!matrix) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", e->path);
        av_display_rotation_set(matrix, 90.0 * (double)o->quarter_turns);
    }
    e->sws = sws_getContext(c->width, c->height, AV_PIX_FMT_RGB24, c->width, c->height, c->pix_fmt, SWS_BILINEAR, NULL,
                            NULL, NULL);
    if (!e->sws) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", e->path);
fail:
    return status;
}

/* The sample format is the codec's first: put_sample knows planar float and packed 16 bit. */
static xkd_status add_audio(xkd_encoder *e)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cx;
    const xkd_encode_options *o = &e->options;
    const AVCodec *codec = choose_audio(o);
    if (!codec)
        XKD_FAIL(XKD_ERR_CONFIG, "%s: this FFmpeg has no encoder %s", e->path, o->audio_codec ? o->audio_codec : "aac");
    AVCodecContext *c = e->audio_codec = avcodec_alloc_context3(codec);
    e->audio = avformat_new_stream(e->format, NULL);
    if (!c || !e->audio) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", e->path);
    c->sample_fmt = xkd_av_sample_format(codec, AV_SAMPLE_FMT_S16);
    /* What put_sample does not know; such encoders take planar float too. */
    if (c->sample_fmt != AV_SAMPLE_FMT_S16) c->sample_fmt = AV_SAMPLE_FMT_FLTP;
    c->sample_rate = (int)o->sample_rate;
    c->time_base = (AVRational){1, c->sample_rate};
    c->bit_rate = 64000 * o->channels;
    c->thread_count = 1;
    c->flags |= AV_CODEC_FLAG_BITEXACT;
    av_channel_layout_default(&c->ch_layout, (int)o->channels);
    if (e->format->oformat->flags & AVFMT_GLOBALHEADER) c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    int code = avcodec_open2(c, codec, NULL);
    if (code < 0) XKD_TRY(refuse(e, codec->name, code));
    avcodec_parameters_from_context(e->audio->codecpar, c);
    e->audio->time_base = c->time_base;
fail:
    return status;
}

/* The sound frame is one codec frame long, or 1024 samples where the codec takes any number. */
static xkd_status make_frames(xkd_encoder *e)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cx;
    e->packet = av_packet_alloc();
    e->picture = av_frame_alloc();
    e->sound = av_frame_alloc();
    if (!e->packet || !e->picture || !e->sound) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", e->path);
    e->picture->format = e->video_codec->pix_fmt;
    e->picture->width = e->video_codec->width;
    e->picture->height = e->video_codec->height;
    if (av_frame_get_buffer(e->picture, 0) < 0) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", e->path);
    if (e->audio_codec) {
        const AVCodecContext *c = e->audio_codec;
        e->sound->format = c->sample_fmt;
        e->sound->sample_rate = c->sample_rate;
        e->sound->nb_samples = c->frame_size ? c->frame_size : 1024;
        av_channel_layout_copy(&e->sound->ch_layout, &c->ch_layout);
        if (av_frame_get_buffer(e->sound, 0) < 0) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", e->path);
    }
fail:
    return status;
}

/* Even sides, because 4:2:0 halves them. */
xkd_status xkd_encoder_new(xkd_context *cx, const char *path, const xkd_encode_options *options, xkd_encoder **out)
{
    xkd_status status = XKD_OK;
    xkd_encoder *e = NULL;
    *out = NULL;
    av_log_set_level(AV_LOG_QUIET);
    XKD_TRY(xkd_alloc(cx, &e, 1, sizeof *e));
    *e = (xkd_encoder){.cx = cx, .options = *options, .last_stamp = -1};
    XKD_TRY(xkd_copy_string(cx, &e->path, path));
    if (options->width < 16 || options->height < 16 || options->width % 2 || options->height % 2 || options->fps < 1 ||
        options->fps > 120)
        XKD_FAIL(XKD_ERR_CONFIG, "%s: frames must be even, from 16x16 on, at 1 to 120 a second", path);
    const char *name = options->format ? options->format : "mp4";
    if (avformat_alloc_output_context2(&e->format, NULL, name, NULL) < 0)
        XKD_FAIL(XKD_ERR_CONFIG, "%s: this FFmpeg cannot write %s", path, name);
    e->format->flags |= AVFMT_FLAG_BITEXACT;
    XKD_TRY(add_video(e));
    if (options->sample_rate) XKD_TRY(add_audio(e));
    XKD_TRY(make_frames(e));
    /* In memory, because every muxer wants to seek, and then published in one step by base/file. */
    XKD_TRY(open_memory(e));
    int code = avformat_write_header(e->format, NULL);
    if (code < 0) XKD_TRY(refuse(e, name, code));
    *out = e;
    e = NULL;
fail:
    xkd_encoder_abort(e);
    return status;
}

/* One frame in (NULL: the end), packets out until the codec wants more. Time stamps go from the
 * codec's units to the stream's. */
static xkd_status encode(xkd_encoder *e, AVCodecContext *codec, AVStream *stream, const AVFrame *frame)
{
    int code = avcodec_send_frame(codec, frame);
    while (code >= 0) {
        code = avcodec_receive_packet(codec, e->packet);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return XKD_OK;
        if (code < 0) break;
        av_packet_rescale_ts(e->packet, codec->time_base, stream->time_base);
        e->packet->stream_index = stream->index;
        code = av_interleaved_write_frame(e->format, e->packet);
    }
    return refuse(e, codec->codec->name, code);
}

/* Time stamps must rise: two frames at one time are one tick apart. */
xkd_status xkd_encoder_frame(xkd_encoder *e, const uint8_t *rgb, double time)
{
    xkd_context *cx = e->cx;
    if (av_frame_make_writable(e->picture) < 0) return xkd_fail(cx, XKD_ERR_MEMORY, "%s: out of memory", e->path);
    const uint8_t *planes[4] = {rgb};
    int strides[4] = {(int)(3 * e->options.width)};
    sws_scale(e->sws, planes, strides, 0, (int)e->options.height, e->picture->data, e->picture->linesize);
    int64_t stamp = llround((time + e->options.video_start) / av_q2d(e->video_codec->time_base));
    if (stamp <= e->last_stamp) stamp = e->last_stamp + 1;
    e->last_stamp = stamp;
    e->picture->pts = stamp;
    e->picture->pict_type = AV_PICTURE_TYPE_NONE;
    return encode(e, e->video_codec, e->video, e->picture);
}

/* One sample of all channels into the frame, in the encoder's sample format.
 * 16-bit PCM is taken over; planar float is scaled to [-1, 1). */
static void put_sample(xkd_encoder *e, const int16_t *in)
{
    AVFrame *f = e->sound;
    int channels = f->ch_layout.nb_channels;
    for (int c = 0; c < channels; c++) {
        if (f->format == AV_SAMPLE_FMT_FLTP)
            ((float *)(void *)f->extended_data[c])[e->held] = (float)in[c] / 32768.0f;
        else
            ((int16_t *)(void *)f->data[0])[e->held * channels + c] = in[c];
    }
    e->held++;
}

/* The last frame may be short; the full length is put back for the next one. */
static xkd_status flush_sound(xkd_encoder *e)
{
    xkd_status status = XKD_OK;
    int full = e->sound->nb_samples;
    e->sound->nb_samples = (int)e->held;
    e->sound->pts = e->samples + llround(e->options.audio_start * (double)e->options.sample_rate);
    XKD_TRY(encode(e, e->audio_codec, e->audio, e->sound));
    e->samples += e->held;
    e->held = 0;
fail:
    e->sound->nb_samples = full;
    return status;
}

/* Samples are interleaved [count, channels] at options.sample_rate. */
xkd_status xkd_encoder_sound(xkd_encoder *e, const int16_t *samples, int64_t count)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cx;
    if (!e->audio_codec) XKD_FAIL(XKD_ERR_INTERNAL, "%s: has no sound stream", e->path);
    for (int64_t i = 0; i < count; i++) {
        if (e->held == 0 && av_frame_make_writable(e->sound) < 0)
            XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", e->path);
        put_sample(e, samples + i * e->options.channels);
        if (e->held == e->sound->nb_samples) XKD_TRY(flush_sound(e));
    }
fail:
    return status;
}

/* Frees the encoder whether or not it succeeds. */
xkd_status xkd_encoder_commit(xkd_encoder *e)
{
    xkd_status status = XKD_OK;
    if (e->audio_codec && e->held) XKD_TRY(flush_sound(e));
    XKD_TRY(encode(e, e->video_codec, e->video, NULL));
    if (e->audio_codec) XKD_TRY(encode(e, e->audio_codec, e->audio, NULL));
    int code = av_write_trailer(e->format);
    if (code < 0) XKD_TRY(refuse(e, "trailer", code));
    avio_flush(e->format->pb);
    if (e->format->pb->error < 0) XKD_TRY(refuse(e, "writing", e->format->pb->error));
    XKD_TRY(xkd_write_file(e->cx, e->path, e->file.bytes, e->file.size));
fail:
    xkd_encoder_abort(e);
    return status;
}

/* Also the clean-up of a half-made encoder; NULL does nothing. Nothing was on disk. */
void xkd_encoder_abort(xkd_encoder *e)
{
    if (!e) return;
    avcodec_free_context(&e->video_codec);
    avcodec_free_context(&e->audio_codec);
    sws_freeContext(e->sws);
    av_frame_free(&e->picture);
    av_frame_free(&e->sound);
    av_packet_free(&e->packet);
    if (e->format) {
        if (e->format->pb) av_freep(&e->format->pb->buffer);
        avio_context_free(&e->format->pb);
        avformat_free_context(e->format);
    }
    xkd_free(e->file.bytes);
    xkd_free(e->path);
    xkd_free(e);
}
