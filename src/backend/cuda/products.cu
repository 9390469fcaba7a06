/* Matrix products of linear layers: the library's, and what it does not fuse. cuBLASLt's own GELU is the tanh form, and its
 * gradient of a bias overwrites where the table accumulates: both are kernels of ours. */
#include "kernel.h"
#include "state.h"

static dev_type type_of(const float *)
{
    return DEV_F32;
}

static dev_type type_of(const bf16 *)
{
    return DEV_BF16;
}

/* y [M,N] = a [M,K] b [K,N] + c + bias with the operands as they are stored. */
template <class T, class Y>
static void product(xkd_backend *be, Y *y, const Y *c, const T *a, bool a_km, const T *b, bool b_nk, const Y *bias,
                    const int64_t size[3])
{
    dev_product p = dev_product();
    p.y = y;
    p.c = c;
    p.bias = bias;
    p.a = a;
    p.a_stored_km = a_km;
    p.b = b;
    p.b_stored_nk = b_nk;
    p.M = size[0];
    p.N = size[1];
    p.K = size[2];
    p.in = type_of(a);
    p.out = type_of(y);
    p.tf32 = be->tf32 && p.in == DEV_F32;
    cuda_multiply(be, &p);
}

/* What the count of a step calls an operation; in bfloat16, exact products are told apart, since their rate is another. */
#define OPERATION(name) (be->dtype == XKD_BF16 && sizeof(T) == sizeof(float) ? name ", exact" : name)

/* Numbers that a product reads and writes. */
static int64_t numbers(int64_t M, int64_t N, int64_t K)
{
    return M * N + M * K + N * K;
}

template <class T>
static void linear_residual_forward(xkd_backend *be, void *y, const void *residual, const void *x, const void *w,
                                    const void *b, int64_t M, int64_t N, int64_t K)
{
    const int64_t size[] = {M, N, K};
    int64_t bytes = (M * K + N * K) * (int64_t)sizeof(T) + 2 * M * N * (int64_t)sizeof(float);
    if (!cuda_begin(be, OPERATION("linear_residual_forward"), bytes, 2 * M * N * K)) return;
    product(be, (float *)y, (const float *)residual, (const T *)x, false, (const T *)w, true, (const float *)b, size);
}

template <class T>
static void linear_forward(xkd_backend *be, void *y, const void *x, const void *w, const void *b, int64_t M, int64_t N,
                           int64_t K)
{
    const int64_t size[] = {M, N, K};
    if (!cuda_begin(be, OPERATION("linear_forward"), numbers(M, N, K) * (int64_t)sizeof(T), 2 * M * N * K)) return;
    product(be, (T *)y, (const T *)NULL, (const T *)x, false, (const T *)w, true, (const T *)b, size);
}

template <class T> struct gelu_of {
    T *y;
    const T *h;
    __device__ void operator()(int64_t i) const
    {
        set(y, i, gelu(get(h, i)));
    }
};

template <class T>
static void linear_gelu_forward(xkd_backend *be, void *y, void *h, const void *x, const void *w, const void *b,
                                int64_t M, int64_t N, int64_t K)
{
    const int64_t size[] = {M, N, K};
    if (!cuda_begin(be, OPERATION("linear_gelu_forward"), (numbers(M, N, K) + 2 * M * N) * (int64_t)sizeof(T),
                    2 * M * N * K))
        return;
    product(be, (T *)h, (const T *)NULL, (const T *)x, false, (const T *)w, true, (const T *)b, size);
    cuda_each(be, __func__, gelu_of<T>{(T *)y, (const T *)h}, M * N);
}

template <class T>
static void linear_backward_data(xkd_backend *be, void *dx, const void *dy, const void *w, int64_t M, int64_t N,
                                 int64_t K)
{
    const int64_t size[] = {M, K, N};
    if (!cuda_begin(be, OPERATION("linear_backward_data"), numbers(M, N, K) * (int64_t)sizeof(T), 2 * M * N * K))
        return;
    product(be, (T *)dx, (const T *)NULL, (const T *)dy, false, (const T *)w, false, (const T *)NULL, size);
}

/* dh is dy w until then; `a` may be h. */
template <class T> struct gelu_back {
    T *dh, *a;
    const T *h;
    __device__ void operator()(int64_t i) const
    {
        float x = get(h, i);
        set(dh, i, get(dh, i) * gelu_slope(x));
        set(a, i, gelu(x));
    }
};

template <class T>
static void linear_gelu_backward_data(xkd_backend *be, void *dh, void *a, const void *dy, const void *w, const void *h,
                                      int64_t M, int64_t N, int64_t K)
{
    const int64_t size[] = {M, K, N};
    if (!cuda_begin(be, OPERATION("linear_gelu_backward_data"), (numbers(M, N, K) + 4 * M * K) * (int64_t)sizeof(T),
                    2 * M * N * K))
        return;
    product(be, (T *)dh, (const T *)NULL, (const T *)dy, false, (const T *)w, false, (const T *)NULL, size);
    cuda_each(be, __func__, gelu_back<T>{(T *)dh, (T *)a, (const T *)h}, M * K);
}

template <class T>
static void linear_backward_weight(xkd_backend *be, void *dw, void *db, const void *dy, const void *x, int64_t M,
                                   int64_t N, int64_t K)
{
    const int64_t size[] = {N, K, M}, reads = (M * K + (db ? 2 : 1) * M * N) * (int64_t)sizeof(T);
    if (!cuda_begin(be, OPERATION("linear_backward_weight"), reads + 2 * N * K * (int64_t)sizeof(float), 2 * M * N * K))
        return;
    product(be, (float *)dw, (const float *)dw, (const T *)dy, true, (const T *)x, false, (const float *)NULL, size);
    if (db) cuda_column_sum(be, (float *)db, (const T *)dy, M, N);
}

template <class T> void cuda_fill_products(xkd_ops *ops)
{
    ops->linear_forward = linear_forward<T>;
    ops->linear_gelu_forward = linear_gelu_forward<T>;
    ops->linear_residual_forward = linear_residual_forward<T>;
    ops->linear_backward_data = linear_backward_data<T>;
    ops->linear_gelu_backward_data = linear_gelu_backward_data<T>;
    ops->linear_backward_weight = linear_backward_weight<T>;
}

template void cuda_fill_products<float>(xkd_ops *);
template void cuda_fill_products<bf16>(xkd_ops *);
