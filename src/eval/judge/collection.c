/* The public interface of retrieval: features in memory, and searches in them. */
#include <math.h>
#include <string.h>
#include <xkd/retrieve.h>

#include "base/alloc.h"
#include "base/context.h"
#include "eval/judge/neighbours.h"

static const char *const modality_names[] = {"video", "audio"};

struct xkd_collection {
    xkd_context *cx; /* a branch of the caller's */
    xkd_embeddings features;
    xkd_pool *pool;
};

xkd_status xkd_collection_open(xkd_context *parent, const char *path, int64_t threads, xkd_collection **out)
{
    xkd_status status = XKD_OK;
    xkd_collection *c = NULL;
    xkd_context *cx = xkd_context_branch(parent);
    const bool all[XKD_MODALITIES] = {true, true};
    *out = NULL;
    if (!cx) return xkd_fail(parent, XKD_ERR_MEMORY, "out of memory");
    XKD_TRY(xkd_alloc(cx, &c, 1, sizeof *c));
    c->cx = cx;
    if (threads < 0) XKD_FAIL(XKD_ERR_CONFIG, "collection: threads must not be negative");
    XKD_TRY(xkd_embeddings_read(cx, path, &c->features));
    XKD_TRY(xkd_embeddings_check_whole(cx, &c->features, path));
    XKD_TRY(xkd_embeddings_check_finite(cx, &c->features, path, all));
    XKD_TRY(xkd_pool_new(cx, &c->pool, threads ? (int)threads : xkd_processor_count()));
    *out = c;
    return XKD_OK;
fail:
    xkd_context_hand_up(cx);
    if (c)
        xkd_collection_close(c);
    else
        xkd_context_free(cx);
    return status;
}

void xkd_collection_close(xkd_collection *c)
{
    if (!c) return;
    xkd_context *cx = c->cx;
    xkd_embeddings_free(&c->features);
    xkd_pool_free(c->pool);
    xkd_free(c);
    xkd_context_free(cx);
}

const char *xkd_collection_error(const xkd_collection *c)
{
    return xkd_last_error(c->cx);
}

static int64_t width_of(const xkd_collection *c, xkd_modality m)
{
    const xkd_feature_table *t = &c->features.table[m];
    return t->count ? t->rows * t->width : 0;
}

xkd_collection_description xkd_collection_info(const xkd_collection *c)
{
    xkd_collection_description info = {.files = c->features.files.count,
                                       .comparable = c->features.kind == XKD_FEATURE_HEAD};
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        info.clips[m] = c->features.table[m].count;
        info.width[m] = width_of(c, m);
        memcpy(info.model[m], c->features.model[m], sizeof info.model[m]);
    }
    return info;
}

const char *xkd_collection_path(const xkd_collection *c, int64_t file)
{
    return file >= 0 && file < c->features.files.count ? c->features.files.samples[file].path : NULL;
}

static xkd_status check_search(xkd_collection *c, xkd_modality against, int64_t k)
{
    xkd_clear_error(c->cx);
    if (against < 0 || against >= XKD_MODALITIES)
        return xkd_fail(c->cx, XKD_ERR_CONFIG, "collection: no such modality");
    if (k < 1) return xkd_fail(c->cx, XKD_ERR_CONFIG, "collection: asked for %lld clips", (long long)k);
    if (c->features.table[against].count) return XKD_OK;
    return xkd_fail(c->cx, XKD_ERR_DATA, "the features hold no %s", modality_names[against]);
}

static xkd_status find(xkd_collection *c, xkd_modality against, const float *query, int64_t without, int64_t k,
                       xkd_match *out, int64_t *found)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = c->cx;
    const xkd_feature_table *t = &c->features.table[against];
    int64_t *near = NULL, D = width_of(c, against);
    if (k > t->count) k = t->count;
    XKD_TRY(xkd_alloc(cx, &near, k, sizeof *near));
    XKD_TRY(xkd_nearest_clips(cx, c->pool, t, query, without, k, near, found));
    for (int64_t i = 0; i < *found; i++)
        out[i] = (xkd_match){.path = c->features.files.samples[t->file[near[i]]].path,
                             .file = t->file[near[i]],
                             .seconds = t->seconds[near[i]],
                             .cosine = xkd_cosine(query, t->x + near[i] * D, D)};
fail:
    xkd_free(near);
    return status;
}

xkd_status xkd_collection_search(xkd_collection *c, xkd_modality against, const float *query, int64_t k, xkd_match *out,
                                 int64_t *found)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = c->cx;
    *found = 0;
    XKD_TRY(check_search(c, against, k));
    for (int64_t i = 0; i < width_of(c, against); i++)
        if (!isfinite(query[i]))
            XKD_FAIL(XKD_ERR_CONFIG, "collection: number %lld of the query is not finite", (long long)i);
    XKD_TRY(find(c, against, query, -1, k, out, found));
fail:
    return status;
}

xkd_status xkd_collection_like(xkd_collection *c, const char *path, xkd_modality query, xkd_modality against, int64_t k,
                               xkd_match *out, int64_t *found)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = c->cx;
    float *mean = NULL;
    int64_t file = -1, cursor = 0;
    *found = 0;
    XKD_TRY(check_search(c, against, k));
    XKD_TRY(check_search(c, query, k));
    XKD_TRY(xkd_check_comparable(cx, &c->features, query, against));
    if (width_of(c, query) != width_of(c, against))
        XKD_FAIL(XKD_ERR_DATA, "features of %lld and %lld numbers cannot be compared", (long long)width_of(c, query),
                 (long long)width_of(c, against));
    for (int64_t f = 0; f < c->features.files.count && file < 0; f++)
        if (strcmp(c->features.files.samples[f].path, path) == 0) file = f;
    XKD_TRY(xkd_alloc(cx, &mean, width_of(c, query), sizeof *mean));
    if (file < 0 || !xkd_file_mean(&c->features.table[query], file, &cursor, mean))
        XKD_FAIL(XKD_ERR_DATA, "%s: has no %s features in the collection", path, modality_names[query]);
    XKD_TRY(find(c, against, mean, query == against ? file : -1, k, out, found));
fail:
    xkd_free(mean);
    return status;
}
