/* Search in a file of features that `xkd embed` made: by a file of it, or by a feature of <xkd/embed.h>.
 *
 *     xkd_collection *collection;
 *     xkd_match match[10];
 *     int64_t found;
 *     xkd_collection_open(cx, "features.safetensors", 0, &collection);
 *     if (xkd_collection_like(collection, "holiday.mp4", XKD_VIDEO, XKD_VIDEO, 10, match, &found) == XKD_OK)
 *         for (int64_t i = 0; i < found; i++) printf("%.3f %s\n", match[i].cosine, match[i].path);
 *
 * Threads: as in <xkd/embed.h>: a handle serves one thread at a time, and any number of handles work side by side. */
#ifndef XKD_RETRIEVE_H
#define XKD_RETRIEVE_H

#include <stdint.h>
#include <xkd/clip.h>
#include <xkd/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct xkd_collection xkd_collection;

/* Reads all of a safetensors, npz or JSON Lines file of features into memory. threads 0: one for each processor. The caller closes
 * *out, which is NULL after an error; the message is then the context's.
 * XKD_ERR_CHECKPOINT and XKD_ERR_DATA: no file of features, a shard of one, or one with numbers that are not finite. */
XKD_API xkd_status xkd_collection_open(xkd_context *cx, const char *path, int64_t threads, xkd_collection **out);
XKD_API void xkd_collection_close(xkd_collection *collection); /* NULL is allowed */

/* Message of the handle's last call that failed, "" if none has. Valid until its next call. */
XKD_API const char *xkd_collection_error(const xkd_collection *collection);

typedef struct {
    int64_t files;
    int64_t clips[XKD_MODALITIES];
    int64_t width[XKD_MODALITIES];              /* numbers of a clip's feature; 0 where there are no clips */
    int comparable;                             /* 1: video and sound lie in one space, that of the projection heads */
    char model[XKD_MODALITIES][XKD_MODEL_HASH]; /* hashes of the encoders, as xkd_encoder_info; "" where unknown */
} xkd_collection_description;

XKD_API xkd_collection_description xkd_collection_info(const xkd_collection *collection);

/* Path of file 0 .. files - 1, as the file of features holds it; NULL for another number. The collection's. */
XKD_API const char *xkd_collection_path(const xkd_collection *collection, int64_t file);

/* A clip that was found. `path` is the collection's. */
typedef struct {
    const char *path;
    int64_t file;   /* its number */
    double seconds; /* where the clip begins */
    double cosine;  /* -1 to 1 */
} xkd_match;

/* The k clips of `against` that are nearest to query [width] by cosine, the nearest first. out [k]; *found: how many there are, up
 * to k. XKD_ERR_CONFIG: k below 1, or a query that is not finite. */
XKD_API xkd_status xkd_collection_search(xkd_collection *collection, xkd_modality against, const float *query,
                                         int64_t k, xkd_match *out, int64_t *found);

/* The same for the mean feature that a file of the collection has in `query`; its own clips are left out where query and against
 * are one. XKD_ERR_DATA: no such file in it, or modalities that cannot be compared. */
XKD_API xkd_status xkd_collection_like(xkd_collection *collection, const char *path, xkd_modality query,
                                       xkd_modality against, int64_t k, xkd_match *out, int64_t *found);

#ifdef __cplusplus
}
#endif
#endif
