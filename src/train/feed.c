/* Between loader and step: takes micro-batches, draws the masking noise, and keeps copies of the first batch
 * where run.overfit repeats it. */
#include "train/feed.h"

#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"

/* The stream is keyed by epoch, sample and view, not by position in the batch: a sample has the same mask
 * whatever the number of workers, the micro-batch size or a resume. Order of rows is view by view, as in the
 * pass. */
void xkd_feed_noise(float *noise, uint64_t seed, const xkd_batch *batch, int64_t global_views, int64_t tokens,
                    xkd_modality m)
{
    xkd_rng_purpose purpose = m == XKD_VIDEO ? XKD_RNG_MASK_VIDEO : XKD_RNG_MASK_AUDIO;
    for (int64_t v = 0; v < global_views; v++)
        for (int64_t b = 0; b < batch->count; b++) {
            xkd_rng rng = xkd_rng_make(seed, batch->epoch, (uint32_t)batch->sample[b], (uint32_t)v, purpose);
            float *row = noise + (v * batch->count + b) * tokens;
            for (int64_t i = 0; i < tokens; i++) row[i] = (float)xkd_rng_uniform(&rng);
        }
}

/* The loader knows the sizes of what it delivers; batch and kept tokens are the pass's to fill in. */
static void copy_shapes(xkd_feed *feed, const xkd_view_shapes *s)
{
    for (int64_t v = 0; v < s->video_views; v++)
        feed->shape[XKD_VIDEO][v] =
            (xkd_view_shape){.T = s->video[v].frames, .H = s->video[v].height, .W = s->video[v].width};
    for (int64_t v = 0; v < s->audio_views; v++)
        feed->shape[XKD_AUDIO][v] = (xkd_view_shape){.T = 1, .H = s->audio[v].bands, .W = s->audio[v].columns};
}

/* tokens is N of the global view per modality. Noise is sized for a full micro-batch; a smaller last one uses
 * its beginning. */
xkd_status xkd_feed_new(xkd_context *cx, xkd_feed *out, const xkd_config *config, xkd_loader *loader)
{
    xkd_status status = XKD_OK;
    const xkd_model_config *m = &config->model;
    *out = (xkd_feed){.config = config, .loader = loader};
    out->samples = config->train.batch / config->train.parts;
    out->tokens[XKD_VIDEO] =
        (m->num_frames / m->vid_patch_t) * (m->frame_height / m->vid_patch_h) * (m->frame_width / m->vid_patch_w);
    out->tokens[XKD_AUDIO] = (m->spec_freq / m->spec_patch_f) * (m->spec_time / m->spec_patch_t);
    copy_shapes(out, xkd_loader_shapes(loader));
    for (xkd_modality k = 0; k < XKD_MODALITIES; k++)
        XKD_TRY(
            xkd_alloc(cx, &out->noise[k], config->step.global_views * out->samples * out->tokens[k], sizeof(float)));
    /* One copy per micro-batch of a step, made when it first comes. */
    if (config->run.overfit) XKD_TRY(xkd_alloc(cx, &out->first, config->train.accumulate, sizeof *out->first));
    if (config->run.overfit) XKD_TRY(xkd_alloc(cx, &out->raw, config->train.accumulate, sizeof *out->raw));
fail:
    if (status != XKD_OK) xkd_feed_free(out);
    return status;
}

/* The copy owns its views and sample numbers, unlike a loader's batch, which is a view of loader memory. */
static void free_copy(xkd_batch *batch)
{
    for (int v = 0; v < XKD_MAX_VIEWS; v++) {
        xkd_free(batch->frames[v]);
        xkd_free(batch->specs[v]);
    }
    xkd_free(batch->sample);
}

/* Takes a feed whose making failed, as unused pointers are NULL. */
void xkd_feed_free(xkd_feed *feed)
{
    for (int64_t i = 0; feed->first && i < feed->config->train.accumulate; i++) free_copy(&feed->first[i]);
    for (int64_t i = 0; feed->raw && i < feed->config->train.accumulate; i++) xkd_raw_batch_free(&feed->raw[i]);
    xkd_free(feed->first);
    xkd_free(feed->raw);
    for (int m = 0; m < XKD_MODALITIES; m++) xkd_free(feed->noise[m]);
    *feed = (xkd_feed){0};
}

/* Shapes point into the feed, which must outlive the use of the result. */
xkd_batch_shape xkd_feed_shape(const xkd_feed *feed, int64_t B)
{
    const xkd_view_shapes *s = xkd_loader_shapes(feed->loader);
    return (xkd_batch_shape){.B = B,
                             .views = {s->video_views, s->audio_views},
                             .shape = {feed->shape[XKD_VIDEO], feed->shape[XKD_AUDIO]},
                             .raw = xkd_loader_raw(feed->loader)};
}

/* [B,channels,T,H,W] floats. */
static xkd_status copy_view(xkd_context *cx, float **out, const float *view, const xkd_view_shape *shape, int64_t B,
                            int64_t channels)
{
    int64_t count = B * channels * shape->T * shape->H * shape->W;
    xkd_status status = xkd_alloc(cx, out, count, sizeof(float));
    if (status == XKD_OK) memcpy(*out, view, (size_t)count * sizeof(float));
    return status;
}

/* Takes over the counts and replaces every pointer, so that nothing of the loader's memory, which the next
 * batch reuses, is left in the copy. On failure what was copied so far is freed with the feed. */
static xkd_status copy_batch(xkd_context *cx, const xkd_feed *feed, int64_t i, const xkd_batch *batch)
{
    xkd_batch *out = &feed->first[i];
    xkd_status status = XKD_OK;
    int64_t B = batch->count;
    *out = *batch;
    memset(out->frames, 0, sizeof out->frames);
    memset(out->specs, 0, sizeof out->specs);
    out->sample = NULL;
    out->raw = NULL;
    out->wait_seconds = 0;
    XKD_TRY(xkd_alloc(cx, &out->sample, B, sizeof *out->sample));
    memcpy(out->sample, batch->sample, (size_t)B * sizeof *out->sample);
    if (batch->raw) {
        XKD_TRY(xkd_raw_copy(cx, batch->raw, &feed->raw[i]));
        out->raw = &feed->raw[i];
        return XKD_OK;
    }
    for (int64_t v = 0; v < batch->video_views; v++)
        XKD_TRY(copy_view(cx, &out->frames[v], batch->frames[v], &feed->shape[XKD_VIDEO][v], B,
                          feed->config->model.channels));
    for (int64_t v = 0; v < batch->audio_views; v++)
        XKD_TRY(copy_view(cx, &out->specs[v], batch->specs[v], &feed->shape[XKD_AUDIO][v], B, 1));
fail:
    return status;
}

/* Normally the loader's next batch. With run.overfit the first `accumulate` batches of epoch 0 for ever; the
 * seek makes that so after a resume as well. */
static xkd_status next_batch(xkd_context *cx, xkd_feed *feed, const xkd_batch **batch)
{
    xkd_status status = XKD_OK;
    int64_t accumulate = feed->config->train.accumulate;
    if (!feed->first) return xkd_loader_next(feed->loader, batch);
    if (feed->copied < accumulate) {
        if (feed->copied == 0) XKD_TRY(xkd_loader_seek(feed->loader, 0, 0));
        XKD_TRY(xkd_loader_next(feed->loader, batch));
        XKD_TRY(copy_batch(cx, feed, feed->copied, *batch));
        feed->copied++;
        return XKD_OK;
    }
    /* The loader has nothing more to do from here on. */
    *batch = &feed->first[feed->shown++ % accumulate];
fail:
    return status;
}

/* The batch is valid until the next call. */
xkd_status xkd_feed_next(xkd_context *cx, xkd_feed *feed, const xkd_batch **batch, xkd_pass_input *in)
{
    const xkd_config *c = feed->config;
    xkd_status status = next_batch(cx, feed, batch);
    if (status != XKD_OK) return status;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        xkd_feed_noise(feed->noise[m], c->train.seed, *batch, c->step.global_views, feed->tokens[m], m);
        in->noise[m] = feed->noise[m];
    }
    in->clips[XKD_VIDEO] = (const float *const *)(*batch)->frames;
    in->clips[XKD_AUDIO] = (const float *const *)(*batch)->specs;
    in->raw = (*batch)->raw;
    return XKD_OK;
}
