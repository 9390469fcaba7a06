/* Decoded files: 8-bit frames on the grid after the short-side resize, and 16-bit sound, so that small sets are decoded
 * once. In memory, or as files named by the hash of (contents, settings): each is a shard of one raw record, as those of a
 * pack are (docs/pack-format.md), of which a clip reads its own frames and sound and compares their sums.
 *
 * With a cache a clip starts on the file's own frame grid (a multiple of 1 / video_fps): frames between would need another
 * decoding. Cold, warm, in memory or in a folder, the clips are then the same to the bit. */
#ifndef XKD_DATA_CACHE_H
#define XKD_DATA_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/file.h"
#include "config/config.h"
#include "media/media.h"

/* One whole decoded file, in memory or as a raw record of a file. */
typedef struct {
    int64_t frames, height, width; /* grid frames */
    int64_t samples;
    int64_t has_audio;
    double seconds;      /* of the common part of the streams */
    uint8_t *rgb;        /* [frames,height,width,3] */
    int16_t *sound;      /* [samples] */
    xkd_media_info info; /* of the file */
    xkd_source source;   /* record: what is read instead of the two; the entry's own descriptor */
} xkd_cached;

typedef struct xkd_cache xkd_cache;

/* For `count` samples. May be shared by threads. XKD_ERR_STORAGE where the folder cannot be made. */
xkd_status xkd_cache_new(xkd_context *cx, const xkd_data_config *data, int64_t count, xkd_cache **out);
void xkd_cache_free(xkd_cache *cache); /* NULL is allowed */

/* Looks sample i up; `hash` names its contents. *entry is NULL where it is not there (a damaged file counts as not
 * there). Give it back with xkd_cache_release. */
xkd_status xkd_cache_get(xkd_cache *cache, xkd_context *cx, int64_t i, const char *hash, const xkd_cached **entry);

/* Stores *fresh, whose memory passes to the cache in any case, and returns the entry to use, as from get; NULL where
 * data.cache_memory is used up. A folder that cannot be written is told once and costs nothing else. */
xkd_status xkd_cache_put(xkd_cache *cache, xkd_context *cx, int64_t i, const char *hash, xkd_cached *fresh,
                         const xkd_cached **entry);
void xkd_cache_release(xkd_cache *cache, const xkd_cached *entry);

/* What data.cache_memory=auto comes to, by the /proc and /sys below `root` ("": the machine's). */
int64_t xkd_cache_bound_at(const char *root);
int64_t xkd_cache_bound(const xkd_data_config *data);

/* Bytes that may still be stored, and in one entry of a folder. */
int64_t xkd_cache_room(xkd_cache *cache);

/* Samples that are decoded clip by clip, as without a cache: too long for it, or damaged. */
bool xkd_cache_passes(xkd_cache *cache, int64_t i);
void xkd_cache_pass(xkd_cache *cache, int64_t i);

/* The hash of a file's contents that was set before, for a file that still has this size. Folder only. */
bool xkd_cache_hash(xkd_cache *cache, int64_t i, int64_t size, char hash[33]);
void xkd_cache_set_hash(xkd_cache *cache, int64_t i, int64_t size, const char hash[33]);

void xkd_cached_free(xkd_cached *entry);

#endif
