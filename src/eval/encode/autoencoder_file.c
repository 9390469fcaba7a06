/* Student and decoder of each modality out of a whole model. They are declared alone: a whole model also has teachers, heads and
 * centres, which take most of the memory and have no part in a reconstruction. */
#include "eval/encode/autoencoder_file.h"

#include <stdio.h>
#include <string.h>

#include "backend/open.h"
#include "base/alloc.h"
#include "base/file.h"
#include "base/pool.h"
#include "base/rng.h"
#include "checkpoint/params_file.h"
#include "checkpoint/state.h"
#include "eval/encode/encoder.h"

/* A folder stands for its newest checkpoint. The caller frees *out. */
static xkd_status find_file(xkd_context *cx, const char *path, char **out)
{
    xkd_status status = XKD_OK;
    if (!xkd_is_folder(path)) return xkd_copy_string(cx, out, path);
    XKD_TRY(xkd_state_newest(cx, path, out));
    if (!*out)
        XKD_FAIL(XKD_ERR_CHECKPOINT,
                 "%s: holds no checkpoints/step-*.safetensors: name the run folder of a pre-training, or a whole model",
                 path);
fail:
    return status;
}

static xkd_status declare_modality(xkd_context *cx, xkd_autoencoders *a, xkd_modality m)
{
    xkd_status status = XKD_OK;
    char prefix[XKD_PARAM_NAME];
    xkd_networks *n = &a->networks;
    xkd_declare at = {.cx = cx, .params = &n->params, .prefix = prefix, .role = XKD_ROLE_FROZEN};
    snprintf(prefix, sizeof prefix, "%s_student.backbone.", xkd_modality_prefix(m));
    XKD_TRY(xkd_backbone_declare(&at, &n->student[m], &n->config, m, n->config.student, NULL));
    snprintf(prefix, sizeof prefix, "%s_ae.", xkd_modality_prefix(m));
    XKD_TRY(xkd_decoder_declare(&at, &n->decoder[m], &n->config, &n->student[m]));
fail:
    return status;
}

/* Which of the two the file has: of a training with one modality the other's tensors may be there, or not. */
static xkd_status look(xkd_context *cx, const xkd_content *content, const char *path, xkd_autoencoders *a)
{
    xkd_status status = XKD_OK;
    if (content->kind == XKD_CONTENT_OTHER) XKD_TRY(xkd_content_refuse(cx, content, path));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        char name[64];
        snprintf(name, sizeof name, "%s_ae.mask_token", xkd_modality_prefix(m));
        a->has[m] = xkd_content_find(content, name) &&
                    a->config.step.modality != (m == XKD_VIDEO ? XKD_TRAIN_AUDIO : XKD_TRAIN_VIDEO);
    }
    if (!a->has[XKD_VIDEO] && !a->has[XKD_AUDIO])
        XKD_FAIL(XKD_ERR_CHECKPOINT,
                 "%s: holds no decoder, so nothing can be reconstructed: name a whole model, such as a run's "
                 "checkpoints/step-*.safetensors",
                 path);
fail:
    return status;
}

static xkd_status read_rows(xkd_context *cx, const xkd_content *content, const char *path, xkd_params *params)
{
    xkd_status status = XKD_OK;
    xkd_differences d = xkd_differences_make(cx);
    for (int64_t i = 0; i < params->count; i++) {
        xkd_param *row = params->rows[i];
        XKD_TRY(xkd_load_row(cx, params, row, xkd_content_find(content, row->name), path, &d));
    }
    XKD_TRY(xkd_differences_report(cx, &d, path));
fail:
    xkd_differences_free(&d);
    return status;
}

/* The configuration in the file, or of its run, is overlaid by what the caller says. */
static xkd_status configure(xkd_context *cx, const char *path, char *const *overrides, int64_t count,
                            xkd_autoencoders *a)
{
    xkd_status status = XKD_OK;
    bool teachers[XKD_MODALITIES];
    XKD_TRY(xkd_config_init(cx, &a->config));
    XKD_TRY(xkd_encoder_describe(cx, path, &a->config, teachers));
    a->config.data.follow_links = false;                            /* a model may come from anybody */
    XKD_TRY(xkd_config_override(cx, &a->config, "run.device=cpu")); /* that of the training need not be here */
    for (int64_t i = 0; i < count; i++) XKD_TRY(xkd_config_override(cx, &a->config, overrides[i]));
    XKD_TRY(xkd_config_finish(cx, &a->config));
fail:
    return status;
}

xkd_status xkd_autoencoders_load(xkd_context *cx, const char *path, char *const *overrides, int64_t count,
                                 xkd_autoencoders *out)
{
    xkd_status status = XKD_OK;
    xkd_tensor_file file = {0};
    xkd_content content = {0};
    char *name = NULL;
    XKD_TRY(find_file(cx, path, &name));
    XKD_TRY(configure(cx, name, overrides, count, out));
    XKD_TRY(xkd_tensor_file_open(cx, name, &file));
    XKD_TRY(xkd_content_identify(cx, &file, &content));
    XKD_TRY(look(cx, &content, name, out));
    int threads = out->config.threads ? (int)out->config.threads : xkd_processor_count();
    XKD_TRY(xkd_backend_open(cx, &out->be, out->config.device, &out->config, threads));
    out->networks.config = out->config.model;
    /* The tensors know better than a configuration whether there is a class token. */
    if (content.kind == XKD_CONTENT_MODEL) out->networks.config.cls_token = content.geometry.cls_token;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (out->has[m]) XKD_TRY(declare_modality(cx, out, m));
    XKD_TRY(xkd_params_allocate(cx, &out->networks.params, out->be->memory, out->be->dtype, false));
    XKD_TRY(read_rows(cx, &content, name, &out->networks.params));
fail:
    xkd_content_free(&content);
    if (file.path || file.parts) xkd_tensor_file_close(&file);
    xkd_free(name);
    return status;
}

void xkd_autoencoders_free(xkd_autoencoders *a)
{
    xkd_networks_free(&a->networks);
    xkd_backend_free(a->be);
    xkd_config_free(&a->config);
    *a = (xkd_autoencoders){0};
}

xkd_status xkd_autoencoders_noise(xkd_context *cx, const xkd_autoencoders *a, xkd_modality m, uint64_t seed,
                                  float **out)
{
    xkd_rng rng = xkd_rng_make(seed, 0, 0, 0, m == XKD_VIDEO ? XKD_RNG_MASK_VIDEO : XKD_RNG_MASK_AUDIO);
    int64_t N = xkd_grid_tokens(a->networks.student[m].grid);
    xkd_status status = xkd_alloc(cx, out, N, sizeof **out);
    for (int64_t i = 0; status == XKD_OK && i < N; i++) (*out)[i] = (float)xkd_rng_uniform(&rng);
    return status;
}

/* Reconstruction alone, of one clip: no teachers, heads or local views. */
static xkd_status make_pass(xkd_context *cx, const xkd_autoencoders *a, const bool wanted[XKD_MODALITIES],
                            xkd_pass *pass)
{
    xkd_step_config step = a->config.step;
    xkd_view_shape shape[XKD_MODALITIES];
    xkd_batch_shape batch = {.B = 1, .views = {1, 1}, .shape = {&shape[XKD_VIDEO], &shape[XKD_AUDIO]}};
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        xkd_patch_grid g = xkd_reconstruction_grid(&a->networks.config, m);
        shape[m] = (xkd_view_shape){.T = g.T, .H = g.H, .W = g.W};
    }
    step.modality = !wanted[XKD_AUDIO] ? XKD_TRAIN_VIDEO : !wanted[XKD_VIDEO] ? XKD_TRAIN_AUDIO : XKD_TRAIN_BOTH;
    step.align_coeff = step.cmkd_coeff = 0;
    step.recon_coeff = 1;
    step.global_views = 1;
    step.mmd_group = 0;
    return xkd_pass_new(cx, pass, &a->networks, &step, &batch, a->be->memory, NULL, a->be->element, false);
}

xkd_status xkd_autoencoders_run(xkd_context *cx, const xkd_autoencoders *a, const float *const clips[XKD_MODALITIES],
                                const float *const noise[XKD_MODALITIES], xkd_reconstruction out[XKD_MODALITIES],
                                double error[XKD_MODALITIES])
{
    xkd_status status = XKD_OK;
    static const int terms[] = {XKD_LOSS_VID_RECON, XKD_LOSS_AUD_RECON};
    const bool wanted[] = {a->has[XKD_VIDEO] && clips[XKD_VIDEO], a->has[XKD_AUDIO] && clips[XKD_AUDIO]};
    double scalars[XKD_PASS_SCALARS];
    xkd_pass pass = {0};
    if (!wanted[XKD_VIDEO] && !wanted[XKD_AUDIO])
        XKD_FAIL(XKD_ERR_DATA, "the clip has nothing that this model reconstructs");
    XKD_TRY(make_pass(cx, a, wanted, &pass));
    const xkd_pass_input in = {.clips = {&clips[XKD_VIDEO], &clips[XKD_AUDIO]},
                               .noise = {noise[XKD_VIDEO], noise[XKD_AUDIO]}};
    xkd_pass_load(&pass, &in);
    xkd_pass_students(a->be, &pass);
    xkd_memory_download(a->be->memory, scalars, pass.scalars, sizeof scalars);
    XKD_TRY(xkd_backend_status(a->be));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        if (!wanted[m]) continue;
        error[m] = scalars[terms[m]];
        XKD_TRY(xkd_reconstruction_of(cx, a->be, &pass, m, clips[m], &out[m]));
    }
fail:
    xkd_pass_free(&pass);
    return status;
}
