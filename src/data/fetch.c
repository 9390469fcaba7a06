/* One clip of one sample, through the cache or straight from the file, with a worker process per
 * fetcher. A fetcher belongs to one thread; its buffers are used again for every clip. */
#include "data/fetch.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/file.h"

struct xkd_fetcher {
    xkd_context *cx;             /* of the owning thread */
    const xkd_data_config *data; /* the caller's, as is the manifest; both outlive the fetcher */
    const xkd_manifest *manifest;
    xkd_cache *cache; /* NULL: none */
    xkd_worker *worker;
    bool wanted[XKD_MODALITIES];
    int64_t short_side;     /* pixels of a decoded frame's short side */
    const xkd_cached *held; /* cache entry of the last clip */
    /* The decoded clip or file: grows to the largest seen. */
    uint8_t *rgb;
    int64_t rgb_bytes, frames, height, width; /* capacity in bytes; size of what is held */
    int16_t *sound;
    int64_t sound_capacity, samples;
    bool has_audio;
};

xkd_status xkd_fetcher_new(xkd_context *cx, const xkd_data_config *data, const xkd_manifest *manifest, xkd_cache *cache,
                           xkd_fetcher **out)
{
    xkd_status status = XKD_OK;
    xkd_fetcher *f = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &f, 1, sizeof *f));
    *f = (xkd_fetcher){.cx = cx,
                       .data = data,
                       .manifest = manifest,
                       .cache = cache,
                       .wanted = {true, true},
                       /* The views cut crops of crop_size at most, so a larger frame would only cost time. */
                       .short_side = data->crop_size};
    XKD_TRY(xkd_worker_new(cx, NULL, data->decode_seconds, &f->worker));
    *out = f;
    f = NULL;
fail:
    xkd_fetcher_free(f);
    return status;
}

/* For plans whose views need one modality or larger frames. */
void xkd_fetcher_want(xkd_fetcher *f, const bool wanted[XKD_MODALITIES], int64_t short_side)
{
    memcpy(f->wanted, wanted, sizeof f->wanted);
    f->short_side = short_side;
}

/* An entry may be unmapped from here on; clips cut from it end with it. */
static void let_go(xkd_fetcher *f)
{
    if (f->held) xkd_cache_release(f->cache, f->held);
    f->held = NULL;
}

/* Takes NULL and half-made fetchers. */
void xkd_fetcher_free(xkd_fetcher *f)
{
    if (!f) return;
    let_go(f);
    xkd_worker_free(f->worker);
    xkd_free(f->rgb);
    xkd_free(f->sound);
    xkd_free(f);
}

int64_t xkd_fetcher_restarts(const xkd_fetcher *f)
{
    return xkd_worker_restarts(f->worker);
}

/* Buffers keep their capacity from clip to clip. */
static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    xkd_fetcher *f = user;
    (void)start;
    f->frames = f->samples = f->height = f->width = 0;
    f->has_audio = info->has_audio;
    return XKD_OK;
}

/* A worker's frames must come in order and of one size; anything else is a fault of ours and no
 * file's. */
static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    xkd_status status = XKD_OK;
    xkd_fetcher *f = user;
    xkd_context *cx = f->cx;
    int64_t bytes = 3 * width * height, used = f->frames * bytes;
    if (index != f->frames || (f->frames && (width != f->width || height != f->height)))
        XKD_FAIL(XKD_ERR_INTERNAL, "a media worker delivered frames out of order");
    if (used + bytes > f->rgb_bytes) {
        /* Room for a clip at once; a whole file doubles. */
        int64_t expected = llround(f->data->clip_duration * f->data->video_fps) * bytes;
        int64_t capacity = used + bytes > expected ? 2 * (used + bytes) : expected;
        XKD_TRY(xkd_resize(cx, &f->rgb, f->rgb_bytes, capacity, 1));
        f->rgb_bytes = capacity;
    }
    memcpy(f->rgb + used, rgb, (size_t)bytes);
    f->frames++;
    f->width = width;
    f->height = height;
fail:
    return status;
}

/* Doubling, for the length is not known before: sound arrives packet by packet. */
static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    xkd_status status = XKD_OK;
    xkd_fetcher *f = user;
    xkd_context *cx = f->cx;
    if (f->samples + count > f->sound_capacity) {
        int64_t capacity = 2 * (f->samples + count);
        XKD_TRY(xkd_resize(cx, &f->sound, f->sound_capacity, capacity, sizeof *f->sound));
        f->sound_capacity = capacity;
    }
    memcpy(f->sound + f->samples, samples, (size_t)count * sizeof *samples);
    f->samples += count;
fail:
    return status;
}

/* XXH3, 128 bits, over the content: names and dates of files do not matter. A file that shrinks
 * meanwhile gives the hash of what was there. */
xkd_status xkd_hash_file(xkd_context *cx, int fd, int64_t size, char out[33])
{
    enum { PIECE = 1 << 18 }; /* 256 KiB: large enough that calls do not matter */
    xkd_status status = XKD_OK;
    uint8_t *buffer = NULL;
    XXH3_state_t *state = XXH3_createState();
    if (!state) XKD_FAIL(XKD_ERR_MEMORY, "out of memory while hashing a file");
    XKD_TRY(xkd_alloc(cx, &buffer, PIECE, 1));
    XXH3_128bits_reset(state);
    for (int64_t at = 0; at < size;) {
        /* pread leaves the position alone: the worker gets the same descriptor. */
        ssize_t got = pread(fd, buffer, PIECE, at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) XKD_FAIL(XKD_ERR_STORAGE, "cannot read: %s", strerror(errno));
        if (got == 0) break;
        XXH3_128bits_update(state, buffer, (size_t)got);
        at += got;
    }
    /* 32 hexadecimal digits, the high half first. */
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    snprintf(out, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64, (uint64_t)hash.low64);
fail:
    XXH3_freeState(state);
    xkd_free(buffer);
    return status;
}

/* Decodes into the fetcher's buffers; a file's fault is not a status.
 * A file without any picture is a fault here where frames are wanted; one without sound is for
 * the policy to decide. */
static xkd_status decode(xkd_fetcher *f, int fd, int64_t size, xkd_clip_mode mode, double place,
                         xkd_media_result *result)
{
    const xkd_data_config *d = f->data;
    xkd_media_request request = {.mode = mode,
                                 .start = place,
                                 .duration = d->clip_duration,
                                 .fps = d->video_fps,
                                 .short_side = f->short_side,
                                 .audio_rate = d->audio_rate,
                                 .video = f->wanted[XKD_VIDEO],
                                 .audio = f->wanted[XKD_AUDIO],
                                 .stream_colour = d->stream_colour};
    xkd_media_sink sink = {.user = f, .begin = on_begin, .frame = on_frame, .sound = on_sound};
    /* Nothing of the clip before may be left if the worker fails at once. */
    f->frames = f->samples = 0;
    xkd_status status = xkd_worker_decode(f->worker, fd, size, &request, &sink, result);
    /* Where sound alone is wanted, a file without pictures is no fault. */
    if (status != XKD_OK || result->fault != XKD_FAULT_NONE || !f->wanted[XKD_VIDEO]) return status;
    if (!result->info.has_video) {
        result->fault = XKD_FAULT_NO_VIDEO;
        snprintf(result->message, sizeof result->message, "no video stream");
    } else if (f->frames == 0) {
        result->fault = XKD_FAULT_BROKEN;
        snprintf(result->message, sizeof result->message, "no frame could be decoded");
    }
    return XKD_OK;
}

/* Hands the decoded file over to the cache.
 * Copies are cut to size, as the fetcher's buffers have room for the largest file seen. */
static xkd_status store(xkd_fetcher *f, int64_t i, const char *hash)
{
    xkd_status status = XKD_OK;
    xkd_cached *fresh = NULL;
    xkd_context *cx = f->cx;
    XKD_TRY(xkd_alloc(cx, &fresh, 1, sizeof *fresh));
    *fresh = (xkd_cached){
        .frames = f->frames, .height = f->height, .width = f->width, .samples = f->samples, .has_audio = f->has_audio};
    int64_t bytes = 3 * f->frames * f->height * f->width;
    XKD_TRY(xkd_alloc(cx, &fresh->rgb, bytes, 1));
    XKD_TRY(xkd_alloc(cx, &fresh->sound, f->samples, sizeof *fresh->sound));
    memcpy(fresh->rgb, f->rgb, (size_t)bytes);
    if (f->samples) memcpy(fresh->sound, f->sound, (size_t)f->samples * sizeof *f->sound);
    /* xkd_cache_put takes it over in every case, so it must not be freed here as well. */
    xkd_cached *given = fresh;
    fresh = NULL;
    XKD_TRY(xkd_cache_put(f->cache, cx, i, hash, given, &f->held));
fail:
    xkd_cached_free(fresh);
    return status;
}

/* The clip at the fraction `place` of the starts on the grid that leave room for a whole clip.
 * The same draw as for files, but on the frame grid: `place` in [0, 1) picks one of room + 1 starts,
 * and sound is cut at the nearest sample. */
static void cut_clip(const xkd_data_config *d, const xkd_cached *e, double place, xkd_clip *clip)
{
    int64_t frames = llround(d->clip_duration * d->video_fps),
            samples = llround(d->clip_duration * (double)d->audio_rate);
    int64_t room = e->frames - frames;
    if (e->has_audio) {
        /* Where sound ends earlier than the picture it bounds the starts too. */
        int64_t other = (int64_t)floor((double)(e->samples - samples) * d->video_fps / (double)d->audio_rate);
        if (other < room) room = other;
    }
    int64_t start = room > 0 ? (int64_t)(place * (double)(room + 1)) : 0;
    int64_t first = llround((double)start * (double)d->audio_rate / d->video_fps);
    clip->height = e->height;
    clip->width = e->width;
    clip->frames = e->rgb + 3 * start * e->height * e->width;
    clip->count = e->frames - start < frames ? e->frames - start : frames;
    clip->sound = e->sound + (first < e->samples ? first : e->samples);
    clip->samples = e->samples - first < samples ? e->samples - first : samples;
    if (clip->samples < 0) clip->samples = 0;
}

/* Without a hash in the manifest the file is read for it, which is still far cheaper than decoding. */
static xkd_status fetch_cached(xkd_fetcher *f, int64_t i, int fd, int64_t size, double place, xkd_clip *clip,
                               xkd_media_result *result)
{
    xkd_status status = XKD_OK;
    char hash[33];
    memcpy(hash, f->manifest->samples[i].hash, sizeof hash);
    /* In memory entries go by the sample's number; in a folder by content. */
    if (!hash[0] && f->data->cache == XKD_CACHE_FOLDER) XKD_TRY(xkd_hash_file(f->cx, fd, size, hash));
    XKD_TRY(xkd_cache_get(f->cache, f->cx, i, hash, &f->held));
    if (!f->held) {
        XKD_TRY(decode(f, fd, size, XKD_CLIP_WHOLE, 0, result));
        if (result->fault != XKD_FAULT_NONE) goto fail;
        XKD_TRY(store(f, i, hash));
    }
    f->has_audio = f->held->has_audio != 0;
    cut_clip(f->data, f->held, place, clip);
fail:
    return status;
}

/* The clip points into the fetcher or into a cache entry and is valid until the next call. A fault of
 * the file is in `result`, with an empty clip and status OK. */
xkd_status xkd_fetch_clip(xkd_fetcher *f, int64_t i, double place, xkd_clip *clip, bool *silent,
                          xkd_media_result *result)
{
    xkd_status status = XKD_OK;
    int fd = -1;
    int64_t size = 0;
    /* The clip before may point into the entry that is given back here. */
    let_go(f);
    *clip = (xkd_clip){0};
    *silent = false;
    *result = (xkd_media_result){0};
    status = xkd_manifest_open(f->cx, f->manifest, &f->manifest->samples[i], f->data->follow_links, &fd, &size,
                               &result->fault);
    /* A file's fault, not ours: the message moves to the result, and the context stays clean for the next file. */
    if (status != XKD_OK && result->fault != XKD_FAULT_NONE) {
        snprintf(result->message, sizeof result->message, "%.500s", xkd_last_error(f->cx));
        xkd_clear_error(f->cx);
        return XKD_OK;
    }
    XKD_TRY(status);
    if (f->cache) {
        XKD_TRY(fetch_cached(f, i, fd, size, place, clip, result));
    } else {
        XKD_TRY(decode(f, fd, size, XKD_CLIP_PLACE, place, result));
        *clip = (xkd_clip){.frames = f->rgb,
                           .count = f->frames,
                           .height = f->height,
                           .width = f->width,
                           .sound = f->sound,
                           .samples = f->samples};
    }
    *silent = !f->has_audio;
    /* No half clip may reach the views. */
    if (result->fault != XKD_FAULT_NONE) *clip = (xkd_clip){0};
fail:
    if (fd >= 0) close(fd);
    return status;
}
