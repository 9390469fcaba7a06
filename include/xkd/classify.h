/* Class names and scores of videos or sounds by a model of `xkd finetune` or `xkd linear`; the same numbers, to the bit, as
 * `xkd predict` prints. No file is written.
 *
 *     xkd_predictor *predictor;
 *     float scores[400];
 *     if (xkd_predictor_open(cx, "runs/ucf", NULL, 0, &predictor) != XKD_OK) fail(xkd_last_error(cx));
 *     if (xkd_predictor_file(predictor, "holiday.mp4", scores) != XKD_OK) fail(xkd_predictor_error(predictor));
 *
 * Threads: as in <xkd/embed.h>: a handle serves one thread at a time, and any number of handles work side by side. */
#ifndef XKD_CLASSIFY_H
#define XKD_CLASSIFY_H

#include <stdint.h>
#include <xkd/clip.h>
#include <xkd/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct xkd_predictor xkd_predictor;

/* Opens a run folder or its classifier.safetensors. settings [count]: "key=value" over the model's own, such as
 * "eval.test_clips=10" and "run.threads=2". The caller closes *out, which is NULL after an error; the message is then the
 * context's. XKD_ERR_CHECKPOINT: no classifier. */
XKD_API xkd_status xkd_predictor_open(xkd_context *cx, const char *model, const char *const *settings, int64_t count,
                                      xkd_predictor **out);
XKD_API void xkd_predictor_close(xkd_predictor *predictor); /* NULL is allowed */

/* Message of the handle's last call that failed, "" if none has. Valid until its next call. */
XKD_API const char *xkd_predictor_error(const xkd_predictor *predictor);

typedef struct {
    xkd_modality modality;
    int64_t classes;           /* K */
    int multi_label;           /* 1: each class has a probability of its own; 0: they sum to 1 */
    int64_t clip[4];           /* C,T,H,W of a clip */
    double seconds;            /* a clip lasts */
    double rate;               /* frames or samples a second */
    char hash[XKD_MODEL_HASH]; /* of the model */
} xkd_predictor_description;

XKD_API xkd_predictor_description xkd_predictor_info(const xkd_predictor *predictor);

/* Name of class k, the handle's; NULL for a k that is none. UTF-8 unless the model was trained on other names. */
XKD_API const char *xkd_predictor_class(const xkd_predictor *predictor, int64_t k);

/* Scores [K] of a file: of its test clips and their crops, put together as the model was tested. scores is overwritten.
 * XKD_ERR_DATA: no such file, one that cannot be decoded, or one without the stream; XKD_ERR_NUMERIC: a score is not finite. */
XKD_API xkd_status xkd_predictor_file(xkd_predictor *predictor, const char *path, float *scores);

/* The same of frames or samples in memory; what the model has no use for may be NULL. */
XKD_API xkd_status xkd_predictor_memory(xkd_predictor *predictor, const xkd_frames *frames, const xkd_samples *samples,
                                        float *scores);

/* Of prepared clips [count,C,T,H,W], each by itself: scores [count,K]. */
XKD_API xkd_status xkd_predictor_clips(xkd_predictor *predictor, const float *clips, int64_t count, float *scores);

/* Receives a file's scores [K], or, with `error`, why it has none. Both are valid during the call. Non-zero ends the work with
 * XKD_ERR_INTERRUPTED. `clips`: how many were scored. */
typedef int (*xkd_scores_sink)(void *user, int64_t index, const float *scores, int64_t clips, const char *error);

/* Of many files, in their order. A file that cannot be read costs its own scores only. */
XKD_API xkd_status xkd_predictor_files(xkd_predictor *predictor, const char *const *paths, int64_t count,
                                       xkd_scores_sink sink, void *user);

#ifdef __cplusplus
}
#endif
#endif
