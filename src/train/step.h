/* One training step; method.md as a whole. */
#ifndef XKD_TRAIN_STEP_H
#define XKD_TRAIN_STEP_H

#include "train/trainer.h"

typedef struct {
    double loss[XKD_LOSS_COUNT];            /* mean over the micro-batches of all ranks */
    double teacher_entropy[XKD_MODALITIES]; /* nats */
    double grad_norm;                       /* over all tensors, before clipping */
    double
        centre_squares[XKD_MODALITIES]; /* sum of squares of the centre after the step; of distillation alone, as is */
    double energy[XKD_MODALITIES][2];   /* of the teachers' logits: column_energy of ops.h, summed over micro-batches */
    int64_t B;                          /* samples of a micro-batch */
    bool skipped;                       /* something was not finite: nothing was changed */
} xkd_step_result;

/* A step is begin, then `accumulate` micro-batches, then finish, on all ranks; collect reads what it has left. The next step may
 * begin before that, on a device that works while the host does other things, but no third one. */
void xkd_step_begin(xkd_trainer *t, const xkd_step_values *values);
void xkd_step_micro_batch(xkd_trainer *t, const xkd_pass_input *in);

/* Adds up what the ranks have, and asks for the update of students, teachers and centres, unless a loss or gradient of any rank is
 * not finite. With any status but XKD_OK the weights may be those of no step: they must not be saved. */
xkd_status xkd_step_finish(xkd_trainer *t);

/* The oldest step that was not collected: the same on all ranks. Waits for it, and for no later one. The status is as of
 * xkd_step_finish. The rows' step counts are those of this step then. */
xkd_status xkd_step_collect(xkd_trainer *t, xkd_step_result *result);

/* Steps that were asked for and not collected. */
int xkd_step_open(const xkd_trainer *t);

#endif
