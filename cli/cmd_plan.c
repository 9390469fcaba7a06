/* xkd plan: what a pre-training takes in memory, time and disk, what fits, and how many ranks a deadline asks for. Costs are
 * plan_costs.c's; here the question is read and the answer told. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/status.h"
#include "plan_costs.h"
#include "report/progress.h"

/* The released training compares so many samples in one MMD: 32 a GPU. */
enum { RELEASED_GROUP = 32, MOST_RANKS = 1024, SHOWN_RANKS = 8 };
/* 10-gigabit Ethernet. */
static const double NETWORK_GB = 1.25;

struct values {
    const char *config, *data, *bench;
    int64_t samples, ranks;
    double memory, hours, seconds, gflops, network;
};

static const struct cli_option options[] = {
    {0, "data", CLI_TEXT, offsetof(struct values, data), "PATH",
     "folder of videos or manifest: for hours and all memory"},
    {0, "samples", CLI_INT, offsetof(struct values, samples), "N", "number of videos, where they are not here"},
    {'c', "config", CLI_TEXT, offsetof(struct values, config), "FILE", "YAML configuration (default: XKD)"},
    {0, "memory", CLI_REAL, offsetof(struct values, memory), "GB", "memory of a machine (default: what is free here)"},
    {0, "hours", CLI_REAL, offsetof(struct values, hours), "H", "how many ranks end within H hours?"},
    {0, "ranks", CLI_INT, offsetof(struct values, ranks), "N", "plan for N ranks, each on a machine of its own"},
    {0, "seconds", CLI_REAL, offsetof(struct values, seconds), "S", "seconds a sample (default: measured here)"},
    {0, "bench", CLI_TEXT, offsetof(struct values, bench), "FILE",
     "output of 'xkd bench step --json' of the machine that will do it"},
    {0, "gflops", CLI_REAL, offsetof(struct values, gflops), "G", "GFLOP/s that its matrix products reach in a step"},
    {0, "network", CLI_REAL, offsetof(struct values, network), "GB/s", "between ranks (default: 1.25, 10 gigabit)"},
    {0},
};

/* ---- the choice ---- */

/* Of one rank: the fewest micro-batches that fit; NULL: none. */
static const plan_way *choose(const struct plan *p)
{
    for (int64_t i = 0; i < p->way_count; i++)
        if (p->ways[i].fits) return &p->ways[i];
    return NULL;
}

/* The fewest ranks that end in time. *out as it was where none does. */
static xkd_status find_ranks(struct plan *p, double hours, plan_way *out, bool *found)
{
    *found = false;
    for (int64_t ranks = 1; ranks <= p->config.train.batch / 2 && ranks <= MOST_RANKS; ranks++) {
        plan_way way;
        if (p->config.train.batch % ranks) continue;
        xkd_status status = plan_ranks(p, ranks, &way);
        if (status == XKD_ERR_CONFIG) {
            xkd_clear_error(p->cli->cx);
            continue;
        }
        if (status != XKD_OK) return status;
        if (!way.fits || way.seconds > 3600 * hours) continue;
        *out = way;
        *found = true;
        return XKD_OK;
    }
    return XKD_OK;
}

/* ---- for people ---- */

static void print_model(const struct plan *p)
{
    static const char *const sources[] = {[PLAN_MEASURED] = "measured here now",
                                          [PLAN_GIVEN] = "as given",
                                          [PLAN_BENCH] = "of the file of xkd bench step",
                                          [PLAN_GFLOPS] = "by the given GFLOP/s"};
    const xkd_train_plan *b = &p->base;
    char all[32], trained[32], files[32];
    xkd_format_count(all, sizeof all, (double)b->parameters, "");
    xkd_format_count(trained, sizeof trained, (double)b->trained, "");
    printf("%-12s %s parameters, %s of them trained; run.device=%s\n", "model", all, trained, p->config.device);
    printf("%-12s %" PRId64 " samples a step", "batch", p->config.train.batch);
    xkd_format_count(files, sizeof files, (double)b->samples, "");
    if (b->total_steps)
        printf("; %" PRId64 " steps, %" PRId64 " epochs of %s videos", b->total_steps, p->config.train.epochs, files);
    printf("\n");
    if (p->rate.source == PLAN_UNKNOWN)
        printf("%-12s not known: a step does not fit here; give --seconds, --bench or --gflops\n", "rate");
    else
        printf("%-12s %.3f s a sample, %s\n", "rate", p->rate.per_sample, sources[p->rate.source]);
}

static const char *in_gb(char *out, size_t size, double bytes)
{
    xkd_format_count(out, size, bytes, "B");
    return out;
}

/* How many samples one MMD compares. */
static int64_t group_of(const struct plan *p, const plan_way *w)
{
    return p->config.step.mmd_group ? p->config.step.mmd_group : w->micro_batch;
}

static void print_ways(const struct plan *p)
{
    char bytes[32];
    printf("\n%10s %17s %10s %10s\n", "at a time", "train.accumulate", "memory", "MMD over");
    for (int64_t i = 0; i < p->way_count; i++) {
        const plan_way *w = &p->ways[i];
        printf("%10" PRId64 " %17" PRId64 " %10s %10" PRId64 "  %s%s\n", w->micro_batch, w->accumulate,
               in_gb(bytes, sizeof bytes, w->memory), group_of(p, w), w->fits ? "fits" : "too large",
               group_of(p, w) == RELEASED_GROUP ? ", MMD as released" : "");
    }
}

static void print_choice(const struct plan *p)
{
    char limit[32], bytes[32];
    const plan_way *w = choose(p);
    in_gb(limit, sizeof limit, p->memory);
    if (!w)
        printf("%-12s nothing: the smallest takes %s; take a smaller model, or more memory\n", limit,
               in_gb(bytes, sizeof bytes, p->way_count ? p->ways[p->way_count - 1].memory : plan_memory(&p->base)));
    else
        printf("%-12s fits %" PRId64 " samples at a time: train.accumulate=%" PRId64 " reaches the batch of %" PRId64
               "\n",
               limit, w->micro_batch, w->accumulate, p->config.train.batch);
    if (!p->data)
        printf("%-12s is the model's alone: --data adds that of the batches, the decoders and the cache\n", "memory");
}

static void print_rank_row(const plan_way *w)
{
    char bytes[32], time[32];
    xkd_format_duration(time, sizeof time, w->seconds > 0 ? w->seconds : NAN);
    printf("%10" PRId64 " %17" PRId64 " %10s %14s%s\n", w->ranks, w->accumulate, in_gb(bytes, sizeof bytes, w->memory),
           time, w->fits ? "" : "  too large");
}

/* Doubling, as far as the batch goes. */
static xkd_status print_ranks(struct plan *p, const struct values *v)
{
    xkd_status status = XKD_OK;
    plan_way way;
    printf("\n%10s %17s %10s %14s\n", "ranks", "train.accumulate", "each", "time in all");
    int64_t last = v->ranks ? v->ranks : 1 << (SHOWN_RANKS - 1);
    for (int64_t ranks = v->ranks ? v->ranks : 1; ranks <= last; ranks *= 2) {
        if (!v->ranks && (p->config.train.batch % ranks || p->config.train.batch / ranks < 2)) break;
        XKD_TRY(plan_ranks(p, ranks, &way));
        print_rank_row(&way);
    }
    printf("each rank on a machine of this kind, %.3g GB/s between them, if data keep up ('xkd bench data')\n",
           p->network / 1e9);
fail:
    return status;
}

static xkd_status print_deadline(struct plan *p, double hours)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cli->cx;
    plan_way way;
    bool found;
    char time[32];
    XKD_TRY(find_ranks(p, hours, &way, &found));
    if (!found)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "plan: no number of ranks that divides the batch of %" PRId64
                 " ends within %g hours: allow more, or plan fewer epochs (hyperparams.num_epochs)",
                 p->config.train.batch, hours);
    xkd_format_duration(time, sizeof time, way.seconds);
    printf("\n%g hours     %" PRId64 " ranks with train.accumulate=%" PRId64 ": %s\n", hours, way.ranks, way.accumulate,
           time);
fail:
    return status;
}

static void print_disk(const struct plan *p)
{
    const plan_disk *d = &p->disk;
    char a[32], b[32], c[32], e[32];
    printf("\n%-12s %s checkpoints (%" PRId64 " kept, one being written) + %s encoders", "disk",
           in_gb(a, sizeof a, d->checkpoints), p->config.run.keep_last, in_gb(b, sizeof b, d->backbones));
    if (p->base.total_steps)
        printf(" + about %s logs + %s pictures", in_gb(c, sizeof c, d->logs), in_gb(e, sizeof e, d->pictures));
    if (d->cache > 0) printf(" + %s data.cache", in_gb(c, sizeof c, d->cache));
    printf("\n");
}

static xkd_status print_plan(struct plan *p, const struct values *v)
{
    xkd_status status = XKD_OK;
    print_model(p);
    print_ways(p);
    print_choice(p);
    XKD_TRY(print_ranks(p, v));
    if (v->hours > 0) XKD_TRY(print_deadline(p, v->hours));
    print_disk(p);
fail:
    return status;
}

/* ---- for programs ---- */

static void put_way(const plan_way *w, const char *before)
{
    printf("%s{\"ranks\": %" PRId64 ", \"accumulate\": %" PRId64 ", \"micro_batch\": %" PRId64
           ", \"memory_bytes\": %.0f, \"fits\": %s, \"exchange_seconds\": %.6g, \"seconds\": ",
           before, w->ranks, w->accumulate, w->micro_batch, w->memory, w->fits ? "true" : "false", w->exchange);
    printf(w->seconds > 0 ? "%.6g}" : "null}", w->seconds);
}

static xkd_status print_json(struct plan *p, const struct values *v)
{
    xkd_status status = XKD_OK;
    static const char *const sources[] = {"measured", "given", "bench", "gflops", "unknown"};
    const xkd_train_plan *b = &p->base;
    plan_way ranks, deadline;
    bool found = false;
    XKD_TRY(plan_ranks(p, v->ranks ? v->ranks : 1, &ranks));
    if (v->hours > 0) XKD_TRY(find_ranks(p, v->hours, &deadline, &found));
    printf("{\"parameters\": %" PRId64 ", \"trained\": %" PRId64 ", \"batch\": %" PRId64 ", \"samples\": %" PRId64
           ", \"total_steps\": %" PRId64 ", \"rate\": {\"source\": \"%s\", \"seconds_per_sample\": %.6g, "
           "\"seconds_per_step\": %.6g, \"gflop_per_sample\": %.6g}, \"memory_limit_bytes\": %.0f, \"ways\": [",
           b->parameters, b->trained, p->config.train.batch, b->samples, b->total_steps, sources[p->rate.source],
           p->rate.per_sample, p->rate.per_step, 2 * p->details.products_per_sample / 1e9, p->memory);
    for (int64_t i = 0; i < p->way_count; i++) put_way(&p->ways[i], i ? ", " : "");
    put_way(&ranks, "], \"plan\": ");
    if (found) put_way(&deadline, ", \"deadline\": ");
    if (v->hours > 0 && !found) printf(", \"deadline\": null");
    printf(", \"disk\": {\"checkpoint_bytes\": %.0f, \"backbone_bytes\": %.0f, \"log_bytes\": %.0f, \"picture_bytes\": "
           "%.0f, \"cache_bytes\": %.0f}}\n",
           p->disk.checkpoints, p->disk.backbones, p->disk.logs, p->disk.pictures, p->disk.cache);
fail:
    return status;
}

/* ---- the command ---- */

static xkd_status check_values(struct cli *cli, const struct values *v)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    const double positive[] = {v->memory, v->hours, v->seconds, v->gflops, v->network};
    for (size_t i = 0; i < sizeof positive / sizeof *positive; i++)
        if (!(positive[i] >= 0 && isfinite(positive[i])))
            XKD_FAIL(XKD_ERR_CONFIG, "plan: --memory, --hours, --seconds, --gflops and --network are positive numbers");
    if (v->samples < 0 || v->ranks < 0) XKD_FAIL(XKD_ERR_CONFIG, "plan: --samples and --ranks are positive numbers");
    if (v->data && v->samples) XKD_FAIL(XKD_ERR_CONFIG, "plan: --data counts its videos itself: leave out --samples");
    if ((v->bench != NULL) + (v->seconds > 0) + (v->gflops > 0) > 1)
        XKD_FAIL(XKD_ERR_CONFIG, "plan: --bench, --seconds and --gflops say the same: give one of them");
    if (v->hours > 0 && !v->data && !v->samples)
        XKD_FAIL(XKD_ERR_CONFIG, "plan: --hours needs to know how many videos there are: give --data or --samples");
    if (v->network == 0) XKD_FAIL(XKD_ERR_CONFIG, "plan: --network must be above 0");
fail:
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    struct values v = {.network = NETWORK_GB};
    struct plan p = {.cli = cli};
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_plan, argc, argv, &v, &rest));
    XKD_TRY(check_values(cli, &v));
    p.config_file = v.config;
    p.data = v.data;
    p.bench = v.bench;
    p.overrides = argv + 1;
    p.override_count = rest;
    p.samples = v.samples;
    p.memory = 1e9 * v.memory;
    p.network = 1e9 * v.network;
    p.given = v.seconds;
    p.gflops = v.gflops;
    XKD_TRY(plan_make(&p));
    XKD_TRY(cli->json ? print_json(&p, &v) : print_plan(&p, &v));
fail:
    plan_free(&p);
    return status;
}

const struct cli_command cmd_plan = {
    .name = "plan",
    .summary = "tell what a pre-training takes in memory, hours and disk, and what fits",
    .usage = "[--data PATH | --samples N] [-c FILE] [--memory GB] [--hours H] [KEY=VALUE ...]",
    .description =
        "Lays out the model for every number of micro-batches that divides the batch, as a training would, and says "
        "which\n"
        "fit. A step is timed here unless a rate is given. Ranks are one training on several machines: they end with "
        "the\n"
        "bits of one that accumulates. 'xkd pretrain --dry-run' checks one training; nothing is written by either.",
    .example = "xkd plan --samples 240000 --memory 16\n"
               "  xkd plan --data videos.jsonl -c configs/xkd.yaml --hours 72 --bench other-machine.json",
    .options = options,
    .run = run,
};
