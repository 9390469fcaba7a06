/* Interpolation of positional tables for other input sizes; method.md section 3. */
#ifndef XKD_NN_POSITIONS_H
#define XKD_NN_POSITIONS_H

#include "backend/backend.h"

/* Tokens along each axis; a spectrogram is t = 1, h = frequency, w = time. */
typedef struct {
    int64_t t, h, w;
} xkd_grid;

/* A table of src tokens (plus `cls` leading rows that pass unchanged) resampled to dst tokens, and its transpose for
 * the backward. Owned; free with xkd_resample_free. */
typedef struct {
    xkd_sparse_rows forward, backward;
    void *memory; /* all their arrays, with the host */
    int64_t bytes;
} xkd_resample;

/* Trilinear for video (cubic = false), cubic with a = -0.75 for audio. An axis of unchanged length is not resampled. */
xkd_status xkd_resample_make(xkd_context *cx, xkd_resample *out, xkd_grid src, xkd_grid dst, bool cubic, int64_t cls);
void xkd_resample_free(xkd_resample *r);

/* A matrix of `r` whose arrays were copied to `room`, [bytes] of another memory. */
xkd_sparse_rows xkd_resample_at(const xkd_resample *r, const xkd_sparse_rows *matrix, const void *room);

#endif
