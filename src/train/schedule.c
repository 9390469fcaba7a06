/* Learning rate, weight decay, EMA momentum and temperatures as functions of the step (method.md section 7).
 * All are pure: a resume needs no schedule state. */
#include "train/schedule.h"

#include <math.h>

/* Element i of linspace(first, last, n). The last one is `last` itself, not a sum that nearly is. */
static double linspace(double first, double last, int64_t n, int64_t i)
{
    if (n > 1 && i == n - 1) return last;
    return n > 1 ? first + (double)i * ((last - first) / (double)(n - 1)) : first;
}

/* Warm-up, then half a cosine from base to final. A step behind the end keeps the last value; a run shorter
 * than the warm-up sees only its first part. */
double xkd_schedule_value(const xkd_schedule_config *schedule, int64_t step, int64_t steps_per_epoch, int64_t epochs)
{
    int64_t total = epochs * steps_per_epoch;
    /* Warm-up epochs may be a fraction, so the product is rounded to whole steps. */
    int64_t warmup = llrint(schedule->warmup_epochs * (double)steps_per_epoch);
    if (step >= total) step = total - 1;
    if (step < warmup) return linspace(schedule->warmup, schedule->base, warmup, step);
    double turn = cos(M_PI * (double)(step - warmup) / (double)(total - warmup));
    return schedule->final + 0.5 * (schedule->base - schedule->final) * (1 + turn);
}

/* Temperatures change once an epoch, not once a step. */
double xkd_temperature_value(double first, double last, int64_t warmup_epochs, int64_t epoch)
{
    return epoch < warmup_epochs ? linspace(first, last, warmup_epochs, epoch) : last;
}

/* The learning rate is scaled by the batch only where lr.scale_to_batch asks for it; the release does not scale. An
 * epoch's temperature, but a step's rate. */
void xkd_schedule_at(const xkd_train_config *train, int64_t step, int64_t steps_per_epoch, xkd_schedule_values *out)
{
    int64_t epoch = step / steps_per_epoch;
    double scale = train->lr_scale_to_batch > 0 ? (double)train->batch / train->lr_scale_to_batch : 1;
    out->lr = scale * xkd_schedule_value(&train->lr, step, steps_per_epoch, train->epochs);
    out->weight_decay = xkd_schedule_value(&train->weight_decay, step, steps_per_epoch, train->epochs);
    for (int m = 0; m < XKD_MODALITIES; m++) {
        out->ema[m] = xkd_schedule_value(&train->ema[m], step, steps_per_epoch, train->epochs);
        out->teacher_temp[m] = xkd_temperature_value(train->teacher_temp_warmup[m], train->teacher_temp[m],
                                                     train->teacher_temp_warmup_epochs[m], epoch);
        out->student_temp[m] = train->student_temp[m];
    }
    out->epoch = (uint32_t)epoch;
}

/* The three released forms. Fixed and step do not use `final`. */
double xkd_supervised_rate(const xkd_train_config *train, const xkd_eval_config *eval, int64_t step,
                           int64_t steps_per_epoch)
{
    const xkd_schedule_config *lr = &train->lr;
    double scale = train->lr_scale_to_batch > 0 ? (double)train->batch / train->lr_scale_to_batch : 1;
    if (eval->lr_form == XKD_LR_COSINE) return scale * xkd_schedule_value(lr, step, steps_per_epoch, train->epochs);
    if (eval->lr_form == XKD_LR_FIXED) return scale * lr->base;
    /* A cosine that ends where it begins is the warm-up followed by a constant. */
    xkd_schedule_config flat = {lr->warmup, lr->base, lr->base, lr->warmup_epochs};
    double value = xkd_schedule_value(&flat, step, steps_per_epoch, train->epochs);
    for (int64_t i = 0; i < eval->milestones.count; i++)
        if ((double)(step / steps_per_epoch) >= eval->milestones.value[i]) value *= eval->gamma;
    return scale * value;
}
