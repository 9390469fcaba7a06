/* Means of files and the clips near them, for `xkd retrieve` and <xkd/retrieve.h>. */
#include "eval/neighbours.h"

#include <string.h>

#include "base/alloc.h"

bool xkd_file_mean(const xkd_feature_table *t, int64_t f, int64_t *cursor, float *out)
{
    int64_t clips = 0, D = t->rows * t->width;
    memset(out, 0, (size_t)D * sizeof *out);
    while (*cursor < t->count && t->file[*cursor] < f) ++*cursor;
    for (; *cursor < t->count && t->file[*cursor] == f; ++*cursor, clips++)
        for (int64_t k = 0; k < D; k++) out[k] += t->x[*cursor * D + k];
    for (int64_t k = 0; clips && k < D; k++) out[k] /= (float)clips;
    return clips > 0;
}

/* As many more are asked for as will be left out. */
xkd_status xkd_nearest_clips(xkd_context *cx, xkd_pool *pool, const xkd_feature_table *t, const float *query,
                             int64_t without, int64_t k, int64_t *near, int64_t *found)
{
    xkd_status status = XKD_OK;
    int64_t own = 0, *all = NULL;
    *found = 0;
    for (int64_t i = 0; without >= 0 && i < t->count; i++) own += t->file[i] == without;
    int64_t asked = k + own < t->count ? k + own : t->count;
    if (asked == own) return XKD_OK;
    XKD_TRY(xkd_alloc(cx, &all, asked, sizeof *all));
    XKD_TRY(xkd_nearest(cx, pool, query, 1, t->x, t->count, t->rows * t->width, asked, all));
    for (int64_t i = 0; i < asked && *found < k; i++)
        if (t->file[all[i]] != without) near[(*found)++] = all[i];
fail:
    xkd_free(all);
    return status;
}

xkd_status xkd_check_comparable(xkd_context *cx, const xkd_embeddings *e, xkd_modality query, xkd_modality against)
{
    if (query == against || e->kind == XKD_FEATURE_HEAD) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_DATA,
                    "features of video and of sound can be compared only as outputs of the projection heads: "
                    "embed with --pool head");
}
