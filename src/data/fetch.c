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
#include "data/identity.h"
#include "data/pack.h"
#include "media/damage.h"

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
    double seconds;      /* of the file's common part */
    xkd_media_info info; /* of the file, as the decoder told it */
    xkd_record_reader *records;
    int64_t limit; /* bytes that a whole file may take; a clip is bounded by its request */
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
    xkd_record_reader_free(f->records);
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
    f->info = *info;
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
    xkd_damage_words(r->message, sizeof r->message, "the clip's", video ? XKD_VIDEO : XKD_AUDIO,
                     video ? t->video_damage : t->audio_damage, f->data->max_clip_damage);
}

static xkd_media_request request_of(const xkd_fetcher *f, xkd_clip_mode mode, double place)
{
    const xkd_data_config *d = f->data;
    return (xkd_media_request){.mode = mode,
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
                               .view_side = d->crop_size,
                               .audio_track = d->audio_track};
}

xkd_status xkd_fetcher_check(const xkd_fetcher *f)
{
    const xkd_media_request q = request_of(f, XKD_CLIP_PLACE, 0);
    return f->manifest->pack ? xkd_pack_fits(f->cx, f->manifest->pack, &q) : XKD_OK;
}

/* Nothing of the clip before may be left if a worker fails at once. */
static void begin_clip(xkd_fetcher *f, bool whole)
{
    f->frames = f->samples = 0;
    f->has_audio = f->too_long = false;
    f->whole = whole;
    f->limit = whole ? xkd_cache_room(f->cache) : INT64_MAX;
}

/* What a clip without frames is, where some are wanted. Where sound alone is wanted, a file without pictures is no
 * fault. */
static void judge_frames(const xkd_fetcher *f, xkd_media_result *result)
{
    if (result->fault != XKD_FAULT_NONE || !f->wanted[XKD_VIDEO]) return;
    if (!result->info.has_video) {
        result->fault = XKD_FAULT_NO_VIDEO;
        snprintf(result->message, sizeof result->message, "no video stream");
    } else if (f->frames == 0) {
        result->fault = XKD_FAULT_BROKEN;
        snprintf(result->message, sizeof result->message, "no frame could be decoded");
    }
}

/* Decodes into the fetcher's buffers; a file's fault is not a status.
 * A file without any picture is a fault here where frames are wanted; one without sound is for
 * the policy to decide. */
static xkd_status decode(xkd_fetcher *f, int64_t i, const xkd_source *source, xkd_clip_mode mode, double place,
                         xkd_media_result *result)
{
    xkd_media_request request = request_of(f, mode, place);
    xkd_media_sink sink = {.user = f, .begin = on_begin, .frame = on_frame, .sound = on_sound};
    if (!source->record) request.span = span_of(f, i, source->fd);
    begin_clip(f, mode == XKD_CLIP_WHOLE);
    xkd_status status = xkd_worker_decode(f->worker, source, &request, &sink, result);
    if (status != XKD_OK || result->fault != XKD_FAULT_NONE) return status;
    if (!source->record) keep_span(f, i, source->fd, &result->span);
    if (!f->whole) judge_clip(f, result);
    judge_frames(f, result);
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
                          .seconds = f->seconds,
                          .info = f->info};
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

static void give_clip(const xkd_fetcher *f, xkd_clip *clip)
{
    *clip = (xkd_clip){.frames = f->rgb,
                       .count = f->frames,
                       .height = f->height,
                       .width = f->width,
                       .sound = f->sound,
                       .samples = f->samples};
}

/* Straight from the file. */
static xkd_status fetch_clip(xkd_fetcher *f, int64_t i, const xkd_source *source, double place, xkd_clip *clip,
                             xkd_media_result *result)
{
    xkd_status status = XKD_OK;
    XKD_TRY(decode(f, i, source, XKD_CLIP_PLACE, place, result));
    give_clip(f, clip);
fail:
    return status;
}

/* Without a hash in the manifest the file is read for it once, which is far cheaper than decoding. A file that cannot be
 * read is at fault itself. */
static xkd_status find_hash(xkd_fetcher *f, int64_t i, const xkd_source *file, char hash[33], xkd_media_result *result)
{
    int fd = file->fd;
    int64_t size = file->size;
    /* A hash of another file, which had this name, counts no more; one of a part of the file is none of what is cached. */
    hash[0] = 0;
    const xkd_sample *s = &f->manifest->samples[i];
    if (s->hashed == XKD_HASH_FULL && (xkd_sample_is(s, fd) || s->bytes < 0)) xkd_sample_hash(s, hash);
    /* In memory entries go by the sample's number; in a folder by content. */
    if (hash[0] || f->data->cache != XKD_CACHE_FOLDER || xkd_cache_hash(f->cache, i, size, hash)) return XKD_OK;
    xkd_status status = xkd_hash_file(f->cx, file, XKD_HASH_FULL, hash);
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
static xkd_status fill_cache(xkd_fetcher *f, int64_t i, const xkd_source *file, const char *hash,
                             xkd_media_result *result)
{
    xkd_status status = decode(f, i, file, XKD_CLIP_WHOLE, 0, result);
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

/* Room for the clip in the fetcher's buffers. */
static xkd_status make_room(xkd_fetcher *f, int64_t rgb_bytes, int64_t samples)
{
    xkd_status status = XKD_OK;
    if (rgb_bytes > f->rgb_bytes) {
        XKD_TRY(xkd_resize(f->cx, &f->rgb, 0, rgb_bytes, 1));
        f->rgb_bytes = rgb_bytes;
    }
    if (samples > f->sound_capacity) {
        XKD_TRY(xkd_resize(f->cx, &f->sound, 0, samples, sizeof *f->sound));
        f->sound_capacity = samples;
    }
fail:
    return status;
}

/* Frames of the views' size go from the file to where they are wanted in one step. */
static xkd_status read_straight(xkd_fetcher *f, const xkd_record_clip *c, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    const xkd_record_head *h = xkd_record_about(f->records);
    XKD_TRY(make_room(f, c->count * 3 * h->width * h->height, c->samples));
    XKD_TRY(xkd_record_frames(f->records, c->first, c->step, c->count, f->rgb, fault));
    XKD_TRY(xkd_record_sound(f->records, c->first_sample, c->samples, f->sound, fault));
    f->frames = c->count;
    f->width = h->width;
    f->height = h->height;
    f->samples = c->samples;
fail:
    return status;
}

/* A raw record: nothing of it is decoded, so no worker is needed. */
static xkd_status read_raw(xkd_fetcher *f, const xkd_source *source, double place, xkd_media_result *result)
{
    xkd_status status = XKD_OK;
    const xkd_media_request q = request_of(f, XKD_CLIP_PLACE, place);
    const xkd_media_sink sink = {.user = f, .begin = on_begin, .frame = on_frame, .sound = on_sound};
    xkd_record_clip clip;
    begin_clip(f, false);
    if (!f->records) XKD_TRY(xkd_record_reader_new(f->cx, &f->records));
    XKD_TRY(xkd_record_open(f->records, source, &result->fault));
    const xkd_record_head *h = xkd_record_about(f->records);
    XKD_TRY(xkd_record_clip_of(f->cx, h, &q, &clip, &result->fault));
    int64_t shorter = h->width < h->height ? h->width : h->height;
    if (q.short_side == 0 || q.short_side == shorter) {
        xkd_record_describe(h, q.video, q.audio, &result->info);
        XKD_TRY(xkd_record_judge(f->records, &q, &clip, &result->tally, &result->fault));
        XKD_TRY(read_straight(f, &clip, &result->fault));
    } else {
        XKD_TRY(xkd_record_decode(f->records, &q, &sink, &result->info, &result->tally, &result->fault));
    }
    f->has_audio = result->info.has_audio;
    judge_clip(f, result);
    judge_frames(f, result);
fail:
    /* The record's fault and no trouble of ours. */
    if (status == XKD_ERR_DATA && result->fault != XKD_FAULT_NONE) {
        snprintf(result->message, sizeof result->message, "%.500s", xkd_last_error(f->cx));
        xkd_clear_error(f->cx);
        status = XKD_OK;
    }
    return status;
}

/* JPEG of strangers is for the worker. */
static xkd_status fetch_packed(xkd_fetcher *f, int64_t i, const xkd_source *source, double place, xkd_clip *clip,
                               xkd_media_result *result)
{
    xkd_status status = XKD_OK;
    const xkd_manifest *m = f->manifest;
    const xkd_media_request q = request_of(f, XKD_CLIP_PLACE, place);
    XKD_TRY(xkd_pack_fits(f->cx, m->pack, &q));
    if (xkd_pack_about(m->pack)->record.codec == XKD_CODEC_RAW)
        XKD_TRY(read_raw(f, source, place, result));
    else
        XKD_TRY(decode(f, i, source, XKD_CLIP_PLACE, place, result));
    give_clip(f, clip);
    if (result->fault != XKD_FAULT_NONE) xkd_manifest_blame(m, &m->samples[i], result->message, sizeof result->message);
fail:
    return status;
}

/* A clip of the entry that is held; *good is false where its file is damaged, and then it is held no more. */
static xkd_status cut_held(xkd_fetcher *f, double place, xkd_clip *clip, xkd_media_result *result, bool *good)
{
    xkd_status status = XKD_OK;
    *good = true;
    if (f->held->rgb) {
        f->has_audio = f->held->has_audio != 0;
        cut_clip(f->data, f->held, place, clip);
        return XKD_OK;
    }
    XKD_TRY(read_raw(f, &f->held->source, place, result));
    *good = result->fault == XKD_FAULT_NONE;
    if (*good) give_clip(f, clip);
    if (*good) goto fail;
    *result = (xkd_media_result){0};
    let_go(f);
fail:
    return status;
}

static xkd_status fetch_cached(xkd_fetcher *f, int64_t i, const xkd_source *file, double place, xkd_clip *clip,
                               xkd_media_result *result)
{
    xkd_status status = XKD_OK;
    char hash[33];
    bool good = false;
    if (xkd_cache_passes(f->cache, i)) return fetch_clip(f, i, file, place, clip, result);
    XKD_TRY(find_hash(f, i, file, hash, result));
    if (result->fault != XKD_FAULT_NONE) goto fail;
    XKD_TRY(xkd_cache_get(f->cache, f->cx, i, hash, &f->held));
    if (f->held) XKD_TRY(cut_held(f, place, clip, result, &good));
    if (good) goto fail;
    XKD_TRY(fill_cache(f, i, file, hash, result));
    if (result->fault != XKD_FAULT_NONE) goto fail;
    if (!f->held) return fetch_clip(f, i, file, place, clip, result);
    XKD_TRY(cut_held(f, place, clip, result, &good));
fail:
    return status;
}

/* The clip points into the fetcher or into a cache entry and is valid until the next call. A fault of
 * the file is in `result`, with an empty clip and status OK. */
xkd_status xkd_fetch_clip(xkd_fetcher *f, int64_t i, double place, xkd_clip *clip, bool *silent,
                          xkd_media_result *result)
{
    xkd_status status = XKD_OK;
    xkd_source source;
    /* The clip before may point into the entry that is given back here. */
    let_go(f);
    *clip = (xkd_clip){0};
    *silent = false;
    *result = (xkd_media_result){0};
    status =
        xkd_manifest_open(f->cx, f->manifest, &f->manifest->samples[i], f->data->follow_links, &source, &result->fault);
    /* A file's fault, not ours: the message moves to the result, and the context stays clean for the next file. */
    if (status != XKD_OK && result->fault != XKD_FAULT_NONE) {
        snprintf(result->message, sizeof result->message, "%.500s", xkd_last_error(f->cx));
        xkd_clear_error(f->cx);
        return XKD_OK;
    }
    XKD_TRY(status);
    if (source.record) {
        XKD_TRY(fetch_packed(f, i, &source, place, clip, result));
    } else if (f->cache) {
        XKD_TRY(fetch_cached(f, i, &source, place, clip, result));
    } else {
        XKD_TRY(fetch_clip(f, i, &source, place, clip, result));
    }
    /* A stream that has nothing here is silence as much as none at all. */
    *silent = result->fault == XKD_FAULT_NONE && (!f->has_audio || clip->samples == 0);
    /* No half clip may reach the views. */
    if (result->fault != XKD_FAULT_NONE) *clip = (xkd_clip){0};
fail:
    if (source.fd >= 0) close(source.fd);
    return status;
}

void xkd_fetch_ahead(const xkd_fetcher *f, int64_t i, double place)
{
    const xkd_sample *s = &f->manifest->samples[i];
    if (s->record) xkd_pack_ahead(f->manifest->pack, s->record - 1, place);
}
