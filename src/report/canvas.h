/* Pictures of views and reconstructions: frames, spectrograms and patches drawn into one RGB canvas. */
#ifndef XKD_REPORT_CANVAS_H
#define XKD_REPORT_CANVAS_H

#include <stdint.h>

#include "base/status.h"

typedef struct {
    int64_t width, height;
    uint8_t *rgb; /* [height,width,3] */
} xkd_canvas;

/* A canvas of one grey. Free with xkd_canvas_free. */
xkd_status xkd_canvas_new(xkd_context *cx, xkd_canvas *out, int64_t width, int64_t height, uint8_t grey);
void xkd_canvas_free(xkd_canvas *picture);

/* Colour of a value in 0..1 (clamped; NaN is red) on a perceptually even dark-blue to yellow map. */
void xkd_colour_map(double value, uint8_t rgb[3]);

/* Draws frame t of normalised frames [3,T,H,W] at (x, y), each pixel as zoom x zoom; size is T, H, W. What lies outside
 * is cut off. */
void xkd_canvas_frame(xkd_canvas *picture, int64_t x, int64_t y, const float *frames, const int64_t size[3], int64_t t,
                      int64_t zoom);

/* Draws a spectrogram [F,T], low frequencies at the bottom; low..high is the range of the colour map. */
void xkd_canvas_spectrogram(xkd_canvas *picture, int64_t x, int64_t y, const float *spec, int64_t bands,
                            int64_t columns, double low, double high, int64_t zoom);

/* How a clip [C,T,H,W] is cut into N patches of length pt*ph*pw*C, channels fastest.
 * A spectrogram has C = T = pt = 1. */
typedef struct {
    int64_t C, T, H, W, pt, ph, pw;
} xkd_patch_grid;

/* Makes three clips out of one: `masked` with hidden patches at NaN, `predicted` with only the hidden patches (the rest
 * NaN), `filled` with visible patches from the clip and hidden ones predicted. hidden [N]: 1 = masked. prediction [N,P]
 * of patch n at prediction + n*P; with `normalised` it is in units of the true patch's mean and deviation, as
 * norm_pix_loss has it. All clips [C,T,H,W]. */
void xkd_show_patches(const xkd_patch_grid *grid, const float *clip, const uint8_t *hidden, const float *prediction,
                      int normalised, float *masked, float *predicted, float *filled);

/* One picture of rows of frames: rows [count] of [3,T,H,W], at most 8 frames each. NaN is drawn grey. */
xkd_status xkd_canvas_clips(xkd_context *cx, const float *const *rows, int64_t count, const int64_t size[3],
                            xkd_canvas *out);

/* Likewise spectrograms [F,T] one below the other, all on the colour range of the first one. */
xkd_status xkd_canvas_spectrograms(xkd_context *cx, const float *const *rows, int64_t count, int64_t bands,
                                   int64_t columns, xkd_canvas *out);

#endif
