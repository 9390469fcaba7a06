/* A synthetic audio-visual data set of real media files. The class of a clip is the way its object moves, and each motion
 * drives sounds at its events in a timbre typical of the class; everything else - shape, colour, texture, size, speed,
 * phase, place, pitch, noise - is drawn without regard to the class. */
#ifndef XKD_DATA_SYNTH_H
#define XKD_DATA_SYNTH_H

#include <stdint.h>

#include "base/status.h"

typedef struct {
    const char *out;   /* folder: OUT/train/CLASS/00000.mp4, OUT/test/CLASS/... */
    int64_t classes;   /* 2 .. xkd_synth_class_count() */
    int64_t clips;     /* of each class */
    double test_share; /* of the clips of a class, at least one of two or more */
    double variety;    /* 0 .. 1: how far colours, place, size, pace, pitch and noise spread around their middle */
    double seconds;
    int64_t width, height, fps;
    uint64_t seed;
    int threads;
    /* Asked before each clip; non-zero ends the work with XKD_ERR_INTERRUPTED. May be NULL; gets the user of progress. */
    int (*stop)(void *user);
} xkd_synth_options;

/* 160x120 at 16 fps, 12 classes of 20 clips of 5 s, a fifth of them for testing, full variety. */
xkd_synth_options xkd_synth_defaults(void);

int64_t xkd_synth_class_count(void);
const char *xkd_synth_class_name(int64_t label);

/* Called after each clip, not in order; may come from several threads, one at a time. */
typedef void (*xkd_synth_progress)(void *user, int64_t done, int64_t total);

/* Makes the data set; the same options give the same bytes (with the same FFmpeg). XKD_ERR_CONFIG for impossible options or
 * where OUT/train or OUT/test exists. */
xkd_status xkd_synth(xkd_context *cx, const xkd_synth_options *options, xkd_synth_progress progress, void *user);

#endif
