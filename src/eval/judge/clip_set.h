/* Sets of labelled videos out of features of clips. */
#ifndef XKD_EVAL_JUDGE_CLIP_SET_H
#define XKD_EVAL_JUDGE_CLIP_SET_H

#include "eval/encode/embeddings.h"

/* Clips of labelled videos; clips of a video stand together. Owned; free with xkd_clip_set_free. */
typedef struct {
    int64_t n, D, K, videos;
    float *x;                 /* [n,D] */
    int32_t *label;           /* [n] */
    int64_t *video;           /* [n] 0 .. videos-1, ascending */
    int32_t *video_label;     /* [videos] */
    int64_t *file;            /* [videos] index into the embeddings' files */
    int64_t *without;         /* [lacking] likewise of the files that belong to the set but have no clips */
    int64_t lacking, damaged; /* of those; clips of the set with more damage than the choice's */
    /* Where a file has several labels: truth [videos,K] 0 or 1, else NULL. `label` and `video_label` are then the
     * rarest label of a video, by which folds are balanced; figures are mean average precision. */
    uint8_t *truth;
} xkd_clip_set;

/* What of the embeddings is taken. */
typedef struct {
    bool video, audio;  /* both: each L2-normalised, one behind the other, clip by clip */
    const char *split;  /* NULL or "": every file */
    int64_t most_clips; /* of a file; 0: all */
    bool normalise;     /* L2, also of one modality alone */
    double max_damage;  /* data.max_clip_damage; more is counted */
} xkd_clip_choice;

/* XKD_ERR_DATA: a file without label, no clips of the split, features of all tokens, clips that do not pair up. */
xkd_status xkd_clip_set_make(xkd_context *cx, const xkd_embeddings *e, const xkd_clip_choice *choice,
                             xkd_clip_set *out);
void xkd_clip_set_free(xkd_clip_set *set);

/* Brings both sets to the larger number of classes, and to several labels a file where one of them has that. XKD_ERR_DATA: a
 * class that is tested has no training video; `files` names it. */
xkd_status xkd_clip_sets_align(xkd_context *cx, xkd_clip_set *train, xkd_clip_set *test, const xkd_manifest *files);

/* Zero mean and unit deviation of every feature, measured on `train` and applied to both. */
xkd_status xkd_clip_sets_scale(xkd_context *cx, xkd_clip_set *train, xkd_clip_set *test);

/* Mean of each video's rows: scores [n,K] -> out [videos,K]. */
void xkd_video_mean(const xkd_clip_set *set, const float *scores, int64_t K, float *out);

#endif
