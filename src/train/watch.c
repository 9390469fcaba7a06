/* Watches for the ways in which distillation collapses: constant answers, uniform answers, one answer for
 * everything. The measures are cheap: sums over [B,K] once a step. */
#include "train/watch.h"

#include <math.h>

/* Running means remember about 50 steps; nothing is said before 200, when the first noise is over, and the same run is
 * not told more often than every 500. */
static const double MEMORY = 0.98;
enum { FIRST_STEPS = 200, QUIET_STEPS = 500 };

/* Share of the logits' energy that differs between clips: 1 for independent answers, 0 if all clips get the same one.
 * Corrected for the mean being taken from the same B samples: B/(B-1) makes it unbiased. */
static double spread_of(const double energy[2], int64_t B)
{
    if (B < 2) return NAN;
    return energy[1] > 0 ? energy[0] / energy[1] * (double)B / (double)(B - 1) : NAN;
}

/* Everything is NAN where there is no distillation. The centre's norm is per output, root mean square: logits
 * leave a LayerNorm, so 1 would be a centre that explains all of them. */
xkd_watch_sample xkd_watch_measure(xkd_trainer *t, const xkd_step_result *result, xkd_modality m)
{
    const xkd_trainer_inside *in = xkd_trainer_look(t);
    const xkd_param *centre = in->networks.centre[m];
    xkd_watch_sample s = {.kd = NAN, .entropy = NAN, .centre_norm = NAN, .spread = NAN};
    if (!in->pass.wants.kd) return s;
    s.kd = result->loss[m == XKD_VIDEO ? XKD_LOSS_KD_VT2AS : XKD_LOSS_KD_AT2VS];
    s.entropy = result->teacher_entropy[m];
    s.centre_norm = sqrt(result->centre_squares[m] / (double)centre->count);
    s.spread = spread_of(result->energy[m], result->B);
    return s;
}

/* The first finite value starts the mean; later values that are not finite are passed over. */
static void follow(double *mean, double value, bool first)
{
    if (isfinite(value)) *mean = first || !isfinite(*mean) ? value : MEMORY * *mean + (1 - MEMORY) * value;
    if (first && !isfinite(value)) *mean = NAN;
}

/* Comparisons with NAN are false, so what is not measured never trips.
 * The order is from the surest sign to the vaguest; only the first is told. Entropies are measured against ln
 * K, that of uniform answers. */
static const char *judge(const xkd_watch *w)
{
    double uniform = log((double)w->outputs);
    if (w->mean.spread < 0.01)
        return "the teacher gives nearly the same answer for every clip: lower the learning rate, or raise the EMA "
               "momentum or center_momentum";
    if (w->mean.centre_norm > 0.98)
        return "the centre explains nearly all of the teacher's answer, so clips hardly differ: lower the learning "
               "rate "
               "or raise the EMA momentum";
    if (w->mean.entropy > 0.98 * uniform)
        return "the teacher's answers are nearly uniform, so there is nothing to distil: lower teacher_temp";
    if (w->mean.entropy < 0.01 * uniform && w->mean.kd < 0.02 * uniform)
        return "the teacher always picks one output and the student follows: raise teacher_temp";
    if (w->mean.kd > 1.5 * uniform)
        return "the student is worse than guessing (distillation loss above 1.5 ln K): lower the learning rate or "
               "raise "
               "teacher_temp";
    return NULL;
}

/* Counts every call, so the quiet time is in steps. */
const char *xkd_watch_step(xkd_watch *w, const xkd_watch_sample *s)
{
    bool first = w->steps == 0;
    follow(&w->mean.kd, s->kd, first);
    follow(&w->mean.entropy, s->entropy, first);
    follow(&w->mean.centre_norm, s->centre_norm, first);
    follow(&w->mean.spread, s->spread, first);
    w->steps++;
    if (w->quiet > 0) w->quiet--;
    if (w->steps < FIRST_STEPS || w->quiet > 0) return NULL;
    const char *advice = judge(w);
    if (advice) w->quiet = QUIET_STEPS;
    return advice;
}
