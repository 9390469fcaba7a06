/* Parameters of the two smallest layers, and how modules declare their rows in the parameter table. The computation
 * itself is a slot of the backend (ops.h), called directly where it is used. */
#ifndef XKD_NN_LAYERS_H
#define XKD_NN_LAYERS_H

#include "backend/backend.h"
#include "tensor/params.h"

/* y [.., out] = x [.., in] w^T + b; w [out,in], b [out] or NULL */
typedef struct {
    xkd_param *w, *b;
    int64_t in, out;
} xkd_linear;

/* LayerNorm over D with weight and bias [D], eps 1e-5 */
typedef struct {
    xkd_param *w, *b;
    int64_t width;
} xkd_norm;

/* Where and as what rows are declared. */
typedef struct {
    xkd_context *cx;
    xkd_params *params;
    const char *prefix; /* public name up to the module, e.g. "vid_student.backbone." */
    xkd_param_role role;
    bool clipped;
    bool exact;      /* operations read the master itself */
    bool exact_bias; /* and that of a linear layer's bias, whose sum with the product is exact */
} xkd_declare;

/* Adds the row prefix + name. `shape` by value; `scale` as in xkd_param. */
xkd_status xkd_declare_param(const xkd_declare *at, xkd_param **out, const char *name, xkd_shape shape, xkd_init init,
                             double scale);

/* Rows name.weight and, with `bias`, name.bias (0). */
xkd_status xkd_declare_linear(const xkd_declare *at, xkd_linear *out, const char *name, int64_t in, int64_t outputs,
                              bool bias, xkd_init init, double scale);

/* Rows name.weight (1) and name.bias (0), both exact: near 1 a bfloat16 has steps of 1/128. */
xkd_status xkd_declare_norm(const xkd_declare *at, xkd_norm *out, const char *name, int64_t width);

/* Value of a row, NULL for a NULL row. */
static inline void *xkd_value(const xkd_param *row)
{
    return row ? row->value : NULL;
}

static inline void *xkd_grad(const xkd_param *row)
{
    return row ? row->grad : NULL;
}

/* Gradients of a linear layer: dw, db += from dy [M,out] and x [M,in]. */
void xkd_linear_weights(xkd_backend *be, const xkd_linear *l, const void *dy, const void *x, int64_t M);

/* Backward of a LayerNorm: fills in the norm's own part of the arguments (dw, db, w, D). */
void xkd_norm_backward(xkd_backend *be, const xkd_norm *norm, xkd_layernorm_grad *args);

#endif
