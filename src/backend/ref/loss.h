/* Template: losses of pre-training in plain C. Sums run in double. */
#ifndef STORED
#error "included by ref_f32.c, ref_f64.c and ref_bf16.c"
#endif

/* Per patch over its P values, with the unbiased variance (P - 1). The variance is taken about the mean in a
 * second pass; a patch of one colour is saved from division by 0 by the epsilon. */
static void NAME(patch_normalize)(xkd_backend *be, void *x, int64_t R, int64_t P)
{
    (void)be;
    for (int64_t r = 0; r < R; r++) {
        EXACT *row = (EXACT *)x + r * P;
        double sum = 0, squares = 0;
        for (int64_t p = 0; p < P; p++) sum += (double)row[p];
        double mean = sum / (double)P;
        for (int64_t p = 0; p < P; p++) squares += ((double)row[p] - mean) * ((double)row[p] - mean);
        double scale = 1 / sqrt(squares / (double)(P - 1) + XKD_PATCH_EPS);
        for (int64_t p = 0; p < P; p++) row[p] = (EXACT)(((double)row[p] - mean) * scale);
    }
}

/* log sum_k exp((x_k - centre_k) / temp); centre NULL: 0. */
static double NAME(log_sum_exp)(const EXACT *x, const EXACT *centre, double temp, int64_t K)
{
    double largest = -INFINITY, sum = 0;
    for (int64_t k = 0; k < K; k++) largest = fmax(largest, ((double)x[k] - (centre ? (double)centre[k] : 0)) / temp);
    for (int64_t k = 0; k < K; k++) sum += exp(((double)x[k] - (centre ? (double)centre[k] : 0)) / temp - largest);
    return largest + log(sum);
}

/* The teacher's distribution does not depend on the student's row, so its log-sum-exp is taken once per
 * sample and used by all g + n blocks. Rows of the student cycle through samples: r % B. */
static void NAME(kd_forward)(xkd_backend *be, double *loss, double *entropy, void *s_lse, void *t_lse,
                             const xkd_kd_args *a)
{
    const EXACT *centre = a->centre;
    double student_temp = *a->student_temp, teacher_temp = *a->teacher_temp;
    (void)be;
    *loss = *entropy = 0;
    for (int64_t b = 0; b < a->B; b++) {
        const EXACT *t = (const EXACT *)a->t + b * a->K;
        double lse = NAME(log_sum_exp)(t, centre, teacher_temp, a->K);
        ((EXACT *)t_lse)[b] = (EXACT)lse;
        for (int64_t k = 0; k < a->K; k++) {
            double log_q = ((double)t[k] - (double)centre[k]) / teacher_temp - lse;
            /* q log q tends to 0 where q underflows: exp gives 0 and log_q stays finite. */
            *entropy -= exp(log_q) * log_q / (double)a->B;
        }
    }
    for (int64_t r = 0; r < a->R; r++) {
        const EXACT *s = (const EXACT *)a->s + r * a->K, *t = (const EXACT *)a->t + r % a->B * a->K;
        double s_log = NAME(log_sum_exp)(s, NULL, student_temp, a->K);
        double t_log = (double)((const EXACT *)t_lse)[r % a->B], sum = 0;
        ((EXACT *)s_lse)[r] = (EXACT)s_log;
        for (int64_t k = 0; k < a->K; k++) {
            double q = exp(((double)t[k] - (double)centre[k]) / teacher_temp - t_log);
            sum -= q * ((double)s[k] / student_temp - s_log);
        }
        *loss += sum / (double)a->R;
    }
}

/* d/ds of the loss is (softmax(s / ts) - q) / (R ts): the teacher gets no gradient. */
static void NAME(kd_backward)(xkd_backend *be, void *ds, const xkd_kd_args *a, const void *s_lse, const void *t_lse,
                              double scale)
{
    const EXACT *centre = a->centre;
    double student_temp = *a->student_temp, teacher_temp = *a->teacher_temp;
    double factor = scale / ((double)a->R * student_temp);
    (void)be;
    for (int64_t r = 0; r < a->R; r++) {
        const EXACT *s = (const EXACT *)a->s + r * a->K, *t = (const EXACT *)a->t + r % a->B * a->K;
        EXACT *grad = (EXACT *)ds + r * a->K;
        double s_log = (double)((const EXACT *)s_lse)[r], t_log = (double)((const EXACT *)t_lse)[r % a->B];
        for (int64_t k = 0; k < a->K; k++) {
            double q = exp(((double)t[k] - (double)centre[k]) / teacher_temp - t_log);
            double p = exp((double)s[k] / student_temp - s_log);
            grad[k] = (EXACT)((double)grad[k] + factor * (p - q));
        }
    }
}

/* Row i of the union of both sides, as a pointer into `x` and `y` (values or gradients).
 * Samples [first, first + samples) of each view, view by view. Casting away const is for gradients, which
 * share the layout of the values. */
static EXACT *NAME(align_row)(const xkd_align_sides *a, const void *x, const void *y, int64_t i)
{
    int64_t of_x = a->views_x * a->samples, in_y = i >= of_x;
    if (in_y) i -= of_x;
    int64_t row = i / a->samples * a->B + a->first + i % a->samples;
    return (EXACT *)(uintptr_t)(in_y ? y : x) + row * a->K;
}

/* Coefficient of pair (i, j): 1/m^2, 1/n^2 or -1/(mn). */
static double NAME(align_coefficient)(const xkd_align_sides *a, int64_t i, int64_t j)
{
    int64_t m = a->views_x * a->samples, n = a->views_y * a->samples;
    if (i < m && j < m) return 1 / ((double)m * (double)m);
    if (i >= m && j >= m) return 1 / ((double)n * (double)n);
    return -1 / ((double)m * (double)n);
}

/* Differences are squared directly, so a self distance is exactly 0; method.md section 6. weights[i][j] holds
 * 4 c_ij k'(d_ij), because z_i meets z_j in two terms of the sum and d(d_ij)/dz_i = 2 (z_i - z_j). */
static void NAME(mmd_forward)(xkd_backend *be, double *loss, double *weights, const xkd_align_sides *a)
{
    int64_t n = (a->views_x + a->views_y) * a->samples;
    double total = 0;
    (void)be;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++) {
            const EXACT *p = NAME(align_row)(a, a->x, a->y, i), *q = NAME(align_row)(a, a->x, a->y, j);
            double distance = 0, kernel = 0, slope = 0, c = NAME(align_coefficient)(a, i, j);
            for (int64_t k = 0; k < a->K; k++)
                distance += ((double)p[k] - (double)q[k]) * ((double)p[k] - (double)q[k]);
            xkd_mmd_kernel(distance, &kernel, &slope);
            total += (i == j ? 1 : 2) * c * kernel;
            weights[i * n + j] = weights[j * n + i] = 4 * c * slope;
        }
    *loss += total / a->divisor;
}

/* dz_i = sum_j w_ij (z_i - z_j), on both sides alike, since `weights` has the signs. Pairs with weight 0 (the
 * diagonal, and far apart pairs whose kernel has vanished) are skipped. */
static void NAME(mmd_backward)(xkd_backend *be, void *dx, void *dy, const double *weights, const xkd_align_sides *a,
                               double scale)
{
    int64_t n = (a->views_x + a->views_y) * a->samples;
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        EXACT *grad = NAME(align_row)(a, dx, dy, i);
        const EXACT *p = NAME(align_row)(a, a->x, a->y, i);
        for (int64_t j = 0; j < n; j++) {
            const EXACT *q = NAME(align_row)(a, a->x, a->y, j);
            double w = scale * weights[i * n + j];
            if (w == 0) continue;
            for (int64_t k = 0; k < a->K; k++) grad[k] = (EXACT)((double)grad[k] + w * ((double)p[k] - (double)q[k]));
        }
    }
}

/* centred = rows [first, first+count) of the union less their column means, which stay in mean [K]. */
static void NAME(centre_side)(EXACT *centred, double *mean, const xkd_align_sides *a, int64_t first, int64_t count)
{
    for (int64_t k = 0; k < a->K; k++) mean[k] = 0;
    for (int64_t i = first; i < first + count; i++) {
        const EXACT *row = NAME(align_row)(a, a->x, a->y, i);
        for (int64_t k = 0; k < a->K; k++) mean[k] += (double)row[k] / (double)count;
    }
    for (int64_t i = first; i < first + count; i++) {
        const EXACT *row = NAME(align_row)(a, a->x, a->y, i);
        for (int64_t k = 0; k < a->K; k++) centred[i * a->K + k] = (EXACT)((double)row[k] - mean[k]);
    }
}

/* |Cx - Cy|_F^2 over K x K covariances equals a sum over the Gram matrix of the centred rows:
 * |Xc Xc'|^2 / (m-1)^2 + |Yc Yc'|^2 / (n-1)^2 - 2 |Xc Yc'|^2 / ((m-1)(n-1)); the K x K matrices never exist. */
static void NAME(coral_forward)(xkd_backend *be, double *loss, double *gram, void *centred, const xkd_align_sides *a)
{
    int64_t m = a->views_x * a->samples, n = m + a->views_y * a->samples;
    double *mean = xkd_backend_scratch(be, 0, 2 * a->K * (int64_t)sizeof(double));
    if (!mean) return;
    NAME(centre_side)(centred, mean, a, 0, m);
    NAME(centre_side)(centred, mean + a->K, a, m, n - m);
    double means = 0, covariances = 0;
    for (int64_t k = 0; k < a->K; k++) means += (mean[k] - mean[a->K + k]) * (mean[k] - mean[a->K + k]);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            const EXACT *rows = centred;
            /* The sign carries the minus of the mixed terms, so one double sum covers all three parts. */
            double side_i = i < m ? (double)(m - 1) : -(double)(n - m - 1);
            double side_j = j < m ? (double)(m - 1) : -(double)(n - m - 1);
            gram[i * n + j] = NAME(exact_dot)(rows + i * a->K, rows + j * a->K, a->K);
            covariances += gram[i * n + j] * gram[i * n + j] / (side_i * side_j);
        }
    *loss += (means / (double)a->K + covariances / ((double)a->K * (double)a->K)) / a->divisor;
}

/* d/dXc = 4 / (K^2 (m-1)) [ (Xc Xc') Xc / (m-1) - (Xc Yc') Yc / (n-1) ]; its columns sum to 0, so centring adds
 * nothing. The means give 2 (mean x - mean y) / (K m). */
static void NAME(coral_backward)(xkd_backend *be, void *dx, void *dy, const double *gram, const void *centred,
                                 const xkd_align_sides *a, double scale)
{
    int64_t m = a->views_x * a->samples, n = m + a->views_y * a->samples, K = a->K;
    /* The means are taken again from the rows: simpler than a further saved tensor, and little beside the
     * Gram matrix. */
    double *difference = xkd_backend_scratch(be, 0, K * (int64_t)sizeof(double));
    if (!difference) return;
    for (int64_t k = 0; k < K; k++) {
        difference[k] = 0;
        for (int64_t i = 0; i < n; i++)
            difference[k] += (double)NAME(align_row)(a, a->x, a->y, i)[k] / (i < m ? (double)m : -(double)(n - m));
    }
    for (int64_t i = 0; i < n; i++) {
        EXACT *grad = NAME(align_row)(a, dx, dy, i);
        double side_i = i < m ? (double)(m - 1) : -(double)(n - m - 1);
        double of_mean = scale * 2 / ((double)K * (i < m ? (double)m : -(double)(n - m)));
        for (int64_t k = 0; k < K; k++) grad[k] = (EXACT)((double)grad[k] + of_mean * difference[k]);
        for (int64_t j = 0; j < n; j++) {
            double side_j = j < m ? (double)(m - 1) : -(double)(n - m - 1);
            double w = scale * 4 * gram[i * n + j] / ((double)K * (double)K * side_i * side_j);
            const EXACT *row = (const EXACT *)centred + j * K;
            for (int64_t k = 0; k < K; k++) grad[k] = (EXACT)((double)grad[k] + w * (double)row[k]);
        }
    }
}

/* One pass without the means: logits leave a LayerNorm, so their sums are small and lose nothing in double. */
static void NAME(column_energy)(xkd_backend *be, double *energy, const void *x, int64_t B, int64_t K)
{
    double within = 0, total = 0;
    (void)be;
    for (int64_t k = 0; k < K; k++) {
        double sum = 0, squares = 0;
        for (int64_t b = 0; b < B; b++) {
            double value = (double)((const EXACT *)x)[b * K + k];
            sum += value;
            squares += value * value;
        }
        within += squares - sum * sum / (double)B;
        total += squares;
    }
    energy[0] = within;
    energy[1] = total;
}
