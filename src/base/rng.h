/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * Every draw is a pure function of (seed, epoch, sample, view, purpose, index): no hidden state, so workers, threads
 * and resumed runs always see the same numbers. */
#ifndef XKD_BASE_RNG_H
#define XKD_BASE_RNG_H

#include <stdint.h>

/* Purposes keep streams apart. Append only: a change of order changes every run. */
typedef enum {
    XKD_RNG_INIT,       /* parameter initialisation */
    XKD_RNG_SHUFFLE,    /* order of the samples of an epoch */
    XKD_RNG_CLIP,       /* start of the clip within its file */
    XKD_RNG_REPLACE,    /* which clip replaces an unreadable one */
    XKD_RNG_VIDEO_VIEW, /* video crop, flip, jitter, grey, blur */
    XKD_RNG_AUDIO_VIEW, /* audio cut, volume, resize crop */
    XKD_RNG_MASK_VIDEO, /* masking noise */
    XKD_RNG_MASK_AUDIO,
    XKD_RNG_SYNTH, /* synthetic data set */
    XKD_RNG_TEST,
    XKD_RNG_SVM, /* order of samples in the SVM solver, folds, bootstrap */
    XKD_RNG_EVAL /* views, mixing and order of evaluation and fine-tuning */
} xkd_rng_purpose;

/* A stream: where in the sequence of one (seed, epoch, sample, view, purpose) we are. Plain data, copy freely. */
typedef struct {
    uint32_t key[2];
    uint32_t counter[4]; /* counter[0] is the block number within the stream */
    uint32_t block[4];
    int used; /* words of `block` already given out; 4: make the next block first */
} xkd_rng;

/* sample and epoch may use 32 bits, view 24 bits, purpose 8. */
xkd_rng xkd_rng_make(uint64_t seed, uint32_t epoch, uint32_t sample, uint32_t view, xkd_rng_purpose purpose);

uint32_t xkd_rng_u32(xkd_rng *rng);
double xkd_rng_uniform(xkd_rng *rng);                             /* [0, 1), 53 bits */
double xkd_rng_range(xkd_rng *rng, double low, double high);      /* [low, high) */
int64_t xkd_rng_below(xkd_rng *rng, int64_t n);                   /* 0 .. n-1 without bias; n >= 1 */
double xkd_rng_normal(xkd_rng *rng);                              /* N(0, 1), Box-Muller, two uniforms a call */
void xkd_rng_shuffle(xkd_rng *rng, int64_t *items, int64_t n);    /* Fisher-Yates in place */
void xkd_rng_shuffle32(xkd_rng *rng, uint32_t *items, int64_t n); /* the same order */

/* One Philox4x32-10 block; exposed for the known-answer test. */
void xkd_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
