/* Counter-based random numbers: Philox 4x32 with 10 rounds (Salmon et al., Parallel random numbers:
 * as easy as 1, 2, 3, 2011). Each stream is a function of seed, epoch, sample, view and purpose, so
 * there is no state to save, and any thread may draw any of them in any order. */
#include "base/rng.h"

#include <math.h>
#include <string.h>

/* Constants are the paper's; known answers are in the tests. */
void xkd_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[4], k0 = key[0], k1 = key[1];
    memcpy(c, counter, sizeof c);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0];
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ k1,
                            (uint32_t)p0};
        memcpy(c, next, sizeof c);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

/* view must stay below 2^24, as it shares a word with the purpose. */
xkd_rng xkd_rng_make(uint64_t seed, uint32_t epoch, uint32_t sample, uint32_t view, xkd_rng_purpose purpose)
{
    return (xkd_rng){.key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
                     .counter = {0, epoch, sample, view << 8 | (uint32_t)purpose},
                     .used = 4};
}

/* Four words a block; the first word of the counter numbers the blocks. */
uint32_t xkd_rng_u32(xkd_rng *rng)
{
    if (rng->used == 4) {
        xkd_philox(rng->counter, rng->key, rng->block);
        rng->counter[0]++;
        rng->used = 0;
    }
    return rng->block[rng->used++];
}

/* 53 bits: every double of [0, 1) that is a multiple of 2^-53, and never 1. */
double xkd_rng_uniform(xkd_rng *rng)
{
    uint64_t high = xkd_rng_u32(rng) >> 5, low = xkd_rng_u32(rng) >> 6;
    return (double)(high << 26 | low) * 0x1p-53;
}

double xkd_rng_range(xkd_rng *rng, double low, double high)
{
    return low + (high - low) * xkd_rng_uniform(rng);
}

/* n must be above 0. */
int64_t xkd_rng_below(xkd_rng *rng, int64_t n)
{
    /* Values from the incomplete last copy of [0, n) in 2^64 are drawn again, so that none is favoured. */
    uint64_t range = (uint64_t)n, limit = UINT64_MAX - UINT64_MAX % range, value;
    do {
        uint64_t high = xkd_rng_u32(rng);
        value = high << 32 | xkd_rng_u32(rng);
    } while (value >= limit);
    return (int64_t)(value % range);
}

/* Box and Muller; u is never 0, as 1 - uniform is above 0. The second value is not kept: a draw must
 * not depend on the one before. */
double xkd_rng_normal(xkd_rng *rng)
{
    double u = 1.0 - xkd_rng_uniform(rng), v = xkd_rng_uniform(rng);
    return sqrt(-2.0 * log(u)) * cos(2.0 * M_PI * v);
}

void xkd_rng_shuffle32(xkd_rng *rng, uint32_t *items, int64_t n)
{
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = xkd_rng_below(rng, i + 1);
        uint32_t other = items[j];
        items[j] = items[i];
        items[i] = other;
    }
}

/* Fisher and Yates: every order is equally likely. */
void xkd_rng_shuffle(xkd_rng *rng, int64_t *items, int64_t n)
{
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = xkd_rng_below(rng, i + 1), other = items[j];
        items[j] = items[i];
        items[i] = other;
    }
}
