/* One modality's encoder: patch embedding, positions, class token, transformer, encoder_norm; method.md sections 3, 4.
 * All views of a modality go through it in one pass, packed one behind the other, so that each matrix product is as
 * tall as the views together. */
#ifndef XKD_MODEL_BACKBONE_H
#define XKD_MODEL_BACKBONE_H

#include "nn/block.h"
#include "nn/positions.h"

typedef struct {
    xkd_modality modality;
    int64_t C;            /* channels of the input */
    int64_t pt, ph, pw;   /* patch sides */
    xkd_grid grid;        /* tokens of the global view: N = t*h*w */
    xkd_param *cls, *pos; /* [1,1,D] or NULL; [1,N(+1),D] */
    xkd_linear embed;     /* P -> D */
    xkd_transformer blocks;
    xkd_norm norm;
} xkd_backbone;

/* A view as it comes: clips [B,C,T,H,W]; `kept` tokens survive masking, 0: no masking. */
typedef struct {
    int64_t B, T, H, W, kept;
} xkd_view_shape;

/* One view inside a pass. */
typedef struct {
    xkd_patch_geometry geometry;
    int64_t tokens;      /* M, embedded tokens without the class token */
    int64_t first;       /* first row of this view in [R,D] */
    int64_t first_patch; /* first row in [sum B*M, P] */
    bool resampled;
    xkd_resample resample;
    xkd_sparse_rows forward, backward; /* its matrices where operations can read them */
    xkd_memory *memory;                /* of `room` */
    void *room;                        /* their copy on a device; owned */
    void *pos, *dpos;                  /* [M+c,D] resampled positions and (exact) their gradient */
} xkd_view_run;

typedef struct {
    int64_t views;
    xkd_view_run *view; /* [views], owned */
    xkd_segment *items; /* [views], owned */
    xkd_segments segs;  /* R rows */
    int64_t patch_rows; /* sum of B*M */
    void *patches;      /* [patch_rows,P] */
    xkd_transformer_saved blocks;
    void *mean, *rstd; /* [R] exact, of encoder_norm */
    void *z;           /* [R,D] output */
} xkd_backbone_run;

static inline int64_t xkd_cls_rows(const xkd_backbone *b)
{
    return b->cls ? 1 : 0;
}

static inline int64_t xkd_grid_tokens(xkd_grid g)
{
    return g.t * g.h * g.w;
}

/* Declares the rows of prefix "<name>.backbone." With `shared` the transformer blocks are those of another backbone and
 * get a second name. Free with xkd_backbone_free. */
xkd_status xkd_backbone_declare(const xkd_declare *at, xkd_backbone *out, const xkd_model_config *config,
                                xkd_modality modality, xkd_vit_size size, const xkd_backbone *shared);
void xkd_backbone_free(xkd_backbone *b);

/* Checks the views' shapes and lays out the rows. Free with xkd_backbone_run_free. */
xkd_status xkd_backbone_run_new(xkd_context *cx, const xkd_backbone *b, const xkd_view_shape *shapes, int64_t views,
                                xkd_backbone_run *run);
void xkd_backbone_run_free(xkd_backbone_run *run);

/* Plans the activations; called once to measure and once to assign. keep = false: no backward. */
xkd_status xkd_backbone_plan(xkd_context *cx, xkd_arena *arena, const xkd_backbone *b, xkd_widths element, bool keep,
                             xkd_backbone_run *run);

/* In the backend's memory: clips[v] [B,C,T,H,W]; keep[v] [B,M] token numbers in order, NULL where the view is not masked. Output in run->z. */
void xkd_backbone_forward(xkd_backend *be, const xkd_backbone *b, xkd_backbone_run *run, const float *const *clips,
                          const int32_t *const *keep, const xkd_block_scratch *scratch);

/* dz [R,D]: gradient of run->z on entry, destroyed. Parameter gradients +=. */
void xkd_backbone_backward(xkd_backend *be, const xkd_backbone *b, xkd_backbone_run *run, void *dz,
                           const int32_t *const *keep, const xkd_block_scratch *scratch);

#endif
