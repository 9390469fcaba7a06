/* A folder in the layout that model hubs use: tensors, two JSON descriptions and a card. It is
 * written for reading elsewhere; this program itself reads the tensors only. */
#include "checkpoint/hf_folder.h"

#include <dirent.h>
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

/* Keys that transformer libraries know come first; the others describe what is special here. */
static xkd_text config_json(xkd_context *cx, const xkd_content *c, const char *const *labels, int64_t label_count)
{
    const xkd_geometry *g = &c->geometry;
    xkd_text t = xkd_text_make(cx);
    xkd_text_printf(&t, "{\n  \"model_type\": \"xkd\",\n  \"architectures\": [\"%s\"],\n  \"modality\": \"%s\",\n",
                    c->kind == XKD_CONTENT_MODEL ? "XKD" : "XKDBackbone", c->modality == XKD_VIDEO ? "video" : "audio");
    xkd_text_printf(&t, "  \"hidden_size\": %lld,\n  \"num_hidden_layers\": %lld,\n  \"num_attention_heads\": %lld,\n",
                    (long long)g->width, (long long)g->depth, (long long)g->heads);
    xkd_text_printf(&t, "  \"intermediate_size\": %lld,\n  \"hidden_act\": \"gelu\",\n  \"layer_norm_eps\": 1e-05,\n",
                    4 * (long long)g->width);
    xkd_text_printf(&t,
                    "  \"patch_length\": %lld,\n  \"num_tokens\": %lld,\n  \"class_token\": %s,\n  \"qkv_bias\": false",
                    (long long)g->patch, (long long)g->tokens, g->cls_token ? "true" : "false");
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

/* What a classifier file says of its input (eval/classifier.h), else what the released models expect; method.md
 * section 2. */
static xkd_text preprocessor_json(xkd_context *cx, xkd_modality modality, const xkd_metadata_item *metadata,
                                  int64_t count)
{
    xkd_text t = xkd_text_make(cx);
    for (int64_t i = 0; i < count; i++) {
        if (strcmp(metadata[i].key, "xkd.preprocessing") != 0) continue;
        xkd_text_printf(&t, "%s\n", metadata[i].value);
        return t;
    }
    if (modality == XKD_VIDEO)
        xkd_text_puts(&t,
                      "{\n  \"feature_extractor_type\": \"XKDVideo\",\n  \"fps\": 8,\n  \"num_frames\": 32,\n"
                      "  \"size\": 112,\n  \"resample\": \"bilinear\",\n  \"rescale_factor\": 0.00392156862745098,\n"
                      "  \"image_mean\": [0.485, 0.456, 0.406],\n  \"image_std\": [0.229, 0.224, 0.225]\n}\n");
    else
        xkd_text_puts(&t, "{\n  \"feature_extractor_type\": \"XKDAudio\",\n  \"sampling_rate\": 16000,\n"
                          "  \"n_fft\": 1024,\n  \"hop_length\": 143,\n  \"num_mel_bins\": 80,\n"
                          "  \"mean\": -5.3688107,\n  \"std\": 4.410007\n}\n");
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

/* Tensors are written from where they are; nothing is copied. Files are published one by one, the
 * card last. */
xkd_status xkd_hf_folder_write(xkd_context *cx, const char *path, const xkd_content *content,
                               const xkd_metadata_item *metadata, int64_t metadata_count, const char *const *labels,
                               int64_t label_count)
{
    xkd_status status = XKD_OK;
    char *described = NULL, *model = NULL;
    xkd_tensor_item *items = NULL;
    xkd_text text;
    /* First of all, so that a mistake in the path costs no work. */
    XKD_TRY(refuse_full_folder(cx, path));
    XKD_TRY(xkd_content_describe(cx, content, &described));
    XKD_TRY(xkd_alloc(cx, &items, content->count, sizeof *items));
    for (int64_t i = 0; i < content->count; i++)
        items[i] = (xkd_tensor_item){content->tensors[i].name, content->tensors[i].dtype, content->tensors[i].shape,
                                     content->tensors[i].data};
    XKD_TRY(xkd_make_folder(cx, path));
    XKD_TRY(xkd_join_path(cx, &model, path, "model.safetensors"));
    XKD_TRY(xkd_safetensors_write(cx, model, items, content->count, metadata, metadata_count));
    text = config_json(cx, content, labels, label_count);
    XKD_TRY(write_text(cx, path, "config.json", &text));
    text = preprocessor_json(cx, content->modality, metadata, metadata_count);
    XKD_TRY(write_text(cx, path, "preprocessor_config.json", &text));
    text = model_card(cx, content, described);
    XKD_TRY(write_text(cx, path, "README.md", &text));
fail:
    xkd_free(described);
    xkd_free(model);
    xkd_free(items);
    return status;
}
