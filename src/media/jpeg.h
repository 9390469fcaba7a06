/* Pictures as JPEG (libjpeg-turbo). Errors are statuses: the library's handler, which would end the process, is replaced. */
#ifndef XKD_MEDIA_JPEG_H
#define XKD_MEDIA_JPEG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct xkd_jpeg xkd_jpeg;

/* One thread's tool for both ways. */
xkd_status xkd_jpeg_new(xkd_context *cx, xkd_jpeg **out);
void xkd_jpeg_free(xkd_jpeg *jpeg); /* NULL is allowed */

/* rgb [height,width,3] -> *data, valid until the next call. */
xkd_status xkd_jpeg_encode(xkd_jpeg *jpeg, const uint8_t *rgb, int64_t width, int64_t height, int64_t quality,
                           bool full_colour, const uint8_t **data, int64_t *size);

/* The picture must be baseline, of three components and of just this size: that is checked before anything is allocated
 * for it. XKD_ERR_DATA for all that is wrong with it, also what the library would only warn of. */
xkd_status xkd_jpeg_decode(xkd_jpeg *jpeg, const uint8_t *data, int64_t size, int64_t width, int64_t height,
                           uint8_t *rgb);

#endif
