/* What `xkd eval` prints: the row of a table with what it is made of. */
#ifndef XKD_CLI_EVAL_REPORT_H
#define XKD_CLI_EVAL_REPORT_H

#include "cli.h"
#include "eval/judge/benchmarks.h"
#include "eval/judge/fold_result.h"

struct eval_report {
    const xkd_benchmark *benchmark;
    const char *data, *model;
    const xkd_fold_result *folds; /* [count] in order */
    int64_t count;
};

/* Whether all folds and all files of the official set are in the figures. */
bool eval_is_complete(const struct eval_report *report);

xkd_status eval_print_text(struct cli *cli, const struct eval_report *report);
xkd_status eval_print_markdown(struct cli *cli, const struct eval_report *report);
xkd_status eval_print_json(struct cli *cli, const struct eval_report *report);

/* All evaluations with their data sets and the paper's figures. */
void eval_print_list(void);

#endif
