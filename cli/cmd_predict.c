/* xkd predict: what a fine-tuned or linear model sees in files. Each file is decoded, scored and printed in turn, in
 * the order of the command line. What the model needs to know of its input stands in its own file. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "data_args.h"
#include "supervised/classifier.h"

/* 0: the model's own setting. */
struct values {
    int64_t top, clips, threads;
    const char *device;
    bool follow_links;
};

/* Few options: how input is made and judged is the model's own. */
static const struct cli_option options[] = {
    {'k', "top", CLI_INT, offsetof(struct values, top), "N", "classes to name for each file (default: 5)"},
    {0, "clips", CLI_INT, offsetof(struct values, clips), "N", "clips of a file (default: the model's test clips)"},
    {0, "device", CLI_TEXT, offsetof(struct values, device), "NAME", "where it computes, as run.device (default: cpu)"},
    {'t', "threads", CLI_INT, offsetof(struct values, threads), "N", "threads (default: processors)"},
    FOLLOW_LINKS_OPTION(struct values, follow_links),
    {0},
};

struct predict {
    struct cli *cli;
    int64_t top;
    xkd_classifier model;
    char **paths;                       /* the command line's */
    xkd_input_list list;                /* [count] */
    int64_t count, unreadable, damaged; /* files; those with a damaged clip */
    float *scores;                      /* [K] of the file at hand */
    int64_t *order;                     /* [top] classes, best first */
    xkd_text out;                       /* JSON */
    double start;
};

/* The `top` best classes by selection: few are wanted. scores [K] -> order [top]; ties go to the lower class. */
static void choose(struct predict *p)
{
    for (int64_t i = 0; i < p->top; i++) {
        int64_t best = -1;
        for (int64_t k = 0; k < p->model.classes.count; k++) {
            bool taken = false;
            for (int64_t j = 0; j < i; j++) taken |= p->order[j] == k;
            if (!taken && (best < 0 || p->scores[k] > p->scores[best])) best = k;
        }
        p->order[i] = best;
    }
}

/* The document grows file by file and is printed at the end, so that a failure leaves no half of it on stdout. */
static void put_json(struct predict *p, const xkd_embedded *file, const char *path)
{
    xkd_text_puts(&p->out, p->out.size ? ",\n  {\"path\": " : "[\n  {\"path\": ");
    xkd_text_json_string(&p->out, path);
    if (file->result.fault != XKD_FAULT_NONE) {
        xkd_text_puts(&p->out, ", \"error\": ");
        xkd_text_json_string(&p->out, file->result.message);
    } else {
        xkd_text_printf(&p->out, ", \"clips\": %" PRId64 ", \"damaged\": %" PRId64 ", \"classes\": [",
                        file->count[p->model.modality], file->damaged);
        for (int64_t i = 0; i < p->top; i++) {
            xkd_text_printf(&p->out, "%s{\"id\": %" PRId64 ", \"label\": ", i ? ", " : "", p->order[i]);
            xkd_text_json_string(&p->out, p->model.classes.items[p->order[i]]);
            xkd_text_printf(&p->out, ", \"score\": %.6f}", p->scores[p->order[i]]);
        }
        xkd_text_puts(&p->out, "]");
    }
    xkd_text_puts(&p->out, "}");
}

/* A line a class: file, score, name; a single file's name is left out. Flushed with the program's end; a tab
 * separates, since names and paths may hold blanks. */
static void print_text(const struct predict *p, const char *path)
{
    for (int64_t i = 0; i < p->top; i++) {
        char name[4096], class[1024];
        if (p->count > 1) printf("%s\t", cli_name(name, sizeof name, path));
        printf("%.4f\t%s\n", p->scores[p->order[i]],
               cli_name(class, sizeof class, p->model.classes.items[p->order[i]]));
    }
}

/* An embedding sink's function, called in this thread when all clips of a file have their scores. */
static xkd_status file_done(void *user, const xkd_embedded *file)
{
    struct predict *p = user;
    struct data_progress bar = {p->cli, "predict", p->start};
    const char *path = p->paths[file->input];
    bool good = file->result.fault == XKD_FAULT_NONE;
    /* The bar goes before the lines, which the terminal would otherwise draw over. */
    data_show_progress(&bar, file->input + 1, p->count);
    if (good) {
        xkd_status status = xkd_classifier_scores(p->cli->cx, &p->model, file, path, p->scores);
        if (status != XKD_OK) return status;
        choose(p);
        p->damaged += file->damaged > 0;
    } else {
        /* Named at once; the exit code waits until all files are through. */
        p->unreadable++;
        cli_say(p->cli, "%s: %s: %s", path, xkd_media_fault_name(file->result.fault), file->result.message);
    }
    if (p->cli->json)
        put_json(p, file, path);
    else if (good)
        print_text(p, path);
    return p->out.status; /* out of memory while the JSON grows */
}

/* A name that is not there is a mistake of the command line, found before the model is used. */
static xkd_status list_files(struct predict *p)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cli->cx;
    for (int64_t i = 0; i < p->count; i++) {
        if (!xkd_path_exists(p->paths[i])) XKD_FAIL(XKD_ERR_DATA, "%s: no such file (check the path)", p->paths[i]);
        if (xkd_is_folder(p->paths[i])) XKD_FAIL(XKD_ERR_DATA, "%s: is a folder: name files", p->paths[i]);
    }
    XKD_TRY(xkd_input_list_of(cx, (const char *const *)p->paths, p->count, &p->list));
fail:
    return status;
}

static xkd_status load(struct predict *p, const struct values *v, const char *path)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cli->cx;
    char text[3][64], *overrides[3]; /* three settings of the model's own configuration may be changed */
    int count = 0;
    if (v->clips) {
        snprintf(text[count], sizeof text[count], "eval.test_clips=%" PRId64, v->clips);
        overrides[count] = text[count];
        count++;
    }
    /* "run.threads", as in a configuration: options and keys have one parser. */
    if (v->threads) {
        snprintf(text[count], sizeof text[count], "run.threads=%" PRId64, v->threads);
        overrides[count] = text[count];
        count++;
    }
    /* The file may name the device of its training, which need not be here. */
    snprintf(text[count], sizeof text[count], "run.device=%s", v->device ? v->device : "cpu");
    overrides[count] = text[count];
    count++;
    XKD_TRY(xkd_classifier_load(cx, path, overrides, count, &p->model));
    /* Fewer classes than are asked for: all of them. */
    p->top = v->top < p->model.classes.count ? v->top : p->model.classes.count;
    XKD_TRY(xkd_alloc(cx, &p->scores, p->model.classes.count, sizeof *p->scores));
    XKD_TRY(xkd_alloc(cx, &p->order, p->top, sizeof *p->order));
fail:
    return status;
}

/* Interrupting it loses nothing but time, so signals are not caught here. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {.top = 5};
    struct predict p = {.cli = cli, .out = xkd_text_make(cx), .start = xkd_now()};
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_predict, argc, argv, &v, &rest));
    if (rest < 2)
        XKD_FAIL(XKD_ERR_CONFIG, "predict: a MODEL and at least one FILE are wanted ('--help' shows its use)");
    if (v.top < 1 || v.clips < 0 || v.threads < 0)
        XKD_FAIL(XKD_ERR_CONFIG, "predict: --top must be positive, --clips and --threads are not negative");
    p.paths = argv + 2;
    p.count = rest - 1;
    /* Before the model is loaded: a misspelt name costs nothing. */
    XKD_TRY(list_files(&p));
    XKD_TRY(load(&p, &v, argv[1]));
    const xkd_embed_sink sink = {&p, file_done, NULL};
    XKD_TRY(xkd_classify_files(cx, &p.model.model, &p.model.config, p.list.inputs, p.count, &sink));
    /* Printed before the failure below, which only sets the exit code. */
    if (cli->json) printf("%s\n]\n", p.out.data);
    if (p.unreadable)
        XKD_FAIL(XKD_ERR_DATA, "predict: %" PRId64 " of %" PRId64 " files could not be read: their names stand above",
                 p.unreadable, p.count);
    if (p.damaged)
        XKD_FAIL(XKD_ERR_DATA,
                 "predict: %" PRId64 " of %" PRId64 " files have damaged clips: the log names them, and their scores "
                 "are of what there is",
                 p.damaged, p.count);
fail:
    xkd_input_list_free(&p.list);
    xkd_free(p.scores);
    xkd_free(p.order);
    xkd_text_free(&p.out);
    xkd_classifier_free(&p.model);
    return status;
}

const struct cli_command cmd_predict = {
    .name = "predict",
    .summary = "name what a fine-tuned or linear model sees or hears in files",
    .usage = "MODEL FILE...",
    .description =
        "MODEL is classifier.safetensors of 'xkd finetune' or 'xkd linear', or its run folder: it knows its classes "
        "and how\n"
        "its input is made. Scores are those of the test clips and crops, averaged. A line is score and class, with "
        "the\n"
        "file in front where there are several. Files that cannot be read and clips that are damaged beyond the "
        "model's\n"
        "data.max_clip_damage are named, and the exit code is then 3.",
    .example = "xkd predict runs/ucf holiday.mp4 --top 3",
    .options = options,
    .run = run,
};
