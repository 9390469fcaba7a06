/* The skeleton of a training run, of pre-training and of supervised training alike: it enters the folder, asks for steps and
 * collects what they leave, reports, saves and stops. What the two do in their own way is a table of functions. */
#ifndef XKD_TRAIN_RUN_H
#define XKD_TRAIN_RUN_H

#include "data/loader.h"
#include "report/sparkline.h"
#include "train/position.h"
#include "train/trainer.h"

/* A step that was asked for. */
typedef struct {
    int64_t step, epoch;           /* its number from 1; the epoch in which it lies */
    double begin, wait;            /* by xkd_now, s; the wait for data, s */
    double samples;                /* of this rank */
    bool closes_an_epoch, skipped; /* it is the last one of it; a loss or gradient was not finite */
} xkd_asked_step;

/* One kind of training. `self` is the run's. All functions but `ask` and `collect` may be NULL. */
typedef struct {
    int columns;           /* of metrics.csv; their names are the run's */
    int loss, lr, skipped; /* columns of these; the skeleton fills in `skipped` */
    int time;              /* likewise, with the two behind it: seconds, those of the wait for data, samples a second */
    struct {
        const char *name;
        int column;
    } more[3];          /* losses that stand behind the first one in the line that people read */
    const char *remedy; /* where steps are not finite */
    /* Rank 0, to which the folder belongs now: before a state is read there. */
    xkd_status (*enter)(void *self);
    /* All ranks, behind that. */
    xkd_status (*open_logs)(void *self);
    /* Feeds one step and asks for it; fills in wait and samples. */
    xkd_status (*ask)(void *self, xkd_asked_step *step);
    /* Waits for its numbers and puts them into the row; the next step may have been asked for. */
    xkd_status (*collect)(void *self, xkd_asked_step *step);
    /* What else belongs to the row of a collected step, whose time is over. */
    xkd_status (*measure)(void *self, const xkd_asked_step *step);
    /* Before each step and behind the last one. */
    xkd_status (*test)(void *self);
    /* Pictures of the step just done, after its update. */
    xkd_status (*show)(void *self);
    /* Files of the end beside the checkpoint; `status` is that of the steps. */
    xkd_status (*leave)(void *self, xkd_status status);
} xkd_run_kind;

/* Fields down to `values` are the kind's to fill in, by the time it calls xkd_run_enter. */
typedef struct {
    const char *title;  /* of the progress bar */
    xkd_config config;  /* the caller's with what the machine and the kind replace; its strings are the caller's */
    xkd_loader *loader; /* the kind's, as is the backend */
    xkd_backend *backend;
    const char *const *columns; /* [columns] */
    double *values;             /* [columns] the row of the step collected last */
    xkd_context *cx;
    const xkd_run_kind *kind;
    void *self;
    const xkd_run_options *options; /* the caller's; outlives the call */
    xkd_dist *dist;                 /* likewise; NULL: this process alone */
    bool writes;                    /* rank 0: the folder, the log and all that people see are its own */
    bool agreed;                    /* the status that ends the run is that of all ranks */
    xkd_run_folder folder;          /* holds the lock while the run lasts */
    xkd_metrics *metrics;
    xkd_run_position at;
    double samples, aside;                /* trained on by this rank; seconds that are no training time */
    xkd_asked_step asked[XKD_STEPS_OPEN]; /* those that are not collected, by their number */
    int open;                             /* how many these are */
    double collected;                     /* when the last step was, by xkd_now */
    xkd_sparkline loss;                   /* of this call, for the progress bar */
} xkd_run;

/* A run that has opened nothing; its position points into it, so it must not move. */
void xkd_run_init(xkd_run *r, xkd_context *cx, const xkd_run_kind *kind, void *self, const xkd_run_options *options,
                  xkd_dist *dist);

/* Behind data and model: ranks compare what they have, and folder, state and logs are opened. at.params and
 * at.state.config are there. */
xkd_status xkd_run_enter(xkd_run *r);

/* Steps until the schedule, run.max_steps, a signal or a fault ends them; then everything is saved that may be. The first error
 * counts. */
xkd_status xkd_run_go(xkd_run *r, xkd_run_result *result);

/* Logs, folder and position; takes any half-open state. The loader must be gone: it writes in the folder. */
void xkd_run_close(xkd_run *r);

#endif
