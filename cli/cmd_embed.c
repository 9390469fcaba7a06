/* xkd embed: files -> features. The work itself is eval/encode/embed_files.c's; here inputs are gathered, options turned into
 * the library's, and the result told. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "data/csv.h"
#include "data/index.h"
#include "embed_args.h"
#include "eval/encode/embed_ranks.h"
#include "ranks.h"

/* Of options; LAST is a layer as well. No number that somebody might give stands for one that was not. */
enum { LAST = -1, BATCH = 8 };
static const int64_t NOT_GIVEN = INT64_MIN;

/* Texts are argv's, which lives as long as the program. */
struct values {
    struct model_args model;
    const char *out, *pool, *protocol, *split, *shard;
    int64_t layer, clips, batch, ranks;
    double stride;
    bool force, join;
};

static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "F", "file to write: .safetensors, .npz, .npy or .jsonl"},
    MODEL_OPTIONS(struct values, model),
    {0, "pool", CLI_TEXT, offsetof(struct values, pool), "P",
     "mean of the patches, cls, none: all tokens, or head: the projection head's outputs (default: mean)"},
    {0, "layer", CLI_INT, offsetof(struct values, layer), "L", "features behind block L (default: the last)"},
    {0, "protocol", CLI_TEXT, offsetof(struct values, protocol), "P",
     "windows over the whole file, test: N clips spread evenly, train: N augmented clips (default: windows)"},
    {0, "clips", CLI_INT, offsetof(struct values, clips), "N", "clips of a file (default: test 3, train 25)"},
    {0, "stride", CLI_REAL, offsetof(struct values, stride), "S", "seconds between windows (default: a clip)"},
    {0, "split", CLI_TEXT, offsetof(struct values, split), "NAME", "take this split of manifests only"},
    {0, "shard", CLI_TEXT, offsetof(struct values, shard), "I/N", "do every N-th file from the I-th on, I = 1 .. N"},
    {0, "join", CLI_FLAG, offsetof(struct values, join), NULL,
     "put feature files together: FEATURES... instead of MODEL"},
    RANKS_OPTION(struct values, ranks),
    {'b', "batch", CLI_INT, offsetof(struct values, batch), "B", "clips of a batch (default: 8)"},
    {0, "force", CLI_FLAG, offsetof(struct values, force), NULL, "replace F and forget an unfinished run"},
    {0},
};

/* One argument and what it names. */
struct source {
    char *name;
    xkd_manifest manifest;
};

/* All of one run. One manifest and one place an input: the library sees a list, whatever mixture was given. */
struct embed {
    struct cli *cli;
    struct values v;
    xkd_models models;
    struct source *sources; /* [source_count] */
    int64_t source_count;
    xkd_embed_input *inputs; /* [count] those of this shard; number: place among all inputs */
    int64_t count;
    xkd_shard shard;
    xkd_embed_options options;
    xkd_dist_place place;
    xkd_dist *dist; /* NULL: this process alone */
    double start;
};

/* ---- inputs ---- */

/* One argument: a manifest or folder with many files, or a single file. */
static xkd_status add_source(struct embed *e, const char *path)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    size_t length = strlen(path);
    bool manifest = length > 6 && strcmp(path + length - 6, ".jsonl") == 0;
    /* Grown before the file is looked at, so that a failure leaves only manifests that can be freed. */
    XKD_TRY(xkd_resize(cx, &e->sources, e->source_count, e->source_count + 1, sizeof *e->sources));
    struct source *source = &e->sources[e->source_count++];
    xkd_manifest *m = &source->manifest;
    XKD_TRY(xkd_copy_string(cx, &source->name, path)); /* a line of stdin is gone when it is wanted */
    if (!xkd_path_exists(path)) XKD_FAIL(XKD_ERR_DATA, "%s: no such file or folder (check the path)", path);
    if (manifest || xkd_is_folder(path)) {
        /* The split's filter holds for manifests; a file that is named is always taken. */
        XKD_TRY(xkd_manifest_load(cx, path, e->models.config.data.follow_links, m));
        if (e->v.split) xkd_manifest_keep_split(m, e->v.split);
        /* A split that is empty in one of several inputs is a mistake in its name. */
        if (m->count == 0)
            XKD_FAIL(XKD_ERR_DATA,
                     "%s: has no file of split '%s': its lines name their splits; --split takes one of them", path,
                     e->v.split);
    } else {
        XKD_TRY(xkd_manifest_of_file(cx, path, m));
    }
fail:
    return status;
}

/* Names on stdin, a line each. The list may be long, so it is read as it comes. */
static xkd_status add_stdin(struct embed *e)
{
    xkd_status status = XKD_OK;
    char *line = NULL;
    size_t size = 0;
    bool first = true;
    for (ssize_t n; (n = getline(&line, &size, stdin)) > 0; first = false) {
        /* The last line may end without one; lines of Windows end in two characters. A name may end in a blank. */
        if (n && line[n - 1] == '\n') line[--n] = 0;
        if (n && line[n - 1] == '\r') line[--n] = 0;
        const char *name = line + (first ? xkd_csv_mark(line, n) : 0);
        if (*name) XKD_TRY(add_source(e, name));
    }
fail:
    free(line);
    return status;
}

/* The result has one list of classes, so a label must mean the same in all inputs that have labels. Files that are named
 * one by one have none. */
static xkd_status check_classes(const struct embed *e)
{
    xkd_status status = XKD_OK;
    const struct source *first = NULL;
    for (const struct source *s = e->sources; s < e->sources + e->source_count; s++) {
        if (!first && xkd_manifest_has_labels(&s->manifest)) first = s;
        if (!first) continue;
        /* Folders make their list themselves, of their subfolders. */
        XKD_TRY(xkd_manifest_compare_classes(e->cli->cx, &first->manifest, first->name, &s->manifest, s->name,
                                             "make manifests of both from one class list, or embed them one by one"));
    }
fail:
    return status;
}

/* "I/N", counted from 1 as people count; nothing may follow. */
static xkd_status parse_shard(struct embed *e)
{
    char end = 0;
    xkd_shard *s = &e->shard;
    s->index = s->of = 1;
    if (!e->v.shard) return XKD_OK;
    if (sscanf(e->v.shard, "%" SCNd64 "/%" SCNd64 "%c", &s->index, &s->of, &end) != 2 || s->of < 1 || s->index < 1 ||
        s->index > s->of)
        return xkd_fail(e->cli->cx, XKD_ERR_CONFIG, "--shard %s: I/N with 1 <= I <= N", e->v.shard);
    return XKD_OK;
}

/* Cuts the list to this shard's inputs. The hash of the whole work goes into the feature file, so that shards can only be
 * joined with their own. */
static xkd_status cut_shard(struct embed *e)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    const xkd_embed_job whole = {.options = &e->options, .inputs = e->inputs, .count = e->count};
    int64_t all = e->count;
    if (e->shard.of > 1) XKD_TRY(xkd_embed_settings(cx, &whole, &e->shard.work));
    e->count = 0;
    for (int64_t i = 0; i < all; i++)
        if (i % e->shard.of == e->shard.index - 1) e->inputs[e->count++] = e->inputs[i];
    /* More shards than files: the other shards hold everything. */
    if (e->count == 0) XKD_FAIL(XKD_ERR_DATA, "embed: nothing to do for shard %s", e->v.shard ? e->v.shard : "1/1");
fail:
    return status;
}

/* Numbers are given out over all inputs before the shard is cut: a file has the same draws and features whichever
 * machine does it. */
static xkd_status list_inputs(struct embed *e, char **arguments, int count)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    int64_t all = 0;
    XKD_TRY(parse_shard(e));
    for (int i = 0; i < count; i++)
        XKD_TRY(strcmp(arguments[i], "-") == 0 ? add_stdin(e) : add_source(e, arguments[i]));
    XKD_TRY(check_classes(e));
    for (int64_t k = 0; k < e->source_count; k++) all += e->sources[k].manifest.count;
    XKD_TRY(xkd_alloc(cx, &e->inputs, all, sizeof *e->inputs));
    for (int64_t k = 0; k < e->source_count; k++) {
        const xkd_manifest *m = &e->sources[k].manifest;
        for (int64_t i = 0; i < m->count; i++, e->count++)
            e->inputs[e->count] = (xkd_embed_input){m, i, e->count, e->count};
    }
    XKD_TRY(cut_shard(e));
fail:
    return status;
}

/* ---- options ---- */

/* Numbers that a protocol has no use for are refused, as are those that mean nothing. */
static xkd_status check_numbers(xkd_context *cx, const struct values *v, xkd_clip_protocol p)
{
    bool windows = p == XKD_CLIPS_WINDOWS, clips = v->clips != NOT_GIVEN, stride = !isnan(v->stride);
    if (clips && v->clips < 1) return xkd_fail(cx, XKD_ERR_CONFIG, "--clips: at least 1");
    if (stride && !(v->stride > 0 && isfinite(v->stride)))
        return xkd_fail(cx, XKD_ERR_CONFIG, "--stride: a positive number of seconds");
    if (clips && windows)
        return xkd_fail(cx, XKD_ERR_CONFIG, "--clips: is for --protocol test and train; windows have --stride");
    if (stride && !windows)
        return xkd_fail(cx, XKD_ERR_CONFIG, "--stride: is for windows; --protocol test and train have --clips");
    return XKD_OK;
}

/* Options override what the configuration says; xkd_embed_options_of has made one view of it. */
static xkd_status set_options(struct embed *e)
{
    xkd_context *cx = e->cli->cx;
    const struct values *v = &e->v;
    xkd_embed_options *o = &e->options;
    /* Names of the parts are the library's; only words that choose between them are parsed here. */
    const char *protocol = v->protocol ? v->protocol : "windows";
    xkd_clip_protocol p = XKD_CLIPS_WINDOWS;
    if (strcmp(protocol, "test") == 0)
        p = XKD_CLIPS_TEST;
    else if (strcmp(protocol, "train") == 0)
        p = XKD_CLIPS_TRAIN;
    else if (strcmp(protocol, "windows") != 0)
        return xkd_fail(cx, XKD_ERR_CONFIG, "--protocol %s: windows, test or train", protocol);
    xkd_status status = xkd_models_check(cx, &e->models.config);
    if (status == XKD_OK) status = check_numbers(cx, v, p);
    if (status != XKD_OK) return status;
    *o = xkd_embed_options_of(&e->models.config, p, v->clips == NOT_GIVEN ? 0 : v->clips);
    /* After the recipe: --pool may ask for what no configuration knows, such as the projection head. */
    if (v->pool && !xkd_feature_kind_of(v->pool, &o->kind))
        return xkd_fail(cx, XKD_ERR_CONFIG, "--pool %s: mean, cls, none or head", v->pool);
    o->layer = v->layer;
    o->batch = v->batch;
    if (!isnan(v->stride)) o->clips.stride = v->stride; /* otherwise a clip's length: windows side by side */
    xkd_models_choose(&e->models, o);
    return XKD_OK;
}

/* ---- the work ---- */

static xkd_status tell(const struct embed *e, const xkd_embed_counts *counts)
{
    xkd_status status = XKD_OK;
    xkd_text text = xkd_text_make(e->cli->cx);
    double seconds = xkd_now() - e->start;
    if (e->cli->json) {
        xkd_text_puts(&text, "{\"out\": ");
        xkd_text_json_string(&text, e->v.out);
        xkd_text_printf(&text,
                        ", \"files\": %" PRId64 ", \"bad\": %" PRId64 ", \"video\": %" PRId64 ", \"audio\": %" PRId64
                        ", \"damaged\": %" PRId64 ", \"seconds\": %.2f}\n",
                        counts->files, counts->bad, counts->clips[0], counts->clips[1], counts->damaged, seconds);
        XKD_TRY(text.status);
        fputs(text.data, stdout);
    } else {
        printf("%s: %" PRId64 " files, %" PRId64 " unreadable; %" PRId64 " video and %" PRId64
               " audio clips in %.1f s\n",
               e->v.out, counts->files, counts->bad, counts->clips[0], counts->clips[1], seconds);
        if (counts->damaged)
            printf("%" PRId64 " of the clips are damaged beyond data.max_clip_damage\n", counts->damaged);
    }
fail:
    xkd_text_free(&text);
    return status;
}

static xkd_status embed_all(struct embed *e)
{
    xkd_status status = XKD_OK;
    const xkd_listener listener = cli_listener(e->cli);
    xkd_embed_counts counts;
    xkd_embed_job job = {.options = &e->options,
                         .inputs = e->inputs,
                         .count = e->count,
                         .path = e->v.out,
                         .shard = e->shard,
                         .dist = e->dist,
                         /* The log's file beside --out is what a second call goes on with. */
                         .anew = e->v.force,
                         .max_bad = e->models.config.data.max_bad_fraction};
    status = xkd_embed_files_heard(e->cli->cx, e->models.be, "embed", &job, &listener, &counts);
    /* A stop is no error of the library's: its message is replaced by one that says how to go on. */
    if (status == XKD_ERR_INTERRUPTED) status = cli_stopped(e->cli);
    XKD_TRY(status);
    if (xkd_dist_rank(e->dist) == 0) XKD_TRY(tell(e, &counts));
fail:
    return status;
}

/* KEY=VALUE comes last; an existing file may have a '=' in its name. */
static int count_files(char **arguments, int count)
{
    int files = 0;
    while (files < count && (!strchr(arguments[files], '=') || xkd_path_exists(arguments[files]))) files++;
    return files;
}

static xkd_status from_model(struct embed *e, char **arguments, int count)
{
    xkd_status status = XKD_OK;
    int files = count_files(arguments + 1, count - 1);
    double timeout;
    /* The head is loaded only where it is asked for: files of one encoder do not have it. */
    e->v.model.projector = e->v.pool && strcmp(e->v.pool, "head") == 0;
    /* Before models_load, whose backend makes threads: they inherit the blocked signals. */
    cli_catch_signals();
    /* The ranks meet first, since they share the processors. */
    XKD_TRY(cli_peer_timeout(e->cli, e->v.model.config, arguments + 1 + files, count - 1 - files, &timeout));
    XKD_TRY(cli_join_ranks(e->cli, &e->place, timeout, &e->dist));
    XKD_TRY(models_load(e->cli, &e->v.model, arguments[0], arguments + 1 + files, count - 1 - files, &e->models));
    XKD_TRY(set_options(e));
    XKD_TRY(list_inputs(e, arguments + 1, files));
    XKD_TRY(embed_all(e));
fail:
    return status;
}

/* ---- joining ---- */

/* All parts are held beside the result. */
static xkd_status join(struct embed *e, char **paths, int count, xkd_embeddings_form form)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    xkd_embeddings whole = {0};
    xkd_config defaults = {0};
    XKD_TRY(xkd_config_init(cx, &defaults));
    XKD_TRY(xkd_embeddings_join_files(cx, paths, count, &whole));
    XKD_TRY(xkd_embeddings_write(cx, &whole, e->v.out, form));
    const xkd_embed_counts counts = xkd_embed_counts_of(&whole, defaults.data.max_clip_damage);
    XKD_TRY(tell(e, &counts));
fail:
    xkd_embeddings_free(&whole);
    xkd_config_free(&defaults);
    return status;
}

/* What is said about features that are there already could only be ignored. */
static bool says_how(const struct values *v)
{
    const struct model_args *m = &v->model;
    return m->config || m->modality || m->audio_model || m->student || m->heads || v->pool || v->protocol || v->split ||
           v->shard || v->layer != LAST || v->clips != NOT_GIVEN || !isnan(v->stride) || v->batch != BATCH;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct embed e = {
        .cli = cli, .v = {.layer = LAST, .clips = NOT_GIVEN, .stride = NAN, .batch = BATCH}, .start = xkd_now()};
    xkd_embeddings_form form;
    int rest = 0;
    bool launch;
    XKD_TRY(cli_parse(cli, &cmd_embed, argc, argv, &e.v, &rest));
    if (rest < (e.v.join ? 1 : 2) || !e.v.out)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "embed: want MODEL INPUT... --out F, or --join FEATURES... --out F ('--help' shows its use)");
    if (e.v.join && says_how(&e.v))
        XKD_FAIL(XKD_ERR_CONFIG,
                 "embed: --join takes feature files, --out and --force alone: they are embedded already");
    /* Told before the model is loaded, which may take a minute. */
    XKD_TRY(xkd_embeddings_form_of(cx, e.v.out, &form));
    if (!e.v.force && xkd_path_exists(e.v.out))
        XKD_FAIL(XKD_ERR_CONFIG, "%s: exists already: --force replaces it", e.v.out);
    XKD_TRY(cli_ranks(cli, e.v.ranks, &e.place, &launch));
    if (e.place.size > 1 && e.v.shard) XKD_FAIL(XKD_ERR_CONFIG, "embed: --shard and ranks exclude each other");
    if (launch) return cli_launch_ranks(cli, e.v.ranks);
    status = e.v.join ? join(&e, argv + 1, rest, form) : from_model(&e, argv + 1, rest);
    status = cli_leave_ranks(cli, e.dist, status, status == XKD_OK);
fail:
    for (int64_t i = 0; i < e.source_count; i++) {
        xkd_manifest_free(&e.sources[i].manifest);
        xkd_free(e.sources[i].name);
    }
    xkd_free(e.sources);
    xkd_free(e.inputs);
    xkd_models_free(&e.models);
    return status;
}

const struct cli_command cmd_embed = {
    .name = "embed",
    .summary = "compute features of videos and sounds with a trained encoder",
    .usage = "MODEL INPUT... --out F [options] [KEY=VALUE ...] | --join FEATURES... --out F",
    .description =
        "MODEL is a run folder, a model or an encoder in any form that 'xkd inspect' knows; INPUT a file, a folder,\n"
        "a manifest, or - for names on stdin. If the command was stopped, give it again and it continues.\n"
        "It names files that it cannot read and clips with more than data.max_clip_damage. If there are more than\n"
        "data.max_bad_fraction of either, it writes no result and exits with 3.\n"
        "Memory holds the features of a file until it is finished: with --pool none these are all its tokens.\n"
        "--join makes one file of all shards of a collection, or of features of different files.",
    .example = "xkd embed runs/first videos/ --out features.safetensors",
    .options = options,
    .run = run,
};
