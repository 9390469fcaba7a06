/* What a run is made of. Every field is filled from the option table of config/options.c (key, type, range, default,
 * help), which is also where --help, man pages and completion come from. */
#ifndef XKD_CONFIG_CONFIG_H
#define XKD_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

typedef enum { XKD_VIDEO, XKD_AUDIO, XKD_MODALITIES } xkd_modality;

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

#endif
