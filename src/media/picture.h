/* Decoded frame -> RGB of the wanted size: swscale, rotation, Pillow's resize. Inside this folder only. */
#ifndef XKD_MEDIA_PICTURE_H
#define XKD_MEDIA_PICTURE_H

#include <libavutil/frame.h>

#include "media/internal.h"

typedef struct xkd_picture xkd_picture;

/* short_side 0: frames keep their size. Free with xkd_picture_free. */
xkd_status xkd_picture_new(xkd_media *media, int64_t short_side, bool stream_colour, xkd_picture **out);
void xkd_picture_free(xkd_picture *picture); /* NULL is allowed */

/* Converts; *rgb [height,width,3] belongs to the picture until the next call. All frames come out in the first one's
 * size, also where a stream changes its size on the way. */
xkd_status xkd_picture_convert(xkd_picture *picture, const AVFrame *frame, const uint8_t **rgb, int64_t *width,
                               int64_t *height, xkd_media_fault *fault);

#endif
