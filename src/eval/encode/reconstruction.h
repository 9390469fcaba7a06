/* What an autoencoder made of one masked clip, as clips that can be drawn; method.md section 4. */
#ifndef XKD_EVAL_ENCODE_RECONSTRUCTION_H
#define XKD_EVAL_ENCODE_RECONSTRUCTION_H

#include "model/pass.h"
#include "report/canvas.h"

/* All clips are [C,T,H,W] of the grid; hidden patches are NaN in `masked`, the others in `predicted`. */
typedef struct {
    xkd_patch_grid grid;
    int64_t patches, hidden_count;
    uint8_t *hidden;                    /* [patches] 1: masked */
    float *masked, *predicted, *filled; /* one block of memory, that of `masked` */
} xkd_reconstruction;

/* How the global view of a modality is cut into patches. */
xkd_patch_grid xkd_reconstruction_grid(const xkd_model_config *config, xkd_modality modality);

/* After xkd_pass_students: of sample 0 of the first global view, whose clip [C,T,H,W] lies with the host. Free with
 * xkd_reconstruction_free in any case. */
xkd_status xkd_reconstruction_of(xkd_context *cx, const xkd_backend *be, const xkd_pass *pass, xkd_modality modality,
                                 const float *clip, xkd_reconstruction *out);
void xkd_reconstruction_free(xkd_reconstruction *r);

#endif
