/* What the commands on embeddings share: reading files, choosing modality and splits. */
#ifndef XKD_CLI_FEATURE_ARGS_H
#define XKD_CLI_FEATURE_ARGS_H

#include "cli.h"
#include "eval/judge/feature_sets.h"

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

#endif
