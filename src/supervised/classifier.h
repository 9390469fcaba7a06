/* A trained classifier as one file, which is all that `predict` needs: encoder and head under their public names, and in
 * the metadata the configuration, what it was trained to tell apart, and how its input is made:
 *
 *   xkd.config         the resolved configuration, YAML; geometry, clips and views are read from it
 *   xkd.modality       "video" or "audio"
 *   xkd.task           "single-label" (softmax) or "multi-label" (sigmoid)
 *   xkd.classes        JSON list of the classes' names, in the order of head.weight's rows
 *   xkd.preprocessing  JSON for other programs: the keys of a Hugging Face preprocessor_config.json */
#ifndef XKD_SUPERVISED_CLASSIFIER_H
#define XKD_SUPERVISED_CLASSIFIER_H

#include "eval/encode/embed.h"
#include "supervised/finetune.h"

/* Names of classes; owned. Free with xkd_class_names_free. */
typedef struct {
    char **items; /* [count] */
    int64_t count;
} xkd_class_names;

/* The manifest's names, or "0", "1", ... below `count` where it has none. */
xkd_status xkd_class_names_of(xkd_context *cx, const xkd_manifest *manifest, int64_t count, xkd_class_names *out);
/* From and to a JSON list. Text that is no list of strings: XKD_ERR_CHECKPOINT, naming `path`. The caller frees *text. */
xkd_status xkd_class_names_read(xkd_context *cx, const char *path, const char *text, xkd_class_names *out);
xkd_status xkd_class_names_write(xkd_context *cx, const xkd_class_names *names, char **text);
void xkd_class_names_free(xkd_class_names *names);

/* Writes the model atomically. */
xkd_status xkd_classifier_write(xkd_context *cx, const char *path, const xkd_finetune *model, const xkd_config *config,
                                const xkd_class_names *classes);

typedef struct {
    xkd_config config;
    xkd_modality modality;
    xkd_class_names classes;
    xkd_backend *be;
    xkd_finetune model; /* planned for the clips and crops of one file at a time, 8 at most */
} xkd_classifier;

/* Reads a file of xkd_classifier_write, or a run folder with one. overrides [count] "key=value" come last: threads, test
 * clips. XKD_ERR_CHECKPOINT: no classifier, no class names, no preprocessing, or they contradict each other. Free with
 * xkd_classifier_free in any case. */
xkd_status xkd_classifier_load(xkd_context *cx, const char *path, char *const *overrides, int count,
                               xkd_classifier *out);
void xkd_classifier_free(xkd_classifier *classifier);

/* Options of an engine that scores test clips and their crops. *scorer, which is filled in, must outlive them. */
xkd_embed_options xkd_classify_options(xkd_finetune *model, const xkd_config *config, xkd_embed_scorer *scorer);

/* A file's scores [K], from those of its clips, as the model was tested. XKD_ERR_NUMERIC names `path` and the class. */
xkd_status xkd_classifier_scores(xkd_context *cx, const xkd_classifier *c, const xkd_embedded *file, const char *path,
                                 float *scores);

/* Scores of test clips and their crops: each file's come to sink->done as features of `modality`, [clips,K] rows. */
xkd_status xkd_classify_files(xkd_context *cx, xkd_finetune *model, const xkd_config *config,
                              const xkd_embed_input *inputs, int64_t count, const xkd_embed_sink *sink);

/* Scores [n,K] of a file's clips -> out [K]; softmax is averaged whatever `how` says. */
void xkd_ensemble_scores(xkd_classify_kind kind, xkd_ensemble how, const float *clips, int64_t n, int64_t K,
                         float *out);

/* The options of a model that `config` describes. */
xkd_finetune_options xkd_finetune_options_of(const xkd_config *config, bool multi_label);

#endif
