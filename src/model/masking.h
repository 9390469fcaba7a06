/* Random masking by noise; method.md section 4. */
#ifndef XKD_MODEL_MASKING_H
#define XKD_MODEL_MASKING_H

#include "base/status.h"

/* Which tokens of each of B clips are kept. All arrays are owned. */
typedef struct {
    int64_t B, N, kept;
    int32_t *keep;   /* [B,kept] token numbers in ascending order of noise */
    int32_t *rank;   /* [B,N] position within keep, -1: masked */
    int32_t *masked; /* [B,N-kept] the other tokens, ascending */
    int32_t *rows;   /* [B*(N-kept)] their rows in [B,N+c,D] */
    int32_t *order;  /* [N] working memory of the sort */
} xkd_masking;

/* Tokens kept: N * (1 - ratio) rounded, halves to even, in IEEE double as the release computes it. */
int64_t xkd_masking_kept(int64_t N, double ratio);

xkd_status xkd_masking_new(xkd_context *cx, xkd_masking *out, int64_t B, int64_t N, int64_t kept);
void xkd_masking_free(xkd_masking *m);

/* noise [B,N]: the smallest are kept, ties by lower index. cls_rows: 1 with a class token. */
void xkd_masking_draw(xkd_masking *m, const float *noise, int64_t cls_rows);

#endif
