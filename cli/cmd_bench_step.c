/* xkd bench step: what one training step costs, beside what this machine reaches in matrix products in the same run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "backend/cpu/rate.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "cli.h"
#include "train/step.h"

/* threads: of the step and of the rate that it is compared with. */
struct values {
    const char *config, *backend;
    int64_t batch, threads, repeats;
};

static const struct cli_option options[] = {
    {'c', "config", CLI_TEXT, offsetof(struct values, config), "FILE", "configuration (default: XKD's, full size)"},
    {'b', "batch", CLI_INT, offsetof(struct values, batch), "N", "samples a step (default 8)"},
    {0, "repeats", CLI_INT, offsetof(struct values, repeats), "N", "timed steps; the median counts (default 5)"},
    {0, "threads", CLI_INT, offsetof(struct values, threads), "N", "threads (default: all processors)"},
    {0, "backend", CLI_TEXT, offsetof(struct values, backend), "NAME", "cpu (default) or ref"},
    {0},
};

/* Everything of one measurement. Views and noise are made once and used for all steps: data are not part of what is
 * measured. */
struct bench {
    xkd_config config;
    xkd_view_shape *shape[XKD_MODALITIES];
    float **clips[XKD_MODALITIES], *noise[XKD_MODALITIES];
    int64_t views[XKD_MODALITIES];
    xkd_backend *be;
    xkd_trainer trainer;
    double seconds, products; /* median, s; multiply-adds of one step */
    xkd_gemm_rates gemm;
    int64_t new_allocations;              /* after the first step; should be 0 */
    double losses[XKD_LOSS_COUNT];        /* of the last step */
};

/* Uniform in [0, 1). */
static xkd_status random_floats(xkd_context *cx, float **out, int64_t count, uint32_t stream)
{
    xkd_status status = XKD_OK;
    xkd_rng rng = xkd_rng_make(1, 0, stream, 0, XKD_RNG_TEST);
    XKD_TRY(xkd_alloc(cx, out, count, sizeof **out));
    for (int64_t i = 0; i < count; i++) (*out)[i] = (float)xkd_rng_u32(&rng) * 0x1p-32f;
fail:
    return status;
}

/* Random views of the configured sizes: the time of a step does not depend on what is in them. */
static xkd_status make_views(xkd_context *cx, struct bench *b, xkd_modality m)
{
    xkd_status status = XKD_OK;
    int64_t B = b->config.train.batch, g = b->config.step.global_views;
    int64_t C = m == XKD_VIDEO ? b->config.model.channels : 1;
    b->views[m] = g + (m == XKD_VIDEO ? b->config.data.video_local_views : b->config.data.audio_local_views);
    XKD_TRY(xkd_alloc(cx, &b->shape[m], b->views[m], sizeof *b->shape[m]));
    XKD_TRY(xkd_alloc(cx, &b->clips[m], b->views[m], sizeof *b->clips[m]));
    for (int64_t v = 0; v < b->views[m]; v++) {
        xkd_view_shape *s = &b->shape[m][v];
        *s = xkd_config_view(&b->config, m, v >= g);
        XKD_TRY(random_floats(cx, &b->clips[m][v], B * C * s->T * s->H * s->W, (uint32_t)(100 * m + v)));
    }
    xkd_view_shape *s = &b->shape[m][0];
    /* One float of noise a pixel: more than there are tokens. */
    XKD_TRY(random_floats(cx, &b->noise[m], g * B * s->T * s->H * s->W, 1000 + m));
fail:
    return status;
}

/* For the median. */
static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Schedules stand at their base values, since the time does not depend on them. */
static double one_step(struct bench *b)
{
    const xkd_train_config *t = &b->config.train;
    /* The batch is one micro-batch: with accumulation a step is a multiple of it. */
    xkd_pass_input in = {.clips = {(const float *const *)b->clips[0], (const float *const *)b->clips[1]},
                         .noise = {b->noise[0], b->noise[1]}};
    xkd_step_values values = {
        .lr = t->lr.base, .weight_decay = t->weight_decay.base, .ema = {t->ema[0].base, t->ema[1].base}};
    xkd_step_result result;
    for (int m = 0; m < XKD_MODALITIES; m++) {
        values.temp.teacher_temp[m] = t->teacher_temp[m];
        values.temp.student_temp[m] = t->student_temp[m];
    }
    /* Optimiser and moving averages belong to the step and to its time. */
    double start = xkd_now();
    xkd_step_begin(&b->trainer, &result);
    xkd_step_micro_batch(&b->trainer, &in, &values, &result);
    xkd_step_finish(&b->trainer, &values, &result);
    double seconds = xkd_now() - start;
    memcpy(b->losses, result.loss, sizeof b->losses);
    return seconds;
}

/* The first step touches memory for the first time and is not counted. The rate of the machine is taken in the
 * same process and with the same threads. */
static xkd_status measure(struct cli *cli, struct bench *b, const struct values *v)
{
    xkd_context *cx = cli->cx;
    xkd_status status = XKD_OK;
    double *seconds = NULL;
    XKD_TRY(xkd_alloc(cx, &seconds, v->repeats, sizeof *seconds));
    one_step(b); /* warms up: memory, threads, oneDNN's kernels */
    /* Counted over the timed steps alone. */
    b->be->products = 0;
    int64_t before = xkd_alloc_count(cx);
    for (int64_t i = 0; i < v->repeats; i++) {
        seconds[i] = one_step(b);
        xkd_log(cx, XKD_LOG_INFO, "step %lld of %lld: %.3f s, loss %.4f", (long long)i + 1, (long long)v->repeats,
                seconds[i], b->losses[XKD_LOSS_TOTAL]);
    }
    b->new_allocations = xkd_alloc_count(cx) - before;
    XKD_TRY(xkd_backend_status(b->be));
    qsort(seconds, (size_t)v->repeats, sizeof *seconds, by_value);
    /* The upper median where the number is even. */
    b->seconds = seconds[v->repeats / 2];
    b->products = (double)b->be->products / (double)v->repeats;
    /* After the steps and in the same process, so that both meet the same clock rate. */
    XKD_TRY(xkd_gemm_rate(cx, (int)v->threads, &b->gemm));
fail:
    xkd_free(seconds);
    return status;
}

/* Bytes that do not grow with the batch: parameters, gradients, moments. */
static double state_bytes(const struct bench *b)
{
    const xkd_params *p = &b->trainer.networks.params;
    return (double)(p->values.size + p->grads.size + p->moments.size);
}

/* 2 FLOP a multiply-add; the share is what the step's products reach of what the machine can do. */
static void print(const struct cli *cli, const struct bench *b, const struct values *v)
{
    double samples = (double)b->config.train.batch, flop = 2 * b->products;
    double rate = flop / b->seconds, gemm = xkd_gemm_best(&b->gemm), share = rate / gemm;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    /* new_allocations is a promise of the library: a step after the first allocates nothing. */
    if (cli->json) {
        printf("{\"s_per_sample\": %.6f, \"gflops\": %.3f, \"gemm_gflops\": %.3f, \"gemm_share\": %.4f, "
               "\"gflop_per_sample\": %.3f, \"batch\": %lld, \"threads\": %lld, \"state_bytes\": %.0f, "
               "\"activation_bytes\": %lld, \"peak_rss_bytes\": %lld, \"new_allocations\": %lld}\n",
               b->seconds / samples, rate / 1e9, gemm / 1e9, share, flop / samples / 1e9,
               (long long)b->config.train.batch, (long long)v->threads, state_bytes(b),
               (long long)b->trainer.pass.arena.size, (long long)usage.ru_maxrss * 1024, (long long)b->new_allocations);
        return;
    }
    printf("%-34s %10.4f s\n", "time per sample", b->seconds / samples);
    printf("%-34s %10.1f GFLOP\n", "matrix products per sample", flop / samples / 1e9);
    printf("%-34s %10.1f GFLOP/s\n", "their rate in the step", rate / 1e9);
    printf("%-34s %10.1f GFLOP/s\n", "this machine's GEMM rate", gemm / 1e9);
    printf("%-34s %10.1f %%\n", "share of the GEMM rate", 100 * share);
    printf("%-34s %10.2f GB\n", "state", state_bytes(b) / 1e9);
    printf("%-34s %10.1f MB per sample\n", "activations", (double)b->trainer.pass.arena.size / samples / 1e6);
    printf("%-34s %10lld\n", "allocations after the first step", (long long)b->new_allocations);
}

/* KEY=VALUE may change anything but the batch, which has an option of its own. No schedule, no loader, no run folder:
 * a trainer alone. */
static xkd_status bench(struct cli *cli, const struct values *v, char **overrides, int count)
{
    xkd_context *cx = cli->cx;
    xkd_status status = XKD_OK;
    struct bench b = {0};
    XKD_TRY(xkd_config_init(cx, &b.config));
    if (v->config) XKD_TRY(xkd_config_load(cx, &b.config, v->config, false));
    for (int i = 0; i < count; i++) XKD_TRY(xkd_config_override(cx, &b.config, overrides[i]));
    XKD_TRY(xkd_config_finish(cx, &b.config));
    /* After the checks, which hold for the configured batch. */
    b.config.train.batch = v->batch;
    b.config.train.accumulate = 1;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) XKD_TRY(make_views(cx, &b, m));
    XKD_TRY(xkd_backend_new(cx, &b.be, v->backend, XKD_F32, (int)v->threads));
    xkd_batch_shape shape = {.B = v->batch, .views = {b.views[0], b.views[1]}, .shape = {b.shape[0], b.shape[1]}};
    XKD_TRY(xkd_trainer_new(cx, &b.trainer, b.be, &b.config, &shape, false));
    XKD_TRY(measure(cli, &b, v));
    print(cli, &b, v);
fail:
    xkd_trainer_free(&b.trainer);
    xkd_backend_free(b.be);
    for (int m = 0; m < XKD_MODALITIES; m++) {
        for (int64_t i = 0; b.clips[m] && i < b.views[m]; i++) xkd_free(b.clips[m][i]);
        xkd_free(b.clips[m]);
        xkd_free(b.shape[m]);
        xkd_free(b.noise[m]);
    }
    xkd_config_free(&b.config);
    return status;
}

/* Ranges are checked here, as the option table knows types only. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_context *cx = cli->cx;
    struct values v = {.backend = "cpu", .batch = 8, .repeats = 5, .threads = xkd_processor_count()};
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
    .example = "xkd bench step --batch 8 model.fwd_kwargs.teacher_view=local --json",
    .options = options,
    .run = run,
};
