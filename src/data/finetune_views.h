/* Augmentation of fine-tuning (method.md section 10): RandAugment on 8-bit frames, random resized crop of float frames,
 * random erasing, masks on spectrograms, and the mixing of whole batches. Every function draws all it needs from the
 * stream it is given, in the order in which its comment names things. */
#ifndef XKD_DATA_FINETUNE_VIEWS_H
#define XKD_DATA_FINETUNE_VIEWS_H

#include "base/rng.h"
#include "data/image_ops.h"

/* Streams of XKD_RNG_EVAL, by view number: what fine-tuning draws besides the clip. Append only. */
enum {
    XKD_STREAM_WEIGHTS = 1, /* of the classifier */
    XKD_STREAM_DROPOUT,     /* epoch = step, sample = micro-batch */
    XKD_STREAM_AUGMENT,     /* RandAugment of a clip */
    XKD_STREAM_CROP,        /* crop, flip and erasing of a clip */
    XKD_STREAM_MASKS,       /* of a spectrogram */
    XKD_STREAM_MIX,         /* of a batch; sample = its number within the epoch */
    XKD_STREAM_DROP_PATH    /* as DROPOUT */
};

/* "rand-m7-n4-mstd0.5-inc1" */
typedef struct {
    double magnitude, deviation; /* m, mstd */
    int64_t draws;               /* n */
} xkd_rand_augment;

/* XKD_ERR_CONFIG for another notation; only inc1 is known. */
xkd_status xkd_rand_augment_parse(xkd_context *cx, const char *text, xkd_rand_augment *out);

/* `draws` operations on all frames alike: operation, whether it is applied (p .5), level, sign. scratch: [H * W]. */
void xkd_rand_augment_run(const xkd_planes *planes, const xkd_rand_augment *policy, xkd_rng *rng, uint8_t *scratch);

/* A box of the area and log-uniform ratio drawn in ten tries (each: area, ratio), then top and left; without luck the
 * centre. */
typedef struct {
    int64_t top, left, height, width;
} xkd_crop_box;

xkd_crop_box xkd_draw_crop(xkd_rng *rng, const double area[2], const double ratio[2], int64_t height, int64_t width);

/* frames [C*T,H,W] cut to the box and resized to [C*T,side,side] (float bilinear, no antialiasing). scratch: [box]. */
void xkd_crop_resize(const float *frames, int64_t planes, int64_t height, int64_t width, const xkd_crop_box *box,
                     float *scratch, float *out, int64_t side);

/* With probability p, one box for all frames [C,T,H,W] becomes standard normal, a draw a pixel: whether, then up to 100
 * tries of area U(.02,1/3) and ratio log-uniform [.3,1/.3], then top, left, pixels. */
void xkd_random_erase(xkd_rng *rng, double p, float *frames, int64_t C, int64_t T, int64_t H, int64_t W);

/* `count` masks over bands (or, with `columns`, over columns) of a spectrogram [F,T], filled with its mean: widths,
 * then starts. Widths are uniform in [low, high). */
void xkd_mask_spectrogram(xkd_rng *rng, float *spec, int64_t F, int64_t T, bool columns, int64_t count,
                          const int64_t width[2]);

typedef struct {
    double mixup, cutmix;          /* Beta parameters; 0: off */
    double probability, switching; /* of mixing at all; of cutmix where both are on */
    double smoothing;
} xkd_mix;

/* Targets [B,K] of labels [B]: 1 - s + s/K and s/K. */
void xkd_smooth_targets(const int32_t *label, int64_t B, int64_t K, double smoothing, float *targets);

/* Mixes clips [B,planes,H,W] and their targets with the reversed batch: whether, which, lambda, box centre. Returns
 * lambda, 1 where nothing was mixed. */
double xkd_mix_batch(xkd_rng *rng, const xkd_mix *mix, float *clips, int64_t B, int64_t planes, int64_t H, int64_t W,
                     float *targets, int64_t K);

/* Beta(a, a), from two draws of Gamma(a) (Marsaglia and Tsang, ACM TOMS 26, 2000). */
double xkd_draw_beta(xkd_rng *rng, double a);

/* Where the three test crops of `side` begin along the longer side: left, centre, right. */
void xkd_three_crops(int64_t length, int64_t side, int64_t start[3]);

#endif
