/* What a check or an index has found so far, a line a file, so that work that was stopped goes on behind it; and the same lines
 * as what ranks tell each other. */
#ifndef XKD_DATA_CHECK_LOG_H
#define XKD_DATA_CHECK_LOG_H

#include "data/check.h"

typedef struct xkd_check_log xkd_check_log;

/* By sample, of what an earlier sitting has found: whether, and the identity that the file had. */
typedef struct {
    bool *done;         /* [samples] */
    uint64_t *identity; /* [samples] */
} xkd_check_known;

/* Opens this rank's log, "PATH" or "PATH-RANK", or makes it, locked for this process, and reads those of all ranks. Lines of
 * other settings (`settings` is a hash of all that the findings depend on) and of files that are not in the manifest are
 * forgotten; the others fill in findings, samples and *known. *found: how many. Free with xkd_check_log_close. */
xkd_status xkd_check_log_open(xkd_context *cx, const char *path, int rank, uint64_t settings, xkd_manifest *manifest,
                              xkd_finding *findings, xkd_check_known *known, int64_t *found, xkd_check_log **out);

/* Appends sample i; called by one thread at a time. */
xkd_status xkd_check_log_add(xkd_check_log *log, xkd_context *cx, const xkd_manifest *manifest, int64_t i,
                             const xkd_finding *finding, uint64_t identity);

void xkd_check_log_close(xkd_check_log *log); /* NULL is allowed */

/* Removes the logs of all ranks. */
xkd_status xkd_check_log_remove(xkd_context *cx, const char *path);

/* Of a sample's file as it lies there now: a hash in the manifest may be of another day. */
xkd_status xkd_check_identity(xkd_context *cx, const xkd_manifest *manifest, int64_t i, uint64_t *out);

/* Every rank has what it found of samples rank, rank + size, ...; afterwards all have all. */
xkd_status xkd_check_share(xkd_context *cx, xkd_dist *dist, xkd_manifest *manifest, xkd_finding *findings);

#endif
