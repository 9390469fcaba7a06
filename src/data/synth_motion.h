/* The motions of the synthetic classes and their sounds; used by synth.c only. */
#ifndef XKD_DATA_SYNTH_MOTION_H
#define XKD_DATA_SYNTH_MOTION_H

#include <stdint.h>

/* What a motion may vary. Lengths are in units of the picture's height; x runs over [0, aspect], y over [0, 1]. */
typedef struct {
    double aspect;
    double period;                    /* seconds of one cycle */
    double phase;                     /* cycles at time 0, [0, 1) */
    double radius;                    /* of the object */
    double centre_x, centre_y, reach; /* where free motions happen and how far they go */
    double direction;                 /* +1 or -1 */
    double angle;                     /* resting orientation */
} motion_values;

/* One object at one time; radius 0: not to be seen. */
typedef struct {
    double x, y, radius, angle;
} motion_object;

/* A note: partials over a pitch, an exponential decay, a share of noise, and frequency modulation. */
typedef struct {
    double ratio[4], level[4];
    double attack, decay; /* seconds */
    double noise;
    double fm_ratio, fm_index;
    double bend; /* octaves over the note */
} motion_timbre;

typedef struct {
    const char *name;
    /* Objects at u = time / period + phase; returns how many of the two are used. */
    int (*place)(const motion_values *v, double u, motion_object object[2]);
    int events;      /* sounds a cycle, */
    double event[4]; /* at these phases in [0, 1) */
    motion_timbre timbre;
} motion;

enum { MOTION_COUNT = 16 };
extern const motion MOTIONS[MOTION_COUNT];

#endif
