/* A trained encoder by itself: read from any file that holds one, and turned into features. method.md sections 3, 9, 10.
 *
 * Accepted are a whole model (of which teacher or student is taken), the run folder of pre-training or of supervised
 * training, one backbone as released (.pth.tar, safetensors) and the evaluation code's names. Loading is strict: a tensor
 * too few, too many or of another shape is refused. */
#ifndef XKD_EVAL_ENCODE_ENCODER_H
#define XKD_EVAL_ENCODE_ENCODER_H

#include "checkpoint/content.h"
#include "model/backbone.h"
#include "nn/head.h"

/* Which encoder. A file does not say how many heads it has or how its patches lie in the input. These come, in this
 * order, from `geometry`, from the configuration in the file's metadata, from a config.yaml of the run folder, or are
 * the released models'. Heads that none of them has for this width are those of the preset of the width. */
typedef struct {
    const char *path; /* file or run folder */
    xkd_modality modality;
    bool student;                     /* the teacher's encoder otherwise; a file of one backbone is neither */
    const xkd_model_config *geometry; /* NULL: found as described above */
    int64_t heads;                    /* 0: found as described above */
    bool head;                        /* the file may hold a classifier besides: head.* */
    bool projector;                   /* with the projection head of pre-training; only whole models have it */
} xkd_encoder_source;

typedef struct {
    xkd_model_config config; /* geometry: patch sides and the input of training */
    xkd_params params;
    xkd_backbone backbone;
    bool projector;
    bool classifier;           /* rows head.* come from the file */
    xkd_head head;             /* of a projector */
    char hash[XKD_MODEL_HASH]; /* XXH3-128 over geometry, names and values as float32, and behind it a precision that is
                                * not float32: tells features of different models apart */
    xkd_tensor_file file;      /* open between declare and allocate only */
    xkd_content content;
} xkd_encoder;

/* XKD_ERR_CHECKPOINT where there is nothing at `path`: a model that is misspelt is no fault of the storage. */
xkd_status xkd_encoder_check_path(xkd_context *cx, const char *path);

/* Which encoders a file or run folder has, and, overlaid on *config, the configuration it was trained with, if that is
 * known. Whole models are asked for their teachers. */
xkd_status xkd_encoder_describe(xkd_context *cx, const char *path, xkd_config *config, bool has[XKD_MODALITIES]);

/* Reads what the file holds and declares the rows of its encoder as `role` (XKD_ROLE_TRAINED for fine-tuning, else
 * XKD_ROLE_FROZEN). The caller may then declare further rows in out->params. Free with xkd_encoder_free in any case.
 * XKD_ERR_CHECKPOINT: not an encoder, of the other modality, no such part; XKD_ERR_CONFIG: geometry does not fit. */
xkd_status xkd_encoder_declare(xkd_context *cx, const xkd_encoder_source *source, xkd_param_role role,
                               xkd_encoder *out);

/* Allocates all rows in the memory of `be` and copies the encoder's from the file, which is closed. Rows head.* are copied if they were asked
 * for and the file has them, and left zero otherwise. */
xkd_status xkd_encoder_allocate(xkd_context *cx, xkd_encoder *encoder, const xkd_backend *be, bool training);

/* Both in one, for features. */
xkd_status xkd_encoder_load(xkd_context *cx, const xkd_encoder_source *source, const xkd_backend *be, xkd_encoder *out);
void xkd_encoder_free(xkd_encoder *encoder);

/* An encoder with its projection head that lives elsewhere, in a model in training with `be`: features of its current rows.
 * It owns nothing and is not freed. */
void xkd_encoder_borrow(xkd_encoder *out, const xkd_backbone *backbone, const xkd_head *head, const xkd_backend *be);

/* Mean of the patch tokens, class token, all tokens, or the projection head's outputs for the mean (K of them): the
 * space in which pre-training compares the modalities. */
typedef enum { XKD_FEATURE_MEAN, XKD_FEATURE_CLS, XKD_FEATURE_NONE, XKD_FEATURE_HEAD } xkd_feature_kind;

/* Its words, by kind. */
extern const char *const xkd_feature_kind_names[];

/* "mean" (the release's feat_op: pool), "cls", "none" or "head". False for another word. */
bool xkd_feature_kind_of(const char *word, xkd_feature_kind *out);

/* Memory and plan for batches of B clips of one shape. */
typedef struct {
    xkd_backbone backbone; /* the encoder's, cut to `layer` blocks; borrows its rows */
    xkd_feature_kind kind;
    int64_t B, width, rows; /* features of a clip: [rows,width]; rows = 1 unless kind is NONE */
    int64_t clip_floats;    /* C*T*H*W */
    xkd_backbone_run run;
    xkd_block_scratch scratch;
    xkd_arena arena;
    float *clips; /* room for the clips on a device */
    void *pooled; /* [B,D] exact */
    const xkd_head *head;
    xkd_head_saved saved; /* of a projector; its input is `pooled` */
} xkd_encoder_run;

/* `shape`: B clips [C,T,H,W] of any size that patches divide; positions are interpolated. `layer`: features behind that
 * many blocks, 0 .. depth, -1: all of them; encoder_norm is applied whichever it is. NONE gives all tokens, the class
 * token first. `encoder` must outlive the run. Free with xkd_encoder_run_free in any case. */
xkd_status xkd_encoder_run_new(xkd_context *cx, const xkd_encoder *encoder, const xkd_view_shape *shape,
                               xkd_feature_kind kind, int64_t layer, xkd_encoder_run *out);
void xkd_encoder_run_free(xkd_encoder_run *run);

/* clips [B,C,T,H,W] -> out [B,rows,width], overwritten. */
xkd_status xkd_encoder_features(xkd_backend *be, xkd_encoder_run *run, const float *clips, float *out);

/* After features of kind HEAD: out [count,D] = the means that the first `count` of them were made from. */
void xkd_encoder_pooled(const xkd_backend *be, const xkd_encoder_run *run, int64_t count, float *out);

#endif
