/* The terms of the loss and what each weighs; method.md section 1. */
#ifndef XKD_LOSS_OBJECTIVE_H
#define XKD_LOSS_OBJECTIVE_H

#include "config/config.h"

/* Every loss by its public name. The first six are terms, which operations compute; the others are made of them. */
typedef enum {
    XKD_LOSS_VID_RECON,
    XKD_LOSS_AUD_RECON,
    XKD_LOSS_ALIGN_STUDENTS,
    XKD_LOSS_ALIGN_TEACHERS,
    XKD_LOSS_KD_VT2AS,
    XKD_LOSS_KD_AT2VS,
    XKD_LOSS_RECON,
    XKD_LOSS_KD,
    XKD_LOSS_ALIGN,
    XKD_LOSS_TOTAL,
    XKD_LOSS_COUNT,
    XKD_LOSS_TERMS = XKD_LOSS_RECON
} xkd_loss;

extern const char *const xkd_loss_names[XKD_LOSS_COUNT];

/* Fills in the losses from XKD_LOSS_TERMS on; terms that were not computed are 0. */
void xkd_objective(const xkd_step_config *config, double loss[XKD_LOSS_COUNT]);

/* d total / d term for a term of this coefficient: every term is half of a pair. */
double xkd_objective_scale(const xkd_step_config *config, double coefficient);

#endif
