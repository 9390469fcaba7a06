/* xkd bench step: what one training step costs, beside what this machine reaches in matrix products in the same run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "backend/cpu/rate.h"
#include "backend/cuda/cuda.h"
#include "base/alloc.h"
#include "base/status.h"
#include "bench_model.h"

/* threads: of the step and of the rate that it is compared with. */
struct values {
    const char *config, *device;
    int64_t batch, threads, repeats;
    bool count;
};

static const struct cli_option options[] = {
    {'c', "config", CLI_TEXT, offsetof(struct values, config), "FILE", "configuration (default: XKD's, full size)"},
    {'b', "batch", CLI_INT, offsetof(struct values, batch), "N", "samples a step (default 8)"},
    {0, "repeats", CLI_INT, offsetof(struct values, repeats), "N", "timed steps; the median counts (default 5)"},
    {0, "threads", CLI_INT, offsetof(struct values, threads), "N", "threads (default: all processors)"},
    {0, "device", CLI_TEXT, offsetof(struct values, device), "NAME", "cpu (default), cuda or ref"},
    {0, "count", CLI_FLAG, offsetof(struct values, count), NULL,
     "on cuda: launches, bytes and FLOP of each operation of a step, by the program's own account"},
    {0, "backend", CLI_TEXT, offsetof(struct values, device), "NAME", "the same as --device"},
    {0},
};

/* Everything of one measurement. */
struct bench {
    struct bench_model model;
    double seconds, products; /* median, s; multiply-adds of one step */
    xkd_gemm_rates gemm;
    int64_t new_allocations; /* after the first step; should be 0 */
    int64_t asked;           /* of a GPU, in the last step (xkd_backend_asked) */
};

/* For the median. */
static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The first step touches memory for the first time and is not counted. The rate of the machine is taken in the
 * same process and with the same threads. */
static xkd_status measure(struct cli *cli, struct bench *b, const struct values *v)
{
    xkd_context *cx = cli->cx;
    xkd_status status = XKD_OK;
    double *seconds = NULL;
    XKD_TRY(xkd_alloc(cx, &seconds, v->repeats, sizeof *seconds));
    bench_model_step(&b->model); /* warms up: memory, threads, oneDNN's kernels */
    /* Counted over the timed steps alone. */
    b->model.be->products = 0;
    int64_t before = xkd_alloc_count(cx);
    for (int64_t i = 0; i < v->repeats; i++) {
        b->asked = -xkd_backend_asked(b->model.be);
        seconds[i] = bench_model_step(&b->model);
        b->asked += xkd_backend_asked(b->model.be);
        xkd_log(cx, XKD_LOG_INFO, "step %lld of %lld: %.3f s, loss %.4f", (long long)i + 1, (long long)v->repeats,
                seconds[i], b->model.losses[XKD_LOSS_TOTAL]);
    }
    b->new_allocations = xkd_alloc_count(cx) - before;
    XKD_TRY(xkd_backend_status(b->model.be));
    qsort(seconds, (size_t)v->repeats, sizeof *seconds, by_value);
    /* The upper median where the number is even. */
    b->seconds = seconds[v->repeats / 2];
    b->products = (double)b->model.be->products / (double)v->repeats;
    /* After the steps and in the same process, so that both meet the same clock rate. A GPU is not held against it. */
    if (!b->model.be->cuda) XKD_TRY(xkd_gemm_rate(cx, (int)v->threads, &b->gemm));
fail:
    xkd_free(seconds);
    return status;
}

/* Bytes that do not grow with the batch: parameters and their working copies, gradients, moments. */
static double state_bytes(const struct bench *b)
{
    const xkd_params *p = &xkd_trainer_look(b->model.trainer)->networks.params;
    return (double)(p->values.size + p->copies.size + p->grads.size + p->moments.size);
}

/* 2 FLOP a multiply-add; the share is what the step's products reach of what the machine can do. */
static void print(const struct cli *cli, const struct bench *b, const struct values *v)
{
    double samples = (double)b->model.config.train.batch, flop = 2 * b->products;
    double rate = flop / b->seconds, gemm = xkd_gemm_best(&b->gemm), share = rate / gemm;
    char machine[100] = "\"gemm_gflops\": null, \"gemm_share\": null";
    struct rusage usage;
    if (gemm > 0) snprintf(machine, sizeof machine, "\"gemm_gflops\": %.3f, \"gemm_share\": %.4f", gemm / 1e9, share);
    getrusage(RUSAGE_SELF, &usage);
    /* new_allocations is a promise of the library: a step after the first allocates nothing. */
    if (cli->json) {
        printf("{\"s_per_sample\": %.6f, \"gflops\": %.3f, %s, "
               "\"gflop_per_sample\": %.3f, \"batch\": %lld, \"threads\": %lld, \"state_bytes\": %.0f, "
               "\"activation_bytes\": %lld, \"peak_rss_bytes\": %lld, \"new_allocations\": %lld, "
               "\"asked_of_device\": %lld}\n",
               b->seconds / samples, rate / 1e9, machine, flop / samples / 1e9, (long long)b->model.config.train.batch,
               (long long)v->threads, state_bytes(b), (long long)xkd_trainer_look(b->model.trainer)->pass.arena.size,
               (long long)usage.ru_maxrss * 1024, (long long)b->new_allocations, (long long)b->asked);
        return;
    }
    printf("%-34s %10.4f s\n", "time per sample", b->seconds / samples);
    printf("%-34s %10.1f GFLOP\n", "matrix products per sample", flop / samples / 1e9);
    printf("%-34s %10.1f GFLOP/s\n", "their rate in the step", rate / 1e9);
    if (gemm > 0) {
        printf("%-34s %10.1f GFLOP/s\n", "this machine's GEMM rate", gemm / 1e9);
        printf("%-34s %10.1f %%\n", "share of the GEMM rate", 100 * share);
    }
    printf("%-34s %10.2f GB\n", "state", state_bytes(b) / 1e9);
    printf("%-34s %10.1f MB per sample\n", "activations",
           (double)xkd_trainer_look(b->model.trainer)->pass.arena.size / samples / 1e6);
    printf("%-34s %10lld\n", "allocations after the first step", (long long)b->new_allocations);
    if (b->asked) printf("%-34s %10lld\n", "requests to the device per step", (long long)b->asked);
}

enum { OPERATIONS = 128 };

static void print_count(const struct cli *cli, const xkd_cuda_count *c, bool first)
{
    if (cli->json)
        printf("%s\"%s\": {\"launches\": %lld, \"bytes\": %lld, \"flop\": %lld}", first ? "" : ", ", c->name,
               c->launches, c->bytes, c->flop);
    else
        printf("%-28s %8lld launches %12.3f GB %14.3f GFLOP\n", c->name, c->launches, (double)c->bytes / 1e9,
               (double)c->flop / 1e9);
}

/* One step, told by operation in the order in which it first asks for them. */
static xkd_status count_step(struct cli *cli, struct bench *b)
{
    xkd_cuda_count list[OPERATIONS], all = {.name = "all"};
    xkd_backend *be = b->model.be;
    xkd_cuda_counts(be, NULL, 0);
    bench_model_step(&b->model);
    int n = xkd_cuda_counts(be, list, OPERATIONS);
    if (n == 0) return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--count: wants --device cuda");
    if (cli->json) printf("{");
    for (int i = 0; i < n; i++) {
        print_count(cli, &list[i], i == 0);
        all.launches += list[i].launches;
        all.bytes += list[i].bytes;
        all.flop += list[i].flop;
    }
    print_count(cli, &all, false);
    if (cli->json) printf("}\n");
    return xkd_backend_status(be);
}

static xkd_status bench(struct cli *cli, const struct values *v, char **overrides, int count)
{
    xkd_status status = XKD_OK;
    struct bench b = {0};
    /* A simulation counts what is asked of it at any size, because it does none of it. */
    const char *device = v->count && strcmp(v->device, "cuda-sim") == 0 ? "cuda-sim:count" : v->device;
    XKD_TRY(bench_model_make(cli->cx, &b.model,
                             &(struct bench_model_args){v->config, device, v->batch, v->threads, overrides, count}));
    if (v->count) {
        XKD_TRY(count_step(cli, &b));
    } else {
        XKD_TRY(measure(cli, &b, v));
        print(cli, &b, v);
    }
fail:
    bench_model_free(&b.model);
    return status;
}

/* Ranges are checked here, as the option table knows types only. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_context *cx = cli->cx;
    struct values v = {.device = "cpu", .batch = 8, .repeats = 5, .threads = xkd_processor_count()};
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_bench_step, argc, argv, &v, &rest);
    if (status != XKD_OK) return status;
    if (v.batch < 1 || v.repeats < 1 || v.threads < 1)
        return xkd_fail(cx, XKD_ERR_CONFIG, "--batch, --repeats and --threads want at least 1");
    return bench(cli, &v, argv + 1, rest);
}

const struct cli_command cmd_bench_step = {
    .name = "step",
    .summary = "time of a training step, its matrix products and their share of this machine's GEMM rate",
    .usage = "[--batch N] [-c FILE] [key=value ...]",
    .description =
        "On a GPU it also tells how often the host asked the device for something in a step: launches, copies and "
        "whole\n"
        "graphs. The last step is counted, which is one from graphs (--json: asked_of_device, 0 on a CPU).",
    .example = "xkd bench step --batch 8 model.fwd_kwargs.teacher_view=local --json",
    .options = options,
    .run = run,
};
