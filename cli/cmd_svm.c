/* xkd svm: a linear classifier on frozen features. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "class_table.h"
#include "config/config.h"
#include "feature_args.h"
#include "report/progress.h"

enum { MOST_COSTS = 32, BOOTSTRAPS = 2000, DEFAULT_ITERATIONS = 1000 };

struct values {
    struct feature_args features;
    const char *cost, *confusion, *config;
    double tolerance;
    int64_t folds, iterations, seed, threads;
    bool scale, classes;
};

static const struct cli_option options[] = {
    FEATURE_OPTIONS(struct values, features),
    {'c', "config", CLI_TEXT, offsetof(struct values, config), "FILE",
     "take C, iterations and scaling from a svm_*.yaml"},
    {0, "cost", CLI_TEXT, offsetof(struct values, cost), "LIST", "values of C (default: 0.001,0.01,0.1,1)"},
    {0, "folds", CLI_INT, offsetof(struct values, folds), "N",
     "folds of the cross-validation that chooses C on the training set (default: 3; 0: none)"},
    {0, "scale", CLI_FLAG, offsetof(struct values, scale), NULL, "zero mean and unit deviation of each feature first"},
    {0, "tolerance", CLI_REAL, offsetof(struct values, tolerance), "E", "stop there (default: 1e-4)"},
    {0, "iterations", CLI_INT, offsetof(struct values, iterations), "N", "most sweeps of a class (default: 1000)"},
    {0, "seed", CLI_INT, offsetof(struct values, seed), "N", "of the order of samples and the folds (default: 0)"},
    {0, "confusion", CLI_TEXT, offsetof(struct values, confusion), "FILE", "write the confusion matrix as a PNG"},
    {0, "classes", CLI_FLAG, offsetof(struct values, classes), NULL, "print a line for every class"},
    {'t', "threads", CLI_INT, offsetof(struct values, threads), "N", "threads (default: processors)"},
    {0},
};

struct bar {
    struct cli *cli;
    double start;
};

static void progress(void *user, int64_t done, int64_t total)
{
    const struct bar *b = user;
    char line[256];
    xkd_progress_line(line, sizeof line, "svm", 0, done, total, xkd_now() - b->start, "");
    cli_progress(b->cli, line);
}

static xkd_status parse_costs(struct cli *cli, const char *text, double *cost, int64_t *count)
{
    for (char *end; *text; text = *end ? end + 1 : end) {
        double c = strtod(text, &end);
        if (end == text || (*end && *end != ',') || !(c > 0) || !isfinite(c) || *count == MOST_COSTS)
            return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--cost: want up to %d positive numbers with commas between",
                            MOST_COSTS);
        cost[(*count)++] = c;
    }
    if (*count) return XKD_OK;
    return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--cost: wants a number");
}

/* Tells before it starts what it will take. */
static xkd_status say_cost(struct cli *cli, xkd_pool *pool, const xkd_clip_set *train, const xkd_svm_protocol *p)
{
    xkd_svm_cost cost;
    char time[32], memory[32];
    xkd_status status = xkd_svm_estimate(cli->cx, pool, train->n, train->D, train->K, &cost);
    if (status != XKD_OK) return status;
    double trainings = (double)p->costs * (1 + (p->folds ? (double)(p->folds - 1) : 0));
    xkd_format_duration(time, sizeof time, cost.seconds * trainings);
    xkd_format_count(memory, sizeof memory, cost.bytes, "B");
    cli_say(cli,
            "%" PRId64 " clips of %" PRId64 " videos, %" PRId64 " features, %" PRId64 " classes: up to about %s and %s",
            train->n, train->videos, train->D, train->K, time, memory);
    return XKD_OK;
}

struct verdict {
    const xkd_svm_row *rows;
    int64_t costs, best, honest;
    xkd_interval interval; /* of the chosen row's top-1 */
};

static void print_json(const struct verdict *v, const xkd_clip_set *train, const xkd_clip_set *test)
{
    printf("{\"train_videos\": %" PRId64 ", \"train_clips\": %" PRId64 ", \"test_videos\": %" PRId64
           ", \"test_clips\": %" PRId64 ", \"classes\": %" PRId64 ", \"rows\": [",
           train->videos, train->n, test->videos, test->n, train->K);
    for (int64_t c = 0; c < v->costs; c++) {
        const xkd_svm_row *r = &v->rows[c];
        printf("%s{\"C\": %g, \"top1\": %.4f, \"top5\": %.4f, \"clip_top1\": %.4f, \"cross_validated\": ",
               c ? ", " : "", r->C, r->test.top1, r->test.top5, r->test.clip_top1);
        if (isnan(r->cross_validated))
            printf("null");
        else
            printf("%.4f", r->cross_validated);
        printf(", \"unconverged\": %" PRId64 "}", r->unconverged);
    }
    printf("], \"best\": {\"C\": %g, \"top1\": %.4f, \"top5\": %.4f}", v->rows[v->best].C, v->rows[v->best].test.top1,
           v->rows[v->best].test.top5);
    if (v->honest >= 0)
        printf(", \"honest\": {\"C\": %g, \"top1\": %.4f, \"top5\": %.4f}", v->rows[v->honest].C,
               v->rows[v->honest].test.top1, v->rows[v->honest].test.top5);
    printf(", \"interval95\": [%.4f, %.4f]}\n", v->interval.low, v->interval.high);
}

static void print_text(const struct verdict *v)
{
    puts("       C   top-1   top-5  clip top-1  cross-validated");
    for (int64_t c = 0; c < v->costs; c++) {
        const xkd_svm_row *r = &v->rows[c];
        printf("%8g %7.2f %7.2f %11.2f ", r->C, r->test.top1, r->test.top5, r->test.clip_top1);
        if (isnan(r->cross_validated))
            printf("%16s", "-");
        else
            printf("%16.2f", r->cross_validated);
        printf("%s%s%s\n", c == v->honest ? "  honest" : "", c == v->best ? "  best" : "",
               r->unconverged ? "  (not converged)" : "");
    }
    int64_t chosen = v->honest >= 0 ? v->honest : v->best;
    if (v->honest >= 0)
        printf("honest: top-1 %.2f, top-5 %.2f (C chosen by cross-validation on the training set)\n",
               v->rows[v->honest].test.top1, v->rows[v->honest].test.top5);
    printf("best:   top-1 %.2f, top-5 %.2f (C chosen on the test set, as released)\n", v->rows[v->best].test.top1,
           v->rows[v->best].test.top5);
    printf("95 %% of bootstrap samples of the test videos: %.2f to %.2f (C = %g)\n", v->interval.low, v->interval.high,
           v->rows[chosen].C);
}

static xkd_status interval_of(struct cli *cli, const xkd_clip_set *test, const float *scores, int64_t K, uint64_t seed,
                              xkd_interval *out)
{
    xkd_status status = XKD_OK;
    int64_t *rank = NULL;
    double *hit = NULL;
    XKD_TRY(xkd_alloc(cli->cx, &rank, test->videos, sizeof *rank));
    XKD_TRY(xkd_alloc(cli->cx, &hit, test->videos, sizeof *hit));
    xkd_ranks(scores, test->video_label, test->videos, K, rank);
    for (int64_t i = 0; i < test->videos; i++) hit[i] = rank[i] == 0 ? 100 : 0;
    XKD_TRY(xkd_bootstrap(cli->cx, hit, test->videos, BOOTSTRAPS, 0.95, seed, out));
fail:
    xkd_free(rank);
    xkd_free(hit);
    return status;
}

/* Options of the command line come after these. */
static xkd_status use_config(struct cli *cli, const struct values *v, xkd_svm_protocol *p, double *cost, bool *scale)
{
    xkd_status status = XKD_OK;
    xkd_config config = {0};
    XKD_TRY(xkd_config_init(cli->cx, &config));
    XKD_TRY(xkd_config_load(cli->cx, &config, v->config, false));
    if (v->iterations == DEFAULT_ITERATIONS) p->svm.iterations = config.eval.svm_iterations;
    *scale |= config.eval.svm_scale;
    for (p->costs = 0; p->costs < config.eval.cost.count; p->costs++) cost[p->costs] = config.eval.cost.value[p->costs];
fail:
    xkd_config_free(&config);
    return status;
}

static xkd_status evaluate(struct cli *cli, const struct values *v, struct feature_sets *sets)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_pool *pool = NULL;
    float *scores = NULL;
    double cost[MOST_COSTS];
    xkd_svm_row rows[MOST_COSTS];
    struct bar bar = {cli, xkd_now()};
    bool scale = v->scale;
    xkd_svm_protocol p = {
        .cost = cost, .folds = (int)v->folds, .svm = xkd_svm_defaults(), .progress = progress, .user = &bar};
    p.svm.tolerance = v->tolerance;
    p.svm.iterations = v->iterations;
    p.svm.seed = (uint64_t)v->seed;
    if (v->config) XKD_TRY(use_config(cli, v, &p, cost, &scale));
    if (v->cost) p.costs = 0;
    if (v->cost || !v->config) XKD_TRY(parse_costs(cli, v->cost ? v->cost : "0.001,0.01,0.1,1", cost, &p.costs));
    xkd_clip_set *train = &sets->train_set, *test = &sets->test_set;
    test->K = train->K = train->K > test->K ? train->K : test->K;
    if (scale) XKD_TRY(xkd_clip_sets_scale(cx, train, test));
    XKD_TRY(xkd_alloc(cx, &scores, test->videos * train->K, sizeof *scores));
    XKD_TRY(xkd_pool_new(cx, &pool, (int)v->threads));
    XKD_TRY(say_cost(cli, pool, train, &p));
    struct verdict verdict = {.rows = rows, .costs = p.costs};
    XKD_TRY(xkd_svm_evaluate(cx, pool, train, test, &p, rows, &verdict.best, &verdict.honest, scores));
    cli_progress(cli, NULL);
    XKD_TRY(interval_of(cli, test, scores, train->K, p.svm.seed, &verdict.interval));
    if (cli->json)
        print_json(&verdict, train, test);
    else
        print_text(&verdict);
    const struct judged judged = judged_set(scores, test, sets->test_files);
    if (v->classes && !cli->json) XKD_TRY(print_classes(cli, &judged));
    if (v->confusion) XKD_TRY(draw_confusion(cli, v->confusion, &judged));
fail:
    xkd_pool_free(pool);
    xkd_free(scores);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {
        .tolerance = 1e-4, .iterations = DEFAULT_ITERATIONS, .folds = 3, .threads = xkd_processor_count()};
    struct feature_sets sets = {0};
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_svm, argc, argv, &v, &rest));
    if (v.folds < 0 || v.folds == 1 || v.threads < 1 || v.seed < 0 || v.features.subsample < 0)
        XKD_FAIL(XKD_ERR_CONFIG, "svm: --folds is 0 or at least 2; --threads, --seed, --subsample are not negative");
    XKD_TRY(features_load(cli, &v.features, argv + 1, rest, &sets));
    XKD_TRY(evaluate(cli, &v, &sets));
fail:
    features_free(&sets);
    return status;
}

const struct cli_command cmd_svm = {
    .name = "svm",
    .summary = "train and test a linear SVM on features",
    .usage = "FEATURES [TEST_FEATURES] [--cost LIST]",
    .description =
        "Decision values are averaged over the clips of a test video. 'best' is the C with the highest test accuracy,\n"
        "as the released code reports it; 'honest' is the C that cross-validation on the training videos chose.",
    .example = "xkd embed runs/first data/manifest.jsonl --split train --protocol train --out train.safetensors\n"
               "  xkd embed runs/first data/manifest.jsonl --split test --protocol test --out test.safetensors\n"
               "  xkd svm train.safetensors test.safetensors",
    .options = options,
    .run = run,
};
