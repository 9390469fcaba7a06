/* The SVM protocol on videos: features of both splits, kept in a folder, and the sets that eval/judge/svm_run.h trains on. */
#ifndef XKD_EVAL_JUDGE_SVM_VIDEOS_H
#define XKD_EVAL_JUDGE_SVM_VIDEOS_H

#include "eval/judge/draws.h"
#include "eval/judge/feature_sets.h"
#include "eval/encode/models.h"

/* Videos instead of features: which manifest, where features are kept. */
typedef struct {
    xkd_models *models;
    const xkd_manifest *manifest;
    const char *train, *test;    /* splits */
    const xkd_clip_draws *draws; /* what training files are called in random draws; NULL: their number in the split */
    char *const
        *donors; /* [donor_count] folders of other folds, whose features of the same draws are taken; NULL: none */
    int64_t donor_count;
    const char *folder; /* train-N.safetensors and test-N.safetensors, N clips a file, stay there */
    int64_t subsample;  /* clips of a training video; 0: as configured */
    xkd_dist *dist;     /* the ranks that share the files; NULL: this process does all */
} xkd_svm_videos;

/* Clips of both splits and what they will take. */
typedef struct {
    int64_t files[2], clips[2]; /* training, test */
    double seconds, bytes;      /* of the encoder; of features and SVM */
} xkd_svm_plan;
xkd_status xkd_svm_plan_videos(xkd_context *cx, const xkd_svm_videos *videos, xkd_svm_plan *plan);

/* On all ranks: embeds both splits, or reads what is there from an earlier call, into out->train and out->test. */
xkd_status xkd_svm_embed_videos(xkd_context *cx, const xkd_svm_videos *videos, const xkd_feature_choice *choice,
                                const xkd_listener *listener, xkd_feature_sets *out);

#endif
