/* What a check or an index has found so far, a line a file, so that work that was stopped goes on behind it. */
#ifndef XKD_DATA_CHECK_LOG_H
#define XKD_DATA_CHECK_LOG_H

#include "data/check.h"

typedef struct xkd_check_log xkd_check_log;

/* Opens the log or makes it, locked for this process. Lines of other settings (`settings` is a hash of all that the findings
 * depend on), of files that have changed since and of files that are not in the manifest are forgotten; the others fill in
 * findings and samples, and done[i]. *found: how many. Free with xkd_check_log_close. */
xkd_status xkd_check_log_open(xkd_context *cx, const char *path, uint64_t settings, xkd_manifest *manifest,
                              xkd_finding *findings, bool *done, int64_t *found, xkd_check_log **out);

/* Appends sample i; called by one thread at a time. */
xkd_status xkd_check_log_add(xkd_check_log *log, xkd_context *cx, const xkd_manifest *manifest, int64_t i,
                             const xkd_finding *finding);

/* `finished`: the file goes as well. NULL is allowed. */
void xkd_check_log_close(xkd_check_log *log, bool finished);

#endif
