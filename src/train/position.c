/* The bookkeeping of a run: from which step it goes on, what an epoch has summed up to, and how many steps were skipped. */
#include "train/position.h"

#include <inttypes.h>
#include <math.h>

#include "base/alloc.h"
#include "base/clock.h"

/* The configuration of this call goes on to be the run's, and so do the data: what differs has been said. */
static void take_over(xkd_run_position *p, xkd_run_state *loaded)
{
    loaded->data_hash = p->state.data_hash;
    xkd_free(loaded->config);
    loaded->config = p->state.config;
    p->state = *loaded;
    *loaded = (xkd_run_state){0};
    p->saved_step = p->state.step;
    if (p->state.epoch_step >= p->steps_per_epoch) { /* the data have become fewer */
        p->state.epoch++;
        p->state.epoch_step = 0;
    }
}

xkd_status xkd_position_restore(xkd_run_position *p)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    xkd_run_state loaded = {0};
    int64_t count = 0;
    XKD_TRY(xkd_state_count(cx, p->folder->checkpoints, &count));
    /* A warning, not an error: a job that is started again by a scheduler should not fail for having been
     * killed early. */
    if (count == 0) {
        xkd_log(cx, XKD_LOG_WARN, "%s: holds no checkpoint yet: starting at step 0", p->folder->path);
        goto fail;
    }
    XKD_TRY(xkd_state_load_newest(cx, p->folder->checkpoints, p->params, &loaded));
    /* Another seed would give another order of data and other draws: the run would be neither the old one nor a new
     * one. */
    if (loaded.seed != p->config->train.seed)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "train.seed is %" PRIu64 ", but the run was started with %" PRIu64 ": leave it out to go on",
                 p->config->train.seed, loaded.seed);
    if (loaded.data_hash != p->state.data_hash)
        xkd_log(cx, XKD_LOG_WARN, "resume: the data are not the ones of the run so far");
    xkd_run_compare_configs(cx, loaded.config, p->state.config);
    take_over(p, &loaded);
    xkd_log(cx, XKD_LOG_INFO, "resumed at step %" PRId64 " of %" PRId64, p->state.step, p->total);
fail:
    xkd_run_state_free(&loaded);
    return status;
}

void xkd_position_free(xkd_run_position *p)
{
    xkd_free(p->skipped);
    p->skipped = NULL;
    xkd_run_state_free(&p->state);
}

/* A stop right after an interval save writes nothing again. */
xkd_status xkd_position_save(xkd_run_position *p)
{
    /* A copy: the running state counts seconds only when it is saved, so that nothing is counted twice. */
    xkd_run_state s = p->state;
    if (p->saved_step == s.step) return XKD_OK;
    s.seconds += xkd_now() - p->started;
    xkd_status status = xkd_backend_status(*p->backend);
    if (status != XKD_OK) return status;
    status = xkd_state_save(p->cx, p->folder->checkpoints, p->params, &s, p->config->run.keep_last);
    if (status != XKD_OK) return status;
    p->saved_step = s.step;
    p->saved_time = xkd_now();
    return XKD_OK;
}

void xkd_position_count(xkd_run_position *p, int64_t step, double seconds, double wait, double loss, bool skipped)
{
    bool *oldest = &p->skipped[step % p->config->run.bad_step_window];
    p->recent += skipped - *oldest;
    *oldest = skipped;
    p->waited += wait;
    p->state.bad_steps += skipped;
    p->state.epoch_skipped += skipped;
    p->state.epoch_seconds += seconds;
    p->state.epoch_wait += wait;
    /* A skipped step's loss is not finite and would spoil the epoch's mean. */
    if (!skipped) p->state.epoch_loss += loss;
}

/* A count over the whole run would end a long one for what it survived long ago, and every resume of it at its first
 * step. */
xkd_status xkd_position_skipped(const xkd_run_position *p, int64_t step, const char *remedy)
{
    const xkd_run_config *c = &p->config->run;
    xkd_log(p->cx, XKD_LOG_WARN,
            "step %" PRId64 ": a loss or gradient is not finite: step skipped (%" PRId64 " of the last %" PRId64
            ", %" PRId64 " allowed)",
            step, p->recent, c->bad_step_window, c->max_bad_steps);
    if (p->recent <= c->max_bad_steps) return XKD_OK;
    return xkd_fail(p->cx, XKD_ERR_NUMERIC,
                    "%" PRId64 " steps were not finite, more than run.max_bad_steps allows among %" PRId64
                    ": %s; the weights of the last good step are saved",
                    p->recent, c->bad_step_window, remedy);
}

bool xkd_position_advance(xkd_run_position *p)
{
    p->state.step++;
    if (++p->state.epoch_step < p->steps_per_epoch) return false;
    p->state.epoch++;
    p->state.epoch_step = 0;
    return true;
}

xkd_status xkd_position_log_epoch(xkd_run_position *p, xkd_metrics *metrics)
{
    xkd_run_state *s = &p->state;
    /* An epoch of which no step was done has no mean. */
    int64_t done = p->steps_per_epoch - s->epoch_skipped;
    xkd_status status = xkd_metrics_epoch(metrics, s->step, s->epoch, s->epoch_seconds, s->epoch_wait,
                                          done > 0 ? s->epoch_loss / (double)done : NAN);
    s->epoch_loss = s->epoch_seconds = s->epoch_wait = 0;
    s->epoch_skipped = 0;
    return status;
}

int64_t xkd_position_end(const xkd_run_position *p)
{
    int64_t most = p->config->run.max_steps;
    return most > 0 && most < p->total ? most : p->total;
}
