/* xkd pretrain: from a folder of videos to trained encoders. The training itself is train/loop.c; this file makes the
 * configuration, prints plans and results, and nothing else. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/status.h"
#include "base/text.h"
#include "config_args.h"
#include "plan_costs.h"
#include "ranks.h"
#include "report/progress.h"
#include "train/loop.h"

/* workers INT64_MIN: not given, so that 0 can be refused. */
struct values {
    const char *data, *out, *config, *init;
    int64_t max_steps, overfit, workers, ranks;
    bool resume, force, dry_run, strict, follow_links;
};

static const struct cli_option options[] = {
    {0, "data", CLI_TEXT, offsetof(struct values, data), "PATH", "folder of videos, or a manifest (xkd data index)"},
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "RUN", "folder of the run"},
    {'c', "config", CLI_TEXT, offsetof(struct values, config), "FILE", "YAML configuration (default: XKD)"},
    {0, "init", CLI_TEXT, offsetof(struct values, init), "FILE",
     "weights to start from: a model or backbone as safetensors or a PyTorch file, the release's too"},
    {0, "resume", CLI_FLAG, offsetof(struct values, resume), NULL, "go on with the run in --out"},
    {0, "force", CLI_FLAG, offsetof(struct values, force), NULL, "start anew in a folder that holds a run"},
    {'n', "dry-run", CLI_FLAG, offsetof(struct values, dry_run), NULL, "say what would be done, and what it costs"},
    {0, "max-steps", CLI_INT, offsetof(struct values, max_steps), "N", "stop after step N"},
    {0, "overfit", CLI_INT, offsetof(struct values, overfit), "1", "train on the first batch only"},
    RANKS_OPTION(struct values, ranks),
    {0, "workers", CLI_INT, offsetof(struct values, workers), "N", "decoding processes"},
    FOLLOW_LINKS_OPTION(struct values, follow_links),
    {0, "strict", CLI_FLAG, offsetof(struct values, strict), NULL, "refuse a key that is given twice"},
    {0},
};

/* Mistakes of the command line alone, before anything is read. */
static xkd_status check_values(struct cli *cli, const struct values *v)
{
    xkd_context *cx = cli->cx;
    if (!v->out && !v->dry_run)
        return xkd_fail(cx, XKD_ERR_CONFIG, "pretrain: --out RUN is missing ('--help' shows its use)");
    if (v->resume && v->force) return xkd_fail(cx, XKD_ERR_CONFIG, "pretrain: --resume and --force exclude each other");
    if (v->overfit > 1) return xkd_fail(cx, XKD_ERR_CONFIG, "pretrain: --overfit takes 1: the first batch");
    if (v->max_steps < 0 || v->overfit < 0)
        return xkd_fail(cx, XKD_ERR_CONFIG, "pretrain: a number of steps is not negative");
    if (v->workers < 1 && v->workers != INT64_MIN)
        return xkd_fail(cx, XKD_ERR_CONFIG, "pretrain: --workers wants at least 1");
    return XKD_OK;
}

/* The run's own configuration comes before the command line when it is resumed. */
static xkd_status load_base(xkd_context *cx, xkd_config *config, const struct values *v)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    /* -c with --resume replaces the run's configuration: the user asks for other settings, of which the log tells. */
    if (v->config) {
        XKD_TRY(xkd_config_load(cx, config, v->config, v->strict));
    } else if (v->resume) {
        XKD_TRY(xkd_join_path(cx, &path, v->out, "config.yaml"));
        if (!xkd_path_exists(path))
            XKD_FAIL(XKD_ERR_CONFIG, "%s: no run to resume: leave out --resume to start one", v->out);
        /* Strict: the program wrote this file itself. */
        XKD_TRY(xkd_config_load(cx, config, path, true));
        config->run.max_steps = 0; /* --max-steps holds for one call */
    }
fail:
    xkd_free(path);
    return status;
}

/* Defaults, then the file, then KEY=VALUE, then options: the more particular, the later. */
static xkd_status configure(struct cli *cli, const struct values *v, char **overrides, int count, xkd_config *config)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    XKD_TRY(check_values(cli, v));
    XKD_TRY(load_base(cx, config, v));
    for (int i = 0; i < count; i++) XKD_TRY(xkd_config_override(cx, config, overrides[i]));
    /* Texts become the configuration's own copies. */
    if (v->data) XKD_TRY(override(cx, config, "data.path", v->data));
    if (v->out) XKD_TRY(override(cx, config, "run.out", v->out));
    if (v->init) XKD_TRY(override(cx, config, "run.init", v->init));
    /* Options with numbers write the field: their ranges were checked above. */
    if (v->max_steps > 0) config->run.max_steps = v->max_steps;
    if (v->overfit == 1) config->run.overfit = true;
    config->data.follow_links |= v->follow_links;
    if (v->workers > 0) config->data.workers = v->workers;
    XKD_TRY(xkd_config_finish(cx, config));
    /* Geometry against data, which only a training needs: other commands take these configurations as they are. */
    XKD_TRY(xkd_config_check_data(cx, config));
    /* A dry run tells the cost of a model without data. */
    if (!*config->data.path && !v->dry_run)
        XKD_FAIL(XKD_ERR_CONFIG, "pretrain: --data PATH is missing ('--help' shows its use)");
fail:
    return status;
}

/* For programs; the keys are the plan's fields. */
static void print_plan_json(const xkd_config *c, const xkd_train_plan *p)
{
    printf("{\"parameters\": %" PRId64 ", \"trained\": %" PRId64 ", \"batch\": %" PRId64 ", \"micro_batch\": %" PRId64
           ", \"video_tokens\": %" PRId64 ", \"video_kept\": %" PRId64 ", \"audio_tokens\": %" PRId64
           ", \"audio_kept\": %" PRId64 ", \"state_bytes\": %.0f, \"activation_bytes\": %.0f, \"samples\": %" PRId64
           ", \"steps_per_epoch\": %" PRId64 ", \"total_steps\": %" PRId64 ", \"seconds_per_sample\": %.6f"
           ", \"seconds_per_step\": %.6f, \"scratch_bytes\": %.0f, \"exchange_bytes\": %.0f"
           ", \"list_bytes\": %.0f, \"ring_bytes\": %.0f, \"worker_bytes\": %.0f"
           ", \"cache_bytes\": %.0f, \"memory_bytes\": %.0f}\n",
           p->parameters, p->trained, c->train.batch, p->micro_batch, p->video_tokens, p->video_kept, p->audio_tokens,
           p->audio_kept, p->state_bytes, p->activation_bytes, p->samples, p->steps_per_epoch, p->total_steps,
           p->seconds_per_sample, p->seconds_per_step, p->scratch_bytes, p->exchange_bytes, p->list_bytes,
           p->ring_bytes, p->worker_bytes, p->cache_bytes, plan_memory(p));
}

/* Both numbers, for the mask decides what the encoder really computes. */
static void print_view(const char *name, int64_t tokens, int64_t kept)
{
    printf("%-22s %" PRId64 " tokens, %" PRId64 " kept by the mask\n", name, tokens, kept);
}

/* For people. Costs that could not be measured are left out. */
static void print_plan(const xkd_config *c, const xkd_train_plan *p)
{
    const xkd_model_config *m = &c->model;
    char a[32], b[32], time[32];
    const bool *left_out = c->data.left_out;
    if (!left_out[XKD_VIDEO])
        printf("%-22s %" PRId64 " global + %" PRId64 " local, global 3x%" PRId64 "x%" PRId64 "x%" PRId64 "\n",
               "video views", c->step.global_views, c->data.video_local_views, m->num_frames, m->frame_height,
               m->frame_width);
    if (!left_out[XKD_AUDIO])
        printf("%-22s %" PRId64 " global + %" PRId64 " local, global 1x%" PRId64 "x%" PRId64 "\n", "audio views",
               c->step.global_views, c->data.audio_local_views, m->spec_freq, m->spec_time);
    if (!left_out[XKD_VIDEO]) print_view("video tokens", p->video_tokens, p->video_kept);
    if (!left_out[XKD_AUDIO]) print_view("audio tokens", p->audio_tokens, p->audio_kept);
    /* Sizes of the views and numbers of tokens come first: a wrong geometry shows there. */
    xkd_format_count(a, sizeof a, (double)p->parameters, "");
    xkd_format_count(b, sizeof b, (double)p->trained, "");
    printf("%-22s %s, %s of them trained\n", "parameters", a, b);
    xkd_format_count(a, sizeof a, p->state_bytes, "B");
    xkd_format_count(b, sizeof b, p->activation_bytes, "B");
    printf("%-22s %s model and optimiser + %s activations\n", "memory", a, b);
    xkd_format_count(a, sizeof a, p->scratch_bytes, "B");
    xkd_format_count(b, sizeof b, p->ring_bytes + p->worker_bytes, "B");
    printf("%-22s + %s scratch of threads + %s batches ahead and decoding", "", a, b);
    xkd_format_count(a, sizeof a, p->list_bytes, "B");
    if (p->list_bytes > 0) printf(" + %s list of samples", a);
    xkd_format_count(a, sizeof a, p->cache_bytes, "B");
    if (p->cache_bytes > 0) printf(" + %s data.cache=ram", a);
    xkd_format_count(a, sizeof a, p->exchange_bytes, "B");
    if (p->exchange_bytes > 0) printf(" + %s sums over ranks", a);
    xkd_format_count(b, sizeof b, plan_memory(p), "B");
    printf(" = %s\n", b);
    printf("%-22s %" PRId64 " (%" PRId64 " at a time)\n", "batch", c->train.batch, p->micro_batch);
    if (p->total_steps)
        printf("%-22s %" PRId64 " (%" PRId64 " an epoch, %" PRId64 " samples)\n", "steps", p->total_steps,
               p->steps_per_epoch, p->samples);
    if (p->seconds_per_sample > 0)
        printf("%-22s %.3f s, and %.3f s a step for the optimiser\n", "time per sample", p->seconds_per_sample,
               p->seconds_per_step);
    if (p->total_steps && p->seconds_per_sample > 0) {
        double step = p->seconds_per_sample * (double)c->train.batch + p->seconds_per_step;
        xkd_format_duration(time, sizeof time, step * (double)p->total_steps);
        /* Decoding is not in it: whether data keep up shows in the first epochs. */
        printf("%-22s %s if data keep up\n", "time in all", time);
    }
}

static xkd_run_mode mode_of(const struct values *v)
{
    return v->resume ? XKD_RUN_RESUME : v->force ? XKD_RUN_FORCE : XKD_RUN_NEW;
}

/* Works without data and without a run folder; what is named is looked at as the run would. */
static xkd_status dry_run(struct cli *cli, const struct values *v, const xkd_config *config)
{
    xkd_train_plan plan;
    xkd_status status = XKD_OK;
    if (*config->run.out) status = xkd_run_folder_check(cli->cx, config->run.out, mode_of(v));
    if (status == XKD_OK) status = xkd_plan_training(cli->cx, config, &plan);
    if (status != XKD_OK) return status;
    /* Where a step was measured. */
    if (plan_memory(&plan) > plan.available_bytes)
        xkd_log(cli->cx, XKD_LOG_WARN,
                "the run would take %.1f GB and %.1f GB are free: lower dataset.batch_size, raise train.accumulate%s",
                plan_memory(&plan) / 1e9, plan.available_bytes / 1e9,
                plan.cache_bytes > 0 ? ", or keep data.cache in a folder" : "");
    if (cli->json)
        print_plan_json(config, &plan);
    else
        print_plan(config, &plan);
    return XKD_OK;
}

/* What the run has come to and where it lies; the one thing on stdout. */
static xkd_status print_result(struct cli *cli, const xkd_config *c, const xkd_run_result *r, xkd_status ended)
{
    xkd_text out = xkd_text_make(cli->cx);
    const char *run = c->run.out;
    char loss[32];
    /* One document whatever happened, with the status in it. */
    if (cli->json) {
        xkd_text_puts(&out, "{\"run\": ");
        xkd_text_json_string(&out, run);
        xkd_text_printf(&out, ", \"status\": \"%s\", \"step\": %" PRId64 ", \"total_steps\": %" PRId64 ", \"loss\": ",
                        xkd_status_name(ended), r->step, r->total_steps);
        xkd_text_json_number(&out, r->loss);
        xkd_text_printf(&out,
                        ", \"bad_steps\": %" PRId64 ", \"bad_clips\": %" PRId64 ", \"parameters\": %" PRId64
                        ", \"seconds\": %.3f, \"samples_per_second\": %.4f, \"data_share\": %.4f}\n",
                        r->bad_steps, r->bad_clips, r->parameters, r->seconds, r->samples_per_second, r->data_share);
    } else {
        xkd_text_printf(&out,
                        "step %" PRId64 " of %" PRId64 ", loss %s, %.2f samples/s, %.0f %% of the time waiting for "
                        "data\n",
                        r->step, r->total_steps, xkd_format_loss(loss, sizeof loss, r->loss), r->samples_per_second,
                        100 * r->data_share);
        xkd_text_printf(&out,
                        "checkpoints  %s/checkpoints\ncurves       %s/curves\npictures     %s/pictures\n"
                        "report       %s/report.html\n",
                        run, run, run, run);
        /* Backbones are exported at the end of the schedule only. */
        if (ended == XKD_OK) xkd_text_printf(&out, "backbones    %s/backbones\n", run);
    }
    if (out.status == XKD_OK) fputs(out.data, stdout);
    xkd_status status = out.status;
    xkd_text_free(&out);
    return status;
}

/* Signals are caught only from here on: before, Ctrl-C ends the program as usual. */
static xkd_status train(struct cli *cli, const struct values *v, const xkd_config *config, xkd_dist_place *place)
{
    const xkd_run_options loop = {.mode = mode_of(v), .stop_signal = stop_signal, .progress = progress, .user = cli};
    xkd_run_result result;
    xkd_dist *dist;
    bool agreed;
    /* Before any thread exists, so that all of them inherit the blocked signals. */
    cli_catch_signals();
    xkd_status status = cli_join_ranks(cli, place, config->run.peer_timeout, &dist);
    if (status != XKD_OK) return status;
    status = xkd_train(cli->cx, config, &loop, dist, &result, &agreed);
    status = cli_leave_ranks(cli, dist, status, agreed);
    /* A run that got as far as training says what it left behind, however it ended. */
    if (result.total_steps > 0 && place->rank == 0) {
        xkd_status printed = print_result(cli, config, &result, status);
        if (status == XKD_OK) status = printed;
    }
    return status;
}

/* The configuration is made before it is filled, so it can be freed in every case. Mistakes are found before ranks are
 * started, and said once. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    struct values v = {.workers = INT64_MIN}; /* not given */
    xkd_config config = {0};
    xkd_dist_place place;
    int rest = 0;
    bool launch;
    XKD_TRY(cli_parse(cli, &cmd_pretrain, argc, argv, &v, &rest));
    XKD_TRY(cli_ranks(cli, v.ranks, &place, &launch));
    XKD_TRY(xkd_config_init(cli->cx, &config));
    config.train.ranks = launch ? v.ranks : place.size;
    XKD_TRY(configure(cli, &v, argv + 1, rest, &config));
    if (v.dry_run)
        status = dry_run(cli, &v, &config);
    else if (launch)
        status = (xkd_status)cli_launch_ranks(cli, v.ranks);
    else
        status = train(cli, &v, &config, &place);
fail:
    xkd_config_free(&config);
    return status;
}

const struct cli_command cmd_pretrain = {
    .name = "pretrain",
    .summary = "train video and audio encoders on a folder of videos",
    .usage = "--data PATH --out RUN [-c FILE] [KEY=VALUE ...]",
    .description =
        "Reads videos, trains the students, teachers and decoders of XKD, and writes checkpoints, logs, curves,\n"
        "reconstruction pictures and a report into RUN. KEY=VALUE changes one key of the configuration;\n"
        "'xkd help options' lists all. Ctrl-C, SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP end the run after its step and "
        "save it\n"
        "(exit codes 130 and 75); --resume goes on and ends with the same bits as if never stopped.\n"
        "With train.accumulate=N a step is N micro-batches: gradients and centres average over all of them, but\n"
        "MMD compares only the samples of one micro-batch, as with model.fwd_kwargs.mmd_group. --ranks N, mpirun, "
        "srun\n"
        "and torchrun share the micro-batches over processes, to the same bits (docs/ranks.md).",
    .example = "xkd pretrain --data videos/ --out runs/first -c configs/xkd.yaml dataset.batch_size=8 num_node=1",
    .options = options,
    .run = run,
};
