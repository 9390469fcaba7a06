/* xkd bench optimizer: everything a step does with whole tensors (zeroing, norms, clipping, AdamW, moving averages),
 * beside the rate at which this machine copies memory. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/pool.h"
#include "base/status.h"
#include "bench_model.h"
#include "optim/optimizer.h"

struct values {
    const char *config;
    int64_t threads, repeats;
};

static const struct cli_option options[] = {
    {'c', "config", CLI_TEXT, offsetof(struct values, config), "FILE", "configuration (default: XKD's, full size)"},
    {0, "repeats", CLI_INT, offsetof(struct values, repeats), "N", "timed updates; the fastest counts (default 7)"},
    {0, "threads", CLI_INT, offsetof(struct values, threads), "N", "threads (default: all processors)"},
    {0},
};

/* Copied in pieces by all threads. */
struct copy {
    char *to;
    const char *from;
};
enum { COPY_BYTES = 512 << 20, PIECE = 64 << 20 }; /* large enough for the C library to go past the caches */

static void copy_piece(void *arg, int64_t index, int thread)
{
    const struct copy *c = arg;
    (void)thread;
    memcpy(c->to + index * PIECE, c->from + index * PIECE, PIECE);
}

/* Bytes read and written a second by the fastest of the copies. */
static xkd_status copy_rate(xkd_context *cx, xkd_pool *pool, int64_t repeats, double *rate)
{
    xkd_status status = XKD_OK;
    struct copy c = {NULL, NULL};
    char *from = NULL;
    double best = 1e30;
    XKD_TRY(xkd_alloc(cx, &from, COPY_BYTES, 1));
    XKD_TRY(xkd_alloc(cx, &c.to, COPY_BYTES, 1));
    c.from = from;
    for (int64_t i = 0; i < repeats; i++) {
        double start = xkd_now();
        xkd_parallel_for(pool, COPY_BYTES / PIECE, copy_piece, &c);
        double seconds = xkd_now() - start;
        if (seconds < best) best = seconds;
    }
    *rate = 2.0 * COPY_BYTES / best;
fail:
    xkd_free(from);
    xkd_free(c.to);
    return status;
}

/* Bytes that an update must move at the least: gradients are read for their norms and again by AdamW and are zeroed;
 * parameter, moments and averages are read and written. */
static double update_bytes(const xkd_optimizer *o)
{
    double bytes = 0;
    for (int64_t i = 0; i < o->count; i++) {
        const xkd_update *u = &o->updates[i];
        int averages = (u->ema[0] != NULL) + (u->ema[1] != NULL && u->ema[1] != u->ema[0]);
        double n = (double)u->row->count * sizeof(float);
        bytes += n * (u->row->grad ? 3 + 6 + 2 * averages : 1 + 2 * averages);
    }
    return bytes;
}

/* On the CPU, whose memory is the host's. */
static double one_update(struct bench_model *b, double *left)
{
    const xkd_train_config *t = &b->config.train;
    const double ema[] = {t->ema[0].base, t->ema[1].base};
    const xkd_optimizer_step step = {.lr = &t->lr.base,
                                     .weight_decay = &t->weight_decay.base,
                                     .beta1 = t->betas[0],
                                     .beta2 = t->betas[1],
                                     .eps = t->eps,
                                     .ema = ema,
                                     .clip_grad = b->config.step.clip_grad,
                                     .train_last_layer = true};
    double norm, start = xkd_now();
    xkd_optimizer_norms(b->be, &xkd_trainer_look(b->trainer)->optimizer, NULL, 0);
    xkd_optimizer_apply(b->be, &xkd_trainer_look(b->trainer)->optimizer, &step);
    xkd_optimizer_leave(&xkd_trainer_look(b->trainer)->optimizer, left);
    xkd_optimizer_read(&xkd_trainer_look(b->trainer)->optimizer, left, &norm);
    xkd_parts_begin(b->be, &xkd_trainer_look(b->trainer)->parts); /* zeroes the gradients */
    return xkd_now() - start;
}

static xkd_status bench(struct cli *cli, const struct values *v, char **overrides, int count)
{
    xkd_status status = XKD_OK;
    struct bench_model b = {0};
    double best = 1e30, copy, *left = NULL;
    XKD_TRY(
        bench_model_make(cli->cx, &b, &(struct bench_model_args){v->config, "cpu", 1, v->threads, overrides, count}));
    XKD_TRY(xkd_alloc(cli->cx, &left, xkd_optimizer_left(&xkd_trainer_look(b.trainer)->optimizer), sizeof *left));
    one_update(&b, left); /* touches the memory */
    for (int64_t i = 0; i < v->repeats; i++) {
        double seconds = one_update(&b, left);
        if (seconds < best) best = seconds;
    }
    XKD_TRY(copy_rate(cli->cx, b.be->pool, v->repeats, &copy));
    double bytes = update_bytes(&xkd_trainer_look(b.trainer)->optimizer), rate = bytes / best;
    printf(cli->json ? "{\"seconds\": %.6f, \"bytes\": %.0f, \"bytes_per_s\": %.0f, \"copy_bytes_per_s\": %.0f, "
                       "\"copy_share\": %.4f}\n"
                     : "%.4f s an update of %.0f bytes, %.2f GB/s; a copy %.2f GB/s: %.0f %%\n",
           best, bytes, cli->json ? rate : rate / 1e9, cli->json ? copy : copy / 1e9,
           cli->json ? rate / copy : 100 * rate / copy);
fail:
    xkd_free(left);
    bench_model_free(&b);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values v = {.repeats = 7, .threads = xkd_processor_count()};
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_bench_optimizer, argc, argv, &v, &rest);
    if (status != XKD_OK) return status;
    if (v.repeats < 1 || v.threads < 1)
        return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--repeats and --threads want at least 1");
    return bench(cli, &v, argv + 1, rest);
}

const struct cli_command cmd_bench_optimizer = {
    .name = "optimizer",
    .summary = "time of clipping, AdamW, moving averages and zeroing beside this machine's copy rate",
    .usage = "[-c FILE] [key=value ...]",
    .example = "xkd bench optimizer --json",
    .options = options,
    .run = run,
};
