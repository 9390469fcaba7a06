/* A folder in Hugging Face style: config.json (geometry, id2label), preprocessor_config.json, model.safetensors and a
 * model card. It is data for other programs; nothing is uploaded or downloaded. */
#ifndef XKD_CHECKPOINT_HF_FOLDER_H
#define XKD_CHECKPOINT_HF_FOLDER_H

#include "checkpoint/content.h"

/* Writes the folder, which must not exist or be empty (XKD_ERR_STORAGE), from an XKD model (else XKD_ERR_CONFIG). `labels`
 * NULL: no id2label. Metadata called xkd.config says what shapes do not: heads, frames, spectrograms; without it they are
 * the released models' where the shapes fit those, and left out where they do not. Metadata called xkd.preprocessing
 * becomes preprocessor_config.json as it is. */
xkd_status xkd_hf_folder_write(xkd_context *cx, const char *path, const xkd_content *content,
                               const xkd_metadata_item *metadata, int64_t metadata_count, const char *const *labels,
                               int64_t label_count);

/* Overlays on *config what the config.json beside the tensor file `path` says of an XKD model: geometry and heads, and the
 * clips that fit them. *found is false where there is none, or one of another kind of model. Numbers that no model can
 * have are XKD_ERR_CHECKPOINT. */
xkd_status xkd_hf_folder_describe(xkd_context *cx, const char *path, xkd_config *config, bool *found);

#endif
