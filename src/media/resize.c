/* Pillow's 8-bit bilinear resize with antialiasing, bit for bit: one fixed-point pass along rows, one
 * along columns, each rounded to 8 bits. The release resizes with Pillow, and views must be equal to
 * its. */
#include "media/resize.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/alloc.h"
#include "base/clones.h"

/* Pillow: 32 bits of the accumulator less 8 of the pixel less 2 of head room. */
enum { PRECISION_BITS = 32 - 8 - 2, ROUND = 1 << (PRECISION_BITS - 1) };

/* Bytes of one column block of the vertical pass: its 32-bit sums stay in registers. */
enum { BLOCK = 64 };

/* Rows that share the weights of the horizontal pass. */
enum { ROWS = 4 };

/* One axis: output i is the sum over t < count[i] of weight[i * taps + t] * in[first[i] + t].
 * taps is the widest support; rows of `weight` are padded to it. */
typedef struct {
    int64_t in, out, taps;
    int32_t *first, *count, *weight; /* [out], [out], [out,taps] */
} axis;

struct xkd_resizer {
    axis x, y;
    uint8_t *row;    /* one input row, padded for 4-byte loads */
    uint8_t *middle; /* [in_height,out_width,3] after the horizontal pass */
    void (*filter_row)(const axis *a, const uint8_t *in, uint8_t *out);
    /* ROWS of them at once; may read a byte behind each. NULL: there is no such way here. */
    void (*filter_rows)(const axis *a, const uint8_t *in, int64_t stride, uint8_t *out, int64_t out_stride);
};

/* Takes an axis that was only zeroed. */
static void axis_free(axis *a)
{
    xkd_free(a->first);
    xkd_free(a->count);
    xkd_free(a->weight);
}

/* The double arithmetic follows Pillow's precompute_coeffs step by step: a different order changes last bits. */
static void axis_weights(axis *a, double *k)
{
    double scale = (double)a->in / (double)a->out, filter_scale = scale < 1 ? 1 : scale, support = filter_scale;
    double inverse = 1.0 / filter_scale;
    for (int64_t i = 0; i < a->out; i++) {
        double centre = ((double)i + 0.5) * scale, sum = 0;
        /* The double is cut to an integer, as in C; Pillow's own rounding of the box. */
        int64_t low = (int64_t)(centre - support + 0.5), high = (int64_t)(centre + support + 0.5);
        if (low < 0) low = 0;
        if (high > a->in) high = a->in;
        for (int64_t t = 0; t < high - low; t++) {
            double distance = fabs(((double)(t + low) - centre + 0.5) * inverse);
            k[t] = distance < 1.0 ? 1.0 - distance : 0.0;
            sum += k[t];
        }
        for (int64_t t = 0; t < high - low; t++) {
            if (sum != 0.0) k[t] /= sum;
            /* Weights to 22 bits. Their sum is 2^22 within one unit each, which Pillow leaves as it
             * is. */
            a->weight[i * a->taps + t] = (int32_t)(0.5 + k[t] * (1 << PRECISION_BITS));
        }
        a->first[i] = (int32_t)low;
        a->count[i] = (int32_t)(high - low);
    }
}

/* k is scratch in double: weights are normalised before they are rounded. */
static xkd_status axis_init(xkd_context *cx, axis *a, int64_t in, int64_t out)
{
    xkd_status status = XKD_OK;
    double *k = NULL;
    double scale = (double)in / (double)out;
    a->in = in;
    a->out = out;
    a->taps = (int64_t)ceil(scale < 1 ? 1 : scale) * 2 + 1;
    XKD_TRY(xkd_alloc(cx, &a->first, out, sizeof *a->first));
    XKD_TRY(xkd_alloc(cx, &a->count, out, sizeof *a->count));
    XKD_TRY(xkd_alloc(cx, &a->weight, out * a->taps, sizeof *a->weight));
    XKD_TRY(xkd_alloc(cx, &k, a->taps, sizeof *k));
    axis_weights(a, k);
fail:
    xkd_free(k);
    return status;
}

/* Weights are not negative and sum to at most 2^22 plus one rounding each, so only the upper end needs a clamp. */
static inline uint8_t to_byte(int32_t sum)
{
    int32_t value = sum >> PRECISION_BITS;
    return (uint8_t)(value > 255 ? 255 : value);
}

/* The sums in plain C. */
static void filter_row(const axis *a, const uint8_t *in, uint8_t *out)
{
    for (int64_t i = 0; i < a->out; i++) {
        const uint8_t *p = in + 3 * (int64_t)a->first[i];
        const int32_t *w = a->weight + i * a->taps;
        int32_t sum[3] = {ROUND, ROUND, ROUND};
        for (int32_t t = 0; t < a->count[i]; t++)
            for (int c = 0; c < 3; c++) sum[c] += p[3 * t + c] * w[t];
        for (int c = 0; c < 3; c++) out[3 * i + c] = to_byte(sum[c]);
    }
}

#if defined(__x86_64__)
/* Three channels at once in the lanes of one vector; the fourth lane holds the neighbour's red and is dropped. The results
 * are equal, as integers have no rounding. */
__attribute__((target("sse4.1"))) static void filter_row_sse41(const axis *a, const uint8_t *in, uint8_t *out)
{
    for (int64_t i = 0; i < a->out; i++) {
        const uint8_t *p = in + 3 * (int64_t)a->first[i];
        const int32_t *w = a->weight + i * a->taps;
        __m128i sum = _mm_set1_epi32(ROUND);
        for (int32_t t = 0; t < a->count[i]; t++, p += 3) {
            int32_t four;
            memcpy(&four, p, 4);
            sum = _mm_add_epi32(sum, _mm_mullo_epi32(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)), _mm_set1_epi32(w[t])));
        }
        sum = _mm_srai_epi32(sum, PRECISION_BITS);
        sum = _mm_packus_epi16(_mm_packs_epi32(sum, sum), sum);
        int32_t bytes = _mm_cvtsi128_si32(sum);
        memcpy(out + 3 * i, &bytes, 3);
    }
}

/* Two rows in a vector, one in each half. */
__attribute__((target("avx2"))) static inline __m256i load_two(const uint8_t *a, const uint8_t *b)
{
    int32_t x, y;
    memcpy(&x, a, 4);
    memcpy(&y, b, 4);
    return _mm256_cvtepu8_epi32(_mm_insert_epi32(_mm_cvtsi32_si128(x), y, 1));
}

/* Four rows, so that a weight is fetched once for twelve sums. */
__attribute__((target("avx2"))) static void filter_rows_avx2(const axis *a, const uint8_t *in, int64_t stride,
                                                             uint8_t *out, int64_t out_stride)
{
    for (int64_t i = 0; i < a->out; i++) {
        const uint8_t *p = in + 3 * (int64_t)a->first[i], *q = p + 2 * stride;
        const int32_t *w = a->weight + i * a->taps;
        __m256i upper = _mm256_set1_epi32(ROUND), lower = upper;
        for (int32_t t = 0; t < a->count[i]; t++, p += 3, q += 3) {
            __m256i weight = _mm256_set1_epi32(w[t]);
            upper = _mm256_add_epi32(upper, _mm256_mullo_epi32(load_two(p, p + stride), weight));
            lower = _mm256_add_epi32(lower, _mm256_mullo_epi32(load_two(q, q + stride), weight));
        }
        upper = _mm256_srai_epi32(upper, PRECISION_BITS);
        lower = _mm256_srai_epi32(lower, PRECISION_BITS);
        /* Rows 0 and 2 in the first half, 1 and 3 in the second. */
        __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(upper, lower), upper);
        int64_t even = _mm256_extract_epi64(bytes, 0), odd = _mm256_extract_epi64(bytes, 2);
        const int32_t pixels[ROWS] = {(int32_t)even, (int32_t)odd, (int32_t)(even >> 32), (int32_t)(odd >> 32)};
        for (int r = 0; r < ROWS; r++) memcpy(out + r * out_stride + 3 * i, &pixels[r], 3);
    }
}
#endif

/* A plan is made once per size and used for all frames of a clip. */
xkd_status xkd_resizer_new(xkd_context *cx, int64_t in_width, int64_t in_height, int64_t out_width, int64_t out_height,
                           xkd_resizer **out)
{
    xkd_status status = XKD_OK;
    xkd_resizer *plan = NULL;
    *out = NULL;
    if (in_width < 1 || in_height < 1 || out_width < 1 || out_height < 1)
        XKD_FAIL(XKD_ERR_CONFIG, "cannot resize %lldx%lld to %lldx%lld", (long long)in_width, (long long)in_height,
                 (long long)out_width, (long long)out_height);
    XKD_TRY(xkd_alloc(cx, &plan, 1, sizeof *plan));
    XKD_TRY(axis_init(cx, &plan->x, in_width, out_width));
    XKD_TRY(axis_init(cx, &plan->y, in_height, out_height));
    /* Room behind the row, because a load of three bytes takes four. */
    XKD_TRY(xkd_alloc(cx, &plan->row, 3 * in_width + 16, 1));
    XKD_TRY(xkd_alloc(cx, &plan->middle, in_height * out_width * 3 + BLOCK, 1));
    plan->filter_row = filter_row;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.1")) plan->filter_row = filter_row_sse41;
    if (__builtin_cpu_supports("avx2")) plan->filter_rows = filter_rows_avx2;
#endif
    *out = plan;
    plan = NULL;
fail:
    xkd_resizer_free(plan);
    return status;
}

void xkd_resizer_free(xkd_resizer *plan)
{
    if (!plan) return;
    axis_free(&plan->x);
    axis_free(&plan->y);
    xkd_free(plan->row);
    xkd_free(plan->middle);
    xkd_free(plan);
}

/* Output row i from the rows of `in` that it covers. Blocks of columns keep the sums in registers
 * while the rows go by. */
XKD_CLONES static void filter_columns(const axis *a, int64_t i, const uint8_t *in, int64_t stride, uint8_t *out)
{
    const int32_t *w = a->weight + i * a->taps;
    const uint8_t *top = in + a->first[i] * stride;
    int32_t count = a->count[i];
    int64_t x = 0;
    for (; x + BLOCK <= stride; x += BLOCK) {
        int32_t sum[BLOCK];
        for (int j = 0; j < BLOCK; j++) sum[j] = ROUND;
        for (int32_t t = 0; t < count; t++) {
            const uint8_t *p = top + t * stride + x;
            int32_t weight = w[t];
            for (int j = 0; j < BLOCK; j++) sum[j] += p[j] * weight;
        }
        for (int j = 0; j < BLOCK; j++) out[x + j] = to_byte(sum[j]);
    }
    for (; x < stride; x++) {
        int32_t sum = ROUND;
        for (int32_t t = 0; t < count; t++) sum += top[t * stride + x] * w[t];
        out[x] = to_byte(sum);
    }
}

/* A pass whose sizes agree is skipped, as Pillow does; it would not change a byte. */
void xkd_resizer_run(xkd_resizer *plan, const uint8_t *in, int64_t in_stride, uint8_t *out)
{
    int64_t out_row = 3 * plan->x.out;
    bool across = plan->x.in != plan->x.out, down = plan->y.in != plan->y.out;
    uint8_t *middle = down ? plan->middle : out;
    int64_t y = 0;
    /* The last row ends where the picture may end, and is copied to where there is room behind it. */
    for (; across && plan->filter_rows && y + ROWS < plan->y.in; y += ROWS)
        plan->filter_rows(&plan->x, in + y * in_stride, in_stride, middle + y * out_row, out_row);
    for (; y < plan->y.in; y++) {
        if (across) {
            memcpy(plan->row, in + y * in_stride, (size_t)(3 * plan->x.in));
            plan->filter_row(&plan->x, plan->row, middle + y * out_row);
        } else {
            memcpy(middle + y * out_row, in + y * in_stride, (size_t)out_row);
        }
    }
    if (!down) return;
    for (y = 0; y < plan->y.out; y++) filter_columns(&plan->y, y, middle, out_row, out + y * out_row);
}

/* The long side is cut to an integer, not rounded: torchvision's arithmetic. */
void xkd_short_side_size(int64_t width, int64_t height, int64_t side, int64_t *out_width, int64_t *out_height)
{
    if (width <= height) {
        *out_width = side;
        *out_height = (int64_t)((double)side * (double)height / (double)width);
    } else {
        *out_height = side;
        *out_width = (int64_t)((double)side * (double)width / (double)height);
    }
}
