/* Features of videos and sounds by a trained encoder; the same numbers, to the bit, as `xkd embed` writes. No file is written.
 *
 *     xkd_embedder *embedder;
 *     xkd_features features;
 *     if (xkd_embedder_open(cx, "runs/first", NULL, &embedder) != XKD_OK) fail(xkd_last_error(cx));
 *     if (xkd_embedder_file(embedder, "holiday.mp4", &features) != XKD_OK) fail(xkd_embedder_error(embedder));
 *     for (int64_t i = 0; i < features.count[XKD_VIDEO]; i++) use(features.row[XKD_VIDEO] + i * features.width[XKD_VIDEO]);
 *     xkd_embedder_close(embedder);
 *
 * Threads: a handle serves one thread at a time, and may pass from thread to thread. Any number of handles work side by
 * side, of one context or of several, each with computing threads of its own (run.threads). The context must outlive its
 * handles; its log and progress callbacks serve them all. */
#ifndef XKD_EMBED_H
#define XKD_EMBED_H

#include <stdint.h>
#include <xkd/clip.h>
#include <xkd/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct xkd_embedder xkd_embedder;

/* Which modalities' encoders are loaded. */
typedef enum { XKD_WANT_ALL /* that the model has */, XKD_WANT_VIDEO, XKD_WANT_AUDIO, XKD_WANT_BOTH } xkd_wanted;

/* What a clip's feature is: what the model's configuration says (the mean unless it says otherwise), the mean of its patch tokens, the class token, all tokens, or the outputs of the projection head,
 * the one space in which video and sound can be compared. */
typedef enum { XKD_POOL_DEFAULT, XKD_POOL_MEAN, XKD_POOL_CLS, XKD_POOL_NONE, XKD_POOL_HEAD } xkd_pool_kind;

/* Which clips of a file: windows over all of it; `clips` of them spread evenly; `clips` of them at random, augmented. */
typedef enum { XKD_TAKE_WINDOWS, XKD_TAKE_TEST, XKD_TAKE_TRAIN } xkd_take;

/* Begin with xkd_embedder_defaults, so that a field that a later version adds has its default. Strings are copied. */
typedef struct {
    const char *config;      /* YAML file over the model's own configuration; NULL: none */
    const char *audio_model; /* file with the audio encoder; NULL: the model's own */
    xkd_wanted wanted;
    int student;   /* 1: the students' encoders instead of the teachers' */
    int64_t heads; /* attention heads where the file cannot say; 0: it can */
    xkd_pool_kind pool;
    int64_t layer; /* features behind so many blocks; -1: all of them */
    xkd_take take;
    int64_t clips;               /* of TEST and TRAIN; 0: 3 and 25 */
    double stride;               /* seconds between windows; 0: a clip's length */
    int64_t batch;               /* clips that are computed together */
    int64_t threads;             /* that compute; 0: one for each processor */
    const char *const *settings; /* [setting_count] "key=value" of `xkd help options`, over the model's own */
    int64_t setting_count;
} xkd_embedder_options;

XKD_API void xkd_embedder_defaults(xkd_embedder_options *options);

/* Opens a run folder, or a model or encoder file in any form that `xkd inspect` knows. options NULL: the defaults. The caller
 * closes *out, which is NULL after an error; the message is then the context's. XKD_ERR_CHECKPOINT: no such model, or not one
 * with the wanted encoders; XKD_ERR_CONFIG: settings that are wrong or do not fit it. */
XKD_API xkd_status xkd_embedder_open(xkd_context *cx, const char *model, const xkd_embedder_options *options,
                                     xkd_embedder **out);
XKD_API void xkd_embedder_close(xkd_embedder *embedder); /* NULL is allowed */

/* Message of the handle's last call that failed, "" if none has. Valid until its next call. */
XKD_API const char *xkd_embedder_error(const xkd_embedder *embedder);

/* What the encoder of a modality takes and gives. */
typedef struct {
    int present;         /* 0: no such encoder was loaded, and all else is 0 */
    int64_t rows, width; /* of a clip's feature [rows,width]; rows is 1 unless pool is XKD_POOL_NONE */
    int64_t clip[4];     /* C,T,H,W of a clip: video 3,32,112,112; audio 1,1,80,448 */
    double seconds;      /* a clip lasts */
    double rate;         /* frames or samples a second */
    char hash
        [XKD_MODEL_HASH]; /* of geometry, names and values: features of models with other hashes cannot be compared */
} xkd_encoder_info;

XKD_API xkd_encoder_info xkd_embedder_info(const xkd_embedder *embedder, xkd_modality modality);

/* What an encoder is made of, for programs that rebuild it in another framework (docs/method.md sections 3 and 4). */
typedef struct {
    int64_t width, depth, heads;
    int64_t channels, patch[3]; /* of the input; t,h,w of a patch (audio: 1, mel bands, columns) */
    int64_t grid[3];            /* tokens along t,h,w of the input it was trained with */
    int cls_token;              /* 1: row 0 of the positional table and a token in front */
} xkd_encoder_geometry;

/* All zero where no such encoder was loaded. */
XKD_API xkd_encoder_geometry xkd_embedder_geometry(const xkd_embedder *embedder, xkd_modality modality);

/* A tensor of the encoder under its public name without a prefix, such as "encoder.blocks.0.attn.qkv.weight". The embedder's,
 * and constant, for as long as it is open. */
typedef struct {
    const char *name;
    const float *data; /* [shape] */
    int64_t dims, shape[4];
} xkd_weight;

/* Tensor 0, 1, ... of an encoder. XKD_ERR_CONFIG behind the last. */
XKD_API xkd_status xkd_embedder_weight(xkd_embedder *embedder, xkd_modality modality, int64_t index, xkd_weight *out);

/* Features of one source; memory of the handle's that is valid until its next call. */
typedef struct {
    int64_t count[XKD_MODALITIES]; /* clips; 0 where the stream is not there or not wanted */
    int64_t rows[XKD_MODALITIES];  /* as xkd_encoder_info */
    int64_t width[XKD_MODALITIES];
    const float *row[XKD_MODALITIES];      /* [count,rows,width] */
    const double *seconds[XKD_MODALITIES]; /* [count] where the clips begin */
} xkd_features;

/* Of a file; a link is followed wherever it leads. XKD_ERR_DATA: no such file, one that cannot be decoded, or one with none of
 * the wanted streams. Clips that are damaged beyond data.max_clip_damage are named in the log as warnings, here and below. */
XKD_API xkd_status xkd_embedder_file(xkd_embedder *embedder, const char *path, xkd_features *out);

/* Of frames, of samples, or of both, which then begin together; NULL for what there is not. The result is that of a file with
 * the same contents. */
XKD_API xkd_status xkd_embedder_memory(xkd_embedder *embedder, const xkd_frames *frames, const xkd_samples *samples,
                                       xkd_features *out);

/* Of clips that are prepared already: clips [count,C,T,H,W] as xkd_encoder_info has their sizes, normalised as training does
 * it (method.md section 2). out [count,rows,width] is overwritten. */
XKD_API xkd_status xkd_embedder_clips(xkd_embedder *embedder, xkd_modality modality, const float *clips, int64_t count,
                                      float *out);

/* Receives a file's features, or, with `error`, why it has none: "no-video: ...". Both are valid during the call. Non-zero ends
 * the work with XKD_ERR_INTERRUPTED. */
typedef int (*xkd_features_sink)(void *user, int64_t index, const xkd_features *features, const char *error);

/* Of many files, in their order; clips of different files share batches. A file that cannot be read costs its own features
 * only. */
XKD_API xkd_status xkd_embedder_files(xkd_embedder *embedder, const char *const *paths, int64_t count,
                                      xkd_features_sink sink, void *user);

/* The clips of a file one after the other, while the rest of the file is still being decoded. */
typedef struct xkd_windows xkd_windows;

typedef struct {
    int64_t index;  /* 0, 1, ... */
    double seconds; /* where it begins */
    const float
        *row[XKD_MODALITIES]; /* [rows,width], valid until the next call; NULL: not wanted, or past the stream's end */
} xkd_window;

/* Begins. Features are kept until the end: 6 kB a window of a base encoder. Until xkd_windows_close no other call of `embedder` but its error and info is allowed: XKD_ERR_CONFIG. */
XKD_API xkd_status xkd_embedder_windows(xkd_embedder *embedder, const char *path, xkd_windows **out);

/* The next clip; *more is 0, and *out empty, behind the last. Messages are the embedder's. A file that turns out to be broken
 * behind some clips is XKD_ERR_DATA then. */
XKD_API xkd_status xkd_windows_next(xkd_windows *windows, xkd_window *out, int *more);
XKD_API void xkd_windows_close(xkd_windows *windows); /* NULL is allowed; gives up what is left */

#ifdef __cplusplus
}
#endif
#endif
