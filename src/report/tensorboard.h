/* TensorBoard event files, written by hand: length-prefixed records with masked CRC-32C around some protobuf fields. */
#ifndef XKD_REPORT_TENSORBOARD_H
#define XKD_REPORT_TENSORBOARD_H

#include <stdint.h>

#include "base/status.h"

typedef struct xkd_tensorboard xkd_tensorboard;

/* Starts a new event file in `folder`, which exists. With first_step > 0 a run goes on: what its former event files say
 * of that step and later ones, or of epochs after `epochs`, is taken out of them, since it will be said again, and the
 * new file begins with a session start at that step, which makes a TensorBoard that is running forget it too. Free with
 * xkd_tensorboard_close. */
xkd_status xkd_tensorboard_open(xkd_context *cx, const char *folder, int64_t first_step, int64_t epochs,
                                xkd_tensorboard **out);
void xkd_tensorboard_close(xkd_tensorboard *board); /* NULL is allowed */

/* One event with `count` scalars named prefix/names[i]; those that are NAN are left out. */
xkd_status xkd_tensorboard_scalars(xkd_tensorboard *board, int64_t step, const char *prefix, const char *const *names,
                                   const double *values, int64_t count);

/* One event with a picture: png [size] are the bytes of a PNG file of width x height. */
xkd_status xkd_tensorboard_image(xkd_tensorboard *board, int64_t step, const char *tag, const uint8_t *png,
                                 int64_t size, int64_t width, int64_t height);

/* CRC-32C (Castagnoli) of bytes [size]; exposed for the known-answer test. */
uint32_t xkd_crc32c(const void *bytes, int64_t size);

#endif
