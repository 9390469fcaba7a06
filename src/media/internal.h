/* Shared by the files of this folder only. */
#ifndef XKD_MEDIA_INTERNAL_H
#define XKD_MEDIA_INTERNAL_H

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>

#include "media/media.h"

struct xkd_media {
    xkd_context *cx;
    char *name;
    int fd;
    int64_t size, position; /* bytes */
    AVIOContext *io;
    AVFormatContext *format;
    AVStream *video, *audio; /* NULL: the file has none */
    AVCodecContext *video_codec, *audio_codec;
    xkd_media_info info;
    int flip_x, flip_y, transpose; /* from the display matrix */
    bool dirty;                    /* something has been read since opening: seek before decoding again */
};

/* "name: text" of a libav error code into `out`. */
const char *xkd_av_text(char out[128], int code);

#endif
