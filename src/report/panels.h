/* Clips of one size side by side, each with a title and perhaps with weights of its patches in colour: as a picture and as a film
 * with the sound that belongs to it. */
#ifndef XKD_REPORT_PANELS_H
#define XKD_REPORT_PANELS_H

#include "report/canvas.h"

typedef struct {
    const char *title;
    const float *clip;     /* [C,T,H,W] as the network gets it; NaN is drawn grey */
    const double *weights; /* [patches] from 0 up, coloured up to their largest; NULL: none */
} xkd_panel;

/* With C = 3 clips are frames, with C = 1 spectrograms, all on the colour range of the first panel. */
typedef struct {
    xkd_patch_grid grid;
    const xkd_panel *panels; /* [count] */
    int64_t count;
} xkd_panels;

/* What a film lasts and sounds like. */
typedef struct {
    double fps;             /* of frames; of a spectrogram: of the cursor */
    double seconds;         /* a spectrogram's columns span them */
    const int16_t *samples; /* [count] mono; NULL: silent */
    int64_t count, rate;
} xkd_film_sound;

/* A row a panel: at most eight frames at even distances, or the spectrogram. Free with xkd_canvas_free. */
xkd_status xkd_panels_strip(xkd_context *cx, const xkd_panels *p, xkd_canvas *out);

/* An MP4 of all panels at once; over spectrograms goes a cursor. */
xkd_status xkd_panels_film(xkd_context *cx, const xkd_panels *p, const xkd_film_sound *sound, const char *path);

#endif
