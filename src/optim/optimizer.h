/* Clipping, AdamW and the teachers' moving averages over the rows of the parameter table; method.md section 7. */
#ifndef XKD_OPTIM_OPTIMIZER_H
#define XKD_OPTIM_OPTIMIZER_H

#include "backend/backend.h"
#include "config/config.h"
#include "tensor/params.h"

/* A row and the averages that follow it. Rows that are not updated may still feed an average (the head's gain). */
typedef struct {
    xkd_param *row;
    xkd_param *ema[2]; /* teacher rows in order, NULL: none */
    int ema_modality[2];
} xkd_update;

typedef struct {
    xkd_params *params;
    xkd_update *updates;   /* [count], owned, as are the two lists behind */
    xkd_vector *gradients; /* [count] */
    xkd_adamw_args *list;  /* [count] */
    double *squares;       /* [count+1] of the gradients, and behind them whether all is finite: the backend's */
    xkd_arena arena;
    int64_t count;
    xkd_trained modality;
} xkd_optimizer;

/* Numbers of one step. Those behind pointers are in the backend's memory. */
typedef struct {
    const double *lr, *weight_decay;
    const double *ema; /* [XKD_MODALITIES] momenta */
    double beta1, beta2, eps;
    double clip_grad; /* 0: off */
    bool train_last_layer;
} xkd_optimizer_step;

/* Free with xkd_optimizer_free; `params` must outlive it. With one modality only its backbone and decoder are trained. */
xkd_status xkd_optimizer_new(xkd_context *cx, xkd_optimizer *out, xkd_params *params, xkd_trained modality);
void xkd_optimizer_free(xkd_optimizer *o);

/* Gradient norms of every row, and whether they and scalars [n] of the backend's memory are all finite. Nothing waits. */
void xkd_optimizer_norms(xkd_backend *be, xkd_optimizer *o, const double *scalars, int64_t n);

/* Clips, updates and averages, in one pass over each tensor, unless something was not finite. Needs the norms. Nothing
 * waits. */
void xkd_optimizer_apply(xkd_backend *be, xkd_optimizer *o, const xkd_optimizer_step *s);

/* Where the backend's memory says whether all was finite: 1 or 0. */
const double *xkd_optimizer_finite(const xkd_optimizer *o);

/* The numbers that a step leaves: doubles. */
int64_t xkd_optimizer_left(const xkd_optimizer *o);
/* Copies them to `to`, within the backend's memory. Nothing waits. */
void xkd_optimizer_leave(xkd_optimizer *o, double *to);
/* From what they were when they came to the host: the norm over all gradients, the rows' steps, and whether the step was
 * done. */
bool xkd_optimizer_read(xkd_optimizer *o, const double *left, double *norm);

#endif
