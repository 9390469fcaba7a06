/* xkd bench svm: what the linear SVM takes on features of a given size. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "cli.h"
#include "eval/judge/svm.h"

/* A spread of 0 is the hardest case: no class can be told from another, and sweeps do not end early. */
struct values {
    int64_t samples, width, classes, clips, threads;
    double cost, spread;
};

static const struct cli_option options[] = {
    {'n', "samples", CLI_INT, offsetof(struct values, samples), "N", "clips in all (default: 238000, UCF101's fold 1)"},
    {0, "width", CLI_INT, offsetof(struct values, width), "D", "features of a clip (default: 768)"},
    {0, "classes", CLI_INT, offsetof(struct values, classes), "K", "classes (default: 101)"},
    {0, "clips", CLI_INT, offsetof(struct values, clips), "N", "clips of one video (default: 25)"},
    {0, "cost", CLI_REAL, offsetof(struct values, cost), "C", "the SVM's C (default: 1)"},
    {0, "spread", CLI_REAL, offsetof(struct values, spread), "S",
     "distance of class centres in deviations of a video (default: 0.3; 0: pure noise)"},
    {'t', "threads", CLI_INT, offsetof(struct values, threads), "N", "threads (default: processors)"},
    {0},
};

/* A clip is its class's centre, plus its video's own place, plus half as much noise of its own. */
static void draw_features(const struct values *v, float *x, int32_t *label)
{
    for (int64_t i = 0; i < v->samples; i++) {
        int64_t video = i / v->clips;
        label[i] = (int32_t)(video % v->classes); /* clips of one video share its class and its place */
        xkd_rng centre = xkd_rng_make(1, 0, (uint32_t)label[i], 0, XKD_RNG_TEST);
        xkd_rng place = xkd_rng_make(1, 1, (uint32_t)video, 0, XKD_RNG_TEST);
        xkd_rng own = xkd_rng_make(1, 2, (uint32_t)i, 0, XKD_RNG_TEST);
        for (int64_t k = 0; k < v->width; k++)
            x[i * v->width + k] =
                (float)(v->spread * xkd_rng_normal(&centre) + xkd_rng_normal(&place) + 0.5 * xkd_rng_normal(&own));
    }
}

/* Under the library's lock: one thread at a time calls it. */
static void progress(void *user, int64_t done, int64_t total)
{
    char line[80];
    snprintf(line, sizeof line, "%" PRId64 " of %" PRId64 " classes", done, total);
    cli_progress(user, line);
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    /* UCF101's first fold with 25 clips a video, 768 features of a base encoder. */
    struct values v = {238000, 768, 101, 25, xkd_processor_count(), 1, 0.3};
    float *x = NULL;
    int32_t *label = NULL;
    xkd_pool *pool = NULL;
    xkd_svm_model model = {0};
    xkd_svm_cost cost;
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_bench_svm, argc, argv, &v, &rest));
    XKD_TRY(cli_no_arguments(cli, &cmd_bench_svm, rest, argv));
    if (v.samples < 2 || v.width < 1 || v.classes < 2 || v.clips < 1 || v.threads < 1)
        XKD_FAIL(XKD_ERR_CONFIG, "bench svm: sizes must be positive, classes at least 2");
    XKD_TRY(xkd_alloc(cx, &x, v.samples * v.width, sizeof *x));
    XKD_TRY(xkd_alloc(cx, &label, v.samples, sizeof *label));
    draw_features(&v, x, label);
    XKD_TRY(xkd_pool_new(cx, &pool, (int)v.threads));
    XKD_TRY(xkd_svm_estimate(cx, pool, v.samples, v.width, v.classes, &cost));
    cli_say(cli, "estimate: %.2f GB, %.0f s", cost.bytes * 1e-9, cost.seconds);
    /* LinearSVC's tolerance and iterations; only C is changed. */
    xkd_svm_options o = xkd_svm_defaults();
    o.C = v.cost;
    o.progress = progress;
    o.user = cli;
    xkd_svm_data data = {.x = x, .label = label, .n = v.samples, .D = v.width, .K = v.classes};
    /* Drawing and the estimate are not in the time. */
    double start = xkd_now(), sweeps = 0;
    XKD_TRY(xkd_svm_train(cx, pool, &data, &o, &model));
    double seconds = xkd_now() - start;
    /* The peak of the process, features included; ru_maxrss is in units of 1024 bytes on Linux. */
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    for (int64_t c = 0; c < v.classes; c++) sweeps += (double)model.iterations[c] / (double)v.classes;
    printf(cli->json ? "{\"seconds\": %.2f, \"sweeps\": %.1f, \"unconverged\": %" PRId64 ", \"peak_gb\": %.3f}\n"
                     : "%.2f s, %.1f sweeps a class, %" PRId64 " classes at the iteration limit, %.3f GB at most\n",
           seconds, sweeps, model.unconverged, (double)usage.ru_maxrss * 1024e-9);
fail:
    xkd_svm_free(&model);
    xkd_pool_free(pool);
    xkd_free(x);
    xkd_free(label);
    return status;
}

const struct cli_command cmd_bench_svm = {
    .name = "svm",
    .summary = "time the linear SVM on random features",
    .usage = "[--samples N] [--width D] [--classes K] [--cost C]",
    .example = "xkd bench svm --samples 23800",
    .options = options,
    .run = run,
};
