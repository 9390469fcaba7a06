/* Pillow's antialiased bilinear resize of 8-bit RGB pictures, to the bit (ImagingResample, 8 bits a channel: triangle
 * filter widened by the scale, coefficients rounded to 22 bits, horizontal pass rounded to 8 bits before the vertical).
 * It stands here because frames are made small before they leave the worker process. */
#ifndef XKD_MEDIA_RESIZE_H
#define XKD_MEDIA_RESIZE_H

#include <stdint.h>

#include "base/status.h"

typedef struct xkd_resizer xkd_resizer;

/* Plans in_width x in_height -> out_width x out_height; all sides >= 1. One thread at a time may use a plan. */
xkd_status xkd_resizer_new(xkd_context *cx, int64_t in_width, int64_t in_height, int64_t out_width, int64_t out_height,
                           xkd_resizer **out);
void xkd_resizer_free(xkd_resizer *plan); /* NULL is allowed */

/* in: [in_height,in_width,3] with in_stride bytes from row to row (a crop is a pointer into a larger picture);
 * out: [out_height,out_width,3], tightly packed; must not overlap. */
void xkd_resizer_run(xkd_resizer *plan, const uint8_t *in, int64_t in_stride, uint8_t *out);

/* Size after the short side becomes `side`, as torchvision computes it: the longer one is cut to an integer. */
void xkd_short_side_size(int64_t width, int64_t height, int64_t side, int64_t *out_width, int64_t *out_height);

#endif
