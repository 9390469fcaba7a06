/* Decoded clips kept for later epochs, in memory or as files. A file is named by a hash of the
 * video's content and of every setting that shapes the pixels, so a changed setting or video finds no
 * entry instead of a wrong one. */
#include "data/cache.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/machine.h"
#include "media/media.h"

static const char MAGIC[8] = "XKDCLIP2";

/* Start of a cache file; pixels and samples follow.
 * Native byte order: a cache is for one machine, and a file from another has the wrong magic or key. */
typedef struct {
    char magic[8];
    XXH128_hash_t key;
    int64_t frames, height, width, samples, has_audio;
    double seconds;        /* of the common part, which starts are drawn from */
    XXH64_hash_t checksum; /* of everything after the header */
} header;

/* Files are written side by side; only those of one key wait for each other. */
enum { WRITE_LOCKS = 64 };

/* What is known of a sample's contents in a folder cache: hashed once in a run. */
typedef struct {
    char hash[33];
    int64_t size; /* of the file that was hashed */
} known_hash;

struct xkd_cache {
    const xkd_data_config *data; /* settings, the caller's */
    pthread_mutex_t lock;        /* guards all below but the write locks */
    xkd_cached **entries;        /* [count], memory only; NULL: not yet there */
    known_hash *hashes;          /* [count], folder only */
    uint8_t *passed;             /* [count] 1: this file is decoded clip by clip */
    int64_t count;
    int64_t limit, held; /* bytes */
    bool read_only;      /* an entry could not be written: no more are tried */
    pthread_mutex_t write[WRITE_LOCKS];
};

/* A mapped entry owns its mapping, one in memory its two arrays. */
void xkd_cached_free(xkd_cached *entry)
{
    if (!entry) return;
    if (entry->map.base) {
        xkd_unmap(&entry->map);
    } else {
        xkd_free(entry->rgb);
        xkd_free(entry->sound);
    }
    xkd_free(entry);
}

/* Half of what is free, of the machine or of the control group that the program runs in: the rest is for the model, the
 * batches and the system. 4 GB where that is not known. */
int64_t xkd_cache_bound_at(const char *root)
{
    size_t free = xkd_available_memory_at(root);
    return free == SIZE_MAX ? (int64_t)4 << 30 : (int64_t)(free / 2);
}

int64_t xkd_cache_bound(const xkd_data_config *data)
{
    return data->cache_memory > 0 ? (int64_t)(data->cache_memory * 1e9) : xkd_cache_bound_at("");
}

/* Memory mode keeps one entry a sample for the life of the cache, up to data.cache_memory of them. */
xkd_status xkd_cache_new(xkd_context *cx, const xkd_data_config *data, int64_t count, xkd_cache **out)
{
    xkd_status status = XKD_OK;
    xkd_cache *cache = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &cache, 1, sizeof *cache));
    cache->data = data;
    cache->count = count;
    cache->limit = xkd_cache_bound(data);
    pthread_mutex_init(&cache->lock, NULL);
    for (int i = 0; i < WRITE_LOCKS; i++) pthread_mutex_init(&cache->write[i], NULL);
    XKD_TRY(xkd_alloc(cx, &cache->entries, count, sizeof *cache->entries));
    XKD_TRY(xkd_alloc(cx, &cache->passed, count, 1));
    if (data->cache == XKD_CACHE_FOLDER) XKD_TRY(xkd_alloc(cx, &cache->hashes, count, sizeof *cache->hashes));
    if (data->cache == XKD_CACHE_FOLDER) XKD_TRY(xkd_make_folder(cx, data->cache_folder));
    *out = cache;
    cache = NULL;
fail:
    xkd_cache_free(cache);
    return status;
}

/* Entries in memory are freed here; those of files are the callers' until released. */
void xkd_cache_free(xkd_cache *cache)
{
    if (!cache) return;
    for (int64_t i = 0; cache->entries && i < cache->count; i++) xkd_cached_free(cache->entries[i]);
    xkd_free(cache->entries);
    xkd_free(cache->hashes);
    xkd_free(cache->passed);
    for (int i = 0; i < WRITE_LOCKS; i++) pthread_mutex_destroy(&cache->write[i]);
    pthread_mutex_destroy(&cache->lock);
    xkd_free(cache);
}

/* Everything that decides what a decoded file looks like. */
static XXH128_hash_t key_of(const xkd_data_config *d, const char *hash)
{
    char text[416], decoders[64];
    xkd_media_decoders(decoders);
    int n = snprintf(text, sizeof text,
                     "%s fps=%.17g side=%" PRId64 " rate=%" PRId64 " stream_colour=%d hold=%d track=%" PRId64
                     " streams=%d%d decoders=%s",
                     hash, d->video_fps, d->crop_size, d->audio_rate, d->stream_colour, d->hold_last_frame,
                     d->audio_track, !d->left_out[XKD_VIDEO], !d->left_out[XKD_AUDIO], decoders);
    return XXH3_128bits(text, (size_t)n);
}

/* The caller frees *path. */
static xkd_status file_of(xkd_cache *cache, xkd_context *cx, const char *hash, char **path)
{
    XXH128_hash_t key = key_of(cache->data, hash);
    return xkd_format_string(cx, path, "%s/%016" PRIx64 "%016" PRIx64 ".xkdclip", cache->data->cache_folder,
                             (uint64_t)key.high64, (uint64_t)key.low64);
}

/* True where the mapped file is what its header says.
 * Sizes are bounded before they are multiplied, so that a damaged header cannot overflow. */
static bool valid(const xkd_cache *cache, const char *hash, const xkd_map *map, header *h)
{
    XXH128_hash_t key = key_of(cache->data, hash);
    if (map->size < (int64_t)sizeof *h) return false;
    memcpy(h, map->base, sizeof *h);
    if (memcmp(h->magic, MAGIC, sizeof MAGIC) || !XXH128_isEqual(h->key, key)) return false;
    if (h->frames < 0 || h->height < 0 || h->width < 0 || h->samples < 0 || h->height > 1 << 20 || h->width > 1 << 20 ||
        !(h->seconds >= 0 && h->seconds <= XKD_MEDIA_MAX_SECONDS))
        return false;
    /* Divided instead of multiplied: frame counts of a damaged header may be anything. Without pictures all are 0. */
    int64_t frame = 3 * h->height * h->width, body = map->size - (int64_t)sizeof *h;
    if (frame == 0 && h->frames != 0) return false;
    if ((frame && h->frames > body / frame) || h->samples > body / 2 || h->frames * frame + 2 * h->samples != body)
        return false;
    return XXH3_64bits(map->base + sizeof *h, (size_t)body) == h->checksum;
}

/* A missing or damaged entry is no error: *entry stays NULL and the clip is decoded again. */
static xkd_status read_entry(xkd_cache *cache, xkd_context *cx, const char *hash, const xkd_cached **entry)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    xkd_map map = {0};
    header h;
    xkd_cached *found = NULL;
    XKD_TRY(file_of(cache, cx, hash, &path));
    if (!xkd_path_exists(path)) goto fail;
    if (xkd_map_file(cx, path, &map) != XKD_OK) {
        xkd_clear_error(cx); /* a bad disk costs decoding, not the run */
        goto fail;
    }
    if (!valid(cache, hash, &map, &h)) goto fail; /* it will be decoded again and replaced */
    XKD_TRY(xkd_alloc(cx, &found, 1, sizeof *found));
    uint8_t *body = (uint8_t *)(uintptr_t)map.base + sizeof h;
    *found = (xkd_cached){.frames = h.frames,
                          .height = h.height,
                          .width = h.width,
                          .samples = h.samples,
                          .has_audio = h.has_audio,
                          .seconds = h.seconds,
                          .map = map,
                          .sound = (int16_t *)(void *)body,
                          .rgb = body + 2 * h.samples}; /* sound first: it needs the alignment */
    map = (xkd_map){0};
    *entry = found;
fail:
    xkd_unmap(&map);
    xkd_free(path);
    return status;
}

/* In memory mode several threads may get the same entry: entries are never changed once they are there. */
xkd_status xkd_cache_get(xkd_cache *cache, xkd_context *cx, int64_t i, const char *hash, const xkd_cached **entry)
{
    *entry = NULL;
    if (cache->data->cache == XKD_CACHE_FOLDER) return read_entry(cache, cx, hash, entry);
    pthread_mutex_lock(&cache->lock);
    *entry = cache->entries[i];
    pthread_mutex_unlock(&cache->lock);
    return XKD_OK;
}

/* Header, sound, pixels; published in one step, so a reader sees all of it or nothing. */
static xkd_status write_entry(xkd_cache *cache, xkd_context *cx, const char *hash, const xkd_cached *e)
{
    xkd_status status = XKD_OK;
    xkd_writer *writer = NULL;
    char *path = NULL;
    header h = {.key = key_of(cache->data, hash),
                .frames = e->frames,
                .height = e->height,
                .width = e->width,
                .samples = e->samples,
                .has_audio = e->has_audio,
                .seconds = e->seconds};
    int64_t pixels = 3 * e->frames * e->height * e->width;
    /* Streaming, so that sound and pixels need not be joined in memory first. */
    XXH3_state_t *state = XXH3_createState();
    if (!state) XKD_FAIL(XKD_ERR_MEMORY, "out of memory while writing the clip cache");
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, e->sound, (size_t)(2 * e->samples));
    XXH3_64bits_update(state, e->rgb, (size_t)pixels);
    h.checksum = XXH3_64bits_digest(state);
    XKD_TRY(file_of(cache, cx, hash, &path));
    XKD_TRY(xkd_writer_open(cx, path, &writer));
    XKD_TRY(xkd_writer_write(writer, &h, sizeof h));
    XKD_TRY(xkd_writer_write(writer, e->sound, 2 * e->samples));
    XKD_TRY(xkd_writer_write(writer, e->rgb, pixels));
    /* Commit frees the writer also when it fails; aborting it again would free it twice. */
    xkd_writer *published = writer;
    writer = NULL;
    XKD_TRY(xkd_writer_commit(published));
fail:
    XXH3_freeState(state);
    xkd_writer_abort(writer);
    xkd_free(path);
    return status;
}

static int64_t bytes_of(const xkd_cached *e)
{
    return 3 * e->frames * e->height * e->width + 2 * e->samples;
}

/* A full or broken disk is told once; what was decoded is used all the same. */
static void put_in_folder(xkd_cache *cache, xkd_context *cx, const char *hash, const xkd_cached *fresh)
{
    XXH128_hash_t key = key_of(cache->data, hash);
    pthread_mutex_lock(&cache->lock);
    bool read_only = cache->read_only;
    pthread_mutex_unlock(&cache->lock);
    if (read_only) return;
    /* Two threads with equal contents would share a temporary name. */
    pthread_mutex_t *lock = &cache->write[key.low64 % WRITE_LOCKS];
    pthread_mutex_lock(lock);
    xkd_status status = write_entry(cache, cx, hash, fresh);
    pthread_mutex_unlock(lock);
    if (status == XKD_OK) return;
    pthread_mutex_lock(&cache->lock);
    bool first = !cache->read_only;
    cache->read_only = true;
    pthread_mutex_unlock(&cache->lock);
    if (first)
        xkd_log(cx, XKD_LOG_WARN, "%s (the cache takes no more files; the run goes on and decodes them)",
                xkd_last_error(cx));
    xkd_clear_error(cx);
}

/* Takes over `fresh` in every case. Where memory is full *entry is NULL. */
xkd_status xkd_cache_put(xkd_cache *cache, xkd_context *cx, int64_t i, const char *hash, xkd_cached *fresh,
                         const xkd_cached **entry)
{
    *entry = NULL;
    if (cache->data->cache == XKD_CACHE_FOLDER) {
        put_in_folder(cache, cx, hash, fresh);
        *entry = fresh; /* released like one that was read */
        return XKD_OK;
    }
    pthread_mutex_lock(&cache->lock);
    if (!cache->entries[i] && bytes_of(fresh) <= cache->limit - cache->held) {
        cache->entries[i] = fresh;
        cache->held += bytes_of(fresh);
        fresh = NULL;
    }
    *entry = cache->entries[i];
    pthread_mutex_unlock(&cache->lock);
    xkd_cached_free(fresh); /* another thread was faster, or there is no room */
    return XKD_OK;
}

int64_t xkd_cache_room(xkd_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    int64_t room = cache->limit - cache->held;
    pthread_mutex_unlock(&cache->lock);
    return room;
}

bool xkd_cache_passes(xkd_cache *cache, int64_t i)
{
    pthread_mutex_lock(&cache->lock);
    bool passed = cache->passed[i];
    pthread_mutex_unlock(&cache->lock);
    return passed;
}

void xkd_cache_pass(xkd_cache *cache, int64_t i)
{
    pthread_mutex_lock(&cache->lock);
    cache->passed[i] = 1;
    pthread_mutex_unlock(&cache->lock);
}

bool xkd_cache_hash(xkd_cache *cache, int64_t i, int64_t size, char hash[33])
{
    pthread_mutex_lock(&cache->lock);
    bool known = cache->hashes[i].hash[0] && cache->hashes[i].size == size;
    if (known) memcpy(hash, cache->hashes[i].hash, sizeof cache->hashes[i].hash);
    pthread_mutex_unlock(&cache->lock);
    return known;
}

void xkd_cache_set_hash(xkd_cache *cache, int64_t i, int64_t size, const char hash[33])
{
    pthread_mutex_lock(&cache->lock);
    memcpy(cache->hashes[i].hash, hash, sizeof cache->hashes[i].hash);
    cache->hashes[i].size = size;
    pthread_mutex_unlock(&cache->lock);
}

/* In memory mode entries live on with the cache. */
void xkd_cache_release(xkd_cache *cache, const xkd_cached *entry)
{
    if (cache->data->cache == XKD_CACHE_FOLDER) xkd_cached_free((xkd_cached *)(uintptr_t)entry);
}
