#ifndef XKD_BASE_CLOCK_H
#define XKD_BASE_CLOCK_H

#include <stdint.h>

/* Seconds on the monotonic clock, from an arbitrary origin. */
double xkd_now(void);

/* Seconds since 1970 on the wall clock; for time stamps only. */
double xkd_wall_time(void);

/* The work of this process has come on by a piece: a loop, a write, a turn of waiting for others. Other processes are shown
 * the count (src/dist/heart.c), so that one that stands still is told from one that works for long. */
void xkd_tick(void);
uint64_t xkd_ticks(void);

#endif
