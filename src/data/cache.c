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
#include "data/shard.h"

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

/* One of a file owns its descriptor, one in memory its two arrays. */
void xkd_cached_free(xkd_cached *entry)
{
    if (!entry) return;
    if (entry->source.record) close(entry->source.fd);
    xkd_free(entry->rgb);
    xkd_free(entry->sound);
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
static void describe_key(const xkd_data_config *d, const char *hash, char text[416])
{
    char decoders[64];
    xkd_media_decoders(decoders);
    snprintf(text, 416,
             "%s fps=%.17g side=%" PRId64 " rate=%" PRId64 " stream_colour=%d hold=%d track=%" PRId64
             " streams=%d%d decoders=%s",
             hash, d->video_fps, d->crop_size, d->audio_rate, d->stream_colour, d->hold_last_frame, d->audio_track,
             !d->left_out[XKD_VIDEO], !d->left_out[XKD_AUDIO], decoders);
}

static XXH128_hash_t key_of(const xkd_data_config *d, const char *hash)
{
    char text[416];
    describe_key(d, hash, text);
    return XXH3_128bits(text, strlen(text));
}

/* What stands in front of an entry: the whole key, so that one of another key under the same name is seen. */
static xkd_status text_of(xkd_cache *cache, xkd_context *cx, const char *hash, char **text)
{
    char key[416];
    describe_key(cache->data, hash, key);
    return xkd_format_string(cx, text, "{\"xkd_cache\": 1, \"key\": \"%s\"}\n", key);
}

/* The caller frees *path. */
static xkd_status file_of(xkd_cache *cache, xkd_context *cx, const char *hash, char **path)
{
    XXH128_hash_t key = key_of(cache->data, hash);
    return xkd_format_string(cx, path, "%s/%016" PRIx64 "%016" PRIx64 ".xkdclip", cache->data->cache_folder,
                             (uint64_t)key.high64, (uint64_t)key.low64);
}

/* The record of an entry's file; XKD_ERR_DATA or _STORAGE where it is none, or damaged. */
static xkd_status read_record(xkd_cache *cache, xkd_context *cx, const char *hash, const char *path, int fd,
                              int64_t size, xkd_cached *out)
{
    xkd_status status = XKD_OK;
    xkd_record_reader *reader = NULL;
    char *text = NULL, *said = NULL;
    int64_t first, at;
    xkd_media_fault fault;
    XKD_TRY(text_of(cache, cx, hash, &text));
    XKD_TRY(xkd_records_open(cx, fd, size, path, &said, &first, &at));
    if (strcmp(text, said)) XKD_FAIL(XKD_ERR_DATA, "%s: is an entry of another key", path);
    xkd_source source = {.fd = fd, .offset = at, .size = size - at, .record = true};
    XKD_TRY(xkd_record_reader_new(cx, &reader));
    XKD_TRY(xkd_record_open(reader, &source, &fault));
    const xkd_record_head *h = xkd_record_about(reader);
    if (h->codec != XKD_CODEC_RAW) XKD_FAIL(XKD_ERR_DATA, "%s: is no raw record", path);
    *out = (xkd_cached){.frames = h->frames,
                        .height = h->height,
                        .width = h->width,
                        .samples = h->samples,
                        .has_audio = h->has_audio,
                        .source = source};
    xkd_record_describe(h, !cache->data->left_out[XKD_VIDEO], !cache->data->left_out[XKD_AUDIO], &out->info);
    out->seconds = fmax(out->info.end - out->info.start, 0);
fail:
    xkd_record_reader_free(reader);
    xkd_free(text);
    xkd_free(said);
    return status;
}

/* A missing or damaged entry is no error: *entry stays NULL and the clip is decoded again. */
static xkd_status read_entry(xkd_cache *cache, xkd_context *cx, const char *hash, const xkd_cached **entry)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    int fd = -1;
    int64_t size;
    xkd_cached *found = NULL;
    XKD_TRY(file_of(cache, cx, hash, &path));
    if (!xkd_path_exists(path)) goto fail;
    XKD_TRY(xkd_alloc(cx, &found, 1, sizeof *found));
    status = xkd_open_read(cx, path, &fd, &size);
    if (status == XKD_OK) status = read_record(cache, cx, hash, path, fd, size, found);
    if (status == XKD_OK) {
        fd = -1;
        *entry = found;
        found = NULL;
    } else if (status != XKD_ERR_MEMORY) {
        xkd_clear_error(cx); /* a bad disk costs decoding, not the run */
        status = XKD_OK;
    }
fail:
    if (fd >= 0) close(fd);
    xkd_free(found);
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

/* Published in one step, so a reader sees all of it or nothing. */
static xkd_status write_entry(xkd_cache *cache, xkd_context *cx, const char *hash, const xkd_cached *e)
{
    xkd_status status = XKD_OK;
    const xkd_record_options options = {
        .codec = XKD_CODEC_RAW, .grid_fps = cache->data->video_fps, .audio_rate = cache->data->audio_rate};
    static const xkd_media_tally whole; /* damaged files are not kept */
    xkd_writer *writer = NULL;
    xkd_record_writer *record = NULL;
    xkd_record_head head;
    xkd_records_index index = {0};
    char *path = NULL, *text = NULL;
    XKD_TRY(file_of(cache, cx, hash, &path));
    XKD_TRY(text_of(cache, cx, hash, &text));
    XKD_TRY(xkd_record_writer_new(cx, &options, &record));
    XKD_TRY(xkd_writer_open(cx, path, &writer));
    XKD_TRY(xkd_records_begin(cx, writer, text, 0));
    int64_t at = xkd_writer_size(writer), frame = 3 * e->height * e->width;
    XKD_TRY(xkd_record_begin(record, writer, 0));
    for (int64_t i = 0; i < e->frames; i++)
        XKD_TRY(xkd_record_add_frame(record, e->rgb + i * frame, e->width, e->height));
    XKD_TRY(xkd_record_add_sound(record, e->sound, e->samples));
    XKD_TRY(xkd_record_end(record, &e->info, &whole, XKD_FAULT_NONE, "{}", &head));
    XKD_TRY(xkd_records_note(cx, &index, &head, at, "{}"));
    XKD_TRY(xkd_records_finish(writer, &index));
    /* Commit frees the writer also when it fails; aborting it again would free it twice. */
    xkd_writer *published = writer;
    writer = NULL;
    XKD_TRY(xkd_writer_commit(published));
fail:
    xkd_writer_abort(writer);
    xkd_record_writer_free(record);
    xkd_records_free(&index);
    xkd_free(path);
    xkd_free(text);
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
