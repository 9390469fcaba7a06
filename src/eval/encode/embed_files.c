/* Embedding as work that can be stopped: the log (eval/embed_log) takes what is finished, file by file, and becomes the
 * feature file at the end. Memory grows with the features alone, and only then. */
#include "eval/encode/embed_files.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "backend/cpu/levels.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "data/identity.h"
#include "eval/encode/embed_log.h"
#include "eval/encode/training_views.h"

/* method.md section 10. */
enum { TRAIN_CLIPS = 25, TEST_CLIPS = 3, BATCH = 8 };

/* One call of xkd_embed_files. */
typedef struct {
    xkd_context *cx;
    const xkd_embed_job *job;
    xkd_embed_log *log;
    xkd_embed_log_head head;
    int64_t *place;        /* [job->count] where an input's last record stands in the log; 0: there is none */
    uint64_t *identity;    /* [job->count] of the inputs' contents as they are now */
    uint64_t settings;     /* those of the log's head, and the contents */
    uint64_t recipe;       /* those without any file */
    xkd_embed_input *todo; /* [todo_count] what no earlier sitting could read */
    int64_t todo_count;
} work;

/* ---- options ---- */

void xkd_embed_clip_defaults(xkd_eval_config *eval)
{
    eval->train_clips = TRAIN_CLIPS;
    eval->test_clips = TEST_CLIPS;
    eval->frequency_mask = eval->time_mask = eval->batch_norm = false;
}

/* Evaluation sees one view a clip, whatever the pre-training that the configuration comes from had. */
xkd_embed_options xkd_embed_options_of(xkd_config *config, xkd_clip_protocol protocol, int64_t clips)
{
    xkd_data_config *d = &config->data;
    const xkd_eval_config *eval = &config->eval;
    d->global_views = 1;
    d->video_local_views = d->audio_local_views = 0;
    if (!clips) clips = protocol == XKD_CLIPS_TRAIN ? eval->train_clips : eval->test_clips;
    /* Windows stand side by side unless told otherwise. */
    return (xkd_embed_options){.batch = BATCH,
                               .layer = -1,
                               .kind = eval->feat_op == XKD_FEAT_CLS ? XKD_FEATURE_CLS : XKD_FEATURE_MEAN,
                               .clips = {.data = d,
                                         .protocol = protocol,
                                         .clips = clips,
                                         .stride = d->clip_duration,
                                         .masks = xkd_training_masks(eval),
                                         .seed = config->train.seed}};
}

static void describe_reals(xkd_text *t, const double *value, int count)
{
    for (int i = 0; i < count; i++) xkd_text_printf(t, " %.17g", value[i]); /* keeps every double apart */
}

/* Every field of the views: one that is left out would let features of other views be taken for these. Augmentation
 * counts only where clips are augmented, so that test features do not depend on it. */
static void describe_views(xkd_text *t, const xkd_clip_options *o)
{
    const xkd_data_config *d = o->data;
    const xkd_video_view_config *v = &d->video_view[XKD_GLOBAL_VIEW];
    const xkd_audio_view_config *a = &d->audio_view[XKD_GLOBAL_VIEW];
    const xkd_spec_masks *m = &o->masks;
    describe_reals(t, v->color, 4);
    describe_reals(t, v->crop_scale, 2);
    describe_reals(t, (const double[]){v->p_flip, v->p_gray, v->p_blur, a->volume}, 4);
    describe_reals(t, a->virtual_crop_scale, 2);
    describe_reals(t, a->freq_scale, 2);
    describe_reals(t, a->time_scale, 2);
    xkd_text_printf(t, " %d %d %d %d %lld", d->release_blur, a->volume_jitter, a->time_warp, a->rand_crop,
                    (long long)a->warp_window);
    xkd_text_printf(t, " %lld [%lld,%lld) %lld [%lld,%lld)", (long long)m->bands, (long long)m->band_width[0],
                    (long long)m->band_width[1], (long long)m->columns, (long long)m->column_width[0],
                    (long long)m->column_width[1]);
}

/* What stands for contents and draw of a file whose clips are drawn by another number than its own. */
static uint64_t with_draw(uint64_t identity, int64_t draw)
{
    return XXH3_64bits_withSeed(&draw, sizeof draw, identity);
}

/* Contents of all inputs, and the draws of those that do not go by their number: features are the same where both are. The
 * caller frees *out. */
static xkd_status identify(xkd_context *cx, const xkd_embed_job *job, uint64_t **out)
{
    xkd_status status = XKD_OK;
    XKD_TRY(xkd_alloc(cx, out, job->count, sizeof **out));
    for (int64_t i = 0; i < job->count; i++) {
        const xkd_manifest *m = job->inputs[i].manifest;
        XKD_TRY(xkd_sample_identity(cx, m, &m->samples[job->inputs[i].sample], &(*out)[i]));
        if (job->inputs[i].draw != job->inputs[i].number) (*out)[i] = with_draw((*out)[i], job->inputs[i].draw);
    }
fail:
    return status;
}

/* Labels are among it, though features do not depend on them: they are stored beside the features, and a corrected manifest
 * must not leave the old ones in force. Batch and threads are not: they change no bit. `identity` NULL: without contents. */
static xkd_status hash_settings(xkd_context *cx, const xkd_embed_job *job, const uint64_t *identity, uint64_t *out)
{
    xkd_text t = xkd_text_make(cx);
    const xkd_embed_options *o = job->options;
    const xkd_data_config *d = o->clips.data;
    xkd_text_printf(&t, "%d %lld %d %lld %.17g %.17g %.17g %lld %.17g %.17g %llu", (int)o->kind, (long long)o->layer,
                    (int)o->clips.protocol, (long long)o->clips.clips, o->clips.stride, d->clip_duration, d->video_fps,
                    (long long)d->crop_size, d->mel_mean, d->mel_std, (unsigned long long)o->clips.seed);
    xkd_text_printf(&t, " %lld %lld %lld %lld %d", (long long)d->audio_rate, (long long)d->n_fft,
                    (long long)d->hop_length, (long long)d->n_mels, d->stream_colour);
    /* Only where they are not the default: features of before these keys stay what they are. */
    if (d->hold_last_frame) xkd_text_puts(&t, " hold");
    if (d->audio_track) xkd_text_printf(&t, " track %lld", (long long)d->audio_track);
    if (o->clips.protocol == XKD_CLIPS_TRAIN) describe_views(&t, &o->clips);
    xkd_text_puts(&t, job->pairs ? " pairs" : "");
    /* The encoder by the hash of its values: the same weights under another path are the same features. */
    for (int m = 0; m < XKD_MODALITIES; m++) xkd_text_printf(&t, " %s", o->encoder[m] ? o->encoder[m]->hash : "-");
    for (int64_t i = 0; i < job->count; i++) {
        const xkd_sample *s = &job->inputs[i].manifest->samples[job->inputs[i].sample];
        xkd_text_printf(&t, "\n%lld %s %lld", (long long)job->inputs[i].number, s->path, (long long)s->label);
        for (int64_t k = 0; k < xkd_sample_label_count(s); k++) xkd_text_printf(&t, ",%d", (int)s->more->labels[k]);
        if (job->inputs[i].draw != job->inputs[i].number)
            xkd_text_printf(&t, " draw %lld", (long long)job->inputs[i].draw);
        if (identity) xkd_text_printf(&t, " %llx", (unsigned long long)identity[i]);
    }
    *out = t.status == XKD_OK ? XXH3_64bits(t.data, (size_t)t.size) : 0; /* out of memory: the status says so */
    xkd_status status = t.status;
    xkd_text_free(&t);
    return status;
}

xkd_status xkd_embed_settings(xkd_context *cx, const xkd_embed_job *job, uint64_t *out)
{
    xkd_status status = XKD_OK;
    uint64_t *identity = NULL;
    XKD_TRY(identify(cx, job, &identity));
    XKD_TRY(hash_settings(cx, job, identity, out));
fail:
    xkd_free(identity);
    return status;
}

/* ---- the work ---- */

static const xkd_sample *sample_of(const xkd_embed_input *in)
{
    return &in->manifest->samples[in->sample];
}

/* Index of the input with this number, by bisection; -1: none. */
static int64_t input_of(const work *w, int64_t number)
{
    const xkd_embed_input *in = w->job->inputs;
    int64_t low = 0, high = w->job->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (in[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < w->job->count && in[low].number == number ? low : -1;
}

/* What a file comes to: its fault, or that half of a pair is missing. The log keeps what was found, so that the same
 * features serve both ways. */
static xkd_media_fault fault_of(const work *w, xkd_media_fault fault, const int64_t count[XKD_MODALITIES])
{
    const bool *wanted = w->job->options->clips.wanted;
    if (fault != XKD_FAULT_NONE || !w->job->pairs) return fault;
    if (wanted[XKD_VIDEO] && count[XKD_VIDEO] == 0) return XKD_FAULT_NO_VIDEO;
    return wanted[XKD_AUDIO] && count[XKD_AUDIO] == 0 ? XKD_FAULT_NO_AUDIO : XKD_FAULT_NONE;
}

/* Called by xkd_embed in the caller's thread. The log gets the file's own result; what pairs make of it is found again
 * when the log is read. */
static xkd_status file_done(void *user, const xkd_embedded *file)
{
    xkd_status status = XKD_OK;
    work *w = user;
    const xkd_embed_input *in = &w->todo[file->input];
    xkd_media_result result = file->result;
    char *path;
    result.fault = fault_of(w, result.fault, file->count);
    if (result.fault != file->result.fault)
        snprintf(result.message, sizeof result.message, "both modalities are wanted");
    /* The callback comes before the record, so a file whose record cannot be written has been shown; the status ends
     * the run. */
    if (w->job->file) {
        /* With its root: several inputs may have files of the same name. */
        XKD_TRY(xkd_join_path(w->cx, &path, in->manifest->root, sample_of(in)->path));
        w->job->file(w->job->user, path, &result, file->input + 1, w->todo_count);
        xkd_free(path);
    }
    int64_t at = input_of(w, in->number);
    XKD_TRY(xkd_embed_log_add(w->log, in->number, w->identity[at], file, &w->place[at]));
fail:
    return status;
}

static int stop(void *user)
{
    const work *w = user;
    return w->job->stop ? w->job->stop(w->job->user) : 0;
}

/* What has no record, what could not be read when it got one (the file may have been repaired since), and what has changed.
 * A silent file that should be half of a pair was read and is not tried again. Where nothing that was read is still the
 * same, it is another data set whose files have the same names. */
static xkd_status list_todo(work *w)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = w->cx;
    const xkd_embed_job *job = w->job;
    xkd_embed_record r;
    bool *again = NULL, found;
    int64_t same = 0, changed = 0;
    const char *example = NULL;
    XKD_TRY(xkd_alloc(cx, &w->place, job->count, sizeof *w->place));
    XKD_TRY(xkd_alloc(cx, &w->todo, job->count, sizeof *w->todo));
    XKD_TRY(xkd_alloc(cx, &again, job->count, sizeof *again));
    XKD_TRY(xkd_embed_log_next(w->log, true, &r, &found));
    while (found) {
        int64_t i = input_of(w, r.number);
        /* The hash of the settings covers the inputs, so this is a damaged log and not another job's. */
        if (i < 0) XKD_FAIL(XKD_ERR_DATA, "%s.partial: holds a file that is none of the inputs", job->path);
        w->place[i] = r.at;
        again[i] = r.fault != XKD_FAULT_NONE || r.identity != w->identity[i];
        same += !again[i];
        if (r.fault == XKD_FAULT_NONE && again[i]) {
            changed++;
            example = sample_of(&job->inputs[i])->path;
        }
        XKD_TRY(xkd_embed_log_next(w->log, false, &r, &found));
    }
    if (changed && !same)
        XKD_FAIL(
            XKD_ERR_CONFIG,
            "%s.partial: was begun with other files of the same names, or all have changed since (such as %s): take "
            "another name, or remove it to start anew",
            job->path, example);
    if (changed)
        xkd_log(cx, XKD_LOG_WARN,
                "%" PRId64 " files have changed since they were embedded and are done again, such as %s", changed,
                example);
    for (int64_t i = 0; i < job->count; i++)
        if (!w->place[i] || again[i]) w->todo[w->todo_count++] = job->inputs[i];
    int64_t done = job->count - w->todo_count;
    if (done && job->resumed) job->resumed(job->user, done, job->count);
fail:
    xkd_free(again);
    return status;
}

/* Clips of file f in a table, whose clips stand in the order of files: *first, and how many. */
static int64_t clips_in(const xkd_feature_table *t, int64_t f, int64_t *first)
{
    int64_t low = 0, high = t->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (t->file[middle] < f)
            low = middle + 1;
        else
            high = middle;
    }
    *first = low;
    while (high < t->count && t->file[high] == f) high++;
    return high - low;
}

/* A finished file of other work. */
typedef struct {
    xkd_embeddings features;
    int64_t *order; /* [features.files.count] its files by path */
} donor;

static int by_path(const void *a, const void *b, void *files)
{
    const xkd_sample *s = ((const xkd_manifest *)files)->samples;
    return strcmp(s[*(const int64_t *)a].path, s[*(const int64_t *)b].path);
}

static void donor_free(donor *d)
{
    xkd_embeddings_free(&d->features);
    xkd_free(d->order);
}

/* A file that cannot be read is no donor; its own work will tell of it. */
static xkd_status donor_read(xkd_context *cx, const char *path, donor *out)
{
    xkd_status status = XKD_OK;
    *out = (donor){0};
    if (xkd_embeddings_read(cx, path, &out->features) != XKD_OK) xkd_clear_error(cx);
    int64_t count = out->features.files.count;
    XKD_TRY(xkd_alloc(cx, &out->order, count, sizeof *out->order));
    for (int64_t i = 0; i < count; i++) out->order[i] = i;
    if (count) qsort_r(out->order, (size_t)count, sizeof *out->order, by_path, &out->features.files);
fail:
    return status;
}

/* Index of the donor's file with this path; -1: none. */
static int64_t donor_file(const donor *d, const char *path)
{
    int64_t low = 0, high = d->features.files.count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2, order = strcmp(d->features.files.samples[d->order[middle]].path, path);
        if (order == 0) return d->order[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

/* Whether file k of the donor has the contents of `in` and went by the same draws: by its own number where nothing else is
 * said. */
static bool same_clips(const donor *d, int64_t k, const xkd_embed_input *in, uint64_t identity)
{
    uint64_t there = xkd_sample_identity_of(&d->features.files.samples[k]);
    if (!there) return false;
    if (in->draw != in->number) return there == identity || (k == in->draw && with_draw(there, k) == identity);
    return (k == in->draw && there == identity) || there == with_draw(identity, in->draw);
}

/* The record of input i out of a donor, where it has the same file with the same draws. What could not be read there has no
 * clips, and is tried here. */
static xkd_status take_from(work *w, const donor *d, int64_t i, bool *taken)
{
    xkd_status status = XKD_OK;
    const xkd_embed_input *in = &w->job->inputs[i];
    int64_t k = donor_file(d, sample_of(in)->path);
    xkd_embedded file = {.input = i};
    *taken = false;
    if (k < 0 || !same_clips(d, k, in, w->identity[i])) return XKD_OK;
    for (int m = 0; m < XKD_MODALITIES; m++) {
        const xkd_feature_table *t = &d->features.table[m];
        int64_t first;
        if (!w->head.size[m]) continue;
        file.count[m] = clips_in(t, k, &first);
        if (file.count[m] == 0) return XKD_OK; /* nor half of a pair */
        file.feature[m] = t->x + first * t->rows * t->width;
        file.seconds[m] = t->seconds + first;
        file.damage[m] = t->damage + first;
    }
    XKD_TRY(xkd_embed_log_add(w->log, in->number, w->identity[i], &file, &w->place[i]));
    *taken = true;
fail:
    return status;
}

/* Whether features of a donor are what this work would make. */
static bool fits(const work *w, const xkd_embeddings *other)
{
    if (other->recipe != w->recipe || other->shard.of > 1) return false;
    for (int m = 0; m < XKD_MODALITIES; m++)
        if (w->head.size[m] && other->table[m].rows * other->table[m].width != w->head.size[m]) return false;
    return true;
}

/* Fills the log from what other work has made; what is left stays in the list. */
static xkd_status take_over(work *w)
{
    xkd_status status = XKD_OK;
    const xkd_embed_job *job = w->job;
    for (int64_t d = 0; d < job->donor_count && w->todo_count; d++) {
        donor from;
        int64_t left = 0;
        bool taken;
        if (!xkd_path_exists(job->donors[d])) continue;
        status = donor_read(w->cx, job->donors[d], &from);
        int64_t before = w->todo_count;
        for (int64_t k = 0; k < w->todo_count && status == XKD_OK; k++) {
            taken = false;
            if (fits(w, &from.features)) status = take_from(w, &from, input_of(w, w->todo[k].number), &taken);
            if (!taken) w->todo[left++] = w->todo[k];
        }
        w->todo_count = left;
        donor_free(&from);
        XKD_TRY(status);
        if (before > left && job->taken) job->taken(job->user, before - left, job->donors[d]);
    }
fail:
    return status;
}

/* The inputs' manifests name the same classes; the first that names any speaks for all. */
static xkd_status add_classes(work *w, xkd_manifest *to)
{
    xkd_status status = XKD_OK;
    int64_t label;
    for (int64_t i = 0; i < w->job->count && to->class_count == 0; i++) {
        const xkd_manifest *from = w->job->inputs[i].manifest;
        for (int64_t k = 0; k < from->class_count; k++)
            XKD_TRY(xkd_manifest_class(w->cx, to, from->classes[k], true, &label));
    }
fail:
    return status;
}

/* Kind, models and widths of the result. */
static xkd_status describe(work *w, xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    const xkd_embed_options *o = w->job->options;
    out->kind = o->kind;
    out->layer = o->layer;
    snprintf(out->level, sizeof out->level, "%s", xkd_cpu_level_name());
    out->settings = w->settings;
    out->recipe = w->recipe;
    out->shard = w->job->shard;
    XKD_TRY(add_classes(w, &out->files));
    /* An encoder that is not wanted has no table, and its hash must not stand in the file as if it had. */
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        if (!o->clips.wanted[m]) continue;
        snprintf(out->model[m], sizeof out->model[m], "%s", o->encoder[m]->hash);
        XKD_TRY(xkd_embed_shape(w->cx, o, m, &out->table[m].rows, &out->table[m].width));
    }
fail:
    return status;
}

/* Files without a clip were unreadable. */
xkd_embed_counts xkd_embed_counts_of(const xkd_embeddings *e, double most)
{
    xkd_embed_counts counts = {.files = e->files.count, .bad = e->files.count};
    int64_t at[XKD_MODALITIES] = {0};
    for (int64_t f = 0; f < e->files.count; f++) {
        bool has = false;
        for (int m = 0; m < XKD_MODALITIES; m++)
            for (const xkd_feature_table *t = &e->table[m]; at[m] < t->count && t->file[at[m]] == f; at[m]++)
                has = true;
        counts.bad -= has;
    }
    for (int m = 0; m < XKD_MODALITIES; m++) {
        counts.clips[m] = e->table[m].count;
        counts.damaged += xkd_embeddings_damaged(&e->table[m], most);
    }
    return counts;
}

xkd_status xkd_embed_check_budget(xkd_context *cx, const xkd_embed_counts *c, double max_bad, const char *path)
{
    xkd_status status = XKD_OK;
    int64_t clips = c->clips[XKD_VIDEO] + c->clips[XKD_AUDIO];
    /* Compared as doubles: no rounding of the limit. */
    if ((double)c->bad > max_bad * (double)c->files)
        XKD_FAIL(XKD_ERR_DATA,
                 "%" PRId64 " of %" PRId64 " files could not be read, more than data.max_bad_fraction allows; "
                 "nothing is written (%s keeps what was done; the same command tries these files again)",
                 c->bad, c->files, path);
    if ((double)c->damaged > max_bad * (double)clips)
        XKD_FAIL(XKD_ERR_DATA,
                 "%" PRId64 " of %" PRId64 " clips are damaged beyond data.max_clip_damage, more than "
                 "data.max_bad_fraction allows; nothing is written (%s keeps what was done; with "
                 "data.max_bad_fraction=1 the same command writes it)",
                 c->damaged, clips, path);
fail:
    return status;
}

/* The log's records become one table per modality, in the order of the inputs. */
static xkd_status assemble(work *w, xkd_embeddings *out, xkd_embed_counts *counts)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = w->cx;
    xkd_embed_record r;
    XKD_TRY(describe(w, out));
    for (int64_t at = 0; at < w->job->count; at++) {
        xkd_sample *s;
        XKD_TRY(xkd_embed_log_read(w->log, w->place[at], &r));
        const xkd_sample *from = sample_of(&w->job->inputs[at]);
        /* Files without clips are listed too: their index in the table is their place among the inputs. */
        XKD_TRY(xkd_manifest_add(cx, &out->files, from->path, &s));
        XKD_TRY(xkd_sample_copy_labels(cx, &out->files, s, from));
        XKD_TRY(xkd_sample_set_identity(cx, &out->files, s, w->identity[at]));
        bool bad = fault_of(w, r.fault, r.count) != XKD_FAULT_NONE;
        /* The clips of half a pair would stand beside nothing. */
        for (int m = 0; m < XKD_MODALITIES; m++)
            for (int64_t i = 0; i < r.count[m] && !bad; i++) {
                const xkd_feature_row row = {at, r.seconds[m][i], r.damage[m][i], r.feature[m] + i * w->head.size[m]};
                XKD_TRY(xkd_embeddings_add(cx, &out->table[m], &row));
            }
    }
    *counts = xkd_embed_counts_of(out, w->job->options->clips.data->max_clip_damage);
fail:
    return status;
}

/* Sizes of records are known before any clip is. */
static xkd_status make_head(work *w)
{
    xkd_status status = XKD_OK;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        int64_t rows, width;
        if (!w->job->options->clips.wanted[m]) continue;
        XKD_TRY(xkd_embed_shape(w->cx, w->job->options, m, &rows, &width));
        w->head.size[m] = rows * width;
    }
    XKD_TRY(identify(w->cx, w->job, &w->identity));
    XKD_TRY(hash_settings(w->cx, w->job, NULL, &w->head.settings));
    XKD_TRY(hash_settings(w->cx, w->job, w->identity, &w->settings));
    xkd_embed_job none = *w->job;
    none.count = 0;
    XKD_TRY(hash_settings(w->cx, &none, NULL, &w->recipe));
fail:
    return status;
}

/* The budget is applied at the very end: what can be read is in the log by then, and another budget or repaired files cost
 * no second decoding. */
xkd_status xkd_embed_files(xkd_context *cx, xkd_backend *be, const xkd_embed_job *job, xkd_embed_counts *out)
{
    xkd_status status = XKD_OK;
    work w = {.cx = cx, .job = job};
    xkd_embeddings result = {0};
    xkd_embeddings_form form;
    xkd_embed_sink sink = {&w, file_done, stop};
    char *partial = NULL;
    *out = (xkd_embed_counts){0};
    /* Before anything long: an ending that is not known would be found out only after hours of decoding. */
    XKD_TRY(xkd_embeddings_form_of(cx, job->path, &form));
    XKD_TRY(make_head(&w));
    XKD_TRY(xkd_format_string(cx, &partial, "%s.partial", job->path));
    XKD_TRY(xkd_embed_log_open(cx, partial, &w.head, job->anew, &w.log));
    XKD_TRY(list_todo(&w));
    XKD_TRY(take_over(&w));
    if (w.todo_count) XKD_TRY(xkd_embed(cx, be, job->options, w.todo, w.todo_count, &sink));
    XKD_TRY(assemble(&w, &result, out));
    XKD_TRY(xkd_embed_check_budget(cx, out, job->max_bad, partial));
    /* First the result, then the removal: a crash between the two costs one more assembly and nothing else. */
    XKD_TRY(xkd_embeddings_write(cx, &result, job->path, form));
    XKD_TRY(xkd_remove_file(cx, partial));
fail:
    xkd_embed_log_close(w.log);
    xkd_embeddings_free(&result);
    xkd_free(w.place);
    xkd_free(w.identity);
    xkd_free(w.todo);
    xkd_free(partial);
    return status;
}

/* ---- what it will take ---- */

/* The first pass warms up: pages, and the CPU's clock. */
static xkd_status time_clip(xkd_context *cx, xkd_backend *be, const xkd_embed_options *o, xkd_modality m,
                            double *seconds)
{
    xkd_status status = XKD_OK;
    xkd_encoder_run run = {0};
    float *clip = NULL, *feature = NULL;
    xkd_view_shape shape = xkd_clip_shape(o->clips.data, m);
    shape.B = 1;
    XKD_TRY(xkd_encoder_run_new(cx, o->encoder[m], &shape, o->kind, o->layer, &run));
    XKD_TRY(xkd_alloc(cx, &clip, run.clip_floats, sizeof *clip));
    XKD_TRY(xkd_alloc(cx, &feature, run.rows * run.width, sizeof *feature));
    XKD_TRY(xkd_encoder_features(be, &run, clip, feature));
    double start = xkd_now();
    XKD_TRY(xkd_encoder_features(be, &run, clip, feature));
    *seconds = xkd_now() - start;
fail:
    xkd_encoder_run_free(&run);
    xkd_free(clip);
    xkd_free(feature);
    return status;
}

/* By a clip alone: a batch is a little faster, so the estimate errs to the safe side. */
xkd_status xkd_embed_estimate(xkd_context *cx, xkd_backend *be, const xkd_embed_options *options,
                              double seconds[XKD_MODALITIES])
{
    xkd_status status = XKD_OK;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        seconds[m] = 0;
        if (options->clips.wanted[m]) XKD_TRY(time_clip(cx, be, options, m, &seconds[m]));
    }
fail:
    return status;
}
