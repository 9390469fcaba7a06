/* Conversion piece by piece, on the stack: nothing is allocated, and equal types are one copy. */
#include "tensor/tensor.h"

#include "tensor/bfloat16.h"

enum { PIECE = 1024 };

double xkd_get(xkd_dtype dtype, const void *data, int64_t index)
{
    if (dtype == XKD_F64) return ((const double *)data)[index];
    if (dtype == XKD_BF16) return (double)xkd_from_bfloat16(((const uint16_t *)data)[index]);
    return (double)((const float *)data)[index];
}

void xkd_set(xkd_dtype dtype, void *data, int64_t index, double value)
{
    if (dtype == XKD_F64)
        ((double *)data)[index] = value;
    else if (dtype == XKD_BF16)
        ((uint16_t *)data)[index] = xkd_to_bfloat16((float)value);
    else
        ((float *)data)[index] = (float)value;
}

/* Into `to` of another type than the tensor's. */
static void read_converted(xkd_memory *memory, xkd_dtype dtype, xkd_dtype type, void *to, const void *from,
                           int64_t count)
{
    int64_t size = xkd_dtype_size(dtype);
    double piece[PIECE];
    for (int64_t done = 0; done < count; done += PIECE) {
        int64_t n = count - done < PIECE ? count - done : PIECE;
        xkd_memory_download(memory, piece, (const char *)from + done * size, n * size);
        for (int64_t i = 0; i < n; i++) xkd_set(type, to, done + i, xkd_get(dtype, piece, i));
    }
}

void xkd_tensor_read(xkd_memory *memory, xkd_dtype dtype, double *to, const void *from, int64_t count)
{
    if (dtype == XKD_F64)
        xkd_memory_download(memory, to, from, count * (int64_t)sizeof *to);
    else
        read_converted(memory, dtype, XKD_F64, to, from, count);
}

void xkd_tensor_read_floats(xkd_memory *memory, xkd_dtype dtype, float *to, const void *from, int64_t count)
{
    if (dtype == XKD_F32)
        xkd_memory_download(memory, to, from, count * (int64_t)sizeof *to);
    else
        read_converted(memory, dtype, XKD_F32, to, from, count);
}

void xkd_tensor_write(xkd_memory *memory, xkd_dtype dtype, void *to, xkd_dtype type, const void *from, int64_t count)
{
    int64_t size = xkd_dtype_size(dtype);
    double piece[PIECE];
    if (type == dtype) {
        xkd_memory_upload(memory, to, from, count * size);
        return;
    }
    for (int64_t done = 0; done < count; done += PIECE) {
        int64_t n = count - done < PIECE ? count - done : PIECE;
        for (int64_t i = 0; i < n; i++) xkd_set(dtype, piece, i, xkd_element(type, from, done + i));
        xkd_memory_upload(memory, (char *)to + done * size, piece, n * size);
    }
}

void xkd_tensor_convert(xkd_memory *memory, xkd_dtype dtype, void *to, xkd_dtype type, const void *from, int64_t count)
{
    double piece[PIECE];
    for (int64_t done = 0; done < count; done += PIECE) {
        int64_t n = count - done < PIECE ? count - done : PIECE;
        xkd_memory_download(memory, piece, (const char *)from + done * xkd_dtype_size(type), n * xkd_dtype_size(type));
        xkd_tensor_write(memory, dtype, (char *)to + done * xkd_dtype_size(dtype), type, piece, n);
    }
}
