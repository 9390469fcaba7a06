/* Which sample stands where: the order of an epoch, cut into batches, ranks and micro-batches. */
#ifndef XKD_DATA_SAMPLER_H
#define XKD_DATA_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
    int64_t samples; /* in an epoch */
    int64_t batch;   /* global batch: world * accumulate * micro-batch */
    int64_t accumulate;
    int rank, world;
    int64_t multiple; /* a smaller last micro-batch is cut to a multiple of this; 0 counts as 1 */
    int64_t least;    /* and left out with fewer samples than this */
    bool shuffle, drop_last;
    uint64_t seed;
} xkd_sampler;

/* XKD_ERR_CONFIG: batch not divisible by accumulate * world; XKD_ERR_DATA: not one batch in an epoch. */
xkd_status xkd_sampler_check(xkd_context *cx, const xkd_sampler *sampler);

int64_t xkd_sampler_steps(const xkd_sampler *sampler);

/* Samples at the end of an epoch that no batch takes. */
int64_t xkd_sampler_left_out(const xkd_sampler *sampler);

/* The epoch's order: order [samples] becomes a permutation that depends on seed and epoch alone, made in place.
 * 32 bits, for there may be ten millions. */
void xkd_sampler_order(const xkd_sampler *sampler, uint32_t epoch, uint32_t *order);

/* Part of the order that this rank's micro-batch `micro` of `step` takes: *count entries from *first on. A kept last
 * batch is cut so that every rank and micro-batch has as many samples, a multiple of `multiple`. */
void xkd_sampler_part(const xkd_sampler *sampler, int64_t step, int64_t micro, int64_t *first, int64_t *count);

#endif
