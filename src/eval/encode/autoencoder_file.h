/* The autoencoders of a whole model, read from any file that holds one: what they make up of a masked clip; method.md section 4. */
#ifndef XKD_EVAL_ENCODE_AUTOENCODER_FILE_H
#define XKD_EVAL_ENCODE_AUTOENCODER_FILE_H

#include "checkpoint/content.h"
#include "eval/encode/reconstruction.h"

typedef struct {
    xkd_config config; /* of the model's training, or the released one's */
    bool has[XKD_MODALITIES];
    xkd_networks networks; /* of those the students' backbones and decoders alone */
    xkd_backend *be;
} xkd_autoencoders;

/* path: a run folder, of which the newest checkpoint is taken, or a file of a whole model. overrides [count]: KEY=VALUE.
 * XKD_ERR_CHECKPOINT: a file of an encoder alone, or of something else. Free with xkd_autoencoders_free in any case. */
xkd_status xkd_autoencoders_load(xkd_context *cx, const char *path, char *const *overrides, int64_t count,
                                 xkd_autoencoders *out);
void xkd_autoencoders_free(xkd_autoencoders *a);

/* Masks clips[m] [C,T,H,W], fills *out[m] and *error[m], the mean squared error over masked patches, for each modality that the
 * model has and whose clip is not NULL. noise[m] [N] chooses the mask: the smallest are kept. Free each out[m] in any case. */
xkd_status xkd_autoencoders_run(xkd_context *cx, const xkd_autoencoders *a, const float *const clips[XKD_MODALITIES],
                                const float *const noise[XKD_MODALITIES], xkd_reconstruction out[XKD_MODALITIES],
                                double error[XKD_MODALITIES]);

/* The noise [N] that training draws in epoch 0 for sample 0 with this seed. The caller frees *out. */
xkd_status xkd_autoencoders_noise(xkd_context *cx, const xkd_autoencoders *a, xkd_modality modality, uint64_t seed,
                                  float **out);

#endif
