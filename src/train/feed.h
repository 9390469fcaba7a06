/* From the loader's batches to the input of a training step: masking noise is added, and `run.overfit` holds on to the
 * first batch. */
#ifndef XKD_TRAIN_FEED_H
#define XKD_TRAIN_FEED_H

#include "data/loader.h"
#include "model/pass.h"

typedef struct {
    const xkd_config *config;
    xkd_loader *loader;
    int64_t samples;                /* B: of a full micro-batch */
    int64_t tokens[XKD_MODALITIES]; /* N: of a global view */
    float *noise[XKD_MODALITIES];   /* [g*B,N] */
    xkd_view_shape shape[XKD_MODALITIES][XKD_MAX_VIEWS];
    xkd_batch *first;      /* overfit: [accumulate] copies, else NULL */
    xkd_raw_batch *raw;    /* of these, where batches are raw */
    int64_t copied, shown; /* overfit: micro-batches copied, handed out */
} xkd_feed;

/* `config` and `loader` must outlive the feed. Free with xkd_feed_free. */
xkd_status xkd_feed_new(xkd_context *cx, xkd_feed *out, const xkd_config *config, xkd_loader *loader);
void xkd_feed_free(xkd_feed *feed);

/* Shapes of a micro-batch of B samples, for the trainer; points into the feed. */
xkd_batch_shape xkd_feed_shape(const xkd_feed *feed, int64_t B);

/* Waits for the next micro-batch. *in points into the loader's memory and the feed's, valid until the next call. */
xkd_status xkd_feed_next(xkd_context *cx, xkd_feed *feed, const xkd_batch **batch, xkd_pass_input *in);

/* Masking noise [g*B,N] of modality m: a function of seed, epoch, sample and view alone. */
void xkd_feed_noise(float *noise, uint64_t seed, const xkd_batch *batch, int64_t global_views, int64_t tokens,
                    xkd_modality m);

#endif
