/* Micro-batches as they go to a device that makes the views itself (run.augment): frames of 8 bits, cut to what the views read,
 * sound of 16 bits, and what is to be made of them (media/augment.h). A micro-batch is one block: the changes of each view, the
 * sound of each clip, and then the boxes of frames, one behind the other in the order in which threads come to them. */
#ifndef XKD_DATA_RAW_H
#define XKD_DATA_RAW_H

#include "backend/backend.h"
#include "data/views.h"

/* What all micro-batches of a run have in common. */
typedef struct xkd_raw_plan {
    const xkd_data_config *data; /* the caller's */
    xkd_view_shapes shapes;
    xkd_mel *mel;                                   /* owned */
    int64_t places;                                 /* samples that a block has room for */
    int64_t changes[XKD_MODALITIES][XKD_MAX_VIEWS]; /* where those of a view begin, bytes; [places] */
    int64_t sound, samples;                         /* where it begins; [places,samples] */
    int64_t boxes;                                  /* where they begin */
    int64_t box_side;                               /* no box is longer, and its other side is at most crop_size */
    int64_t canvas_height[XKD_MAX_VIEWS], canvas_width[XKD_MAX_VIEWS]; /* of the audio views */
    int64_t bytes;                                                     /* of a block, at most */
} xkd_raw_plan;

/* One micro-batch. */
typedef struct xkd_raw_batch {
    const xkd_raw_plan *plan;
    xkd_memory *memory;  /* where it goes to */
    xkd_departure block; /* owned */
    int64_t used;        /* bytes of it */
} xkd_raw_batch;

/* For micro-batches of `places` samples. `data` must outlive it. Free with xkd_raw_plan_free, which takes {0}. */
xkd_status xkd_raw_plan_new(xkd_context *cx, const xkd_data_config *data, int64_t places, xkd_raw_plan *out);
void xkd_raw_plan_free(xkd_raw_plan *plan);

/* An empty one; `plan` and `memory` must outlive it. Free with xkd_raw_batch_free, which waits, and takes {0}. */
xkd_status xkd_raw_batch_new(xkd_context *cx, const xkd_raw_plan *plan, xkd_memory *memory, xkd_raw_batch *out);
void xkd_raw_batch_free(xkd_raw_batch *batch);

/* Waits until what was sent has gone. Then, or at first, it may be emptied and filled again. */
void xkd_raw_batch_wait(xkd_raw_batch *batch);
void xkd_raw_batch_empty(xkd_raw_batch *batch);

/* Draws all views of a clip and puts it at `place`. Threads may do so at once, for places of their own. */
xkd_status xkd_raw_put(xkd_context *cx, xkd_raw_batch *batch, const xkd_clip *clip, xkd_view_key key, int64_t place);

/* A batch of clips that mean nothing, drawn as others are: for measuring. */
xkd_status xkd_raw_fill(xkd_context *cx, xkd_raw_batch *batch, int64_t count);

/* A copy in memory of its own. */
xkd_status xkd_raw_copy(xkd_context *cx, const xkd_raw_batch *batch, xkd_raw_batch *out);

/* out [B,C,T,H,W] of view v, in the backend's memory, from a block that is there: its first B samples. */
void xkd_raw_view(xkd_backend *be, const xkd_raw_plan *plan, const void *block, xkd_modality m, int64_t v, int64_t B,
                  float *out);

#endif
