/* Decoded frame -> RGB of the wanted size: swscale, rotation, Pillow's resize. Inside this folder only. */
#ifndef XKD_MEDIA_CONVERT_H
#define XKD_MEDIA_CONVERT_H

#include <libavutil/frame.h>

#include "media/internal.h"

typedef struct xkd_converter xkd_converter;

/* short_side 0: frames keep their size. Free with xkd_converter_free. */
xkd_status xkd_converter_new(xkd_media *media, int64_t short_side, bool stream_colour, xkd_converter **out);
void xkd_converter_free(xkd_converter *converter); /* NULL is allowed */

/* Converts; *rgb [height,width,3] belongs to the converter until the next call. All frames come out in the first one's
 * size, also where a stream changes its size on the way. */
xkd_status xkd_convert(xkd_converter *converter, const AVFrame *frame, const uint8_t **rgb, int64_t *width,
                       int64_t *height, xkd_media_fault *fault);

#endif
