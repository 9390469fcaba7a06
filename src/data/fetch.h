/* Sample -> clip: opens the file, has the worker process decode it, or takes it from the cache. One thread's tool. */
#ifndef XKD_DATA_FETCH_H
#define XKD_DATA_FETCH_H

#include "data/cache.h"
#include "data/manifest.h"
#include "data/views.h"
#include "media/worker.h"

typedef struct xkd_fetcher xkd_fetcher;

/* What is borrowed must outlive the fetcher; cache may be NULL. */
xkd_status xkd_fetcher_new(xkd_context *cx, const xkd_data_config *data, const xkd_manifest *manifest, xkd_cache *cache,
                           xkd_fetcher **out);
void xkd_fetcher_free(xkd_fetcher *fetcher); /* NULL is allowed */

/* From now on only these streams, and frames with this short side (0: as they are). At first both are wanted, and frames
 * of data->crop_size. Not with a cache. */
void xkd_fetcher_want(xkd_fetcher *fetcher, const bool wanted[XKD_MODALITIES], int64_t short_side);

/* XKD_ERR_CONFIG where the samples are of a pack that cannot give such clips. */
xkd_status xkd_fetcher_check(const xkd_fetcher *fetcher);

/* A clip of sample i at the fraction `place` in [0,1) of all admissible starts. result->fault says what is wrong with the
 * file, with XKD_OK; then *clip is empty. *silent: the file has no sound. *clip is valid until the next call. The status is
 * for our own troubles. */
xkd_status xkd_fetch_clip(xkd_fetcher *fetcher, int64_t i, double place, xkd_clip *clip, bool *silent,
                          xkd_media_result *result);

/* Of a pack: has the system read what such a clip will need, while another is being worked on. */
void xkd_fetch_ahead(const xkd_fetcher *fetcher, int64_t i, double place);

int64_t xkd_fetcher_restarts(const xkd_fetcher *fetcher);

#endif
