/* Declaring parameters under their public names, and the two backward steps that all layers share. A
 * declaration only adds a row to the table; memory and initial values come later, for all rows at once. */
#include "nn/layers.h"

#include <stdio.h>

/* A name that does not fit is a fault of the program, not of the user: no setting makes names longer. */
xkd_status xkd_declare_param(const xkd_declare *at, xkd_param **out, const char *name, xkd_shape shape, xkd_init init,
                             double scale)
{
    xkd_param row = {
        .shape = shape, .init = init, .scale = scale, .role = at->role, .clipped = at->clipped, .exact = at->exact};
    int length = snprintf(row.name, sizeof row.name, "%s%s", at->prefix, name);
    if (length < 0 || (size_t)length >= sizeof row.name)
        return xkd_fail(at->cx, XKD_ERR_INTERNAL, "parameter name %s%s is too long", at->prefix, name);
    return xkd_params_add(at->cx, at->params, &row, out);
}

/* w is [out,in], as PyTorch stores it. */
xkd_status xkd_declare_linear(const xkd_declare *at, xkd_linear *out, const char *name, int64_t in, int64_t outputs,
                              bool bias, xkd_init init, double scale)
{
    xkd_status status = XKD_OK;
    char full[XKD_PARAM_NAME];
    *out = (xkd_linear){.in = in, .out = outputs};
    snprintf(full, sizeof full, "%s.weight", name);
    XKD_TRY(xkd_declare_param(at, &out->w, full, (xkd_shape){2, {outputs, in}}, init, scale));
    snprintf(full, sizeof full, "%s.bias", name);
    xkd_declare of_bias = *at;
    of_bias.exact = at->exact || at->exact_bias;
    if (bias) XKD_TRY(xkd_declare_param(&of_bias, &out->b, full, (xkd_shape){1, {outputs}}, XKD_INIT_ZERO, 0));
fail:
    return status;
}

/* Weight 1 and bias 0, both one-dimensional and so never decayed. */
xkd_status xkd_declare_norm(const xkd_declare *at, xkd_norm *out, const char *name, int64_t width)
{
    xkd_status status = XKD_OK;
    char full[XKD_PARAM_NAME];
    xkd_declare exact = *at;
    exact.exact = true;
    out->width = width;
    snprintf(full, sizeof full, "%s.weight", name);
    XKD_TRY(xkd_declare_param(&exact, &out->w, full, (xkd_shape){1, {width}}, XKD_INIT_ONE, 0));
    snprintf(full, sizeof full, "%s.bias", name);
    XKD_TRY(xkd_declare_param(&exact, &out->b, full, (xkd_shape){1, {width}}, XKD_INIT_ZERO, 0));
fail:
    return status;
}

/* xkd_grad gives NULL for a layer without bias. */
void xkd_linear_weights(xkd_backend *be, const xkd_linear *l, const void *dy, const void *x, int64_t M)
{
    be->ops->linear_backward_weight(be, l->w->grad, xkd_grad(l->b), dy, x, M, l->out, l->in);
}

/* The caller fills in rows and data, this fills in the parameters; the gradients accumulate. */
void xkd_norm_backward(xkd_backend *be, const xkd_norm *norm, xkd_layernorm_grad *args)
{
    args->dw = norm->w->grad;
    args->db = norm->b->grad;
    args->w = norm->w->value;
    args->D = norm->width;
    be->ops->layernorm_backward(be, args);
}
