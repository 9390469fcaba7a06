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

/* Files without an index in front are read through to find where their streams end. A fetcher remembers so many, which
 * is all of a set that nobody has run `data index` on. */
enum { SPANS = 4096 };

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
    double seconds; /* of the file's common part */
    int64_t limit;  /* bytes that a whole file may take; a clip is bounded by its request */
    bool whole, too_long;
    struct {
        int64_t sample, bytes, modified; /* sample + 1, 0: empty; of the file */
        xkd_media_span span;
    } found[SPANS]; /* spans that no manifest told, by sample modulo SPANS */
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
                       .wanted = {!data->left_out[XKD_VIDEO], !data->left_out[XKD_AUDIO]},
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

/* Ends the decoding of a file that has no room in the cache. Not an error: it is decoded clip by clip then. */
static xkd_status give_up(xkd_fetcher *f)
{
    f->too_long = true;
    return xkd_fail(f->cx, XKD_ERR_DATA, "longer than the cache has room for");
}

/* Buffers keep their capacity from clip to clip. */
static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    xkd_fetcher *f = user;
    (void)start;
    f->frames = f->samples = f->height = f->width = 0;
    f->has_audio = info->has_audio;
    f->seconds = fmax(info->end - info->start, 0);
    if (!f->whole) return XKD_OK;
    /* The side of a frame is known, the other only by the file's word; on_frame has the true one. */
    double small = (double)f->short_side, w = (double)info->width, h = (double)info->height;
    double pixels = info->has_video && w > 0 && h > 0 ? small * small * fmax(w / h, h / w) : 0;
    double bytes = f->seconds * (3 * pixels * f->data->video_fps + 2 * (double)f->data->audio_rate);
    return bytes > (double)f->limit ? give_up(f) : XKD_OK;
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
    if (f->whole && used + bytes > f->limit) return give_up(f);
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
    if (f->whole && 2 * (f->samples + count) > f->limit) return give_up(f);
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

/* By the manifest, or as it was found before. */
static xkd_media_span span_of(const xkd_fetcher *f, int64_t i, int fd)
{
    xkd_media_span span = xkd_sample_span(&f->manifest->samples[i], fd, f->data->audio_track);
    int64_t bytes, modified;
    if (span.known || f->found[i % SPANS].sample != i + 1) return span;
    xkd_file_stamp(fd, &bytes, &modified);
    if (f->found[i % SPANS].bytes == bytes && f->found[i % SPANS].modified == modified) span = f->found[i % SPANS].span;
    return span;
}

static void keep_span(xkd_fetcher *f, int64_t i, int fd, const xkd_media_span *span)
{
    f->found[i % SPANS].sample = i + 1;
    xkd_file_stamp(fd, &f->found[i % SPANS].bytes, &f->found[i % SPANS].modified);
    f->found[i % SPANS].span = *span;
}

/* A few damaged frames are no harm to a model; a clip that is mostly damage is one that says nothing. */
static void judge_clip(const xkd_fetcher *f, xkd_media_result *r)
{
    const xkd_media_tally *t = &r->tally;
    bool video = f->wanted[XKD_VIDEO] && t->video_damage > f->data->max_clip_damage;
    bool audio = f->wanted[XKD_AUDIO] && t->audio_damage > f->data->max_clip_damage;
    if (!video && !audio) return;
    r->fault = XKD_FAULT_BROKEN;
    snprintf(r->message, sizeof r->message, "%.0f %% of the clip's %s damaged or missing (data.max_clip_damage=%g)",
             100 * (video ? t->video_damage : t->audio_damage), video ? "pictures are" : "sound is",
             f->data->max_clip_damage);
}

/* Decodes into the fetcher's buffers; a file's fault is not a status.
 * A file without any picture is a fault here where frames are wanted; one without sound is for
 * the policy to decide. */
static xkd_status decode(xkd_fetcher *f, int64_t i, int fd, int64_t size, xkd_clip_mode mode, double place,
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
                                 .stream_colour = d->stream_colour,
                                 /* With a cache all clips start on its grid, also those of files that are not in it. */
                                 .on_grid = f->cache != NULL,
                                 .hold_last_frame = d->hold_last_frame,
                                 .audio_track = d->audio_track,
                                 .span = span_of(f, i, fd)};
    xkd_media_sink sink = {.user = f, .begin = on_begin, .frame = on_frame, .sound = on_sound};
    /* Nothing of the clip before may be left if the worker fails at once. */
    f->frames = f->samples = 0;
    f->has_audio = f->too_long = false;
    f->whole = mode == XKD_CLIP_WHOLE;
    f->limit = f->whole ? xkd_cache_room(f->cache) : INT64_MAX;
    xkd_status status = xkd_worker_decode(f->worker, fd, size, &request, &sink, result);
    if (status != XKD_OK || result->fault != XKD_FAULT_NONE) return status;
    keep_span(f, i, fd, &result->span);
    if (!f->whole) judge_clip(f, result);
    /* Where sound alone is wanted, a file without pictures is no fault. */
    if (result->fault != XKD_FAULT_NONE || !f->wanted[XKD_VIDEO]) return status;
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
    *fresh = (xkd_cached){.frames = f->frames,
                          .height = f->height,
                          .width = f->width,
                          .samples = f->samples,
                          .has_audio = f->has_audio,
                          .seconds = f->seconds};
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

/* The clip at the fraction `place` of the starts on the grid that leave room for a whole clip: the start that decoding
 * the clip alone with `on_grid` takes. Sound is cut at the nearest sample. */
static void cut_clip(const xkd_data_config *d, const xkd_cached *e, double place, xkd_clip *clip)
{
    int64_t frames = llround(d->clip_duration * d->video_fps),
            samples = llround(d->clip_duration * (double)d->audio_rate);
    int64_t start = xkd_media_grid_start(e->seconds, d->clip_duration, d->video_fps, place);
    int64_t first = llround((double)start * (double)d->audio_rate / d->video_fps);
    clip->height = e->height;
    clip->width = e->width;
    int64_t left = e->frames > start ? e->frames - start : 0;
    clip->frames = e->rgb + (left ? 3 * start * e->height * e->width : 0);
    clip->count = left < frames ? left : frames;
    clip->sound = e->sound + (first < e->samples ? first : e->samples);
    clip->samples = e->samples - first < samples ? e->samples - first : samples;
    if (clip->samples < 0) clip->samples = 0;
}

/* Straight from the file. */
static xkd_status fetch_clip(xkd_fetcher *f, int64_t i, int fd, int64_t size, double place, xkd_clip *clip,
                             xkd_media_result *result)
{
    xkd_status status = XKD_OK;
    XKD_TRY(decode(f, i, fd, size, XKD_CLIP_PLACE, place, result));
    *clip = (xkd_clip){.frames = f->rgb,
                       .count = f->frames,
                       .height = f->height,
                       .width = f->width,
                       .sound = f->sound,
                       .samples = f->samples};
fail:
    return status;
}

/* Without a hash in the manifest the file is read for it once, which is far cheaper than decoding. A file that cannot be
 * read is at fault itself. */
static xkd_status find_hash(xkd_fetcher *f, int64_t i, int fd, int64_t size, char hash[33], xkd_media_result *result)
{
    /* A hash of another file, which had this name, counts no more. */
    hash[0] = 0;
    if (xkd_sample_is(&f->manifest->samples[i], fd) || f->manifest->samples[i].bytes < 0)
        memcpy(hash, f->manifest->samples[i].hash, sizeof f->manifest->samples[i].hash);
    /* In memory entries go by the sample's number; in a folder by content. */
    if (hash[0] || f->data->cache != XKD_CACHE_FOLDER || xkd_cache_hash(f->cache, i, size, hash)) return XKD_OK;
    xkd_status status = xkd_hash_file(f->cx, fd, size, hash);
    if (status == XKD_OK) {
        xkd_cache_set_hash(f->cache, i, size, hash);
    } else if (status == XKD_ERR_STORAGE) {
        result->fault = XKD_FAULT_UNREADABLE;
        snprintf(result->message, sizeof result->message, "%.500s", xkd_last_error(f->cx));
        xkd_clear_error(f->cx);
        status = XKD_OK;
    }
    return status;
}

/* Decodes the whole file into an entry. f->held stays NULL where it has no place in the cache: too long, or damaged, so
 * that each clip must be judged by itself. */
static xkd_status fill_cache(xkd_fetcher *f, int64_t i, int fd, int64_t size, const char *hash,
                             xkd_media_result *result)
{
    xkd_status status = decode(f, i, fd, size, XKD_CLIP_WHOLE, 0, result);
    const xkd_media_tally *t = &result->tally;
    if (f->too_long) {
        xkd_clear_error(f->cx);
        status = XKD_OK;
    }
    XKD_TRY(status);
    bool damaged = t->errors || t->video_damage > 0 || t->audio_damage > 0;
    if (f->too_long || damaged || result->fault == XKD_FAULT_BROKEN) {
        xkd_cache_pass(f->cache, i);
        *result = (xkd_media_result){0};
    } else if (result->fault == XKD_FAULT_NONE) {
        XKD_TRY(store(f, i, hash));
        if (!f->held) xkd_cache_pass(f->cache, i); /* another thread took the room */
    }
fail:
    return status;
}

static xkd_status fetch_cached(xkd_fetcher *f, int64_t i, int fd, int64_t size, double place, xkd_clip *clip,
                               xkd_media_result *result)
{
    xkd_status status = XKD_OK;
    char hash[33];
    if (xkd_cache_passes(f->cache, i)) return fetch_clip(f, i, fd, size, place, clip, result);
    XKD_TRY(find_hash(f, i, fd, size, hash, result));
    if (result->fault != XKD_FAULT_NONE) goto fail;
    XKD_TRY(xkd_cache_get(f->cache, f->cx, i, hash, &f->held));
    if (!f->held) XKD_TRY(fill_cache(f, i, fd, size, hash, result));
    if (result->fault != XKD_FAULT_NONE) goto fail;
    if (!f->held) return fetch_clip(f, i, fd, size, place, clip, result);
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
        XKD_TRY(fetch_clip(f, i, fd, size, place, clip, result));
    }
    /* A stream that has nothing here is silence as much as none at all. */
    *silent = result->fault == XKD_FAULT_NONE && (!f->has_audio || clip->samples == 0);
    /* No half clip may reach the views. */
    if (result->fault != XKD_FAULT_NONE) *clip = (xkd_clip){0};
fail:
    if (fd >= 0) close(fd);
    return status;
}
