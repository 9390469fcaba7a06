/* Numbers between the host and a tensor, wherever it lies and whatever its type is. */
#ifndef XKD_TENSOR_TENSOR_H
#define XKD_TENSOR_TENSOR_H

#include "base/memory.h"
#include "tensor/dtype.h"

/* Element of an array of the host as a double, and its assignment. dtype F32, F64 or BF16. */
double xkd_get(xkd_dtype dtype, const void *data, int64_t index);
void xkd_set(xkd_dtype dtype, void *data, int64_t index, double value);

/* to [count] of the host = the elements of a tensor of `dtype` in `memory`. */
void xkd_tensor_read(xkd_memory *memory, xkd_dtype dtype, double *to, const void *from, int64_t count);
void xkd_tensor_read_floats(xkd_memory *memory, xkd_dtype dtype, float *to, const void *from, int64_t count);

/* A tensor of `dtype` in `memory` = count numbers of the host of type `type`, each converted on its own. */
void xkd_tensor_write(xkd_memory *memory, xkd_dtype dtype, void *to, xkd_dtype type, const void *from, int64_t count);

/* A tensor of `dtype` = another one of `type` in the same memory, each number converted on its own. */
void xkd_tensor_convert(xkd_memory *memory, xkd_dtype dtype, void *to, xkd_dtype type, const void *from, int64_t count);

#endif
