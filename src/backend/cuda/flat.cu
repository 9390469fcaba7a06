/* Element by element. */
#include "kernel.h"
#include "state.h"

/* Bytes of `reads_and_writes` passes over n elements. */
template <class T> static int64_t passes(int64_t n, int64_t reads_and_writes)
{
    return n * reads_and_writes * (int64_t)sizeof(T);
}

template <class T> struct gelu_element {
    T *y;
    const T *x;
    __device__ void operator()(int64_t i) const
    {
        set(y, i, gelu(get(x, i)));
    }
};

template <class T> static void gelu_forward(xkd_backend *be, void *y, const void *x, int64_t n)
{
    if (!cuda_begin(be, __func__, passes<T>(n, 2), 0)) return;
    cuda_each(be, __func__, gelu_element<T>{(T *)y, (const T *)x}, n);
}

template <class T> struct gelu_gradient {
    T *dx;
    const T *dy, *x;
    __device__ void operator()(int64_t i) const
    {
        set(dx, i, get(dy, i) * gelu_slope(get(x, i)));
    }
};

template <class T> static void gelu_backward(xkd_backend *be, void *dx, const void *dy, const void *x, int64_t n)
{
    if (!cuda_begin(be, __func__, passes<T>(n, 3), 0)) return;
    cuda_each(be, __func__, gelu_gradient<T>{(T *)dx, (const T *)dy, (const T *)x}, n);
}

struct multiply_element {
    float *y;
    const float *x, *factor;
    __device__ void operator()(int64_t i) const
    {
        y[i] = x[i] * factor[i];
    }
};

static void multiply(xkd_backend *be, void *y, const void *x, const float *factor, int64_t n)
{
    if (!cuda_begin(be, __func__, passes<float>(n, 3), 0)) return;
    cuda_each(be, __func__, multiply_element{(float *)y, (const float *)x, factor}, n);
}

struct to_double_element {
    double *y;
    const float *x;
    __device__ void operator()(int64_t i) const
    {
        y[i] = (double)x[i];
    }
};

static void to_double(xkd_backend *be, double *y, const void *x, int64_t n)
{
    if (!cuda_begin(be, __func__, passes<float>(n, 3), 0)) return;
    cuda_each(be, __func__, to_double_element{y, (const float *)x}, n);
}

struct from_double_element {
    float *y;
    const double *x;
    __device__ void operator()(int64_t i) const
    {
        y[i] = (float)x[i];
    }
};

static void from_double(xkd_backend *be, void *y, const double *x, int64_t n)
{
    if (!cuda_begin(be, __func__, passes<float>(n, 3), 0)) return;
    cuda_each(be, __func__, from_double_element{(float *)y, x}, n);
}

/* b = 0 does not read y, which may be uninitialised. */
template <class T> struct axpby_element {
    T *y;
    const T *x;
    double a, b;
    __device__ void operator()(int64_t i) const
    {
        set(y, i, (float)(a * (double)get(x, i) + (b == 0 ? 0 : b * (double)get(y, i))));
    }
};

template <class T> static void axpby(xkd_backend *be, void *y, const void *x, double a, double b, int64_t n)
{
    if (!cuda_begin(be, __func__, passes<T>(n, b == 0 ? 2 : 3), 2 * n)) return;
    cuda_each(be, __func__, axpby_element<T>{(T *)y, (const T *)x, a, b}, n);
}

struct centre_element {
    axpby_element<float> move;
    const double *finite;
    __device__ void operator()(int64_t i) const
    {
        if (*finite != 0) move(i);
    }
};

static void centre(xkd_backend *be, void *centre, const void *sum, double m, int64_t rows, int64_t K,
                   const double *finite)
{
    if (!cuda_begin(be, __func__, passes<float>(K, 3), 2 * K)) return;
    axpby_element<float> move = {(float *)centre, (const float *)sum, (1 - m) / (double)rows, m};
    cuda_each(be, __func__, centre_element{move, finite}, K);
}

template <class T> struct fill_element {
    T *x;
    float value;
    __device__ void operator()(int64_t i) const
    {
        set(x, i, value);
    }
};

template <class T> static void fill(xkd_backend *be, void *x, double value, int64_t n)
{
    if (!cuda_begin(be, __func__, passes<T>(n, 1), 0)) return;
    cuda_each(be, __func__, fill_element<T>{(T *)x, (float)value}, n);
}

template <class T> struct mse_gradient {
    T *dpred;
    const T *pred;
    const float *target;
    float factor;
    __device__ void operator()(int64_t i) const
    {
        set(dpred, i, factor * (get(pred, i) - target[i]));
    }
};

template <class T>
static void mse_backward(xkd_backend *be, void *dpred, const void *pred, const void *target, double scale, int64_t n)
{
    if (!cuda_begin(be, __func__, passes<T>(n, 2) + passes<float>(n, 1), 2 * n)) return;
    cuda_each(be, __func__,
              mse_gradient<T>{(T *)dpred, (const T *)pred, (const float *)target, (float)(scale * 2 / (double)n)}, n);
}

template <class T> void cuda_fill_flat(xkd_ops *ops)
{
    ops->gelu_forward = gelu_forward<T>;
    ops->gelu_backward = gelu_backward<T>;
    ops->multiply = multiply;
    ops->to_double = to_double;
    ops->from_double = from_double;
    ops->axpby = axpby<T>;
    ops->centre = centre;
    ops->fill = fill<T>;
    ops->mse_backward = mse_backward<T>;
}

template void cuda_fill_flat<float>(xkd_ops *);
template void cuda_fill_flat<bf16>(xkd_ops *);
