/* What commands that test a classifier say about its classes. */
#ifndef XKD_CLI_CLASS_TABLE_H
#define XKD_CLI_CLASS_TABLE_H

#include "cli.h"
#include "eval/judge/protocols.h"

/* Scores of labelled files; all of it is the caller's. */
struct judged {
    const float *scores;  /* [n,K] */
    const int32_t *label; /* [n] */
    const uint8_t *truth; /* [n,K] of files with several labels, else NULL */
    int64_t n, K;
    char *const *names; /* [name_count]; classes behind have none */
    int64_t name_count;
};

/* Of the videos of a clip set, named as in `files`. */
struct judged judged_set(const float *scores, const xkd_clip_set *set, const xkd_manifest *files);

/* The per-class table as text on stdout: recall and precision, or average precision of several labels. */
xkd_status print_classes(struct cli *cli, const struct judged *judged);

/* The confusion matrix as a PNG. Several labels have none: XKD_ERR_CONFIG. */
xkd_status draw_confusion(struct cli *cli, const char *path, const struct judged *judged);

#endif
