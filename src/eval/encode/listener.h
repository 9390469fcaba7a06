/* Who hears what a long evaluation says while it works, and may end it. */
#ifndef XKD_EVAL_ENCODE_LISTENER_H
#define XKD_EVAL_ENCODE_LISTENER_H

#include "eval/encode/embed_files.h"

/* Each function may be NULL. */
typedef struct {
    void *user;
    void (*say)(void *user, const char *line); /* a line for the reader, without its end */
    /* `done` of `total` files or trainings of `title`, begun at `start` (base/clock.h); title NULL: a bar goes */
    void (*progress)(void *user, const char *title, double start, int64_t done, int64_t total);
    int (*stop)(void *user); /* asked between two of them; non-zero ends the work with XKD_ERR_INTERRUPTED */
} xkd_listener;

/* listener NULL: nobody hears it. */
void xkd_say(const xkd_listener *listener, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* xkd_embed_files, of which the listener hears: what is gone on with, unreadable files, how far it has come. Fills the callbacks
 * of *job. */
xkd_status xkd_embed_files_heard(xkd_context *cx, xkd_backend *be, const char *title, xkd_embed_job *job,
                                 const xkd_listener *listener, xkd_embed_counts *out);

/* The same where the feature file may be there from an earlier call: then it is read and nothing is done. One of other
 * work (another model, other options, other files) is XKD_ERR_CONFIG, and so is one that does not say how it was made. */
xkd_status xkd_embed_or_read(xkd_context *cx, xkd_backend *be, const char *title, xkd_embed_job *job,
                             const xkd_listener *listener, xkd_embeddings *out);

#endif
