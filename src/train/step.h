/* One training step; method.md as a whole. */
#ifndef XKD_TRAIN_STEP_H
#define XKD_TRAIN_STEP_H

#include "dist/dist.h"
#include "model/pass.h"
#include "optim/optimizer.h"
#include "optim/parts.h"

/* Numbers that schedules give for one step. */
typedef struct {
    double lr, weight_decay;
    double ema[XKD_MODALITIES];
    xkd_temperatures temp;
    int64_t epoch; /* for freeze_last_layer */
} xkd_step_values;

typedef struct {
    double loss[XKD_LOSS_COUNT];            /* mean over the micro-batches of all ranks */
    double teacher_entropy[XKD_MODALITIES]; /* nats */
    double grad_norm;                       /* over all tensors, before clipping */
    double
        centre_squares[XKD_MODALITIES]; /* sum of squares of the centre after the step; of distillation alone, as is */
    double energy[XKD_MODALITIES][2];   /* of the teachers' logits: column_energy of ops.h, summed over micro-batches */
    bool skipped;                       /* something was not finite: nothing was changed */
} xkd_step_result;

/* Shape [T,H,W] of one global or local view of a configuration, without batch; method.md section 2. */
xkd_view_shape xkd_config_view(const xkd_config *config, xkd_modality modality, bool local);

/* The numbers that a micro-batch leaves for the host: those of the pass, and behind them the teachers' energies. */
enum { XKD_PART_SCALARS = XKD_PASS_SCALARS + 2 * XKD_MODALITIES };

/* A model in training. */
typedef struct {
    xkd_backend *be;
    xkd_dist *dist; /* the ranks that train it together; NULL: this process alone */
    xkd_networks networks;
    xkd_optimizer optimizer;
    xkd_pass pass;
    xkd_pass spare; /* of the other size of micro-batches, in the memory of the larger one; B 0: there is none */
    xkd_step_config config;
    double beta1, beta2, eps;
    int64_t accumulate; /* micro-batches a step in this process */
    int64_t micro;      /* micro-batches done of the step in work */
    xkd_parts parts;    /* sums of gradients, and of the teachers' logits for the centres */
    xkd_arena memory;
    void *centre_sum[XKD_MODALITIES]; /* [K] */
    int64_t centre_rows;
    /* [ranks*accumulate,XKD_PART_SCALARS] and [XKD_MODALITIES,2]: squares of the centres, and whether they are finite; in
     * the backend's memory */
    double *scalars;
    double *read; /* the same, with the host; owned */
} xkd_trainer;

/* Declares, allocates and initialises a model for micro-batches of `shape`. `be` and `dist`, which may be NULL, must outlive
 * it. Free with xkd_trainer_free. */
xkd_status xkd_trainer_new(xkd_context *cx, xkd_trainer *out, xkd_backend *be, xkd_dist *dist, const xkd_config *config,
                           const xkd_batch_shape *shape, bool report_all);
void xkd_trainer_free(xkd_trainer *t);

/* Makes `pass` one for shape->B samples, at most those that the trainer was made for. Nothing is allocated once both sizes
 * of an epoch have been asked for. */
xkd_status xkd_trainer_fit(xkd_context *cx, xkd_trainer *t, const xkd_batch_shape *shape);

/* A step is begin, then `accumulate` micro-batches, then finish, on all ranks. */
void xkd_step_begin(xkd_trainer *t, xkd_step_result *result);
void xkd_step_micro_batch(xkd_trainer *t, const xkd_pass_input *in, const xkd_step_values *values);

/* Adds up what the ranks have, updates students, teachers and centres, unless a loss or gradient of any rank is not finite,
 * and reads what the step has left: the same on all ranks. With any status but XKD_OK the weights may be those of no step:
 * they must not be saved. */
xkd_status xkd_step_finish(xkd_trainer *t, const xkd_step_values *values, xkd_step_result *result);

#endif
