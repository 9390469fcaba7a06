/* What an encoder looks at: the attention of its class token, and by what each modality's attention weighs the other's patches;
 * method.md section 5. For people, in double precision; training's own way is refine_pool of backend/ops.h. */
#ifndef XKD_EVAL_ENCODE_ATTENTION_H
#define XKD_EVAL_ENCODE_ATTENTION_H

#include "eval/encode/encoder.h"

/* Heads and patches of the run's last block. */
int64_t xkd_attention_heads(const xkd_encoder_run *run);
int64_t xkd_attention_patches(const xkd_encoder_run *run);

/* After xkd_encoder_features: w [B,H,N], the softmaxed attention of the class token to the patches in the run's last block.
 * The class token's own share is left out, so a row adds up to less than 1; without class token w is the mean over all
 * queries and adds up to 1. XKD_ERR_CONFIG for a run of no blocks. */
xkd_status xkd_encoder_attention(xkd_context *cx, xkd_backend *be, const xkd_encoder_run *run, float *w);

/* The weights by which a teacher's patch features are multiplied: w [N] from its own attention [H,N] and the other modality's
 * [H,M] of the same clip, averaged over heads. softmax: attn_mode. */
void xkd_refine_weights(const float *own, int64_t N, const float *other, int64_t M, int64_t H, bool softmax, double *w);

#endif
