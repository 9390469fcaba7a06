/* One word for the state of a run, worked out of its figures; docs/report.md has the rules. */
#ifndef XKD_REPORT_VERDICT_H
#define XKD_REPORT_VERDICT_H

#include "report/run_files.h"

typedef struct {
    const char *mood;             /* "good", "warn" or "bad" */
    const char *word;             /* "finished", "still learning", "stopped", "running", "collapsing", ... */
    char reason[400], next[1200]; /* `next` may hold the folder's name: data */
} xkd_verdict;

void xkd_verdict_of(const xkd_run_files *files, xkd_verdict *out);

#endif
