/* Features by several processes: each does its part of the files into a file of its own, beside the result, and rank 0 puts
 * the parts together to the bytes of one run. A part that is finished stays until all are, so the same command with as many
 * ranks goes on with what was done. */
#include "eval/encode/embed_ranks.h"

#include <string.h>

#include "base/alloc.h"
#include "base/file.h"

/* The files of this rank. */
typedef struct {
    xkd_embed_job job;
    xkd_embed_input *inputs; /* [job.count] */
    char **paths;            /* [parts] of the parts */
    int64_t parts;           /* ranks with files */
} share;

static void free_share(share *s)
{
    for (int64_t r = 0; s->paths && r < s->parts; r++) xkd_free(s->paths[r]);
    xkd_free(s->paths);
    xkd_free(s->inputs);
}

/* Every `parts`-th file. How many may be unreadable is asked of all of them together. */
static xkd_status cut_share(xkd_context *cx, const xkd_embed_job *whole, uint64_t work, share *s)
{
    xkd_status status = XKD_OK;
    int64_t size = xkd_dist_size(whole->dist), rank = xkd_dist_rank(whole->dist);
    s->parts = size < whole->count ? size : whole->count;
    s->job = *whole;
    s->job.dist = NULL;
    s->job.count = 0;
    s->job.max_bad = 1;
    s->job.shard = (xkd_shard){.index = rank + 1, .of = s->parts, .work = work};
    XKD_TRY(xkd_alloc(cx, &s->paths, s->parts, sizeof *s->paths));
    for (int64_t r = 0; r < s->parts; r++)
        XKD_TRY(xkd_format_string(cx, &s->paths[r], "%s.rank-%lld-of-%lld.safetensors", whole->path, (long long)r,
                                  (long long)s->parts));
    XKD_TRY(xkd_alloc(cx, &s->inputs, whole->count, sizeof *s->inputs));
    for (int64_t i = rank; i < whole->count && rank < s->parts; i += s->parts)
        s->inputs[s->job.count++] = whole->inputs[i];
    s->job.inputs = s->inputs;
    s->job.path = rank < s->parts ? s->paths[rank] : NULL;
fail:
    return status;
}

xkd_status xkd_embeddings_join_files(xkd_context *cx, char *const *paths, int64_t count, xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    xkd_embeddings *parts = NULL;
    *out = (xkd_embeddings){0};
    XKD_TRY(xkd_alloc(cx, &parts, count, sizeof *parts));
    for (int64_t i = 0; i < count; i++) XKD_TRY(xkd_embeddings_read(cx, paths[i], &parts[i]));
    XKD_TRY(xkd_embeddings_join(cx, parts, paths, count, out));
fail:
    for (int64_t i = 0; parts && i < count; i++) xkd_embeddings_free(&parts[i]);
    xkd_free(parts);
    return status;
}

/* Rank 0: parts to the result. */
static xkd_status join(xkd_context *cx, const xkd_embed_job *whole, const share *s, xkd_embed_counts *out)
{
    xkd_status status = XKD_OK;
    xkd_embeddings all = {0};
    xkd_embeddings_form form;
    XKD_TRY(xkd_embeddings_form_of(cx, whole->path, &form));
    XKD_TRY(xkd_embeddings_join_files(cx, s->paths, s->parts, &all));
    *out = xkd_embed_counts_of(&all, whole->options->clips.data->max_clip_damage);
    XKD_TRY(xkd_embed_check_budget(cx, out, whole->max_bad, whole->path));
    XKD_TRY(xkd_embeddings_write(cx, &all, whole->path, form));
    for (int64_t r = 0; r < s->parts; r++) XKD_TRY(xkd_remove_file(cx, s->paths[r]));
fail:
    xkd_embeddings_free(&all);
    return status;
}

xkd_status xkd_embed_files_shared(xkd_context *cx, xkd_backend *be, const xkd_embed_job *whole, xkd_embed_counts *out)
{
    xkd_status status = XKD_OK;
    share s = {0};
    uint64_t work;
    int64_t here = 0;
    *out = (xkd_embed_counts){0};
    XKD_TRY(xkd_embed_settings(cx, whole, &work));
    /* Ranks that see others would join what does not belong together. */
    XKD_TRY(xkd_dist_compare(cx, whole->dist, work, "another model, other files or other options"));
    XKD_TRY(cut_share(cx, whole, work, &s));
    if (s.job.count && (whole->anew || !xkd_path_exists(s.job.path))) XKD_TRY(xkd_embed_files(cx, be, &s.job, out));
    XKD_TRY(xkd_dist_largest(whole->dist, &here, 1)); /* all parts are there */
    if (xkd_dist_rank(whole->dist) == 0) XKD_TRY(join(cx, whole, &s, out));
    XKD_TRY(xkd_dist_broadcast(whole->dist, out, sizeof *out)); /* and the result is */
fail:
    free_share(&s);
    return status;
}
