/* Labelled files of a supervised run: the training loader with its targets, and the files to test on. */
#ifndef XKD_SUPERVISED_DATA_H
#define XKD_SUPERVISED_DATA_H

#include "data/loader.h"
#include "data/manifest.h"
#include "supervised/classifier.h"
#include "eval/encode/training_views.h"

typedef struct {
    xkd_modality modality;
    xkd_training_views views;
    xkd_dist *dist; /* the caller's; NULL: one process */
    xkd_loader_plan plan;
    xkd_loader *loader;
    const xkd_manifest *train; /* the loader's */
    xkd_manifest test;
    xkd_embed_input *inputs; /* [test.count] */
    bool multi_label;
    xkd_class_names classes;                    /* K */
    int64_t in_both;                            /* files of both splits */
    int64_t batch;                              /* B: clips of a full micro-batch */
    int64_t clip_floats, planes, height, width; /* of a clip: planes * height * width */
    float *targets;                             /* [B,K] */
    int32_t *label;                             /* [B] */
    /* overfit: the first step's micro-batches, and how many are there and were handed out */
    float *first;          /* [accumulate,B,clip], NULL otherwise */
    int64_t *first_source; /* [accumulate,B] */
    int64_t *first_count;  /* [accumulate] */
    int64_t copied, shown;
} xkd_supervised_data;

/* `dist`: the ranks that share the training clips, NULL: none.
 * Opens both manifests and checks them: splits that exist, labels of one kind for every file, the same classes in both,
 * eval.num_classes, a training file for every class. A batch that the training files do not fill becomes smaller, in *config,
 * where a smaller last batch is left out; a warning says so. `look`: for a plan, no batch can be taken. `given` is what data.path would hold, NULL: that is read. It and
 * `config` (whose data is that of one view) must outlive *out. Free with xkd_supervised_data_free in any case. */
xkd_status xkd_supervised_data_open(xkd_context *cx, xkd_config *config, xkd_modality modality,
                                    const xkd_manifest *given, xkd_dist *dist, bool look, xkd_supervised_data *out);
void xkd_supervised_data_free(xkd_supervised_data *data);

/* Waits for the next micro-batch and makes its targets; clips and targets are mixed where the configuration says so.
 * *clips [count,C,T,H,W] is valid until the next call, as are data->targets. */
xkd_status xkd_supervised_next(const xkd_config *config, xkd_supervised_data *data, float **clips, int64_t *count,
                               double *wait_seconds);

/* truth [K]: 1 at the sample's class or classes, 0 elsewhere. */
void xkd_truth_of(const xkd_sample *sample, int64_t K, uint8_t *truth);

#endif
