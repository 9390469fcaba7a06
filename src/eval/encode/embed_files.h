/* Many files -> one feature file, in as many sittings as it takes. What is finished stands in PATH.partial until all is
 * done; the same work given again goes on behind it. */
#ifndef XKD_EVAL_ENCODE_EMBED_FILES_H
#define XKD_EVAL_ENCODE_EMBED_FILES_H

#include "dist/dist.h"
#include "eval/encode/embed.h"
#include "eval/encode/embeddings.h"

typedef struct {
    const xkd_embed_options *options;
    const xkd_embed_input *inputs; /* [count], numbers ascending */
    int64_t count;
    const char *path; /* feature file; its ending says the form */
    xkd_shard shard;  /* what the inputs are of; for the feature file */
    bool pairs;       /* a file that lacks one of the wanted modalities counts as unreadable */
    bool anew;        /* forget what an unfinished run left */
    double max_bad;   /* share of unreadable files, and of damaged clips, up to which there is a result */
    /* Finished feature files of other work, such as other folds: what they hold of a file of the same contents, draws and
     * options is taken over, for it would be made again to the bit. Those that are not there or do not fit are passed over. */
    char *const *donors; /* [donor_count] */
    int64_t donor_count;
    xkd_dist *dist; /* for xkd_embed_files_heard: the ranks that share the work; NULL: this process alone */
    void *user;     /* of the callbacks, each of which may be NULL */
    /* Once, where an earlier sitting has done some. */
    void (*resumed)(void *user, int64_t done, int64_t count);
    void (*taken)(void *user, int64_t taken, const char *from); /* files taken over from a donor */
    /* A file is done: `done` of `todo` in this sitting. result->fault says why it has no features. */
    void (*file)(void *user, const char *path, const xkd_media_result *result, int64_t done, int64_t todo);
    int (*stop)(void *user); /* as xkd_embed_sink */
} xkd_embed_job;

typedef struct {
    int64_t files, bad, clips[XKD_MODALITIES];
    int64_t damaged; /* clips of both whose damage is more than data.max_clip_damage */
} xkd_embed_counts;

/* Of a result. `most`: data.max_clip_damage. */
xkd_embed_counts xkd_embed_counts_of(const xkd_embeddings *e, double most);

/* XKD_ERR_DATA where more than the share max_bad of the files could not be read, or of the clips is damaged. `path` begins
 * the names of what keeps the finished work. */
xkd_status xkd_embed_check_budget(xkd_context *cx, const xkd_embed_counts *counts, double max_bad, const char *path);

/* What features are made with unless a file or a setting says otherwise: 25 training clips and 3 test clips, without masks of
 * the spectrogram or batch norm. xkd_clip_training_views says how they are augmented. */
void xkd_embed_clip_defaults(xkd_eval_config *eval);

/* Options for features of training, test or windowed clips as a configuration has them; `clips` above 0 overrides its
 * number. Leaves one global view and no local ones in config->data, which the result points into. */
xkd_embed_options xkd_embed_options_of(xkd_config *config, xkd_clip_protocol protocol, int64_t clips);

/* Hash of all that decides the features: models, options, files with their contents (data/identity.h) and labels. */
xkd_status xkd_embed_settings(xkd_context *cx, const xkd_embed_job *job, uint64_t *out);

/* Does the work and writes the feature file. XKD_ERR_INTERRUPTED where `stop` asked for it; XKD_ERR_CONFIG: PATH.partial
 * is of other work; XKD_ERR_NUMERIC: a feature is not finite; XKD_ERR_DATA: too many unreadable files, then nothing is written but PATH.partial stays. */
xkd_status xkd_embed_files(xkd_context *cx, xkd_backend *be, const xkd_embed_job *job, xkd_embed_counts *out);

/* Seconds of one clip in each wanted encoder, by a clip of zeros; decoding goes on beside it. 0 where not wanted. */
xkd_status xkd_embed_estimate(xkd_context *cx, xkd_backend *be, const xkd_embed_options *options,
                              double seconds[XKD_MODALITIES]);

#endif
