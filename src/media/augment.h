/* What is done to the frames and the sound of a clip to make a view of it, as numbers that mean the same to the host and to a
 * device (method.md section 2), and what does it on the host. data/views.c draws the numbers; the slots video_view and
 * audio_view of backend/ops.h do the same with a whole batch. */
#ifndef XKD_MEDIA_AUGMENT_H
#define XKD_MEDIA_AUGMENT_H

#include "media/image.h"
#include "media/mel.h"

typedef enum { XKD_BRIGHTNESS, XKD_CONTRAST, XKD_SATURATION, XKD_HUE, XKD_COLOURS } xkd_colour;

/* Of a video view: a box of each frame is resized and mirrored, then colours are changed in order, made grey, blurred. */
typedef struct {
    int64_t at;                   /* where the boxes [T,height,width,3] begin in what they are read from, bytes */
    double factor[XKD_COLOURS];   /* of each operation, in their order */
    int32_t colour[XKD_COLOURS];  /* xkd_colour */
    int32_t colours;              /* how many */
    int32_t height, width;        /* of the box */
    int32_t flip, grey;           /* 1: yes */
    int32_t taps;                 /* of the blur, odd; 0: none */
    float along_x[XKD_BLUR_TAPS]; /* its weights [taps] */
    float along_y[XKD_BLUR_TAPS];
} xkd_video_change;

/* Of an audio view: gain, log-mel, normalisation, then a warp of time, and a box of a larger canvas that is resized. */
typedef struct {
    int64_t at; /* where its 16-bit samples begin in what they are read from, bytes */
    float gain;
    int32_t warp, warp_centre, warp_to; /* 1: yes; columns */
    int32_t crop;                       /* 1: yes */
    int32_t canvas_height, canvas_width;
    int32_t top, left, height, width; /* box on the canvas */
} xkd_audio_change;

/* Frames on the host: frame t begins at rgb + (first + t) % count * frame_bytes, its rows are row_bytes apart. */
typedef struct {
    const uint8_t *rgb;
    int64_t first, count, frame_bytes, row_bytes;
} xkd_boxes;

/* What a 16-bit sample is divided by: as in the release, -32768 comes out just below -1. */
#define XKD_SOUND_SCALE 32767.0f

/* 16-bit samples on the host; what is asked for behind them is silence. */
typedef struct {
    const int16_t *sample;
    int64_t count;
} xkd_wave;

/* Scratch of one thread. */
typedef struct {
    xkd_planes planes; /* room for the largest view */
    uint8_t *rgb;      /* one frame of it */
    float *blur;       /* of xkd_image_blur */
    xkd_mel *mel;      /* borrowed */
    float *wave;       /* samples of the longest view */
    float *canvas;     /* of the spectrogram operations */
} xkd_augmenter;

/* Room for views [T,H,W], and for those of `samples` samples with `canvas` floats (xkd_augment_canvas). Free with
 * xkd_augmenter_free, which takes {0}. */
xkd_status xkd_augmenter_for_video(xkd_context *cx, xkd_augmenter *a, int64_t T, int64_t H, int64_t W);
xkd_status xkd_augmenter_for_sound(xkd_context *cx, xkd_augmenter *a, xkd_mel *mel, int64_t samples, int64_t canvas);
void xkd_augmenter_free(xkd_augmenter *a);

/* Floats of a canvas and of the rows of its first pass. */
int64_t xkd_augment_canvas(int64_t canvas_height, int64_t canvas_width, int64_t bands);

/* out: [3,T,H,W] of one view, overwritten. Allocates a plan of the resize. */
xkd_status xkd_augment_video(xkd_context *cx, xkd_augmenter *a, const xkd_video_change *change, const xkd_boxes *frames,
                             const int64_t size[3], float *out);

/* Where a spectrogram is normalised, and its size. */
typedef struct {
    int64_t samples, bands, columns; /* of the view */
    float mean, std;
} xkd_spec_shape;

/* out: [F,columns], overwritten: all but the box. Then the box, in place. */
void xkd_augment_spectrogram(xkd_augmenter *a, const xkd_audio_change *change, const xkd_wave *sound,
                             const xkd_spec_shape *shape, float *out);
void xkd_augment_box(xkd_augmenter *a, const xkd_audio_change *change, const xkd_spec_shape *shape, float *spec);

#endif
