#ifndef XKD_BASE_CLOCK_H
#define XKD_BASE_CLOCK_H

/* Seconds on the monotonic clock, from an arbitrary origin. */
double xkd_now(void);

/* Seconds since 1970 on the wall clock; for time stamps only. */
double xkd_wall_time(void);

#endif
