#include "feature_args.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

xkd_status features_modality(struct cli *cli, const char *word, const xkd_embeddings *e, bool *video, bool *audio)
{
    bool has_video = e->table[XKD_VIDEO].count > 0, has_audio = e->table[XKD_AUDIO].count > 0;
    if (word && strcmp(word, "video") != 0 && strcmp(word, "audio") != 0 && strcmp(word, "both") != 0)
        return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--modality %s: video, audio or both", word);
    *video = word ? strcmp(word, "audio") != 0 : has_video;
    *audio = word ? strcmp(word, "video") != 0 : has_audio;
    return XKD_OK;
}

/* Labels are numbers, so both files must number the same classes. */
static xkd_status check_classes(xkd_context *cx, char **paths, const struct feature_sets *s)
{
    xkd_status status = XKD_OK;
    const xkd_manifest *a = &s->train.files, *b = &s->test.files;
    if (a->class_count != b->class_count)
        XKD_FAIL(XKD_ERR_DATA, "%s names %" PRId64 " classes, %s %" PRId64, paths[0], a->class_count, paths[1],
                 b->class_count);
    for (int64_t k = 0; k < a->class_count; k++)
        if (strcmp(a->classes[k], b->classes[k]) != 0)
            XKD_FAIL(XKD_ERR_DATA, "class %" PRId64 " is %s in %s and %s in %s", k, a->classes[k], paths[0],
                     b->classes[k], paths[1]);
fail:
    return status;
}

xkd_status features_sets(struct cli *cli, const struct feature_args *args, char **paths, bool two,
                         struct feature_sets *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    const char *train = args->train ? args->train : "train", *test = args->test ? args->test : "test";
    XKD_TRY(features_modality(cli, args->modality, &out->train, &out->video, &out->audio));
    xkd_clip_choice choice = {out->video, out->audio, two ? args->train : train, args->subsample, args->normalise};
    XKD_TRY(xkd_clip_set_make(cx, &out->train, &choice, &out->train_set));
    choice.split = two ? args->test : test;
    choice.most_clips = 0;
    XKD_TRY(xkd_clip_set_make(cx, two ? &out->test : &out->train, &choice, &out->test_set));
    out->test_files = two ? &out->test.files : &out->train.files;
    if (two) XKD_TRY(check_classes(cx, paths, out));
    XKD_TRY(xkd_clip_sets_align(cx, &out->train_set, &out->test_set, out->test_files));
fail:
    return status;
}

xkd_status features_load(struct cli *cli, const struct feature_args *args, char **paths, int count,
                         struct feature_sets *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    bool two = count == 2;
    *out = (struct feature_sets){0};
    if (count < 1 || count > 2)
        XKD_FAIL(XKD_ERR_CONFIG, "want the features of the training and the test set, or one file with both splits");
    XKD_TRY(xkd_embeddings_read(cx, paths[0], &out->train));
    if (two) XKD_TRY(xkd_embeddings_read(cx, paths[1], &out->test));
    for (int m = 0; two && m < XKD_MODALITIES; m++)
        if (strcmp(out->train.model[m], out->test.model[m]) != 0)
            XKD_FAIL(XKD_ERR_DATA, "%s and %s: their %s features are of different models", paths[0], paths[1],
                     m == XKD_VIDEO ? "video" : "audio");
    XKD_TRY(features_sets(cli, args, paths, two, out));
fail:
    return status;
}

void features_free(struct feature_sets *s)
{
    xkd_embeddings_free(&s->train);
    xkd_embeddings_free(&s->test);
    xkd_clip_set_free(&s->train_set);
    xkd_clip_set_free(&s->test_set);
}

const char *class_name(const xkd_manifest *files, int64_t k)
{
    return k >= 0 && k < files->class_count ? files->classes[k] : "";
}

/* Average precision has no confusion: each class is judged by itself. */
static xkd_status print_precisions(struct cli *cli, const xkd_manifest *files, const float *scores,
                                   const xkd_clip_set *set)
{
    xkd_status status = XKD_OK;
    double *each = NULL, mean;
    int64_t empty, K = set->K;
    XKD_TRY(xkd_alloc(cli->cx, &each, K, sizeof *each));
    XKD_TRY(xkd_mean_average_precision(cli->cx, scores, set->truth, set->videos, K, each, &mean, &empty));
    puts("class                           files  average precision");
    for (int64_t k = 0; k < K; k++) {
        int64_t files_of = 0;
        for (int64_t v = 0; v < set->videos; v++) files_of += set->truth[v * K + k];
        printf("%4" PRId64 " %-24.24s %7" PRId64 " %7.2f\n", k, class_name(files, k), files_of, 100 * each[k]);
    }
    if (empty) printf("%" PRId64 " classes have no file in the test set and count as 0\n", empty);
fail:
    xkd_free(each);
    return status;
}

xkd_status print_classes(struct cli *cli, const xkd_manifest *files, const float *scores, const xkd_clip_set *set)
{
    xkd_status status = XKD_OK;
    int64_t *counts = NULL, K = set->K;
    xkd_class_row *rows = NULL;
    if (set->truth) return print_precisions(cli, files, scores, set);
    XKD_TRY(xkd_alloc(cli->cx, &counts, K * K, sizeof *counts));
    XKD_TRY(xkd_alloc(cli->cx, &rows, K, sizeof *rows));
    xkd_confusion(scores, set->video_label, set->videos, K, counts);
    xkd_class_table(counts, K, rows);
    puts("class                          videos  recall  precision  most often taken for");
    for (int64_t k = 0; k < K; k++)
        if (rows[k].samples || rows[k].predicted)
            printf("%4" PRId64 " %-24.24s %7" PRId64 " %7.2f %10.2f  %s\n", k, class_name(files, k), rows[k].samples,
                   rows[k].recall, rows[k].precision, class_name(files, rows[k].confused));
fail:
    xkd_free(counts);
    xkd_free(rows);
    return status;
}
