/* What a run has left in its folder, read for a report. */
#ifndef XKD_REPORT_RUN_FILES_H
#define XKD_REPORT_RUN_FILES_H

#include "config/config.h"

/* Columns of numbers under names. */
typedef struct {
    char *text, **names; /* [columns], pointing into text */
    double *values;      /* [columns,rows] */
    int64_t columns, rows;
} xkd_figures;

/* A file that could not be read, with its last reason. */
typedef struct {
    char *path, *reason, *message;
    int64_t times;
} xkd_bad_file;

typedef struct {
    char *folder;        /* as it was named */
    xkd_figures metrics; /* metrics.csv */
    xkd_figures tests;   /* tests.jsonl, with the column "epoch"; no rows: not a supervised run */
    xkd_config config;   /* the defaults where config.yaml cannot be used */
    char *config_text;   /* config.yaml, "" for none */
    bool config_known;
    xkd_bad_file *bad; /* [bad_count], in the order in which they were met first */
    int64_t bad_count, bad_capacity;
    int64_t steps, total; /* done; to do, 0 where the files do not tell */
    bool running;         /* another process holds the folder */
} xkd_run_files;

/* XKD_ERR_STORAGE where the folder holds neither metrics.csv nor config.yaml. total 0: worked out of the first whole epoch,
 * and whether the run goes on is looked at. Free with xkd_run_files_free in any case. */
xkd_status xkd_run_files_read(xkd_context *cx, const char *folder, int64_t total, xkd_run_files *out);
void xkd_run_files_free(xkd_run_files *files);

/* [rows]; NULL for a column that is not there. */
const double *xkd_figures_column(const xkd_figures *figures, const char *name);

#endif
