/* Tests of a supervised run: scores of all test files, their figures, and tests.jsonl, which remembers them. */
#ifndef XKD_SUPERVISED_TEST_H
#define XKD_SUPERVISED_TEST_H

#include "report/metrics.h"
#include "train/folder.h"
#include "supervised/train.h"
#include "supervised/data.h"

/* tests.jsonl, a line a test: all of them, the newest and the best (top-1 or mean average precision; of equals the
 * earlier). */
typedef struct {
    xkd_context *cx;
    char *path;
    int fd;               /* -1: not open */
    xkd_test_scores *all; /* [count], in order of their steps */
    int64_t count, capacity;
    xkd_test_scores last, best;
} xkd_test_log;

/* Reads what is there up to `step` and drops later lines, which will be made again; -1: starts afresh. */
xkd_status xkd_test_log_open(xkd_context *cx, const char *folder, int64_t step, xkd_test_log *out);
void xkd_test_log_close(xkd_test_log *log);

/* Rank 0's log on all ranks; theirs have no file, and lines are written by rank 0 alone. */
xkd_status xkd_test_log_share(xkd_test_log *log, xkd_dist *dist);

/* What a test works with; the caller's. */
typedef struct {
    xkd_context *cx;
    const xkd_config *config;
    const xkd_supervised_data *data;
    xkd_finetune *net;
    const xkd_run_options *run;
    xkd_metrics *metrics;
    int64_t epoch, step;
    xkd_dist *dist; /* the ranks that share the files; NULL: this process does all */
} xkd_tester;

/* Scores every test file, notes the figures in the log and in TensorBoard (test/top1 ...) and leaves scores, labels,
 * names and counts in *result, on all ranks alike. *best: no earlier test was as good. More unreadable files than data.max_bad_fraction
 * allows: XKD_ERR_DATA, and no figure. */
xkd_status xkd_supervised_test(const xkd_tester *tester, xkd_test_log *log, xkd_supervised_result *result, bool *best);

#endif
