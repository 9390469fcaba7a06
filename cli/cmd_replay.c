/* xkd replay: recorded training steps, step by step, for comparison with other implementations. */
#include <stdio.h>
#include <string.h>

#include "base/pool.h"
#include "base/status.h"
#include "ranks.h"
#include "train/replay.h"

enum { PROCESSORS = -1 }; /* no --threads: as many as this rank may use, known once the ranks have met */

/* dtype: f64 is for comparing with a float64 recording, free of rounding. */
struct values {
    const char *out, *device, *dtype;
    int64_t threads, ranks;
};

static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "DIR", "where losses.json and the tensors go (needed)"},
    {0, "device", CLI_TEXT, offsetof(struct values, device), "NAME", "cpu (default) or ref, plain C"},
    {0, "backend", CLI_TEXT, offsetof(struct values, device), "NAME", "the same as --device"},
    {0, "dtype", CLI_TEXT, offsetof(struct values, dtype), "TYPE",
     "f32 (default), bf16, tf32 with --device cuda, or f64 with --device ref"},
    {0, "threads", CLI_INT, offsetof(struct values, threads), "N", "threads of a rank (default: its processors)"},
    RANKS_OPTION(struct values, ranks),
    {0},
};

/* Paths of the results go to stdout, for scripts. */
static xkd_status replay(struct cli *cli, const struct values *v, const char *folder, xkd_dist *dist, bool *agreed)
{
    xkd_context *cx = cli->cx;
    xkd_status status = XKD_OK;
    /* The library writes into --out and prints nothing. */
    xkd_replay_options o = {.folder = folder, .out = v->out, .device = v->device, .dtype = v->dtype};
    o.threads = v->threads == PROCESSORS ? xkd_processor_count() : (int)v->threads;
    XKD_TRY(xkd_replay_shared(cx, &o, dist, agreed));
    if (!cli->json && xkd_dist_rank(dist) == 0)
        printf("%s/losses.json\n%s/grads.safetensors\n%s/state.safetensors\n", v->out, v->out, v->out);
fail:
    return status;
}

/* The folder holds configuration, weights, data and step values; nothing else is read. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {.device = "cpu", .dtype = "f32", .threads = PROCESSORS};
    xkd_dist_place place;
    xkd_dist *dist = NULL;
    double timeout;
    bool launch, agreed = false;
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_replay, argc, argv, &v, &rest));
    if (rest != 1) XKD_FAIL(XKD_ERR_CONFIG, "replay needs one case folder (see 'xkd replay --help')");
    if (!v.out) XKD_FAIL(XKD_ERR_CONFIG, "replay needs --out DIR for its results");
    if (v.threads != PROCESSORS && (v.threads < 1 || v.threads > 1024))
        XKD_FAIL(XKD_ERR_CONFIG, "--threads=%lld: wants 1 to 1024", (long long)v.threads);
    XKD_TRY(cli_ranks(cli, v.ranks, &place, &launch));
    if (launch) return cli_launch_ranks(cli, v.ranks);
    XKD_TRY(cli_peer_timeout(cli, NULL, NULL, 0, &timeout));
    XKD_TRY(cli_join_ranks(cli, &place, timeout, &dist));
    status = replay(cli, &v, argv[1], dist, &agreed);
    status = cli_leave_ranks(cli, dist, status, agreed);
fail:
    return status;
}

const struct cli_command cmd_replay = {
    .name = "replay",
    .summary = "run recorded training steps and write losses, gradients and the final state",
    .usage = "CASE --out DIR [--device ref|cpu] [--ranks N]",
    .description =
        "CASE is a folder with config.yaml, init.safetensors, batch.safetensors and steps.json. The steps are "
        "run with the recorded data, masks and schedules, so that two implementations can be compared number "
        "by number. Ranks share the samples of each step in order; MMD compares those of one rank, or groups of "
        "model.fwd_kwargs.mmd_group.",
    .example = "xkd replay tests/golden/xkd --out /tmp/replay --device ref",
    .options = options,
    .run = run,
};
