/* The data of one modality's views where operations can read them: clips, and the tables of the masked views. On the host's
 * own memory these are the arrays that came in; on a device they are copies. Where batches are raw (data/raw.h), clips are made
 * there instead. */
#ifndef XKD_MODEL_INPUTS_H
#define XKD_MODEL_INPUTS_H

#include "data/raw.h"
#include "model/backbone.h"
#include "model/masking.h"

typedef struct {
    const xkd_raw_plan *raw; /* NULL: clips come as they are */
    xkd_modality modality;
    int64_t views, masked; /* the first `masked` views are */
    const float **clip;    /* [views] of [B,C,T,H,W] */
    const int32_t **keep;  /* [views] of [B,kept], NULL: all tokens */
    void **room;           /* [views] for clips, in the memory of operations */
    int64_t *bytes;        /* [views] of clips */
    xkd_masking mask;      /* as drawn, with the host */
    xkd_masking tables;    /* the same for operations; owns nothing */
    void *table_room[4];
} xkd_inputs;

/* For the views of `run`, of which the first `masked` have N tokens and keep `kept`. Free with xkd_inputs_free. */
xkd_status xkd_inputs_new(xkd_context *cx, xkd_inputs *out, const xkd_backbone_run *run, int64_t masked, int64_t N,
                          int64_t kept);
/* From now on, and before it is planned, its clips are made of raw batches of `plan`, which must outlive it. */
void xkd_inputs_are_raw(xkd_inputs *in, const xkd_raw_plan *plan, xkd_modality modality);
void xkd_inputs_free(xkd_inputs *in);

/* Room on the device; called once to measure and once to assign. */
void xkd_inputs_plan(xkd_arena *arena, xkd_inputs *in);

/* Draws the masks from noise [masked*B,N] and brings everything to `memory`. clips[v] [B,C,T,H,W] must stay as they are
 * until the pass is over; raw ones are left to xkd_inputs_make. */
void xkd_inputs_load(xkd_memory *memory, xkd_inputs *in, const float *const *clips, const float *noise,
                     int64_t cls_rows);

/* Makes raw clips of B samples from a block that operations can read. */
void xkd_inputs_make(xkd_backend *be, xkd_inputs *in, const void *block, int64_t B);

#endif
