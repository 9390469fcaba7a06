/* Many files -> features: one thread decodes files in order into clips while the caller's computes batches of them,
 * which go across files. Memory depends on the batch and on the features of the files at hand, not on the length of
 * a file. */
#ifndef XKD_EVAL_ENCODE_EMBED_H
#define XKD_EVAL_ENCODE_EMBED_H

#include "eval/encode/clip_feed.h"
#include "eval/encode/encoder.h"

/* What turns clips [B,C,T,H,W] into rows [B,width] where that is no encoder's feature: a classifier's scores. */
typedef struct {
    void *user;
    int64_t width;
    xkd_status (*run)(void *user, const float *clips, float *rows);
} xkd_embed_scorer;

typedef struct {
    xkd_clip_options clips; /* `wanted` says which encoders are used */
    const xkd_encoder *encoder[XKD_MODALITIES];
    const xkd_embed_scorer *scorer; /* instead of the encoders, kind and layer; one modality. NULL: the encoders */
    int64_t batch;
    xkd_feature_kind kind;
    int64_t layer; /* -1: the last */
} xkd_embed_options;

/* All features of one file. Belongs to xkd_embed. */
typedef struct {
    int64_t input;                   /* index into the inputs */
    xkd_media_result result;         /* fault: why there are none */
    bool lacks[XKD_MODALITIES];      /* streams that the file is known not to have */
    int64_t count[XKD_MODALITIES];   /* clips */
    float *feature[XKD_MODALITIES];  /* [count,rows,D] */
    double *seconds[XKD_MODALITIES]; /* [count] starts of the clips */
    double *damage[XKD_MODALITIES];  /* [count] share of each that is damaged or missing */
    int64_t damaged; /* clips of both that data.max_clip_damage does not allow; they have been named in the log */
    int64_t capacity[XKD_MODALITIES];
} xkd_embedded;

typedef struct {
    void *user;
    /* A file is done; in the order of the inputs. A status other than XKD_OK ends it all. */
    xkd_status (*done)(void *user, const xkd_embedded *file);
    /* Asked now and then; non-zero ends the work after the file at hand with XKD_ERR_INTERRUPTED. May be NULL. */
    int (*stop)(void *user);
} xkd_embed_sink;

/* Features of a clip: [rows,D] in *rows and *width. */
xkd_status xkd_embed_shape(xkd_context *cx, const xkd_embed_options *options, xkd_modality modality, int64_t *rows,
                           int64_t *width);

/* What is made once for files with the same options: batches, plans, and the decoding thread. */
typedef struct xkd_embed_engine xkd_embed_engine;

/* With encoders of the backend's dtype (`be` may be NULL with a scorer). `options` and all they name must outlive the engine.
 * Free with xkd_embed_engine_free. */
xkd_status xkd_embed_engine_new(xkd_context *cx, xkd_backend *be, const xkd_embed_options *options,
                                xkd_embed_engine **out);
void xkd_embed_engine_free(xkd_embed_engine *engine); /* NULL is allowed */

/* Does the inputs. */
xkd_status xkd_embed_engine_run(xkd_embed_engine *engine, const xkd_embed_input *inputs, int64_t count,
                                const xkd_embed_sink *sink);

/* The same step by step, without a sink: features grow in the files, which stay until the next list. After an error the list is
 * given up. */
xkd_status xkd_embed_engine_begin(xkd_embed_engine *engine, const xkd_embed_input *inputs, int64_t count);
xkd_status xkd_embed_engine_step(xkd_embed_engine *engine, bool *more); /* false: all is done */
const xkd_embedded *xkd_embed_engine_file(const xkd_embed_engine *engine, int64_t input);
bool xkd_embed_engine_ended(const xkd_embed_engine *engine, int64_t input); /* all its features are there */
void xkd_embed_engine_cancel(xkd_embed_engine *engine);

/* Rows of prepared clips [count,C,T,H,W] of a wanted modality -> out [count,rows,width]. Not while a list is at hand. */
xkd_status xkd_embed_engine_clips(xkd_embed_engine *engine, xkd_modality modality, const float *clips, int64_t count,
                                  float *out);

/* All of it for one list. */
xkd_status xkd_embed(xkd_context *cx, xkd_backend *be, const xkd_embed_options *options, const xkd_embed_input *inputs,
                     int64_t count, const xkd_embed_sink *sink);

#endif
