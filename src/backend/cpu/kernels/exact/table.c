/* What this level offers: the operations that override the reference's, and the loops in double. */
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vector.h"

/* Two sets of lanes hide the latency of the multiply-add. */
static double dot(const double *a, const double *b, int64_t n)
{
    lanes_d even = lanes_d_zero(), odd = lanes_d_zero();
    int64_t i = 0;
    for (; i + 2 * LANES_D <= n; i += 2 * LANES_D)
        for (int j = 0; j < VECS_D; j++) {
            even.v[j] = vecd_fma(vecd_load(a + i + j * WD), vecd_load(b + i + j * WD), even.v[j]);
            odd.v[j] = vecd_fma(vecd_load(a + i + LANES_D + j * WD), vecd_load(b + i + LANES_D + j * WD), odd.v[j]);
        }
    if (i < n)
        for (int j = 0; j < VECS_D; j++)
            even.v[j] = vecd_fma(vecd_load(a + i + j * WD), vecd_load(b + i + j * WD), even.v[j]);
    for (int j = 0; j < VECS_D; j++) even.v[j] += odd.v[j];
    return lanes_d_sum(even);
}

static void add_scaled(double *w, double scale, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += WD)
        vecd_store(w + i, vecd_fma(vecd_set(scale), vecd_load(x + i), vecd_load(w + i)));
}

extern const xkd_double_loops LEVEL(xkd_cpu_loops);
const xkd_double_loops LEVEL(xkd_cpu_loops) = {dot, add_scaled};

void LEVEL(xkd_cpu_fill)(xkd_ops *ops, xkd_dtype dtype);

/* The stored kinds of a bfloat16 run; see kernels.h. */
#define HALF_OF(name, level) XKD_JOIN(name, level##_half)
#define HALF_LEVEL(name, level) HALF_OF(name, level)
#define HALF(name) HALF_LEVEL(name, XKD_LEVEL)
void HALF(xkd_cpu_linear_ops)(xkd_ops *ops);
void HALF(xkd_cpu_norm_ops)(xkd_ops *ops);
void HALF(xkd_cpu_attention_ops)(xkd_ops *ops);
void HALF(xkd_cpu_flat_ops)(xkd_ops *ops);
void HALF(xkd_cpu_row_ops)(xkd_ops *ops);

/* Order does not matter: no two files override the same entry. */
void LEVEL(xkd_cpu_fill)(xkd_ops *ops, xkd_dtype dtype)
{
    bool half = dtype == XKD_BF16;
    (half ? HALF(xkd_cpu_linear_ops) : LEVEL(xkd_cpu_linear_ops))(ops);
    (half ? HALF(xkd_cpu_norm_ops) : LEVEL(xkd_cpu_norm_ops))(ops);
    (half ? HALF(xkd_cpu_attention_ops) : LEVEL(xkd_cpu_attention_ops))(ops);
    (half ? HALF(xkd_cpu_flat_ops) : LEVEL(xkd_cpu_flat_ops))(ops);
    (half ? HALF(xkd_cpu_row_ops) : LEVEL(xkd_cpu_row_ops))(ops);
    LEVEL(xkd_cpu_exact_ops)(ops);
    LEVEL(xkd_cpu_optimizer_ops)(ops);
    LEVEL(xkd_cpu_loss_ops)(ops);
}
