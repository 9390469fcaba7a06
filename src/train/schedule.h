/* Learning rate, weight decay, EMA momentum and temperatures of a step; method.md section 7. */
#ifndef XKD_TRAIN_SCHEDULE_H
#define XKD_TRAIN_SCHEDULE_H

#include <stdint.h>

#include "config/config.h"

typedef struct {
    double lr, weight_decay;
    double ema[XKD_MODALITIES], teacher_temp[XKD_MODALITIES], student_temp[XKD_MODALITIES];
    uint32_t epoch;
} xkd_schedule_values;

/* Value at optimiser step `step` of epochs * steps_per_epoch. The warm-up is linspace(warmup, base, n) with both ends;
 * a run that is shorter takes its first values. Steps behind the end have the last value. */
double xkd_schedule_value(const xkd_schedule_config *schedule, int64_t step, int64_t steps_per_epoch, int64_t epochs);

/* Teacher temperature, constant within an epoch: linspace(first, last, warmup_epochs), then last. */
double xkd_temperature_value(double first, double last, int64_t warmup_epochs, int64_t epoch);

/* All of them; learning rates scaled to the batch where the configuration says so. */
void xkd_schedule_at(const xkd_train_config *train, int64_t step, int64_t steps_per_epoch, xkd_schedule_values *out);

/* Learning rate of supervised training, scaled likewise: `cosine` as above; `fixed`: lr.base at all times; `step`: lr.base
 * times eval.gamma for every milestone (an epoch) that has come, behind the same warm-up. method.md section 10. */
double xkd_supervised_rate(const xkd_train_config *train, const xkd_eval_config *eval, int64_t step,
                           int64_t steps_per_epoch);

#endif
