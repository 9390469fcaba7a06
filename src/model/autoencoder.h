/* The decoder behind a student's encoder, and its reconstruction loss; method.md section 4, "Autoencoder". Only masked
 * tokens are projected to pixels: the loss reads no others. */
#ifndef XKD_MODEL_AUTOENCODER_H
#define XKD_MODEL_AUTOENCODER_H

#include "model/backbone.h"
#include "model/masking.h"

typedef struct {
    xkd_linear mid, out;   /* w NULL where the widths are equal */
    xkd_param *mask_token; /* [1,1,Dd] */
    xkd_param *pos;        /* [1,N(+1),Dd] */
    xkd_transformer blocks;
    int64_t N, P;
    bool cls, norm_pix;
} xkd_decoder;

/* Activations for B masked clips (g*B of the batch); Rm = B * masked tokens. */
typedef struct {
    int64_t B, kept, masked; /* kept + masked = N */
    xkd_segment *item;       /* owned: a run may be moved */
    void *z;                 /* [B,kept+c,Dd] after mid_proj */
    xkd_transformer_saved blocks;
    void *gathered; /* [Rm,Dd] decoder outputs of masked tokens */
    void *pred;     /* [Rm,P]; becomes its gradient in the backward */
    void *target;   /* [Rm,P] exact */
    void *dx;       /* [B,N+c,Dd] */
} xkd_decoder_run;

xkd_status xkd_decoder_declare(const xkd_declare *at, xkd_decoder *out, const xkd_model_config *config,
                               const xkd_backbone *encoder);
void xkd_decoder_free(xkd_decoder *d);

xkd_status xkd_decoder_plan(xkd_context *cx, xkd_arena *arena, const xkd_decoder *d, int64_t B, int64_t kept,
                            xkd_widths element, xkd_decoder_run *run);
void xkd_decoder_run_free(xkd_decoder_run *run);

/* Clips and the arrays of `mask` lie in the backend's memory. latent [B,kept+c,D]: encoder output of the masked views.
 * clip [B,C,T,H,W] gives the targets (one clip array per view, `views` of them, each of geometry->B clips). *loss = mean
 * over masked patches. */
void xkd_decoder_forward(xkd_backend *be, const xkd_decoder *d, xkd_decoder_run *run, const void *latent,
                         const float *const *clips, const xkd_patch_geometry *geometry, const xkd_masking *mask,
                         const xkd_block_scratch *scratch, double *loss);

/* dlatent [B,kept+c,D] = scale * gradient; parameter gradients +=. */
void xkd_decoder_backward(xkd_backend *be, const xkd_decoder *d, xkd_decoder_run *run, void *dlatent,
                          const void *latent, const xkd_masking *mask, const xkd_block_scratch *scratch, double scale);

#endif
