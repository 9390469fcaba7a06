/* Clip -> augmented views (method.md section 2). Each view first draws all it needs from its own random stream, then is
 * computed from the draw; so a draw can be tested, shown and repeated. */
#ifndef XKD_DATA_VIEWS_H
#define XKD_DATA_VIEWS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "config/config.h"
#include "data/loader.h"
#include "media/augment.h"

/* A decoded clip, borrowed. Fewer frames or samples than a clip has are padded: frames by repeating from the start,
 * samples by zeros. */
typedef struct xkd_clip {
    const uint8_t *frames; /* [count,height,width,3], short side = crop_size */
    int64_t count, height, width;
    const int16_t *sound; /* [samples] */
    int64_t samples;
} xkd_clip;

/* Which random numbers: sample is the manifest index. */
typedef struct xkd_view_key {
    uint64_t seed;
    uint32_t epoch, sample;
} xkd_view_key;

/* What one video view does, the same for all its frames. */
typedef struct {
    int64_t first_frame;              /* local views: where the consecutive frames start */
    int64_t top, left, height, width; /* crop, in pixels of the clip's frames */
    bool flip, grey, blur;
    int64_t order[4]; /* of brightness 0, contrast 1, saturation 2, hue 3 */
    double factor[4]; /* by operation */
    double sigma_x, sigma_y;
} xkd_video_draw;

/* What one audio view does. */
typedef struct {
    int64_t first_sample; /* local views: a multiple of 100 */
    double gain;
    bool warp, crop;
    int64_t warp_centre, warp_to; /* columns */
    int64_t canvas_height, canvas_width;
    int64_t top, left, height, width; /* box on the canvas */
} xkd_audio_draw;

/* Draws for view number `view` (0 .. views-1, the global ones first), in this order: first frame (local views), ten
 * tries of crop (area, ratio, then top and left of the first that fits), flip, jitter order, brightness, contrast,
 * saturation, hue, grey, blur, sigma. Every number is drawn whether it is used or not. */
xkd_video_draw xkd_draw_video(const xkd_data_config *data, const xkd_view_shapes *shapes, xkd_view_key key,
                              int64_t view, int64_t height, int64_t width);

/* In this order: first sample (local views), gain, warp centre, warp target, box height, width, top, left. */
xkd_audio_draw xkd_draw_audio(const xkd_data_config *data, const xkd_view_shapes *shapes, xkd_view_key key,
                              int64_t view);

/* What a draw asks for, but where the box and the samples begin; and the box of each of the clip's frames. */
xkd_video_change xkd_video_change_of(const xkd_data_config *data, const xkd_view_shapes *shapes, int64_t view,
                                     const xkd_video_draw *draw);
xkd_audio_change xkd_audio_change_of(const xkd_audio_draw *draw);
xkd_boxes xkd_clip_box(const xkd_clip *clip, const xkd_video_draw *draw);
/* The clip's samples from `first` on. */
xkd_wave xkd_clip_sound(const xkd_clip *clip, int64_t first);

/* Samples of audio view `view`. */
int64_t xkd_view_samples(const xkd_data_config *data, int64_t view);

/* Scratch memory and plans of one thread. */
typedef struct xkd_viewer xkd_viewer;

/* `data` must outlive the viewer. Free with xkd_viewer_free. */
xkd_status xkd_viewer_new(xkd_context *cx, const xkd_data_config *data, xkd_viewer **out);
void xkd_viewer_free(xkd_viewer *viewer); /* NULL is allowed */

/* out: [3,T,H,W] of view `view`, overwritten. */
xkd_status xkd_view_video(xkd_viewer *viewer, const xkd_clip *clip, xkd_view_key key, int64_t view, float *out);
/* out: [1,F,T] of view `view`, overwritten. */
xkd_status xkd_view_audio(xkd_viewer *viewer, const xkd_clip *clip, xkd_view_key key, int64_t view, float *out);

/* The same with masks of fine-tuning between time warp and random resize crop; method.md section 10. */
typedef struct {
    int64_t bands, columns;                 /* how many masks */
    int64_t band_width[2], column_width[2]; /* uniform in [low, high) */
} xkd_spec_masks;

xkd_status xkd_view_masked_audio(xkd_viewer *viewer, const xkd_clip *clip, xkd_view_key key, int64_t view,
                                 const xkd_spec_masks *masks, float *out);

#endif
