/* A folder in the layout that model hubs use: tensors, two JSON descriptions and a card. Of the descriptions this program
 * reads config.json, for what shapes do not say. */
#include "checkpoint/hf_folder.h"

#include <dirent.h>
#include <jansson.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"

/* Refused before anything is written, for a mixture of two models would not be noticed. */
static xkd_status refuse_full_folder(xkd_context *cx, const char *path)
{
    xkd_status status = XKD_OK;
    DIR *folder = opendir(path);
    for (const struct dirent *e = folder ? readdir(folder) : NULL; e && status == XKD_OK; e = readdir(folder))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            status = xkd_fail(cx, XKD_ERR_STORAGE, "%s: is not empty (it has %s): give a new folder", path, e->d_name);
    if (folder) closedir(folder);
    return status;
}

/* Takes over the text in every case. */
static xkd_status write_text(xkd_context *cx, const char *folder, const char *name, xkd_text *text)
{
    xkd_status status = text->status;
    char *path = NULL;
    if (status == XKD_OK) status = xkd_join_path(cx, &path, folder, name);
    if (status == XKD_OK) status = xkd_write_file(cx, path, text->data, text->size);
    xkd_free(path);
    xkd_text_free(text);
    return status;
}

static const char *value_of(const xkd_metadata_item *metadata, int64_t count, const char *key)
{
    for (int64_t i = 0; i < count; i++)
        if (strcmp(metadata[i].key, key) == 0) return metadata[i].value;
    return NULL;
}

/* The configuration of the model: its own, or the released models'. *fits says whether the shapes agree with it. */
static xkd_status find_config(xkd_context *cx, const char *path, const xkd_content *c, const char *text,
                              xkd_config *config, bool *fits)
{
    xkd_status status = XKD_OK;
    int64_t tokens, patch;
    XKD_TRY(xkd_config_init(cx, config));
    if (text) XKD_TRY(xkd_config_parse(cx, config, path, text, (int64_t)strlen(text), false));
    XKD_TRY(xkd_config_finish(cx, config));
    xkd_geometry_of(&config->model, c->modality, &tokens, &patch);
    *fits = tokens == c->geometry.tokens && patch == c->geometry.patch;
fail:
    return status;
}

/* Those of the configuration, if it is of this width; else by preset, or 0. */
static int64_t heads_of(const xkd_geometry *g, const xkd_model_config *m)
{
    return m->teacher.width == g->width ? m->teacher.heads : m->student.width == g->width ? m->student.heads : g->heads;
}

/* What is read back by xkd_hf_folder_describe. */
static void put_geometry(xkd_text *t, xkd_modality modality, const xkd_model_config *m)
{
    if (modality == XKD_VIDEO)
        xkd_text_printf(
            t, ",\n  \"num_frames\": %lld,\n  \"image_size\": [%lld, %lld],\n  \"patch_size\": [%lld, %lld, %lld]",
            (long long)m->num_frames, (long long)m->frame_height, (long long)m->frame_width, (long long)m->vid_patch_t,
            (long long)m->vid_patch_h, (long long)m->vid_patch_w);
    else
        xkd_text_printf(t, ",\n  \"spectrogram_size\": [%lld, %lld],\n  \"patch_size\": [%lld, %lld]",
                        (long long)m->spec_freq, (long long)m->spec_time, (long long)m->spec_patch_f,
                        (long long)m->spec_patch_t);
}

/* Keys that transformer libraries know come first; the others describe what is special here. */
static xkd_text config_json(xkd_context *cx, const xkd_content *c, const xkd_model_config *m, bool fits,
                            const char *const *labels, int64_t label_count)
{
    const xkd_geometry *g = &c->geometry;
    int64_t heads = heads_of(g, m);
    xkd_text t = xkd_text_make(cx);
    xkd_text_printf(&t, "{\n  \"model_type\": \"xkd\",\n  \"architectures\": [\"%s\"],\n  \"modality\": \"%s\",\n",
                    c->kind == XKD_CONTENT_MODEL ? "XKD" : "XKDBackbone", c->modality == XKD_VIDEO ? "video" : "audio");
    xkd_text_printf(&t, "  \"hidden_size\": %lld,\n  \"num_hidden_layers\": %lld,\n", (long long)g->width,
                    (long long)g->depth);
    if (heads) xkd_text_printf(&t, "  \"num_attention_heads\": %lld,\n", (long long)heads);
    xkd_text_printf(&t, "  \"intermediate_size\": %lld,\n  \"hidden_act\": \"gelu\",\n  \"layer_norm_eps\": 1e-05,\n",
                    4 * (long long)g->width);
    xkd_text_printf(&t,
                    "  \"patch_length\": %lld,\n  \"num_tokens\": %lld,\n  \"class_token\": %s,\n  \"qkv_bias\": false",
                    (long long)g->patch, (long long)g->tokens, g->cls_token ? "true" : "false");
    if (fits) put_geometry(&t, c->modality, m);
    /* Once from number to name, once back; labels come from the user and are escaped. */
    for (int pass = 0; labels && pass < 2; pass++) {
        xkd_text_puts(&t, pass ? ",\n  \"label2id\": {" : ",\n  \"id2label\": {");
        for (int64_t i = 0; i < label_count; i++) {
            xkd_text_puts(&t, i ? ", " : "");
            if (!pass) xkd_text_printf(&t, "\"%lld\": ", (long long)i);
            xkd_text_json_string(&t, labels[i]);
            if (pass) xkd_text_printf(&t, ": %lld", (long long)i);
        }
        xkd_text_puts(&t, "}");
    }
    xkd_text_puts(&t, "\n}\n");
    return t;
}

/* What the model's configuration says of its input; method.md section 2. Sizes only where they fit the tensors. */
static xkd_text preprocessor_json(xkd_context *cx, xkd_modality modality, const xkd_config *c, bool fits)
{
    const xkd_data_config *d = &c->data;
    xkd_text t = xkd_text_make(cx);
    if (modality == XKD_VIDEO) {
        xkd_text_printf(&t, "{\n  \"feature_extractor_type\": \"XKDVideo\",\n  \"fps\": %.17g,\n", d->video_fps);
        if (fits)
            xkd_text_printf(&t, "  \"num_frames\": %lld,\n  \"size\": %lld,\n", (long long)c->model.num_frames,
                            (long long)c->model.frame_height);
        xkd_text_puts(&t, "  \"resample\": \"bilinear\",\n  \"rescale_factor\": 0.00392156862745098,\n"
                          "  \"image_mean\": [0.485, 0.456, 0.406],\n  \"image_std\": [0.229, 0.224, 0.225]\n}\n");
        return t;
    }
    xkd_text_printf(&t,
                    "{\n  \"feature_extractor_type\": \"XKDAudio\",\n  \"sampling_rate\": %lld,\n  \"n_fft\": %lld,\n",
                    (long long)d->audio_rate, (long long)d->n_fft);
    xkd_text_printf(&t, "  \"hop_length\": %lld,\n", (long long)d->hop_length);
    if (fits) xkd_text_printf(&t, "  \"num_mel_bins\": %lld,\n", (long long)c->model.spec_freq);
    xkd_text_puts(&t, "  \"mean\": ");
    xkd_text_json_number(&t, d->mel_mean);
    xkd_text_puts(&t, ",\n  \"std\": ");
    xkd_text_json_number(&t, d->mel_std);
    xkd_text_puts(&t, "\n}\n");
    return t;
}

/* Plain Markdown behind the header that hubs read. */
static xkd_text model_card(xkd_context *cx, const xkd_content *c, const char *described)
{
    xkd_text t = xkd_text_make(cx);
    xkd_text_puts(&t, "---\nlibrary_name: xkd\ntags: [xkd, self-supervised, video, audio]\n---\n# XKD encoder\n\n");
    xkd_text_printf(&t, "This folder holds a %s.\n\n", described);
    xkd_text_printf(
        &t,
        "It takes %s as `preprocessor_config.json` says. `model.safetensors` has %lld tensors under the "
        "names of the XKD release.\nMethod: Sarkar and Etemad, \"XKD: Cross-modal Knowledge Distillation with "
        "Domain Alignment for Video\nRepresentation Learning\", AAAI 2024 (arXiv 2211.13929).\n",
        c->modality == XKD_VIDEO ? "RGB frames" : "log-mel spectrograms", (long long)c->count);
    return t;
}

/* What the folder says beside the tensors. The card comes last. */
static xkd_status write_descriptions(xkd_context *cx, const char *path, const xkd_content *content,
                                     const char *preprocessing, const xkd_config *config, bool fits,
                                     const char *const *labels, int64_t label_count)
{
    xkd_status status = XKD_OK;
    char *described = NULL;
    xkd_text text;
    XKD_TRY(xkd_content_describe(cx, content, &described));
    text = config_json(cx, content, &config->model, fits, labels, label_count);
    XKD_TRY(write_text(cx, path, "config.json", &text));
    text = preprocessing ? xkd_text_make(cx) : preprocessor_json(cx, content->modality, config, fits);
    if (preprocessing) xkd_text_printf(&text, "%s\n", preprocessing);
    XKD_TRY(write_text(cx, path, "preprocessor_config.json", &text));
    text = model_card(cx, content, described);
    XKD_TRY(write_text(cx, path, "README.md", &text));
fail:
    xkd_free(described);
    return status;
}

/* Tensors are written from where they are; nothing is copied. Files are published one by one. */
xkd_status xkd_hf_folder_write(xkd_context *cx, const char *path, const xkd_content *content,
                               const xkd_metadata_item *metadata, int64_t metadata_count, const char *const *labels,
                               int64_t label_count)
{
    xkd_status status = XKD_OK;
    char *model = NULL;
    xkd_tensor_item *items = NULL;
    xkd_config config = {0};
    bool fits;
    if (content->kind == XKD_CONTENT_OTHER)
        XKD_FAIL(XKD_ERR_CONFIG, "%s: what is given is no XKD model: write .safetensors or .pth instead", path);
    /* First of all, so that a mistake in the path costs no work. */
    XKD_TRY(refuse_full_folder(cx, path));
    XKD_TRY(find_config(cx, path, content, value_of(metadata, metadata_count, "xkd.config"), &config, &fits));
    XKD_TRY(xkd_alloc(cx, &items, content->count, sizeof *items));
    for (int64_t i = 0; i < content->count; i++)
        items[i] = (xkd_tensor_item){content->tensors[i].name, content->tensors[i].dtype, content->tensors[i].shape,
                                     content->tensors[i].data};
    XKD_TRY(xkd_make_folder(cx, path));
    XKD_TRY(xkd_join_path(cx, &model, path, "model.safetensors"));
    XKD_TRY(xkd_safetensors_write(cx, model, items, content->count, metadata, metadata_count));
    XKD_TRY(write_descriptions(cx, path, content, value_of(metadata, metadata_count, "xkd.preprocessing"), &config,
                               fits, labels, label_count));
fail:
    xkd_config_free(&config);
    xkd_free(model);
    xkd_free(items);
    return status;
}

/* ---- reading ---- */

/* Numbers of a model; more would be an attack on memory. */
enum { MOST_SIZE = 1 << 16, JSON_LIMIT = 1 << 20 };

/* root[key], a number or a list of `count` numbers, into the places `out`. Absent keys leave them as they are. */
static xkd_status read_numbers(xkd_context *cx, const char *path, const json_t *root, const char *key, int count,
                               int64_t *const *out)
{
    const json_t *value = json_object_get(root, key);
    if (!value) return XKD_OK;
    for (int i = 0; i < count; i++) {
        const json_t *number = count == 1 ? value : json_array_get(value, (size_t)i);
        if (!json_is_integer(number) || json_integer_value(number) < 1 || json_integer_value(number) > MOST_SIZE ||
            (count > 1 && json_array_size(value) != (size_t)count))
            return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: '%s' must be %d of the numbers from 1 to %d", path, key, count,
                            MOST_SIZE);
        *out[i] = json_integer_value(number);
    }
    return XKD_OK;
}

/* The clips follow the model: their length and size, and as many mel bands. */
static xkd_status read_config(xkd_context *cx, const char *path, const json_t *root, xkd_config *c)
{
    xkd_status status = XKD_OK;
    xkd_model_config *m = &c->model;
    xkd_vit_size size = {0};
    const char *modality = json_string_value(json_object_get(root, "modality"));
    bool audio = modality && strcmp(modality, "audio") == 0;
    XKD_TRY(read_numbers(cx, path, root, "hidden_size", 1, (int64_t *[]){&size.width}));
    XKD_TRY(read_numbers(cx, path, root, "num_hidden_layers", 1, (int64_t *[]){&size.depth}));
    XKD_TRY(read_numbers(cx, path, root, "num_attention_heads", 1, (int64_t *[]){&size.heads}));
    if (size.width && size.depth && size.heads) m->teacher = m->student = size;
    XKD_TRY(read_numbers(cx, path, root, "num_frames", 1, (int64_t *[]){&m->num_frames}));
    XKD_TRY(read_numbers(cx, path, root, "image_size", 2, (int64_t *[]){&m->frame_height, &m->frame_width}));
    XKD_TRY(read_numbers(cx, path, root, "spectrogram_size", 2, (int64_t *[]){&m->spec_freq, &m->spec_time}));
    int64_t *const video_patch[] = {&m->vid_patch_t, &m->vid_patch_h, &m->vid_patch_w};
    int64_t *const audio_patch[] = {&m->spec_patch_f, &m->spec_patch_t};
    XKD_TRY(read_numbers(cx, path, root, "patch_size", audio ? 2 : 3, audio ? audio_patch : video_patch));
    if (json_object_get(root, "num_frames")) c->data.clip_duration = (double)m->num_frames / c->data.video_fps;
    if (json_object_get(root, "image_size")) c->data.crop_size = m->frame_height;
    if (json_object_get(root, "spectrogram_size")) c->data.n_mels = m->spec_freq;
fail:
    return status;
}

xkd_status xkd_hf_folder_describe(xkd_context *cx, const char *path, xkd_config *config, bool *found)
{
    xkd_status status = XKD_OK;
    const char *slash = strrchr(path, '/');
    char *name = NULL, *text = NULL;
    int64_t size = 0;
    json_t *root = NULL;
    *found = false;
    XKD_TRY(xkd_format_string(cx, &name, "%.*sconfig.json", slash ? (int)(slash - path) + 1 : 0, path));
    if (!xkd_path_exists(name)) goto fail;
    XKD_TRY(xkd_read_file(cx, name, JSON_LIMIT, XKD_ERR_CHECKPOINT, &text, &size));
    root = json_loadb(text, (size_t)size, JSON_REJECT_DUPLICATES, NULL);
    const char *type = json_string_value(json_object_get(root, "model_type"));
    /* Other programs have files of this name too. */
    if (!type || strcmp(type, "xkd") != 0) goto fail;
    XKD_TRY(read_config(cx, name, root, config));
    *found = true;
fail:
    json_decref(root);
    xkd_free(text);
    xkd_free(name);
    return status;
}
