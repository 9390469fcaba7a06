/* A file -> the clips that an encoder sees outside pre-training; method.md section 10.
 *
 * WINDOWS  a clip every `stride` seconds over the whole file, centre crop, in memory that does not grow with its length.
 *          A file shorter than a clip gives one clip, repeated from its start (sound: padded with silence); what is left
 *          behind the last whole window is not used.
 * TEST     `clips` of them spread evenly, centre crop; a shorter file is repeated from its start, sound on the columns of
 *          the whole file's spectrogram.
 * TRAIN    `clips` of them at random frames of the grid, each augmented as `data`'s global views are.
 *
 * Frames are decoded with the short side at int(crop / 0.875) and cropped to `crop_size`. With three_crops, TEST gives
 * fine-tuning's views instead: frames as in the file are normalised, resized to a short side of crop_size (float
 * bilinear, no antialiasing), and each clip comes three times: left, centre, right, or top, centre, bottom. */
#ifndef XKD_EVAL_ENCODE_CLIPS_H
#define XKD_EVAL_ENCODE_CLIPS_H

#include <stdatomic.h>
#include <xkd/clip.h>

#include "data/manifest.h"
#include "data/views.h"
#include "media/worker.h"
#include "model/backbone.h"

typedef enum { XKD_CLIPS_WINDOWS, XKD_CLIPS_TEST, XKD_CLIPS_TRAIN } xkd_clip_protocol;

typedef struct {
    const xkd_data_config *data;
    bool wanted[XKD_MODALITIES];
    xkd_clip_protocol protocol;
    int64_t clips; /* of a file; unused by WINDOWS */
    double stride; /* seconds between windows */
    bool three_crops;
    xkd_spec_masks masks; /* of TRAIN's sound */
    int64_t short_side;   /* of decoded frames for three_crops; 0: as in the file */
    uint64_t seed;
    const atomic_bool *give_up; /* true: nobody wants the file at hand any more; NULL: never */
} xkd_clip_options;

/* What would be in a file; data NULL: no such stream. Both begin together. */
typedef struct {
    xkd_frames frames;
    xkd_samples samples;
} xkd_clip_memory;

/* Which clip this is. */
typedef struct {
    xkd_modality modality;
    int64_t sample, clip;     /* the number given to xkd_clipper_run; 0, 1, ... within the file */
    double seconds;           /* where it starts in the file */
    double damage;            /* share in [0,1] of it that is damaged or missing; 0 where a pack does not say */
    bool has[XKD_MODALITIES]; /* streams that the file has */
} xkd_clip_place;

/* Where clips go: `reserve` gives memory for one clip of this modality, `commit` says that it is filled. A status other
 * than XKD_OK ends the file with it. */
typedef struct {
    void *user;
    xkd_status (*reserve)(void *user, xkd_modality modality, float **clip);
    xkd_status (*commit)(void *user, const xkd_clip_place *place);
} xkd_clip_sink;

/* Sizes [T,H,W] of the clips of a modality, B = 0. */
xkd_view_shape xkd_clip_shape(const xkd_data_config *data, xkd_modality modality);

/* Short side of decoded frames for a centre crop of `crop`: int(crop / 0.875), as in the release (128 for 112). */
int64_t xkd_clip_short_side(int64_t crop);

/* Recommended augmentation of TRAIN. Video: crop area [.08,1], flip .5, jitter .4 .4 .4 .2, grey .2, no blur; sound: volume
 * .1. */
void xkd_clip_training_views(xkd_data_config *data, xkd_modality modality);

typedef struct xkd_clipper xkd_clipper;

/* `options->data` must outlive the clipper. One thread's tool, with a worker process of its own. */
xkd_status xkd_clipper_new(xkd_context *cx, const xkd_clip_options *options, xkd_clipper **out);
void xkd_clipper_free(xkd_clipper *clipper); /* NULL is allowed */

/* Clips of sample i of the manifest, called `number` in places and `draw` in random draws. What is wrong with the file stands in
 * *result; a wanted stream that it lacks is XKD_FAULT_NO_VIDEO or _NO_AUDIO when it has none of the wanted ones. */
xkd_status xkd_clipper_run(xkd_clipper *clipper, const xkd_manifest *manifest, int64_t i, int64_t number, int64_t draw,
                           const xkd_clip_sink *sink, xkd_media_result *result);

/* Clips of frames and samples in memory: those of a file with the same contents. */
xkd_status xkd_clipper_run_memory(xkd_clipper *clipper, const xkd_clip_memory *memory, int64_t number,
                                  const xkd_clip_sink *sink, xkd_media_result *result);

#endif
