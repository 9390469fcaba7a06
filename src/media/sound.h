/* Decoded sound -> 16-bit mono at the wanted rate, placed by time stamp. Inside this folder only. */
#ifndef XKD_MEDIA_SOUND_H
#define XKD_MEDIA_SOUND_H

#include <libavutil/frame.h>

#include "media/internal.h"

typedef struct xkd_sound xkd_sound;

/* Sample 0 is that of time `start` on the file's clock; at most `limit` samples are delivered (-1: no limit). */
xkd_status xkd_sound_new(xkd_media *media, int64_t rate, double start, int64_t limit, const xkd_media_sink *sink,
                         xkd_sound **out);
void xkd_sound_free(xkd_sound *sound); /* NULL is allowed */

/* Takes one decoded frame that starts at `time`; a gap before it is filled with silence, an overlap is dropped. */
xkd_status xkd_sound_add(xkd_sound *sound, const AVFrame *frame, double time, xkd_media_fault *fault);
/* Delivers what the resampler still holds. */
xkd_status xkd_sound_finish(xkd_sound *sound);

int64_t xkd_sound_delivered(const xkd_sound *sound);

#endif
