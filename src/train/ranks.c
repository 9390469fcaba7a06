/* The agreements of ranks. Whatever rank 0 reads from a run folder reaches the others from it, so that they need no view of
 * that folder, and cannot have another one. */
#include "train/ranks.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "train/folder.h"

/* Bytes that pass through the host at once, where a backend has memory of its own. */
enum { STAGE = 4 << 20 };

/* Facts as they travel; the configuration's text follows. */
typedef struct {
    uint64_t data_hash;
    int64_t samples, config_bytes;
    char kernels[16];
} facts;

static xkd_status compare(xkd_context *cx, const xkd_dist *dist, const facts *mine, const facts *first)
{
    int rank = xkd_dist_rank(dist);
    const char *host = xkd_dist_host(dist, rank);
    if (strcmp(mine->kernels, first->kernels) != 0)
        return xkd_fail(cx, XKD_ERR_CONFIG,
                        "rank %d (%s) computes with %s kernels and rank 0 with %s: set XKD_CPU to the lower one on all",
                        rank, host, mine->kernels, first->kernels);
    if (mine->samples != first->samples)
        return xkd_fail(cx, XKD_ERR_CONFIG,
                        "rank %d (%s) finds %" PRId64 " files and rank 0 %" PRId64
                        ": data.path must hold the same everywhere",
                        rank, host, mine->samples, first->samples);
    if (mine->data_hash != first->data_hash)
        return xkd_fail(
            cx, XKD_ERR_CONFIG,
            "rank %d (%s) finds other files than rank 0: data.path must hold the same everywhere (one manifest "
            "makes sure of it)",
            rank, host);
    return XKD_OK;
}

xkd_status xkd_ranks_compare(xkd_context *cx, xkd_dist *dist, const xkd_rank_facts *mine)
{
    xkd_status status = XKD_OK;
    facts here = {.data_hash = mine->data_hash,
                  .samples = mine->samples,
                  .config_bytes = (int64_t)strlen(mine->config)},
          first;
    char *config = NULL, difference[400];
    if (!dist) return XKD_OK;
    snprintf(here.kernels, sizeof here.kernels, "%s", mine->kernels);
    first = here;
    XKD_TRY(xkd_dist_broadcast(dist, &first, sizeof first));
    XKD_TRY(xkd_alloc(cx, &config, first.config_bytes + 1, 1));
    if (xkd_dist_rank(dist) == 0) memcpy(config, mine->config, (size_t)first.config_bytes);
    XKD_TRY(xkd_dist_broadcast(dist, config, first.config_bytes));
    if (xkd_run_first_difference(config, mine->config, difference, sizeof difference))
        XKD_FAIL(XKD_ERR_CONFIG, "the configuration of rank %d (%s) is not that of rank 0: %s", xkd_dist_rank(dist),
                 xkd_dist_host(dist, xkd_dist_rank(dist)), difference);
    XKD_TRY(compare(cx, dist, &here, &first));
    /* Nobody goes on before all have compared. */
    int64_t here_too = 0;
    XKD_TRY(xkd_dist_largest(dist, &here_too, 1));
fail:
    xkd_free(config);
    return status;
}

xkd_status xkd_ranks_tell(xkd_context *cx, xkd_dist *dist)
{
    xkd_text line = xkd_text_make(cx);
    int size = xkd_dist_size(dist);
    if (!dist || xkd_dist_rank(dist) != 0) return XKD_OK;
    xkd_text_printf(&line, "%d ranks:", size);
    for (int r = 0, last; r < size; r = last + 1) {
        for (last = r; last + 1 < size && strcmp(xkd_dist_host(dist, last + 1), xkd_dist_host(dist, r)) == 0;) last++;
        if (last > r)
            xkd_text_printf(&line, "%s %d-%d on %s", r ? "," : "", r, last, xkd_dist_host(dist, r));
        else
            xkd_text_printf(&line, "%s %d on %s", r ? "," : "", r, xkd_dist_host(dist, r));
    }
    if (line.status == XKD_OK) xkd_log(cx, XKD_LOG_INFO, "%s", line.data);
    xkd_status status = line.status;
    xkd_text_free(&line);
    return status;
}

/* A launcher may have given each rank processors of its own, or all of them to all. */
xkd_status xkd_ranks_processors(xkd_context *cx, xkd_dist *dist, int *out)
{
    xkd_status status = XKD_OK;
    int rank = xkd_dist_rank(dist), sharing = 0;
    cpu_set_t mine, *all = NULL;
    *out = xkd_processor_count();
    if (!dist) return XKD_OK;
    CPU_ZERO(&mine);
    (void)sched_getaffinity(0, sizeof mine, &mine);
    XKD_TRY(xkd_alloc(cx, &all, xkd_dist_size(dist), sizeof *all));
    XKD_TRY(xkd_dist_gather(dist, all, &mine, sizeof mine));
    for (int r = 0; r < xkd_dist_size(dist); r++)
        sharing += CPU_EQUAL(&all[r], &mine) && strcmp(xkd_dist_host(dist, r), xkd_dist_host(dist, rank)) == 0;
    *out = *out / sharing > 1 ? *out / sharing : 1;
fail:
    xkd_free(all);
    return status;
}

/* What a vector passes through piece by piece: a sum or a copy of rank 0's. */
typedef xkd_status (*piece_fn)(xkd_dist *dist, void *piece, int64_t bytes);

static xkd_status sum_piece(xkd_dist *dist, void *piece, int64_t bytes)
{
    return xkd_dist_sum(dist, piece, bytes / (int64_t)sizeof(float));
}

/* In place on the host's memory, else through a stage. */
static xkd_status each_piece(xkd_context *cx, xkd_dist *dist, xkd_memory *memory, void *x, int64_t bytes, piece_fn fn)
{
    xkd_status status = XKD_OK;
    char *stage = NULL;
    if (xkd_memory_is_host(memory)) return fn(dist, x, bytes);
    XKD_TRY(xkd_alloc(cx, &stage, STAGE, 1));
    for (int64_t at = 0; at < bytes; at += STAGE) {
        int64_t n = bytes - at < STAGE ? bytes - at : STAGE;
        xkd_memory_download(memory, stage, (char *)x + at, n);
        XKD_TRY(fn(dist, stage, n));
        xkd_memory_upload(memory, (char *)x + at, stage, n);
    }
fail:
    xkd_free(stage);
    return status;
}

xkd_status xkd_ranks_sum(xkd_dist *dist, xkd_backend *be, const xkd_part_vector *x)
{
    return dist ? each_piece(be->cx, dist, be->memory, x->x, x->n * be->size, sum_piece) : XKD_OK;
}

xkd_status xkd_ranks_share_params(xkd_context *cx, xkd_dist *dist, xkd_params *params)
{
    xkd_status status = XKD_OK;
    if (!dist) return XKD_OK;
    XKD_TRY(each_piece(cx, dist, params->memory, params->values.memory, params->values.used, xkd_dist_broadcast));
    XKD_TRY(each_piece(cx, dist, params->memory, params->moments.memory, params->moments.used, xkd_dist_broadcast));
    for (int64_t i = 0; i < params->count; i++)
        XKD_TRY(xkd_dist_broadcast(dist, &params->rows[i]->steps, sizeof params->rows[i]->steps));
fail:
    return status;
}

xkd_status xkd_ranks_share_state(xkd_dist *dist, xkd_run_state *state)
{
    char *config = state->config;
    xkd_status status = xkd_dist_broadcast(dist, state, sizeof *state);
    state->config = config;
    return status;
}
