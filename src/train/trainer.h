/* A model in training: networks, their gradients, moments and averages, and the memory of a step. Opaque: train/step.h does its
 * steps, xkd_trainer_look shows what is inside. */
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

/* A model in training. */
typedef struct xkd_trainer xkd_trainer;

/* The inside of one, for those who look at the model or measure it: the loop, the collapse watch, pictures, the probe, benchmarks,
 * tests. A step changes all of it. */
typedef struct {
    xkd_backend *be;
    xkd_networks networks;
    xkd_optimizer optimizer;
    xkd_pass pass;   /* the one in work (xkd_trainer_fit) */
    xkd_parts parts; /* sums of gradients, and of the teachers' logits for the centres */
} xkd_trainer_inside;

xkd_trainer_inside *xkd_trainer_look(xkd_trainer *t);

/* Steps that may have been asked for and not collected: the one in work, and the one before it. */
enum { XKD_STEPS_OPEN = 2 };

/* Declares, allocates and initialises a model for micro-batches of `shape`. `be` and `dist`, which may be NULL, must outlive
 * it. Free with xkd_trainer_free, which takes NULL. XKD_ERR_CONFIG for float64 with ranks. */
xkd_status xkd_trainer_new(xkd_context *cx, xkd_trainer **out, xkd_backend *be, xkd_dist *dist,
                           const xkd_config *config, const xkd_batch_shape *shape, bool report_all);
void xkd_trainer_free(xkd_trainer *t);

/* Makes `pass` one for shape->B samples, at most those that the trainer was made for. Nothing is allocated once both sizes
 * of an epoch have been asked for. */
xkd_status xkd_trainer_fit(xkd_context *cx, xkd_trainer *t, const xkd_batch_shape *shape);

#endif
