/* Pillow's 8-bit colour operations, to the bit, on planar pictures: a clip is three planes [T,H,W] of bytes, so that the
 * loops run over contiguous memory and the last one writes [3,T,H,W] floats in order. All loops are plain C that the
 * compiler turns into vector code; tests/golden/image holds them to Pillow 9.4. */
#ifndef XKD_MEDIA_IMAGE_H
#define XKD_MEDIA_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* T frames of H x W pixels. Does not own the planes. */
typedef struct {
    int64_t frames, height, width; /* T H W */
    uint8_t *plane[3];             /* [T,H,W] each: red, green, blue */
} xkd_planes;

/* Interleaved rgb [H,W,3] -> frame t of the planes, mirrored left to right if `flip`. */
void xkd_planes_put(const xkd_planes *planes, int64_t t, const uint8_t *rgb, bool flip);
/* Frame t of the planes -> interleaved rgb [H,W,3]. */
void xkd_planes_get(const xkd_planes *planes, int64_t t, uint8_t *rgb);

/* In place, all frames with the same factor. ImageEnhance.Brightness, Contrast (mean grey of each frame), Color. */
void xkd_image_brightness(const xkd_planes *planes, double factor);
void xkd_image_contrast(const xkd_planes *planes, double factor);
void xkd_image_saturation(const xkd_planes *planes, double factor);
/* torchvision's adjust_hue on a PIL image: H byte + (int)(factor * 255) mod 256; factor in [-0.5, 0.5]. */
void xkd_image_hue(const xkd_planes *planes, double factor);
/* Three equal channels of L = (19595 R + 38470 G + 7471 B + 32768) >> 16. */
void xkd_image_grey(const xkd_planes *planes);

/* ImageNet's, per channel red, green, blue, on values in [0, 1]. */
#define XKD_IMAGE_MEAN         \
    {                          \
        0.485f, 0.456f, 0.406f \
    }
#define XKD_IMAGE_STD          \
    {                          \
        0.229f, 0.224f, 0.225f \
    }

/* Most taps of a blur: those of crop 420. */
enum { XKD_BLUR_TAPS = 43 };

/* Gaussian blur, border reflected without repeating the edge, rounded once at the end: the taps (odd) that there are room and
 * pixels for, their weights [taps] along one axis, and the blur. scratch: [H * W + 3 * (W + taps)] floats. */
int64_t xkd_image_blur_taps(int64_t wanted, int64_t height, int64_t width);
void xkd_image_blur_weights(int64_t taps, double sigma, float *weights);
void xkd_image_blur(const xkd_planes *planes, int64_t taps, const float *along_x, const float *along_y, float *scratch);

/* (x / 255 - mean) / std of ImageNet's channels. out: [3,T,H,W]. */
void xkd_image_normalise(const xkd_planes *planes, float *out);
/* The inverse for pictures: in [3,T,H,W] -> rgb [H,W,3] of frame t, rounded and clamped. */
void xkd_image_denormalise(const float *in, int64_t frames, int64_t height, int64_t width, int64_t t, uint8_t *rgb);

/* Float bilinear resize without antialiasing, align_corners = false, as torch.nn.functional.interpolate.
 * in: [C,in_height,in_width]; out: [C,out_height,out_width], overwritten. */
void xkd_tensor_bilinear(const float *in, int64_t channels, int64_t in_height, int64_t in_width, float *out,
                         int64_t out_height, int64_t out_width);

#endif
