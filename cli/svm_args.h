/* What `xkd svm` and `xkd eval` share of the SVM's words. */
#ifndef XKD_CLI_SVM_ARGS_H
#define XKD_CLI_SVM_ARGS_H

#include "embed_args.h"
#include "eval/judge/svm_run.h"
#include "eval/judge/svm_videos.h"
#include "feature_args.h"

/* "0.001,0.1" into cost and costs. */
xkd_status svm_parse_costs(struct cli *cli, const char *text, xkd_svm_settings *out);

/* xkd_svm_embed_videos, with cli_stopped where a signal ends it. */
xkd_status svm_embed_videos(struct cli *cli, const xkd_svm_videos *videos, const xkd_feature_choice *choice,
                            xkd_feature_sets *out);

/* The table as text on stdout. */
void svm_print(const xkd_svm_verdict *verdict);

#endif
