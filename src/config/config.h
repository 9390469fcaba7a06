/* What a run is made of. Every field is filled from the option table of config/options.c (key, type, range, default,
 * help), which is also where --help, man pages and completion come from. */
#ifndef XKD_CONFIG_CONFIG_H
#define XKD_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <xkd/clip.h>

#include "base/status.h"
#include "tensor/dtype.h"

typedef enum { XKD_VARIANT_XKD, XKD_VARIANT_MAS, XKD_VARIANT_MATS } xkd_variant;
typedef enum { XKD_ALIGN_MMD, XKD_ALIGN_CORAL } xkd_align_loss;
typedef enum { XKD_ATTN_MEAN, XKD_ATTN_SOFTMAX } xkd_attn_mode;
typedef enum { XKD_TEACHER_GLOBAL, XKD_TEACHER_LOCAL } xkd_teacher_view;
typedef enum { XKD_TRAIN_BOTH, XKD_TRAIN_VIDEO, XKD_TRAIN_AUDIO } xkd_trained;

/* Width D, blocks, heads H of a transformer; method.md section 4. */
typedef struct {
    int64_t width, depth, heads;
} xkd_vit_size;

/* Projection head: D -> hidden -> hidden -> bottleneck -> outputs (K). */
typedef struct {
    int64_t hidden, bottleneck, outputs;
} xkd_head_size;

/* Geometry and architecture: `model.kwargs` of the release. Decides every tensor's name and shape. */
typedef struct {
    xkd_variant variant;
    int64_t channels, frame_height, frame_width, num_frames; /* frame_size, num_frames */
    int64_t vid_patch_t, vid_patch_h, vid_patch_w;
    int64_t spec_freq, spec_time; /* spec_size */
    int64_t spec_patch_f, spec_patch_t;
    bool cls_token;
    xkd_vit_size teacher, student, decoder;
    xkd_head_size head;
    double center_momentum[2]; /* vt2as, at2vs */
    bool norm_pix_loss;
    xkd_align_loss align_loss;
} xkd_model_config;

/* What one training step computes: `model.fwd_kwargs` of the release and our switches. */
typedef struct {
    int64_t global_views; /* g */
    double mask_ratio[XKD_MODALITIES];
    xkd_attn_mode attn_mode;
    bool refine;
    xkd_teacher_view teacher_view;
    double align_coeff, cmkd_coeff, recon_coeff;
    double clip_grad;          /* 0: off */
    int64_t freeze_last_layer; /* epochs */
    int64_t mmd_group;         /* samples per MMD group; 0: all of the (micro-)batch */
    xkd_trained modality;
} xkd_step_config;

enum { XKD_GLOBAL_VIEW, XKD_LOCAL_VIEW, XKD_VIEW_KINDS };

/* Augmentation of one kind of video view; method.md section 2. */
typedef struct {
    double color[4];      /* brightness, contrast, saturation, hue */
    double crop_scale[2]; /* area range of RandomResizedCrop */
    double p_flip, p_gray, p_blur;
} xkd_video_view_config;

/* Augmentation of one kind of audio view. */
typedef struct {
    bool volume_jitter;
    double volume; /* gain is uniform in [1 - volume, 1 + volume] */
    bool time_warp;
    int64_t warp_window; /* spectrogram columns */
    bool rand_crop;
    double virtual_crop_scale[2], freq_scale[2], time_scale[2];
} xkd_audio_view_config;

typedef enum { XKD_CACHE_NONE, XKD_CACHE_RAM, XKD_CACHE_FOLDER } xkd_cache_mode;
typedef enum { XKD_AUDIO_REQUIRE, XKD_AUDIO_SILENCE, XKD_AUDIO_DROP } xkd_audio_policy;

/* From files to views: `dataset` of the release and our `data.*` keys. */
typedef struct {
    char *path;  /* folder or manifest; owned by the config */
    char *split; /* "train", ... ; "" takes every line; {fold} in it stands for the number below */
    int64_t fold;
    double clip_duration, video_fps;
    double audio_clip_duration; /* seconds; 0: clip_duration; see xkd_config_choose_duration */
    int64_t crop_size;
    int64_t audio_rate, hop_length, n_mels, n_fft;
    double mel_mean, mel_std;
    int64_t video_temporal_ratio, audio_temporal_ratio; /* global length / local length */
    double video_spatial_ratio;
    int64_t video_local_views, audio_local_views, global_views;
    xkd_video_view_config video_view[XKD_VIEW_KINDS];
    xkd_audio_view_config audio_view[XKD_VIEW_KINDS];
    bool release_blur; /* the release's (0.1, 2) as the two axes' sigmas instead of a drawn sigma */
    bool stream_colour;
    bool shuffle, drop_last;
    xkd_cache_mode cache;
    char *cache_folder;
    xkd_audio_policy audio_policy;
    double max_bad_fraction;
    double max_absent_fraction;    /* 0: as the data set has it (data/import.h) */
    int64_t workers;               /* 0: as many as there are processors */
    double decode_seconds;         /* time limit of one clip */
    double max_clip_damage;        /* share of a clip's pictures or sound */
    double cache_memory;           /* GB of decoded files in memory; 0: half of what is free */
    int64_t audio_track;           /* 1, 2, ... of a file's sound tracks; 0: the default one, else the first */
    bool hold_last_frame;          /* the last picture stays to the end of the sound */
    bool left_out[XKD_MODALITIES]; /* by model.fwd_kwargs.modality; set by xkd_config_finish */
    double file_memory;            /* GB of one file that are held where clips are cut from whole files */
    bool follow_links;
} xkd_data_config;

/* value(step): warm-up from `warmup` to `base` over warmup_epochs, then cosine to `final`; method.md section 7. */
typedef struct {
    double warmup, base, final;
    double warmup_epochs;
} xkd_schedule_config;

typedef struct {
    double betas[2], eps;
    xkd_schedule_config lr, weight_decay, ema[XKD_MODALITIES];
    double lr_scale_to_batch; /* 0: lr is used as it is; n: lr * batch / n */
    double teacher_temp_warmup[XKD_MODALITIES], teacher_temp[XKD_MODALITIES], student_temp[XKD_MODALITIES];
    int64_t teacher_temp_warmup_epochs[XKD_MODALITIES];
    int64_t epochs;
    int64_t num_node, batch_size;
    /* What the alignment loss asks of a smaller last micro-batch: a multiple of the first, at least the second. Set by
     * xkd_config_finish. */
    int64_t micro_multiple, micro_least;
    int64_t batch;      /* effective: num_node * batch_size; set by xkd_config_finish */
    int64_t accumulate; /* micro-batches a step in one process */
    int64_t ranks; /* processes that train together; the launcher's to set before xkd_config_finish, 0 counts as 1 */
    bool wire_bfloat16; /* gradients travel between ranks in bfloat16 */
    int64_t parts;      /* micro-batches a step over all ranks: ranks * accumulate behind xkd_config_finish */
    uint64_t seed;
} xkd_train_config;

enum { XKD_LIST_LIMIT = 16 };

/* A list of as many numbers as are given. */
typedef struct {
    int64_t count;
    double value[XKD_LIST_LIMIT];
} xkd_number_list;

typedef enum { XKD_EVAL_FINETUNE, XKD_EVAL_LINEAR } xkd_eval_mode;
typedef enum { XKD_ENSEMBLE_MEAN, XKD_ENSEMBLE_MAX, XKD_ENSEMBLE_SUM } xkd_ensemble;
typedef enum { XKD_TRANSFORM_PRETRAIN, XKD_TRANSFORM_STRONG, XKD_TRANSFORM_RANDAUG } xkd_transform;
typedef enum { XKD_MEL_KINETICS, XKD_MEL_FSD50K, XKD_MEL_ESC50, XKD_MEL_OPENMIC } xkd_mel_norm;
typedef enum { XKD_LR_COSINE, XKD_LR_FIXED, XKD_LR_STEP } xkd_lr_form;

/* Evaluation: the released svm_*, linear_* and finetune_* files; method.md section 10. */
typedef struct {
    xkd_eval_mode mode;
    int64_t frequency; /* epochs between tests */
    char *test_split, *test_path;
    bool student;
    int64_t train_clips, test_clips;
    xkd_ensemble ensemble;
    xkd_transform vid_transform, aud_transform;
    bool return_video, return_audio;
    xkd_mel_norm mel_norm;
    double aspect_ratio[2];
    char *auto_augment;
    int64_t short_side; /* of decoded frames; 0: as in the file */
    bool flip;
    double erase;
    bool frequency_mask, time_mask;
    int64_t frequency_mask_width[2], time_mask_width[2], frequency_masks, time_masks;
    xkd_lr_form lr_form;
    xkd_number_list milestones; /* epochs */
    double gamma, layer_decay;
    double mixup, cutmix, mix_probability, switch_probability, label_smoothing;
    int64_t classes; /* 0: as many as the manifest has */
    bool l2_norm, batch_norm, use_dropout;
    double dropout, drop_path;
    enum { XKD_FEAT_POOL, XKD_FEAT_CLS } feat_op;
    xkd_number_list cost; /* values of C */
    int64_t svm_iterations;
    bool svm_scale;
} xkd_eval_config;

/* Saving, logging and limits of a run. */
typedef struct {
    char *out;  /* run folder */
    char *init; /* file of weights to start from; empty: fresh ones */
    int64_t save_steps, keep_last;
    double save_minutes;
    int64_t picture_steps, print_steps;
    bool tensorboard;
    int64_t max_steps;       /* 0: to the end */
    int64_t max_bad_steps;   /* skipped non-finite steps of the last bad_step_window before exit 6 */
    int64_t bad_step_window; /* steps */
    double peer_timeout;     /* s without a sign of life after which a rank counts as lost */
    bool overfit;            /* the first batch over and over */
    int64_t probe_epochs;    /* between two probes of the teachers; 0: none */
    char *probe_data, *probe_split;
    double probe_memory; /* GB of decoded clips that are kept from probe to probe */
} xkd_run_config;

/* What networks compute in; bfloat16 stores weights, activations and their gradients, and all else is float32. */
typedef enum { XKD_PRECISION_FLOAT32, XKD_PRECISION_BFLOAT16, XKD_PRECISION_TF32 } xkd_precision;

/* Where the views of pre-training are made; auto: on a GPU where the run is on one. */
typedef enum { XKD_AUGMENT_AUTO, XKD_AUGMENT_CPU, XKD_AUGMENT_GPU } xkd_augment;

typedef struct {
    char *name;
    xkd_model_config model;
    xkd_step_config step;
    xkd_data_config data;
    xkd_train_config train;
    xkd_run_config run;
    xkd_eval_config eval;
    char *device; /* name of a backend: xkd_backend_new */
    xkd_precision precision;
    xkd_augment augment;
    int64_t threads; /* 0: as many as there are processors */
} xkd_config;

/* Stored type of the run's tensors. */
xkd_dtype xkd_config_dtype(const xkd_config *config);

/* Fills *config with the defaults of the option table: the XKD preset. Release with xkd_config_free in any case. */
xkd_status xkd_config_init(xkd_context *cx, xkd_config *config);
void xkd_config_free(xkd_config *config); /* the strings in it, not the struct */

/* Reads a YAML file (or text called `name`) into *config; what it does not mention stays. Unknown keys, wrong types and
 * values out of range are XKD_ERR_CONFIG with file and line; with `strict` so is a key given twice. */
xkd_status xkd_config_load(xkd_context *cx, xkd_config *config, const char *path, bool strict);
/* The same, not strict, for a file that one call has loaded before: its keys without effect are not named again. */
xkd_status xkd_config_load_again(xkd_context *cx, xkd_config *config, const char *path);
xkd_status xkd_config_parse(xkd_context *cx, xkd_config *config, const char *name, const char *text, int64_t size,
                            bool strict);

/* Applies one "key.sub=value"; the value is YAML. */
xkd_status xkd_config_override(xkd_context *cx, xkd_config *config, const char *assignment);

/* Derives what follows from other values (effective batch, split name) and refuses models that contradict themselves:
 * patches that do not divide the input, heads that do not divide the width, masks that leave nothing. Call it after the
 * last load or override, before the config is used. */
xkd_status xkd_config_finish(xkd_context *cx, xkd_config *config);

/* Whether run.device makes the views of pre-training (run.augment). XKD_ERR_CONFIG where it is told to and cannot. */
xkd_status xkd_config_device_views(xkd_context *cx, const xkd_config *config, bool *out);

/* Whether run.device may be this: cpu, ref, guard or guard:N. What of it is there, its backend says. */
bool xkd_device_is_known(const char *name);

/* Refuses views that do not fit the model: for runs that read media, where xkd_config_finish looks at the model alone. */
xkd_status xkd_config_check_data(xkd_context *cx, const xkd_config *config);

/* Makes data.clip_duration that of the clips of the modalities that are wanted: of sound alone data.audio_clip_duration,
 * where it is set. With both it has to be equal: XKD_ERR_CONFIG. Call it once the modalities are known. */
xkd_status xkd_config_choose_duration(xkd_context *cx, const bool wanted[XKD_MODALITIES], xkd_config *config);

/* The whole configuration as YAML that xkd_config_parse reads back to the same values. The caller frees *text with
 * xkd_free. */
xkd_status xkd_config_write(xkd_context *cx, const xkd_config *config, char **text);

/* A line "key: value" for every option whose value is another than in `base`, in the table's order; "" for none. An
 * option that is added later leaves the text as it was. The caller frees *text with xkd_free. */
xkd_status xkd_config_write_changed(xkd_context *cx, const xkd_config *config, const xkd_config *base, char **text);

#endif
