/* Template: every operation of ops.h for one pair of element types, and the table of them. STORED and EXACT are the types
 * (bfloat16 is uint16_t), NAME(x) is the name with its suffix. Every result is computed in double and rounded once, where it
 * is stored. */
#ifndef STORED
#error "included by ref_f32.c, ref_f64.c and ref_bf16.c"
#endif

#include <math.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/constants.h"
#include "backend/ref/ref.h"

/* Element i of an array of either type as a double, and its assignment. */
#define AT(x, i) \
    _Generic((x), const uint16_t *: xkd_ref_get_bf16, uint16_t *: xkd_ref_get_bf16, const float *: xkd_ref_get_f32, \
             float *: xkd_ref_get_f32, const double *: xkd_ref_get_f64, double *: xkd_ref_get_f64)((x), (i))
#define SET(x, i, value) \
    _Generic((x), uint16_t *: xkd_ref_set_bf16, float *: xkd_ref_set_f32, double *: xkd_ref_set_f64)((x), (i), (value))

#include "backend/ref/element.h"
#include "backend/ref/gelu.h"
#include "backend/ref/matrix.h"
#include "backend/ref/norm.h"
#include "backend/ref/attention.h"
#include "backend/ref/tokens.h"
#include "backend/ref/loss.h"
#include "backend/ref/classify.h"
#include "backend/ref/flat.h"
#include "backend/ref/optim.h"

/* Every entry must be there: the cpu backend starts from a copy and overrides only part of it. */
static const xkd_ops NAME(table) = {
    .name = "ref",
    .video_view = xkd_ref_video_view,
    .audio_view = xkd_ref_audio_view,
    .linear_forward = NAME(linear_forward),
    .linear_gelu_forward = NAME(linear_gelu_forward),
    .linear_residual_forward = NAME(linear_residual_forward),
    .linear_backward_data = NAME(linear_backward_data),
    .linear_gelu_backward_data = NAME(linear_gelu_backward_data),
    .linear_backward_weight = NAME(linear_backward_weight),
    .layernorm_forward = NAME(layernorm_forward),
    .residual_layernorm_forward = NAME(residual_layernorm_forward),
    .layernorm_backward = NAME(layernorm_backward),
    .gelu_forward = NAME(gelu_forward),
    .gelu_backward = NAME(gelu_backward),
    .l2norm_forward = NAME(l2norm_forward),
    .l2norm_backward = NAME(l2norm_backward),
    .weightnorm_forward = NAME(weightnorm_forward),
    .weightnorm_backward = NAME(weightnorm_backward),
    .attention_forward = NAME(attention_forward),
    .attention_backward = NAME(attention_backward),
    .attention_probe = NAME(attention_probe),
    .patchify = NAME(patchify),
    .add_positions = NAME(add_positions),
    .add_positions_backward = NAME(add_positions_backward),
    .unmask_forward = NAME(unmask_forward),
    .unmask_backward = NAME(unmask_backward),
    .gather_rows = NAME(gather_rows),
    .scatter_rows = NAME(scatter_rows),
    .sparse_rows = NAME(sparse_rows),
    .pool_forward = NAME(pool_forward),
    .pool_backward = NAME(pool_backward),
    .scale_sequences = NAME(scale_sequences),
    .add_sequences = NAME(add_sequences),
    .refine_pool = NAME(refine_pool),
    .patch_normalize = NAME(patch_normalize),
    .mse_forward = NAME(mse_forward),
    .mse_backward = NAME(mse_backward),
    .kd_forward = NAME(kd_forward),
    .kd_backward = NAME(kd_backward),
    .mmd_forward = NAME(mmd_forward),
    .mmd_backward = NAME(mmd_backward),
    .coral_forward = NAME(coral_forward),
    .coral_backward = NAME(coral_backward),
    .column_sum = NAME(column_sum),
    .column_energy = NAME(column_energy),
    .batchnorm_forward = NAME(batchnorm_forward),
    .batchnorm_backward = NAME(batchnorm_backward),
    .batchnorm_apply = NAME(batchnorm_apply),
    .classify = NAME(classify),
    .classify_scores = NAME(classify_scores),
    .norms = NAME(norms),
    .adamw = NAME(adamw),
    .centre = NAME(centre),
    .multiply = NAME(multiply),
    .to_double = NAME(to_double),
    .from_double = NAME(from_double),
    .axpby = NAME(axpby),
    .fill = NAME(fill),
};
