/* What a training file is called in the random draws of its clips where a data set has several folds. A split alone calls its
 * files 0, 1, ...; the same file would then have other clips in every fold, and each fold would have to encode them anew. So
 * a file keeps the number that it has in the first fold in which it is for training. */
#ifndef XKD_EVAL_JUDGE_DRAWS_H
#define XKD_EVAL_JUDGE_DRAWS_H

#include "data/manifest.h"

typedef struct {
    char *path;
    int64_t number;
} xkd_clip_draw;

typedef struct {
    xkd_clip_draw *file; /* [count] by path, owned */
    int64_t count;
} xkd_clip_draws;

/* Adds the training files of the next fold that are in none before it. */
xkd_status xkd_clip_draws_add(xkd_context *cx, xkd_clip_draws *draws, const xkd_manifest *manifest, const char *split);
void xkd_clip_draws_free(xkd_clip_draws *draws);

/* -1: is for training in none of the folds. */
int64_t xkd_clip_draws_of(const xkd_clip_draws *draws, const char *path);

#endif
