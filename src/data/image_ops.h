/* The further 8-bit operations of RandAugment, as Pillow 9.4 computes them, on planar clips; tests/golden/image. All
 * frames get the same parameters; what depends on the picture (autocontrast, equalize) is found for each frame. */
#ifndef XKD_DATA_IMAGE_OPS_H
#define XKD_DATA_IMAGE_OPS_H

#include "media/image.h"

/* ImageOps.autocontrast without cut-off, equalize, invert, solarize, posterize (0 .. 8 bits). In place. */
void xkd_image_autocontrast(const xkd_planes *planes);
void xkd_image_equalize(const xkd_planes *planes);
void xkd_image_invert(const xkd_planes *planes);
void xkd_image_solarize(const xkd_planes *planes, int threshold);
void xkd_image_posterize(const xkd_planes *planes, int bits);
/* Values below `threshold` + add, cut at 255. */
void xkd_image_solarize_add(const xkd_planes *planes, int add, int threshold);

/* ImageEnhance.Sharpness: between the picture smoothed by (1 1 1, 1 5 1, 1 1 1) / 13 and itself, or beyond. scratch:
 * [H * W] bytes. */
void xkd_image_sharpness(const xkd_planes *planes, double factor, uint8_t *scratch);

typedef enum { XKD_BILINEAR, XKD_BICUBIC } xkd_interpolation;

/* Image.transform with an affine map of output to input pixel centres: x_in = m[0] (x + .5) + m[1] (y + .5) + m[2],
 * y_in = m[3] ... ; what comes from outside is `fill`. scratch: [H * W]. */
void xkd_image_affine(const xkd_planes *planes, const double m[6], xkd_interpolation how, uint8_t fill,
                      uint8_t *scratch);

/* The map of Image.rotate about the centre, counter-clockwise. */
void xkd_image_rotation(double degrees, int64_t width, int64_t height, double m[6]);

#endif
