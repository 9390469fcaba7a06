/* Estimates follow the allocations of data/loader, data/views and data/fetch. */
#include "data/footprint.h"

#include <math.h>
#include <stddef.h>

#include "data/cache.h"
#include "data/manifest.h"

/* Resident size of a worker process with FFmpeg's libraries and one open decoder. */
static const double PROCESS = 40e6;
/* Of a frame whose sides are not known; most videos are this wide. */
static const double ASPECT = 16.0 / 9;

/* Bytes of a frame with the short side at `side`. */
static double frame_bytes(const xkd_sample *s, double side)
{
    double wide = s && s->width > 0 && s->height > 0 ? (double)s->width / (double)s->height : ASPECT;
    return 3 * side * side * (wide < 1 ? 1 / wide : wide);
}

/* Frames on the grid and 16-bit sound, as the cache keeps them. */
static double decoded_bytes(const xkd_data_config *d, const xkd_sample *s)
{
    double frames = ceil(s->video_seconds * d->video_fps), samples = ceil(s->audio_seconds * (double)d->audio_rate);
    return frames * frame_bytes(s, (double)d->crop_size) + samples * (double)sizeof(int16_t);
}

/* All files that have room end up in it, since an epoch visits all. */
static double cache_bytes(const xkd_data_config *d, const xkd_manifest *m)
{
    double sum = 0;
    int64_t known = 0;
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_sample *s = &m->samples[i];
        if (!(s->video_seconds > 0) && !(s->audio_seconds > 0)) continue;
        sum += decoded_bytes(d, s);
        known++;
    }
    const xkd_sample clip = {.video_seconds = d->clip_duration, .audio_seconds = d->clip_duration};
    double mean = known ? sum / (double)known : decoded_bytes(d, &clip); /* the least that a file can have */
    return fmin(sum + mean * (double)(m->count - known), (double)xkd_cache_bound(d));
}

/* A decoded clip, the same as planes of a view, waveform and spectrogram canvas; and the process. */
static double worker_bytes(const xkd_data_config *d, const xkd_view_shapes *s)
{
    double frames = ceil(d->clip_duration * d->video_fps), side = (double)s->video[0].height;
    double samples = ceil(d->clip_duration * (double)d->audio_rate);
    double bands = (double)s->audio[0].bands, columns = (double)s->audio[0].columns;
    return PROCESS + frames * frame_bytes(NULL, (double)d->crop_size) + 3 * frames * side * side +
           samples * (sizeof(int16_t) + sizeof(float)) + 4 * bands * columns * sizeof(float);
}

xkd_data_footprint xkd_data_footprint_of(const xkd_data_config *data, const xkd_loader *loader, int64_t workers)
{
    return (xkd_data_footprint){
        .list = (double)xkd_manifest_bytes(xkd_loader_manifest(loader)),
        .ring = (double)xkd_loader_ring_bytes(loader),
        .workers = (double)workers * worker_bytes(data, xkd_loader_shapes(loader)),
        .cache = data->cache == XKD_CACHE_RAM ? cache_bytes(data, xkd_loader_manifest(loader)) : 0,
    };
}
