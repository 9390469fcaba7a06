/* Forward and backward of all networks over one micro-batch, and the memory for it; method.md sections 1, 2, 5, 6.
 * train/step.c calls the functions in this order: load, views, teachers, students, losses, backward. */
#ifndef XKD_MODEL_PASS_H
#define XKD_MODEL_PASS_H

#include "loss/align.h"
#include "loss/objective.h"
#include "model/inputs.h"
#include "model/networks.h"

/* The numbers that a pass leaves for the host: the terms of the loss, and behind them the mean entropies of the teachers'
 * distributions in nats. */
enum { XKD_PASS_SCALARS = XKD_LOSS_TERMS + XKD_MODALITIES };

/* Shapes of the views of a micro-batch of B samples: per modality g global views, then the local ones. */
typedef struct {
    int64_t B;
    int64_t views[XKD_MODALITIES];
    const xkd_view_shape *shape[XKD_MODALITIES]; /* [views]; B and kept are filled in by xkd_pass_new */
    const xkd_raw_plan *raw; /* of micro-batches of which the backend makes the views; NULL: they come made */
} xkd_batch_shape;

/* The data of a micro-batch. */
typedef struct {
    const float *const *clips[XKD_MODALITIES]; /* [views] of [B,C,T,H,W] */
    const float *noise[XKD_MODALITIES];        /* [g*B,N] masking noise */
    xkd_raw_batch *raw; /* of a pass whose batches are raw: what clips are made of, instead of them */
} xkd_pass_input;

typedef struct {
    double teacher_temp[XKD_MODALITIES], student_temp[XKD_MODALITIES];
} xkd_temperatures;

typedef struct {
    xkd_backbone_run run;
    xkd_inputs in;
    xkd_decoder_run decoder;
    xkd_head_saved head; /* (g+n)*B rows */
    void *dz;            /* [R,D] */
    void *dlogits;       /* [rows,K] exact */
    void *dpooled;       /* [rows,D] exact */
    void *lse;           /* [rows] exact, of the distillation loss */
} xkd_student_run;

typedef struct {
    xkd_backbone_run run;
    xkd_head_saved head; /* B rows */
    void *attn;          /* [B,H,N] exact: class-token attention of the last block */
    void *lse;           /* [B] exact */
} xkd_teacher_run;

/* What the coefficients ask for. */
typedef struct {
    bool modality[XKD_MODALITIES], recon, heads, teachers, kd, align;
    bool all; /* report_all: also the gradient of a last layer that is frozen */
} xkd_pass_wants;

typedef struct {
    const xkd_networks *networks;
    xkd_step_config config;
    int64_t B;
    int64_t views[XKD_MODALITIES]; /* views the students see */
    xkd_pass_wants wants;
    const xkd_raw_plan *raw; /* as in the shape */
    void *raw_room;          /* for a raw batch on a device */
    const void *block;       /* of the batch that was loaded, where operations can read it */
    xkd_student_run student[XKD_MODALITIES];
    xkd_teacher_run teacher[XKD_MODALITIES];
    xkd_align align_students, align_teachers;
    xkd_block_scratch scratch;
    xkd_head_scratch head_scratch;
    xkd_arena arena;
    double *scalars; /* [XKD_PASS_SCALARS] in the backend's memory */
} xkd_pass;

/* Plans and allocates all activations in `memory`, or in `room` (NULL: memory of its own), the arena of a larger pass that must
 * outlive this one and whose activations it overwrites. With `report_all` terms of coefficient 0 are computed too. `networks` must
 * outlive the pass. Free with xkd_pass_free. */
xkd_status xkd_pass_new(xkd_context *cx, xkd_pass *out, const xkd_networks *networks, const xkd_step_config *config,
                        const xkd_batch_shape *shape, xkd_memory *memory, const xkd_arena *room, xkd_widths element,
                        bool report_all);
void xkd_pass_free(xkd_pass *p);

/* Chooses the tokens each student keeps, brings the views to the device and sets the scalars to 0. The arrays of `in` must
 * stay as they are until the pass is over. */
void xkd_pass_load(xkd_pass *p, const xkd_pass_input *in);

/* Makes the views of a raw batch; those of another are there. */
void xkd_pass_views(xkd_backend *be, xkd_pass *p);

/* Teachers' refined logits [B,K] in teacher[m].head.logits. */
void xkd_pass_teachers(xkd_backend *be, xkd_pass *p);

/* Students' logits [(g+n)*B,K] and reconstructions, and the terms of reconstruction. */
void xkd_pass_students(xkd_backend *be, xkd_pass *p);

/* The other terms, and the entropies. The temperatures are in the backend's memory. */
void xkd_pass_losses(xkd_backend *be, xkd_pass *p, const xkd_temperatures *t);

/* All losses from what scalars [XKD_PASS_SCALARS] were when they were read. */
void xkd_pass_report(const xkd_pass *p, const double *scalars, double loss[XKD_LOSS_COUNT]);

/* Parameter gradients += scale * d loss. `train_last`: see xkd_head_backward. */
void xkd_pass_backward(xkd_backend *be, xkd_pass *p, const xkd_temperatures *t, double scale, bool train_last);

#endif
