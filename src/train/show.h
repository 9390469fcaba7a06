/* Reconstruction pictures of the autoencoders during training. */
#ifndef XKD_TRAIN_SHOW_H
#define XKD_TRAIN_SHOW_H

#include "report/metrics.h"
#include "train/step.h"

/* Runs the students on the micro-batch once more, without any effect on the training, and writes what they make of its
 * first sample: pictures "video" and "audio" of step `step`. Does nothing where there is no reconstruction. */
xkd_status xkd_show_reconstruction(xkd_context *cx, xkd_trainer *trainer, const xkd_pass_input *in,
                                   xkd_metrics *metrics, int64_t step);

#endif
