/* Internal side of a context: the account of allocations, which tests use to count them and to make one fail. */
#ifndef XKD_BASE_CONTEXT_H
#define XKD_BASE_CONTEXT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <xkd/context.h>

typedef struct {
    _Atomic int64_t count;   /* allocations so far */
    _Atomic int64_t fail_at; /* the allocation with this number fails, and all after it; -1: none */
} xkd_account;

/* That of the context, or of the one it was branched from. */
xkd_account *xkd_context_account(xkd_context *cx);

/* A context with messages of its own, whose log, progress and account are those of `parent`, which must outlive it. NULL: out of
 * memory. Free with xkd_context_free. */
xkd_context *xkd_context_branch(xkd_context *parent);

/* Moves the message of a branch to its parent, where there is none yet: for a handle that could not be made. */
void xkd_context_hand_up(xkd_context *branch);

/* Whether anybody wants to know; then xkd_tell_progress should be called several times a second. */
bool xkd_wants_progress(xkd_context *cx);

/* Tells the progress callback. XKD_ERR_INTERRUPTED where that asks for an end. */
xkd_status xkd_tell_progress(xkd_context *cx, const char *what, int64_t done, int64_t total);

#endif
