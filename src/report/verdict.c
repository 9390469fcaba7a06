/* The first rule that holds decides. Thresholds of a collapse are those of the collapse watch (train/watch.c), here over the
 * means of the last steps. */
#include "report/verdict.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* A collapse is judged from 200 steps on, over 200 of them; a trend from 40 steps on, over two tenths. */
enum { WATCHED = 200, LEAST_TREND = 40, RECENT = 20 };
static const double LEAST_FALL = 0.005;

/* Mean of the finite values of rows [from, to); NAN for none. */
static double mean_of(const double *values, int64_t from, int64_t to)
{
    double sum = 0, count = 0;
    for (int64_t i = from < 0 ? 0 : from; values && i < to; i++)
        if (isfinite(values[i])) {
            sum += values[i];
            count++;
        }
    return count > 0 ? sum / count : NAN;
}

/* NULL: no sign of a collapse. Comparisons with NAN are false. */
static const char *collapse(const xkd_run_files *f, const char *side, const char *kd_name)
{
    const xkd_figures *m = &f->metrics;
    char name[80];
    double uniform = log((double)f->config.model.head.outputs), value[3];
    static const char *const columns[3] = {"teacher_entropy", "centre_norm", "feature_spread"};
    int64_t from = m->rows - WATCHED;
    if (from < 0) return NULL;
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s_%s", side, columns[i]);
        value[i] = mean_of(xkd_figures_column(m, name), from, m->rows);
    }
    double kd = mean_of(xkd_figures_column(m, kd_name), from, m->rows);
    if (value[2] < 0.01) return "gives nearly the same answer for every clip";
    if (value[1] > 0.98) return "has a centre that explains nearly all of its answer";
    if (value[0] > 0.98 * uniform) return "gives nearly uniform answers";
    if (value[0] < 0.01 * uniform && kd < 0.02 * uniform) return "always picks one output";
    return kd > 1.5 * uniform ? "is followed worse than by guessing" : NULL;
}

/* Relative fall of the loss from the last tenth but one to the last; NAN where there are too few steps. */
static double fall(const xkd_figures *m)
{
    const double *loss = xkd_figures_column(m, "loss");
    int64_t tenth = m->rows / 10;
    if (m->rows < LEAST_TREND) return NAN;
    double before = mean_of(loss, m->rows - 2 * tenth, m->rows - tenth), last = mean_of(loss, m->rows - tenth, m->rows);
    return (before - last) / fabs(before);
}

/* A loss that is never finite among the last steps. */
static bool is_lost(const xkd_figures *m)
{
    const double *loss = xkd_figures_column(m, "loss");
    return loss && isnan(mean_of(loss, m->rows - RECENT, m->rows));
}

static void judge_end(const xkd_run_files *f, const char *command, xkd_verdict *v)
{
    double share = fall(&f->metrics);
    int64_t asked = f->config.run.max_steps;
    bool whole = f->total > 0 && f->steps >= f->total, learns = share > LEAST_FALL;
    /* As far as this call was asked to go, and no process goes on. */
    bool as_asked = !whole && !f->running && asked > 0 && f->steps >= asked, done = whole || as_asked;
    char trend[120] = "";
    if (isfinite(share))
        snprintf(trend, sizeof trend, " Over the last tenth of the steps the mean loss %s by %.1f %%.",
                 share >= 0 ? "fell" : "rose", 100 * fabs(share));
    if (done) {
        v->mood = "good";
        v->word = learns ? "finished, still learning" : "finished";
        if (as_asked)
            snprintf(v->reason, sizeof v->reason,
                     "The %" PRId64 " steps that run.max_steps asked for are done; the schedule has more.%s", f->steps,
                     trend);
        else
            snprintf(v->reason, sizeof v->reason, "All %" PRId64 " steps are done.%s", f->steps, trend);
    } else {
        v->mood = "warn";
        v->word = f->running ? learns ? "running, still learning" : "running"
                  : learns   ? "stopped, still learning"
                             : "stopped";
        if (f->total > 0)
            snprintf(v->reason, sizeof v->reason, "%" PRId64 " of %" PRId64 " steps are done.%s", f->steps, f->total,
                     trend);
        else
            snprintf(v->reason, sizeof v->reason, "%" PRId64 " steps are done.%s", f->steps, trend);
    }
    if (as_asked)
        snprintf(v->next, sizeof v->next,
                 "Use the encoders (xkd embed, xkd eval), or go on with the schedule: xkd %s --out %.800s --resume",
                 command, f->folder);
    else if (done && learns)
        snprintf(v->next, sizeof v->next,
                 "Use the encoders (xkd embed, xkd eval). A new run with a larger "
                 "hyperparams.num_epochs is likely to learn more.");
    else if (done)
        snprintf(v->next, sizeof v->next, "Use the encoders: xkd embed, xkd eval, xkd map.");
    else if (f->running)
        snprintf(v->next, sizeof v->next, "Wait. xkd report %.900s makes this page anew.", f->folder);
    else
        snprintf(v->next, sizeof v->next, "Go on: xkd %s --out %.900s --resume", command, f->folder);
}

void xkd_verdict_of(const xkd_run_files *f, xkd_verdict *out)
{
    static const char *const sides[2] = {"video", "audio"}, *const kd[2] = {"vt2as_kd_loss", "at2vs_kd_loss"};
    bool pretrains = xkd_figures_column(&f->metrics, "recon_loss") != NULL;
    const char *command = pretrains ? "pretrain" : f->config.eval.mode == XKD_EVAL_LINEAR ? "linear" : "finetune";
    *out = (xkd_verdict){.mood = "warn", .word = "empty"};
    if (f->metrics.rows == 0) {
        snprintf(out->reason, sizeof out->reason, "No step is done yet.");
        snprintf(out->next, sizeof out->next, "See train.log in the folder for what happened.");
        return;
    }
    if (is_lost(&f->metrics)) {
        *out = (xkd_verdict){.mood = "bad", .word = "not finite"};
        snprintf(out->reason, sizeof out->reason, "None of the last losses is a finite number.");
        snprintf(out->next, sizeof out->next, "Start again with a lower hyperparams.lr.base_lr%s.",
                 pretrains ? " or higher temperatures" : "");
        return;
    }
    for (int m = 0; m < 2; m++) {
        const char *what = collapse(f, sides[m], kd[m]);
        if (!what) continue;
        *out = (xkd_verdict){.mood = "bad", .word = "collapsing"};
        snprintf(out->reason, sizeof out->reason, "Over the last %d steps the %s teacher %s.", WATCHED, sides[m], what);
        snprintf(out->next, sizeof out->next,
                 "Stop, and start again with a lower learning rate, a higher EMA momentum or another teacher "
                 "temperature: train.log has the collapse watch's advice.");
        return;
    }
    judge_end(f, command, out);
}
