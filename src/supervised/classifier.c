/* A trained classifier as a file, and its scores on other files. Three parts: the classes' names, what the file says
 * of itself (written and read back here, so that the two cannot drift apart), and the scores of clips with their
 * ensemble. */
#include "supervised/classifier.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/open.h"
#include "base/alloc.h"
#include "base/file.h"
#include "data/json_name.h"
#include "base/text.h"
#include "checkpoint/params_file.h"
#include "eval/encode/training_views.h"

/* Clips of one file that are scored together; more are done in turn. */
enum { MOST_TOGETHER = 8, CROPS = 3 };

/* Keys of the safetensors metadata. Their values are text: the format knows no other type. */
static const char CONFIG[] = "xkd.config", MODALITY[] = "xkd.modality", TASK[] = "xkd.task", CLASSES[] = "xkd.classes",
                  PREPROCESSING[] = "xkd.preprocessing";

/* ---- class names ---- */

/* A manifest of test files may name fewer classes than the head has rows; the rest go by their number. */
xkd_status xkd_class_names_of(xkd_context *cx, const xkd_manifest *m, int64_t count, xkd_class_names *out)
{
    xkd_status status = XKD_OK;
    *out = (xkd_class_names){0};
    XKD_TRY(xkd_alloc(cx, &out->items, count, sizeof *out->items));
    for (; out->count < count; out->count++)
        XKD_TRY(out->count < m->class_count ? xkd_copy_string(cx, &out->items[out->count], m->classes[out->count])
                                            : xkd_format_string(cx, &out->items[out->count], "%" PRId64, out->count));
fail:
    return status;
}

xkd_status xkd_class_names_read(xkd_context *cx, const char *path, const char *text, xkd_class_names *out)
{
    xkd_status status = XKD_OK;
    json_t *list = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *name;
    size_t i;
    *out = (xkd_class_names){0};
    /* An empty list is refused with the rest: a head without rows could not be planned. */
    if (!json_is_array(list) || json_array_size(list) == 0)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: its class names are no list", path);
    XKD_TRY(xkd_alloc(cx, &out->items, (int64_t)json_array_size(list), sizeof *out->items));
    json_array_foreach(list, i, name)
    {
        XKD_TRY(xkd_json_name_value(cx, name, &out->items[out->count]));
        if (!out->items[out->count]) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: its class name %zu is no text", path, i);
        out->count++; /* counted after the copy: a failure frees no string that was never made */
    }
fail:
    json_decref(list);
    return status;
}

xkd_status xkd_class_names_write(xkd_context *cx, const xkd_class_names *names, char **text)
{
    xkd_text t = xkd_text_make(cx);
    for (int64_t i = 0; i < names->count; i++) {
        xkd_text_puts(&t, i ? ", " : "[");
        xkd_text_json_name(&t, names->items[i]);
    }
    xkd_text_puts(&t, "]");
    return xkd_text_take(&t, text);
}

void xkd_class_names_free(xkd_class_names *names)
{
    for (int64_t i = 0; i < names->count; i++) xkd_free(names->items[i]);
    xkd_free(names->items);
    *names = (xkd_class_names){0};
}

/* ---- writing ---- */

/* The keys of checkpoint/hf_folder.c's preprocessor_config.json, with this model's numbers. Hugging Face's processors
 * cannot run it (a video and its crops are not theirs), but a program that reads it can prepare the input without
 * knowing this one. 0.0039... is 1/255. */
static xkd_status preprocessing(xkd_context *cx, const xkd_config *c, xkd_modality m, char **out)
{
    const xkd_data_config *d = &c->data;
    xkd_text t = xkd_text_make(cx);
    if (m == XKD_VIDEO) {
        xkd_text_printf(&t, "{\"feature_extractor_type\": \"XKDVideo\", \"fps\": %.17g, \"num_frames\": %" PRId64,
                        d->video_fps, xkd_clip_shape(d, m).T);
        xkd_text_printf(&t, ", \"size\": %" PRId64 ", \"test_clips\": %" PRId64 ", \"test_crops\": %d", d->crop_size,
                        c->eval.test_clips, xkd_three_crop_views(c, m) ? CROPS : 1);
        xkd_text_puts(&t, ", \"resample\": \"bilinear\", \"rescale_factor\": 0.00392156862745098, "
                          "\"image_mean\": [0.485, 0.456, 0.406], \"image_std\": [0.229, 0.224, 0.225]}");
    } else {
        xkd_text_printf(&t,
                        "{\"feature_extractor_type\": \"XKDAudio\", \"sampling_rate\": %" PRId64 ", \"n_fft\": %" PRId64
                        ", \"hop_length\": %" PRId64 ", \"num_mel_bins\": %" PRId64,
                        d->audio_rate, d->n_fft, d->hop_length, d->n_mels);
        xkd_text_printf(&t,
                        ", \"columns\": %" PRId64 ", \"test_clips\": %" PRId64 ", \"mean\": ", xkd_clip_shape(d, m).W,
                        c->eval.test_clips);
        xkd_text_json_number(&t, d->mel_mean);
        xkd_text_puts(&t, ", \"std\": ");
        xkd_text_json_number(&t, d->mel_std);
        xkd_text_puts(&t, "}");
    }
    return xkd_text_take(&t, out);
}

xkd_status xkd_classifier_write(xkd_context *cx, const char *path, const xkd_finetune *model, const xkd_config *config,
                                const xkd_class_names *classes)
{
    xkd_status status = XKD_OK;
    xkd_tensor_list list = {0};
    char *text = NULL, *names = NULL, *input = NULL;
    xkd_config written = *config; /* strings stay the caller's */
    xkd_modality m = model->encoder.backbone.modality;
    /* The model's geometry is that of the encoder's own file, which may differ from what the user's configuration says
     * of it. */
    written.model = model->encoder.config;
    /* A file that travels says nothing of the machine it was made on. */
    char nothing[1] = "";
    written.data.path = written.run.out = written.run.init = written.eval.test_path = nothing;
    XKD_TRY(xkd_config_write(cx, &written, &text));
    XKD_TRY(xkd_class_names_write(cx, classes, &names));
    XKD_TRY(preprocessing(cx, config, m, &input));
    /* "format: pt" is what safetensors' own readers of PyTorch ask for. */
    const xkd_metadata_item metadata[] = {
        {"format", "pt"},
        {CONFIG, text},
        {MODALITY, m == XKD_VIDEO ? "video" : "audio"},
        {TASK, model->options.loss == XKD_CLASSIFY_SIGMOID ? "multi-label" : "single-label"},
        {CLASSES, names},
        {PREPROCESSING, input}};
    XKD_TRY(xkd_params_list(cx, &model->encoder.params, XKD_PARAM_VALUE, &list));
    XKD_TRY(xkd_safetensors_write(cx, path, list.items, list.count, metadata, sizeof metadata / sizeof *metadata));
fail:
    xkd_free(list.items);
    xkd_free(text);
    xkd_free(names);
    xkd_free(input);
    return status;
}

/* ---- reading ---- */

/* What a file says of itself, or a refusal that says what is missing. */
static xkd_status read_notes(xkd_context *cx, const xkd_safetensors *file, const char *path, xkd_classifier *out,
                             bool *multi_label)
{
    static const char *const keys[] = {CONFIG, MODALITY, TASK, CLASSES, PREPROCESSING};
    xkd_status status = XKD_OK;
    const char *note[5];
    /* The head comes first: a bare encoder is what users most often give here, and deserves the plainest message. */
    if (!xkd_safetensors_find(file, "head.weight"))
        XKD_FAIL(XKD_ERR_CHECKPOINT,
                 "%s: has no classifier (head.weight): train one with 'xkd finetune' or 'xkd linear'", path);
    for (int i = 0; i < 5; i++) {
        note[i] = xkd_safetensors_metadata(file, keys[i]);
        if (!note[i])
            XKD_FAIL(XKD_ERR_CHECKPOINT,
                     "%s: does not say %s (%s): take classifier.safetensors of an 'xkd finetune' or 'xkd linear' run",
                     path,
                     i == 3   ? "what its classes are called"
                     : i == 4 ? "how its input is made"
                              : "what it is",
                     keys[i]);
    }
    /* not strict: a file of a later version may hold keys that are unknown here */
    XKD_TRY(xkd_config_parse(cx, &out->config, path, note[0], (int64_t)strlen(note[0]), false));
    out->modality = strcmp(note[1], "audio") == 0 ? XKD_AUDIO : XKD_VIDEO;
    *multi_label = strcmp(note[2], "multi-label") == 0;
    XKD_TRY(xkd_class_names_read(cx, path, note[3], &out->classes));
    /* Both lists come from outside. Names that are too few would be read past their end at the first prediction. */
    const xkd_stored_tensor *head = xkd_safetensors_find(file, "head.weight");
    if (head->shape.ndim != 2 || head->shape.dims[0] != out->classes.count)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: names %" PRId64 " classes, but its classifier has %" PRId64, path,
                 out->classes.count, head->shape.ndim == 2 ? head->shape.dims[0] : 0);
fail:
    return status;
}

/* A run folder stands for its classifier. */
static xkd_status find_file(xkd_context *cx, const char *path, char **out)
{
    if (!xkd_is_folder(path)) return xkd_copy_string(cx, out, path);
    xkd_status status = xkd_join_path(cx, out, path, "classifier.safetensors");
    if (status == XKD_OK && !xkd_path_exists(*out))
        status = xkd_fail(cx, XKD_ERR_CHECKPOINT,
                          "%s: has no classifier.safetensors: no run of 'xkd finetune' or 'xkd linear'", path);
    return status;
}

/* The file is opened twice: for what it says, and by the encoder's strict reader. */
xkd_status xkd_classifier_load(xkd_context *cx, const char *path, char *const *overrides, int count,
                               xkd_classifier *out)
{
    xkd_status status = XKD_OK;
    xkd_safetensors *file = NULL;
    char *name = NULL;
    bool multi_label = false;
    *out = (xkd_classifier){0};
    XKD_TRY(xkd_encoder_check_path(cx, path));
    XKD_TRY(find_file(cx, path, &name));
    XKD_TRY(xkd_config_init(cx, &out->config));
    XKD_TRY(xkd_safetensors_open(cx, name, &file));
    XKD_TRY(read_notes(cx, file, name, out, &multi_label));
    out->config.data.follow_links = false; /* the file may come from anybody; only the user's own words allow it */
    /* Overrides follow the file's own settings and precede xkd_config_finish, so that they are checked together with
     * them. */
    for (int i = 0; i < count; i++) XKD_TRY(xkd_config_override(cx, &out->config, overrides[i]));
    XKD_TRY(xkd_config_finish(cx, &out->config));
    /* The file describes the training, whose views were several; a clip to classify is one view. */
    out->config.data.global_views = 1;
    out->config.data.video_local_views = out->config.data.audio_local_views = 0;
    int threads = out->config.threads ? (int)out->config.threads : xkd_processor_count();
    XKD_TRY(xkd_backend_open(cx, &out->be, out->config.device, &out->config, threads));
    const xkd_encoder_source source = {
        .path = name, .modality = out->modality, .geometry = &out->config.model, .head = true};
    xkd_view_shape shape = xkd_clip_shape(&out->config.data, out->modality);
    xkd_finetune_options options = xkd_finetune_options_of(&out->config, multi_label);
    options.frozen = true; /* no memory for a backward, and none for moments */
    shape.B = out->config.eval.test_clips * (xkd_three_crop_views(&out->config, out->modality) ? CROPS : 1);
    if (shape.B > MOST_TOGETHER) shape.B = MOST_TOGETHER;
    /* Batch norm takes its running statistics here, but the plan, which asks for two clips, does not know. */
    if (shape.B < 2) shape.B = 2;
    XKD_TRY(xkd_finetune_new(cx, out->be, &source, &shape, out->classes.count, &options, &out->model));
fail:
    xkd_safetensors_close(file);
    xkd_free(name);
    return status;
}

void xkd_classifier_free(xkd_classifier *c)
{
    xkd_finetune_free(&c->model);
    xkd_backend_free(c->be);
    xkd_class_names_free(&c->classes);
    xkd_config_free(&c->config);
    *c = (xkd_classifier){0};
}

/* ---- scores ---- */

/* Dropout has two keys because the released files have: a rate without `use_dropout` is not in force. */
xkd_finetune_options xkd_finetune_options_of(const xkd_config *config, bool multi_label)
{
    const xkd_eval_config *e = &config->eval;
    return (xkd_finetune_options){.kind = e->feat_op == XKD_FEAT_CLS ? XKD_FEATURE_CLS : XKD_FEATURE_MEAN,
                                  .loss = multi_label ? XKD_CLASSIFY_SIGMOID : XKD_CLASSIFY_SOFTMAX,
                                  .l2_norm = e->l2_norm,
                                  .batch_norm = e->batch_norm,
                                  .dropout = e->use_dropout ? e->dropout : 0,
                                  .drop_path = e->drop_path,
                                  .frozen = e->mode == XKD_EVAL_LINEAR,
                                  .layer_decay = e->layer_decay,
                                  .beta1 = config->train.betas[0],
                                  .beta2 = config->train.betas[1],
                                  .eps = config->train.eps,
                                  .seed = config->train.seed};
}

/* The scorer's face of the model: `rows` [B,K] are probabilities, of softmax or sigmoid by the model's kind. */
static xkd_status score(void *user, const float *clips, float *rows)
{
    return xkd_finetune_scores(user, clips, rows);
}

xkd_embed_options xkd_classify_options(xkd_finetune *model, const xkd_config *config, xkd_embed_scorer *scorer)
{
    xkd_modality m = model->encoder.backbone.modality;
    *scorer = (xkd_embed_scorer){model, model->K, score};
    xkd_embed_options o = {.clips = {.data = &config->data,
                                     .protocol = XKD_CLIPS_TEST,
                                     .clips = config->eval.test_clips,
                                     .three_crops = xkd_three_crop_views(config, m),
                                     .short_side = config->eval.short_side},
                           .scorer = scorer,
                           .batch = model->B};
    o.clips.wanted[m] = true;
    return o;
}

/* Runs in the caller's thread but for the decoding; files reach the sink in the order of `inputs`. */
xkd_status xkd_classify_files(xkd_context *cx, xkd_finetune *model, const xkd_config *config,
                              const xkd_embed_input *inputs, int64_t count, const xkd_embed_sink *sink)
{
    xkd_embed_scorer scorer;
    const xkd_embed_options o = xkd_classify_options(model, config, &scorer);
    return xkd_embed(cx, model->be, &o, inputs, count, sink);
}

xkd_status xkd_classifier_scores(xkd_context *cx, const xkd_classifier *c, const xkd_embedded *file, const char *path,
                                 float *scores)
{
    xkd_ensemble_scores(c->model.options.loss, c->config.eval.ensemble, file->feature[c->modality],
                        file->count[c->modality], c->classes.count, scores);
    for (int64_t i = 0; i < c->classes.count; i++)
        if (!isfinite(scores[i]))
            return xkd_fail(cx, XKD_ERR_NUMERIC,
                            "%s: the score of class %s is not finite: the model's weights may hold NaN ('xkd verify "
                            "MODEL' looks)",
                            path, c->classes.items[i]);
    return XKD_OK;
}

/* Sums in double, in the order of the clips. Scores are probabilities, so 0 is below every one of them and may start
 * the maximum. Softmax rows are always averaged: their sum and maximum would no longer be a distribution. */
void xkd_ensemble_scores(xkd_classify_kind kind, xkd_ensemble how, const float *clips, int64_t n, int64_t K, float *out)
{
    bool mean = kind == XKD_CLASSIFY_SOFTMAX || how == XKD_ENSEMBLE_MEAN;
    for (int64_t k = 0; k < K; k++) {
        double sum = 0, most = 0;
        for (int64_t i = 0; i < n; i++) {
            sum += clips[i * K + k];
            if (clips[i * K + k] > most) most = clips[i * K + k];
        }
        out[k] = (float)(mean ? sum / (double)n : how == XKD_ENSEMBLE_MAX ? most : sum);
    }
}
