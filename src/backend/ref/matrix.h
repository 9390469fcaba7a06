/* Template: matrix products in plain C. Sums run in double over fixed lanes or in index order, so the result is the same
 * on every machine. */
#ifndef STORED
#error "included by ref_f32.c, ref_f64.c and ref_bf16.c"
#endif

/* Eight lanes let the compiler use vectors in a fixed order of sums; eight rows share one reading of b. */
enum { NAME(LANES) = 8, NAME(ROWS_A_TASK) = 8 };

/* Double products of float are exact, so only the additions round. */
#define DEFINE_DOT(name, type)                                                            \
    static double NAME(name)(const type *a, const type *b, int64_t n)                     \
    {                                                                                     \
        double lane[NAME(LANES)] = {0}, sum = 0;                                          \
        int64_t i = 0;                                                                    \
        for (; i + NAME(LANES) <= n; i += NAME(LANES))                                    \
            for (int l = 0; l < NAME(LANES); l++) lane[l] += AT(a, i + l) * AT(b, i + l); \
        for (int l = 0; l < NAME(LANES); l++) sum += lane[l];                             \
        for (; i < n; i++) sum += AT(a, i) * AT(b, i);                                    \
        return sum;                                                                       \
    }
DEFINE_DOT(dot, STORED)
DEFINE_DOT(exact_dot, EXACT)
#undef DEFINE_DOT

/* One product y [M,N] of the layouts that a linear layer needs. */
typedef struct {
    xkd_backend *be;
    STORED *y;                  /* [M,N] =, or NULL */
    EXACT *dw;                  /* [M,N] +=, or NULL */
    const STORED *a, *b, *bias; /* operands; bias [N] or NULL */
    const EXACT *exact_bias;    /* beside dw, [N] or NULL */
    int64_t M, N, K;
    int64_t a_row, a_col; /* strides of a [m,k] */
} NAME(product);

/* One row of y = a b^T + bias: both operands are read along their rows. */
static void NAME(product_nt_row)(void *arg, int64_t m, int thread)
{
    const NAME(product) *p = arg;
    (void)thread;
    for (int64_t n = 0; n < p->N; n++)
        SET(p->y, m * p->N + n, NAME(dot)(p->a + m * p->K, p->b + n * p->K, p->K) + (p->bias ? AT(p->bias, n) : 0));
}

/* ROWS_A_TASK rows of y = op(a) b [K,N], b's rows read once for all of them. */
static void NAME(product_n_rows)(void *arg, int64_t task, int thread)
{
    const NAME(product) *p = arg;
    int64_t first = task * NAME(ROWS_A_TASK), rows = p->M - first;
    if (rows > NAME(ROWS_A_TASK)) rows = NAME(ROWS_A_TASK);
    double *sum = xkd_backend_scratch(p->be, thread, NAME(ROWS_A_TASK) * p->N * (int64_t)sizeof(double));
    if (!sum) return;
    for (int64_t i = 0; i < rows * p->N; i++) sum[i] = 0;
    for (int64_t k = 0; k < p->K; k++) {
        const STORED *b = p->b + k * p->N;
        for (int64_t r = 0; r < rows; r++) {
            double a = AT(p->a, (first + r) * p->a_row + k * p->a_col), *s = sum + r * p->N;
            for (int64_t n = 0; n < p->N; n++) s[n] += a * AT(b, n);
        }
    }
    for (int64_t i = 0, at = first * p->N; i < rows * p->N; i++, at++)
        if (p->dw)
            SET(p->dw, at, AT(p->dw, at) + sum[i]);
        else
            SET(p->y, at, sum[i]);
}

/* Loops below this many multiply-adds are not worth waking a thread for. */
enum { NAME(SERIAL_WORK) = 1 << 16 };

/* The threshold depends on the size alone, and both ways do the same work in the same order. */
static void NAME(run)(xkd_backend *be, int64_t work, int64_t n, xkd_pool_fn fn, void *arg)
{
    if (work >= NAME(SERIAL_WORK)) {
        xkd_parallel_for(be->pool, n, fn, arg);
        return;
    }
    for (int64_t i = 0; i < n; i++) fn(arg, i, 0);
}

static void NAME(linear_forward)(xkd_backend *be, void *y, const void *x, const void *w, const void *b, int64_t M,
                                 int64_t N, int64_t K)
{
    NAME(product) p = {.be = be, .y = y, .a = x, .b = w, .bias = b, .M = M, .N = N, .K = K};
    be->products += M * N * K;
    NAME(run)(be, M * N * K, M, NAME(product_nt_row), &p);
}

/* In two steps, as the definition reads: the fused form is the cpu backend's business. */
static void NAME(linear_gelu_forward)(xkd_backend *be, void *y, void *h, const void *x, const void *w, const void *b,
                                      int64_t M, int64_t N, int64_t K)
{
    NAME(linear_forward)(be, h, x, w, b, M, N, K);
    NAME(gelu_forward)(be, y, h, M * N);
}

/* The sum and the bias are added to the residual in double, with one rounding at the end. */
static void NAME(residual_row)(void *arg, int64_t m, int thread)
{
    const NAME(product) *p = arg; /* a: x, b: w; added to what dw holds */
    (void)thread;
    for (int64_t n = 0; n < p->N; n++) {
        double sum = NAME(dot)(p->a + m * p->K, p->b + n * p->K, p->K) + (p->exact_bias ? AT(p->exact_bias, n) : 0);
        SET(p->dw, m * p->N + n, AT(p->dw, m * p->N + n) + sum);
    }
}

static void NAME(linear_residual_forward)(xkd_backend *be, void *y, const void *residual, const void *x, const void *w,
                                          const void *b, int64_t M, int64_t N, int64_t K)
{
    NAME(product) p = {.be = be, .dw = y, .a = x, .b = w, .exact_bias = b, .M = M, .N = N, .K = K};
    if (y != residual) memcpy(y, residual, (size_t)(M * N) * sizeof(EXACT));
    be->products += M * N * K;
    NAME(run)(be, M * N * K, M, NAME(residual_row), &p);
}

/* a's strides (N, 1): dy as it is stored. */
static void NAME(linear_backward_data)(xkd_backend *be, void *dx, const void *dy, const void *w, int64_t M, int64_t N,
                                       int64_t K)
{
    NAME(product) p = {.be = be, .y = dx, .a = dy, .b = w, .M = M, .N = K, .K = N, .a_row = N, .a_col = 1};
    be->products += M * N * K;
    NAME(run)(be, M * N * K, (M + NAME(ROWS_A_TASK) - 1) / NAME(ROWS_A_TASK), NAME(product_n_rows), &p);
}

/* dh is made in place of dy w. `a` is written last because it may be h, which gelu' needs. */
static void NAME(linear_gelu_backward_data)(xkd_backend *be, void *dh, void *a, const void *dy, const void *w,
                                            const void *h, int64_t M, int64_t N, int64_t K)
{
    NAME(linear_backward_data)(be, dh, dy, w, M, N, K);
    NAME(gelu_backward)(be, dh, dh, h, M * K);
    NAME(gelu_forward)(be, a, h, M * K);
}

/* Adds in row order within each column; single-threaded. */
#define DEFINE_COLUMN_SUM(name, type)                                                        \
    static void NAME(name)(xkd_backend * be, void *sum, const void *x, int64_t R, int64_t K) \
    {                                                                                        \
        (void)be;                                                                            \
        for (int64_t k = 0; k < K; k++) {                                                    \
            double total = 0;                                                                \
            for (int64_t r = 0; r < R; r++) total += AT((const type *)x, r * K + k);         \
            SET((EXACT *)sum, k, AT((EXACT *)sum, k) + total);                               \
        }                                                                                    \
    }
DEFINE_COLUMN_SUM(column_sum, EXACT)
DEFINE_COLUMN_SUM(bias_sum, STORED)
#undef DEFINE_COLUMN_SUM

/* a's strides (1, N): dy transposed without a copy. Gradients of several passes add up. */
static void NAME(linear_backward_weight)(xkd_backend *be, void *dw, void *db, const void *dy, const void *x, int64_t M,
                                         int64_t N, int64_t K)
{
    NAME(product)
    p = {.be = be, .dw = dw, .a = dy, .b = x, .M = N, .N = K, .K = M, .a_row = 1, .a_col = N};
    be->products += M * N * K;
    NAME(run)(be, M * N * K, (N + NAME(ROWS_A_TASK) - 1) / NAME(ROWS_A_TASK), NAME(product_n_rows), &p);
    if (db) NAME(bias_sum)(be, db, dy, M, N);
}
