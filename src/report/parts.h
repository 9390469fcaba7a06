/* Parts of a report that are read without a script: tables, pictures, configuration. */
#ifndef XKD_REPORT_PARTS_H
#define XKD_REPORT_PARTS_H

#include "base/text.h"
#include "report/run_files.h"

void xkd_parts_head(xkd_text *out, const xkd_run_files *run);
/* First, best and last of each figure; several runs side by side show the last alone. */
void xkd_parts_figures(xkd_text *out, const xkd_run_files *runs, int64_t count);
void xkd_parts_bad_files(xkd_text *out, const xkd_run_files *run);
/* Reconstructions through the training. A picture that cannot be read is named in the log and left out. */
xkd_status xkd_parts_pictures(xkd_context *cx, xkd_text *out, const xkd_run_files *run);
/* Keys with other values than the defaults; of several runs those in which they differ. */
xkd_status xkd_parts_config(xkd_context *cx, xkd_text *out, const xkd_run_files *runs, int64_t count);

#endif
