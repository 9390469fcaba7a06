/* Features of the clips of many files, on disk and in memory. The file is safetensors or npz with tensors `video`
 * and `audio` [clips,D] (or [clips,tokens,D]), `video.file` and `video.seconds` (which file a clip is of, where it
 * starts), likewise for audio, and `about`: JSON text with files as [path, label, split] (and a fourth entry, the list
 * of labels, where a file has several), classes, pool, layer and the models' hashes. npy holds the features of one modality alone, JSONL a clip a line. */
#ifndef XKD_EVAL_ENCODE_EMBEDDINGS_H
#define XKD_EVAL_ENCODE_EMBEDDINGS_H

#include "data/manifest.h"
#include "eval/encode/embed.h"

typedef struct {
    int64_t count, rows, width; /* clips; features of a clip are [rows,width] */
    int64_t capacity;
    float *x;        /* [count,rows,width] */
    int64_t *file;   /* [count] index into files, ascending */
    double *seconds; /* [count] */
    double *damage;  /* [count] share of each clip that is damaged or missing; 0 also where that is not known */
} xkd_feature_table;

/* Every of-th file from the index-th on. */
typedef struct {
    int64_t index, of; /* 1 .. of; of 0 or 1: all files */
    uint64_t work;     /* xkd_embed_settings of the whole, which tells shards of other work apart */
} xkd_shard;

typedef struct {
    xkd_feature_table table[XKD_MODALITIES];    /* count 0: none */
    char model[XKD_MODALITIES][XKD_MODEL_HASH]; /* hash of the encoder, "" where there is none */
    xkd_feature_kind kind;
    int64_t layer;
    char level[8];     /* processor level of the kernels, "" unknown: bits may depend on it */
    uint64_t settings; /* xkd_embed_settings of the work that made it; 0: unknown */
    uint64_t recipe;   /* of it what is no file: models, views and all other options; 0: unknown */
    xkd_shard shard;
    xkd_manifest files; /* path, label or labels, split; classes */
} xkd_embeddings;

void xkd_embeddings_free(xkd_embeddings *e);

/* One clip; the feature [rows,width] is the caller's. */
typedef struct {
    int64_t file;
    double seconds, damage;
    const float *feature;
} xkd_feature_row;

/* Appends a copy of the clip; rows and width of the table must be set. */
xkd_status xkd_embeddings_add(xkd_context *cx, xkd_feature_table *table, const xkd_feature_row *row);

/* Clips of the table whose damage is more than `most`. */
int64_t xkd_embeddings_damaged(const xkd_feature_table *table, double most);

typedef enum {
    XKD_EMBEDDINGS_SAFETENSORS,
    XKD_EMBEDDINGS_NPZ,
    XKD_EMBEDDINGS_NPY,
    XKD_EMBEDDINGS_JSONL
} xkd_embeddings_form;

/* By the ending of a name. XKD_ERR_CONFIG for an unknown one. */
xkd_status xkd_embeddings_form_of(xkd_context *cx, const char *path, xkd_embeddings_form *out);

/* Writes atomically. npy takes one modality only. */
xkd_status xkd_embeddings_write(xkd_context *cx, const xkd_embeddings *e, const char *path, xkd_embeddings_form form);

/* Reads safetensors, npz or JSON Lines as written above. XKD_ERR_DATA for anything else. Free with xkd_embeddings_free, also
 * after an error. */
xkd_status xkd_embeddings_read(xkd_context *cx, const char *path, xkd_embeddings *out);

/* Whether features of both may be compared: same pool and layer, and the same model in each modality that is `used` and in
 * both. Else XKD_ERR_DATA, which calls them a_name and b_name. Where labels play a part, xkd_manifest_compare_classes of
 * their files has to follow. */
xkd_status xkd_embeddings_compare(xkd_context *cx, const xkd_embeddings *a, const char *a_name, const xkd_embeddings *b,
                                  const char *b_name, const bool used[XKD_MODALITIES]);

/* XKD_ERR_NUMERIC with file and clip where a feature of a modality that is used is not finite: it would win or lose every
 * comparison. */
xkd_status xkd_embeddings_check_finite(xkd_context *cx, const xkd_embeddings *e, const char *name,
                                       const bool used[XKD_MODALITIES]);

/* XKD_ERR_DATA for a shard: what it lacks would lower or raise a figure unseen. */
xkd_status xkd_embeddings_check_whole(xkd_context *cx, const xkd_embeddings *e, const char *name);

/* One of the parts [count], which are called names[]. Shards are put in the order in which one run would have written them, all
 * of them and each once; other files follow one another and share no path. XKD_ERR_DATA otherwise, and where the parts
 * may not be compared. Free *out with xkd_embeddings_free, also after an error. */
xkd_status xkd_embeddings_join(xkd_context *cx, const xkd_embeddings *parts, char *const *names, int64_t count,
                               xkd_embeddings *out);

#endif
