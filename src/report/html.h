/* One HTML file that tells a run: verdict, facts, curves, pictures, unreadable files, configuration; or several runs side by
 * side. Nothing in it is fetched from elsewhere. docs/report.md describes it. */
#ifndef XKD_REPORT_HTML_H
#define XKD_REPORT_HTML_H

#include "report/run_files.h"

/* Makes folder/report.html, and each chart as folder/curves/TITLE.svg, of what lies in the folder of a run. total_steps: of the
 * whole run; 0: it is worked out. `out`: another file to write instead of both; NULL: those. */
xkd_status xkd_report_write(xkd_context *cx, const char *folder, int64_t total_steps, const char *out);

/* Compares runs [count]: what their configurations differ in, their figures, and their curves over each other. */
xkd_status xkd_report_compare(xkd_context *cx, char *const *folders, int64_t count, const char *out);

#endif
