/* What FFmpeg 5.1 (Debian 12) and 7.1 (Debian 13) call differently. No other file knows about versions. */
#ifndef XKD_MEDIA_FFMPEG_H
#define XKD_MEDIA_FFMPEG_H

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>

/* What a callback for writing is given. */
#if LIBAVFORMAT_VERSION_MAJOR >= 61
typedef const uint8_t xkd_av_written;
#else
typedef uint8_t xkd_av_written;
#endif

/* In the time base of the stream; 0: not known. */
static inline int64_t xkd_av_duration(const AVFrame *frame)
{
#if LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(57, 30, 100)
    return frame->duration;
#else
    return frame->pkt_duration;
#endif
}

/* The stream's display matrix; NULL: it has none. */
static inline const int32_t *xkd_av_matrix(const AVStream *stream)
{
    size_t size = 0;
    const uint8_t *data;
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
    const AVPacketSideData *side = av_packet_side_data_get(
        stream->codecpar->coded_side_data, stream->codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
    data = side ? side->data : NULL;
    size = side ? side->size : 0;
#else
    data = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
#endif
    return data && size >= 9 * sizeof(int32_t) ? (const int32_t *)(const void *)data : NULL;
}

/* Room for a display matrix of the stream's, which belongs to it; NULL: out of memory. */
static inline int32_t *xkd_av_new_matrix(AVStream *stream)
{
    uint8_t *data;
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
    AVPacketSideData *side =
        av_packet_side_data_new(&stream->codecpar->coded_side_data, &stream->codecpar->nb_coded_side_data,
                                AV_PKT_DATA_DISPLAYMATRIX, 9 * sizeof(int32_t), 0);
    data = side ? side->data : NULL;
#else
    data = av_stream_new_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, 9 * sizeof(int32_t));
#endif
    return (int32_t *)(void *)data;
}

/* The encoder's first; `otherwise` where it does not say. */
static inline enum AVSampleFormat xkd_av_sample_format(const AVCodec *codec, enum AVSampleFormat otherwise)
{
    const enum AVSampleFormat *formats = NULL;
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(61, 13, 100)
    const void *list = NULL;
    if (avcodec_get_supported_config(NULL, codec, AV_CODEC_CONFIG_SAMPLE_FORMAT, 0, &list, NULL) >= 0) formats = list;
#else
    formats = codec->sample_fmts;
#endif
    return formats ? formats[0] : otherwise;
}

#endif
