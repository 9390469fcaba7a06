/* Vectors of this level's own width, and the few instructions that the compiler's vector extension does not give: fused
 * multiply-add, minimum, maximum, select, loads of a part. Everything above this file is one source for all levels.
 *
 * + - * / and the integer operators are the compiler's; what it lowers badly (comparison, select) is named here.
 * Where the order of a sum matters it is that of 16 lanes on every level: struct lanes is an array of vectors. With the
 * fused multiply-add spelled out, v3, v4 and neon therefore give the same bits; v2 has none and rounds twice. */
#ifndef XKD_BACKEND_CPU_KERNELS_VECTOR_H
#define XKD_BACKEND_CPU_KERNELS_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "backend/cpu/kernels/kernels.h"
#include "tensor/bfloat16.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
enum { W = 16, WD = 8 };
typedef __m512 vec;
typedef __m512d vecd;
#elif defined(__AVX2__)
enum { W = 8, WD = 4 };
typedef __m256 vec;
typedef __m256d vecd;
#elif defined(__x86_64__)
enum { W = 4, WD = 2 };
typedef __m128 vec;
typedef __m128d vecd;
#elif defined(__aarch64__)
enum { W = 4, WD = 2 };
typedef float32x4_t vec;
typedef float64x2_t vecd;
#else
#error "no vector width for this processor"
#endif

typedef int32_t veci __attribute__((vector_size(W * 4)));

/* The logical block: sums run in 16 lanes (8 of double) on every level. */
enum { LANES = 16, VECS = LANES / W, LANES_D = 8, VECS_D = LANES_D / WD };

typedef struct {
    vec v[VECS];
} lanes;

typedef struct {
    vecd v[VECS_D];
} lanes_d;

/* ---- loads and stores; memory need not be aligned ---- */
INLINE vec vec_load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void vec_store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

INLINE vec vec_set(float x)
{
#if defined(__AVX512F__)
    return _mm512_set1_ps(x);
#elif defined(__AVX2__)
    return _mm256_set1_ps(x);
#elif defined(__x86_64__)
    return _mm_set1_ps(x);
#else
    return vdupq_n_f32(x);
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
/* Eight lanes of which the first n are on. */
INLINE __m256i vec_first(int64_t n)
{
    static const int32_t on[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(const void *)(on + 8 - n));
}
#endif

/* The first n of W floats at p, zeros behind; memory past them is not touched. n >= W loads all. */
INLINE vec vec_load_part(const float *p, int64_t n)
{
    if (n >= W) return vec_load(p);
    if (n <= 0) return vec_set(0);
#if defined(__AVX512F__)
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif defined(__AVX2__)
    return _mm256_maskload_ps(p, vec_first(n));
#else
    float x[W] = {0};
    for (int64_t i = 0; i < n; i++) x[i] = p[i];
    return vec_load(x);
#endif
}

/* Stores the first n lanes and leaves the memory behind them alone: another thread may own it. */
INLINE void vec_store_part(float *p, vec v, int64_t n)
{
    if (n >= W) {
        vec_store(p, v);
        return;
    }
    if (n <= 0) return;
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
#elif defined(__AVX2__)
    _mm256_maskstore_ps(p, vec_first(n), v);
#else
    float x[W];
    vec_store(x, v);
    for (int64_t i = 0; i < n; i++) p[i] = x[i];
#endif
}

/* ---- arithmetic ---- */
/* a * b + c, rounded once; on v2 twice. */
INLINE vec vec_fma(vec a, vec b, vec c)
{
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(__x86_64__)
    return a * b + c;
#else
    return vfmaq_f32(c, a, b);
#endif
}

/* Lane by lane: yes where x is NaN. */
INLINE vec vec_if_nan(vec x, vec yes, vec no)
{
#if defined(__AVX512F__)
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), yes);
#elif defined(__AVX2__)
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
#elif defined(__x86_64__)
    return _mm_blendv_ps(no, yes, _mm_cmpunord_ps(x, x));
#else
    return vbslq_f32(vceqq_f32(x, x), no, yes);
#endif
}

/* Where a lane is NaN, the result is NaN. */
INLINE vec vec_nan_or(vec a, vec otherwise)
{
    return vec_if_nan(a, a, otherwise);
}

/* Maximum and minimum against a bound that is no NaN: x86's instructions return their second operand where one is NaN,
 * so a NaN in x stays. */
INLINE vec vec_at_least(vec bound, vec x)
{
#if defined(__AVX512F__)
    return _mm512_max_ps(bound, x);
#elif defined(__AVX2__)
    return _mm256_max_ps(bound, x);
#elif defined(__x86_64__)
    return _mm_max_ps(bound, x);
#else
    return vmaxq_f32(bound, x);
#endif
}

INLINE vec vec_at_most(vec bound, vec x)
{
#if defined(__AVX512F__)
    return _mm512_min_ps(bound, x);
#elif defined(__AVX2__)
    return _mm256_min_ps(bound, x);
#elif defined(__x86_64__)
    return _mm_min_ps(bound, x);
#else
    return vminq_f32(bound, x);
#endif
}

/* The larger; NaN wins over everything, from either side. */
INLINE vec vec_max(vec a, vec b)
{
    return vec_nan_or(a, vec_at_least(a, b));
}

/* Lane by lane: yes where the sign bit is set, -0 included. */
INLINE vec vec_if_negative(vec x, vec yes, vec no)
{
#if defined(__AVX512F__)
    return _mm512_mask_mov_ps(no, _mm512_movepi32_mask(_mm512_castps_si512(x)), yes);
#elif defined(__AVX2__)
    return _mm256_blendv_ps(no, yes, x);
#elif defined(__x86_64__)
    return _mm_blendv_ps(no, yes, x);
#else
    return vbslq_f32(vcltzq_s32(vreinterpretq_s32_f32(x)), yes, no);
#endif
}

/* The bits of x, or 0 where as a number they are negative. */
INLINE vec vec_bits_or_zero(veci x)
{
#if defined(__AVX512F__)
    return _mm512_castsi512_ps(_mm512_max_epi32((__m512i)x, _mm512_setzero_si512()));
#elif defined(__AVX2__)
    return _mm256_castsi256_ps(_mm256_max_epi32((__m256i)x, _mm256_setzero_si256()));
#elif defined(__x86_64__)
    return _mm_castsi128_ps(_mm_max_epi32((__m128i)x, _mm_setzero_si128()));
#else
    return vreinterpretq_f32_s32(vmaxq_s32((int32x4_t)x, vdupq_n_s32(0)));
#endif
}

INLINE vec vec_abs(vec x)
{
    return (vec)((veci)x & 0x7fffffff);
}

INLINE vec vec_sqrt(vec x)
{
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(x);
#elif defined(__x86_64__)
    return _mm_sqrt_ps(x);
#else
    return vsqrtq_f32(x);
#endif
}

/* ---- doubles ---- */
INLINE vecd vecd_set(double x)
{
#if defined(__AVX512F__)
    return _mm512_set1_pd(x);
#elif defined(__AVX2__)
    return _mm256_set1_pd(x);
#elif defined(__x86_64__)
    return _mm_set1_pd(x);
#else
    return vdupq_n_f64(x);
#endif
}

INLINE vecd vecd_load(const double *p)
{
    vecd v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void vecd_store(double *p, vecd v)
{
    memcpy(p, &v, sizeof v);
}

/* WD floats at p as doubles. */
INLINE vecd vecd_widen(const float *p)
{
#if defined(__AVX512F__)
    return _mm512_cvtps_pd(_mm256_loadu_ps(p));
#elif defined(__AVX2__)
    return _mm256_cvtps_pd(_mm_loadu_ps(p));
#elif defined(__x86_64__)
    return (vecd){p[0], p[1]};
#else
    return vcvt_f64_f32(vld1_f32(p));
#endif
}

INLINE vecd vecd_fma(vecd a, vecd b, vecd c)
{
#if defined(__AVX512F__)
    return _mm512_fmadd_pd(a, b, c);
#elif defined(__AVX2__)
    return _mm256_fmadd_pd(a, b, c);
#elif defined(__x86_64__)
    return a * b + c;
#else
    return vfmaq_f64(c, a, b);
#endif
}

/* ---- sums in 16 lanes ---- */
INLINE lanes lanes_zero(void)
{
    lanes s;
    for (int j = 0; j < VECS; j++) s.v[j] = vec_set(0);
    return s;
}

/* Sum of the lanes in a fixed tree order. */
INLINE float lanes_sum(lanes s)
{
    float x[LANES];
    memcpy(x, &s, sizeof x);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}

INLINE lanes_d lanes_d_zero(void)
{
    lanes_d s;
    for (int j = 0; j < VECS_D; j++) s.v[j] = vecd_set(0);
    return s;
}

INLINE double lanes_d_sum(lanes_d s)
{
    double x[LANES_D];
    memcpy(x, &s, sizeof x);
    for (int half = LANES_D / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}

/* Sixteen partial sums, then a tree: the error grows with n/16 and not with n. */
INLINE float vec_dot(const float *a, const float *b, int64_t n)
{
    lanes s = lanes_zero();
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < VECS; j++) s.v[j] = vec_fma(vec_load(a + i + j * W), vec_load(b + i + j * W), s.v[j]);
    for (int j = 0; i + j * W < n; j++)
        s.v[j] =
            vec_fma(vec_load_part(a + i + j * W, n - i - j * W), vec_load_part(b + i + j * W, n - i - j * W), s.v[j]);
    return lanes_sum(s);
}

/* ---- bfloat16 ---- */
/* The W numbers at p, widened. */
INLINE vec vec_load_whole_half(const uint16_t *p)
{
#if defined(__AVX512F__)
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p)), 16));
#elif defined(__AVX2__)
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)), 16));
#elif defined(__x86_64__)
    return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)), 16));
#else
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
#endif
}

/* The first n of W numbers at p, zeros behind; memory past them is not touched. n >= W loads all. */
INLINE vec vec_load_half(const uint16_t *p, int64_t n)
{
    if (n >= W) return vec_load_whole_half(p);
    uint16_t x[W] = {0};
    for (int64_t i = 0; i < n; i++) x[i] = p[i];
    return vec_load_whole_half(x);
}

/* The first n lanes to the nearest bfloat16, the even one of two equally near ones; NaN stays NaN. */
INLINE void vec_store_half(uint16_t *p, vec v, int64_t n)
{
    uint16_t x[W], *to = n >= W ? p : x;
    veci bits = (veci)v, odd = (veci)((bits >> 16) & 1);
    /* Rounding could turn a NaN into infinity: it keeps its upper bits and becomes quiet. */
    veci rounded = (veci)vec_if_nan(v, (vec)(bits | 0x400000), (vec)(bits + 0x7fff + odd));
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtepi32_epi16(_mm512_srli_epi32((__m512i)rounded, 16)));
#elif defined(__AVX2__)
    __m256i high = _mm256_srli_epi32((__m256i)rounded, 16);
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
    _mm_storeu_si128((__m128i *)(void *)to, _mm256_castsi256_si128(packed));
#elif defined(__x86_64__)
    __m128i high = _mm_srli_epi32((__m128i)rounded, 16);
    _mm_storel_epi64((__m128i *)(void *)to, _mm_packus_epi32(high, high));
#else
    vst1_u16(to, vshrn_n_u32((uint32x4_t)rounded, 16));
#endif
    for (int64_t i = 0; to == x && i < n; i++) p[i] = x[i];
}

/* ---- stored numbers, whichever type they are of; the lanes behind n as in vec_load_part ---- */
#ifdef XKD_HALF
INLINE vec read_part(const uint16_t *p, int64_t n)
{
    return vec_load_half(p, n);
}

INLINE void write_part(uint16_t *p, vec v, int64_t n)
{
    vec_store_half(p, v, n);
}

/* WD numbers as doubles. */
INLINE vecd vecd_read(const uint16_t *p)
{
    float x[WD];
    for (int i = 0; i < WD; i++) x[i] = xkd_from_bfloat16(p[i]);
    return vecd_widen(x);
}

INLINE float read_one(const uint16_t *p)
{
    return xkd_from_bfloat16(*p);
}

INLINE void write_one(uint16_t *p, float x)
{
    *p = xkd_to_bfloat16(x);
}
#else
INLINE vec read_part(const float *p, int64_t n)
{
    return vec_load_part(p, n);
}

INLINE void write_part(float *p, vec v, int64_t n)
{
    vec_store_part(p, v, n);
}

INLINE vecd vecd_read(const float *p)
{
    return vecd_widen(p);
}

INLINE float read_one(const float *p)
{
    return *p;
}

INLINE void write_one(float *p, float x)
{
    *p = x;
}
#endif

/* vec_dot of stored numbers. */
INLINE float stored_dot(const stored *a, const stored *b, int64_t n)
{
    lanes s = lanes_zero();
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < VECS; j++)
            s.v[j] = vec_fma(read_part(a + i + j * W, W), read_part(b + i + j * W, W), s.v[j]);
    for (int j = 0; i + j * W < n; j++)
        s.v[j] = vec_fma(read_part(a + i + j * W, n - i - j * W), read_part(b + i + j * W, n - i - j * W), s.v[j]);
    return lanes_sum(s);
}

/* ---- functions ---- */
/* exp(by * x) within 1 ulp for by * x in [-126, 88.4], and 0 from -88 down; anything for other x, NaN included. `by` is a
 * constant, a power of two with either sign. by x = n ln 2 + r, |r| <= ln 2 / 2, with ln 2 in two parts; exp(r) is
 * 1 + r + r^2 Q(r), Q of degree 4 fitted to a relative error of 3e-9. */
INLINE vec vec_exp_by(vec x, const float by)
{
    /* 1.5 * 2^23: adding it rounds to an integer, which then sits in the low bits; the shift below drops all others. */
    const vec magic = vec_set(12582912.0f);
    vec shifted = vec_fma(x, vec_set(1.44269504f * by), magic);
    vec n = shifted - magic;
    vec r = vec_fma(n, vec_set(-0.693145752f / by), x); /* of x, not of by x: the coefficients make up for it */
    r = vec_fma(n, vec_set(-1.42860677e-6f / by), r);
    vec p = vec_fma(vec_set(1.381453885e-03f * by * by * by * by * by * by), r,
                    vec_set(8.368745228e-03f * by * by * by * by * by));
    p = vec_fma(p, r, vec_set(4.166839081e-02f * by * by * by * by));
    p = vec_fma(p, r, vec_set(1.666652040e-01f * by * by * by));
    p = vec_fma(p, r, vec_set(4.999999343e-01f * by * by));
    p = vec_fma(p, r, vec_set(by));
    p = vec_fma(p, r, vec_set(1.0f));
    /* The exponent of a power below 2^-126 becomes negative, and with it the number that the bits make. */
    return vec_bits_or_zero((veci)p + ((veci)shifted << 23));
}

/* exp(x) for x <= 0 within 1 ulp, 0 from -88 down and NaN for NaN: the exponential of a softmax. */
INLINE vec vec_exp_negative(vec x)
{
    return vec_nan_or(x, vec_exp_by(vec_at_least(vec_set(-100.0f), x), 1.0f));
}

/* Phi(x), the standard normal distribution, and phi(x), its density. With t = |x| and w = 1 / (t + 3):
 * Phi(-t) = exp(-t^2/2) * w * P(u), u = (t - 3) w, P of degree 9 fitted to the Mills ratio on [0, 13.3] (relative error
 * 2e-8), so that the lower tail keeps its relative precision. At 13.3, where the exponential has vanished, t ends. NaN
 * gives NaN in the distribution, and anything in the density. */
INLINE void vec_normal(vec x, vec *distribution, vec *density)
{
    vec t = vec_at_most(vec_set(13.3f), vec_abs(x));
    vec e = vec_exp_by(t * t, -0.5f), w = 1.0f / (t + 3.0f);
    vec u = (t - 3.0f) * w; /* and not 1 - 6 w, which doubles the error of w */
    vec p = vec_fma(vec_set(4.472213016e-05f), u, vec_set(-2.165413919e-04f));
    p = vec_fma(p, u, vec_set(-9.465251425e-04f));
    p = vec_fma(p, u, vec_set(1.026598657e-03f));
    p = vec_fma(p, u, vec_set(6.939615386e-03f));
    p = vec_fma(p, u, vec_set(-1.046470993e-02f));
    p = vec_fma(p, u, vec_set(-4.725872182e-02f));
    p = vec_fma(p, u, vec_set(2.300178901e-01f));
    p = vec_fma(p, u, vec_set(-5.093321389e-01f));
    p = vec_fma(p, u, vec_set(7.290836891e-01f));
    vec mills = p * w;
    *distribution = vec_if_negative(x, e * mills, vec_fma(-e, mills, vec_set(1.0f)));
    *density = e * 0.3989422804014327f;
}

/* Exact (erf) GELU, as in the reference, not the tanh approximation. */
INLINE vec vec_gelu(vec x)
{
    vec distribution, density;
    vec_normal(x, &distribution, &density);
    return x * distribution;
}

#endif
