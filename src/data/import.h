/* Official layouts of evaluation data sets -> manifest. Nothing is moved or changed in the data set's folder. */
#ifndef XKD_DATA_IMPORT_H
#define XKD_DATA_IMPORT_H

#include "base/file.h"
#include "base/text.h"
#include "data/manifest.h"

typedef struct {
    int64_t fold;    /* of data sets with folds, from 1 */
    bool partial;    /* accept other counts than the official ones, and any number of absent files */
    int64_t classes; /* Kinetics-Sound: 32 (the paper) or 31 (other work) */
    double absent;   /* share of the listed files that may be absent: data.max_absent_fraction; 0: the set's own */
} xkd_import_options;

/* What was found of a set, beside what there should be. 0 for an official number: it differs from download to download. */
typedef struct {
    int64_t listed, missing; /* files in the set's lists; of them not in its folders */
    int64_t files, official_files;
    int64_t tests, official_tests; /* listed for testing */
    int64_t classes, official_classes;
} xkd_import_counts;

/* Whether files are among them that no list named, so that it is not known which are absent. */
bool xkd_import_is_unlisted(const xkd_import_counts *counts);
/* Whether all of the official set is there. Of a set without an official number, that is all that its lists name. */
bool xkd_import_is_whole(const xkd_import_counts *counts);

/* Free with xkd_import_result_free in any case. */
typedef struct {
    xkd_import_counts counts;
    xkd_names missing; /* [counts.missing] paths of listed files that are not there, in the order of the lists */
} xkd_import_result;

void xkd_import_result_free(xkd_import_result *result);

/* "5 of 15 listed files are not there:" and the first names, a line each. */
void xkd_import_missing_text(xkd_text *out, const xkd_import_result *result);

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
