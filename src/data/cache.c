/* Decoded clips kept for later epochs, in memory or as files. A file is named by a hash of the
 * video's content and of every setting that shapes the pixels, so a changed setting or video finds no
 * entry instead of a wrong one. */
#include "data/cache.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"

static const char MAGIC[8] = "XKDCLIP1";

/* Start of a cache file; pixels and samples follow.
 * Native byte order: a cache is for one machine, and a file from another has the wrong magic or key. */
typedef struct {
    char magic[8];
    XXH128_hash_t key;
    int64_t frames, height, width, samples, has_audio;
    XXH64_hash_t checksum; /* of everything after the header */
} header;

struct xkd_cache {
    const xkd_data_config *data; /* settings, the caller's */
    pthread_mutex_t lock;        /* guards `entries` */
    xkd_cached **entries;        /* [count], memory only; NULL: not yet there */
    int64_t count;
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

/* Memory mode keeps one entry a sample for the life of the cache; the caller decides whether that
 * fits. */
xkd_status xkd_cache_new(xkd_context *cx, const xkd_data_config *data, int64_t count, xkd_cache **out)
{
    xkd_status status = XKD_OK;
    xkd_cache *cache = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &cache, 1, sizeof *cache));
    cache->data = data;
    cache->count = count;
    pthread_mutex_init(&cache->lock, NULL);
    XKD_TRY(xkd_alloc(cx, &cache->entries, count, sizeof *cache->entries));
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
    pthread_mutex_destroy(&cache->lock);
    xkd_free(cache);
}

/* Everything that decides what a decoded file looks like. */
static XXH128_hash_t key_of(const xkd_data_config *d, const char *hash)
{
    char text[256];
    int n = snprintf(text, sizeof text, "%s fps=%.17g side=%" PRId64 " rate=%" PRId64 " stream_colour=%d", hash,
                     d->video_fps, d->crop_size, d->audio_rate, d->stream_colour);
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
    if (h->frames < 1 || h->height < 1 || h->width < 1 || h->samples < 0 || h->height > 1 << 20 || h->width > 1 << 20)
        return false;
    /* Divided instead of multiplied: frame counts of a damaged header may be anything. */
    int64_t frame = 3 * h->height * h->width, body = map->size - (int64_t)sizeof *h;
    if (h->frames > body / frame || h->samples > body / 2 || h->frames * frame + 2 * h->samples != body) return false;
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
    XKD_TRY(xkd_map_file(cx, path, &map));
    if (!valid(cache, hash, &map, &h)) goto fail; /* it will be decoded again and replaced */
    XKD_TRY(xkd_alloc(cx, &found, 1, sizeof *found));
    uint8_t *body = (uint8_t *)(uintptr_t)map.base + sizeof h;
    *found = (xkd_cached){.frames = h.frames,
                          .height = h.height,
                          .width = h.width,
                          .samples = h.samples,
                          .has_audio = h.has_audio,
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
                .has_audio = e->has_audio};
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

/* Takes over `fresh` in every case. */
xkd_status xkd_cache_put(xkd_cache *cache, xkd_context *cx, int64_t i, const char *hash, xkd_cached *fresh,
                         const xkd_cached **entry)
{
    *entry = NULL;
    if (cache->data->cache == XKD_CACHE_FOLDER) {
        xkd_status status = XKD_OK;
        /* Two threads with equal contents would share a temporary name. */
        pthread_mutex_lock(&cache->lock);
        status = write_entry(cache, cx, hash, fresh);
        pthread_mutex_unlock(&cache->lock);
        if (status == XKD_OK)
            *entry = fresh; /* released like one that was read */
        else
            xkd_cached_free(fresh);
        return status;
    }
    pthread_mutex_lock(&cache->lock);
    if (!cache->entries[i]) {
        cache->entries[i] = fresh;
        fresh = NULL;
    }
    *entry = cache->entries[i];
    pthread_mutex_unlock(&cache->lock);
    xkd_cached_free(fresh); /* another thread was faster */
    return XKD_OK;
}

/* In memory mode entries live on with the cache. */
void xkd_cache_release(xkd_cache *cache, const xkd_cached *entry)
{
    if (cache->data->cache == XKD_CACHE_FOLDER) xkd_cached_free((xkd_cached *)(uintptr_t)entry);
}
