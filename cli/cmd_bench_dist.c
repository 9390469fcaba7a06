/* xkd bench dist: what adding up the gradients of several processes takes, and the weak scaling that follows from it and from
 * a link; the model is docs/ranks.md's. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/status.h"
#include "base/text.h"
#include "config_args.h"
#include "model/networks.h"
#include "ranks.h"

struct values {
    const char *config;
    int64_t ranks, repeats;
    double step, link, latency;
};

static const struct cli_option options[] = {
    {'c', "config", CLI_TEXT, offsetof(struct values, config), "FILE",
     "the model whose gradients are meant (default: XKD)"},
    RANKS_OPTION(struct values, ranks),
    {0, "repeats", CLI_INT, offsetof(struct values, repeats), "N", "times that the sum is measured (default: 5)"},
    {0, "step", CLI_REAL, offsetof(struct values, step), "S",
     "seconds of a step of one process, as 'xkd bench step' measures it: prints the scaling"},
    {0, "link", CLI_REAL, offsetof(struct values, link), "GBIT",
     "rate of a process's link, each way (default: as measured)"},
    {0, "latency", CLI_REAL, offsetof(struct values, latency), "US",
     "microseconds of a small message there and back (default: as measured)"},
    {0},
};

/* Trained elements of the model, and those of them that a backward pass completes before its end: its blocks'. */
static xkd_status count_gradients(xkd_context *cx, const struct values *v, char **overrides, int count, double *all,
                                  double *early)
{
    xkd_status status = XKD_OK;
    xkd_config config;
    xkd_networks networks = {0};
    XKD_TRY(xkd_config_init(cx, &config));
    if (v->config) XKD_TRY(xkd_config_load(cx, &config, v->config, false));
    for (int i = 0; i < count; i++) XKD_TRY(xkd_config_override(cx, &config, overrides[i]));
    XKD_TRY(xkd_config_finish(cx, &config));
    XKD_TRY(xkd_networks_declare(cx, &networks, &config.model));
    for (int64_t i = 0; i < networks.params.count; i++) {
        const xkd_param *row = networks.params.rows[i];
        if (row->role != XKD_ROLE_TRAINED) continue;
        *all += (double)row->count;
        if (strstr(row->name, ".blocks.")) *early += (double)row->count;
    }
fail:
    xkd_networks_free(&networks);
    xkd_config_free(&config);
    return status;
}

/* The fastest of all repeats, on the slowest rank of each. */
static xkd_status measure(xkd_context *cx, xkd_dist *dist, int64_t n, int64_t repeats, double *seconds, double *latency)
{
    xkd_status status = XKD_OK;
    float *x = NULL;
    int64_t tiny = 0;
    XKD_TRY(xkd_alloc(cx, &x, n, sizeof *x));
    *seconds = *latency = 1e30;
    for (int64_t i = 0; i <= repeats; i++) { /* the first one touches the memory */
        XKD_TRY(xkd_dist_largest(dist, &tiny, 1));
        double start = xkd_now();
        XKD_TRY(xkd_dist_largest(dist, &tiny, 1));
        double middle = xkd_now();
        XKD_TRY(xkd_dist_sum(dist, x, n));
        int64_t taken = (int64_t)(1e9 * (xkd_now() - middle));
        XKD_TRY(xkd_dist_largest(dist, &taken, 1));
        if (i && 1e-9 * (double)taken < *seconds) *seconds = 1e-9 * (double)taken;
        if (middle - start < *latency) *latency = middle - start;
    }
fail:
    xkd_free(x);
    return status;
}

/* What one process takes, and what its link does. */
struct machine {
    double step, rate, latency; /* s; bytes/s each way; s */
    double bytes, early;        /* of gradients; of those that are complete before the backward pass ends */
};

/* docs/ranks.md: every rank sends and receives 2 (R-1)/R of the gradients, in buckets of two rounds each. What is complete
 * early travels beside the backward pass, of which half a step is counted. */
static double efficiency(const struct machine *m, double ranks)
{
    static const double BUCKET = 8 << 20, BESIDE = 0.5;
    double sum = 2 * (ranks - 1) / ranks * m->bytes / m->rate + 2 * (m->bytes / BUCKET) * m->latency;
    double hidden = sum * m->early / m->bytes;
    if (hidden > BESIDE * m->step) hidden = BESIDE * m->step;
    return m->step / (m->step + sum - hidden);
}

static xkd_status print(struct cli *cli, const struct values *v, int ranks, double seconds, struct machine *m)
{
    static const int sizes[] = {8, 64, 512};
    xkd_status status = XKD_OK;
    xkd_text out = xkd_text_make(cli->cx);
    xkd_text_printf(
        &out,
        cli->json ? "{\"ranks\": %d, \"bytes\": %.0f, \"seconds\": %.6f, \"bytes_per_s\": %.0f, \"latency_s\": %.9f"
                  : "%d ranks add up %.0f bytes in %.4f s: %.3g bytes/s each way a rank; a small message %.3g s\n",
        ranks, m->bytes, seconds, m->rate, m->latency);
    if (v->link > 0) m->rate = v->link * 1e9 / 8;
    if (v->latency > 0) m->latency = 1e-6 * v->latency;
    if (v->step > 0) {
        xkd_text_printf(&out, cli->json ? ", \"scaling\": [" : "a step of %.3g s, %.3g bytes/s, %.3g s a message:\n",
                        v->step, m->rate, m->latency);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            xkd_text_printf(&out,
                            cli->json ? "%s{\"ranks\": %d, \"efficiency\": %.4f}"
                                      : "%s%5d processes: %.4f of as many times the rate\n",
                            i && cli->json ? ", " : "", sizes[i], efficiency(m, sizes[i]));
        if (cli->json) xkd_text_puts(&out, "]");
    }
    if (cli->json) xkd_text_puts(&out, "}\n");
    XKD_TRY(out.status);
    fputs(out.data, stdout);
fail:
    xkd_text_free(&out);
    return status;
}

static xkd_status bench(struct cli *cli, const struct values *v, xkd_dist *dist, char **overrides, int count)
{
    xkd_status status = XKD_OK;
    double all = 0, early = 0, seconds, latency, ranks = xkd_dist_size(dist);
    XKD_TRY(count_gradients(cli->cx, v, overrides, count, &all, &early));
    XKD_TRY(measure(cli->cx, dist, (int64_t)all, v->repeats, &seconds, &latency));
    struct machine m = {.step = v->step, .latency = latency, .bytes = 4 * all, .early = 4 * early};
    m.rate = 2 * (ranks - 1) / ranks * m.bytes / seconds;
    if (xkd_dist_rank(dist) == 0) XKD_TRY(print(cli, v, (int)ranks, seconds, &m));
fail:
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {.repeats = 5};
    xkd_dist_place place;
    xkd_dist *dist;
    int rest = 0;
    bool launch;
    double timeout;
    XKD_TRY(cli_parse(cli, &cmd_bench_dist, argc, argv, &v, &rest));
    if (v.repeats < 1) XKD_FAIL(XKD_ERR_CONFIG, "--repeats wants at least 1");
    XKD_TRY(cli_ranks(cli, v.ranks, &place, &launch));
    if (launch) return cli_launch_ranks(cli, v.ranks);
    if (place.size == 1)
        XKD_FAIL(XKD_ERR_CONFIG, "bench dist: one process has nobody to exchange with: --ranks N, mpirun or torchrun");
    XKD_TRY(cli_peer_timeout(cli, v.config, argv + 1, rest, &timeout));
    XKD_TRY(cli_join_ranks(cli, &place, timeout, &dist));
    status = bench(cli, &v, dist, argv + 1, rest);
    status = cli_leave_ranks(cli, dist, status, status == XKD_OK);
fail:
    return status;
}

const struct cli_command cmd_bench_dist = {
    .name = "dist",
    .summary = "rate of the sum of gradients over processes, and the weak scaling that follows",
    .usage = "--ranks N [--step S] [--link GBIT] [-c FILE] [key=value ...]",
    .example = "xkd bench dist --ranks 2 --step 18.5 --link 100 --latency 5",
    .options = options,
    .run = run,
};
