/* xkd embed: files -> features. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "data/index.h"
#include "data_args.h"
#include "eval/embed_log.h"
#include "eval/embeddings.h"
#include "model_args.h"

struct values {
    struct model_args model;
    const char *out, *pool, *protocol, *split, *shard;
    int64_t layer, clips, batch;
    double stride;
    bool force;
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
    {'b', "batch", CLI_INT, offsetof(struct values, batch), "B", "clips of a batch (default: 8)"},
    {0, "force", CLI_FLAG, offsetof(struct values, force), NULL, "replace F and forget an unfinished run"},
    {0},
};

/* All of one run. */
struct embed {
    struct cli *cli;
    struct values v;
    struct models models;
    xkd_manifest *manifests; /* [count], one an argument */
    int64_t manifest_count;
    xkd_embed_input *inputs; /* [count] those of this shard; number: place among all inputs */
    int64_t count, all;
    xkd_embed_options options;
    xkd_embed_log *log;
    const xkd_embed_input *todo;
    int64_t already, bad;
    double start;
};

/* ---- inputs ---- */

static xkd_status add_source(struct embed *e, const char *path)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    size_t length = strlen(path);
    bool manifest = length > 6 && strcmp(path + length - 6, ".jsonl") == 0;
    XKD_TRY(xkd_resize(cx, &e->manifests, e->manifest_count, e->manifest_count + 1, sizeof *e->manifests));
    xkd_manifest *m = &e->manifests[e->manifest_count++];
    if (!xkd_path_exists(path)) XKD_FAIL(XKD_ERR_DATA, "%s: no such file or folder", path);
    if (manifest || xkd_is_folder(path)) {
        XKD_TRY(xkd_manifest_load(cx, path, e->models.config.data.follow_links, m));
        if (e->v.split) xkd_manifest_keep_split(m, e->v.split);
        if (m->count == 0) XKD_FAIL(XKD_ERR_DATA, "%s: has no file of split '%s'", path, e->v.split);
    } else {
        XKD_TRY(xkd_manifest_of_file(cx, path, m));
    }
fail:
    return status;
}

/* Names on stdin, a line each. */
static xkd_status add_stdin(struct embed *e)
{
    xkd_status status = XKD_OK;
    char *line = NULL;
    size_t size = 0;
    for (ssize_t n; (n = getline(&line, &size, stdin)) > 0;) {
        if (line[n - 1] == '\n') line[n - 1] = 0;
        if (line[0]) XKD_TRY(add_source(e, line));
    }
fail:
    free(line);
    return status;
}

static xkd_status parse_shard(struct embed *e, int64_t *index, int64_t *of)
{
    char end = 0;
    *index = *of = 1;
    if (!e->v.shard) return XKD_OK;
    if (sscanf(e->v.shard, "%" SCNd64 "/%" SCNd64 "%c", index, of, &end) != 2 || *of < 1 || *index < 1 || *index > *of)
        return xkd_fail(e->cli->cx, XKD_ERR_CONFIG, "--shard %s: I/N with 1 <= I <= N", e->v.shard);
    return XKD_OK;
}

static xkd_status list_inputs(struct embed *e, char **arguments, int count)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    int64_t index, of;
    XKD_TRY(parse_shard(e, &index, &of));
    for (int i = 0; i < count; i++)
        XKD_TRY(strcmp(arguments[i], "-") == 0 ? add_stdin(e) : add_source(e, arguments[i]));
    for (int64_t k = 0; k < e->manifest_count; k++) e->all += e->manifests[k].count;
    XKD_TRY(xkd_alloc(cx, &e->inputs, e->all, sizeof *e->inputs));
    int64_t number = 0;
    for (int64_t k = 0; k < e->manifest_count; k++)
        for (int64_t i = 0; i < e->manifests[k].count; i++, number++)
            if (number % of == index - 1) e->inputs[e->count++] = (xkd_embed_input){&e->manifests[k], i, number};
    if (e->count == 0) XKD_FAIL(XKD_ERR_DATA, "embed: nothing to do for shard %s", e->v.shard ? e->v.shard : "1/1");
    for (int64_t k = 1; k < e->manifest_count; k++) /* labels must mean the same everywhere */
        if (e->manifests[k].class_count && e->manifests[0].class_count != e->manifests[k].class_count)
            XKD_FAIL(XKD_ERR_DATA, "embed: the inputs have different classes: embed them one by one");
fail:
    return status;
}

/* ---- options ---- */

static xkd_status set_options(struct embed *e)
{
    xkd_context *cx = e->cli->cx;
    const struct values *v = &e->v;
    xkd_data_config *d = &e->models.config.data;
    xkd_embed_options *o = &e->options;
    const char *protocol = v->protocol ? v->protocol : "windows";
    *o = (xkd_embed_options){.batch = v->batch, .layer = v->layer, .clips = {.data = d, .clips = v->clips}};
    const xkd_eval_config *eval = &e->models.config.eval;
    if (!xkd_feature_kind_of(v->pool ? v->pool : eval->feat_op == XKD_FEAT_CLS ? "cls" : "mean", &o->kind))
        return xkd_fail(cx, XKD_ERR_CONFIG, "--pool %s: mean, cls, none or head", v->pool);
    if (strcmp(protocol, "windows") == 0)
        o->clips.protocol = XKD_CLIPS_WINDOWS;
    else if (strcmp(protocol, "test") == 0)
        o->clips.protocol = XKD_CLIPS_TEST;
    else if (strcmp(protocol, "train") == 0)
        o->clips.protocol = XKD_CLIPS_TRAIN;
    else
        return xkd_fail(cx, XKD_ERR_CONFIG, "--protocol %s: windows, test or train", protocol);
    /* A released svm_*.yaml says how many clips and how they are augmented. */
    bool released = eval->vid_transform == XKD_TRANSFORM_STRONG || eval->aud_transform == XKD_TRANSFORM_STRONG;
    if (!o->clips.clips && released)
        o->clips.clips = o->clips.protocol == XKD_CLIPS_TRAIN ? eval->train_clips : eval->test_clips;
    if (!o->clips.clips) o->clips.clips = o->clips.protocol == XKD_CLIPS_TRAIN ? 25 : 3;
    d->global_views = 1;
    d->video_local_views = d->audio_local_views = 0;
    if (o->clips.protocol == XKD_CLIPS_TRAIN && !released) xkd_clip_training_views(d);
    o->clips.stride = v->stride > 0 ? v->stride : d->clip_duration;
    o->clips.seed = e->models.config.train.seed;
    for (int m = 0; m < XKD_MODALITIES; m++) {
        o->clips.wanted[m] = e->models.wanted[m];
        o->encoder[m] = e->models.wanted[m] ? &e->models.encoder[m] : NULL;
    }
    return XKD_OK;
}

/* Hash of all that decides the features: a resumed run must not mix two kinds. */
static xkd_status hash_settings(struct embed *e, uint64_t *out)
{
    xkd_text t = xkd_text_make(e->cli->cx);
    const xkd_embed_options *o = &e->options;
    const xkd_data_config *d = o->clips.data;
    xkd_text_printf(&t, "%d %lld %d %lld %.17g %.17g %.17g %lld %.17g %.17g %llu", (int)o->kind, (long long)o->layer,
                    (int)o->clips.protocol, (long long)o->clips.clips, o->clips.stride, d->clip_duration, d->video_fps,
                    (long long)d->crop_size, d->mel_mean, d->mel_std, (unsigned long long)o->clips.seed);
    for (int m = 0; m < XKD_MODALITIES; m++) xkd_text_printf(&t, " %s", e->models.encoder[m].hash);
    for (int64_t i = 0; i < e->count; i++)
        xkd_text_printf(&t, "\n%lld %s", (long long)e->inputs[i].number,
                        e->inputs[i].manifest->samples[e->inputs[i].sample].path);
    *out = t.status == XKD_OK ? XXH3_64bits(t.data, (size_t)t.size) : 0;
    xkd_status status = t.status;
    xkd_text_free(&t);
    return status;
}

/* ---- the work ---- */

static const char *path_of(const xkd_embed_input *in)
{
    return in->manifest->samples[in->sample].path;
}

static xkd_status file_done(void *user, const xkd_embedded *file)
{
    struct embed *e = user;
    const xkd_embed_input *in = &e->todo[file->input];
    struct data_progress progress = {e->cli, "embed", e->start};
    if (file->result.fault != XKD_FAULT_NONE)
        cli_say(e->cli, "%s: %s: %s", path_of(in), xkd_media_fault_name(file->result.fault), file->result.message);
    data_show_progress(&progress, file->input + 1, e->count - e->already);
    return xkd_embed_log_add(e->log, in->number, file);
}

static int stop(void *user)
{
    (void)user;
    return cli_signal();
}

/* Files that an earlier sitting has not done. */
static xkd_status list_todo(struct embed *e, xkd_embed_input **out, int64_t *count)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    bool *done = NULL, found;
    xkd_embed_record r;
    XKD_TRY(xkd_alloc(cx, &done, e->all, sizeof *done));
    XKD_TRY(xkd_embed_log_next(e->log, true, &r, &found));
    while (found) {
        if (r.number >= 0 && r.number < e->all) done[r.number] = true;
        XKD_TRY(xkd_embed_log_next(e->log, false, &r, &found));
    }
    XKD_TRY(xkd_alloc(cx, out, e->count, sizeof **out));
    for (int64_t i = 0; i < e->count; i++)
        if (!done[e->inputs[i].number]) (*out)[(*count)++] = e->inputs[i];
    e->already = e->count - *count;
    if (e->already) cli_say(e->cli, "going on: %" PRId64 " of %" PRId64 " files are done", e->already, e->count);
fail:
    xkd_free(done);
    return status;
}

static xkd_status add_classes(xkd_context *cx, const xkd_manifest *from, xkd_manifest *to)
{
    xkd_status status = XKD_OK;
    int64_t label;
    for (int64_t i = 0; i < from->class_count; i++) XKD_TRY(xkd_manifest_class(cx, to, from->classes[i], true, &label));
fail:
    return status;
}

/* The log's records become one table per modality, in the order of the inputs. */
static xkd_status assemble(struct embed *e, const xkd_embed_log_head *head, xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    xkd_embed_record r;
    bool found;
    int64_t at = 0;
    out->kind = e->options.kind;
    out->layer = e->options.layer;
    for (int64_t k = 0; k < e->manifest_count; k++) XKD_TRY(add_classes(cx, &e->manifests[k], &out->files));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (e->models.wanted[m]) {
            snprintf(out->model[m], sizeof out->model[m], "%s", e->models.encoder[m].hash);
            XKD_TRY(xkd_embed_shape(cx, &e->options, m, &out->table[m].rows, &out->table[m].width));
        }
    XKD_TRY(xkd_embed_log_next(e->log, true, &r, &found));
    for (; found; at++) {
        xkd_sample *s;
        const xkd_embed_input *in = &e->inputs[at];
        if (at >= e->count || in->number != r.number)
            XKD_FAIL(XKD_ERR_DATA, "%s.partial: its records are out of order", e->v.out);
        XKD_TRY(xkd_manifest_add(cx, &out->files, path_of(in), &s));
        s->label = in->manifest->samples[in->sample].label;
        memcpy(s->split, in->manifest->samples[in->sample].split, sizeof s->split);
        e->bad += r.fault != XKD_FAULT_NONE;
        for (int m = 0; m < XKD_MODALITIES; m++)
            for (int64_t i = 0; i < r.count[m]; i++)
                XKD_TRY(xkd_embeddings_add(cx, &out->table[m], at, r.seconds[m][i], r.feature[m] + i * head->size[m]));
        XKD_TRY(xkd_embed_log_next(e->log, false, &r, &found));
    }
fail:
    return status;
}

static xkd_status write_result(struct embed *e, const xkd_embed_log_head *head, const char *partial)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    xkd_embeddings result = {0};
    xkd_embeddings_form form;
    XKD_TRY(xkd_embeddings_form_of(cx, e->v.out, &form));
    XKD_TRY(assemble(e, head, &result));
    if ((double)e->bad > e->models.config.data.max_bad_fraction * (double)e->count)
        XKD_FAIL(XKD_ERR_DATA,
                 "embed: %" PRId64 " of %" PRId64 " files could not be read, more than data.max_bad_fraction allows; "
                 "nothing is written (%s keeps what was done; --force tries again)",
                 e->bad, e->count, partial);
    XKD_TRY(xkd_embeddings_write(cx, &result, e->v.out, form));
    XKD_TRY(xkd_remove_file(cx, partial));
    double seconds = xkd_now() - e->start;
    const char *text = e->cli->json ? "{\"out\": \"%s\", \"files\": %" PRId64 ", \"bad\": %" PRId64
                                      ", \"video\": %" PRId64 ", \"audio\": %" PRId64 ", \"seconds\": %.2f}\n"
                                    : "%s: %" PRId64 " files, %" PRId64 " unreadable; %" PRId64 " video and %" PRId64
                                      " audio clips in %.1f s\n";
    printf(text, e->v.out, e->count, e->bad, result.table[0].count, result.table[1].count, seconds);
fail:
    xkd_embeddings_free(&result);
    return status;
}

static xkd_status embed_all(struct embed *e)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cli->cx;
    xkd_embed_input *todo = NULL;
    xkd_embed_log_head head = {0};
    char *partial = NULL;
    int64_t count = 0;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        int64_t rows, width;
        if (!e->models.wanted[m]) continue;
        XKD_TRY(xkd_embed_shape(cx, &e->options, m, &rows, &width));
        head.size[m] = rows * width;
    }
    XKD_TRY(hash_settings(e, &head.settings));
    XKD_TRY(xkd_format_string(cx, &partial, "%s.partial", e->v.out));
    XKD_TRY(xkd_embed_log_open(cx, partial, &head, e->v.force, &e->log));
    XKD_TRY(list_todo(e, &todo, &count));
    e->todo = todo;
    xkd_embed_sink sink = {e, file_done, stop};
    if (count) status = xkd_embed(cx, e->models.be, &e->options, todo, count, &sink);
    if (status == XKD_ERR_INTERRUPTED) {
        cli_say(e->cli, "stopped; the same command goes on");
        status = cli_signal() == 2 ? (xkd_status)130 : XKD_ERR_PREEMPTED; /* 2: SIGINT */
        xkd_clear_error(cx);
    }
    XKD_TRY(status);
    XKD_TRY(write_result(e, &head, partial));
fail:
    xkd_free(partial);
    xkd_free(todo);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct embed e = {.cli = cli, .v = {.layer = -1, .batch = 8}, .start = xkd_now()};
    xkd_embeddings_form form;
    int rest = 0, files = 1;
    XKD_TRY(cli_parse(cli, &cmd_embed, argc, argv, &e.v, &rest));
    if (rest < 2 || !e.v.out) XKD_FAIL(XKD_ERR_CONFIG, "embed: want MODEL INPUT... --out F ('--help' shows its use)");
    XKD_TRY(xkd_embeddings_form_of(cx, e.v.out, &form));
    if (!e.v.force && xkd_path_exists(e.v.out))
        XKD_FAIL(XKD_ERR_CONFIG, "%s: exists already: --force replaces it", e.v.out);
    /* KEY=VALUE comes last; an existing file may have a '=' in its name. */
    while (files < rest && (!strchr(argv[1 + files], '=') || xkd_path_exists(argv[1 + files]))) files++;
    e.v.model.projector = e.v.pool && strcmp(e.v.pool, "head") == 0;
    cli_catch_signals();
    XKD_TRY(models_load(cli, &e.v.model, argv[1], argv + 1 + files, rest - files, &e.models));
    XKD_TRY(set_options(&e));
    XKD_TRY(list_inputs(&e, argv + 2, files - 1));
    XKD_TRY(embed_all(&e));
fail:
    xkd_embed_log_close(e.log);
    for (int64_t i = 0; i < e.manifest_count; i++) xkd_manifest_free(&e.manifests[i]);
    xkd_free(e.manifests);
    xkd_free(e.inputs);
    models_free(&e.models);
    return status;
}

const struct cli_command cmd_embed = {
    .name = "embed",
    .summary = "compute features of videos and sounds with a trained encoder",
    .usage = "MODEL INPUT... --out F [options] [KEY=VALUE ...]",
    .description =
        "MODEL is a run folder, a model or an encoder in any form that 'xkd inspect' knows; INPUT a file, a folder,\n"
        "a manifest, or - for names on stdin. A run that was stopped goes on when the same command is given again.\n"
        "Files that cannot be read are named; more than data.max_bad_fraction of them is exit 3 and no result.",
    .example = "xkd embed runs/first videos/ --out features.safetensors",
    .options = options,
    .run = run,
};
