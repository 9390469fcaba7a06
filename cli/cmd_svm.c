/* xkd svm: a linear classifier on frozen features, from feature files or from videos. Two ways in, one way on: feature
 * files are read, videos are embedded first (eval/judge/svm_videos.c), and both end in two sets of labelled clips that
 * `evaluate` trains on and judges. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "class_table.h"
#include "data/index.h"
#include "eval/encode/embeddings_lines.h"
#include "ranks.h"
#include "svm_args.h"

/* Numbers that are negative were not given. */
struct values {
    xkd_feature_choice features;
    struct model_args model; /* of videos; its modality is that of the features */
    const char *out, *cost, *confusion;
    double tolerance;
    int64_t folds, iterations, seed, threads, ranks;
    bool scale, classes;
};

/* Read by the table below; numbers that were not given are told from those that were by their sign. */
static const struct cli_option options[] = {
    FEATURE_OPTIONS(struct values, features, "what there is; of videos what -c and dataset.return_* leave"),
    {'c', "config", CLI_TEXT, offsetof(struct values, model.config), "FILE",
     "a svm_*.yaml: C, iterations, scaling; with videos also clips, views and splits"},
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "DIR", "with videos: folder that keeps their features"},
    {0, "audio-model", CLI_TEXT, offsetof(struct values, model.audio_model), "FILE",
     "with videos: take the audio encoder from another file"},
    {0, "student", CLI_FLAG, offsetof(struct values, model.student), NULL,
     "with videos: the students' encoders instead of the teachers'"},
    {0, "heads", CLI_INT, offsetof(struct values, model.heads), "H",
     "with videos: attention heads, where the file cannot say"},
    FOLLOW_LINKS_OPTION(struct values, model.follow_links),
    {0, "cost", CLI_TEXT, offsetof(struct values, cost), "LIST", "values of C (default: 0.001,0.01,0.1,1)"},
    {0, "folds", CLI_INT, offsetof(struct values, folds), "N",
     "folds of the cross-validation that chooses C on the training set (default: 3; 0: none)"},
    {0, "scale", CLI_FLAG, offsetof(struct values, scale), NULL, "zero mean and unit deviation of each feature first"},
    {0, "tolerance", CLI_REAL, offsetof(struct values, tolerance), "E", "stop there (default: 1e-4)"},
    {0, "iterations", CLI_INT, offsetof(struct values, iterations), "N", "most sweeps of a class (default: 1000)"},
    {0, "seed", CLI_INT, offsetof(struct values, seed), "N", "of the order of samples and the folds (default: 0)"},
    {0, "confusion", CLI_TEXT, offsetof(struct values, confusion), "FILE", "write the confusion matrix as a PNG"},
    {0, "classes", CLI_FLAG, offsetof(struct values, classes), NULL, "print a line for every class"},
    RANKS_OPTION(struct values, ranks),
    {'t', "threads", CLI_INT, offsetof(struct values, threads), "N", "threads (default: processors)"},
    {0},
};

/* Options of the command line come after the configuration's values. A value that was not given keeps the
 * configuration's. */
static xkd_status evaluate(struct cli *cli, const struct values *v, const xkd_config *config, xkd_feature_sets *sets)
{
    xkd_status status = XKD_OK;
    xkd_svm_settings s = xkd_svm_settings_of(config);
    xkd_svm_verdict verdict = {0};
    const xkd_listener listener = cli_listener(cli);
    xkd_text json = xkd_text_make(cli->cx);
    if (v->cost) XKD_TRY(svm_parse_costs(cli, v->cost, &s));
    if (v->iterations > 0) s.iterations = v->iterations;
    if (v->threads > 0) s.threads = v->threads;
    /* `scale` is |=, so an option can switch on what the file left off. */
    s.folds = v->folds;
    s.seed = v->seed;
    s.tolerance = v->tolerance; /* only the command line has it */
    s.scale |= v->scale;        /* either may ask for it */
    XKD_TRY(xkd_svm_run(cli->cx, &sets->train_set, &sets->test_set, &sets->train.files, &s, &listener, &verdict));
    if (cli->json) {
        xkd_svm_json(&json, &verdict);
        XKD_TRY(json.status);
        puts(json.data);
    } else {
        svm_print(&verdict);
    }
    /* The scores are those of the C that xkd_svm_chosen names. */
    const struct judged judged = judged_set(verdict.scores, &sets->test_set, sets->test_files);
    if (v->classes && !cli->json) XKD_TRY(print_classes(cli, &judged));
    if (v->confusion) XKD_TRY(draw_confusion(cli, v->confusion, &judged));
fail:
    xkd_svm_verdict_free(&verdict);
    xkd_text_free(&json);
    return status;
}

/* Feature files: the configuration is that of the SVM alone. Its data keys, transforms among them, are accepted and have no
 * effect. */
static xkd_status from_features(struct cli *cli, const struct values *v, char **paths, int count)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_config config = {0};
    xkd_feature_sets sets = {0};
    xkd_feature_choice choice = v->features;
    const xkd_listener listener = cli_listener(cli);
    if (v->ranks) XKD_FAIL(XKD_ERR_CONFIG, "svm: --ranks is for MODEL and a manifest; features are made already");
    if (v->out || v->model.student || v->model.heads || v->model.audio_model)
        XKD_FAIL(XKD_ERR_CONFIG, "svm: --out, --student, --heads and --audio-model are for MODEL and a manifest; "
                                 "features are made already");
    XKD_TRY(xkd_config_init(cx, &config));
    if (v->model.config) XKD_TRY(xkd_config_load(cx, &config, v->model.config, false));
    XKD_TRY(xkd_models_check_norm(cx, &config));
    choice.normalise |= config.eval.l2_norm; /* as with videos */
    choice.max_damage = config.data.max_clip_damage;
    XKD_TRY(xkd_feature_sets_load(cx, &choice, paths, count, &listener, &sets));
    XKD_TRY(evaluate(cli, v, &config, &sets));
fail:
    xkd_feature_sets_free(&sets);
    xkd_config_free(&config);
    return status;
}

/* A model, a manifest and what of the configuration to change. Ranks share the files; what comes behind the features is
 * rank 0's alone. */
static xkd_status from_videos(struct cli *cli, const struct values *v, char **arguments, int count, xkd_dist *dist)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_models models = {0};
    xkd_feature_sets sets = {0};
    struct model_args args = v->model;
    xkd_manifest manifest = {0};
    /* Decoding takes hours: without a folder an interruption would cost all of it. */
    if (!v->out)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "svm: with videos want --out DIR: it keeps the features, and the same command goes on");
    args.modality = v->features.modality;
    /* A model and its data come first, KEY=VALUE behind them. */
    XKD_TRY(models_load(cli, &args, arguments[0], arguments + 2, count - 2, &models));
    /* The splits are only named here: files of both stand in one manifest. */
    XKD_TRY(xkd_manifest_load(cx, arguments[1], models.config.data.follow_links, &manifest));
    const xkd_svm_videos videos = {.models = &models,
                                   .manifest = &manifest,
                                   /* Options of the command line, else the splits that a released file names. */
                                   .train = v->features.train ? v->features.train : models.config.data.split,
                                   .test = v->features.test ? v->features.test : models.config.eval.test_split,
                                   .folder = v->out,
                                   .subsample = v->features.subsample,
                                   .dist = dist};
    xkd_feature_choice choice = v->features;
    choice.modality = models.wanted[XKD_VIDEO] && models.wanted[XKD_AUDIO] ? "both"
                      : models.wanted[XKD_VIDEO]                           ? "video"
                                                                           : "audio";
    /* Of one modality too, where the released file asks for it; both modalities are normalised anyway. */
    choice.normalise |= models.config.eval.l2_norm;
    XKD_TRY(svm_embed_videos(cli, &videos, &choice, &sets));
    if (xkd_dist_rank(dist) == 0) XKD_TRY(evaluate(cli, v, &models.config, &sets));
fail:
    xkd_feature_sets_free(&sets);
    xkd_manifest_free(&manifest);
    xkd_models_free(&models);
    return status;
}

/* As one process or several. */
static xkd_status with_ranks(struct cli *cli, const struct values *v, char **arguments, int count)
{
    xkd_status status = XKD_OK;
    xkd_dist_place place;
    xkd_dist *dist;
    bool launch;
    double timeout;
    XKD_TRY(cli_ranks(cli, v->ranks, &place, &launch));
    if (launch) return (xkd_status)cli_launch_ranks(cli, v->ranks);
    /* Before the backend's threads are made. */
    cli_catch_signals();
    XKD_TRY(cli_peer_timeout(cli, v->model.config, arguments + 2, count - 2, &timeout));
    XKD_TRY(cli_join_ranks(cli, &place, timeout, &dist));
    status = from_videos(cli, v, arguments, count, dist);
    status = cli_leave_ranks(cli, dist, status, status == XKD_OK);
fail:
    return status;
}

/* Feature files are never folders, and JSON lines of features are no manifest. */
static bool is_data(const char *path)
{
    size_t length = strlen(path);
    if (xkd_is_folder(path)) return true;
    return length > 6 && strcmp(path + length - 6, ".jsonl") == 0 && !xkd_embeddings_are_lines(path);
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    /* -1: not given, so the configuration's value stays. */
    struct values v = {.tolerance = 1e-4, .iterations = -1, .folds = 3, .threads = -1};
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_svm, argc, argv, &v, &rest));
    /* 1 fold would train on nothing. */
    if (v.folds < 0 || v.folds == 1 || v.threads == 0 || v.iterations == 0 || v.seed < 0 || v.features.subsample < 0)
        XKD_FAIL(XKD_ERR_CONFIG, "svm: --folds is 0 or at least 2; --threads and --iterations are positive, --seed and "
                                 "--subsample not negative");
    /* The second word tells the two forms apart. */
    if (rest >= 2 && is_data(argv[2]))
        XKD_TRY(with_ranks(cli, &v, argv + 1, rest));
    else
        XKD_TRY(from_features(cli, &v, argv + 1, rest));
fail:
    return status;
}

const struct cli_command cmd_svm = {
    .name = "svm",
    .summary = "train and test a linear SVM on features, or on videos with an encoder",
    .usage = "FEATURES [TEST_FEATURES] | MODEL MANIFEST --out DIR [-c FILE] [KEY=VALUE ...]",
    .description =
        "Decision values are averaged over the clips of a test video. 'best' is the C with the highest test accuracy,\n"
        "as the released code reports it; 'honest' is the C that cross-validation on the training videos chose. Files\n"
        "with several labels (\"labels\" in the manifest) are judged by mean average precision.\n"
        "With MODEL and a manifest the clips are embedded first, as the released protocol has it: 25 augmented clips "
        "of\n"
        "a training video (at most --subsample N), 3 of a test video, or as the configuration says. Features stay in\n"
        "--out, and a command that was stopped goes on.",
    .example = "xkd svm runs/first ucf101-1.jsonl --out svm/ucf101-1 -c svm_ucf101_config_f1.yaml\n"
               "  xkd svm train.safetensors test.safetensors",
    .options = options,
    .run = run,
};
