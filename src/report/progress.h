#ifndef XKD_REPORT_PROGRESS_H
#define XKD_REPORT_PROGRESS_H

#include <stddef.h>
#include <stdint.h>

/* "0:42", "12:05", "3:07:00" or "2 d 03:07": a duration for people. */
void xkd_format_duration(char *out, size_t size, double seconds);

/* "812", "1.5 k", "86.2 M": a count for people; with unit "B" bytes in powers of 1000. */
void xkd_format_count(char *out, size_t size, double count, const char *unit);

/* "3.1416", or "-" for a run in which no step was done. Returns out. */
const char *xkd_format_loss(char *out, size_t size, double loss);

/* One line of a progress bar, e.g. "pretrain [======>     ]  52 % 260/500  ETA 1:10  loss 3.21". `seconds` is the time
 * that `done - start` steps have taken; `tail` may be "". */
void xkd_progress_line(char *out, size_t size, const char *title, int64_t start, int64_t done, int64_t total,
                       double seconds, const char *tail);

#endif
