/* The log of a run: metrics.jsonl, metrics.csv, epochs.jsonl, train.log and TensorBoard events in one folder. */
#ifndef XKD_REPORT_METRICS_H
#define XKD_REPORT_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* The functions below take NULL, and do nothing then: ranks that do not write have no metrics. */
typedef struct xkd_metrics xkd_metrics;

/* Opens the files in `folder`, which exists. columns [count] name the values of every step and must outlive the log.
 * With resume_step >= 0 a run goes on behind that step, `epochs` epochs being done: what the files say of later steps is
 * dropped, since those steps will be done again. resume_step < 0 starts the files afresh. Free with
 * xkd_metrics_close. */
xkd_status xkd_metrics_open(xkd_context *cx, const char *folder, const char *const *columns, int64_t count,
                            int64_t resume_step, int64_t epochs, bool tensorboard, xkd_metrics **out);
void xkd_metrics_close(xkd_metrics *metrics); /* NULL is allowed */

/* values [count] of finished step number `step` (from 1); TensorBoard tags are pretext-iter/COLUMN. */
xkd_status xkd_metrics_step(xkd_metrics *metrics, int64_t step, int64_t epoch, const double *values);

/* End of an epoch: seconds in all, seconds waiting for data, mean loss; tags pretext-epoch/{Epochs,Time,Data,Loss}. */
xkd_status xkd_metrics_epoch(xkd_metrics *metrics, int64_t step, int64_t epoch, double seconds, double data_seconds,
                             double loss);

/* Figures that come now and then, such as those of a test, for TensorBoard alone: tags PREFIX/names[i], [count]. */
xkd_status xkd_metrics_scalars(xkd_metrics *metrics, int64_t step, const char *prefix, const char *const *names,
                               const double *values, int64_t count);

/* A line for people, with a time stamp, in train.log; it also goes to the log sink. */
xkd_status xkd_metrics_line(xkd_metrics *metrics, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Writes rgb [height,width,3] to folder/pictures/NAME-STEP.png and into the TensorBoard events under `name`. */
xkd_status xkd_metrics_picture(xkd_metrics *metrics, int64_t step, const char *name, const uint8_t *rgb, int64_t width,
                               int64_t height);

#endif
