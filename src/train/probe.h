/* A look at what the teachers have learnt, while they learn it: labels and pairs of held-out files, which the training
 * never sees, against the features of the live teachers. The training does not notice: nothing is drawn from its random
 * streams, no weight, moment or activation of it is touched. */
#ifndef XKD_TRAIN_PROBE_H
#define XKD_TRAIN_PROBE_H

#include "train/step.h"

/* All in percent. kNN: each labelled file takes the class of its nearest others, by cosine of the mean features
 * (leave one out). Recall: how often the own file is the nearest, or among the five nearest, of all files of the other
 * modality, by cosine of the projection heads' outputs. */
typedef enum {
    XKD_PROBE_VIDEO_KNN,
    XKD_PROBE_AUDIO_KNN,
    XKD_PROBE_VIDEO_RECALL1, /* video asks, sound answers */
    XKD_PROBE_VIDEO_RECALL5,
    XKD_PROBE_AUDIO_RECALL1, /* sound asks, video answers */
    XKD_PROBE_AUDIO_RECALL5,
    XKD_PROBE_FIGURES
} xkd_probe_figure;

/* Column names: probe_video_knn, ... */
extern const char *const xkd_probe_names[XKD_PROBE_FIGURES];

typedef struct xkd_probe xkd_probe;

/* Opens config->run.probe_data, decodes its clips where they fit into memory (then they are decoded only this once),
 * and allocates all that a probe will ever need. `config` and `trainer` must outlive it. XKD_ERR_DATA: nothing in the
 * split, fewer than two usable files, more unreadable ones than data.max_bad_fraction allows. Free with
 * xkd_probe_free. */
xkd_status xkd_probe_new(xkd_context *cx, const xkd_config *config, xkd_trainer *trainer, xkd_probe **out);
void xkd_probe_free(xkd_probe *probe); /* NULL is allowed */

/* Whether a probe is due behind `epochs` finished epochs. */
bool xkd_probe_is_due(const xkd_probe *probe, int64_t epochs);

/* Measures; figures that the data or the model cannot give (no labels, one modality) are NAN. */
xkd_status xkd_probe_run(xkd_probe *probe, double figures[XKD_PROBE_FIGURES]);

#endif
