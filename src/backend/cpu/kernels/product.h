/* The register-blocked matrix product under linear layers and attention. A tile of MR x NR outputs lives in registers
 * while K runs; its operands are packed first, so that strides of the caller's matrices (12 KB apart, rows fall on the
 * same cache sets) do not matter.
 *
 * An output is the sum over blocks of KC products in order, each block one chain of fused multiply-adds that starts at
 * 0: the bits of a row depend on the row and on K alone, never on the other rows, on tiles or on threads. KC and the
 * chain are the same on every level. */
#ifndef XKD_BACKEND_CPU_KERNELS_PRODUCT_H
#define XKD_BACKEND_CPU_KERNELS_PRODUCT_H

#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vector.h"

/* As many accumulators as leave registers for two vectors of b and an element of a: 28 of 32, 12 of 16, 24 of 32, 8 of
 * 16 (v2 needs one more for the product before its sum). Tiles of the processor's own (XKD_TILES) are as wide as v4's. */
#if defined(__AVX512F__) || defined(XKD_TILES)
enum { MR = 14, NR = 32, ROW_TILES = 28 };
#elif defined(__AVX2__)
enum { MR = 6, NR = 16, ROW_TILES = 32 };
#elif defined(__aarch64__)
enum { MR = 6, NR = 16, ROW_TILES = 32 };
#else
enum { MR = 2, NR = 16, ROW_TILES = 96 };
#endif

/* KC x NR of b are 24 KB (48 KB on v4) and stay in the first-level cache while the rows of a go by; MC x KC of a are
 * 300 KB (600 KB on v4, whose processors have 1 MB and more) and stay in the second-level cache while the columns of b
 * do. KC divides the widths of the public models. */
enum { NV = NR / W, KC = 384, MC = MR * ROW_TILES };

/* Packed layouts. a as rows: [MC][KC], rows A_ROW apart. a transposed: panels of [KC][MR], A_PANEL apart. b: panels of
 * [KC][NR], B_PANEL apart. The 16 floats more than needed keep equal offsets off the same cache sets, and let the
 * packing of a store whole vectors. */
enum { A_ROW = KC + 16, A_PANEL = KC * MR + 16, B_PANEL = KC * NR + 16 };

INLINE void tile_zero(vec acc[MR][NV])
{
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 16
        for (int v = 0; v < NV; v++) acc[i][v] = vec_set(0);
}

/* acc [MR, nv vectors] += sum over k of a(i, k) b [k,NR]; a(i, k) stands at a[i * row + k * step]. nv is NV, or half of
 * it where the right half of a panel is empty. */
INLINE void tile_add_part(vec acc[MR][NV], const int nv, int64_t K, const float *a, const int64_t row,
                          const int64_t step, const float *b)
{
#pragma GCC unroll 4
    for (int64_t k = 0; k < K; k++) {
        vec bk[NV];
#pragma GCC unroll 16
        for (int v = 0; v < nv; v++) bk[v] = vec_load(b + k * NR + v * W);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            vec ai = vec_set(a[i * row + k * step]);
#pragma GCC unroll 16
            for (int v = 0; v < nv; v++) acc[i][v] = vec_fma(ai, bk[v], acc[i][v]);
        }
    }
}

/* The vectors of a panel of which any of the first `columns` lanes is one: all, or the left half. */
INLINE int vectors_of(int64_t columns)
{
    return columns > NR / 2 ? NV : NV / 2;
}

/* The same over vectors_of(columns) vectors of b. */
INLINE void tile_add_product(vec acc[MR][NV], int64_t columns, int64_t K, const float *a, const int64_t row,
                             const int64_t step, const float *b)
{
    if (vectors_of(columns) == NV)
        tile_add_part(acc, NV, K, a, row, step, b);
    else
        tile_add_part(acc, NV / 2, K, a, row, step, b);
}

/* c [MR,NR] = acc, or add + acc where add is given; both with rows ld apart. */
INLINE void tile_store(vec acc[MR][NV], float *c, const float *add, int64_t ld)
{
    if (add) {
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++)
#pragma GCC unroll 16
            for (int v = 0; v < NV; v++) vec_store(c + i * ld + v * W, vec_load(add + i * ld + v * W) + acc[i][v]);
        return;
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 16
        for (int v = 0; v < NV; v++) vec_store(c + i * ld + v * W, acc[i][v]);
}

/* The same for a tile at the edge: `rows` and `columns` of it exist. */
INLINE void tile_store_part(vec acc[MR][NV], float *c, const float *add, int64_t ld, int64_t rows, int64_t columns)
{
    float tile[MR * NR];
    tile_store(acc, tile, NULL, NR);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j += W) {
            vec x = vec_load(tile + i * NR + j);
            if (add) x = vec_load_part(add + i * ld + j, columns - j) + x;
            vec_store_part(c + i * ld + j, x, columns - j);
        }
}

/* TB rows of `in`, ld apart, become columns of `out`, rows of which are ldo apart. */
#if defined(__AVX2__)
enum { TB = 8 };
INLINE void transpose_block(float *out, int64_t ldo, const float *in, int64_t ld)
{
    __m256 r[8], s[8];
    for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(in + i * ld);
    for (int i = 0; i < 4; i++) {
        s[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        s[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) { /* r[4i + j]: elements j and j + 4 of rows 4i .. 4i+3 */
        r[4 * i] = _mm256_shuffle_ps(s[4 * i], s[4 * i + 2], 0x44);
        r[4 * i + 1] = _mm256_shuffle_ps(s[4 * i], s[4 * i + 2], 0xee);
        r[4 * i + 2] = _mm256_shuffle_ps(s[4 * i + 1], s[4 * i + 3], 0x44);
        r[4 * i + 3] = _mm256_shuffle_ps(s[4 * i + 1], s[4 * i + 3], 0xee);
    }
    for (int j = 0; j < 4; j++) {
        _mm256_storeu_ps(out + j * ldo, _mm256_permute2f128_ps(r[j], r[4 + j], 0x20));
        _mm256_storeu_ps(out + (j + 4) * ldo, _mm256_permute2f128_ps(r[j], r[4 + j], 0x31));
    }
}
#elif defined(__x86_64__)
enum { TB = 4 };
INLINE void transpose_block(float *out, int64_t ldo, const float *in, int64_t ld)
{
    __m128 r[4];
    for (int i = 0; i < 4; i++) r[i] = _mm_loadu_ps(in + i * ld);
    _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
    for (int j = 0; j < 4; j++) _mm_storeu_ps(out + j * ldo, r[j]);
}
#else
enum { TB = 4 };
INLINE void transpose_block(float *out, int64_t ldo, const float *in, int64_t ld)
{
    float32x4x2_t low = vtrnq_f32(vld1q_f32(in), vld1q_f32(in + ld));
    float32x4x2_t high = vtrnq_f32(vld1q_f32(in + 2 * ld), vld1q_f32(in + 3 * ld));
    vst1q_f32(out, vcombine_f32(vget_low_f32(low.val[0]), vget_low_f32(high.val[0])));
    vst1q_f32(out + ldo, vcombine_f32(vget_low_f32(low.val[1]), vget_low_f32(high.val[1])));
    vst1q_f32(out + 2 * ldo, vcombine_f32(vget_high_f32(low.val[0]), vget_high_f32(high.val[0])));
    vst1q_f32(out + 3 * ldo, vcombine_f32(vget_high_f32(low.val[1]), vget_high_f32(high.val[1])));
}
#endif

/* The same from stored numbers. */
INLINE void transpose_stored(float *out, int64_t ldo, const stored *in, int64_t ld)
{
#ifdef XKD_HALF
    float wide[TB * TB];
    for (int r = 0; r < TB; r++)
        for (int c = 0; c < TB; c++) wide[r * TB + c] = read_one(in + r * ld + c);
    transpose_block(out, ldo, wide, TB);
#else
    transpose_block(out, ldo, in, ld);
#endif
}

/* One panel of b from `rows` <= NR rows of a transposed operand (rows of in are columns of b), k values each: panel
 * [k][NR] = in [rows][k] turned around, 0 in the columns that do not exist. */
INLINE void pack_transposed_panel(float *panel, const stored *in, int64_t ld, int64_t rows, int64_t k)
{
    for (int64_t j = 0; j < NR; j += TB) {
        int64_t i = 0, exist = rows - j < TB ? rows - j : TB;
        if (exist == TB)
            for (; i + TB <= k; i += TB) transpose_stored(panel + i * NR + j, NR, in + j * ld + i, ld);
        for (; i < k; i++)
            for (int64_t r = 0; r < TB; r++) panel[i * NR + j + r] = r < exist ? read_one(in + (j + r) * ld + i) : 0;
    }
}

/* One panel of b from k rows of an operand as it lies: panel [k][NR] = in [k][columns], columns <= NR. */
INLINE void pack_panel(float *panel, const stored *in, int64_t ld, int64_t columns, int64_t k)
{
    if (columns == NR) {
        for (int64_t i = 0; i < k; i++)
#pragma GCC unroll 16
            for (int v = 0; v < NV; v++) vec_store(panel + i * NR + v * W, read_part(in + i * ld + v * W, W));
        return;
    }
    for (int64_t i = 0; i < k; i++)
        for (int64_t v = 0; v < NV; v++)
            vec_store(panel + i * NR + v * W, read_part(in + i * ld + v * W, columns - v * W));
}

/* Rows of a as they lie: out [rows up to a multiple of MR][k], rows `row` apart, zeros in the rows that do not exist. */
INLINE void pack_rows(float *out, int64_t row, const stored *in, int64_t ld, int64_t rows, int64_t k)
{
    for (int64_t r = 0; r < rows; r++) {
        int64_t i = 0;
        for (; i + W <= k; i += W) vec_store(out + r * row + i, read_part(in + r * ld + i, W));
        for (; i < k; i++) out[r * row + i] = read_one(in + r * ld + i);
    }
    for (int64_t r = rows; r % MR; r++) memset(out + r * row, 0, (size_t)k * sizeof *out);
}

/* Columns of a transposed operand: panels [k][MR] of in [k][columns], `panel` apart, zeros in the columns that do not
 * exist. Whole vectors are stored; what they write past MR is overwritten by the next k, or lies between the panels. */
INLINE void pack_columns(float *out, int64_t panel, const stored *in, int64_t ld, int64_t columns, int64_t k)
{
    for (int64_t i = 0; i < k; i++) {
        const stored *from = in + i * ld;
        float *to = out + i * MR;
        for (int64_t c = 0; c < columns; c += MR, to += panel)
            for (int v = 0; v < (MR + W - 1) / W; v++)
                vec_store(to + v * W, read_part(from + c + v * W, columns - c - v * W));
    }
}

#endif
