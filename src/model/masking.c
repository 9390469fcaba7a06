/* Which tokens survive (method.md section 4): the kept ones with the smallest noise, in ascending order of
 * noise. */
#include "model/masking.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

/* nearbyint rounds halves to even in the default rounding mode, as the release's round() does; 392 * 0.15 =
 * 58.8 gives 59. */
int64_t xkd_masking_kept(int64_t N, double ratio)
{
    return (int64_t)nearbyint((double)N * (1 - ratio));
}

/* Sizes are fixed for the pass; drawing allocates nothing. order is [2,N], the second half for merging. */
xkd_status xkd_masking_new(xkd_context *cx, xkd_masking *out, int64_t B, int64_t N, int64_t kept)
{
    xkd_status status = XKD_OK;
    *out = (xkd_masking){.B = B, .N = N, .kept = kept};
    XKD_TRY(xkd_alloc(cx, &out->keep, B * kept, sizeof(int32_t)));
    XKD_TRY(xkd_alloc(cx, &out->rank, B * N, sizeof(int32_t)));
    XKD_TRY(xkd_alloc(cx, &out->masked, B * (N - kept), sizeof(int32_t)));
    XKD_TRY(xkd_alloc(cx, &out->rows, B * (N - kept), sizeof(int32_t)));
    XKD_TRY(xkd_alloc(cx, &out->order, 2 * N, sizeof(int32_t)));
fail:
    return status;
}

void xkd_masking_free(xkd_masking *m)
{
    xkd_free(m->keep);
    xkd_free(m->rank);
    xkd_free(m->masked);
    xkd_free(m->rows);
    xkd_free(m->order);
    *m = (xkd_masking){0};
}

/* Stable merge sort of token numbers by noise; stability makes ties go to the lower index.
 * A merge sort because qsort is not stable; N is a few hundred, so the time does not matter. */
static void sort_tokens(int32_t *order, int32_t *other, const float *noise, int64_t n)
{
    for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t low = 0; low < n; low += 2 * width) {
            int64_t mid = low + width < n ? low + width : n, high = mid + width < n ? mid + width : n;
            for (int64_t i = low, j = mid, k = low; k < high; k++) {
                int left = i < mid && (j >= high || noise[order[i]] <= noise[order[j]]);
                other[k] = left ? order[i++] : order[j++];
            }
        }
        memcpy(order, other, (size_t)n * sizeof *order);
    }
}

/* Fills for each clip b: keep [M] tokens by noise, rank [N] the inverse, masked [N-M] in grid order, and
 * rows, the same as row numbers of the decoder's [B*(N+c)] output. */
void xkd_masking_draw(xkd_masking *m, const float *noise, int64_t cls_rows)
{
    int64_t masked = m->N - m->kept;
    for (int64_t b = 0; b < m->B; b++) {
        int32_t *rank = m->rank + b * m->N;
        sort_tokens(m->order, m->order + m->N, noise + b * m->N, m->N);
        for (int64_t i = 0; i < m->N; i++) {
            rank[m->order[i]] = i < m->kept ? (int32_t)i : -1;
            if (i < m->kept) m->keep[b * m->kept + i] = m->order[i];
        }
        int64_t k = b * masked;
        for (int64_t n = 0; n < m->N; n++)
            if (rank[n] < 0) {
                m->masked[k] = (int32_t)n;
                m->rows[k++] = (int32_t)(b * (m->N + cls_rows) + cls_rows + n);
            }
    }
}
