/* Shared by the files of this folder only. */
#ifndef XKD_MEDIA_INTERNAL_H
#define XKD_MEDIA_INTERNAL_H

#include "media/ffmpeg.h"
#include "media/media.h"

/* An edit that lasts to the end of its media (edits.c). */
typedef struct {
    int64_t at; /* where its length stands in the file */
    bool wide;  /* that has 8 bytes, and not 4 */
} xkd_open_edit;

/* How far the time stamps of a stream of AVI have fallen behind (avi.c). */
typedef struct {
    int64_t unit;  /* of the index, in time stamps; 0: not known yet */
    int64_t shift; /* that is added to them */
} xkd_counted;

struct xkd_media {
    xkd_context *cx;
    char *name;
    int fd;
    int64_t first, size, offset; /* bytes; `first`: where the file begins in what fd reads */
    AVIOContext *io;
    AVFormatContext *format;
    AVStream *video, *audio;                   /* NULL: the file has none */
    AVCodecContext *video_codec, *audio_codec; /* NULL: none, or not wanted */
    xkd_media_options options;
    xkd_media_info info;
    int flip_x, flip_y, transpose; /* from the display matrix */
    xkd_open_edit open_edit[XKD_MEDIA_MAX_STREAMS];
    int open_edits;
    xkd_counted counted[2]; /* of video and audio */
    double sound_first;     /* s on the file's clock: where the first packet of sound that is heard begins */
    bool dirty;             /* something has been read since opening: seek before decoding again */
};

/* "name: text" of a libav error code into `out`. */
const char *xkd_av_text(char out[128], int code);

/* open.c: a fresh decoder for the sound. Emptying the one there is leaves it its noise, and with it other samples. */
xkd_status xkd_media_renew_sound(xkd_media *media, xkd_media_fault *fault);

/* edits.c: finds them, in an MP4 file; and puts a length into what has been read of one, `size` bytes from `at` on. */
void xkd_media_find_open_edits(xkd_media *media);
void xkd_media_close_edits(const xkd_media *media, uint8_t *buffer, int64_t at, int64_t size);

/* avi.c: gives a packet of the chosen streams the time that the index has for its place. Returns how much is missing in front of
 * it, in the stream's time base. */
int64_t xkd_media_restamp(xkd_media *media, AVPacket *packet);

/* quirks.c: where libavformat and libavcodec need to be helped. */
bool xkd_media_is_packed(const AVCodecContext *codec); /* pictures come one packet later than they are shown */
bool xkd_media_is_guessed(const xkd_media *media, const AVFrame *frame); /* its time stamp, behind a seek */
bool xkd_media_is_pcm(enum AVCodecID codec);
bool xkd_media_misses(const xkd_media *media); /* a seek leads to one place, and the stamps there tell another */
/* XKD_ERR_DATA where a packet of a stream that is decoded is encrypted. */
xkd_status xkd_media_check_encryption(const xkd_media *media, const AVPacket *packet, xkd_media_fault *fault);

/* span.c: whether the header lists every packet; else spans are found by reading the file, which must then be opened anew. */
bool xkd_media_is_indexed(const xkd_media *media);
bool xkd_media_is_covered(const xkd_media *media);  /* and whether the lengths beside that list reach its end */
double xkd_media_index_end(const xkd_media *media); /* where its last packet stands; s on the file's clock */
void xkd_media_round_span(xkd_media_span *span);    /* to what a manifest keeps */
void xkd_media_mark_joined(xkd_media_span *span);   /* the clock of what stands behind begins anew */
double xkd_media_sound_first(xkd_media *media);     /* by the index, if it is complete; else where the span begins */
/* `count` bytes at `at` of the file, 16 at most; false where it has fewer. */
bool xkd_media_read_at(const xkd_media *media, int64_t at, int64_t count, uint8_t out[16]);
/* joined.c: whether another file begins behind the one that is read. */
bool xkd_media_is_joined(const xkd_media *media);
/* whole.c: whether sizes that the container keeps show that nothing is missing at its end; false where it keeps none. */
bool xkd_media_is_whole(const xkd_media *media);
double xkd_media_wav_length(const xkd_media *media); /* s that the header of a WAV file promises; 0: nothing */
/* Largest distance of two key frames by the index; `length` s of the stream. */
double xkd_media_key_gap(AVStream *stream, double length);
xkd_status xkd_media_scan(xkd_media *media, xkd_media_span *out, xkd_media_fault *fault);

#endif
