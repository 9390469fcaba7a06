/* Elements of the reference's arrays. */
#ifndef XKD_BACKEND_REF_ELEMENT_H
#define XKD_BACKEND_REF_ELEMENT_H

#include "tensor/bfloat16.h"

static inline double xkd_ref_get_bf16(const uint16_t *x, int64_t i)
{
    return (double)xkd_from_bfloat16(x[i]);
}

static inline double xkd_ref_get_f32(const float *x, int64_t i)
{
    return (double)x[i];
}

static inline double xkd_ref_get_f64(const double *x, int64_t i)
{
    return x[i];
}

/* Rounded to float first: where that is half way between two numbers the second rounding may take the other one. */
static inline void xkd_ref_set_bf16(uint16_t *x, int64_t i, double value)
{
    x[i] = xkd_to_bfloat16((float)value);
}

static inline void xkd_ref_set_f32(float *x, int64_t i, double value)
{
    x[i] = (float)value;
}

static inline void xkd_ref_set_f64(double *x, int64_t i, double value)
{
    x[i] = value;
}

#endif
