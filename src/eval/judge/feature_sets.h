/* Feature files into the two sets that an evaluation needs: from two files, or from two splits of one. */
#ifndef XKD_EVAL_JUDGE_FEATURE_SETS_H
#define XKD_EVAL_JUDGE_FEATURE_SETS_H

#include "eval/encode/listener.h"
#include "eval/judge/protocols.h"

/* What of the features is used; NULL and 0: what there is, the splits "train" and "test" of one file, all clips. */
typedef struct {
    const char *modality; /* "video", "audio" or "both" */
    const char *train, *test;
    int64_t subsample; /* clips of a training video at most */
    bool normalise;
    double max_damage; /* data.max_clip_damage: clips with more are counted */
} xkd_feature_choice;

typedef struct {
    xkd_embeddings train, test; /* test is empty where one file holds both splits */
    xkd_clip_set train_set, test_set;
    const xkd_manifest *test_files; /* whose samples test_set.file names */
    bool video, audio;
} xkd_feature_sets;

/* One file with splits, or a training and a test file. Files that lack features are told to the listener, a line each,
 * and how many clips are damaged; NULL: there is none. Release with xkd_feature_sets_free in any case. */
xkd_status xkd_feature_sets_load(xkd_context *cx, const xkd_feature_choice *choice, char *const *paths, int count,
                                 const xkd_listener *listener, xkd_feature_sets *out);
/* The second half of it: from train and, if `two`, test to the two sets. paths name them in messages. */
xkd_status xkd_feature_sets_make(xkd_context *cx, const xkd_feature_choice *choice, char *const *paths, bool two,
                                 const xkd_listener *listener, xkd_feature_sets *out);
void xkd_feature_sets_free(xkd_feature_sets *sets);

/* "video", "audio" or "both", and what there is for NULL. */
xkd_status xkd_feature_modality(xkd_context *cx, const char *word, const xkd_embeddings *e, bool *video, bool *audio);

#endif
