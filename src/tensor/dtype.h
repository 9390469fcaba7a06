#ifndef XKD_TENSOR_DTYPE_H
#define XKD_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

/* Element types of tensors and tensor files. Computation knows F32, F64 and BF16; the others only travel. */
typedef enum {
    XKD_F32,
    XKD_F64,
    XKD_F16,
    XKD_BF16,
    XKD_I64,
    XKD_I32,
    XKD_I16,
    XKD_I8,
    XKD_U64,
    XKD_U32,
    XKD_U16,
    XKD_U8,
    XKD_BOOL,
    XKD_DTYPE_COUNT
} xkd_dtype;

int64_t xkd_dtype_size(xkd_dtype dtype);     /* bytes of one element */
const char *xkd_dtype_name(xkd_dtype dtype); /* "float32", as PyTorch and numpy say */

/* Bytes of an element of each kind in a run. Stored are the weights that operations read, activations and their gradients;
 * exact are master weights and what trains them, statistics, logits and features. */
typedef struct {
    int64_t stored, exact;
} xkd_widths;

/* The exact type of a run by its stored one: F32 beside BF16, else the same. */
xkd_dtype xkd_exact_dtype(xkd_dtype stored);
xkd_widths xkd_widths_of(xkd_dtype stored);

/* Whether elements are integers; bool counts as one. */
bool xkd_dtype_is_integer(xkd_dtype dtype);

/* One element of an integer type, exactly: long double holds 64 bits. */
long double xkd_integer_element(xkd_dtype dtype, const void *data, int64_t index);

/* One element as a double; exact for all types but integers beyond 2^53. */
double xkd_element(xkd_dtype dtype, const void *data, int64_t index);

/* How many of `count` elements are infinite or not a number; integers are finite by nature. */
int64_t xkd_count_non_finite(xkd_dtype dtype, const void *data, int64_t count);

enum { XKD_MAX_DIMS = 8 };

/* A row-major shape: dims[0 .. ndim-1]; ndim 0 is a scalar of one element. */
typedef struct {
    int ndim;
    int64_t dims[XKD_MAX_DIMS];
} xkd_shape;

/* Product of the dims, or -1 if one is negative or the product exceeds int64_t. */
int64_t xkd_shape_count(const xkd_shape *shape);
int xkd_shape_equal(const xkd_shape *a, const xkd_shape *b);

#endif
