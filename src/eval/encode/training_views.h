/* What a clip becomes in supervised training; method.md section 10.
 *
 *   video, randaug3crop            RandAugment on 8-bit frames -> /255, normalise -> random resized crop (float bilinear)
 *                                  -> flip -> erasing
 *   video, strong3crop, global_local   views of frozen features: those of the configuration's global view
 *   sound                          volume jitter -> log-mel -> time warp -> masks of bands and columns -> random resize crop
 *
 * Every draw is a function of (seed, epoch, sample, purpose). */
#ifndef XKD_EVAL_ENCODE_TRAINING_VIEWS_H
#define XKD_EVAL_ENCODE_TRAINING_VIEWS_H

#include "data/finetune_views.h"
#include "data/views.h"

typedef struct {
    const xkd_config *config; /* the caller's */
    xkd_modality modality;
    bool augment; /* RandAugment with `policy` */
    xkd_rand_augment policy;
    xkd_spec_masks masks;
} xkd_training_views;

/* Masks of the spectrogram; none where they are off. */
xkd_spec_masks xkd_training_masks(const xkd_eval_config *eval);

/* Fills *views and a plan for the loader that refers to them; both must outlive it, as must `config`, whose data has one
 * global view and no local ones. XKD_ERR_CONFIG: an auto_augment that is not understood. */
xkd_status xkd_training_views_new(xkd_context *cx, const xkd_config *config, xkd_modality modality,
                                  xkd_training_views *views, xkd_loader_plan *plan);

/* Whether video is fine-tuning's: frames as in the file, and three crops of each test clip. */
bool xkd_three_crop_views(const xkd_config *config, xkd_modality modality);

#endif
