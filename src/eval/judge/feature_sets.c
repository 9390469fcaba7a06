/* Feature files into the two sets that an evaluation needs: from two files, or from two splits of one. */
#include "eval/judge/feature_sets.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

/* A message with more names than this is not read. */
enum { NAMED = 5 };

/* Without a word all that the file has is used. */
xkd_status xkd_feature_modality(xkd_context *cx, const char *word, const xkd_embeddings *e, bool *video, bool *audio)
{
    bool has_video = e->table[XKD_VIDEO].count > 0, has_audio = e->table[XKD_AUDIO].count > 0;
    /* A word that is none is refused before the files are compared. */
    if (word && strcmp(word, "video") != 0 && strcmp(word, "audio") != 0 && strcmp(word, "both") != 0)
        return xkd_fail(cx, XKD_ERR_CONFIG, "--modality %s: video, audio or both", word);
    *video = word ? strcmp(word, "audio") != 0 : has_video;
    *audio = word ? strcmp(word, "video") != 0 : has_audio;
    return XKD_OK;
}

/* A figure of fewer files than were listed, or of damaged clips, says so each time that it is made. */
static void say_lacking(const xkd_listener *listener, const xkd_clip_set *set, const xkd_manifest *files,
                        const char *name)
{
    for (int64_t i = 0; i < set->lacking && i < NAMED; i++)
        xkd_say(listener, "%s: has no features in the %s set", files->samples[set->without[i]].path, name);
    if (set->lacking > NAMED) xkd_say(listener, "and %" PRId64 " more in the %s set", set->lacking - NAMED, name);
    if (set->damaged)
        xkd_say(listener, "%" PRId64 " of %" PRId64 " clips of the %s set are damaged beyond data.max_clip_damage",
                set->damaged, set->n, name);
}

/* `two`: training and test features come from files of their own, and a split is then only applied where it was asked
 * for. Else they are the splits "train" and "test" of one file. */
xkd_status xkd_feature_sets_make(xkd_context *cx, const xkd_feature_choice *args, char *const *paths, bool two,
                                 const xkd_listener *listener, xkd_feature_sets *out)
{
    xkd_status status = XKD_OK;
    const char *train = args->train ? args->train : "train", *test = args->test ? args->test : "test";
    XKD_TRY(xkd_feature_modality(cx, args->modality, &out->train, &out->video, &out->audio));
    /* A modality that is left out may be of any model. */
    const bool used[XKD_MODALITIES] = {out->video, out->audio};
    if (two) {
        XKD_TRY(xkd_embeddings_compare(cx, &out->train, paths[0], &out->test, paths[1], used));
        XKD_TRY(xkd_manifest_compare_classes(cx, &out->train.files, paths[0], &out->test.files, paths[1], NULL));
    }
    /* Clips of both modalities stand side by side in one row where both are used. */
    xkd_clip_choice choice = {.video = out->video,
                              .audio = out->audio,
                              .split = two ? args->train : train,
                              .most_clips = args->subsample,
                              .normalise = args->normalise,
                              .max_damage = args->max_damage};
    XKD_TRY(xkd_clip_set_make(cx, &out->train, &choice, &out->train_set));
    choice.split = two ? args->test : test;
    /* Subsampling is for training: a test keeps all its clips. */
    choice.most_clips = 0;
    XKD_TRY(xkd_clip_set_make(cx, two ? &out->test : &out->train, &choice, &out->test_set));
    out->test_files = two ? &out->test.files : &out->train.files;
    /* After both sets exist: the number of classes may come from either. */
    XKD_TRY(xkd_clip_sets_align(cx, &out->train_set, &out->test_set, out->test_files));
    say_lacking(listener, &out->train_set, &out->train.files, "training");
    say_lacking(listener, &out->test_set, out->test_files, "test");
fail:
    return status;
}

xkd_status xkd_feature_sets_load(xkd_context *cx, const xkd_feature_choice *args, char *const *paths, int count,
                                 const xkd_listener *listener, xkd_feature_sets *out)
{
    xkd_status status = XKD_OK;
    bool two = count == 2;
    *out = (xkd_feature_sets){0};
    if (count < 1 || count > 2)
        XKD_FAIL(XKD_ERR_CONFIG, "want the features of the training and the test set, or one file with both splits");
    XKD_TRY(xkd_embeddings_read(cx, paths[0], &out->train));
    XKD_TRY(xkd_embeddings_check_whole(cx, &out->train, paths[0]));
    if (two) {
        XKD_TRY(xkd_embeddings_read(cx, paths[1], &out->test));
        XKD_TRY(xkd_embeddings_check_whole(cx, &out->test, paths[1]));
    }
    XKD_TRY(xkd_feature_sets_make(cx, args, paths, two, listener, out));
fail:
    return status;
}

/* The sets own copies of the features, which `svm` may scale; the tables stay as they were read. */
void xkd_feature_sets_free(xkd_feature_sets *s)
{
    xkd_embeddings_free(&s->train);
    xkd_embeddings_free(&s->test);
    xkd_clip_set_free(&s->train_set);
    xkd_clip_set_free(&s->test_set);
}
