/* An SVM from features or videos to what is said about it. Nothing here knows which command asked. */
#include "svm_args.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "report/progress.h"

/* Defaults of the command line follow the configuration; cross-validation is not in released files, and 3 folds keep
 * it at three more trainings. */
struct svm_settings svm_settings_of(const xkd_config *config)
{
    xkd_svm_options o = xkd_svm_defaults();
    /* The settings are the command's; nothing of the sets is needed to make them. */
    struct svm_settings s = {.iterations = config->eval.svm_iterations,
                             .folds = 3,
                             .threads = config->threads ? config->threads : xkd_processor_count(),
                             .tolerance = o.tolerance,
                             .scale = config->eval.svm_scale};
    /* The list in the configuration is limited to as many as fit. */
    for (; s.costs < config->eval.cost.count; s.costs++) s.cost[s.costs] = config->eval.cost.value[s.costs];
    return s;
}

/* "0.001,0.01": a comma at the end is accepted, another character is not. A list on the command line replaces the
 * configuration's. */
xkd_status svm_parse_costs(struct cli *cli, const char *text, struct svm_settings *out)
{
    out->costs = 0;
    for (char *end; *text; text = *end ? end + 1 : end) {
        double c = strtod(text, &end);
        /* C = 0 would be no training at all, and infinity none that ends. */
        if (end == text || (*end && *end != ',') || !(c > 0) || !isfinite(c) || out->costs == SVM_MOST_COSTS)
            return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--cost: want up to %d positive numbers with commas between",
                            SVM_MOST_COSTS);
        out->cost[out->costs++] = c;
    }
    if (out->costs) return XKD_OK;
    return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--cost: wants a number");
}

void svm_verdict_free(struct svm_verdict *v)
{
    xkd_free(v->scores);
    *v = (struct svm_verdict){0};
}

/* Without a cross-validation there is no honest choice, and the best has to stand in. */
const xkd_svm_row *svm_chosen(const struct svm_verdict *v)
{
    return &v->rows[v->honest >= 0 ? v->honest : v->best];
}

/* ---- training ---- */

/* For the progress bar. */
struct bar {
    struct cli *cli;
    double start;
};

/* `done` counts trainings, of which a fold is one. */
static void progress(void *user, int64_t done, int64_t total)
{
    const struct bar *b = user;
    char line[256];
    xkd_progress_line(line, sizeof line, "svm", 0, done, total, xkd_now() - b->start, "");
    cli_progress(b->cli, line);
}

/* Commands that catch no signals never see one here. */
static int stop(void *user)
{
    (void)user;
    return cli_signal();
}

/* Tells before it starts what it will take. */
static xkd_status say_cost(struct cli *cli, xkd_pool *pool, const xkd_clip_set *train, const struct svm_settings *s)
{
    xkd_svm_cost cost;
    char time[32], memory[32];
    xkd_status status = xkd_svm_estimate(cli->cx, pool, train->n, train->D, train->K, &cost);
    if (status != XKD_OK) return status;
    /* A fold of N trains on (N-1)/N of the samples. The costs of all C, each once on everything and once without each
     * fold. */
    double trainings = (double)s->costs * (1 + (s->folds ? (double)(s->folds - 1) : 0));
    xkd_format_duration(time, sizeof time, cost.seconds * trainings);
    xkd_format_count(memory, sizeof memory, cost.bytes, "B");
    cli_say(cli,
            "%" PRId64 " clips of %" PRId64 " videos, %" PRId64 " features, %" PRId64 " classes: up to about %s and %s",
            train->n, train->videos, train->D, train->K, time, memory);
    return XKD_OK;
}

/* Changes the sets where scaling is asked for; both are the caller's. */
xkd_status svm_run(struct cli *cli, xkd_clip_set *train, xkd_clip_set *test, const struct svm_settings *s,
                   struct svm_verdict *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_pool *pool = NULL;
    struct bar bar = {cli, xkd_now()};
    xkd_svm_protocol p = {.cost = s->cost,
                          .costs = s->costs,
                          .folds = (int)s->folds,
                          .svm = xkd_svm_defaults(),
                          .progress = progress,
                          .stop = stop,
                          .user = &bar};
    p.svm.tolerance = s->tolerance;
    p.svm.iterations = s->iterations;
    p.svm.seed = (uint64_t)s->seed;
    *out = (struct svm_verdict){.costs = s->costs,
                                .multi = test->truth != NULL,
                                .train_lacking = train->lacking,
                                .test_lacking = test->lacking,
                                .train_videos = train->videos,
                                .train_clips = train->n,
                                .test_videos = test->videos,
                                .test_clips = test->n,
                                .classes = train->K};
    if (s->scale) XKD_TRY(xkd_clip_sets_scale(cx, train, test)); /* before the memory of the training is taken */
    XKD_TRY(xkd_alloc(cx, &out->scores, test->videos * train->K, sizeof *out->scores));
    XKD_TRY(xkd_pool_new(cx, &pool, (int)s->threads));
    XKD_TRY(say_cost(cli, pool, train, s));
    XKD_TRY(xkd_svm_evaluate(cx, pool, train, test, &p, out->rows, &out->best, &out->honest, out->scores));
    /* The bar goes before anything else is said. */
    cli_progress(cli, NULL);
    /* Of the chosen C's scores, which xkd_svm_evaluate has left in `scores`. */
    XKD_TRY(xkd_video_interval(cx, pool, test, out->scores, p.svm.seed, &out->interval));
fail:
    xkd_pool_free(pool);
    return status;
}

/* ---- what came out ---- */

/* NAN is null: a figure that does not exist for this kind of labels. */
static void number(xkd_text *out, const char *key, double value)
{
    xkd_text_printf(out, ", \"%s\": ", key);
    if (isnan(value))
        xkd_text_puts(out, "null");
    else
        xkd_text_printf(out, "%.4f", value);
}

/* Figures of one kind of data set alone stand in a row; the other's would be null throughout. */
static void row_json(xkd_text *out, const struct svm_verdict *v, const xkd_svm_row *r, bool whole)
{
    xkd_text_printf(out, "{\"C\": %g", r->C);
    if (v->multi) {
        number(out, "map", r->test.map);
    } else {
        number(out, "top1", r->test.top1);
        number(out, "top5", r->test.top5);
        if (whole) number(out, "clip_top1", r->test.clip_top1);
    }
    if (whole) {
        number(out, "cross_validated", r->cross_validated);
        xkd_text_printf(out, ", \"unconverged\": %" PRId64, r->unconverged);
    }
    xkd_text_puts(out, "}");
}

/* Without a newline: other documents hold it. */
void svm_json(xkd_text *out, const struct svm_verdict *v)
{
    xkd_text_printf(out,
                    "{\"train_videos\": %" PRId64 ", \"train_clips\": %" PRId64 ", \"test_videos\": %" PRId64
                    ", \"test_clips\": %" PRId64 ", \"train_without_features\": %" PRId64
                    ", \"test_without_features\": %" PRId64 ", \"classes\": %" PRId64 ", \"rows\": [",
                    v->train_videos, v->train_clips, v->test_videos, v->test_clips, v->train_lacking, v->test_lacking,
                    v->classes);
    /* Rows by C; `best` and `honest` repeat theirs without what is only of interest beside others. */
    for (int64_t c = 0; c < v->costs; c++) {
        if (c) xkd_text_puts(out, ", ");
        row_json(out, v, &v->rows[c], true);
    }
    xkd_text_puts(out, "], \"best\": ");
    row_json(out, v, &v->rows[v->best], false);
    if (v->honest >= 0) {
        xkd_text_puts(out, ", \"honest\": ");
        row_json(out, v, &v->rows[v->honest], false);
    }
    xkd_text_printf(out, ", \"interval95\": [%.4f, %.4f]}", v->interval.low, v->interval.high);
}

/* honest and best stand under each other. */
static void print_figures(const struct svm_verdict *v, const char *word, const xkd_svm_row *r, const char *why)
{
    if (v->multi)
        printf("%s mAP %.2f (%s)\n", word, r->test.map, why);
    else
        printf("%s top-1 %.2f, top-5 %.2f (%s)\n", word, r->test.top1, r->test.top5, why);
}

/* One line for each C; the two choices are marked in it and told again below. */
void svm_print(const struct svm_verdict *v)
{
    puts(v->multi ? "       C     mAP  cross-validated" : "       C   top-1   top-5  clip top-1  cross-validated");
    for (int64_t c = 0; c < v->costs; c++) {
        const xkd_svm_row *r = &v->rows[c];
        if (v->multi)
            printf("%8g %7.2f ", r->C, r->test.map);
        else
            printf("%8g %7.2f %7.2f %11.2f ", r->C, r->test.top1, r->test.top5, r->test.clip_top1);
        if (isnan(r->cross_validated))
            printf("%16s", "-");
        else
            printf("%16.2f", r->cross_validated);
        printf("%s%s%s\n", c == v->honest ? "  honest" : "", c == v->best ? "  best" : "",
               r->unconverged ? "  (not converged)" : "");
    }
    if (v->honest >= 0)
        print_figures(v, "honest:", &v->rows[v->honest], "C chosen by cross-validation on the training set");
    print_figures(v, "best:  ", &v->rows[v->best], "C chosen on the test set, as released");
    /* An interval of the honest figure says how far another test set might have been off. */
    printf("95 %% of bootstrap samples of the test videos: %.2f to %.2f (C = %g)\n", v->interval.low, v->interval.high,
           svm_chosen(v)->C);
    if (v->train_lacking || v->test_lacking)
        printf("without %" PRId64 " of %" PRId64 " training videos and %" PRId64 " of %" PRId64
               " test videos, which have no features of this modality or could not be read\n",
               v->train_lacking, v->train_lacking + v->train_videos, v->test_lacking, v->test_lacking + v->test_videos);
}

/* ---- from videos ---- */

/* Files of one split in the order of the manifest; numbers count within the split, as `xkd embed --split` has them, so
 * that both ways give the same features. */
static xkd_status list_split(struct cli *cli, const xkd_manifest *m, const char *split, xkd_embed_input **out,
                             int64_t *count)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    *count = 0;
    XKD_TRY(xkd_alloc(cx, out, m->count, sizeof **out));
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_sample *s = &m->samples[i];
        /* A file without a split is in both, as xkd_manifest_keep_split has it. */
        if (s->split[0] && strcmp(s->split, split) != 0) continue;
        if (s->label < 0 && !s->label_count)
            XKD_FAIL(XKD_ERR_DATA, "%s: has no label: an SVM needs one for every file (\"label\" in the manifest)",
                     s->path);
        (*out)[*count] = (xkd_embed_input){m, i, *count};
        ++*count;
    }
    if (*count == 0)
        XKD_FAIL(XKD_ERR_DATA, "the manifest has no file of split '%s' (--train and --test name splits)", split);
fail:
    return status;
}

/* Training or test half of the work. */
struct half {
    xkd_embed_options options;
    xkd_embed_input *inputs; /* [count], owned */
    int64_t count;
    char *path;    /* of the feature file, owned */
    char **donors; /* [donor_count] likewise of other folds, owned */
    int64_t donor_count;
};

static void half_free(struct half *h)
{
    for (int64_t i = 0; i < h->donor_count; i++) xkd_free(h->donors[i]);
    xkd_free(h->donors);
    xkd_free(h->inputs);
    xkd_free(h->path);
}

/* The number of clips is part of the name: another --subsample keeps both. */
static xkd_status feature_path(xkd_context *cx, const char *folder, bool train, const struct half *h, char **out)
{
    return xkd_format_string(cx, out, "%s/%s-%" PRId64 ".safetensors", folder, train ? "train" : "test",
                             h->options.clips.clips);
}

/* Both modalities of a clip stand in one
 * file, as pairs. */
static xkd_status half_new(struct cli *cli, const struct svm_videos *v, bool train, struct half *out)
{
    xkd_status status = XKD_OK;
    xkd_config *config = &v->models->config;
    *out = (struct half){0};
    XKD_TRY(xkd_models_check(cli->cx, config));
    /* 0: the configuration's number. */
    out->options = xkd_embed_options_of(config, train ? XKD_CLIPS_TRAIN : XKD_CLIPS_TEST, 0);
    if (train && v->subsample && v->subsample < out->options.clips.clips) out->options.clips.clips = v->subsample;
    xkd_models_choose(v->models, &out->options);
    XKD_TRY(list_split(cli, v->manifest, train ? v->train : v->test, &out->inputs, &out->count));
    XKD_TRY(feature_path(cli->cx, v->folder, train, out, &out->path));
    XKD_TRY(xkd_alloc(cli->cx, &out->donors, v->donor_count, sizeof *out->donors));
    for (; out->donor_count < v->donor_count; out->donor_count++)
        XKD_TRY(feature_path(cli->cx, v->donors[out->donor_count], train, out, &out->donors[out->donor_count]));
fail:
    return status;
}

/* Nothing is decoded: files that turn out unreadable or short are still counted. */
xkd_status svm_plan_videos(struct cli *cli, const struct svm_videos *v, struct svm_plan *plan)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct half half[2] = {0};
    xkd_pool *pool = NULL;
    xkd_svm_cost cost;
    double seconds[XKD_MODALITIES];
    int64_t D = 0, rows, width;
    *plan = (struct svm_plan){0};
    XKD_TRY(xkd_pool_new(cx, &pool, 1)); /* estimates per thread: one is enough for bytes */
    for (int h = 0; h < 2; h++) {
        XKD_TRY(half_new(cli, v, h == 0, &half[h]));
        plan->files[h] = half[h].count;
        plan->clips[h] = half[h].count * half[h].options.clips.clips;
    }
    XKD_TRY(xkd_embed_estimate(cx, v->models->be, &half[0].options, seconds));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        if (!v->models->wanted[m]) continue;
        XKD_TRY(xkd_embed_shape(cx, &half[0].options, m, &rows, &width));
        D += rows * width;
        plan->seconds += seconds[m] * (double)(plan->clips[0] + plan->clips[1]);
    }
    /* One class more than are named, for there may be none. */
    XKD_TRY(xkd_svm_estimate(cx, pool, plan->clips[0], D, v->manifest->class_count + 1, &cost));
    /* The feature file is read beside the matrix that is made of it, and the test clips. */
    plan->bytes = cost.bytes + (double)((plan->clips[0] + 2 * plan->clips[1]) * D) * sizeof(float);
fail:
    for (int h = 0; h < 2; h++) half_free(&half[h]);
    xkd_pool_free(pool);
    return status;
}

/* On stderr, before hours of work. */
static xkd_status say_plan(struct cli *cli, const struct svm_videos *v)
{
    struct svm_plan plan;
    char time[32], memory[32];
    xkd_status status = svm_plan_videos(cli, v, &plan);
    if (status != XKD_OK) return status;
    xkd_format_duration(time, sizeof time, plan.seconds);
    xkd_format_count(memory, sizeof memory, plan.bytes, "B");
    cli_say(cli,
            "%" PRId64 " clips of %" PRId64 " training files and %" PRId64 " of %" PRId64
            " test files: about %s in the encoder, then %s for the SVM",
            plan.clips[0], plan.files[0], plan.clips[1], plan.files[1], time, memory);
    return XKD_OK;
}

/* The plan is told only where there is work: a command that is given again should be quiet. Subsampling was done when the
 * clips were made, so the sets take all there is. */
xkd_status svm_embed_videos(struct cli *cli, const struct svm_videos *v, const struct feature_args *args,
                            struct feature_sets *out)
{
    xkd_status status = XKD_OK;
    struct half half[2] = {0};
    char *paths[2];
    /* --train, --test and --subsample have done their part when the lists were made. */
    struct feature_args choice = {.modality = args->modality, .normalise = args->normalise};
    xkd_embeddings *features[2] = {&out->train, &out->test};
    XKD_TRY(xkd_manifest_check_trained(cli->cx, v->manifest, v->train, v->test));
    XKD_TRY(xkd_make_folder(cli->cx, v->folder));
    for (int h = 0; h < 2; h++) {
        XKD_TRY(half_new(cli, v, h == 0, &half[h]));
        paths[h] = half[h].path;
    }
    if (!xkd_path_exists(paths[0]) || !xkd_path_exists(paths[1])) XKD_TRY(say_plan(cli, v));
    for (int h = 0; h < 2; h++) {
        struct embed_progress bar = {cli, h ? "test" : "train", xkd_now()};
        xkd_embed_job job = {.options = &half[h].options,
                             .inputs = half[h].inputs,
                             .count = half[h].count,
                             .path = half[h].path,
                             .donors = half[h].donors,
                             .donor_count = half[h].donor_count,
                             .pairs = v->models->wanted[XKD_VIDEO] && v->models->wanted[XKD_AUDIO],
                             .max_bad = v->models->config.data.max_bad_fraction};
        XKD_TRY(embed_or_read(&bar, v->models->be, &job, features[h]));
    }
    XKD_TRY(features_sets(cli, &choice, paths, true, out));
fail:
    for (int h = 0; h < 2; h++) half_free(&half[h]);
    return status;
}
