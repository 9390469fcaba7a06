/* Which samples make up which batch. Pure functions of settings, epoch and step, so a resume needs no
 * state. */
#include "data/sampler.h"

#include "base/rng.h"

/* Impossible combinations are refused before anything is decoded. */
xkd_status xkd_sampler_check(xkd_context *cx, const xkd_sampler *s)
{
    xkd_status status = XKD_OK;
    if (s->batch < 1 || s->accumulate < 1 || s->world < 1 || s->rank < 0 || s->rank >= s->world)
        XKD_FAIL(XKD_ERR_CONFIG, "batch %lld, accumulate %lld, rank %d of %d: impossible", (long long)s->batch,
                 (long long)s->accumulate, s->rank, s->world);
    if (s->batch % (s->accumulate * s->world))
        XKD_FAIL(XKD_ERR_CONFIG,
                 "the batch of %lld (num_node * batch_size) cannot be split over %d processes with accumulate=%lld: "
                 "choose a multiple of %lld",
                 (long long)s->batch, s->world, (long long)s->accumulate, (long long)(s->accumulate * s->world));
    if (xkd_sampler_steps(s) < 1)
        XKD_FAIL(XKD_ERR_DATA, "%lld samples do not fill one batch of %lld: lower dataset.batch_size or add videos",
                 (long long)s->samples, (long long)s->batch);
fail:
    return status;
}

/* Samples of a micro-batch where a batch of `size` is left of an epoch. Full batches were checked to divide. */
static int64_t micro_batch(const xkd_sampler *s, int64_t size)
{
    int64_t count = size / (s->accumulate * s->world);
    if (size < s->batch && s->multiple > 1) count -= count % s->multiple;
    return count;
}

/* Without drop_last a smaller last batch counts if enough of it is left for every rank and micro-batch. */
int64_t xkd_sampler_steps(const xkd_sampler *s)
{
    int64_t last = micro_batch(s, s->samples % s->batch);
    return s->samples / s->batch + (!s->drop_last && last >= 1 && last >= s->least);
}

int64_t xkd_sampler_left_out(const xkd_sampler *s)
{
    int64_t full = s->samples / s->batch, rest = s->samples % s->batch;
    if (xkd_sampler_steps(s) == full) return rest;
    return rest - micro_batch(s, rest) * s->accumulate * s->world;
}

/* The shuffle is keyed by seed and epoch only: all ranks draw the same order. */
void xkd_sampler_order(const xkd_sampler *s, uint32_t epoch, uint32_t *order)
{
    for (int64_t i = 0; i < s->samples; i++) order[i] = (uint32_t)i;
    if (!s->shuffle) return;
    xkd_rng rng = xkd_rng_make(s->seed, epoch, 0, 0, XKD_RNG_SHUFFLE);
    xkd_rng_shuffle32(&rng, order, s->samples);
}

/* A batch is cut into world x accumulate equal parts: rank by rank, micro-batch by micro-batch. What
 * does not divide is left out. */
void xkd_sampler_part(const xkd_sampler *s, int64_t step, int64_t micro, int64_t *first, int64_t *count)
{
    int64_t start = step * s->batch, size = s->samples - start;
    if (size > s->batch) size = s->batch;
    *count = micro_batch(s, size);
    /* Ranks come first: each rank's part of a step is one contiguous piece of the order. */
    *first = start + (s->rank * s->accumulate + micro) * *count;
}
