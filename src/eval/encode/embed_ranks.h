/* xkd_embed_files by the ranks of a run, and what belongs to putting feature files together. */
#ifndef XKD_EVAL_ENCODE_EMBED_RANKS_H
#define XKD_EVAL_ENCODE_EMBED_RANKS_H

#include "eval/encode/embed_files.h"

/* Does job->inputs with all ranks of job->dist; rank 0 writes the result, to the bytes of one process, and all return when it
 * is there. Ranks need a common folder for it. *out is that of the whole. As xkd_embed_files, and XKD_ERR_PEER. */
xkd_status xkd_embed_files_shared(xkd_context *cx, xkd_backend *be, const xkd_embed_job *job, xkd_embed_counts *out);

/* xkd_embeddings_join of files. */
xkd_status xkd_embeddings_join_files(xkd_context *cx, char *const *paths, int64_t count, xkd_embeddings *out);

#endif
