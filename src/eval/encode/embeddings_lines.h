/* Features as JSON Lines, one a clip: for programs that read text, and read back here. */
#ifndef XKD_EVAL_ENCODE_EMBEDDINGS_LINES_H
#define XKD_EVAL_ENCODE_EMBEDDINGS_LINES_H

#include "eval/encode/embeddings.h"

/* Whether the first line of a file looks like one of these. */
bool xkd_embeddings_are_lines(const char *path);

/* Every line says what it is of: path, split, label and class, model, pool and layer. What no line can say is not there:
 * files without a clip, classes without a file, the settings of the work. */
xkd_status xkd_embeddings_write_lines(xkd_context *cx, const xkd_embeddings *e, const char *path);

/* XKD_ERR_DATA with file:line. Lines of an earlier version, without model and pool, are taken for means of one unnamed model.
 * Free with xkd_embeddings_free, also after an error. */
xkd_status xkd_embeddings_read_lines(xkd_context *cx, const char *path, xkd_embeddings *out);

#endif
