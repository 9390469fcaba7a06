/* Two clocks, one for durations, which never jumps, and one for time stamps; and a count of work done. */
#include "base/clock.h"

#include <time.h>

static double read_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double xkd_now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

double xkd_wall_time(void)
{
    return read_clock(CLOCK_REALTIME);
}

/* One for the process: whether its work moves on is asked about the process as a whole. */
static _Atomic uint64_t ticks;

void xkd_tick(void)
{
    ticks++;
}

uint64_t xkd_ticks(void)
{
    return ticks;
}
