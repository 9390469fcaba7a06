/* What the tensors of a file mean: a whole XKD model, one backbone under the release's or the evaluation code's names,
 * or something else; and their names in this project's (the release's) form. method.md section 9. */
#ifndef XKD_CHECKPOINT_CONTENT_H
#define XKD_CHECKPOINT_CONTENT_H

#include "checkpoint/tensor_file.h"
#include "config/config.h"

typedef enum {
    XKD_CONTENT_MODEL,    /* {vid,aud}_{student,teacher}.*, {vid,aud}_ae.*, centres */
    XKD_CONTENT_BACKBONE, /* one encoder without prefix */
    XKD_CONTENT_OTHER
} xkd_content_kind;

/* Sizes read from shapes. Heads cannot be: they are those of the preset with this width. */
typedef struct {
    int64_t width, depth, heads, patch, tokens; /* D, blocks, H, P, rows of the positional table without class token */
    bool cls_token;
} xkd_geometry;

typedef struct {
    xkd_content_kind kind;
    xkd_modality modality;      /* of a backbone */
    char prefix[64];            /* what was cut off in front of all names, "" or with its dot: "state_dict.model." */
    char several[256];          /* prefixes of networks, where there are more than one to choose from; else "" */
    const char *foreign;        /* what it is where it is another known architecture; NULL: not so */
    bool checkpoint;            /* it was the "model" of a training checkpoint; optimiser and the rest are in `rest` */
    bool own_checkpoint;        /* one of ours: its optimiser is in `rest` */
    bool ddp;                   /* names began with "module." */
    bool wrapped;               /* or with something else that training programs put there (prefix) */
    const char *inner;          /* "._orig_mod." or the like: it was cut out of names; NULL: nothing was */
    bool short_names;           /* it had the evaluation code's names */
    xkd_geometry geometry;      /* of the backbone, or of the model's first encoder: student, else teacher */
    xkd_stored_tensor *tensors; /* [count] renamed; data belongs to the file */
    int64_t count;
    char **names;            /* [count], owned */
    xkd_stored_tensor *rest; /* [rest_count] what stands beside the model in a checkpoint, under the file's names */
    int64_t rest_count;
} xkd_content;

/* Renames and classifies. The file must outlive the result; free with xkd_content_free, also after an error. Two tensors
 * that would get one name are XKD_ERR_CHECKPOINT. */
xkd_status xkd_content_identify(xkd_context *cx, const xkd_tensor_file *file, xkd_content *out);
void xkd_content_free(xkd_content *content);

/* Sizes of the backbone whose names begin with `prefix` ("" for one on its own); what its shapes do not tell is 0. */
xkd_geometry xkd_content_geometry(const xkd_content *content, const char *prefix);

/* What a configuration makes of `tokens` and `patch` of one modality. */
void xkd_geometry_of(const xkd_model_config *config, xkd_modality modality, int64_t *tokens, int64_t *patch);

const xkd_stored_tensor *xkd_content_find(const xkd_content *content, const char *name);

/* XKD_ERR_CHECKPOINT for content of no known kind: says what it is instead, as far as that is known. */
xkd_status xkd_content_refuse(xkd_context *cx, const xkd_content *content, const char *path);

/* One line for people: "video backbone, width 768, 12 blocks, 12 heads (by preset), ..." */
xkd_status xkd_content_describe(xkd_context *cx, const xkd_content *content, char **out);

/* Keeps only tensors whose names begin with `part` and a dot ("vid_teacher.backbone"), and cuts that off. None:
 * XKD_ERR_CONFIG with the parts there are. */
xkd_status xkd_content_select(xkd_context *cx, xkd_content *content, const char *part, const char *path);

#endif
