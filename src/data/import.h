/* Official layouts of evaluation data sets -> manifest. Nothing is moved or changed in the data set's folder. */
#ifndef XKD_DATA_IMPORT_H
#define XKD_DATA_IMPORT_H

#include "data/manifest.h"

typedef struct {
    int64_t fold;    /* of data sets with folds, from 1 */
    bool partial;    /* accept other counts than the official ones, and files that are listed but absent */
    int64_t classes; /* Kinetics-Sound: 32 (the paper) or 31 (other work) */
} xkd_import_options;

typedef struct {
    int64_t listed, missing;
    char first_missing[256]; /* path of the first listed file that is not there */
} xkd_import_result;

int64_t xkd_import_count(void);
/* Name and one line about data set i; NULL beyond the last. */
const char *xkd_import_name(int64_t i);
const char *xkd_import_about(int64_t i);

/* Reads the lists below `root`. Splits are named as the released configurations name them ("trainlist01", "test-
 * split2", "train-3", "train", "val", "test"). XKD_ERR_CONFIG: unknown name or fold; XKD_ERR_DATA with the expected
 * tree: the layout or the counts are not the official ones, or listed files are absent. */
xkd_status xkd_import(xkd_context *cx, const char *name, const char *root, const xkd_import_options *options,
                      xkd_manifest *out, xkd_import_result *result);

#endif
