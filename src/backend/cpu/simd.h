/* Vectors of 16 floats through the compiler's vector extension: one source for AVX-512, AVX2 and others. */
#ifndef XKD_BACKEND_CPU_SIMD_H
#define XKD_BACKEND_CPU_SIMD_H

#include <stdint.h>
#include <string.h>

/* 16 lanes whatever the machine: the order of sums, and so every result, is then the same with AVX2 and
 * AVX-512. */
enum { LANES = 16 };

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));

/* memcpy compiles to one unaligned move and breaks no aliasing rule; rows of odd widths are not aligned. */
static inline vf v_load(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void v_store(float *p, vf v)
{
    memcpy(p, &v, sizeof v);
}

/* The first n < 16 floats at p, zeros behind. */
static inline vf v_load_part(const float *p, int64_t n)
{
    vf v = {0};
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

/* Stores n < 16 lanes and leaves the memory behind them alone. */
static inline void v_store_part(float *p, vf v, int64_t n)
{
    memcpy(p, &v, (size_t)n * sizeof *p);
}

static inline vf v_set(float x)
{
    return (vf){0} + x;
}

/* Lane-wise yes where the mask is all ones, no where it is 0: comparisons of vectors give such masks. */
static inline vf v_choose(vi mask, vf yes, vf no)
{
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

/* Where a lane is NaN the comparison is false, so b is taken. */
static inline vf v_max(vf a, vf b)
{
    return v_choose(a > b, a, b);
}

static inline vf v_min(vf a, vf b)
{
    return v_choose(a < b, a, b);
}

/* Sum of the lanes in a fixed tree order. */
static inline float v_sum(vf v)
{
    float x[LANES];
    memcpy(x, &v, sizeof x);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}

/* Same tree as v_sum; the order would not matter here. */
static inline float v_largest(vf v)
{
    float x[LANES];
    memcpy(x, &v, sizeof x);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] = x[i] > x[i + half] ? x[i] : x[i + half];
    return x[0];
}

/* Sixteen partial sums, then a tree: the error grows with n/16 and not with n. */
static inline float v_dot(const float *a, const float *b, int64_t n)
{
    vf sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sum += v_load(a + i) * v_load(b + i);
    if (i < n) sum += v_load_part(a + i, n - i) * v_load_part(b + i, n - i);
    return v_sum(sum);
}

/* exp(x) within 1 ulp for x in [-87, 88]; 0 or the largest finite power outside. x = n ln 2 + r, |r| <= ln 2 / 2, with
 * ln 2 in two parts, and the Taylor polynomial of degree 6 economised on that range. */
static inline vf v_exp(vf x)
{
    const vf magic = v_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    vi tiny = x < -87.33654f;
    x = v_min(v_max(x, v_set(-87.33654f)), v_set(88.37626f));
    /* n, the power of two, sits in the low bits of `shifted` and is added to the exponent below. */
    vf shifted = x * 1.44269504f + magic;
    vf n = shifted - magic;
    vf r = x - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    vf p = v_set(1.38261045e-3f);
    p = p * r + 8.37312452e-3f;
    p = p * r + 4.16695364e-2f;
    p = p * r + 1.66664720e-1f;
    p = p * r + 4.99999851e-1f;
    p = p * r * r + r + 1.0f;
    vi bits = (vi)p + (((vi)shifted - (vi)magic) << 23);
    return (vf)(~tiny & bits);
}

/* Phi(x), the standard normal distribution, and phi(x), its density. With t = |x| and u = (t - 3.5) / (t + 3.5):
 * Phi(-t) = exp(-t^2/2) * P(u) / (1 + t/2), P of degree 9 fitted to the Mills ratio on [0, 14.5] (relative error 4e-9),
 * so that the lower tail keeps its relative precision. */
static inline void v_normal(vf x, vf *distribution, vf *density)
{
    vi negative = x < 0.0f;
    vf t = v_choose(negative, -x, x);
    t = v_min(t, v_set(14.5f));
    vf half_square = t * t * 0.5f;
    vf e = v_exp(-half_square);
    vf u = (t - 3.5f) / (t + 3.5f);
    vf p = v_set(6.832889630459249e-05f);
    p = p * u + 1.1574213567655534e-04f;
    p = p * u - 5.165939219295979e-04f;
    p = p * u - 5.493454518727958e-04f;
    p = p * u + 4.410250578075647e-03f;
    p = p * u - 5.59691246598959e-03f;
    p = p * u - 1.1796047911047935e-02f;
    p = p * u + 6.332115083932877e-02f;
    p = p * u - 1.4242613315582275e-01f;
    p = p * u + 2.924491763114929e-01f;
    vf tail = e * p / (1.0f + 0.5f * t);
    *distribution = v_choose(negative, tail, 1.0f - tail);
    *density = e * 0.3989422804014327f;
}

/* Exact (erf) GELU, as in the reference, not the tanh approximation. */
static inline vf v_gelu(vf x)
{
    vf distribution, density;
    v_normal(x, &distribution, &density);
    return x * distribution;
}

#endif
