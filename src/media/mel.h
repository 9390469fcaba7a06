/* Sound -> log-mel spectrogram (method.md section 2) and the operations on spectrograms. */
#ifndef XKD_MEDIA_MEL_H
#define XKD_MEDIA_MEL_H

#include <stdint.h>

#include "base/status.h"

typedef struct xkd_mel xkd_mel;

/* Added to a bin's power and to a band's, as in the release: the logarithm of silence stays finite. */
#define XKD_POWER_FLOOR 2.2e-16f
#define XKD_LOG_FLOOR 1.1920929e-7f

/* STFT with n_fft, hop, periodic Hann, centred with reflect padding; |X|^2 + 2.2e-16; `bands` Slaney-normalised
 * Slaney-scale mel bands over 0 .. rate/2; log(x + 1.1920929e-7). One thread at a time may use a plan. */
xkd_status xkd_mel_new(xkd_context *cx, int64_t rate, int64_t n_fft, int64_t hop, int64_t bands, xkd_mel **out);
void xkd_mel_free(xkd_mel *mel); /* NULL is allowed */

/* Columns of a spectrogram of `samples` samples: 1 + samples / hop. */
int64_t xkd_mel_columns(int64_t samples, int64_t hop);

/* wave: [samples], more than n_fft/2 of them; out: [F, 1 + samples/hop], overwritten. */
void xkd_mel_run(xkd_mel *mel, const float *wave, int64_t samples, float *out);

/* What a spectrogram is made with. */
typedef struct {
    int64_t n_fft, hop, bands;
    const float *window;         /* [n_fft] */
    const float *bank;           /* [F, n_fft/2+1] */
    const int32_t *first, *last; /* [F] bins of a band whose weight is not zero: [first,last) */
} xkd_mel_tables;

/* Those of a plan, which owns them; and a plan that borrows them from elsewhere. */
const xkd_mel_tables *xkd_mel_tables_of(const xkd_mel *mel);
xkd_status xkd_mel_borrow(xkd_context *cx, const xkd_mel_tables *tables, xkd_mel **out);

/* Where a box is cut out of the canvas of xkd_spec_resize_crop. */
typedef struct {
    int64_t canvas_height, canvas_width; /* not smaller than the spectrogram */
    int64_t top, left, height, width;    /* inside the canvas */
} xkd_spec_box;

/* spec [F,T] stands in the middle of a zero canvas; the box is resized back to [F,T], bicubic (a = -0.75) with
 * align_corners = true. In place; scratch: [canvas_height * canvas_width + F * canvas_width] floats. */
void xkd_spec_resize_crop(float *spec, int64_t bands, int64_t columns, const xkd_spec_box *box, float *scratch);

/* Columns before `centre` are resized to `warped` columns, the rest to T - warped; bicubic (a = -0.75), align_corners =
 * false; 0 < centre, warped < T. In place; scratch: [F * T] floats. */
void xkd_spec_time_warp(float *spec, int64_t bands, int64_t columns, int64_t centre, int64_t warped, float *scratch);

#endif
