/* One pass over a micro-batch. First what is wanted and the layout of memory (planned twice by the same code:
 * once to measure, once to assign), then the five stages in the order of the header. A stage does nothing for
 * networks that the coefficients leave out. */
#include "model/pass.h"

#include "base/alloc.h"
#include "loss/distill.h"

/* Students and teachers agree on the class token: it is one setting of the model. */
static int64_t cls_rows(const xkd_pass *p, xkd_modality m)
{
    return xkd_cls_rows(&p->networks->student[m]);
}

/* Rows that the head sees: one per view and sample. */
static int64_t student_rows(const xkd_pass *p, xkd_modality m)
{
    return p->views[m] * p->B;
}

/* A term whose coefficient is 0 is not computed, which for a reconstruction-only run saves teachers and heads
 * altogether. One modality alone is always reconstruction. */
static xkd_pass_wants what_is_wanted(const xkd_step_config *c, bool report_all)
{
    bool both = c->modality == XKD_TRAIN_BOTH;
    xkd_pass_wants w = {.modality = {c->modality != XKD_TRAIN_AUDIO, c->modality != XKD_TRAIN_VIDEO}};
    w.all = report_all;
    w.recon = !both || report_all || c->recon_coeff != 0;
    w.kd = both && (report_all || c->cmkd_coeff != 0);
    w.align = both && (report_all || c->align_coeff != 0);
    w.heads = w.teachers = w.kd || w.align;
    return w;
}

/* Index of the view that the teachers see; method.md section 2.
 * Global views come first in the list, so view g is the first local one. */
static int64_t teacher_view(const xkd_pass *p)
{
    return p->config.teacher_view == XKD_TEACHER_GLOBAL ? 0 : p->config.global_views;
}

/* Views that the backend makes have the sizes that the data's settings say. */
static bool raw_agrees(const xkd_batch_shape *s, xkd_modality m)
{
    const xkd_view_shapes *raw = &s->raw->shapes;
    if (s->views[m] > (m == XKD_VIDEO ? raw->video_views : raw->audio_views) || s->B > s->raw->places) return false;
    for (int64_t v = 0; v < s->views[m]; v++) {
        const xkd_view_shape *want = &s->shape[m][v];
        bool same = m == XKD_VIDEO ? want->T == raw->video[v].frames && want->H == raw->video[v].height &&
                                         want->W == raw->video[v].width
                                   : want->H == raw->audio[v].bands && want->W == raw->audio[v].columns;
        if (!same) return false;
    }
    return true;
}

/* What only the batch and the configuration together can show. Messages name the key to change. */
static xkd_status check_shape(xkd_context *cx, const xkd_pass *p, const xkd_batch_shape *s)
{
    int64_t g = p->config.global_views, group = p->config.mmd_group;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        if (!p->wants.modality[m]) continue;
        if (g < 1 || s->views[m] < g)
            return xkd_fail(cx, XKD_ERR_CONFIG, "global_views_number=%lld, but the batch has %lld %s views",
                            (long long)g, (long long)s->views[m], xkd_modality_prefix(m));
        if (s->raw && !raw_agrees(s, m))
            return xkd_fail(cx, XKD_ERR_CONFIG,
                            "dataset.*: %s views have other sizes than model.kwargs says (frame_size, num_frames, "
                            "spec_size)",
                            xkd_modality_prefix(m));
        if (p->wants.teachers && teacher_view(p) >= s->views[m])
            return xkd_fail(cx, XKD_ERR_CONFIG,
                            "teacher_view=local, but there is no local %s view: set "
                            "num_local_views to 1 or more, or teacher_view=global",
                            xkd_modality_prefix(m));
    }
    if (group < 0 || (group > 0 && s->B % group))
        /* Groups must be whole: MMD over a smaller last group would weigh its samples differently. */
        return xkd_fail(cx, XKD_ERR_CONFIG, "mmd_group=%lld does not divide the (micro-)batch of %lld samples",
                        (long long)group, (long long)s->B);
    if (p->networks->config.align_loss == XKD_ALIGN_CORAL && p->wants.align && (group ? group : s->B) < 2)
        return xkd_fail(cx, XKD_ERR_CONFIG, "align_loss=coral needs at least 2 samples a group for a covariance");
    return XKD_OK;
}

/* Lays out the students' views; the global ones are masked. */
static xkd_status student_new(xkd_context *cx, xkd_pass *p, xkd_modality m, const xkd_batch_shape *s)
{
    xkd_status status = XKD_OK;
    xkd_student_run *run = &p->student[m];
    const xkd_backbone *b = &p->networks->student[m];
    int64_t g = p->config.global_views, N = xkd_grid_tokens(b->grid);
    int64_t kept = xkd_masking_kept(N, p->config.mask_ratio[m]);
    xkd_view_shape *shapes = NULL;
    /* A ratio near 1 or 0 may round to nothing kept or nothing masked; both make the loss meaningless. */
    if (kept < 1 || (kept >= N && p->wants.recon))
        XKD_FAIL(XKD_ERR_CONFIG, "%s_mask_ratio=%g keeps %lld of %lld tokens: at least one must be kept and one masked",
                 xkd_modality_prefix(m), p->config.mask_ratio[m], (long long)kept, (long long)N);
    /* Without heads the local views have no effect, so they are not computed. */
    p->views[m] = p->wants.heads ? s->views[m] : g;
    XKD_TRY(xkd_alloc(cx, &shapes, p->views[m], sizeof *shapes));
    for (int64_t v = 0; v < p->views[m]; v++) {
        shapes[v] = s->shape[m][v];
        shapes[v].B = s->B;
        /* The caller's shapes say how large views are; batch and masking are known here. */
        shapes[v].kept = v < g ? kept : 0;
    }
    XKD_TRY(xkd_backbone_run_new(cx, b, shapes, p->views[m], &run->run));
    XKD_TRY(xkd_inputs_new(cx, &run->in, &run->run, g, N, kept));
    xkd_inputs_are_raw(&run->in, s->raw, m);
fail:
    xkd_free(shapes);
    return status;
}

/* One unmasked view. */
static xkd_status teacher_new(xkd_context *cx, xkd_pass *p, xkd_modality m, const xkd_batch_shape *s)
{
    xkd_view_shape shape = s->shape[m][teacher_view(p)];
    shape.B = s->B;
    shape.kept = 0;
    return xkd_backbone_run_new(cx, &p->networks->teacher[m], &shape, 1, &p->teacher[m].run);
}

/* Teachers' activations are needed only until their logits exist; students' are laid over them. */
static xkd_status plan_teachers(xkd_context *cx, xkd_pass *p, xkd_widths element)
{
    xkd_status status = XKD_OK;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        const xkd_backbone *b = &p->networks->teacher[m];
        xkd_teacher_run *t = &p->teacher[m];
        XKD_TRY(xkd_backbone_plan(cx, &p->arena, b, element, false, &t->run));
        t->attn = xkd_arena_take(&p->arena, p->B * b->blocks.heads * t->run.view[0].tokens * element.exact);
    }
fail:
    return status;
}

/* dz is as large as the output, since the gradient enters at every row: from the decoder, and from the pooled
 * heads. */
static xkd_status plan_student(xkd_context *cx, xkd_pass *p, xkd_modality m, xkd_widths element)
{
    xkd_status status = XKD_OK;
    xkd_student_run *s = &p->student[m];
    const xkd_backbone *b = &p->networks->student[m];
    XKD_TRY(xkd_backbone_plan(cx, &p->arena, b, element, true, &s->run));
    s->dz = xkd_arena_take(&p->arena, s->run.segs.rows * b->blocks.width * element.stored);
    if (p->wants.recon)
        XKD_TRY(xkd_decoder_plan(cx, &p->arena, &p->networks->decoder[m], s->in.mask.B, s->in.mask.kept, element,
                                 &s->decoder));
fail:
    return status;
}

/* What heads and losses keep across the whole pass.
 * K-wide tensors of all rows: with K = 8192 the larger part of the heads' memory. */
static void plan_heads(xkd_pass *p, xkd_widths element)
{
    int64_t K = p->networks->config.head.outputs;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        int64_t rows = student_rows(p, m), D = p->networks->student[m].blocks.width;
        xkd_head_plan(&p->arena, &p->networks->teacher_head[m], p->B, element.exact, &p->teacher[m].head);
        xkd_head_plan(&p->arena, &p->networks->student_head[m], rows, element.exact, &p->student[m].head);
        p->teacher[m].lse = xkd_arena_take(&p->arena, p->B * element.exact);
        p->student[m].lse = xkd_arena_take(&p->arena, rows * element.exact);
        p->student[m].dlogits = xkd_arena_take(&p->arena, rows * K * element.exact);
        p->student[m].dpooled = xkd_arena_take(&p->arena, rows * D * element.exact);
    }
    int64_t vid = student_rows(p, XKD_VIDEO), aud = student_rows(p, XKD_AUDIO);
    xkd_head_scratch_plan(&p->arena, &p->networks->student_head[0], vid > aud ? vid : aud, element.exact,
                          &p->head_scratch);
    /* mmd_group 0 means one group of all samples. */
    int64_t group = p->config.mmd_group ? p->config.mmd_group : p->B;
    p->align_students = (xkd_align){.kind = p->networks->config.align_loss,
                                    .group = group,
                                    .sides = {.views_x = p->views[0], .views_y = p->views[1], .B = p->B, .K = K}};
    p->align_teachers = p->align_students;
    p->align_teachers.sides.views_x = p->align_teachers.sides.views_y = 1;
    xkd_align_plan(&p->arena, &p->align_students, element);
    xkd_align_plan(&p->arena, &p->align_teachers, element);
}

/* Largest rows x width of any transformer in the pass.
 * As a product of rows and width, because the scratch is used by networks of different widths. */
static void plan_scratch(xkd_pass *p, xkd_widths element)
{
    int64_t most = 0;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        const xkd_networks *n = p->networks;
        int64_t decoder = p->student[m].in.mask.B * (n->decoder[m].N + cls_rows(p, m)) * n->decoder[m].blocks.width;
        int64_t student = p->student[m].run.segs.rows * n->student[m].blocks.width;
        int64_t teacher = p->wants.teachers ? p->teacher[m].run.segs.rows * n->teacher[m].blocks.width : 0;
        if (p->wants.recon && decoder > most) most = decoder;
        if (student > most) most = student;
        if (teacher > most) most = teacher;
    }
    xkd_block_scratch_plan(&p->arena, most, 1, element, &p->scratch);
}

/* Order matters: what lives through the pass first, then the mark, behind which teachers and students
 * overlap. Both runs must take the same amounts, which xkd_arena_check confirms. */
static xkd_status plan(xkd_context *cx, xkd_pass *p, xkd_widths element)
{
    xkd_status status = XKD_OK;
    p->scalars = xkd_arena_take(&p->arena, XKD_PASS_SCALARS * (int64_t)sizeof *p->scalars);
    /* On the host's memory it is there for plans alone, which are made on the host and count a device's bytes. */
    if (p->raw) p->raw_room = xkd_arena_take(&p->arena, p->raw->bytes);
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (p->wants.modality[m]) xkd_inputs_plan(&p->arena, &p->student[m].in);
    plan_scratch(p, element);
    if (p->wants.heads) plan_heads(p, element);
    int64_t mark = p->arena.used;
    if (p->wants.teachers) XKD_TRY(plan_teachers(cx, p, element));
    xkd_arena_rewind(&p->arena, mark);
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (p->wants.modality[m]) XKD_TRY(plan_student(cx, p, m, element));
fail:
    return status;
}

/* Either everything is allocated or nothing is left behind. After this a step allocates no tensors. */
xkd_status xkd_pass_new(xkd_context *cx, xkd_pass *out, const xkd_networks *networks, const xkd_step_config *config,
                        const xkd_batch_shape *shape, xkd_memory *memory, const xkd_arena *room, xkd_widths element,
                        bool report_all)
{
    xkd_status status = XKD_OK;
    *out = (xkd_pass){.networks = networks,
                      .config = *config,
                      .B = shape->B,
                      .raw = shape->raw,
                      .wants = what_is_wanted(config, report_all),
                      .arena = {.of = memory}};
    XKD_TRY(check_shape(cx, out, shape));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        if (out->wants.modality[m]) XKD_TRY(student_new(cx, out, m, shape));
        if (out->wants.teachers) XKD_TRY(teacher_new(cx, out, m, shape));
    }
    XKD_TRY(plan(cx, out, element));
    status = room ? xkd_arena_borrow(cx, &out->arena, room) : xkd_arena_commit(cx, &out->arena);
    if (status == XKD_ERR_MEMORY)
        xkd_error_prefix(cx, "activations of %lld samples do not fit (raise train.accumulate or lower the batch)",
                         (long long)out->B);
    if (status != XKD_OK) goto fail;
    XKD_TRY(plan(cx, out, element));
    XKD_TRY(xkd_arena_check(cx, &out->arena));
fail:
    if (status != XKD_OK) xkd_pass_free(out);
    return status;
}

/* Takes a pass whose making failed half way. */
void xkd_pass_free(xkd_pass *p)
{
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        xkd_backbone_run_free(&p->student[m].run);
        xkd_backbone_run_free(&p->teacher[m].run);
        xkd_decoder_run_free(&p->student[m].decoder);
        xkd_inputs_free(&p->student[m].in);
    }
    xkd_arena_free(&p->arena);
}

/* Before anything else, because the students' rows depend on the masks. */
void xkd_pass_load(xkd_pass *p, const xkd_pass_input *in)
{
    xkd_memory_zero(p->arena.of, p->scalars, XKD_PASS_SCALARS * (int64_t)sizeof *p->scalars);
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (p->wants.modality[m])
            xkd_inputs_load(p->arena.of, &p->student[m].in, in->clips[m], in->noise[m], cls_rows(p, m));
    if (p->raw) p->block = xkd_departure_lend(p->arena.of, p->raw_room, &in->raw->block, in->raw->used);
}

void xkd_pass_views(xkd_backend *be, xkd_pass *p)
{
    for (xkd_modality m = 0; p->raw && m < XKD_MODALITIES; m++)
        if (p->wants.modality[m]) xkd_inputs_make(be, &p->student[m].in, p->block, p->B);
}

/* After the forward the shared block memory holds the last block's qkv and lse, from which the class token's
 * attention is taken. Without refinement it is not needed. */
static void teacher_features(xkd_backend *be, xkd_pass *p, xkd_modality m)
{
    const xkd_backbone *b = &p->networks->teacher[m];
    xkd_teacher_run *t = &p->teacher[m];
    const float *clip = p->student[m].in.clip[teacher_view(p)];
    const int32_t *all = NULL;
    xkd_backbone_forward(be, b, &t->run, &clip, &all, &p->scratch);
    if (!p->config.refine) return;
    const xkd_block_saved *last = &t->run.blocks.blocks[b->blocks.depth - 1];
    be->ops->attention_probe(be, t->attn, last->qkv, last->lse, p->B, t->run.items[0].tokens, b->blocks.heads,
                             b->blocks.width, b->cls != NULL);
}

/* Refinement of one teacher needs the other's attention, so both forwards come first. */
void xkd_pass_teachers(xkd_backend *be, xkd_pass *p)
{
    if (!p->wants.teachers) return;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) teacher_features(be, p, m);
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        const xkd_backbone *b = &p->networks->teacher[m];
        xkd_teacher_run *t = &p->teacher[m], *other = &p->teacher[!m];
        xkd_refine_args args = {.features = t->run.z,
                                .self_attn = t->attn,
                                .other_attn = other->attn,
                                .B = p->B,
                                .tokens = t->run.items[0].tokens,
                                .D = b->blocks.width,
                                .H = b->blocks.heads,
                                .N = t->run.view[0].tokens,
                                .M = other->run.view[0].tokens,
                                .softmax = p->config.attn_mode == XKD_ATTN_SOFTMAX};
        if (p->config.refine)
            be->ops->refine_pool(be, t->head.x, &args);
        else
            be->ops->pool_forward(be, t->head.x, t->run.z, p->B, args.tokens, args.D, cls_rows(p, m), args.tokens);
        xkd_head_forward(be, &p->networks->teacher_head[m], &t->head);
    }
}

/* Latents, reconstruction, then the heads on the means of the patch tokens. The global views are the first
 * rows of run.z, so the decoder takes run.z as its latent. */
void xkd_pass_students(xkd_backend *be, xkd_pass *p)
{
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        const xkd_backbone *b = &p->networks->student[m];
        xkd_student_run *s = &p->student[m];
        int64_t D = b->blocks.width;
        if (!p->wants.modality[m]) continue;
        xkd_backbone_forward(be, b, &s->run, s->in.clip, s->in.keep, &p->scratch);
        if (p->wants.recon)
            xkd_decoder_forward(be, &p->networks->decoder[m], &s->decoder, s->run.z, s->in.clip,
                                &s->run.view[0].geometry, &s->in.tables, &p->scratch,
                                p->scalars + (m == XKD_VIDEO ? XKD_LOSS_VID_RECON : XKD_LOSS_AUD_RECON));
        if (!p->wants.heads) continue;
        for (int64_t v = 0; v < p->views[m]; v++)
            be->ops->pool_forward(be, xkd_exact_at(be, s->head.x, v * p->B * D),
                                  xkd_at(be, s->run.z, s->run.view[v].first * D), p->B, s->run.items[v].tokens, D,
                                  cls_rows(p, m), s->run.items[v].tokens);
        xkd_head_forward(be, &p->networks->student_head[m], &s->head);
    }
}

/* The distillation term that the teacher of modality m gives to the other modality's student.
 * !m is the other modality: there are two, numbered 0 and 1. */
static xkd_kd_args kd_args(const xkd_pass *p, xkd_modality m, const xkd_temperatures *t)
{
    const xkd_student_run *s = &p->student[!m];
    return (xkd_kd_args){.s = s->head.logits,
                         .t = p->teacher[m].head.logits,
                         .centre = p->networks->centre[m]->value,
                         .student_temp = &t->student_temp[!m],
                         .teacher_temp = &t->teacher_temp[m],
                         .R = s->head.R,
                         .B = p->B,
                         .K = p->networks->config.head.outputs};
}

/* Terms that are not wanted stay 0, so the weighted sum needs no cases. */
void xkd_pass_losses(xkd_backend *be, xkd_pass *p, const xkd_temperatures *t)
{
    double *loss = p->scalars;
    for (xkd_modality m = 0; p->wants.kd && m < XKD_MODALITIES; m++) {
        xkd_kd_args args = kd_args(p, m, t);
        xkd_distill_forward(be, loss + (m == XKD_VIDEO ? XKD_LOSS_KD_VT2AS : XKD_LOSS_KD_AT2VS),
                            loss + XKD_LOSS_TERMS + m, p->student[!m].lse, p->teacher[m].lse, &args);
    }
    if (!p->wants.align) return;
    xkd_align_forward(be, loss + XKD_LOSS_ALIGN_STUDENTS, &p->align_students, p->student[XKD_VIDEO].head.logits,
                      p->student[XKD_AUDIO].head.logits);
    xkd_align_forward(be, loss + XKD_LOSS_ALIGN_TEACHERS, &p->align_teachers, p->teacher[XKD_VIDEO].head.logits,
                      p->teacher[XKD_AUDIO].head.logits);
}

void xkd_pass_report(const xkd_pass *p, const double *scalars, double loss[XKD_LOSS_COUNT])
{
    for (int i = 0; i < XKD_LOSS_TERMS; i++) loss[i] = scalars[i];
    xkd_objective(&p->config, loss);
}

/* dlogits of both students from distillation and alignment.
 * The teachers' alignment has no gradient and is absent here. Both terms add to dlogits, which therefore
 * starts at 0. */
static void losses_backward(xkd_backend *be, xkd_pass *p, const xkd_temperatures *t, double scale)
{
    const xkd_step_config *c = &p->config;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        be->exact->fill(be, p->student[m].dlogits, 0, student_rows(p, m) * p->networks->config.head.outputs);
    for (xkd_modality m = 0; p->wants.kd && m < XKD_MODALITIES; m++) {
        xkd_kd_args args = kd_args(p, m, t);
        xkd_distill_backward(be, p->student[!m].dlogits, &args, p->student[!m].lse, p->teacher[m].lse,
                             scale * xkd_objective_scale(c, c->cmkd_coeff));
    }
    if (p->wants.align)
        xkd_align_backward(be, p->student[XKD_VIDEO].dlogits, p->student[XKD_AUDIO].dlogits, &p->align_students,
                           scale * xkd_objective_scale(c, c->align_coeff));
}

/* The decoder overwrites the rows of the masked views in dz; all others start at 0, and the heads add to
 * both. */
static void student_backward(xkd_backend *be, xkd_pass *p, xkd_modality m, double scale, bool train_last)
{
    xkd_student_run *s = &p->student[m];
    const xkd_backbone *b = &p->networks->student[m];
    int64_t D = b->blocks.width, masked_rows = s->in.mask.B * (s->in.mask.kept + cls_rows(p, m));
    if (p->wants.recon)
        xkd_decoder_backward(be, &p->networks->decoder[m], &s->decoder, s->dz, s->run.z, &s->in.tables, &p->scratch,
                             scale * xkd_objective_scale(&p->config, p->config.recon_coeff));
    int64_t filled = p->wants.recon ? masked_rows : 0;
    be->ops->fill(be, xkd_at(be, s->dz, filled * D), 0, (s->run.segs.rows - filled) * D);
    if (p->wants.heads) {
        xkd_head_backward(be, &p->networks->student_head[m], &s->head, s->dpooled, s->dlogits, train_last,
                          &p->head_scratch);
        for (int64_t v = 0; v < p->views[m]; v++)
            be->ops->pool_backward(be, xkd_at(be, s->dz, s->run.view[v].first * D),
                                   xkd_exact_at(be, s->dpooled, v * p->B * D), p->B, s->run.items[v].tokens, D,
                                   cls_rows(p, m), s->run.items[v].tokens);
    }
    xkd_backbone_backward(be, b, &s->run, s->dz, s->in.keep, &p->scratch);
}

/* Shared parameters (MAS) receive both modalities' gradients, video's first: a fixed order of sums. */
void xkd_pass_backward(xkd_backend *be, xkd_pass *p, const xkd_temperatures *t, double scale, bool train_last)
{
    if (p->wants.heads) losses_backward(be, p, t, scale);
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (p->wants.modality[m]) student_backward(be, p, m, scale, train_last);
}
