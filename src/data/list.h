/* A list of files with labels -> manifest: CSV of any of its dialects, or "path label" with blanks. */
#ifndef XKD_DATA_LIST_H
#define XKD_DATA_LIST_H

#include "data/manifest.h"

/* Reads a list whose paths are relative to `root`, or absolute and below it. One separator (comma, tab, semicolon, blanks)
 * holds for the whole file. A first line of names says what the columns are; without one they are path, label, split. Labels
 * are all numbers (-1: none) or all names, and classes are numbered by name, unless a column of numbers beside the names
 * numbers them. Every line becomes a sample or the list is refused: XKD_ERR_DATA with file:line and the remedy.
 * *understood, if not NULL: "columns: path=1 label=2; 4 rows"; the caller frees it. */
xkd_status xkd_index_list(xkd_context *cx, const char *list, const char *root, xkd_manifest *out, char **understood);

#endif
