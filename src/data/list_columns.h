/* Which separator a list has and what its columns are; between data/csv and data/list. */
#ifndef XKD_DATA_LIST_COLUMNS_H
#define XKD_DATA_LIST_COLUMNS_H

#include "data/csv.h"

typedef struct {
    xkd_csv csv;
    bool header;                      /* the first record is one */
    int64_t repeated;                 /* lines that name the columns again, as in joined lists; they are no records */
    int64_t columns;                  /* of the widest record, without those that are empty throughout */
    int64_t path, label, name, split; /* columns from 0; -1: none. name: class names where `label` numbers them */
    bool labels;                      /* the label column is called "labels": a field may hold several */
    bool numbers;                     /* labels are numbers */
    bool passed_over;                 /* there are columns that are none of these */
    int64_t missing;                  /* fields of labels, their names and splits that hold a word for "no value" */
    char missing_word[8];             /* the first such word */
} xkd_list_columns;

/* Takes the text of a list apart. XKD_ERR_DATA with file:line where no reading takes in every line. Free with
 * xkd_csv_free(&out->csv). */
xkd_status xkd_list_columns_find(xkd_context *cx, const char *list, const xkd_csv_text *text, xkd_list_columns *out);

/* Whether a field is a whole number, as scripts write them: 3, -1, 3.0. */
bool xkd_list_number(const xkd_csv_field *field, int64_t *value);

/* Whether it is what pandas, numpy, R or a spreadsheet write where a value is missing: NaN, None, NA, null, ... A name that is
 * quoted is a name. */
bool xkd_list_missing(const xkd_csv_field *field);

/* Whether it is a number of any kind, such as 0.5, 1e3 or one of twenty digits. */
bool xkd_list_any_number(const xkd_csv_field *field);

#endif
