/* What the commands that embed files share: which encoders take part, a progress bar, signals, and work that is done
 * already. */
#ifndef XKD_CLI_EMBED_ARGS_H
#define XKD_CLI_EMBED_ARGS_H

#include "eval/embed_files.h"
#include "model_args.h"

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
