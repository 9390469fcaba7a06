/* Ways of moving. Each function maps the cycle u to one or two objects; lengths are in heights of the
 * picture, x in [0, aspect], y in [0, 1] downwards, angles in radians. */
#include "data/synth_motion.h"

#include <math.h>

static double fraction(double u)
{
    return u - floor(u);
}

/* 0 -> 1 -> 0 linearly over one cycle. */
static double triangle(double u)
{
    double f = fraction(u);
    return f < 0.5 ? 2 * f : 2 - 2 * f;
}

/* Fills in one object and returns the number. */
static int single(motion_object *o, double x, double y, double radius, double angle)
{
    *o = (motion_object){x, y, radius, angle};
    return 1;
}

/* Left or right, mirrored by direction. */
static double across(const motion_values *v, double share)
{
    double from = v->radius, to = v->aspect - v->radius;
    return v->direction > 0 ? from + share * (to - from) : to - share * (to - from);
}

/* A ball under gravity: a parabola over one cycle, touching the ground at its ends. */
static int bounce(const motion_values *v, double u, motion_object o[2])
{
    double f = fraction(u), height = 4 * f * (1 - f);
    return single(o, v->centre_x, 1 - v->radius - height * (1 - 2.2 * v->radius), v->radius, v->angle);
}

/* A circle at even speed. */
static int orbit(const motion_values *v, double u, motion_object o[2])
{
    double a = 2 * M_PI * u * v->direction;
    return single(o, v->centre_x + v->reach * cos(a), v->centre_y + v->reach * sin(a), v->radius, v->angle);
}

/* From one side to the other, then again from the start. */
static int sweep(const motion_values *v, double u, motion_object o[2])
{
    return single(o, across(v, fraction(u)), v->centre_y, v->radius, v->angle);
}

static int pulse(const motion_values *v, double u, motion_object o[2])
{
    double size = 0.5 - 0.5 * cos(2 * M_PI * u);
    return single(o, v->centre_x, v->centre_y, v->radius * (0.5 + 1.2 * size), v->angle);
}

/* Larger than others, since only the outline's turn shows the motion. */
static int spin(const motion_values *v, double u, motion_object o[2])
{
    return single(o, v->centre_x, v->centre_y, 1.3 * v->radius, v->angle + 2 * M_PI * u * v->direction);
}

/* Two objects meet in the middle at half of the cycle, where the sound is. */
static int collide(const motion_values *v, double u, motion_object o[2])
{
    double gap = (1 - triangle(u)) * (v->aspect / 2 - 1.7 * v->radius), middle = v->aspect / 2;
    o[0] = (motion_object){middle - 0.7 * v->radius - gap, v->centre_y, 0.8 * v->radius, v->angle};
    o[1] = (motion_object){middle + 0.7 * v->radius + gap, v->centre_y, 0.8 * v->radius, v->angle + 1};
    return 2;
}

/* Down and up four times as often as across. */
static int zigzag(const motion_values *v, double u, motion_object o[2])
{
    double y = v->radius + triangle(2 * u) * (1 - 2 * v->radius);
    return single(o, across(v, triangle(u / 2)), y, v->radius, v->angle);
}

/* Radius 0: not drawn. */
static int flicker(const motion_values *v, double u, motion_object o[2])
{
    return single(o, v->centre_x, v->centre_y, fraction(u) < 0.5 ? 1.2 * v->radius : 0, v->angle);
}

/* A burst of shaking that dies out, then rest. */
static int shake(const motion_values *v, double u, motion_object o[2])
{
    double f = fraction(u), strength = f < 0.5 ? 1 - 2 * f : 0;
    double swing = strength * 0.22 * sin(2 * M_PI * 5.3 * f);
    return single(o, v->centre_x + v->direction * swing, v->centre_y, v->radius, v->angle);
}

/* Grows steadily and starts again small. */
static int grow(const motion_values *v, double u, motion_object o[2])
{
    return single(o, v->centre_x, v->centre_y, v->radius * (0.3 + 1.7 * fraction(u)), v->angle);
}

/* A pendulum that hangs from the top edge. */
static int swing(const motion_values *v, double u, motion_object o[2])
{
    double a = v->direction * 1.0 * cos(2 * M_PI * u), length = 0.95 - v->radius;
    return single(o, v->centre_x + length * sin(a), length * cos(a), v->radius, a);
}

static int spiral(const motion_values *v, double u, motion_object o[2])
{
    double f = fraction(u), a = v->direction * 4 * M_PI * f, r = 0.08 + 1.4 * v->reach * f;
    return single(o, v->aspect / 2 + r * cos(a), 0.5 + r * sin(a), 0.8 * v->radius, v->angle);
}

/* Falls in the first half of the cycle and lies still in the second. */
static int drop(const motion_values *v, double u, motion_object o[2])
{
    double f = fraction(u) / 0.5, fall = f < 1 ? f * f : 1;
    return single(o, v->centre_x, v->radius + fall * (1 - 2 * v->radius), v->radius, v->angle);
}

/* From corner to corner, without anything in between. */
static int hop(const motion_values *v, double u, motion_object o[2])
{
    int corner = (int)(4 * fraction(u * v->direction));
    double x = corner == 1 || corner == 2 ? 0.72 : 0.28, y = corner >= 2 ? 0.72 : 0.28;
    return single(o, x * v->aspect, y, v->radius, v->angle);
}

/* A figure of eight across the whole picture. */
static int eight(const motion_values *v, double u, motion_object o[2])
{
    double a = 2 * M_PI * u * v->direction;
    return single(o, v->aspect / 2 + (v->aspect / 2 - v->radius) * sin(a), 0.5 + 0.3 * sin(2 * a), v->radius, v->angle);
}

/* Two objects part vertically and come together again. */
static int split(const motion_values *v, double u, motion_object o[2])
{
    double apart = (0.5 - 0.5 * cos(2 * M_PI * u)) * (0.5 - v->radius);
    o[0] = (motion_object){v->centre_x, 0.5 - apart, 0.9 * v->radius, v->angle};
    o[1] = (motion_object){v->centre_x, 0.5 + apart, 0.9 * v->radius, v->angle};
    return 2;
}

/* Timbres differ in what a spectrogram shows at any pitch: spacing of partials, decay, noise, bends. */
const motion MOTIONS[MOTION_COUNT] = {
    {"bounce", bounce, 1, {0}, {{1, 2.76, 5.4, 8.9}, {1, .5, .3, .2}, .002, .15, .1, 0, 0, 0}},
    {"orbit", orbit, 4, {0, .25, .5, .75}, {{1, 2, 3, 4}, {1, .1, .05, .02}, .08, .25, 0, 0, 0, .5}},
    {"sweep", sweep, 1, {0}, {{1, 1, 1, 1}, {.2, 0, 0, 0}, .25, .5, 1, 0, 0, 0}},
    {"pulse", pulse, 1, {.5}, {{1, 3, 5, 7}, {1, .33, .2, .14}, .1, .3, 0, 0, 0, 0}},
    {"spin", spin, 2, {0, .5}, {{1, 2, 3, 4}, {1, .9, .8, .7}, .01, .12, 0, 0, 0, -.5}},
    {"collide", collide, 1, {.5}, {{1, 1.41, 2.09, 2.56}, {1, .9, .8, .6}, .001, .5, .3, 0, 0, 0}},
    {"zigzag", zigzag, 4, {0, .25, .5, .75}, {{1, 0, 0, 0}, {1, 0, 0, 0}, .005, .1, 0, 0, 0, 1.5}},
    {"flicker", flicker, 1, {0}, {{1, 1, 1, 1}, {.3, 0, 0, 0}, .001, .03, 1, 0, 0, 0}},
    {"shake", shake, 3, {0, .09, .19}, {{1, 1.5, 2.3, 3.1}, {.5, .4, .3, .2}, .002, .05, .7, 0, 0, 0}},
    {"grow", grow, 1, {0}, {{1, 2, 3, 4}, {1, .5, .33, .25}, .4, .8, 0, 0, 0, 1}},
    {"swing", swing, 2, {0, .5}, {{1, 0, 0, 0}, {1, 0, 0, 0}, .02, .35, 0, 1.4, 5, 0}},
    {"spiral", spiral, 2, {0, .5}, {{1, 0, 0, 0}, {1, 0, 0, 0}, .05, .4, 0, 3.5, 2, 2}},
    {"drop", drop, 1, {.5}, {{.5, .5, .5, .5}, {1, .5, 0, 0}, .001, .08, .6, 0, 0, -1}},
    {"hop", hop, 4, {0, .25, .5, .75}, {{1, 4, 9, 0}, {1, .4, .2, 0}, .001, .06, 0, 0, 0, .3}},
    {"eight", eight, 2, {0, .5}, {{1, 1.01, 2, 2.02}, {1, 1, .5, .5}, .15, .5, 0, 0, 0, -.3}},
    {"split", split, 1, {0}, {{1, 2, 0, 0}, {.6, .4, 0, 0}, .001, .2, .2, 7, 3, 0}},
};
