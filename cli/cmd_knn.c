/* xkd knn: nearest training videos vote for a test video's class. */
#include <inttypes.h>
#include <stdio.h>

#include "base/alloc.h"
#include "class_table.h"
#include "embed_args.h"
#include "feature_args.h"

/* Larger temperatures make votes more equal, smaller ones leave the nearest to decide. */
struct values {
    xkd_feature_choice features;
    int64_t k, threads;
    double temperature;
    bool classes;
};

/* Feature options are shared with `xkd svm`, so both judge the same sets. */
static const struct cli_option options[] = {
    FEATURE_OPTIONS(struct values, features, "what there is"),
    {'k', "neighbours", CLI_INT, offsetof(struct values, k), "K", "neighbours that vote (default: 20, at most all)"},
    {0, "temperature", CLI_REAL, offsetof(struct values, temperature), "T",
     "a vote weighs exp(cosine / T) (default: 0.07)"},
    {0, "classes", CLI_FLAG, offsetof(struct values, classes), NULL, "print a line for every class"},
    {'t', "threads", CLI_INT, offsetof(struct values, threads), "N", "threads (default: processors)"},
    {0},
};

/* No training: scores are votes, judged as an SVM's decision values are. */
static xkd_status evaluate(struct cli *cli, const struct values *v, xkd_feature_sets *sets)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_clip_set *train = &sets->train_set, *test = &sets->test_set;
    xkd_pool *pool = NULL;
    float *scores = NULL;
    /* A small set has fewer neighbours to ask; what was used is printed. */
    int64_t k = v->k < train->videos ? v->k : train->videos;
    xkd_accuracy accuracy;
    XKD_TRY(xkd_pool_new(cx, &pool, (int)v->threads));
    XKD_TRY(xkd_alloc(cx, &scores, test->videos * train->K, sizeof *scores));
    XKD_TRY(xkd_knn(cx, pool, train, test, k, v->temperature, scores));
    XKD_TRY(xkd_video_accuracy(cx, test, scores, &accuracy));
    /* top5 is left out of it where files have several labels: their figure is mAP. */
    if (test->truth)
        printf(cli->json ? "{\"k\": %" PRId64 ", \"map\": %.4f, \"videos\": %" PRId64 "}\n"
                         : "%" PRId64 " neighbours: mAP %.2f on %" PRId64 " files\n",
               k, accuracy.map, test->videos);
    else
        printf(cli->json ? "{\"k\": %" PRId64 ", \"top1\": %.4f, \"top5\": %.4f, \"videos\": %" PRId64 "}\n"
                         : "%" PRId64 " neighbours: top-1 %.2f, top-5 %.2f on %" PRId64 " videos\n",
               k, accuracy.top1, accuracy.top5, test->videos);
    /* Names are the test file's, whose classes were checked against the training's. */
    const struct judged judged = judged_set(scores, test, sets->test_files);
    if (v->classes && !cli->json) XKD_TRY(print_classes(cli, &judged));
fail:
    xkd_pool_free(pool);
    xkd_free(scores);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    /* Of an instance-discrimination network: the custom of such evaluations. */
    struct values v = {.k = 20, .temperature = 0.07, .threads = xkd_processor_count()};
    xkd_feature_sets sets = {0};
    xkd_config defaults = {0};
    const xkd_listener listener = cli_listener(cli);
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_knn, argc, argv, &v, &rest));
    if (v.k < 1 || !(v.temperature > 0) || v.threads < 1)
        XKD_FAIL(XKD_ERR_CONFIG, "knn: -k, --temperature and --threads must be positive");
    XKD_TRY(xkd_config_init(cx, &defaults));
    v.features.max_damage = defaults.data.max_clip_damage;
    XKD_TRY(xkd_feature_sets_load(cx, &v.features, argv + 1, rest, &listener, &sets));
    const bool used[XKD_MODALITIES] = {sets.video, sets.audio};
    for (int i = 0; i < rest; i++)
        XKD_TRY(xkd_embeddings_check_finite(cx, i ? &sets.test : &sets.train, argv[1 + i], used));
    XKD_TRY(evaluate(cli, &v, &sets));
fail:
    xkd_feature_sets_free(&sets);
    xkd_config_free(&defaults);
    return status;
}

const struct cli_command cmd_knn = {
    .name = "knn",
    .summary = "classify by the nearest training videos",
    .usage = "FEATURES [TEST_FEATURES] [-k K]",
    .description = "Compares mean features of the clips by cosine. It trains nothing: a quick look at what was learnt.",
    .example = "xkd knn features.safetensors --train train --test test",
    .options = options,
    .run = run,
};
