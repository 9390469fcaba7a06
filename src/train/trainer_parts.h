/* What train/trainer.c and train/step.c know of each other. */
#ifndef XKD_TRAIN_TRAINER_PARTS_H
#define XKD_TRAIN_TRAINER_PARTS_H

#include "train/trainer.h"

/* The numbers that a micro-batch leaves for the host: those of the pass, and behind them the teachers' energies. */
enum { XKD_PART_SCALARS = XKD_PASS_SCALARS + 2 * XKD_MODALITIES };

/* What a step leaves for the host, on its way. */
typedef struct {
    xkd_arrival arrival;
    int64_t B; /* samples of its last micro-batch */
} xkd_step_arrival;

struct xkd_trainer {
    xkd_trainer_inside in;
    xkd_dist *dist; /* the ranks that train it together; NULL: this process alone */
    xkd_pass spare; /* of the other size of micro-batches, in the memory of the larger one; B 0: there is none */
    xkd_step_config config;
    double beta1, beta2, eps;
    int64_t accumulate; /* micro-batches a step in this process */
    int64_t micro;      /* micro-batches done of the step in work */
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
};

/* Micro-batches of a step, over all ranks. */
int64_t xkd_trainer_parts(const xkd_trainer *t);

#endif
