/* xkd finetune, xkd linear: a classifier on top of a trained encoder, trained and tested from a manifest. Both
 * commands are one function with another mode; the training is supervised/train.c's. Options are settings of the
 * configuration in another form, so most of the file turns the former into the latter and results into text or JSON. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/status.h"
#include "base/text.h"
#include "class_table.h"
#include "config_args.h"
#include "ranks.h"
#include "report/progress.h"
#include "train/folder.h"
#include "supervised/train.h"

struct values {
    const char *out, *config, *split, *test, *test_split, *modality, *confusion;
    int64_t max_steps, overfit, workers, heads, ranks;
    bool resume, force, dry_run, strict, student, classes, follow_links;
};

/* One table for both commands: what they differ in is the mode. */
static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "RUN", "folder of the run"},
    {'c', "config", CLI_TEXT, offsetof(struct values, config), "FILE",
     "a finetune_*.yaml or linear_*.yaml (default: the released recipe for what the model sees)"},
    {0, "split", CLI_TEXT, offsetof(struct values, split), "NAME", "split to train on (default: the configuration's)"},
    {0, "test-split", CLI_TEXT, offsetof(struct values, test_split), "NAME",
     "split to test on (default: the configuration's)"},
    {0, "test", CLI_TEXT, offsetof(struct values, test), "MANIFEST", "test on files of another manifest"},
    {0, "modality", CLI_TEXT, offsetof(struct values, modality), "M",
     "video or audio (default: the configuration's, else what the model has, video first)"},
    {0, "student", CLI_FLAG, offsetof(struct values, student), NULL, "the student's encoder instead of the teacher's"},
    {0, "heads", CLI_INT, offsetof(struct values, heads), "H", "attention heads, where the file cannot say"},
    {0, "resume", CLI_FLAG, offsetof(struct values, resume), NULL, "go on with the run in --out"},
    {0, "force", CLI_FLAG, offsetof(struct values, force), NULL, "start anew in a folder that holds a run"},
    {'n', "dry-run", CLI_FLAG, offsetof(struct values, dry_run), NULL,
     "open and check everything, and say what memory and time the training takes (not its tests)"},
    {0, "max-steps", CLI_INT, offsetof(struct values, max_steps), "N", "stop after step N"},
    {0, "overfit", CLI_INT, offsetof(struct values, overfit), "1", "train on the first batch only"},
    RANKS_OPTION(struct values, ranks),
    {0, "workers", CLI_INT, offsetof(struct values, workers), "N", "decoding processes"},
    {0, "confusion", CLI_TEXT, offsetof(struct values, confusion), "FILE",
     "write the confusion matrix of the last test as a PNG"},
    {0, "classes", CLI_FLAG, offsetof(struct values, classes), NULL, "print a line for every class"},
    FOLLOW_LINKS_OPTION(struct values, follow_links),
    {0, "strict", CLI_FLAG, offsetof(struct values, strict), NULL, "refuse a key that is given twice"},
    {0},
};

/* MODEL and MANIFEST come first; both may be left out with --resume, since the run remembers them. */
struct arguments {
    const char *model, *manifest;
    char **overrides;
    int count;
};

/* Words that hold no '=' before a '/' are names: the first two are MODEL and MANIFEST. Neither is copied: argv
 * outlives the call. */
static xkd_status split_arguments(struct cli *cli, const struct values *v, char **rest, int count,
                                  struct arguments *out)
{
    xkd_context *cx = cli->cx;
    int names = 0;
    while (names < count && names < 2 && !is_override(rest[names])) names++;
    *out = (struct arguments){.overrides = rest + names, .count = count - names};
    if (names > 0) out->model = rest[0];
    if (names > 1) out->manifest = rest[1];
    /* A name behind a KEY=VALUE is more likely a slip than a third file. */
    for (int i = names; i < count; i++)
        if (!is_override(rest[i]))
            return xkd_fail(cx, XKD_ERR_CONFIG,
                            "'%s': behind MODEL and MANIFEST come KEY=VALUE only ('--help' shows the use)", rest[i]);
    if (!v->resume && names < 2)
        return xkd_fail(cx, XKD_ERR_CONFIG, "a MODEL and a MANIFEST are wanted ('--help' shows the use)");
    if (!v->out && !v->dry_run) return xkd_fail(cx, XKD_ERR_CONFIG, "--out RUN is missing ('--help' shows the use)");
    if (v->resume && v->force) return xkd_fail(cx, XKD_ERR_CONFIG, "--resume and --force exclude each other");
    /* A number, for symmetry with `xkd pretrain`, of which only 1 has a meaning. */
    if (v->overfit > 1) return xkd_fail(cx, XKD_ERR_CONFIG, "--overfit takes 1: the first batch");
    /* A count of steps or processes below 0 is a slip of the command line and no setting. */
    if (v->max_steps < 0 || v->overfit < 0 || v->heads < 0 || v->workers < 0)
        return xkd_fail(cx, XKD_ERR_CONFIG, "--max-steps, --overfit, --heads and --workers are not negative");
    if (v->modality && strcmp(v->modality, "video") != 0 && strcmp(v->modality, "audio") != 0)
        return xkd_fail(cx, XKD_ERR_CONFIG, "--modality %s: video or audio", v->modality);
    return XKD_OK;
}

/* A resumed run begins with its own configuration, a new one with the model's geometry. */
static xkd_status load_base(xkd_context *cx, const struct values *v, const struct arguments *a, xkd_eval_mode mode,
                            xkd_config *config)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    if (v->resume) {
        /* Without --out the path means nothing; the test below says what is wrong. */
        XKD_TRY(xkd_join_path(cx, &path, v->out ? v->out : "", "config.yaml"));
        if (!v->out || !xkd_path_exists(path))
            XKD_FAIL(XKD_ERR_CONFIG, "%s: no run to resume: leave out --resume to start one",
                     v->out ? v->out : "--out");
        /* Strict: the program wrote this file itself. */
        XKD_TRY(xkd_config_load(cx, config, path, true));
        config->run.max_steps = 0; /* --max-steps holds for one call */
    } else {
        /* The recipe is for those who name no file: a file is expected to say everything. */
        XKD_TRY(xkd_supervised_defaults(cx, a->model, mode, !v->config, config));
    }
    if (v->config) XKD_TRY(xkd_config_load(cx, config, v->config, v->strict));
    /* The released linear_kinetics400 says eval_mode: finetune; the command's name is plainer. */
    if (config->eval.mode != mode)
        xkd_log(cx, XKD_LOG_INFO, "eval_mode of the configuration is passed over: the command decides");
    config->eval.mode = mode;
fail:
    xkd_free(path);
    return status;
}

/* Defaults, then the file, then KEY=VALUE, then options: the more particular, the later. */
static xkd_status configure(struct cli *cli, const struct values *v, const struct arguments *a, xkd_eval_mode mode,
                            xkd_config *config)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    /* Through the override parser: the checks and messages are those of KEY=VALUE, and the texts become owned by the
     * configuration. */
    const struct {
        const char *key, *value;
    } texts[] = {{"run.init", a->model},      {"data.path", a->manifest},
                 {"run.out", v->out},         {"dataset.train.split", v->split},
                 {"eval.test_path", v->test}, {"eval.test_split", v->test_split}};
    XKD_TRY(load_base(cx, v, a, mode, config));
    for (int i = 0; i < a->count; i++) XKD_TRY(xkd_config_override(cx, config, a->overrides[i]));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].value) XKD_TRY(override(cx, config, texts[i].key, texts[i].value));
    if (v->max_steps > 0) config->run.max_steps = v->max_steps;
    if (v->overfit == 1) config->run.overfit = true;
    if (v->workers > 0) config->data.workers = v->workers;
    config->data.follow_links |= v->follow_links;
    if (v->student) config->eval.student = true; /* there is no option to turn a setting of the file off */
    if (v->modality) {
        config->eval.return_video = strcmp(v->modality, "video") == 0;
        config->eval.return_audio = !config->eval.return_video;
    }
    config->train.ranks = v->ranks;
    /* Last, because it checks what all the layers came to. */
    XKD_TRY(xkd_config_finish(cx, config));
fail:
    return status;
}

/* ---- what is said ---- */

/* Scores as an object; null where no test was made. */
static void put_scores(xkd_text *out, const char *key, const xkd_test_scores *s)
{
    const struct {
        const char *key;
        double value;
    } figures[] = {{"top1", s->top1},
                   {"top5", s->top5},
                   {"clip_top1", s->clip_top1},
                   {"clip_top5", s->clip_top5},
                   {"map", s->map}};
    xkd_text_printf(out, ", \"%s\": ", key);
    if (s->epoch == 0) {
        xkd_text_puts(out, "null");
        return;
    }
    xkd_text_printf(out, "{\"epoch\": %" PRId64, s->epoch);
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        xkd_text_printf(out, ", \"%s\": ", figures[i].key);
        /* A figure that these labels do not have. */
        if (isnan(figures[i].value))
            xkd_text_puts(out, "null");
        else
            xkd_text_printf(out, "%.4f", figures[i].value);
    }
    xkd_text_puts(out, "}");
}

/* "honest" is null until the last epoch has been tested. The status has a name, so a stopped run can be told from a
 * finished one. */
static void put_json(xkd_text *out, const xkd_config *c, const xkd_supervised_result *r, xkd_status ended)
{
    const xkd_test_scores none = {0};
    xkd_text_puts(out, "{\"run\": ");
    xkd_text_json_string(out, c->run.out);
    xkd_text_printf(out, ", \"status\": \"%s\", \"step\": %" PRId64 ", \"total_steps\": %" PRId64 ", \"loss\": ",
                    xkd_status_name(ended), r->run.step, r->run.total_steps);
    xkd_text_json_number(out, r->run.loss);
    xkd_text_printf(
        out, ", \"classes\": %" PRId64 ", \"train_files\": %" PRId64 ", \"test_files\": %" PRId64 ", \"replaced\": ",
        r->classes, r->train_files, r->test_files);
    xkd_text_json_number(out, r->replaced < 0 ? NAN : (double)r->replaced); /* NAN is null */
    xkd_text_printf(out, ", \"unreadable\": %" PRId64 ", \"damaged_clips\": %" PRId64 ", \"in_both\": %" PRId64,
                    r->unreadable, r->damaged, r->in_both);
    put_scores(out, "honest", r->finished ? &r->last : &none);
    put_scores(out, "last", &r->last);
    put_scores(out, "best", &r->best);
    if (!isnan(r->interval.low))
        xkd_text_printf(out, ", \"interval95\": [%.4f, %.4f]", r->interval.low, r->interval.high);
    xkd_text_printf(out,
                    ", \"bad_steps\": %" PRId64 ", \"bad_clips\": %" PRId64 ", \"parameters\": %" PRId64
                    ", \"seconds\": %.3f, \"samples_per_second\": %.4f, \"data_share\": %.4f}\n",
                    r->run.bad_steps, r->run.bad_clips, r->run.parameters, r->run.seconds, r->run.samples_per_second,
                    r->run.data_share);
}

/* One line for people; which figures exist depends on the labels. */
static void put_test(xkd_text *out, const char *title, const xkd_supervised_result *r, const xkd_test_scores *s,
                     const char *why)
{
    if (r->multi_label)
        xkd_text_printf(out, "%s mean average precision %.2f", title, s->map);
    else
        xkd_text_printf(out, "%s top-1 %.2f, top-5 %.2f, by clip %.2f and %.2f", title, s->top1, s->top5, s->clip_top1,
                        s->clip_top5);
    xkd_text_printf(out, " (epoch %" PRId64 ", %s)\n", s->epoch, why);
}

/* The honest figure comes first, since it is the one to quote. */
static void put_text(xkd_text *out, const xkd_config *c, const xkd_supervised_result *r)
{
    const char *run = c->run.out;
    char loss[32];
    xkd_format_loss(loss, sizeof loss, r->run.loss);
    xkd_text_printf(out,
                    "step %" PRId64 " of %" PRId64 ", loss %s, %.2f samples/s, %.0f %% of the time waiting for data\n",
                    r->run.step, r->run.total_steps, loss, r->run.samples_per_second, 100 * r->run.data_share);
    if (r->last.epoch == 0)
        xkd_text_puts(out, "not tested yet\n");
    else
        /* Not "honest" before the last epoch has been tested. */
        put_test(out, r->finished ? "honest:" : "so far:", r, &r->last,
                 r->finished ? "the last" : "the last one tested");
    if (r->best.epoch > 0) put_test(out, "best:  ", r, &r->best, "chosen on the test files, as released");
    if (!isnan(r->interval.low))
        xkd_text_printf(out, "95 %% of bootstrap samples of the test files: %.2f to %.2f\n", r->interval.low,
                        r->interval.high);
    /* What was left out is said with the figure, so that it cannot be quoted without. */
    if (r->replaced < 0)
        xkd_text_printf(out, "how many training files were replaced is unknown (%s/bad_clips.jsonl)\n", run);
    else if (r->replaced)
        xkd_text_printf(out,
                        "%" PRId64 " of %" PRId64
                        " training files could not be read and were replaced by others (%s/bad_clips.jsonl)\n",
                        r->replaced, r->train_files, run);
    if (r->unreadable)
        xkd_text_printf(out, "%" PRId64 " of %" PRId64 " test files could not be read and are in no figure\n",
                        r->unreadable, r->test_files);
    if (r->damaged)
        xkd_text_printf(out, "%" PRId64 " test clips are damaged beyond data.max_clip_damage\n", r->damaged);
    if (r->in_both)
        xkd_text_printf(out, "%" PRId64 " of %" PRId64 " test files are training files too\n", r->in_both,
                        r->test_files);
    if (r->empty_classes)
        xkd_text_printf(out, "%" PRId64 " classes have no test file; they count as 0\n", r->empty_classes);
    xkd_text_printf(out, "classifier   %s/classifier.safetensors\n", run);
    if (r->best.epoch > 0) xkd_text_printf(out, "best         %s/best.safetensors\n", run);
    xkd_text_printf(out, "checkpoints  %s/checkpoints\nreport       %s/report.html\n", run, run);
}

/* Also after a stop or an error, with what there is: `ended` is the status of the training. */
static xkd_status print_result(struct cli *cli, const struct values *v, const xkd_config *c,
                               const xkd_supervised_result *r, xkd_status ended)
{
    xkd_status status = XKD_OK;
    xkd_text out = xkd_text_make(cli->cx);
    /* Borrows the result's arrays. */
    const struct judged judged = {.scores = r->scores,
                                  .label = r->label,
                                  .truth = r->truth,
                                  .n = r->scored,
                                  .K = r->classes,
                                  .names = r->names,
                                  .name_count = r->classes};
    if (cli->json)
        put_json(&out, c, r, ended);
    else
        put_text(&out, c, r);
    if (out.status == XKD_OK) fputs(out.data, stdout);
    XKD_TRY(out.status);
    if (!v->classes && !v->confusion) goto fail;
    if (!r->scores) {
        cli_say(cli, "no classes to show: this call made no test");
        goto fail;
    }
    /* A table would break the JSON document. */
    if (v->classes && !cli->json) XKD_TRY(print_classes(cli, &judged));
    /* Said after the training and no error of it: only the manifest knows how many labels a file has. */
    if (v->confusion && r->multi_label) cli_say(cli, "no confusion matrix: files have several labels");
    if (v->confusion && !r->multi_label) XKD_TRY(draw_confusion(cli, v->confusion, &judged));
fail:
    xkd_text_free(&out);
    return status;
}

/* The same functions as a training open data and model, so a mistake shows here first. */
static xkd_status dry_run(struct cli *cli, const xkd_supervised_options *o)
{
    xkd_supervised_plan p;
    char a[32], b[32];
    xkd_status status = XKD_OK;
    if (*o->config->run.out) status = xkd_run_folder_check(cli->cx, o->config->run.out, o->run.mode);
    if (status == XKD_OK) status = xkd_supervised_look(cli->cx, o, &p);
    if (status != XKD_OK) return status;
    say_memory(cli, p.state_bytes + p.activation_bytes + p.loader_bytes, p.available_bytes);
    const char *modality = p.modality == XKD_VIDEO ? "video" : "audio", *labels = p.multi_label ? "several" : "one";
    if (cli->json) {
        printf("{\"modality\": \"%s\", \"multi_label\": %s, \"classes\": %" PRId64 ", \"train_files\": %" PRId64
               ", \"test_files\": %" PRId64 ", \"steps_per_epoch\": %" PRId64 ", \"total_steps\": %" PRId64,
               modality, p.multi_label ? "true" : "false", p.classes, p.train_files, p.test_files, p.steps_per_epoch,
               p.total_steps);
        printf(", \"parameters\": %" PRId64 ", \"trained\": %" PRId64 ", \"tokens\": %" PRId64 ", \"batch\": %" PRId64
               ", \"state_bytes\": %.0f, \"activation_bytes\": %.0f, \"loader_bytes\": %.0f"
               ", \"available_bytes\": %.0f, \"seconds\": %.3f}\n",
               p.parameters, p.trained, p.tokens, p.batch, p.state_bytes, p.activation_bytes, p.loader_bytes,
               p.available_bytes, p.seconds);
        return XKD_OK;
    }
    printf("%-22s %s, %" PRId64 " tokens a clip\n", "encoder of", modality, p.tokens);
    printf("%-22s %" PRId64 " to train on, %" PRId64 " to test on\n", "files", p.train_files, p.test_files);
    printf("%-22s %" PRId64 ", %s a file\n", "classes", p.classes, labels);
    /* Both numbers are of the whole training; a resumed run shows no less. */
    printf("%-22s %" PRId64 " (%" PRId64 " an epoch)\n", "steps", p.total_steps, p.steps_per_epoch);
    xkd_format_count(a, sizeof a, (double)p.parameters, "");
    xkd_format_count(b, sizeof b, (double)p.trained, "");
    printf("%-22s %s, %s of them trained\n", "parameters", a, b);
    xkd_format_count(a, sizeof a, p.state_bytes, "B");
    xkd_format_count(b, sizeof b, p.activation_bytes, "B");
    printf("%-22s %s model and optimiser + %s activations", "memory", a, b);
    xkd_format_count(a, sizeof a, p.loader_bytes, "B");
    printf(" + %s clips read ahead\n", a);
    xkd_format_duration(a, sizeof a, p.seconds);
    printf("%-22s about %s in training steps\n", "time", a);
    return XKD_OK;
}

/* Signals are caught before any thread exists, so that all of them inherit the blocked ones. */
static xkd_status train(struct cli *cli, const struct values *v, xkd_supervised_options *o, xkd_dist_place *place)
{
    xkd_supervised_result result;
    cli_catch_signals();
    xkd_status status = cli_join_ranks(cli, place, o->config->run.peer_timeout, &o->dist);
    if (status != XKD_OK) return status;
    status = xkd_supervised_train(cli->cx, o, &result);
    status = cli_leave_ranks(cli, o->dist, status, result.agreed);
    /* 0: the run failed before it was opened, and there is nothing to tell. */
    if (result.run.total_steps > 0 && place->rank == 0) {
        xkd_status printed = print_result(cli, v, o->config, &result, status);
        if (status == XKD_OK) status = printed; /* the training's own error is the one that counts */
    }
    xkd_supervised_result_free(&result);
    return status;
}

/* argv[0] of the two commands differs, and with it their name in messages. */
static int run_mode(struct cli *cli, const struct cli_command *command, xkd_eval_mode mode, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    struct values v = {0};
    struct arguments arguments;
    xkd_config config = {0};
    xkd_dist_place place;
    int rest = 0;
    bool launch;
    XKD_TRY(cli_parse(cli, command, argc, argv, &v, &rest));
    XKD_TRY(cli_ranks(cli, v.ranks, &place, &launch));
    if (!launch) v.ranks = place.size;
    XKD_TRY(split_arguments(cli, &v, argv + 1, rest, &arguments));
    XKD_TRY(xkd_config_init(cli->cx, &config));
    XKD_TRY(configure(cli, &v, &arguments, mode, &config));
    xkd_supervised_options o = {.config = &config,
                                .heads = v.heads,
                                .run = {.mode = v.resume  ? XKD_RUN_RESUME
                                                : v.force ? XKD_RUN_FORCE
                                                          : XKD_RUN_NEW,
                                        .stop_signal = stop_signal,
                                        .progress = progress,
                                        .user = cli}};
    if (v.dry_run)
        status = dry_run(cli, &o);
    else if (launch)
        status = (xkd_status)cli_launch_ranks(cli, v.ranks);
    else
        status = train(cli, &v, &o, &place);
fail:
    xkd_config_free(&config);
    return status;
}

static int run_finetune(struct cli *cli, int argc, char **argv)
{
    return run_mode(cli, &cmd_finetune, XKD_EVAL_FINETUNE, argc, argv);
}

static int run_linear(struct cli *cli, int argc, char **argv)
{
    return run_mode(cli, &cmd_linear, XKD_EVAL_LINEAR, argc, argv);
}

const struct cli_command cmd_finetune = {
    .name = "finetune",
    .summary = "train an encoder and a classifier on labelled files, and test them",
    .usage = "MODEL MANIFEST --out RUN [-c FILE] [KEY=VALUE ...]",
    .description =
        "MODEL is a run folder or a file with an encoder, MANIFEST what 'xkd data import' or 'xkd data index' made. "
        "Tests\n"
        "every eval.frequency epochs: 'honest' is the figure after the last epoch, 'best' the best on the test files, "
        "as\n"
        "the released code reports it. Files with one label are told apart by softmax and top-1, files with several "
        "by\n"
        "sigmoids and mean average precision. RUN/classifier.safetensors is all that 'xkd predict' needs. Signals,\n"
        "--resume and exit codes are those of 'xkd pretrain'.",
    .example = "xkd data import UCF101 /data/ucf101 --fold 1 --out ucf.jsonl\n"
               "  xkd finetune runs/first ucf.jsonl -c finetune_ucf101_config_f1.yaml --out runs/ucf",
    .options = options,
    .run = run_finetune,
};

const struct cli_command cmd_linear = {
    .name = "linear",
    .summary = "train a linear classifier on a frozen encoder, and test it",
    .usage = "MODEL MANIFEST --out RUN [-c FILE] [KEY=VALUE ...]",
    .description = "As 'xkd finetune', but the encoder stays as it is: random views every epoch, a linear layer on "
                   "their features.",
    .example = "xkd linear runs/first k400.jsonl -c linear_kinetics400_config.yaml --out runs/linear",
    .options = options,
    .run = run_linear,
};
