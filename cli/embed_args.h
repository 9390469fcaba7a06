/* What the commands that embed files share: which encoders take part, a progress bar, signals, and work that is done
 * already. */
#ifndef XKD_CLI_EMBED_ARGS_H
#define XKD_CLI_EMBED_ARGS_H

#include "eval/embed_files.h"
#include "model_args.h"

/* XKD_ERR_CONFIG for settings of fine-tuning that features could only ignore. */
xkd_status embed_check(struct cli *cli, const xkd_config *config);

/* Of them the one that is no matter of how clips are made, for features that are there. */
xkd_status embed_check_norm(struct cli *cli, const xkd_config *config);

/* The loaded encoders and no others. */
void models_choose(const struct models *models, xkd_embed_options *options);

struct embed_progress {
    struct cli *cli;
    const char *title;
    double start;
};

/* xkd_embed_files with a bar and the names of unreadable files on stderr. Signals stop it: XKD_ERR_PREEMPTED or
 * XKD_ERR_INTERRUPTED, having said that the same command goes on. Fills the callbacks of *job. */
xkd_status embed_with_progress(struct embed_progress *progress, xkd_backend *be, xkd_embed_job *job,
                               xkd_embed_counts *out);

/* The same where the feature file may be there from an earlier call: then it is read and nothing is done. One of other
 * work (another model, other options, other files) is XKD_ERR_CONFIG, and so is one that does not say how it was made. */
xkd_status embed_or_read(struct embed_progress *progress, xkd_backend *be, xkd_embed_job *job, xkd_embeddings *out);

#endif
