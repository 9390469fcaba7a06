/* xkd bench gemm: the matrix products of the full model one by one, beside what this machine reaches in a large one. */
#include <stdio.h>

#include "backend/backend.h"
#include "backend/cpu/levels.h"
#include "backend/cpu/rate.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "cli.h"

struct values {
    int64_t rows, threads, repeats;
};

static const struct cli_option options[] = {
    {0, "rows", CLI_INT, offsetof(struct values, rows), "N", "rows of the activations (default 4488, 8 audio clips)"},
    {0, "repeats", CLI_INT, offsetof(struct values, repeats), "N", "runs of each; the fastest counts (default 5)"},
    {0, "threads", CLI_INT, offsetof(struct values, threads), "N", "threads (default: all processors)"},
    {0},
};

/* Layers of the base encoder and decoder; in -> out. */
static const struct {
    const char *name;
    int64_t in, out;
} layers[] = {
    {"encoder qkv", 768, 2304}, {"encoder proj", 768, 768}, {"encoder fc1", 768, 3072}, {"encoder fc2", 3072, 768},
    {"decoder qkv", 384, 1152}, {"decoder fc1", 384, 1536}, {"decoder fc2", 1536, 384}, {"large fc1", 1024, 4096},
    {"embedding", 3072, 768},   {"small fc1", 144, 576},
};
enum { LAYERS = sizeof layers / sizeof *layers, WIDEST = 4096 * 1024 };

enum { FORWARD, GELU, DATA, WEIGHT, KINDS };
static const char *const kinds[KINDS] = {"forward", "with GELU", "data", "weight"};

struct bench {
    xkd_backend *be;
    float *x, *y, *z, *w, *dw, *db;
    int64_t rows, repeats;
};

static void run_once(const struct bench *b, int kind, int64_t in, int64_t out)
{
    const xkd_ops *ops = b->be->ops;
    if (kind == FORWARD) ops->linear_forward(b->be, b->y, b->x, b->w, b->db, b->rows, out, in);
    if (kind == GELU) ops->linear_gelu_forward(b->be, b->z, b->y, b->x, b->w, b->db, b->rows, out, in);
    if (kind == DATA) ops->linear_backward_data(b->be, b->x, b->y, b->w, b->rows, out, in);
    if (kind == WEIGHT) ops->linear_backward_weight(b->be, b->dw, b->db, b->y, b->x, b->rows, out, in);
}

/* FLOP/s of the fastest of the runs; the first one touches memory and is not counted. Inputs are made again each time,
 * since products overwrite them. */
static double rate_of(const struct bench *b, int kind, int64_t in, int64_t out)
{
    double best = 1e30;
    b->be->ops->fill(b->be, b->x, 0.5, b->rows * in);
    b->be->ops->fill(b->be, b->y, 0.25, b->rows * out);
    for (int64_t i = 0; i <= b->repeats; i++) {
        double start = xkd_now();
        run_once(b, kind, in, out);
        double seconds = xkd_now() - start;
        if (i && seconds < best) best = seconds;
    }
    return 2.0 * (double)(b->rows * in * out) / best;
}

static void print_row(const struct cli *cli, const struct bench *b, int layer, double machine, bool last)
{
    double rate[KINDS];
    for (int k = 0; k < KINDS; k++) rate[k] = rate_of(b, k, layers[layer].in, layers[layer].out) / 1e9;
    if (!cli->json) {
        printf("%-14s %5lld -> %-5lld", layers[layer].name, (long long)layers[layer].in, (long long)layers[layer].out);
        for (int k = 0; k < KINDS; k++) printf("  %7.1f %3.0f %%", rate[k], 100 * rate[k] * 1e9 / machine);
        printf("\n");
        return;
    }
    printf("{\"layer\": \"%s\", \"in\": %lld, \"out\": %lld", layers[layer].name, (long long)layers[layer].in,
           (long long)layers[layer].out);
    for (int k = 0; k < KINDS; k++) printf(", \"%s_gflops\": %.2f", k == GELU ? "gelu" : kinds[k], rate[k]);
    printf("}%s", last ? "" : ", ");
}

static void print(const struct cli *cli, const struct bench *b, const xkd_gemm_rates *machine, const char *level)
{
    double best = xkd_gemm_best(machine);
    if (cli->json)
        printf("{\"level\": \"%s\", \"rows\": %lld, \"own_gflops\": %.2f, \"onednn_gflops\": %.2f, \"layers\": [",
               level, (long long)b->rows, machine->own / 1e9, machine->onednn / 1e9);
    else
        printf("level %s, 4096x3072x3072: own %.1f, oneDNN %.1f GFLOP/s\n%-30s  %-13s  %-13s  %-13s  %s\n", level,
               machine->own / 1e9, machine->onednn / 1e9, "GFLOP/s and share", kinds[0], kinds[1], kinds[2], kinds[3]);
    for (int i = 0; i < LAYERS; i++) print_row(cli, b, i, best, i + 1 == LAYERS);
    if (cli->json) printf("]}\n");
}

static xkd_status bench(struct cli *cli, const struct values *v)
{
    xkd_context *cx = cli->cx;
    xkd_status status = XKD_OK;
    struct bench b = {.rows = v->rows, .repeats = v->repeats};
    xkd_gemm_rates machine;
    const xkd_cpu_level *level;
    int64_t widest = v->rows * 4096;
    XKD_TRY(xkd_cpu_level_choose(cx, &level));
    XKD_TRY(xkd_backend_new(cx, &b.be, "cpu", XKD_F32, (int)v->threads));
    XKD_TRY(xkd_alloc(cx, &b.x, widest, sizeof *b.x));
    XKD_TRY(xkd_alloc(cx, &b.y, widest, sizeof *b.y));
    XKD_TRY(xkd_alloc(cx, &b.z, widest, sizeof *b.z));
    XKD_TRY(xkd_alloc(cx, &b.w, WIDEST, sizeof *b.w));
    XKD_TRY(xkd_alloc(cx, &b.dw, WIDEST, sizeof *b.dw));
    XKD_TRY(xkd_alloc(cx, &b.db, 4096, sizeof *b.db));
    b.be->ops->fill(b.be, b.w, 0.01, WIDEST);
    XKD_TRY(xkd_gemm_rate(cx, (int)v->threads, &machine));
    print(cli, &b, &machine, level->name);
    XKD_TRY(xkd_backend_status(b.be));
fail:
    xkd_free(b.x);
    xkd_free(b.y);
    xkd_free(b.z);
    xkd_free(b.w);
    xkd_free(b.dw);
    xkd_free(b.db);
    xkd_backend_free(b.be);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values v = {.rows = 4488, .threads = xkd_processor_count(), .repeats = 5};
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_bench_gemm, argc, argv, &v, &rest);
    if (status == XKD_OK) status = cli_no_arguments(cli, &cmd_bench_gemm, rest, argv);
    if (status != XKD_OK) return status;
    if (v.rows < 1 || v.rows > 1 << 20 || v.repeats < 1 || v.threads < 1)
        return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--rows wants 1 to 1048576, --repeats and --threads at least 1");
    return bench(cli, &v);
}

const struct cli_command cmd_bench_gemm = {
    .name = "gemm",
    .summary = "rate of the model's matrix products, one by one",
    .usage = "[--rows N] [--threads N]",
    .example = "xkd bench gemm --json",
    .options = options,
    .run = run,
};
