/* A loader without media: views are random numbers that depend on sample, epoch and view alone, as the real ones do.
 * Defined in the test, it takes the place of the library's. */
#ifndef XKD_TESTS_FAKE_LOADER_H
#define XKD_TESTS_FAKE_LOADER_H

#include "base/alloc.h"
#include "base/rng.h"
#include "data/loader.h"
#include "data/manifest.h"

enum { FAKE_SAMPLES = 12 };

struct xkd_loader {
    xkd_context *cx;
    const xkd_data_config *data;
    const xkd_train_config *train;
    int rank, world;
    xkd_view_shapes shapes;
    int64_t micro, step, samples[64];
    uint32_t epoch;
    xkd_batch batch;
    int64_t delivered;
};

/* What tests let go wrong. */
static struct {
    int64_t fail_after; /* micro-batches after which reading fails; 0: never */
    int64_t poison;     /* micro-batch whose first number is not finite, counted from 1; 0: none */
    int64_t poison_too; /* another one */
} fake;

xkd_status xkd_loader_new(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train, int rank,
                          int world, xkd_loader **out)
{
    xkd_status status = XKD_OK;
    xkd_loader *l = NULL;
    XKD_TRY(xkd_alloc(cx, &l, 1, sizeof *l));
    *l = (xkd_loader){.cx = cx, .data = data, .train = train, .rank = rank, .world = world};
    l->shapes.video_views = l->shapes.audio_views = 2;
    int64_t frames = (int64_t)(data->clip_duration * data->video_fps), side = data->crop_size;
    int64_t columns = 1 + (int64_t)(data->clip_duration * (double)data->audio_rate) / data->hop_length;
    for (int v = 0; v < 2; v++) {
        l->shapes.video[v].frames = frames;
        l->shapes.video[v].height = l->shapes.video[v].width = side;
        l->shapes.audio[v].bands = data->n_mels;
        l->shapes.audio[v].columns = columns;
        int64_t B = train->batch / (train->accumulate * world);
        XKD_TRY(xkd_alloc(cx, &l->batch.frames[v], B * 3 * frames * side * side, sizeof(float)));
        XKD_TRY(xkd_alloc(cx, &l->batch.specs[v], B * data->n_mels * columns, sizeof(float)));
    }
    *out = l;
    l = NULL;
fail:
    xkd_loader_free(l);
    return status;
}

void xkd_loader_free(xkd_loader *l)
{
    if (!l) return;
    for (int v = 0; v < 2; v++) {
        xkd_free(l->batch.frames[v]);
        xkd_free(l->batch.specs[v]);
    }
    xkd_free(l);
}

xkd_status xkd_loader_set_folder(xkd_loader *l, const char *folder)
{
    (void)l;
    (void)folder;
    return XKD_OK;
}

/* Never asked for: a fake one makes its views. */
xkd_status xkd_loader_new_raw(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train, int rank,
                              int world, xkd_memory *memory, xkd_loader **out)
{
    (void)data, (void)train, (void)rank, (void)world, (void)memory;
    *out = NULL;
    return xkd_fail(cx, XKD_ERR_INTERNAL, "a fake loader has no raw batches");
}

xkd_status xkd_loader_new_ranked(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train,
                                 xkd_dist *dist, bool raw, xkd_memory *memory, xkd_loader **out)
{
    int rank = xkd_dist_rank(dist), world = xkd_dist_size(dist);
    return raw ? xkd_loader_new_raw(cx, data, train, rank, world, memory, out)
               : xkd_loader_new(cx, data, train, rank, world, out);
}

const struct xkd_raw_plan *xkd_loader_raw(const xkd_loader *l)
{
    (void)l;
    return NULL;
}

int64_t xkd_loader_ring_bytes(const xkd_loader *l)
{
    (void)l;
    return 1000;
}

const xkd_manifest *xkd_loader_manifest(const xkd_loader *l)
{
    (void)l;
    static const xkd_manifest none = {0};
    return &none;
}

int64_t xkd_loader_steps_per_epoch(const xkd_loader *l)
{
    return FAKE_SAMPLES / l->train->batch;
}

int64_t xkd_loader_last_count(const xkd_loader *l)
{
    return l->train->batch / (l->train->accumulate * l->world);
}

int64_t xkd_loader_sample_count(const xkd_loader *l)
{
    (void)l;
    return FAKE_SAMPLES;
}

uint64_t xkd_loader_data_hash(const xkd_loader *l)
{
    (void)l;
    return 42;
}

const xkd_view_shapes *xkd_loader_shapes(const xkd_loader *l)
{
    return &l->shapes;
}

xkd_status xkd_loader_seek(xkd_loader *l, uint32_t epoch, int64_t step)
{
    l->epoch = epoch;
    l->step = step;
    l->micro = 0;
    return XKD_OK;
}

static void fake_view(float *out, int64_t count, uint32_t epoch, int64_t sample, uint32_t view)
{
    xkd_rng rng = xkd_rng_make(7, epoch, (uint32_t)sample, view, XKD_RNG_TEST);
    for (int64_t i = 0; i < count; i++) out[i] = (float)(2 * xkd_rng_uniform(&rng) - 1);
}

xkd_status xkd_loader_next(xkd_loader *l, const xkd_batch **out)
{
    int64_t B = l->train->batch / (l->train->accumulate * l->world);
    xkd_batch *b = &l->batch;
    if (fake.fail_after && l->delivered >= fake.fail_after)
        return xkd_fail(l->cx, XKD_ERR_DATA, "too many unreadable files");
    *b = (xkd_batch){.count = B,
                     .video_views = 2,
                     .audio_views = 2,
                     .frames = {b->frames[0], b->frames[1]},
                     .specs = {b->specs[0], b->specs[1]},
                     .sample = l->samples,
                     .epoch = l->epoch,
                     .step = l->step,
                     .micro = l->micro};
    int64_t video = 3 * l->shapes.video[0].frames * l->shapes.video[0].height * l->shapes.video[0].width;
    int64_t audio = l->shapes.audio[0].bands * l->shapes.audio[0].columns;
    for (int64_t i = 0; i < B; i++) {
        int64_t part = l->rank * l->train->accumulate + l->micro;
        l->samples[i] = (l->step * l->train->batch + part * B + i) % FAKE_SAMPLES;
        for (uint32_t v = 0; v < 2; v++) {
            fake_view(b->frames[v] + i * video, video, l->epoch, l->samples[i], v);
            fake_view(b->specs[v] + i * audio, audio, l->epoch, l->samples[i], v + 2);
        }
    }
    l->delivered++;
    if (l->delivered == fake.poison || l->delivered == fake.poison_too) b->frames[0][0] = 1.0f / 0.0f;
    if (++l->micro == l->train->accumulate) {
        l->micro = 0;
        if (++l->step == xkd_loader_steps_per_epoch(l)) {
            l->step = 0;
            l->epoch++;
        }
    }
    *out = b;
    return XKD_OK;
}

xkd_status xkd_loader_share(xkd_loader *l, xkd_dist *dist)
{
    (void)l;
    (void)dist;
    return XKD_OK;
}

void xkd_loader_stats(const xkd_loader *l, xkd_loader_statistics *out)
{
    *out = (xkd_loader_statistics){.clips = l->delivered};
}

#endif
