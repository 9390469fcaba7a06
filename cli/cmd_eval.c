/* xkd eval: a row of the paper's tables from an untouched data set and a model. A fold is opened (data set, models,
 * settings), checked, and then either read from its result, planned, or done by cli/eval_tasks.c. The table at the end
 * is cli/eval_report.c's. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "data/identity.h"
#include "data/links.h"
#include "data_args.h"
#include "eval/judge/draws.h"
#include "eval_report.h"
#include "eval_tasks.h"
#include "ranks.h"
#include "supervised/train.h"

enum { MOST_FOLDS = 16 }; /* ESC50 has five, the most of all */

/* Read by the option table below; the model's part is shared with other commands (cli/model_args.h). */
struct values {
    struct model_args model;
    const char *data, *path, *out;
    int64_t fold, classes, ranks;
    bool partial, dry_run, markdown, list;
};

static const struct cli_option options[] = {
    {0, "data", CLI_TEXT, offsetof(struct values, data), "ROOT", "the data set as it was unpacked"},
    {'m', "model", CLI_TEXT, offsetof(struct values, path), "MODEL",
     "run folder, model or encoder in any form that 'xkd inspect' knows"},
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "DIR",
     "folder that keeps what is done; the same command goes on"},
    {'c', "config", CLI_TEXT, offsetof(struct values, model.config), "FILE",
     "configuration on top of the evaluation's own"},
    {0, "fold", CLI_INT, offsetof(struct values, fold), "N", "this fold alone (default: all)"},
    {0, "audio-model", CLI_TEXT, offsetof(struct values, model.audio_model), "FILE",
     "take the audio encoder from another file"},
    {0, "student", CLI_FLAG, offsetof(struct values, model.student), NULL,
     "the students' encoders instead of the teachers'"},
    {0, "heads", CLI_INT, offsetof(struct values, model.heads), "H", "attention heads, where the file cannot say"},
    FOLLOW_LINKS_OPTION(struct values, model.follow_links),
    {0, "classes", CLI_INT, offsetof(struct values, classes), "N", "Kinetics-Sound: 32 or 31 classes (default: 32)"},
    RANKS_OPTION(struct values, ranks),
    {0, "partial", CLI_FLAG, offsetof(struct values, partial), NULL,
     "accept other counts than the official ones and any number of absent files; the result says so"},
    {'n', "dry-run", CLI_FLAG, offsetof(struct values, dry_run), NULL,
     "check all folds, and say what memory and time each takes"},
    {0, "markdown", CLI_FLAG, offsetof(struct values, markdown), NULL, "print the table as Markdown"},
    {0, "list", CLI_FLAG, offsetof(struct values, list), NULL, "list the evaluations and the paper's figures"},
    {0},
};

/* One call of the command. */
struct eval {
    struct cli *cli;
    struct values v;
    const xkd_benchmark *benchmark;
    double absent;    /* share of listed files that may be absent; 0: the set's own */
    char **overrides; /* [override_count] the user's KEY=VALUE, and the fold */
    int override_count;
    char fold[32];        /* dataset.fold=N: the last of them, since -c FILE may be one of another fold */
    xkd_clip_draws draws; /* of the first `drawn` folds, for an SVM */
    int64_t drawn;
    xkd_dist_place place;
    xkd_dist *dist; /* NULL: this process alone */
    bool agreed;    /* an error is that of all ranks */
};

/* Takes a fold at any stage of fold_open. */
static void fold_free(struct eval_fold *f)
{
    xkd_models_free(&f->models);
    xkd_config_free(&f->config);
    xkd_manifest_free(&f->manifest);
    xkd_import_result_free(&f->imported);
    xkd_free(f->folder);
    xkd_free(f->manifest_path);
    xkd_free(f->result_path);
}

/* `settings` are the row's, which lie between the model's own configuration and what the user gives. */
static xkd_status load_models(struct eval *e, struct eval_fold *f, const char *const *settings)
{
    const xkd_benchmark *b = e->benchmark;
    struct model_args args = e->v.model;
    args.settings = settings;
    args.config_again = true; /* read_budget was the first */
    /* The row of the table decides the modality; a model of both that is asked for one must not load the other. */
    args.modality = b->uses[XKD_VIDEO] && b->uses[XKD_AUDIO] ? "both" : b->uses[XKD_VIDEO] ? "video" : "audio";
    return models_load(e->cli, &args, e->v.path, e->overrides, e->override_count, &f->models);
}

/* Training starts from the library's defaults for it, and not from the settings of a pre-training. */
static xkd_status configure_training(struct eval *e, struct eval_fold *f, const char *const *settings)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    xkd_eval_mode mode = e->benchmark->task == XKD_BENCHMARK_LINEAR ? XKD_EVAL_LINEAR : XKD_EVAL_FINETUNE;
    /* Layers, the later winning: library defaults, the row's settings, the user's file, KEY=VALUE, the fold, options. */
    XKD_TRY(xkd_config_init(cx, &f->config));
    XKD_TRY(xkd_supervised_defaults(cx, f->model, mode, false, &f->config));
    for (const char *const *s = settings; *s; s++) XKD_TRY(xkd_config_override(cx, &f->config, *s));
    if (e->v.model.config) XKD_TRY(xkd_config_load_again(cx, &f->config, e->v.model.config));
    for (int i = 0; i < e->override_count; i++) XKD_TRY(xkd_config_override(cx, &f->config, e->overrides[i]));
    f->config.eval.mode = mode;
    f->config.eval.student |= e->v.model.student; /* |=: the configuration may ask for the student too */
    f->config.data.follow_links |= e->v.model.follow_links;
    f->config.train.ranks = e->place.size;
    XKD_TRY(xkd_config_finish(cx, &f->config));
fail:
    return status;
}

/* A class without files in either split means that lists or folders are not those of the data set. Every label of the
 * official list should occur in both splits, unless only a part was downloaded. */
static xkd_status check_classes(struct eval *e, const struct eval_fold *f)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    const xkd_manifest *m = &f->manifest;
    const xkd_config *c = eval_fold_config(f);
    const char *splits[] = {c->data.split, c->eval.test_split};
    /* Freed and made anew for each split, since the classes of the first must not count for the second. */
    uint8_t *seen = NULL;
    for (int s = 0; s < 2; s++) {
        int64_t files = 0;
        XKD_TRY(xkd_alloc(cx, &seen, m->class_count, 1));
        for (int64_t i = 0; i < m->count; i++) {
            const xkd_sample *x = &m->samples[i];
            /* Exact names: a file without a split would be in both, and importers never write one. */
            if (strcmp(x->split, splits[s]) != 0) continue;
            files++;
            if (x->label >= 0) seen[x->label] = 1;
            for (int64_t k = 0; k < xkd_sample_label_count(x); k++) seen[x->more->labels[k]] = 1;
        }
        if (files == 0) XKD_FAIL(XKD_ERR_DATA, "%s: has no file of split '%s'", e->v.data, splits[s]);
        for (int64_t k = 0; k < m->class_count && !e->v.partial; k++)
            if (!seen[k])
                XKD_FAIL(XKD_ERR_DATA, "%s: class %s has no file in split '%s' (--partial accepts that)", e->v.data,
                         m->classes[k], splits[s]);
        xkd_free(seen);
        seen = NULL;
    }
    XKD_TRY(xkd_manifest_check_trained(cx, m, splits[0], splits[1]));
fail:
    xkd_free(seen);
    return status;
}

/* Gives what changes no feature and no step its default: where the work is done and on what machine, and how hard a file
 * is tried. Files that are absent or could not be read are counted in the result. */
static void leave_out(xkd_config *config, const xkd_config *plain)
{
    config->run = plain->run;
    config->threads = plain->threads;
    config->data.workers = plain->data.workers;
    config->data.max_bad_fraction = plain->data.max_bad_fraction;
    config->data.max_absent_fraction = plain->data.max_absent_fraction;
    config->data.decode_seconds = plain->data.decode_seconds;
    config->data.follow_links = plain->data.follow_links;
    config->data.file_memory = plain->data.file_memory;
}

/* All that decides the figures: models, what of the configuration is not the default (so that a key that is added later
 * leaves the folders of today valid), and the files with their labels and contents. Features may be gone on with while
 * files are being repaired: their log knows which file has changed. A training has seen all files. */
static xkd_status hash_settings(struct eval *e, struct eval_fold *f)
{
    xkd_status status = XKD_OK;
    xkd_text t = xkd_text_make(e->cli->cx);
    xkd_config config = *eval_fold_config(f), plain;
    char *text = NULL;
    XKD_TRY(xkd_config_init(e->cli->cx, &plain));
    leave_out(&config, &plain);
    XKD_TRY(xkd_config_write_changed(e->cli->cx, &config, &plain, &text));
    /* Models by their hash, so that a path may change and the weights may not. */
    xkd_text_printf(&t, "%s %s %s\n%s", e->benchmark->name, f->models.encoder[0].hash, f->models.encoder[1].hash, text);
    /* The files with their labels: a corrected list is another evaluation. */
    uint64_t contents = 0, identity;
    for (int64_t i = 0; i < f->manifest.count; i++) {
        const xkd_sample *s = &f->manifest.samples[i];
        xkd_text_printf(&t, "\n%s %s %" PRId64, s->path, s->split, (int64_t)s->label);
        for (int64_t k = 0; k < xkd_sample_label_count(s); k++) xkd_text_printf(&t, ",%d", (int)s->more->labels[k]);
        XKD_TRY(xkd_sample_identity(e->cli->cx, &f->manifest, s, &identity));
        contents = XXH3_64bits_withSeed(&identity, sizeof identity, contents);
    }
    /* Later folds once drew their clips by the places of their own split. */
    if (f->draws && f->fold > 1) xkd_text_puts(&t, "\ndraws of all folds");
    XKD_TRY(t.status);
    f->begun = f->settings = XXH3_64bits_withSeed(t.data, (size_t)t.size, contents);
    if (e->benchmark->task == XKD_BENCHMARK_SVM) f->begun = XXH3_64bits(t.data, (size_t)t.size);
fail:
    xkd_config_free(&plain);
    xkd_free(text);
    xkd_text_free(&t);
    return status;
}

/* The training split of a fold by its name, without any model. */
static xkd_status split_of(struct eval *e, int64_t fold, const char *const *settings, xkd_config *config)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    char text[48];
    XKD_TRY(xkd_config_init(cx, config));
    for (const char *const *s = settings; *s; s++) XKD_TRY(xkd_config_override(cx, config, *s));
    if (e->v.model.config) XKD_TRY(xkd_config_load_again(cx, config, e->v.model.config));
    for (int i = 0; i + 1 < e->override_count; i++) XKD_TRY(xkd_config_override(cx, config, e->overrides[i]));
    snprintf(text, sizeof text, "dataset.fold=%" PRId64, fold);
    XKD_TRY(xkd_config_override(cx, config, text));
    XKD_TRY(xkd_config_finish(cx, config));
fail:
    return status;
}

/* Adds the training files of the folds before this one, and its own, so that each has the same draws in every fold, whether
 * all are done or this one alone. */
static xkd_status gather_draws(struct eval *e, struct eval_fold *f, const char *const *settings)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    xkd_config config = {0};
    xkd_manifest manifest = {0};
    xkd_import_result imported = {0};
    while (e->drawn < f->fold) {
        const xkd_import_options import = {e->drawn + 1, e->v.partial, e->v.classes, e->absent};
        bool own = import.fold == f->fold;
        if (!own) XKD_TRY(split_of(e, import.fold, settings, &config));
        if (!own) XKD_TRY(xkd_import(cx, e->benchmark->set, e->v.data, &import, &manifest, &imported));
        XKD_TRY(xkd_clip_draws_add(cx, &e->draws, own ? &f->manifest : &manifest,
                                   own ? eval_fold_config(f)->data.split : config.data.split));
        xkd_config_free(&config);
        xkd_manifest_free(&manifest);
        xkd_import_result_free(&imported);
        config = (xkd_config){0};
        manifest = (xkd_manifest){0};
        imported = (xkd_import_result){0};
        e->drawn++;
    }
    f->draws = &e->draws;
fail:
    xkd_config_free(&config);
    xkd_manifest_free(&manifest);
    xkd_import_result_free(&imported);
    return status;
}

/* Everything that may be refused, before anything is written. */
static xkd_status fold_open(struct eval *e, int64_t fold, struct eval_fold *f)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    /* Sets without folds take any number. */
    const xkd_import_options import = {fold ? fold : 1, e->v.partial, e->v.classes, e->absent};
    char name[24] = "all";
    const char *settings[XKD_BENCHMARK_SETTINGS];
    /* An audio evaluation with --audio-model never looks at MODEL. */
    bool sound = !e->benchmark->uses[XKD_VIDEO] && e->v.model.audio_model;
    *f = (struct eval_fold){.benchmark = e->benchmark,
                            .fold = fold,
                            .out = e->v.out,
                            .dist = e->dist,
                            .model = sound ? e->v.model.audio_model : e->v.path,
                            .heads = e->v.model.heads};
    if (fold) snprintf(name, sizeof name, "fold-%" PRId64, fold);
    /* The import comes first: it needs no model and finds the most common mistakes. */
    XKD_TRY(xkd_import(cx, e->benchmark->set, e->v.data, &import, &f->manifest, &f->imported));
    xkd_benchmark_settings(e->benchmark, settings);
    snprintf(e->fold, sizeof e->fold, "dataset.fold=%" PRId64, import.fold);
    XKD_TRY(load_models(e, f, settings));
    if (e->benchmark->task != XKD_BENCHMARK_SVM) XKD_TRY(configure_training(e, f, settings));
    XKD_TRY(
        xkd_manifest_check_links(cx, &f->manifest, eval_fold_config(f)->data.follow_links, &f->manifest.follow_links));
    XKD_TRY(check_classes(e, f));
    if (fold && e->benchmark->task == XKD_BENCHMARK_SVM) XKD_TRY(gather_draws(e, f, settings));
    XKD_TRY(hash_settings(e, f));
    /* Training loads its own copy. */
    if (e->benchmark->task != XKD_BENCHMARK_SVM) xkd_models_free(&f->models);
    XKD_TRY(xkd_join_path(cx, &f->folder, e->v.out ? e->v.out : ".", name)); /* --dry-run has no folder */
    XKD_TRY(xkd_join_path(cx, &f->manifest_path, f->folder, "manifest.jsonl"));
    XKD_TRY(xkd_join_path(cx, &f->result_path, f->folder, "result.json"));
fail:
    return status;
}

/* A result of other settings is never mixed into a mean. */
static xkd_status read_result(struct eval *e, const struct eval_fold *f, xkd_fold_result *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    /* A damaged result is an error and not taken as `not done`: it may stand for days of work. */
    XKD_TRY(xkd_fold_result_read(cx, f->result_path, out));
    if (out->settings != f->settings || out->fold != f->fold)
        XKD_FAIL(XKD_ERR_CONFIG, "%s: is of another model, other files or other settings: take another --out",
                 f->result_path);
fail:
    return status;
}

/* Work that was begun with other settings must not be gone on with: the fold's folder remembers them. `claim`: a folder
 * that has none yet is made with these, before the work, so that a run that dies at once is recognised too. */
static xkd_status check_folder(struct eval *e, const struct eval_fold *f, bool claim)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    char *path = NULL, *have = NULL, want[32];
    int64_t size = snprintf(want, sizeof want, "%d %016" PRIx64 "\n", XKD_FOLD_FORMAT, f->begun);
    XKD_TRY(xkd_join_path(cx, &path, f->folder, "settings"));
    if (!xkd_path_exists(path)) {
        if (claim) XKD_TRY(xkd_make_folder(cx, f->folder));
        if (claim) XKD_TRY(xkd_write_file(cx, path, want, size));
        goto fail;
    }
    XKD_TRY(xkd_read_file(cx, path, 64, XKD_ERR_DATA, &have, &size));
    /* The hash of another version is made of other things; the first versions wrote it alone. */
    if (strncmp(have, want, strcspn(want, " ") + 1) != 0)
        XKD_FAIL(XKD_ERR_CONFIG, "%s: was begun by another version of this program: take another --out", f->folder);
    if (strcmp(have, want) != 0)
        XKD_FAIL(XKD_ERR_CONFIG, "%s: was begun with another model, other files or other settings: take another --out",
                 f->folder);
fail:
    xkd_free(path);
    xkd_free(have);
    return status;
}

/* Refuses what is of other work; *done: there is a result, and it is in *out. Nothing is written. Without --out, in a plan,
 * there is no folder. */
static xkd_status look_at_folder(struct eval *e, const struct eval_fold *f, bool *done, xkd_fold_result *out)
{
    *done = e->v.out && xkd_path_exists(f->result_path);
    if (!e->v.out) return XKD_OK;
    return *done ? read_result(e, f, out) : check_folder(e, f, false);
}

/* The result is written last: a fold counts as done only when it is. */
static xkd_status fold_work(struct eval *e, struct eval_fold *f, xkd_fold_result *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    char *root = NULL;
    double start = xkd_now();
    int64_t here = 0;
    /* For every set that has folds; the paper's figures are their means. */
    if (f->fold) cli_say(e->cli, "fold %" PRId64 " of %" PRId64, f->fold, e->benchmark->folds);
    /* From here on the folder is this evaluation's. A manifest is written even where features are there: training loads it
     * by path. */
    if (xkd_dist_rank(e->dist) == 0) {
        XKD_TRY(check_folder(e, f, true));
        XKD_TRY(data_root_text(e->cli, f->manifest_path, f->manifest.root, &root));
        XKD_TRY(xkd_manifest_write(cx, &f->manifest, f->manifest_path, root));
        XKD_TRY(data_tell_missing(e->cli, &f->imported, f->manifest_path));
    }
    XKD_TRY(xkd_dist_largest(e->dist, &here, 1)); /* it is there for all */
    XKD_TRY(eval_fold_run(e->cli, f, out));
    out->seconds = xkd_now() - start;
    if (xkd_dist_rank(e->dist) == 0) XKD_TRY(xkd_fold_result_write(cx, f->result_path, out));
fail:
    e->agreed = f->agreed;
    xkd_free(root);
    return status;
}

/* A finished fold is read, an unfinished one gone on with. */
static xkd_status one_fold(struct eval *e, int64_t fold, xkd_fold_result *out)
{
    xkd_status status = XKD_OK;
    struct eval_fold f = {0};
    bool done;
    XKD_TRY(fold_open(e, fold, &f));
    XKD_TRY(look_at_folder(e, &f, &done, out));
    XKD_TRY(xkd_dist_broadcast(e->dist, &done, sizeof done));
    if (e->v.dry_run)
        XKD_TRY(eval_fold_plan(e->cli, &f, done));
    else if (done)
        cli_say(e->cli, "%s: done already", f.folder);
    else
        XKD_TRY(fold_work(e, &f, out));
fail:
    fold_free(&f);
    return status;
}

/* What would be refused when its turn comes, perhaps after days of work on those before. */
static xkd_status check_fold(struct eval *e, int64_t fold)
{
    xkd_status status = XKD_OK;
    struct eval_fold f = {0};
    xkd_fold_result result;
    bool done;
    XKD_TRY(fold_open(e, fold, &f));
    XKD_TRY(look_at_folder(e, &f, &done, &result));
fail:
    fold_free(&f);
    return status;
}

/* Fold by fold, each opened anew: its lists, splits and configuration are its own, and at most one encoder is in memory.
 * Nothing is printed before the last, so that a part never looks like the row. */
static xkd_status evaluate(struct eval *e)
{
    xkd_status status = XKD_OK;
    const xkd_benchmark *b = e->benchmark;
    xkd_fold_result folds[MOST_FOLDS];
    struct eval_report report = {.benchmark = b, .data = e->v.data, .model = e->v.path, .folds = folds};
    int64_t first = e->v.fold ? e->v.fold : b->folds ? 1 : 0, last = e->v.fold ? e->v.fold : b->folds;
    /* Of a single fold the check and the work are one opening. */
    for (int64_t fold = first; fold <= last && last > first; fold++) XKD_TRY(check_fold(e, fold));
    /* Each fold's encoder is freed before the next one is loaded. */
    for (int64_t fold = first; fold <= last; fold++) XKD_TRY(one_fold(e, fold, &folds[report.count++]));
    if (e->v.dry_run || xkd_dist_rank(e->dist) > 0) return XKD_OK;
    XKD_TRY(e->cli->json    ? eval_print_json(e->cli, &report)
            : e->v.markdown ? eval_print_markdown(e->cli, &report)
                            : eval_print_text(e->cli, &report));
fail:
    return status;
}

/* Mistakes of the command line alone, before anything is read. */
static xkd_status check_values(struct eval *e, const char *name)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    const struct values *v = &e->v;
    if (!name) XKD_FAIL(XKD_ERR_CONFIG, "eval: which evaluation? 'xkd eval --list' shows all");
    XKD_TRY(xkd_benchmark_find(cx, name, &e->benchmark));
    /* What is missing is told in the order in which a first user meets it. */
    if (!v->data || !v->path) XKD_FAIL(XKD_ERR_CONFIG, "eval: want --data ROOT and --model MODEL");
    if (!v->out && !v->dry_run) XKD_FAIL(XKD_ERR_CONFIG, "eval: --out DIR is missing: it keeps what is done");
    if (v->fold && !e->benchmark->folds)
        XKD_FAIL(XKD_ERR_CONFIG, "%s has no folds: leave out --fold", e->benchmark->set);
    if (v->fold < 0 || v->fold > e->benchmark->folds)
        XKD_FAIL(XKD_ERR_CONFIG, "%s has no fold %" PRId64 ": 1 .. %" PRId64, e->benchmark->set, v->fold,
                 e->benchmark->folds);
    if (v->classes != 31 && v->classes != 32) XKD_FAIL(XKD_ERR_CONFIG, "eval: --classes 31 or 32");
fail:
    return status;
}

/* The budget for absent files, which the import needs before there is a model whose configuration the others go on. */
static xkd_status read_budget(struct eval *e)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    xkd_config config;
    XKD_TRY(xkd_config_init(cx, &config));
    if (e->v.model.config) XKD_TRY(xkd_config_load(cx, &config, e->v.model.config, false));
    for (int i = 0; i < e->override_count; i++) XKD_TRY(xkd_config_override(cx, &config, e->overrides[i]));
    e->absent = config.data.max_absent_fraction;
fail:
    xkd_config_free(&config);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct eval e = {.cli = cli, .v = {.classes = 32}, .fold = "dataset.fold=1", .place = {.size = 1}};
    int rest = 0;
    bool launch;
    double timeout;
    XKD_TRY(cli_parse(cli, &cmd_eval, argc, argv, &e.v, &rest));
    if (e.v.list) {
        eval_print_list();
        return XKD_OK;
    }
    /* Without arguments the message names --list, which is the better start than --help. */
    XKD_TRY(check_values(&e, rest > 0 ? argv[1] : NULL));
    e.override_count = rest;
    XKD_TRY(xkd_alloc(cx, &e.overrides, rest, sizeof *e.overrides));
    memcpy(e.overrides, argv + 2, (size_t)(rest - 1) * sizeof *e.overrides);
    e.overrides[rest - 1] = e.fold;
    XKD_TRY(read_budget(&e));
    XKD_TRY(cli_ranks(cli, e.v.ranks, &e.place, &launch));
    if (launch) {
        status = (xkd_status)cli_launch_ranks(cli, e.v.ranks);
        goto fail;
    }
    /* Before any thread is made. */
    cli_catch_signals();
    XKD_TRY(cli_peer_timeout(cli, e.v.model.config, argv + 2, rest - 1, &timeout));
    XKD_TRY(cli_join_ranks(cli, &e.place, timeout, &e.dist));
    status = evaluate(&e);
    status = cli_leave_ranks(cli, e.dist, status, status == XKD_OK || e.agreed);
fail:
    xkd_clip_draws_free(&e.draws);
    xkd_free(e.overrides);
    return status;
}

const struct cli_command cmd_eval = {
    .name = "eval",
    .summary = "reproduce a row of the paper's tables from a data set and a model",
    .usage = "EVALUATION --data ROOT --model MODEL --out DIR [--fold N] [KEY=VALUE ...]",
    .description =
        "EVALUATION is a data set and a task, such as ucf101-svm; --list shows all. ROOT is the data set as it was\n"
        "unpacked. The command runs all folds with the released hyper-parameters, which -c and KEY=VALUE change. The\n"
        "printed row has the mean and standard deviation over folds: 'honest' uses nothing of the test split, 'best'\n"
        "is chosen on it as the released code does, 'paper' is what the paper reports. All work stays in --out:\n"
        "a second call prints the row again, and a call after a stop continues.",
    .example = "xkd eval ucf101-svm --data /data/ucf101 --model vid_teacher.pth.tar --out eval/ucf101-svm",
    .options = options,
    .run = run,
};
