/* Videos -> features of both splits -> sets. What is there from an earlier call is read. */
#include "eval/judge/svm_videos.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "report/progress.h"

/* Files of one split in the order of the manifest; numbers count within the split, as `xkd embed --split` has them, so
 * that both ways give the same features. */
static xkd_status list_split(xkd_context *cx, const xkd_manifest *m, const char *split, const xkd_clip_draws *draws,
                             xkd_embed_input **out, int64_t *count)
{
    xkd_status status = XKD_OK;
    *count = 0;
    XKD_TRY(xkd_alloc(cx, out, m->count, sizeof **out));
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_sample *s = &m->samples[i];
        /* A file without a split is in both, as xkd_manifest_keep_split has it. */
        if (s->split[0] && strcmp(s->split, split) != 0) continue;
        if (s->label < 0 && !xkd_sample_label_count(s))
            XKD_FAIL(XKD_ERR_DATA, "%s: has no label: an SVM needs one for every file (\"label\" in the manifest)",
                     s->path);
        int64_t draw = draws ? xkd_clip_draws_of(draws, s->path) : -1;
        (*out)[*count] = (xkd_embed_input){m, i, *count, draw < 0 ? *count : draw};
        ++*count;
    }
    if (*count == 0)
        XKD_FAIL(XKD_ERR_DATA, "the manifest has no file of split '%s' (--train and --test name splits)", split);
fail:
    return status;
}

/* Training or test half of the work. */
typedef struct {
    xkd_embed_options options;
    xkd_embed_input *inputs; /* [count], owned */
    int64_t count;
    char *path;    /* of the feature file, owned */
    char **donors; /* [donor_count] likewise of other folds, owned */
    int64_t donor_count;
} half;

static void half_free(half *h)
{
    for (int64_t i = 0; i < h->donor_count; i++) xkd_free(h->donors[i]);
    xkd_free(h->donors);
    xkd_free(h->inputs);
    xkd_free(h->path);
}

/* The number of clips is part of the name: another --subsample keeps both. */
static xkd_status feature_path(xkd_context *cx, const char *folder, bool train, const half *h, char **out)
{
    return xkd_format_string(cx, out, "%s/%s-%" PRId64 ".safetensors", folder, train ? "train" : "test",
                             h->options.clips.clips);
}

/* Both modalities of a clip stand in one
 * file, as pairs. */
static xkd_status half_new(xkd_context *cx, const xkd_svm_videos *v, bool train, half *out)
{
    xkd_status status = XKD_OK;
    xkd_config *config = &v->models->config;
    *out = (half){0};
    XKD_TRY(xkd_models_check(cx, config));
    /* 0: the configuration's number. */
    out->options = xkd_embed_options_of(config, train ? XKD_CLIPS_TRAIN : XKD_CLIPS_TEST, 0);
    if (train && v->subsample && v->subsample < out->options.clips.clips) out->options.clips.clips = v->subsample;
    xkd_models_choose(v->models, &out->options);
    XKD_TRY(
        list_split(cx, v->manifest, train ? v->train : v->test, train ? v->draws : NULL, &out->inputs, &out->count));
    XKD_TRY(feature_path(cx, v->folder, train, out, &out->path));
    XKD_TRY(xkd_alloc(cx, &out->donors, v->donor_count, sizeof *out->donors));
    for (; out->donor_count < v->donor_count; out->donor_count++)
        XKD_TRY(feature_path(cx, v->donors[out->donor_count], train, out, &out->donors[out->donor_count]));
fail:
    return status;
}

/* Nothing is decoded: files that turn out unreadable or short are still counted. */
xkd_status xkd_svm_plan_videos(xkd_context *cx, const xkd_svm_videos *v, xkd_svm_plan *plan)
{
    xkd_status status = XKD_OK;
    half halves[2] = {0};
    xkd_pool *pool = NULL;
    xkd_svm_cost cost;
    double seconds[XKD_MODALITIES];
    int64_t D = 0, rows, width;
    *plan = (xkd_svm_plan){0};
    XKD_TRY(xkd_pool_new(cx, &pool, 1)); /* estimates per thread: one is enough for bytes */
    for (int h = 0; h < 2; h++) {
        XKD_TRY(half_new(cx, v, h == 0, &halves[h]));
        plan->files[h] = halves[h].count;
        plan->clips[h] = halves[h].count * halves[h].options.clips.clips;
    }
    XKD_TRY(xkd_embed_estimate(cx, v->models->be, &halves[0].options, seconds));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        if (!v->models->wanted[m]) continue;
        XKD_TRY(xkd_embed_shape(cx, &halves[0].options, m, &rows, &width));
        D += rows * width;
        plan->seconds += seconds[m] * (double)(plan->clips[0] + plan->clips[1]);
    }
    /* One class more than are named, for there may be none. */
    XKD_TRY(xkd_svm_estimate(cx, pool, plan->clips[0], D, v->manifest->class_count + 1, &cost));
    /* The feature file is read beside the matrix that is made of it, and the test clips. */
    plan->bytes = cost.bytes + (double)((plan->clips[0] + 2 * plan->clips[1]) * D) * sizeof(float);
fail:
    for (int h = 0; h < 2; h++) half_free(&halves[h]);
    xkd_pool_free(pool);
    return status;
}

/* Before hours of work. */
static xkd_status say_plan(xkd_context *cx, const xkd_listener *listener, const xkd_svm_videos *v)
{
    xkd_svm_plan plan;
    char time[32], memory[32];
    xkd_status status = xkd_svm_plan_videos(cx, v, &plan);
    if (status != XKD_OK) return status;
    xkd_format_duration(time, sizeof time, plan.seconds);
    xkd_format_count(memory, sizeof memory, plan.bytes, "B");
    xkd_say(listener,
            "%" PRId64 " clips of %" PRId64 " training files and %" PRId64 " of %" PRId64
            " test files: about %s in the encoder, then %s for the SVM",
            plan.clips[0], plan.files[0], plan.clips[1], plan.files[1], time, memory);
    return XKD_OK;
}

/* The plan is told only where there is work: a command that is given again should be quiet. Subsampling was done when the
 * clips were made, so the sets take all there is. */
xkd_status xkd_svm_embed_videos(xkd_context *cx, const xkd_svm_videos *v, const xkd_feature_choice *args,
                                const xkd_listener *listener, xkd_feature_sets *out)
{
    xkd_status status = XKD_OK;
    half halves[2] = {0};
    char *paths[2];
    /* --train, --test and --subsample have done their part when the lists were made. */
    xkd_feature_choice choice = {
        .modality = args->modality, .normalise = args->normalise, .max_damage = v->models->config.data.max_clip_damage};
    xkd_embeddings *features[2] = {&out->train, &out->test};
    XKD_TRY(xkd_manifest_check_trained(cx, v->manifest, v->train, v->test));
    XKD_TRY(xkd_make_folder(cx, v->folder));
    for (int h = 0; h < 2; h++) {
        XKD_TRY(half_new(cx, v, h == 0, &halves[h]));
        paths[h] = halves[h].path;
    }
    if (!xkd_path_exists(paths[0]) || !xkd_path_exists(paths[1])) XKD_TRY(say_plan(cx, listener, v));
    for (int h = 0; h < 2; h++) {
        xkd_embed_job job = {.options = &halves[h].options,
                             .inputs = halves[h].inputs,
                             .count = halves[h].count,
                             .path = halves[h].path,
                             .donors = halves[h].donors,
                             .donor_count = halves[h].donor_count,
                             .dist = v->dist,
                             .pairs = v->models->wanted[XKD_VIDEO] && v->models->wanted[XKD_AUDIO],
                             .max_bad = v->models->config.data.max_bad_fraction};
        XKD_TRY(xkd_embed_or_read(cx, v->models->be, h ? "test" : "train", &job, listener, features[h]));
    }
    XKD_TRY(xkd_feature_sets_make(cx, &choice, paths, true, listener, out));
fail:
    for (int h = 0; h < 2; h++) half_free(&halves[h]);
    return status;
}
