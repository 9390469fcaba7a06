/* Template: every operation through the guard. Addresses are exchanged for those that can be read, and the operation runs on
 * the backend behind, in its table OPS: `ops` or `exact`. TABLE is the name of the function that gives the guard's table. */
#ifndef TABLE
#error "included by stored.c and exact.c"
#endif

#include "backend/guard/guard.h"

/* The readable address of a tensor; see xkd_guard_open. */
#define HERE(pointer) (pointer) = xkd_guard_open(be, (pointer))

/* Runs the operation unless an earlier one has failed, an address was wrong, or it is the one that is to fail. */
#define RUN(operation, ...)                                      \
    do {                                                         \
        xkd_backend *behind = xkd_guard_enter(be, #operation);   \
        if (behind) behind->OPS->operation(behind, __VA_ARGS__); \
        xkd_guard_leave(be);                                     \
    } while (0)

/* Copies of arguments that come in a struct, with readable addresses. */
static xkd_unmask_args unmask_here(xkd_backend *be, const xkd_unmask_args *args)
{
    xkd_unmask_args own = *args;
    HERE(own.rank);
    return own;
}

static xkd_align_sides sides_here(xkd_backend *be, const xkd_align_sides *args)
{
    xkd_align_sides own = *args;
    HERE(own.x);
    HERE(own.y);
    return own;
}

static xkd_kd_args kd_here(xkd_backend *be, const xkd_kd_args *args)
{
    xkd_kd_args own = *args;
    HERE(own.s);
    HERE(own.t);
    HERE(own.centre);
    HERE(own.student_temp);
    HERE(own.teacher_temp);
    return own;
}

static xkd_batchnorm_args batchnorm_here(xkd_backend *be, const xkd_batchnorm_args *args)
{
    xkd_batchnorm_args own = *args;
    HERE(own.x);
    HERE(own.w);
    HERE(own.b);
    HERE(own.mean);
    HERE(own.inv);
    HERE(own.running[0]);
    HERE(own.running[1]);
    return own;
}

static void video_view(xkd_backend *be, float *clip, const xkd_video_view_args *args)
{
    xkd_video_view_args own_args = *args;
    HERE(clip);
    HERE(own_args.from);
    HERE(own_args.change);
    RUN(video_view, clip, &own_args);
}

static void audio_view(xkd_backend *be, float *spec, const xkd_audio_view_args *args)
{
    xkd_audio_view_args own_args = *args;
    HERE(spec);
    HERE(own_args.from);
    HERE(own_args.change);
    RUN(audio_view, spec, &own_args);
}

static void linear_forward(xkd_backend *be, void *y, const void *x, const void *w, const void *b, int64_t M, int64_t N,
                           int64_t K)
{
    HERE(y);
    HERE(x);
    HERE(w);
    HERE(b);
    RUN(linear_forward, y, x, w, b, M, N, K);
}

static void linear_gelu_forward(xkd_backend *be, void *y, void *h, const void *x, const void *w, const void *b,
                                int64_t M, int64_t N, int64_t K)
{
    HERE(y);
    HERE(h);
    HERE(x);
    HERE(w);
    HERE(b);
    RUN(linear_gelu_forward, y, h, x, w, b, M, N, K);
}

static void linear_residual_forward(xkd_backend *be, void *y, const void *residual, const void *x, const void *w,
                                    const void *b, int64_t M, int64_t N, int64_t K)
{
    HERE(y);
    HERE(residual);
    HERE(x);
    HERE(w);
    HERE(b);
    RUN(linear_residual_forward, y, residual, x, w, b, M, N, K);
}

static void linear_backward_data(xkd_backend *be, void *dx, const void *dy, const void *w, int64_t M, int64_t N,
                                 int64_t K)
{
    HERE(dx);
    HERE(dy);
    HERE(w);
    RUN(linear_backward_data, dx, dy, w, M, N, K);
}

static void linear_gelu_backward_data(xkd_backend *be, void *dh, void *a, const void *dy, const void *w, const void *h,
                                      int64_t M, int64_t N, int64_t K)
{
    HERE(dh);
    HERE(a);
    HERE(dy);
    HERE(w);
    HERE(h);
    RUN(linear_gelu_backward_data, dh, a, dy, w, h, M, N, K);
}

static void linear_backward_weight(xkd_backend *be, void *dw, void *db, const void *dy, const void *x, int64_t M,
                                   int64_t N, int64_t K)
{
    HERE(dw);
    HERE(db);
    HERE(dy);
    HERE(x);
    RUN(linear_backward_weight, dw, db, dy, x, M, N, K);
}

static void layernorm_forward(xkd_backend *be, void *y, void *mean, void *rstd, const void *x, const void *w,
                              const void *b, int64_t R, int64_t D)
{
    HERE(y);
    HERE(mean);
    HERE(rstd);
    HERE(x);
    HERE(w);
    HERE(b);
    RUN(layernorm_forward, y, mean, rstd, x, w, b, R, D);
}

static void residual_layernorm_forward(xkd_backend *be, void *y, void *kept, void *mean, void *rstd, const void *x,
                                       const void *w, const void *b, int64_t R, int64_t D)
{
    HERE(y);
    HERE(kept);
    HERE(mean);
    HERE(rstd);
    HERE(x);
    HERE(w);
    HERE(b);
    RUN(residual_layernorm_forward, y, kept, mean, rstd, x, w, b, R, D);
}

static void layernorm_backward(xkd_backend *be, const xkd_layernorm_grad *args)
{
    xkd_layernorm_grad own_args = *args;
    HERE(own_args.dx);
    HERE(own_args.dw);
    HERE(own_args.db);
    HERE(own_args.residual);
    HERE(own_args.dy);
    HERE(own_args.x);
    HERE(own_args.mean);
    HERE(own_args.rstd);
    HERE(own_args.w);
    RUN(layernorm_backward, &own_args);
}

static void gelu_forward(xkd_backend *be, void *y, const void *x, int64_t n)
{
    HERE(y);
    HERE(x);
    RUN(gelu_forward, y, x, n);
}

static void gelu_backward(xkd_backend *be, void *dx, const void *dy, const void *x, int64_t n)
{
    HERE(dx);
    HERE(dy);
    HERE(x);
    RUN(gelu_backward, dx, dy, x, n);
}

static void l2norm_forward(xkd_backend *be, void *y, void *inv, const void *x, int64_t R, int64_t D)
{
    HERE(y);
    HERE(inv);
    HERE(x);
    RUN(l2norm_forward, y, inv, x, R, D);
}

static void l2norm_backward(xkd_backend *be, void *dx, const void *dy, const void *y, const void *inv, int64_t R,
                            int64_t D)
{
    HERE(dx);
    HERE(dy);
    HERE(y);
    HERE(inv);
    RUN(l2norm_backward, dx, dy, y, inv, R, D);
}

static void weightnorm_forward(xkd_backend *be, void *w, void *inv, const void *v, const void *g, int64_t K, int64_t D)
{
    HERE(w);
    HERE(inv);
    HERE(v);
    HERE(g);
    RUN(weightnorm_forward, w, inv, v, g, K, D);
}

static void weightnorm_backward(xkd_backend *be, void *dv, const void *dw, const void *v, const void *g,
                                const void *inv, int64_t K, int64_t D)
{
    HERE(dv);
    HERE(dw);
    HERE(v);
    HERE(g);
    HERE(inv);
    RUN(weightnorm_backward, dv, dw, v, g, inv, K, D);
}

static void attention_forward(xkd_backend *be, void *o, void *lse, const void *qkv, const xkd_segments *segs, int64_t H,
                              int64_t D)
{
    HERE(o);
    HERE(lse);
    HERE(qkv);
    RUN(attention_forward, o, lse, qkv, segs, H, D);
}

static void attention_backward(xkd_backend *be, void *dqkv, const void *d_o, const void *qkv, const void *o,
                               const void *lse, const xkd_segments *segs, int64_t H, int64_t D)
{
    HERE(dqkv);
    HERE(d_o);
    HERE(qkv);
    HERE(o);
    HERE(lse);
    RUN(attention_backward, dqkv, d_o, qkv, o, lse, segs, H, D);
}

static void attention_probe(xkd_backend *be, void *w, const void *qkv, const void *lse, int64_t B, int64_t tokens,
                            int64_t H, int64_t D, bool cls)
{
    HERE(w);
    HERE(qkv);
    HERE(lse);
    RUN(attention_probe, w, qkv, lse, B, tokens, H, D, cls);
}

static void patchify(xkd_backend *be, void *out, const float *clip, const int32_t *keep, int64_t M,
                     const xkd_patch_geometry *g)
{
    HERE(out);
    HERE(clip);
    HERE(keep);
    RUN(patchify, out, clip, keep, M, g);
}

static void add_positions(xkd_backend *be, void *x, const void *e, const void *cls, const void *pos,
                          const int32_t *keep, int64_t B, int64_t M, int64_t D)
{
    HERE(x);
    HERE(e);
    HERE(cls);
    HERE(pos);
    HERE(keep);
    RUN(add_positions, x, e, cls, pos, keep, B, M, D);
}

static void add_positions_backward(xkd_backend *be, void *de, void *dcls, void *dpos, const void *dx,
                                   const int32_t *keep, int64_t B, int64_t M, int64_t D)
{
    HERE(de);
    HERE(dcls);
    HERE(dpos);
    HERE(dx);
    HERE(keep);
    RUN(add_positions_backward, de, dcls, dpos, dx, keep, B, M, D);
}

static void unmask_forward(xkd_backend *be, void *x, const void *z, const void *mask_token, const void *pos,
                           const xkd_unmask_args *args)
{
    HERE(x);
    HERE(z);
    HERE(mask_token);
    HERE(pos);
    xkd_unmask_args own_args = unmask_here(be, args);
    RUN(unmask_forward, x, z, mask_token, pos, &own_args);
}

static void unmask_backward(xkd_backend *be, void *dz, void *dmask, void *dpos, const void *dx,
                            const xkd_unmask_args *args)
{
    HERE(dz);
    HERE(dmask);
    HERE(dpos);
    HERE(dx);
    xkd_unmask_args own_args = unmask_here(be, args);
    RUN(unmask_backward, dz, dmask, dpos, dx, &own_args);
}

static void gather_rows(xkd_backend *be, void *out, const void *in, const int32_t *index, int64_t n, int64_t D)
{
    HERE(out);
    HERE(in);
    HERE(index);
    RUN(gather_rows, out, in, index, n, D);
}

static void scatter_rows(xkd_backend *be, void *din, const void *dout, const int32_t *index, int64_t n, int64_t rows,
                         int64_t D)
{
    HERE(din);
    HERE(dout);
    HERE(index);
    RUN(scatter_rows, din, dout, index, n, rows, D);
}

static void sparse_rows(xkd_backend *be, void *out, const void *in, const xkd_sparse_rows *s, int64_t D,
                        bool accumulate)
{
    HERE(out);
    HERE(in);
    xkd_sparse_rows own_s = *s;
    HERE(own_s.start);
    HERE(own_s.index);
    HERE(own_s.weight);
    RUN(sparse_rows, out, in, &own_s, D, accumulate);
}

static void pool_forward(xkd_backend *be, void *y, const void *x, int64_t B, int64_t tokens, int64_t D, int64_t first,
                         int64_t last)
{
    HERE(y);
    HERE(x);
    RUN(pool_forward, y, x, B, tokens, D, first, last);
}

static void pool_backward(xkd_backend *be, void *dx, const void *dy, int64_t B, int64_t tokens, int64_t D,
                          int64_t first, int64_t last)
{
    HERE(dx);
    HERE(dy);
    RUN(pool_backward, dx, dy, B, tokens, D, first, last);
}

static void scale_sequences(xkd_backend *be, void *y, const void *x, const float *factor, const xkd_segments *segs,
                            int64_t D)
{
    HERE(y);
    HERE(x);
    HERE(factor);
    RUN(scale_sequences, y, x, factor, segs, D);
}

static void add_sequences(xkd_backend *be, void *y, const void *x, const void *b, const float *factor,
                          const xkd_segments *segs, int64_t D)
{
    HERE(y);
    HERE(x);
    HERE(b);
    HERE(factor);
    RUN(add_sequences, y, x, b, factor, segs, D);
}

static void refine_pool(xkd_backend *be, void *y, const xkd_refine_args *args)
{
    HERE(y);
    xkd_refine_args own_args = *args;
    HERE(own_args.features);
    HERE(own_args.self_attn);
    HERE(own_args.other_attn);
    RUN(refine_pool, y, &own_args);
}

static void patch_normalize(xkd_backend *be, void *x, int64_t R, int64_t P)
{
    HERE(x);
    RUN(patch_normalize, x, R, P);
}

static void mse_forward(xkd_backend *be, double *loss, const void *pred, const void *target, int64_t n)
{
    HERE(loss);
    HERE(pred);
    HERE(target);
    RUN(mse_forward, loss, pred, target, n);
}

static void mse_backward(xkd_backend *be, void *dpred, const void *pred, const void *target, double scale, int64_t n)
{
    HERE(dpred);
    HERE(pred);
    HERE(target);
    RUN(mse_backward, dpred, pred, target, scale, n);
}

static void kd_forward(xkd_backend *be, double *loss, double *entropy, void *s_lse, void *t_lse, const xkd_kd_args *a)
{
    HERE(loss);
    HERE(entropy);
    HERE(s_lse);
    HERE(t_lse);
    xkd_kd_args own_a = kd_here(be, a);
    RUN(kd_forward, loss, entropy, s_lse, t_lse, &own_a);
}

static void kd_backward(xkd_backend *be, void *ds, const xkd_kd_args *a, const void *s_lse, const void *t_lse,
                        double scale)
{
    HERE(ds);
    xkd_kd_args own_a = kd_here(be, a);
    HERE(s_lse);
    HERE(t_lse);
    RUN(kd_backward, ds, &own_a, s_lse, t_lse, scale);
}

static void mmd_forward(xkd_backend *be, double *loss, double *weights, const xkd_align_sides *a)
{
    HERE(loss);
    HERE(weights);
    xkd_align_sides own_a = sides_here(be, a);
    RUN(mmd_forward, loss, weights, &own_a);
}

static void mmd_backward(xkd_backend *be, void *dx, void *dy, const double *weights, const xkd_align_sides *a,
                         double scale)
{
    HERE(dx);
    HERE(dy);
    HERE(weights);
    xkd_align_sides own_a = sides_here(be, a);
    RUN(mmd_backward, dx, dy, weights, &own_a, scale);
}

static void coral_forward(xkd_backend *be, double *loss, double *gram, void *centred, const xkd_align_sides *a)
{
    HERE(loss);
    HERE(gram);
    HERE(centred);
    xkd_align_sides own_a = sides_here(be, a);
    RUN(coral_forward, loss, gram, centred, &own_a);
}

static void coral_backward(xkd_backend *be, void *dx, void *dy, const double *gram, const void *centred,
                           const xkd_align_sides *a, double scale)
{
    HERE(dx);
    HERE(dy);
    HERE(gram);
    HERE(centred);
    xkd_align_sides own_a = sides_here(be, a);
    RUN(coral_backward, dx, dy, gram, centred, &own_a, scale);
}

static void column_sum(xkd_backend *be, void *sum, const void *x, int64_t R, int64_t K)
{
    HERE(sum);
    HERE(x);
    RUN(column_sum, sum, x, R, K);
}

static void column_energy(xkd_backend *be, double *energy, const void *x, int64_t B, int64_t K)
{
    HERE(energy);
    HERE(x);
    RUN(column_energy, energy, x, B, K);
}

static void batchnorm_forward(xkd_backend *be, void *y, const xkd_batchnorm_args *args)
{
    HERE(y);
    xkd_batchnorm_args own_args = batchnorm_here(be, args);
    RUN(batchnorm_forward, y, &own_args);
}

static void batchnorm_backward(xkd_backend *be, void *dx, void *dw, void *db, const void *dy,
                               const xkd_batchnorm_args *args)
{
    HERE(dx);
    HERE(dw);
    HERE(db);
    HERE(dy);
    xkd_batchnorm_args own_args = batchnorm_here(be, args);
    RUN(batchnorm_backward, dx, dw, db, dy, &own_args);
}

static void batchnorm_apply(xkd_backend *be, void *y, const xkd_batchnorm_args *args)
{
    HERE(y);
    xkd_batchnorm_args own_args = batchnorm_here(be, args);
    RUN(batchnorm_apply, y, &own_args);
}

static void classify(xkd_backend *be, double *loss, void *dlogits, const void *logits, const float *targets,
                     xkd_classify_kind kind, int64_t B, int64_t K)
{
    HERE(loss);
    HERE(dlogits);
    HERE(logits);
    HERE(targets);
    RUN(classify, loss, dlogits, logits, targets, kind, B, K);
}

static void classify_scores(xkd_backend *be, float *scores, const void *logits, xkd_classify_kind kind, int64_t B,
                            int64_t K)
{
    HERE(scores);
    HERE(logits);
    RUN(classify_scores, scores, logits, kind, B, K);
}

static void centre(xkd_backend *be, void *centre, const void *sum, double m, int64_t rows, int64_t K,
                   const double *finite)
{
    HERE(centre);
    HERE(sum);
    HERE(finite);
    RUN(centre, centre, sum, m, rows, K, finite);
}

static void multiply(xkd_backend *be, void *y, const void *x, const float *factor, int64_t n)
{
    HERE(y);
    HERE(x);
    HERE(factor);
    RUN(multiply, y, x, factor, n);
}

static void to_double(xkd_backend *be, double *y, const void *x, int64_t n)
{
    HERE(y);
    HERE(x);
    RUN(to_double, y, x, n);
}

static void from_double(xkd_backend *be, void *y, const double *x, int64_t n)
{
    HERE(y);
    HERE(x);
    RUN(from_double, y, x, n);
}

static void axpby(xkd_backend *be, void *y, const void *x, double a, double b, int64_t n)
{
    HERE(y);
    HERE(x);
    RUN(axpby, y, x, a, b, n);
}

static void fill(xkd_backend *be, void *x, double value, int64_t n)
{
    HERE(x);
    RUN(fill, x, value, n);
}

/* A list of tensors is the host's: its copy gets the readable addresses. */
static void norms(xkd_backend *be, double *squares, double *finite, const xkd_vector *list, int64_t count,
                  const double *scalars, int64_t n)
{
    xkd_vector *own = xkd_guard_list(be, count * (int64_t)sizeof *own);
    if (!own) return;
    HERE(squares);
    HERE(finite);
    HERE(scalars);
    for (int64_t i = 0; i < count; i++) {
        own[i] = list[i];
        HERE(own[i].x);
    }
    RUN(norms, squares, finite, own, count, scalars, n);
}

static void adamw(xkd_backend *be, const xkd_adamw_args *list, int64_t count, const double *squares,
                  const double *finite)
{
    xkd_adamw_args *own = xkd_guard_list(be, count * (int64_t)sizeof *own);
    if (!own) return;
    HERE(squares);
    HERE(finite);
    for (int64_t i = 0; i < count; i++) {
        own[i] = list[i];
        HERE(own[i].p);
        HERE(own[i].m);
        HERE(own[i].v);
        HERE(own[i].g);
        HERE(own[i].stored);
        HERE(own[i].lr);
        HERE(own[i].weight_decay);
        HERE(own[i].steps);
        for (int k = 0; k < 2; k++) {
            HERE(own[i].ema[k]);
            HERE(own[i].ema_momentum[k]);
            HERE(own[i].ema_stored[k]);
        }
    }
    RUN(adamw, own, count, squares, finite);
}

static const xkd_ops table = {
    .name = "guard",
    .video_view = video_view,
    .audio_view = audio_view,
    .linear_forward = linear_forward,
    .linear_gelu_forward = linear_gelu_forward,
    .linear_residual_forward = linear_residual_forward,
    .linear_backward_data = linear_backward_data,
    .linear_gelu_backward_data = linear_gelu_backward_data,
    .linear_backward_weight = linear_backward_weight,
    .layernorm_forward = layernorm_forward,
    .residual_layernorm_forward = residual_layernorm_forward,
    .layernorm_backward = layernorm_backward,
    .gelu_forward = gelu_forward,
    .gelu_backward = gelu_backward,
    .l2norm_forward = l2norm_forward,
    .l2norm_backward = l2norm_backward,
    .weightnorm_forward = weightnorm_forward,
    .weightnorm_backward = weightnorm_backward,
    .attention_forward = attention_forward,
    .attention_backward = attention_backward,
    .attention_probe = attention_probe,
    .patchify = patchify,
    .add_positions = add_positions,
    .add_positions_backward = add_positions_backward,
    .unmask_forward = unmask_forward,
    .unmask_backward = unmask_backward,
    .gather_rows = gather_rows,
    .scatter_rows = scatter_rows,
    .sparse_rows = sparse_rows,
    .pool_forward = pool_forward,
    .pool_backward = pool_backward,
    .scale_sequences = scale_sequences,
    .add_sequences = add_sequences,
    .refine_pool = refine_pool,
    .patch_normalize = patch_normalize,
    .mse_forward = mse_forward,
    .mse_backward = mse_backward,
    .kd_forward = kd_forward,
    .kd_backward = kd_backward,
    .mmd_forward = mmd_forward,
    .mmd_backward = mmd_backward,
    .coral_forward = coral_forward,
    .coral_backward = coral_backward,
    .column_sum = column_sum,
    .column_energy = column_energy,
    .batchnorm_forward = batchnorm_forward,
    .batchnorm_backward = batchnorm_backward,
    .batchnorm_apply = batchnorm_apply,
    .classify = classify,
    .classify_scores = classify_scores,
    .norms = norms,
    .adamw = adamw,
    .centre = centre,
    .multiply = multiply,
    .to_double = to_double,
    .from_double = from_double,
    .axpby = axpby,
    .fill = fill,
};

const xkd_ops *TABLE(void)
{
    return &table;
}
