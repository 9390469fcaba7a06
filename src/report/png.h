#ifndef XKD_REPORT_PNG_H
#define XKD_REPORT_PNG_H

#include <stdint.h>

#include "base/status.h"

/* Compresses rgb [height,width,3] into PNG bytes in memory. The caller frees *out with xkd_free. */
xkd_status xkd_png_encode(xkd_context *cx, const uint8_t *rgb, int64_t width, int64_t height, uint8_t **out,
                          int64_t *size);

/* Reads an 8-bit PNG file into rgb [height,width,3]; the caller frees *rgb. XKD_ERR_DATA for what is none, or larger than
 * 8192 pixels a side. */
xkd_status xkd_png_read(xkd_context *cx, const char *path, uint8_t **rgb, int64_t *width, int64_t *height);

/* Writes rgb [height,width,3] as a PNG file, atomically. Errors: XKD_ERR_STORAGE. */
xkd_status xkd_png_write(xkd_context *cx, const char *path, const uint8_t *rgb, int64_t width, int64_t height);

#endif
