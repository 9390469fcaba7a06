/* Writes a small audio-visual file: for the synthetic data set, benchmarks and tests. The same input gives the same
 * bytes (one thread, no time stamps or version strings). The file appears when it is complete. */
#ifndef XKD_MEDIA_ENCODE_H
#define XKD_MEDIA_ENCODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
    const char *format;      /* libavformat's name: "mp4", "matroska", "avi", "mov", "webm"; NULL: mp4 */
    const char *video_codec; /* encoder; NULL: libx264, else mpeg4 (webm: libvpx) */
    const char *audio_codec; /* encoder; NULL: aac, in AVI PCM, in WebM Vorbis */
    int64_t width, height;   /* even */
    int64_t fps;
    int64_t video_bits;              /* a second; 0: constant quality where the encoder has it */
    int64_t key_frames;              /* distance of key frames; 0: 250 */
    int64_t sample_rate;             /* 0: no sound */
    int64_t channels;                /* 1 or 2 */
    double video_start, audio_start; /* time stamp of the first frame and sample */
    int64_t quarter_turns;           /* clockwise display rotation written into the file */
} xkd_encode_options;

typedef struct xkd_encoder xkd_encoder;

/* True where the FFmpeg build can encode H.264 in software. */
bool xkd_encoder_has_h264(void);

/* XKD_ERR_CONFIG where format or codec are not available. End with commit or abort. */
xkd_status xkd_encoder_new(xkd_context *cx, const char *path, const xkd_encode_options *options, xkd_encoder **out);
/* rgb [height,width,3]; `time` seconds after the first frame, increasing. */
xkd_status xkd_encoder_frame(xkd_encoder *encoder, const uint8_t *rgb, double time);
/* samples [count,channels], following those before. Give sound and pictures in turns of about a second. */
xkd_status xkd_encoder_sound(xkd_encoder *encoder, const int16_t *samples, int64_t count);
/* Finishes, publishes the file and frees the encoder, in any case. */
xkd_status xkd_encoder_commit(xkd_encoder *encoder);
void xkd_encoder_abort(xkd_encoder *encoder); /* NULL is allowed */

#endif
