/* What the commands on embeddings share: reading files, choosing modality and splits. */
#ifndef XKD_CLI_FEATURE_ARGS_H
#define XKD_CLI_FEATURE_ARGS_H

#include "cli.h"
#include "eval/protocols.h"

struct feature_args {
    const char *modality, *train, *test;
    int64_t subsample;
    bool normalise;
};

/* UNSAID: what is used without --modality. */
#define FEATURE_OPTIONS(VALUES, FIELD, UNSAID)                                                                         \
    {0,        "modality",                                                                                             \
     CLI_TEXT, offsetof(VALUES, FIELD.modality),                                                                       \
     "M",      "video, audio or both: L2-normalised, one behind the other (default: " UNSAID ")"},                     \
        {0, "train", CLI_TEXT, offsetof(VALUES, FIELD.train), "SPLIT", "training split of one file (default: train)"}, \
        {0, "test", CLI_TEXT, offsetof(VALUES, FIELD.test), "SPLIT", "test split of one file (default: test)"},        \
        {0, "subsample", CLI_INT, offsetof(VALUES, FIELD.subsample), "N", "take N clips of a training video at most"}, \
    {                                                                                                                  \
        0, "l2-norm", CLI_FLAG, offsetof(VALUES, FIELD.normalise), NULL, "L2-normalise the features"                   \
    }

struct feature_sets {
    xkd_embeddings train, test; /* test is empty where one file holds both splits */
    xkd_clip_set train_set, test_set;
    const xkd_manifest *test_files; /* whose samples test_set.file names */
    bool video, audio;
};

/* One file with splits, or a training and a test file. Release with features_free in any case. */
xkd_status features_load(struct cli *cli, const struct feature_args *args, char **paths, int count,
                         struct feature_sets *out);
/* The second half of it: from train and, if `two`, test to the two sets. paths name them in messages. */
xkd_status features_sets(struct cli *cli, const struct feature_args *args, char **paths, bool two,
                         struct feature_sets *out);
void features_free(struct feature_sets *sets);

/* "video", "audio" or "both", and what there is for NULL. */
xkd_status features_modality(struct cli *cli, const char *word, const xkd_embeddings *e, bool *video, bool *audio);

#endif
