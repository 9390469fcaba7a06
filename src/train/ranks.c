/* The agreements of ranks. Whatever rank 0 reads from a run folder reaches the others from it, so that they need no view of
 * that folder, and cannot have another one. */
#include "train/ranks.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "backend/cpu/levels.h"
#include "base/alloc.h"
#include "optim/parts.h"
#include "train/folder.h"

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

xkd_status xkd_ranks_compare(xkd_context *cx, xkd_dist *dist, const xkd_run_state *state, int64_t samples)
{
    xkd_status status = XKD_OK;
    const xkd_cpu_level *level;
    facts here = {.data_hash = state->data_hash, .samples = samples, .config_bytes = (int64_t)strlen(state->config)};
    facts first;
    char *config = NULL, difference[400];
    if (!dist) return XKD_OK;
    XKD_TRY(xkd_cpu_level_choose(cx, &level));
    snprintf(here.kernels, sizeof here.kernels, "%s", level->name);
    first = here;
    XKD_TRY(xkd_dist_broadcast(dist, &first, sizeof first));
    XKD_TRY(xkd_alloc(cx, &config, first.config_bytes + 1, 1));
    if (xkd_dist_rank(dist) == 0) memcpy(config, state->config, (size_t)first.config_bytes);
    XKD_TRY(xkd_dist_broadcast(dist, config, first.config_bytes));
    if (xkd_run_first_difference(config, state->config, difference, sizeof difference))
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

bool xkd_ranks_end_alike(xkd_status status, bool agreed)
{
    return agreed || status == XKD_OK || status == XKD_ERR_NUMERIC || status == XKD_ERR_PREEMPTED ||
           status == XKD_ERR_INTERRUPTED;
}

/* Rank 0's bytes, in place on the host's memory, else through a stage. */
static xkd_status broadcast(xkd_context *cx, xkd_dist *dist, xkd_memory *memory, void *x, int64_t bytes)
{
    return xkd_pass_through(cx, dist, memory, x, bytes, xkd_dist_broadcast);
}

xkd_status xkd_ranks_share_params(xkd_context *cx, xkd_dist *dist, xkd_params *params)
{
    xkd_status status = XKD_OK;
    if (!dist) return XKD_OK;
    for (int64_t i = 0; i < params->count; i++) {
        xkd_param *row = params->rows[i];
        int64_t bytes = row->count * xkd_dtype_size(params->dtype);
        XKD_TRY(broadcast(cx, dist, params->memory, row->master, bytes));
        if (row->moment1) XKD_TRY(broadcast(cx, dist, params->memory, row->moment1, bytes));
        if (row->moment2) XKD_TRY(broadcast(cx, dist, params->memory, row->moment2, bytes));
        xkd_param_refresh(params, row);
        XKD_TRY(xkd_dist_broadcast(dist, &row->steps, sizeof row->steps));
    }
    xkd_params_set_counters(params);
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

xkd_status xkd_ranks_join_numbers(xkd_dist *dist, xkd_memory *memory, double *all, double *host, int64_t count)
{
    int64_t first = xkd_dist_rank(dist) * count, bytes = count * (int64_t)sizeof *all;
    if (!dist) return XKD_OK;
    xkd_memory_download(memory, host + first, all + first, bytes);
    xkd_status status = xkd_dist_gather(dist, host, host + first, bytes);
    if (status == XKD_OK) xkd_memory_upload(memory, all, host, xkd_dist_size(dist) * bytes);
    return status;
}
