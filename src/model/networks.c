/* All networks of a model in one table of parameters: two students, two teachers, two decoders, two centres.
 * Sharing and pairing are by public name, so that the files and the model cannot disagree about what belongs
 * together. */
#include "model/networks.h"

#include <stdio.h>
#include <string.h>

/* The public names' abbreviations. */
const char *xkd_modality_prefix(xkd_modality modality)
{
    return modality == XKD_VIDEO ? "vid" : "aud";
}

/* Backbone and head of one network. Only the students' tensors are clipped (method.md section 7), so
 * `clipped` is `not teacher`, and false for decoders. */
static xkd_status declare_network(xkd_context *cx, xkd_networks *n, xkd_modality m, bool teacher,
                                  const xkd_backbone *shared)
{
    xkd_status status = XKD_OK;
    char prefix[XKD_PARAM_NAME];
    const char *role = teacher ? "teacher" : "student";
    xkd_backbone *backbone = teacher ? &n->teacher[m] : &n->student[m];
    xkd_declare at = {.cx = cx,
                      .params = &n->params,
                      .prefix = prefix,
                      .role = teacher ? XKD_ROLE_TEACHER : XKD_ROLE_TRAINED,
                      .clipped = !teacher};
    snprintf(prefix, sizeof prefix, "%s_%s.backbone.", xkd_modality_prefix(m), role);
    XKD_TRY(
        xkd_backbone_declare(&at, backbone, &n->config, m, teacher ? n->config.teacher : n->config.student, shared));
    snprintf(prefix, sizeof prefix, "%s_%s.head.", xkd_modality_prefix(m), role);
    XKD_TRY(xkd_head_declare(&at, teacher ? &n->teacher_head[m] : &n->student_head[m], backbone->blocks.width,
                             n->config.head));
fail:
    return status;
}

/* Trained, but without clipping. */
static xkd_status declare_decoder(xkd_context *cx, xkd_networks *n, xkd_modality m)
{
    char prefix[XKD_PARAM_NAME];
    snprintf(prefix, sizeof prefix, "%s_ae.", xkd_modality_prefix(m));
    xkd_declare at = {.cx = cx, .params = &n->params, .prefix = prefix, .role = XKD_ROLE_TRAINED};
    return xkd_decoder_declare(&at, &n->decoder[m], &n->config, &n->student[m]);
}

/* The autoencoder's encoder is the student's backbone: "<m>_ae.encoder.X" names "<m>_student.backbone.X" again.
 * Aliases are looked through as well, for blocks that are shared have their name of this modality only as an
 * alias. The count is taken before the loop, which adds aliases itself. */
static xkd_status alias_encoder(xkd_context *cx, xkd_networks *n, xkd_modality m)
{
    xkd_status status = XKD_OK;
    char from[XKD_PARAM_NAME], name[XKD_PARAM_NAME];
    int length = snprintf(from, sizeof from, "%s_student.backbone.", xkd_modality_prefix(m));
    int64_t aliases = n->params.alias_count;
    for (int64_t i = 0; i < n->params.count + aliases; i++) {
        int row_itself = i < n->params.count;
        const xkd_param_alias *alias = row_itself ? NULL : &n->params.aliases[i - n->params.count];
        const char *known = row_itself ? n->params.rows[i]->name : alias->name;
        if (strncmp(known, from, (size_t)length) != 0) continue;
        snprintf(name, sizeof name, "%s_ae.encoder.%.70s", xkd_modality_prefix(m), known + length);
        XKD_TRY(xkd_params_add_alias(cx, &n->params, row_itself ? n->params.rows[i] : alias->row, name, false));
    }
fail:
    return status;
}

/* Pairs one teacher tensor, under its public name, with the student tensor of the same name.
 * "vid_teacher" and "aud_teacher" are equally long, so the tail is the same for both. */
static xkd_status pair_name(xkd_context *cx, xkd_networks *n, xkd_param *teacher, const char *name, xkd_modality m)
{
    char student[XKD_PARAM_NAME];
    snprintf(student, sizeof student, "%.3s_student%.80s", name, name + strlen("vid_teacher"));
    xkd_param *row = xkd_params_find(&n->params, student);
    /* Without a counterpart there is nothing to average: the sizes of teacher and student differ. */
    if (!row)
        return xkd_fail(cx, XKD_ERR_CONFIG, "teacher_cfg and student_cfg differ: %s has no counterpart %s", name,
                        student);
    return xkd_params_add_pair(cx, &n->params, teacher, row, m);
}

/* Own tensors first, then shared ones under their alias: for MATS a shared teacher tensor gets a pair with
 * each modality, video's first, and so two updates a step. */
static xkd_status pair_modality(xkd_context *cx, xkd_networks *n, xkd_modality m)
{
    xkd_status status = XKD_OK;
    char prefix[XKD_PARAM_NAME];
    int length = snprintf(prefix, sizeof prefix, "%s_teacher.", xkd_modality_prefix(m));
    for (int64_t i = 0; i < n->params.count; i++)
        if (strncmp(n->params.rows[i]->name, prefix, (size_t)length) == 0)
            XKD_TRY(pair_name(cx, n, n->params.rows[i], n->params.rows[i]->name, m));
    for (int64_t i = 0; i < n->params.alias_count; i++) {
        const xkd_param_alias *alias = &n->params.aliases[i];
        if (alias->shared && strncmp(alias->name, prefix, (size_t)length) == 0)
            XKD_TRY(pair_name(cx, n, alias->row, alias->name, m));
    }
fail:
    return status;
}

/* The order of declaration is the order of initial random numbers and of rows in checkpoints: changing it
 * changes both. MAS shares the students' blocks, MATS the teachers' as well. */
xkd_status xkd_networks_declare(xkd_context *cx, xkd_networks *out, const xkd_model_config *config)
{
    xkd_status status = XKD_OK;
    static const char *centres[] = {"vt2as_ce_loss.center", "at2vs_ce_loss.center"};
    *out = (xkd_networks){.config = *config};
    bool share_students = config->variant != XKD_VARIANT_XKD, share_teachers = config->variant == XKD_VARIANT_MATS;
    XKD_TRY(declare_network(cx, out, XKD_VIDEO, false, NULL));
    XKD_TRY(declare_network(cx, out, XKD_AUDIO, false, share_students ? &out->student[XKD_VIDEO] : NULL));
    XKD_TRY(declare_network(cx, out, XKD_VIDEO, true, NULL));
    XKD_TRY(declare_network(cx, out, XKD_AUDIO, true, share_teachers ? &out->teacher[XKD_VIDEO] : NULL));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        XKD_TRY(declare_decoder(cx, out, m));
        XKD_TRY(alias_encoder(cx, out, m));
    }
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        /* A centre is state, not trained: a buffer, stored with the rest. */
        xkd_declare at = {.cx = cx, .params = &out->params, .prefix = "", .role = XKD_ROLE_BUFFER, .exact = true};
        XKD_TRY(xkd_declare_param(&at, &out->centre[m], centres[m], (xkd_shape){2, {1, config->head.outputs}},
                                  XKD_INIT_ZERO, 0));
        XKD_TRY(pair_modality(cx, out, m));
    }
fail:
    if (status != XKD_OK) xkd_networks_free(out);
    return status;
}

/* Rows that are shared belong to the table and are freed once, with it. */
void xkd_networks_free(xkd_networks *n)
{
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        xkd_backbone_free(&n->student[m]);
        xkd_backbone_free(&n->teacher[m]);
        xkd_decoder_free(&n->decoder[m]);
    }
    xkd_params_free(&n->params);
}
