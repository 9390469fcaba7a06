/* What the commands that use a trained encoder share: its options, the configuration it was trained with, loading. */
#ifndef XKD_CLI_MODEL_ARGS_H
#define XKD_CLI_MODEL_ARGS_H

#include "cli.h"
#include "eval/encode/models.h"

/* Options of the command line; put MODEL_OPTIONS(struct values, model) into the command's table. */
struct model_args {
    const char *config, *audio_model, *modality;
    bool follow_links;
    bool student, projector; /* projector: with the projection heads, set by the command */
    bool config_again;       /* the command has loaded `config` before; set by it */
    int64_t heads;
    const char *const *settings; /* KEY=VALUE below the file of --config, ended by NULL; set by the command */
};

#define MODEL_OPTIONS(VALUES, FIELD)                                                                               \
    {'c', "config", CLI_TEXT, offsetof(VALUES, FIELD.config), "FILE", "configuration (default: the model's own)"}, \
        {0,        "modality",                                                                                     \
         CLI_TEXT, offsetof(VALUES, FIELD.modality),                                                               \
         "M",      "video, audio or both (default: what the model has and -c or dataset.return_* leave)"},         \
        {0,        "audio-model",                                                                                  \
         CLI_TEXT, offsetof(VALUES, FIELD.audio_model),                                                            \
         "FILE",   "take the audio encoder from another file"},                                                    \
        {0,        "student",                                                                                      \
         CLI_FLAG, offsetof(VALUES, FIELD.student),                                                                \
         NULL,     "the students' encoders instead of the teachers'"},                                             \
        FOLLOW_LINKS_OPTION(VALUES, FIELD.follow_links),                                                           \
    {                                                                                                              \
        0, "heads", CLI_INT, offsetof(VALUES, FIELD.heads), "H", "attention heads, where the file cannot say"      \
    }

/* xkd_models_load with these options. Release with xkd_models_free in any case. */
xkd_status models_load(struct cli *cli, const struct model_args *args, const char *path, char **overrides, int count,
                       xkd_models *out);

#endif
