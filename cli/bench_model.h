/* A trainer of a configured model on random views, for the measurements that need a whole model. */
#ifndef XKD_CLI_BENCH_MODEL_H
#define XKD_CLI_BENCH_MODEL_H

#include "cli.h"
#include "train/step.h"

/* Views and noise are made once and used for all steps: data are not part of what is measured, but for views that the device
 * is told to make. */
struct bench_model {
    xkd_config config;
    xkd_view_shape *shape[XKD_MODALITIES];
    float **clips[XKD_MODALITIES], *noise[XKD_MODALITIES];
    int64_t views[XKD_MODALITIES];
    bool there; /* run.augment=gpu: the device makes the views, of `raw_batch` */
    xkd_raw_plan raw;
    xkd_raw_batch raw_batch;
    xkd_backend *be;
    xkd_trainer *trainer;
    double losses[XKD_LOSS_COUNT]; /* of the last step */
};

/* What decides the model: a file (NULL: XKD's, full size) and KEY=VALUE arguments; the batch is one micro-batch. */
struct bench_model_args {
    const char *config, *device;
    int64_t batch, threads;
    char **overrides;
    int count;
};

/* No schedule, no loader, no run folder: a trainer alone. Free with bench_model_free, also after a failure. */
xkd_status bench_model_make(xkd_context *cx, struct bench_model *out, const struct bench_model_args *args);
void bench_model_free(struct bench_model *b);

/* One step with schedules at their base values, since the time does not depend on them. Returns its seconds. */
double bench_model_step(struct bench_model *b);

#endif
