/* Element types and shapes. Networks compute in float32, float64 and bfloat16; the others are there for files. */
#include "tensor/dtype.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "tensor/bfloat16.h"

/* In the order of xkd_dtype; names are numpy's and PyTorch's. */
static const struct {
    const char *name;
    int64_t size;
} types[XKD_DTYPE_COUNT] = {
    [XKD_F32] = {"float32", 4}, [XKD_F64] = {"float64", 8}, [XKD_F16] = {"float16", 2}, [XKD_BF16] = {"bfloat16", 2},
    [XKD_I64] = {"int64", 8},   [XKD_I32] = {"int32", 4},   [XKD_I16] = {"int16", 2},   [XKD_I8] = {"int8", 1},
    [XKD_U64] = {"uint64", 8},  [XKD_U32] = {"uint32", 4},  [XKD_U16] = {"uint16", 2},  [XKD_U8] = {"uint8", 1},
    [XKD_BOOL] = {"bool", 1},
};

/* Bytes of one element. */
int64_t xkd_dtype_size(xkd_dtype dtype)
{
    return types[dtype].size;
}

const char *xkd_dtype_name(xkd_dtype dtype)
{
    return types[dtype].name;
}

/* IEEE 754 half: sign, 5 bits of exponent, 10 of mantissa; not every compiler here has the type. */
static double from_float16(uint16_t half)
{
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    double value = exponent == 31 ? (mantissa ? NAN : INFINITY)
                                  : ldexp(exponent ? mantissa + 1024 : mantissa, (exponent ? exponent : 1) - 25);
    return half >> 15 ? -value : value;
}

xkd_dtype xkd_exact_dtype(xkd_dtype stored)
{
    return stored == XKD_BF16 ? XKD_F32 : stored;
}

xkd_widths xkd_widths_of(xkd_dtype stored)
{
    return (xkd_widths){xkd_dtype_size(stored), xkd_dtype_size(xkd_exact_dtype(stored))};
}

bool xkd_dtype_is_integer(xkd_dtype dtype)
{
    return dtype >= XKD_I64 && dtype <= XKD_BOOL;
}

/* Types of up to 32 bits are exact as doubles too. */
long double xkd_integer_element(xkd_dtype dtype, const void *data, int64_t index)
{
    if (dtype == XKD_I64) return (long double)((const int64_t *)data)[index];
    if (dtype == XKD_U64) return (long double)((const uint64_t *)data)[index];
    return (long double)xkd_element(dtype, data, index);
}

/* For comparing and inspecting; int64 beyond 2^53 is rounded. Slow by design: one switch an element. */
double xkd_element(xkd_dtype dtype, const void *data, int64_t index)
{
    switch (dtype) {
    case XKD_F32: return (double)((const float *)data)[index];
    case XKD_F64: return ((const double *)data)[index];
    case XKD_F16: return from_float16(((const uint16_t *)data)[index]);
    case XKD_BF16: return (double)xkd_from_bfloat16(((const uint16_t *)data)[index]);
    case XKD_I64: return (double)((const int64_t *)data)[index];
    case XKD_I32: return ((const int32_t *)data)[index];
    case XKD_I16: return ((const int16_t *)data)[index];
    case XKD_I8: return ((const int8_t *)data)[index];
    case XKD_U64: return (double)((const uint64_t *)data)[index];
    case XKD_U32: return ((const uint32_t *)data)[index];
    case XKD_U16: return ((const uint16_t *)data)[index];
    case XKD_U8:
    case XKD_BOOL: return ((const uint8_t *)data)[index];
    case XKD_DTYPE_COUNT: break;
    }
    return 0;
}

/* Not finite is an exponent of all ones. On the bits, so that one loop does for every type and compilers make vectors of
 * it; checkpoints are looked through as fast as they are read. */
#define COUNT_EXPONENTS(TYPE, EXPONENT)                                                                  \
    do {                                                                                                 \
        typedef TYPE __attribute__((may_alias)) bits;                                                    \
        for (int64_t i = 0; i < count; i++) bad += (((const bits *)data)[i] & (EXPONENT)) == (EXPONENT); \
    } while (0)

int64_t xkd_count_non_finite(xkd_dtype dtype, const void *data, int64_t count)
{
    int64_t bad = 0;
    switch (dtype) {
    case XKD_F32: COUNT_EXPONENTS(uint32_t, UINT32_C(0x7f800000)); break;
    case XKD_F64: COUNT_EXPONENTS(uint64_t, UINT64_C(0x7ff0000000000000)); break;
    case XKD_F16: COUNT_EXPONENTS(uint16_t, 0x7c00); break;
    case XKD_BF16: COUNT_EXPONENTS(uint16_t, 0x7f80); break;
    default: break;
    }
    return bad;
}

/* -1 where a size is negative or the product overflows; 1 for a shape without dimensions, a single
 * number. */
int64_t xkd_shape_count(const xkd_shape *shape)
{
    int64_t count = 1;
    for (int i = 0; i < shape->ndim; i++)
        if (shape->dims[i] < 0 || __builtin_mul_overflow(count, shape->dims[i], &count)) return -1;
    return count;
}

/* Sizes beyond ndim are not looked at. */
int xkd_shape_equal(const xkd_shape *a, const xkd_shape *b)
{
    if (a->ndim != b->ndim) return 0;
    for (int i = 0; i < a->ndim; i++)
        if (a->dims[i] != b->dims[i]) return 0;
    return 1;
}
