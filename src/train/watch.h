/* Collapse watch: is the distillation still about something? Teachers can fall into giving every clip the same answer,
 * or every answer the same weight; the loss alone does not show it. */
#ifndef XKD_TRAIN_WATCH_H
#define XKD_TRAIN_WATCH_H

#include "train/step.h"

/* What is measured after a step, by the teacher's modality. */
typedef struct {
    double kd;          /* distillation loss, nats */
    double entropy;     /* of the teacher's distribution, nats */
    double centre_norm; /* root mean square of the centre; logits have 1 */
    double spread;      /* share of the logits' variance that differs between clips, 0..1 */
} xkd_watch_sample;

typedef struct {
    int64_t outputs;       /* K */
    int64_t steps;         /* seen */
    int64_t quiet;         /* steps for which the modality says nothing more */
    xkd_watch_sample mean; /* running means */
} xkd_watch;

/* Measures teacher m after a step. With one clip a batch the spread is NAN. */
xkd_watch_sample xkd_watch_measure(xkd_trainer *trainer, const xkd_step_result *result, xkd_modality m);

/* Takes in one sample and returns a sentence of advice when something looks wrong, at most every few hundred steps;
 * NULL otherwise. Static string. */
const char *xkd_watch_step(xkd_watch *watch, const xkd_watch_sample *sample);

#endif
