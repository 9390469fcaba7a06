#include "plan_costs.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/status.h"
#include "config_args.h"

/* A row of metrics.csv, of metrics.jsonl and of TensorBoard's events, measured on a run of 720 steps; without TensorBoard 1.7 kB. */
static const double LOG_BYTES = 4500, LOG_BYTES_ALONE = 1700;
/* A pair of reconstruction pictures of natural videos at the full model's size; smaller models have smaller ones. */
static const double PICTURE_BYTES = 1.2e6;
/* `xkd bench step --json` is a line. */
enum { MOST_BENCH_BYTES = 1 << 20 };

double plan_memory(const xkd_train_plan *p)
{
    return p->state_bytes + p->activation_bytes + p->scratch_bytes + p->exchange_bytes + p->list_bytes + p->ring_bytes +
           p->worker_bytes + p->cache_bytes;
}

/* The configuration with this many ranks, and, where it is not 0, micro-batches a rank. The caller frees *out in any case. */
static xkd_status configure(struct plan *p, int64_t ranks, int64_t accumulate, xkd_config *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cli->cx;
    char number[32];
    XKD_TRY(xkd_config_init(cx, out));
    out->train.ranks = ranks;
    if (p->config_file) XKD_TRY(xkd_config_load(cx, out, p->config_file, false));
    for (int64_t i = 0; i < p->override_count; i++) XKD_TRY(xkd_config_override(cx, out, p->overrides[i]));
    if (p->data) XKD_TRY(override(cx, out, "data.path", p->data));
    snprintf(number, sizeof number, "%" PRId64, accumulate);
    if (accumulate) XKD_TRY(override(cx, out, "train.accumulate", number));
    XKD_TRY(xkd_config_finish(cx, out));
    XKD_TRY(xkd_config_check_data(cx, out));
fail:
    return status;
}

/* ---- time ---- */

/* The file of another machine's `xkd bench step --json`. Its state tells whether it is of this model. */
static xkd_status read_bench(struct plan *p)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cli->cx;
    char *text = NULL;
    int64_t size = 0;
    json_t *root = NULL;
    XKD_TRY(xkd_read_file(cx, p->bench, MOST_BENCH_BYTES, XKD_ERR_DATA, &text, &size));
    root = json_loadb(text, (size_t)size, 0, NULL);
    double seconds = json_number_value(json_object_get(root, "s_per_sample"));
    double state = json_number_value(json_object_get(root, "state_bytes"));
    if (!(seconds > 0))
        XKD_FAIL(XKD_ERR_DATA, "%s: holds no s_per_sample: want the output of 'xkd bench step --json'", p->bench);
    if (state > 0 && fabs(state - p->base.state_bytes) > 0.01 * p->base.state_bytes)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "%s: is of a model of %.4g GB, this one has %.4g GB: measure with the same -c and KEY=VALUE", p->bench,
                 state / 1e9, p->base.state_bytes / 1e9);
    p->rate = (plan_rate){PLAN_BENCH, seconds, 0}; /* the optimiser is in it */
fail:
    json_decref(root);
    xkd_free(text);
    return status;
}

static xkd_status choose_rate(struct plan *p)
{
    const xkd_train_plan *base = &p->base;
    if (p->bench) return read_bench(p);
    if (p->given > 0)
        p->rate = (plan_rate){PLAN_GIVEN, p->given, 0};
    else if (p->gflops > 0 && p->details.products_per_sample > 0)
        p->rate =
            (plan_rate){PLAN_GFLOPS, 2 * p->details.products_per_sample / (1e9 * p->gflops), base->seconds_per_step};
    else if (base->seconds_per_sample > 0)
        p->rate = (plan_rate){PLAN_MEASURED, base->seconds_per_sample, base->seconds_per_step};
    else
        p->rate = (plan_rate){.source = PLAN_UNKNOWN};
    return XKD_OK;
}

/* Ranks send 2 (n-1)/n of the gradient each way (xkd_dist_sum). */
static double exchange_seconds(const struct plan *p, int64_t ranks)
{
    double bytes = (double)p->base.trained * sizeof(float);
    return ranks > 1 ? 2 * (double)(ranks - 1) / (double)ranks * bytes / p->network : 0;
}

static void add_time(const struct plan *p, plan_way *w)
{
    double samples = (double)p->config.train.batch / (double)w->ranks;
    w->exchange = exchange_seconds(p, w->ranks);
    if (p->rate.source == PLAN_UNKNOWN) return;
    w->seconds = (double)p->base.total_steps * (samples * p->rate.per_sample + p->rate.per_step + w->exchange);
}

/* ---- memory ---- */

/* XKD_ERR_CONFIG, with nothing said, where the losses or the batch do not allow it. Scratch is the base's: it does not grow with the
 * batch, and only a timed step tells it. */
static xkd_status lay_out(struct plan *p, int64_t ranks, int64_t accumulate, plan_way *out)
{
    xkd_context *cx = p->cli->cx;
    xkd_config config = {0};
    xkd_train_plan plan;
    xkd_plan_details details = p->details;
    xkd_status status = configure(p, ranks, accumulate, &config);
    if (status == XKD_OK && config.train.accumulate != accumulate) status = XKD_ERR_CONFIG;
    if (status == XKD_OK) status = xkd_plan_details_of(cx, &config, false, &plan, &details);
    if (status == XKD_OK) {
        plan.scratch_bytes = p->base.scratch_bytes;
        *out = (plan_way){.ranks = ranks,
                          .accumulate = accumulate,
                          .micro_batch = plan.micro_batch,
                          .memory = plan_memory(&plan),
                          .fits = plan_memory(&plan) <= p->memory};
        add_time(p, out);
    }
    xkd_config_free(&config);
    if (status == XKD_ERR_CONFIG) xkd_clear_error(cx);
    return status;
}

/* Every number of micro-batches that divides the batch and leaves two samples, the least that all losses accept. */
static xkd_status list_ways(struct plan *p)
{
    xkd_status status = XKD_OK;
    int64_t batch = p->config.train.batch;
    for (int64_t a = 1; a <= batch / 2 || a == 1; a++) {
        plan_way way;
        if (batch % a) continue;
        status = lay_out(p, 1, a, &way);
        if (status == XKD_ERR_CONFIG) continue;
        if (status != XKD_OK) return status;
        status = xkd_resize(p->cli->cx, &p->ways, p->way_count, p->way_count + 1, sizeof *p->ways);
        if (status != XKD_OK) return status;
        p->ways[p->way_count++] = way;
    }
    return XKD_OK;
}

xkd_status plan_ranks(struct plan *p, int64_t ranks, plan_way *out)
{
    int64_t share = p->config.train.batch / ranks;
    bool any = false;
    if (p->config.train.batch % ranks == 0)
        for (int64_t a = 1; a <= share / 2 || a == 1; a++) {
            plan_way way;
            if (share % a) continue;
            xkd_status status = lay_out(p, ranks, a, &way);
            if (status == XKD_ERR_CONFIG) continue;
            if (status != XKD_OK) return status;
            *out = way;
            any = true;
            if (way.fits) return XKD_OK;
        }
    return any ? XKD_OK
               : xkd_fail(p->cli->cx, XKD_ERR_CONFIG,
                          "%" PRId64 " ranks cannot share a batch of %" PRId64 ": take a number that divides it", ranks,
                          p->config.train.batch);
}

/* ---- disk ---- */

/* A checkpoint has all values and the moments of what is trained; while one is written the others are still there. */
static void add_disk(struct plan *p)
{
    const xkd_run_config *run = &p->config.run;
    double size = sizeof(float), steps = (double)p->base.total_steps;
    double checkpoint = ((double)p->base.parameters + 2 * (double)p->base.trained) * size;
    p->disk = (plan_disk){.checkpoints = checkpoint * (double)(run->keep_last + 1),
                          .backbones = p->details.backbone_bytes,
                          .logs = steps * (run->tensorboard ? LOG_BYTES : LOG_BYTES_ALONE),
                          .pictures = run->picture_steps ? steps / (double)run->picture_steps * PICTURE_BYTES : 0,
                          .cache = p->details.cache_folder_bytes};
}

/* Files that are only counted: as many steps as whole batches, like the sampler. */
static xkd_status count_steps(struct plan *p)
{
    xkd_train_plan *base = &p->base;
    const xkd_train_config *t = &p->config.train;
    if (p->data || !p->samples) return XKD_OK;
    base->samples = p->samples;
    base->steps_per_epoch = p->samples / t->batch;
    if (base->steps_per_epoch < 1)
        return xkd_fail(p->cli->cx, XKD_ERR_CONFIG, "plan: --samples %" PRId64 " are less than a batch of %" PRId64,
                        p->samples, t->batch);
    base->total_steps = base->steps_per_epoch * t->epochs;
    if (p->config.run.max_steps > 0 && p->config.run.max_steps < base->total_steps)
        base->total_steps = p->config.run.max_steps;
    return XKD_OK;
}

xkd_status plan_make(struct plan *p)
{
    xkd_status status = XKD_OK;
    bool timed = !p->bench && !(p->given > 0);
    XKD_TRY(configure(p, 1, 0, &p->config));
    if (timed)
        cli_say(p->cli,
                "timing a step of this model here; --seconds, --bench or --gflops give the rate of another machine");
    XKD_TRY(xkd_plan_details_of(p->cli->cx, &p->config, timed, &p->base, &p->details));
    if (!(p->memory > 0)) p->memory = p->base.available_bytes;
    XKD_TRY(choose_rate(p));
    XKD_TRY(count_steps(p));
    add_disk(p);
    XKD_TRY(list_ways(p));
fail:
    return status;
}

void plan_free(struct plan *p)
{
    xkd_free(p->ways);
    xkd_config_free(&p->config);
}
