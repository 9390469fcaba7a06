/* Losses of a classifier for soft targets, on logits and targets [B,K]. method.md section 10. */
#ifndef XKD_LOSS_CLASSIFY_H
#define XKD_LOSS_CLASSIFY_H

#include "backend/backend.h"

typedef enum {
    XKD_CLASSIFY_SOFTMAX, /* mean over B of -sum_k t log softmax(z) */
    XKD_CLASSIFY_SIGMOID  /* mean over B and K of binary cross entropy */
} xkd_classify_kind;

/* *loss, and dlogits [B,K] = its gradient; dlogits may be logits. logits of the backend's dtype, targets floats. */
void xkd_classify(const xkd_backend *be, xkd_classify_kind kind, double *loss, void *dlogits, const void *logits,
                  const float *targets, int64_t B, int64_t K);

/* Scores [B,K] of logits: softmax of each row, or the sigmoid of each element. */
void xkd_classify_scores(const xkd_backend *be, xkd_classify_kind kind, float *scores, const void *logits, int64_t B,
                         int64_t K);

#endif
