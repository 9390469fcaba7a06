/* bfloat16 is the upper half of a float32: 8 bits of exponent, 7 of mantissa. */
#ifndef XKD_TENSOR_BFLOAT16_H
#define XKD_TENSOR_BFLOAT16_H

#include <stdint.h>
#include <string.h>

/* Exact: every bfloat16 is a float32. */
static inline float xkd_from_bfloat16(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The nearest, the even one of two equally near ones; beyond the largest it is infinite, and NaN stays NaN. */
static inline uint16_t xkd_to_bfloat16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value != value) return (uint16_t)(bits >> 16 | 0x40); /* quiet, whatever its low bits were */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
