/* Class-token attention and refinement weights for pictures. */
#include "eval/encode/attention.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

int64_t xkd_attention_heads(const xkd_encoder_run *r)
{
    return r->backbone.blocks.heads;
}

int64_t xkd_attention_patches(const xkd_encoder_run *r)
{
    return r->run.view[0].tokens;
}

/* Without backward all blocks work in one set of buffers, so after the forward they hold the last block's qkv. */
xkd_status xkd_encoder_attention(xkd_context *cx, xkd_backend *be, const xkd_encoder_run *r, float *w)
{
    xkd_status status = XKD_OK;
    const xkd_transformer *t = &r->backbone.blocks;
    int64_t count = r->B * t->heads * xkd_attention_patches(r);
    void *probe = NULL;
    if (t->depth < 1) XKD_FAIL(XKD_ERR_CONFIG, "attention: layer 0 is before the first block and attends to nothing");
    const xkd_block_saved *last = &r->run.blocks.blocks[t->depth - 1];
    XKD_TRY(xkd_memory_take(cx, be->memory, &probe, count * be->element.exact));
    be->ops->attention_probe(be, probe, last->qkv, last->lse, r->B, r->run.items[0].tokens, t->heads, t->width,
                             r->backbone.cls != NULL);
    xkd_tensor_read_floats(be->memory, be->exact_dtype, w, probe, count);
    XKD_TRY(xkd_backend_status(be));
fail:
    xkd_memory_give(be->memory, probe);
    return status;
}

static double mean_of(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    return sum / (double)n;
}

/* The product of the two attentions is an outer one, so its mean over the other's patches is this side's attention times the
 * mean of the other's. */
void xkd_refine_weights(const float *own, int64_t N, const float *other, int64_t M, int64_t H, bool softmax, double *w)
{
    memset(w, 0, (size_t)N * sizeof *w);
    for (int64_t h = 0; h < H; h++) {
        const float *a = own + h * N;
        double theirs = mean_of(other + h * M, M), ours = mean_of(a, N), sum = 0, largest = -INFINITY;
        for (int64_t i = 0; softmax && i < N; i++) largest = fmax(largest, theirs * a[i]);
        for (int64_t i = 0; softmax && i < N; i++) sum += exp(theirs * a[i] - largest);
        for (int64_t i = 0; i < N; i++)
            w[i] += (softmax ? exp(theirs * a[i] - largest) / sum : theirs * a[i] / ours) / (double)H;
    }
}
