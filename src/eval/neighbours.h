/* Looking for the clips that are like a file, in features as they are stored. */
#ifndef XKD_EVAL_NEIGHBOURS_H
#define XKD_EVAL_NEIGHBOURS_H

#include "eval/protocols.h"

/* Mean of the features of file f; false if there are none. out [rows*width] is overwritten. Moves the cursor, which begins at 0 and
 * is used for ascending files, behind the file. */
bool xkd_file_mean(const xkd_feature_table *table, int64_t f, int64_t *cursor, float *out);

/* The k clips of `gallery` that are nearest to query by cosine, without those of file `without` (-1: all of them): near [k],
 * *found of them. */
xkd_status xkd_nearest_clips(xkd_context *cx, xkd_pool *pool, const xkd_feature_table *gallery, const float *query,
                             int64_t without, int64_t k, int64_t *near, int64_t *found);

/* XKD_ERR_DATA where features of video and of sound lie in different spaces. */
xkd_status xkd_check_comparable(xkd_context *cx, const xkd_embeddings *e, xkd_modality query, xkd_modality against);

#endif
