/* Losses of reconstruction and distillation. Sums over all elements run in double: within blocks, and then over the blocks in
 * order. */
#include "loss.h"

template <class T> struct squared_error {
    enum { COUNT = 1 };
    const T *pred;
    const float *target;
    __device__ void add(double *sum, int64_t i) const
    {
        double e = (double)get(pred, i) - (double)target[i];
        sum[0] += e * e;
    }
};

template <class T>
static void mse_forward(xkd_backend *be, double *loss, const void *pred, const void *target, int64_t n)
{
    if (!cuda_begin(be, __func__, n * (int64_t)(sizeof(T) + sizeof(float)), 3 * n)) return;
    sum_all(be, __func__, sum_target{{loss}, {1 / (double)n}, false},
            squared_error<T>{(const T *)pred, (const float *)target}, n);
}

struct column_energies {
    enum { COUNT = 2 };
    const float *x;
    int64_t B, K;
    __device__ void add(double *energy, int64_t k) const
    {
        double sum = 0, squares = 0;
        for (int64_t b = 0; b < B; b++) {
            double value = (double)x[b * K + k];
            sum += value;
            squares += value * value;
        }
        energy[0] += squares - sum * sum / (double)B;
        energy[1] += squares;
    }
};

static void column_energy(xkd_backend *be, double *energy, const void *x, int64_t B, int64_t K)
{
    if (!cuda_begin(be, __func__, B * K * (int64_t)sizeof(float), 3 * B * K)) return;
    sum_all(be, __func__, sum_target{{energy, energy + 1}, {1, 1}, false}, column_energies{(const float *)x, B, K}, K);
}

/* ---- distillation ---- */

struct kd_args {
    const float *s, *t, *centre;
    float *s_lse, *t_lse;
    double *row_loss, *row_entropy; /* [R], [B] */
    const double *student_temp, *teacher_temp;
    int64_t B, K;
};

/* 1 / temperature. */
struct kd_scales {
    float student, teacher;
};

__device__ inline kd_scales scales_of(const kd_args &a)
{
    return {(float)(1 / *a.student_temp), (float)(1 / *a.teacher_temp)};
}

__device__ inline float teacher_score(const kd_args &a, kd_scales scale, int64_t b, int64_t k)
{
    return (a.t[b * a.K + k] - a.centre[k]) * scale.teacher;
}

/* With x the scores, m the largest and e = exp(x - m): lse = m + log sum e, entropy = log sum e - sum e (x - m) / sum e. The
 * second sum is carried along as the largest grows. */
__global__ void kd_teacher(kd_args a)
{
    SHARED(log_sum, room); /* [WARPS], and a double a warp */
    int64_t b = blockIdx.x;
    kd_scales scale = scales_of(a);
    log_sum all = log_sum_empty();
    for (int64_t k = threadIdx.x; k < a.K; k += THREADS) log_sum_add(&all, {teacher_score(a, scale, b, k), 1});
    all = block_log_sum(all, room);
    float lse = log_sum_value(all);
    double entropy = 0;
    for (int64_t k = threadIdx.x; k < a.K; k += THREADS) {
        float log_q = teacher_score(a, scale, b, k) - lse;
        /* q log q tends to 0 where q underflows: exp gives 0 and log_q stays finite. */
        entropy -= (double)expf(log_q) * (double)log_q;
    }
    entropy = block_sum(entropy, (double *)(room + WARPS));
    if (threadIdx.x != 0) return;
    a.t_lse[b] = lse;
    a.row_entropy[b] = entropy;
}

/* One pass over a row: the student's log-sum-exp, sum q x and sum q; the loss is lse sum q - sum q x. */
__global__ void kd_student(kd_args a)
{
    SHARED(log_sum, room); /* as above */
    int64_t r = blockIdx.x, b = r % a.B;
    float t_lse = a.t_lse[b];
    kd_scales scale = scales_of(a);
    log_sum all = log_sum_empty();
    double weight = 0, sum = 0;
    for (int64_t k = threadIdx.x; k < a.K; k += THREADS) {
        float x = a.s[r * a.K + k] * scale.student, q = expf(teacher_score(a, scale, b, k) - t_lse);
        log_sum_add(&all, {x, 1});
        weight += (double)q;
        sum += (double)q * (double)x;
    }
    all = block_log_sum(all, room);
    weight = block_sum(weight, (double *)(room + WARPS));
    sum = block_sum(sum, (double *)(room + WARPS));
    if (threadIdx.x != 0) return;
    float lse = log_sum_value(all);
    a.s_lse[r] = lse;
    a.row_loss[r] = (double)lse * weight - sum;
}

static kd_args arguments(const xkd_kd_args *a)
{
    kd_args args = kd_args();
    args.s = (const float *)a->s;
    args.t = (const float *)a->t;
    args.centre = (const float *)a->centre;
    args.student_temp = a->student_temp;
    args.teacher_temp = a->teacher_temp;
    args.B = a->B;
    args.K = a->K;
    return args;
}

static void kd_forward(xkd_backend *be, double *loss, double *entropy, void *s_lse, void *t_lse, const xkd_kd_args *a)
{
    kd_args args = arguments(a);
    size_t shared = WARPS * (sizeof(log_sum) + sizeof(double));
    if (!cuda_begin(be, __func__, 4 * a->K * (2 * a->R + 2 * a->B), 8 * a->K * (a->R + a->B))) return;
    double *rows = (double *)cuda_scratch(be, (a->R + a->B) * (int64_t)sizeof(double));
    if (!rows) return;
    args.s_lse = (float *)s_lse;
    args.t_lse = (float *)t_lse;
    args.row_loss = rows;
    args.row_entropy = rows + a->R;
    LAUNCH(be, kd_teacher, (unsigned)a->B, THREADS, shared, args);
    LAUNCH(be, kd_student, (unsigned)a->R, THREADS, shared, args);
    sum_rows(be, __func__, loss, args.row_loss, a->R, 1 / (double)a->R, false);
    sum_rows(be, __func__, entropy, args.row_entropy, a->B, 1 / (double)a->B, false);
}

/* (softmax(s / ts) - q) / (R ts): the teacher gets no gradient. */
struct kd_gradient {
    float *ds;
    kd_args a;
    double factor; /* without the temperature */
    __device__ void operator()(int64_t i) const
    {
        int64_t r = i / a.K, k = i % a.K, b = r % a.B;
        kd_scales scale = scales_of(a);
        float q = expf(teacher_score(a, scale, b, k) - a.t_lse[b]), p = expf(a.s[i] * scale.student - a.s_lse[r]);
        ds[i] += (float)(factor / *a.student_temp) * (p - q);
    }
};

static void kd_backward(xkd_backend *be, void *ds, const xkd_kd_args *a, const void *s_lse, const void *t_lse,
                        double scale)
{
    kd_args args = arguments(a);
    if (!cuda_begin(be, __func__, 4 * a->K * (3 * a->R + a->B), 8 * a->K * a->R)) return;
    args.s_lse = (float *)(uintptr_t)s_lse;
    args.t_lse = (float *)(uintptr_t)t_lse;
    cuda_each(be, __func__, kd_gradient{(float *)ds, args, scale / (double)a->R}, a->R * a->K);
}

template <class T> void cuda_fill_loss(xkd_ops *ops)
{
    ops->mse_forward = mse_forward<T>;
    ops->column_energy = column_energy;
    ops->kd_forward = kd_forward;
    ops->kd_backward = kd_backward;
}

template void cuda_fill_loss<float>(xkd_ops *);
template void cuda_fill_loss<bf16>(xkd_ops *);
