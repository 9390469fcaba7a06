/* A model in training: networks, their gradients, moments and averages, and the memory of a step. */
#ifndef XKD_TRAIN_TRAINER_H
#define XKD_TRAIN_TRAINER_H

#include "dist/dist.h"
#include "model/pass.h"
#include "optim/optimizer.h"
#include "optim/parts.h"

/* Numbers that schedules give for one step. The doubles are brought to the backend's memory, where operations read them. */
typedef struct {
    double lr, weight_decay;
    double ema[XKD_MODALITIES];
    xkd_temperatures temp;
    int64_t epoch; /* for freeze_last_layer */
} xkd_step_values;

/* Shape [T,H,W] of one global or local view of a configuration, without batch; method.md section 2. */
xkd_view_shape xkd_config_view(const xkd_config *config, xkd_modality modality, bool local);

/* The numbers that a micro-batch leaves for the host: those of the pass, and behind them the teachers' energies. */
enum { XKD_PART_SCALARS = XKD_PASS_SCALARS + 2 * XKD_MODALITIES };

/* Steps whose results the host has not read: the one in work, and the one before it. */
enum { XKD_STEPS_OPEN = 2 };

/* What a step leaves for the host, on its way. */
typedef struct {
    xkd_arrival arrival;
    int64_t B; /* samples of its last micro-batch */
} xkd_step_arrival;

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
    xkd_step_values values;         /* of the step in work */
    xkd_step_values *device_values; /* the same in the backend's memory */
    double *part;                   /* [XKD_PART_SCALARS] of the micro-batch in work, in the backend's memory */
    /* What a step leaves, likewise: [ranks*accumulate,XKD_PART_SCALARS], [XKD_MODALITIES,2] squares of the centres and whether
     * they are finite, and the optimiser's numbers. */
    double *left;
    double *gathered; /* [ranks*accumulate,XKD_PART_SCALARS] with the host, of several ranks alone; owned */
    xkd_step_arrival arrivals[XKD_STEPS_OPEN];
    int64_t asked, collected; /* steps so far */
} xkd_trainer;

/* Declares, allocates and initialises a model for micro-batches of `shape`. `be` and `dist`, which may be NULL, must outlive
 * it. Free with xkd_trainer_free. */
xkd_status xkd_trainer_new(xkd_context *cx, xkd_trainer *out, xkd_backend *be, xkd_dist *dist, const xkd_config *config,
                           const xkd_batch_shape *shape, bool report_all);
void xkd_trainer_free(xkd_trainer *t);

/* Makes `pass` one for shape->B samples, at most those that the trainer was made for. Nothing is allocated once both sizes
 * of an epoch have been asked for. */
xkd_status xkd_trainer_fit(xkd_context *cx, xkd_trainer *t, const xkd_batch_shape *shape);

/* Micro-batches of a step, over all ranks. */
int64_t xkd_trainer_parts(const xkd_trainer *t);

#endif
