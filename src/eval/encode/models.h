/* The encoders that make features: their files, the configuration they were trained with, the recipe of features over it, and a
 * backend. What `xkd embed` and <xkd/embed.h> begin with. */
#ifndef XKD_EVAL_ENCODE_MODELS_H
#define XKD_EVAL_ENCODE_MODELS_H

#include <xkd/embed.h>

#include "eval/encode/embed.h"

/* What is asked for. */
typedef struct {
    const char *config;      /* the user's YAML file; NULL: none */
    const char *audio_model; /* NULL: the model's own */
    xkd_wanted wanted;
    bool follow_links;
    bool student, projector; /* projector: with the projection heads */
    bool config_again;       /* the caller has loaded `config` before */
    int64_t heads;
    const char *const *settings; /* KEY=VALUE below the file `config`, ended by NULL; NULL: none */
} xkd_model_request;

typedef struct {
    xkd_config config;
    bool wanted[XKD_MODALITIES];
    xkd_encoder encoder[XKD_MODALITIES];
    xkd_backend *be;
} xkd_models;

/* Loads the wanted encoders of `path` and makes the backend. Configuration: defaults, the model's own, those of features
 * (eval/encode/embed_files.h), q->settings, q->config, KEY=VALUE overrides [count]. With XKD_WANT_ALL the configuration says what is
 * wanted, as far as the model has it. Release with xkd_models_free in any case. */
xkd_status xkd_models_load(xkd_context *cx, const xkd_model_request *q, const char *path, char *const *overrides,
                           int64_t count, xkd_models *out);
void xkd_models_free(xkd_models *models);

/* The loaded encoders and no others. */
void xkd_models_choose(const xkd_models *models, xkd_embed_options *options);

/* XKD_ERR_CONFIG for settings of fine-tuning that features could only ignore. */
xkd_status xkd_models_check(xkd_context *cx, const xkd_config *config);

/* Of them the one that is no matter of how clips are made, for features that are there. */
xkd_status xkd_models_check_norm(xkd_context *cx, const xkd_config *config);

#endif
