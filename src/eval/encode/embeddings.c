/* The feature file: one table per modality, clips sorted by file, and a text that says what they are of. safetensors
 * and npz hold all of it; JSON Lines (eval/encode/embeddings_lines.c) most; npy is for other programs and only written. */
#include "eval/encode/embeddings.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backend/cpu/levels.h"
#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"
#include "data/json_name.h"
#include "eval/encode/embeddings_lines.h"

static const char *const modality_names[XKD_MODALITIES] = {"video", "audio"};
enum { FORMAT = 1 }; /* of the `about` text; another number is refused when read */

void xkd_embeddings_free(xkd_embeddings *e)
{
    for (int m = 0; m < XKD_MODALITIES; m++) {
        xkd_free(e->table[m].x);
        xkd_free(e->table[m].file);
        xkd_free(e->table[m].seconds);
        xkd_free(e->table[m].damage);
    }
    xkd_manifest_free(&e->files);
    *e = (xkd_embeddings){0};
}

/* Clips must come in the order of their files: readers walk the table with a cursor. The feature is copied. */
xkd_status xkd_embeddings_add(xkd_context *cx, xkd_feature_table *t, const xkd_feature_row *row)
{
    xkd_status status = XKD_OK;
    int64_t size = t->rows * t->width;
    if (t->count == t->capacity) {
        /* Doubling: a table of 2.5 million clips is copied 16 times at most, in all less than twice its final size. */
        int64_t larger = t->capacity ? 2 * t->capacity : 64;
        XKD_TRY(xkd_resize(cx, &t->x, t->capacity * size, larger * size, sizeof *t->x));
        XKD_TRY(xkd_resize(cx, &t->file, t->capacity, larger, sizeof *t->file));
        XKD_TRY(xkd_resize(cx, &t->seconds, t->capacity, larger, sizeof *t->seconds));
        XKD_TRY(xkd_resize(cx, &t->damage, t->capacity, larger, sizeof *t->damage));
        t->capacity = larger;
    }
    memcpy(t->x + t->count * size, row->feature, (size_t)size * sizeof *t->x);
    t->file[t->count] = row->file;
    t->damage[t->count] = row->damage;
    t->seconds[t->count++] = row->seconds;
fail:
    return status;
}

int64_t xkd_embeddings_damaged(const xkd_feature_table *t, double most)
{
    int64_t count = 0;
    for (int64_t i = 0; i < t->count; i++) count += t->damage[i] > most;
    return count;
}

/* By the ending alone, in any case of letters; asked before the work, so that a wrong name costs nothing. */
xkd_status xkd_embeddings_form_of(xkd_context *cx, const char *path, xkd_embeddings_form *out)
{
    static const char *const endings[] = {".safetensors", ".npz", ".npy", ".jsonl"};
    size_t length = strlen(path);
    for (int i = 0; i < 4; i++) {
        size_t ending = strlen(endings[i]);
        if (length > ending && strcasecmp(path + length - ending, endings[i]) == 0) {
            *out = (xkd_embeddings_form)i;
            return XKD_OK;
        }
    }
    return xkd_fail(cx, XKD_ERR_CONFIG, "%s: which form? Use an ending of .safetensors, .npz, .npy or .jsonl", path);
}

/* ---- writing ---- */

/* ",[1,2]", nothing for a file with one label or none. */
static void add_labels(xkd_text *t, const xkd_sample *s)
{
    if (!xkd_sample_label_count(s)) return;
    xkd_text_puts(t, ",[");
    for (int64_t k = 0; k < s->more->label_count; k++)
        xkd_text_printf(t, "%s%d", k ? "," : "", (int)s->more->labels[k]);
    xkd_text_puts(t, "]");
}

/* Kept as a tensor of bytes and not as metadata: headers are limited to 16 MiB, and 240 000 paths need more. */
static xkd_status about_text(xkd_context *cx, const xkd_embeddings *e, char **out)
{
    xkd_text t = xkd_text_make(cx);
    xkd_text_printf(&t, "{\"xkd_embeddings\":%d,\"pool\":\"%s\",\"layer\":%lld,\"recipe\":\"%016llx\",", FORMAT,
                    xkd_feature_kind_names[e->kind], (long long)e->layer, (unsigned long long)e->settings);
    if (e->recipe) xkd_text_printf(&t, "\"options\":\"%016llx\",", (unsigned long long)e->recipe);
    if (e->level[0]) xkd_text_printf(&t, "\"level\":\"%s\",", e->level);
    if (e->shard.of > 1)
        xkd_text_printf(&t, "\"shard\":[%lld,%lld],\"work\":\"%016llx\",", (long long)e->shard.index,
                        (long long)e->shard.of, (unsigned long long)e->shard.work);
    xkd_text_puts(&t, "\"model\":{");
    for (int m = 0, n = 0; m < XKD_MODALITIES; m++)
        if (e->model[m][0]) xkd_text_printf(&t, "%s\"%s\":\"%s\"", n++ ? "," : "", modality_names[m], e->model[m]);
    xkd_text_puts(&t, "},\"classes\":[");
    for (int64_t i = 0; i < e->files.class_count; i++) {
        if (i) xkd_text_puts(&t, ",");
        xkd_text_json_name(&t, e->files.classes[i]);
    }
    xkd_text_puts(&t, "],\"files\":[");
    /* A list per file and not an object: at 240 000 files the keys would be half of the text. */
    for (int64_t i = 0; i < e->files.count; i++) {
        const xkd_sample *s = &e->files.samples[i];
        xkd_text_puts(&t, i ? ",\n[" : "\n[");
        xkd_text_json_name(&t, s->path);
        xkd_text_printf(&t, ",%lld,", (long long)s->label);
        xkd_text_json_string(&t, s->split);
        add_labels(&t, s);
        if (s->more && s->more->identity) xkd_text_printf(&t, ",\"%016llx\"", (unsigned long long)s->more->identity);
        xkd_text_puts(&t, "]");
    }
    xkd_text_puts(&t, "]}\n");
    return xkd_text_take(&t, out);
}

/* Pooled features are a matrix, as other programs want them. */
static xkd_shape feature_shape(const xkd_feature_table *t)
{
    if (t->rows == 1) return (xkd_shape){2, {t->count, t->width}};
    return (xkd_shape){3, {t->count, t->rows, t->width}};
}

/* npy has no place for paths; who needs them takes another form. The array has no name; a reader that knows the
 * options knows the modality. */
static xkd_status write_npy(xkd_context *cx, const xkd_embeddings *e, const char *path)
{
    const xkd_feature_table *t = &e->table[e->table[XKD_VIDEO].count ? XKD_VIDEO : XKD_AUDIO];
    if (e->table[XKD_VIDEO].count && e->table[XKD_AUDIO].count)
        return xkd_fail(cx, XKD_ERR_CONFIG, "%s: npy holds one array: choose --modality, or write npz or safetensors",
                        path);
    xkd_tensor_item item = {"features", XKD_F32, feature_shape(t), t->x};
    return xkd_tensor_file_write(cx, path, XKD_FILE_NPY, &item, 1, NULL, 0);
}

xkd_status xkd_embeddings_write(xkd_context *cx, const xkd_embeddings *e, const char *path, xkd_embeddings_form form)
{
    static const char *const file_names[] = {"video.file", "audio.file"};
    static const char *const second_names[] = {"video.seconds", "audio.seconds"};
    static const char *const damage_names[] = {"video.damage", "audio.damage"};
    xkd_status status = XKD_OK;
    xkd_tensor_item items[4 * XKD_MODALITIES + 1];
    char *about = NULL;
    /* At most four tensors a modality and the text. A modality without clips is left out: empty arrays trip
     * readers. Damage is there only where some is. */
    int64_t n = 0;
    if (form == XKD_EMBEDDINGS_JSONL) return xkd_embeddings_write_lines(cx, e, path);
    if (form == XKD_EMBEDDINGS_NPY) return write_npy(cx, e, path);
    XKD_TRY(about_text(cx, e, &about));
    for (int m = 0; m < XKD_MODALITIES; m++) {
        const xkd_feature_table *t = &e->table[m];
        if (t->count == 0) continue;
        items[n++] = (xkd_tensor_item){modality_names[m], XKD_F32, feature_shape(t), t->x};
        items[n++] = (xkd_tensor_item){file_names[m], XKD_I64, {1, {t->count}}, t->file};
        items[n++] = (xkd_tensor_item){second_names[m], XKD_F64, {1, {t->count}}, t->seconds};
        if (xkd_embeddings_damaged(t, 0))
            items[n++] = (xkd_tensor_item){damage_names[m], XKD_F64, {1, {t->count}}, t->damage};
    }
    items[n++] = (xkd_tensor_item){"about", XKD_U8, {1, {(int64_t)strlen(about)}}, about};
    XKD_TRY(xkd_tensor_file_write(cx, path, form == XKD_EMBEDDINGS_NPZ ? XKD_FILE_NPZ : XKD_FILE_SAFETENSORS, items, n,
                                  NULL, 0));
fail:
    xkd_free(about);
    return status;
}

/* ---- reading ---- */

/* One message for all that is wrong with a file of another program. XKD_ERR_DATA and not _CHECKPOINT: it is read as
 * data, and its remedy is to embed again. */
static xkd_status not_ours(xkd_context *cx, const char *path, const char *why)
{
    return xkd_fail(cx, XKD_ERR_DATA, "%s: %s: want a safetensors, npz or jsonl file that 'xkd embed' wrote", path,
                    why);
}

/* Without class names any number may be a class, so only the type's limit is left; the number of classes, one more than
 * the last label, has to fit as well. Labels are indices afterwards. */
static xkd_status check_label(xkd_context *cx, const char *path, const char *name, json_int_t label, int64_t classes)
{
    if (label < (classes ? classes : INT32_MAX)) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_DATA, "%s: about: %s: label %lld of %lld classes", path, name, (long long)label,
                    (long long)classes);
}

/* Behind the first three entries of a file stand its labels, if it has several, and its identity, if it is known. */
static uint64_t identity_of(const json_t *entry)
{
    const char *text = json_string_value(json_array_get(entry, json_array_size(entry) - 1));
    return json_array_size(entry) > 3 && text ? strtoull(text, NULL, 16) : 0;
}

/* The fourth entry of a file, if it is a list. */
static xkd_status read_labels(xkd_context *cx, const char *path, const json_t *list, xkd_manifest *m, xkd_sample *s)
{
    xkd_status status = XKD_OK;
    int32_t *labels;
    if (!json_is_array(list)) return XKD_OK; /* a file with one label has none */
    XKD_TRY(xkd_sample_set_labels(cx, m, s, (int64_t)json_array_size(list), &labels));
    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t *entry = json_array_get(list, k);
        json_int_t label = json_integer_value(entry);
        if (!json_is_integer(entry) || label < 0)
            XKD_FAIL(XKD_ERR_DATA, "%s: about: %s: labels are numbers from 0 on", path, s->path);
        XKD_TRY(check_label(cx, path, s->path, label, m->class_count));
        labels[k] = (int32_t)label;
    }
fail:
    return status;
}

/* Everything is checked: the file may come from anybody. */
static xkd_status read_files(xkd_context *cx, const char *path, json_t *root, xkd_manifest *out)
{
    xkd_status status = XKD_OK;
    json_t *classes = json_object_get(root, "classes"), *files = json_object_get(root, "files"), *entry;
    char *name = NULL;
    size_t i;
    json_array_foreach(classes, i, entry)
    {
        int64_t label;
        XKD_TRY(xkd_json_name_value(cx, entry, &name));
        if (!name) XKD_FAIL(XKD_ERR_DATA, "%s: about: classes are names", path);
        /* class numbers follow the order of the names */
        XKD_TRY(xkd_manifest_class(cx, out, name, true, &label));
        xkd_free(name);
        name = NULL;
    }
    json_array_foreach(files, i, entry)
    {
        const char *split = json_string_value(json_array_get(entry, 2));
        XKD_TRY(xkd_json_name_value(cx, json_array_get(entry, 0), &name));
        json_t *label = json_array_get(entry, 1);
        xkd_sample *s;
        /* -1 says that a file has no label; a feature file may hold unlabelled files for retrieval. */
        if (!name || !split || !json_is_integer(label) || json_integer_value(label) < -1)
            XKD_FAIL(XKD_ERR_DATA, "%s: about: file %lld is not [path, label, split]", path, (long long)i);
        XKD_TRY(check_label(cx, path, name, json_integer_value(label), out->class_count));
        XKD_TRY(xkd_manifest_add(cx, out, name, &s));
        s->label = (int32_t)json_integer_value(label);
        XKD_TRY(xkd_sample_set_split(cx, out, s, split));
        XKD_TRY(xkd_sample_set_identity(cx, out, s, identity_of(entry)));
        XKD_TRY(read_labels(cx, path, json_array_get(entry, 3), out, s));
        xkd_free(name);
        name = NULL;
    }
fail:
    xkd_free(name);
    return status;
}

/* Hashes are text: JSON's numbers need not hold 64 bits. 0 where a file does not say. */
static uint64_t hash_of(const json_t *root, const char *key)
{
    const char *text = json_string_value(json_object_get(root, key));
    return text ? strtoull(text, NULL, 16) : 0;
}

/* Nothing of it in a file that is whole. */
static xkd_status read_shard(xkd_context *cx, const char *path, const json_t *root, xkd_shard *out)
{
    const json_t *shard = json_object_get(root, "shard");
    if (!shard) return XKD_OK;
    *out = (xkd_shard){json_integer_value(json_array_get(shard, 0)), json_integer_value(json_array_get(shard, 1)),
                       hash_of(root, "work")};
    if (out->of > 1 && out->index >= 1 && out->index <= out->of) return XKD_OK;
    return not_ours(cx, path, "is a shard that cannot be");
}

/* What the features are of decides whether they may be compared, so a file without it is refused. json_loadb takes a
 * length: the tensor is not terminated by 0. */
static xkd_status read_about(xkd_context *cx, const char *path, const xkd_stored_tensor *t, xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    json_error_t error;
    json_t *root =
        t && t->dtype == XKD_U8 ? json_loadb(t->data, (size_t)t->bytes, JSON_REJECT_DUPLICATES, &error) : NULL;
    const char *pool = json_string_value(json_object_get(root, "pool"));
    if (!root || json_integer_value(json_object_get(root, "xkd_embeddings")) != FORMAT || !pool ||
        !xkd_feature_kind_of(pool, &out->kind)) {
        status = not_ours(cx, path, "says nothing about itself");
        goto fail;
    }
    out->layer = json_integer_value(json_object_get(root, "layer"));
    out->settings = hash_of(root, "recipe"); /* "settings" hashed a part of the views only: unknown */
    out->recipe = hash_of(root, "options");
    const char *level = json_string_value(json_object_get(root, "level"));
    for (size_t i = 0; level && i + 1 < sizeof out->level && level[i] >= '0' && level[i] <= 'z'; i++)
        out->level[i] = level[i]; /* letters and digits: it stands in messages */
    XKD_TRY(read_shard(cx, path, root, &out->shard));
    for (int m = 0; m < XKD_MODALITIES; m++) {
        const char *hash = json_string_value(json_object_get(json_object_get(root, "model"), modality_names[m]));
        snprintf(out->model[m], sizeof out->model[m], "%s", hash ? hash : "");
    }
    XKD_TRY(read_files(cx, path, root, &out->files));
fail:
    json_decref(root);
    return status;
}

/* Copied, because callers change features (norms, scaling) and the map is read-only. */
static xkd_status read_table(xkd_context *cx, const char *path, const xkd_tensor_file *file, int m, xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    char name[32];
    xkd_feature_table *t = &out->table[m];
    const xkd_stored_tensor *x = xkd_tensor_file_find(file, modality_names[m]);
    snprintf(name, sizeof name, "%s.file", modality_names[m]);
    const xkd_stored_tensor *of = xkd_tensor_file_find(file, name);
    snprintf(name, sizeof name, "%s.seconds", modality_names[m]);
    const xkd_stored_tensor *seconds = xkd_tensor_file_find(file, name);
    snprintf(name, sizeof name, "%s.damage", modality_names[m]);
    const xkd_stored_tensor *damage = xkd_tensor_file_find(file, name);
    if (!x) return XKD_OK; /* this modality was not embedded */
    /* All tensors must agree before any is copied: their sizes are the copies' sizes. */
    bool good = x->dtype == XKD_F32 && (x->shape.ndim == 2 || x->shape.ndim == 3) && of && of->dtype == XKD_I64 &&
                seconds && seconds->dtype == XKD_F64 && of->shape.ndim == 1 && seconds->shape.ndim == 1 &&
                of->shape.dims[0] == x->shape.dims[0] && seconds->shape.dims[0] == x->shape.dims[0];
    good = good && (!damage ||
                    (damage->dtype == XKD_F64 && damage->shape.ndim == 1 && damage->shape.dims[0] == x->shape.dims[0]));
    if (!good) return not_ours(cx, path, "its tensors do not belong together");
    t->count = t->capacity = x->shape.dims[0];
    t->rows = x->shape.ndim == 3 ? x->shape.dims[1] : 1;
    t->width = x->shape.dims[x->shape.ndim - 1];
    XKD_TRY(xkd_alloc(cx, &t->x, x->bytes, 1));
    XKD_TRY(xkd_alloc(cx, &t->file, t->count, sizeof *t->file));
    XKD_TRY(xkd_alloc(cx, &t->seconds, t->count, sizeof *t->seconds));
    XKD_TRY(xkd_alloc(cx, &t->damage, t->count, sizeof *t->damage));
    memcpy(t->x, x->data, (size_t)x->bytes);
    memcpy(t->file, of->data, (size_t)of->bytes);
    memcpy(t->seconds, seconds->data, (size_t)seconds->bytes);
    if (damage) memcpy(t->damage, damage->data, (size_t)damage->bytes);
    /* Ascending, because clips_of and the writers rely on it; in range, because they index the list of files. */
    for (int64_t i = 0; i < t->count; i++)
        if (t->file[i] < 0 || t->file[i] >= out->files.count || (i && t->file[i] < t->file[i - 1]))
            return not_ours(cx, path, "clips name files that are not there");
fail:
    return status;
}

xkd_status xkd_embeddings_read(xkd_context *cx, const char *path, xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    xkd_tensor_file file = {0};
    *out = (xkd_embeddings){0};
    if (!xkd_path_exists(path)) XKD_FAIL(XKD_ERR_DATA, "%s: no such file: 'xkd embed' makes feature files", path);
    if (xkd_embeddings_are_lines(path)) return xkd_embeddings_read_lines(cx, path, out);
    XKD_TRY(xkd_tensor_file_open(cx, path, &file));
    XKD_TRY(read_about(cx, path, xkd_tensor_file_find(&file, "about"), out));
    for (int m = 0; m < XKD_MODALITIES; m++) XKD_TRY(read_table(cx, path, &file, m, out));
    if (out->table[0].count == 0 && out->table[1].count == 0) status = not_ours(cx, path, "holds no features");
fail:
    if (file.path || file.parts) xkd_tensor_file_close(&file);
    return status;
}

/* Features of different models, or of different parts of one, live in different spaces: a figure made from both would
 * mean nothing. Widths agree by the rest, unless a file is not what it says. */
xkd_status xkd_embeddings_compare(xkd_context *cx, const xkd_embeddings *a, const char *a_name, const xkd_embeddings *b,
                                  const char *b_name, const bool used[XKD_MODALITIES])
{
    xkd_status status = XKD_OK;
    if (a->kind != b->kind)
        XKD_FAIL(XKD_ERR_DATA, "%s has features of --pool %s, %s of --pool %s: embed both alike", a_name,
                 xkd_feature_kind_names[a->kind], b_name, xkd_feature_kind_names[b->kind]);
    if (a->layer != b->layer)
        XKD_FAIL(XKD_ERR_DATA, "%s has features of --layer %lld, %s of --layer %lld (-1: the last): embed both alike",
                 a_name, (long long)a->layer, b_name, (long long)b->layer);
    for (int m = 0; m < XKD_MODALITIES; m++) {
        const xkd_feature_table *x = &a->table[m], *y = &b->table[m];
        if (!used[m] || !x->count || !y->count) continue;
        if (strcmp(a->model[m], b->model[m]) != 0 || x->rows != y->rows || x->width != y->width)
            XKD_FAIL(XKD_ERR_DATA,
                     "%s and %s: their %s features are of different models or precisions: embed both alike", a_name,
                     b_name, modality_names[m]);
    }
    xkd_cpu_level_note(cx, a_name, a->level, b->level);
fail:
    return status;
}

xkd_status xkd_embeddings_check_whole(xkd_context *cx, const xkd_embeddings *e, const char *name)
{
    if (e->shard.of <= 1) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_DATA, "%s: is shard %lld of %lld: put them together with 'xkd embed --join'", name,
                    (long long)e->shard.index, (long long)e->shard.of);
}

xkd_status xkd_embeddings_check_finite(xkd_context *cx, const xkd_embeddings *e, const char *name,
                                       const bool used[XKD_MODALITIES])
{
    for (int m = 0; m < XKD_MODALITIES; m++) {
        const xkd_feature_table *t = &e->table[m];
        int64_t size = t->rows * t->width;
        for (int64_t i = 0; used[m] && i < t->count * size; i++)
            if (!isfinite(t->x[i]))
                return xkd_fail(cx, XKD_ERR_NUMERIC,
                                "%s: the %s features of %s at %.2f s are not finite: embed again with a sound model "
                                "('xkd verify MODEL' looks)",
                                name, modality_names[m], e->files.samples[t->file[i / size]].path,
                                t->seconds[i / size]);
    }
    return XKD_OK;
}

/* ---- joining ---- */

/* place[i] = index of shard i + 1 among the parts. A missing shard ends the loop before `place`, which has room for `count`,
 * is full. */
static xkd_status order_shards(xkd_context *cx, const xkd_embeddings *parts, char *const *names, int64_t count,
                               int64_t *place)
{
    xkd_status status = XKD_OK;
    const xkd_shard *first = &parts[0].shard;
    for (int64_t i = 1; i < count; i++)
        if (parts[i].shard.of != first->of || parts[i].shard.work != first->work)
            XKD_FAIL(XKD_ERR_DATA, "%s and %s are no shards of one work: join those of one 'xkd embed --shard'",
                     names[0], names[i]);
    for (int64_t s = 0; s < first->of; s++) {
        int64_t found = -1;
        for (int64_t i = 0; i < count; i++) {
            if (parts[i].shard.index != s + 1) continue;
            if (found >= 0)
                XKD_FAIL(XKD_ERR_DATA, "%s and %s are both shard %lld of %lld", names[found], names[i],
                         (long long)s + 1, (long long)first->of);
            found = i;
        }
        if (found < 0)
            XKD_FAIL(XKD_ERR_DATA, "shard %lld of %lld is missing: %s is shard %lld", (long long)s + 1,
                     (long long)first->of, names[0], (long long)first->index);
        place[s] = found;
    }
fail:
    return status;
}

/* Appends file f of a part with its clips, which begin at the cursors. */
static xkd_status append_file(xkd_context *cx, const xkd_embeddings *part, int64_t f, int64_t at[XKD_MODALITIES],
                              xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    xkd_sample *s;
    int64_t number = out->files.count;
    XKD_TRY(xkd_manifest_add(cx, &out->files, part->files.samples[f].path, &s));
    XKD_TRY(xkd_sample_copy_labels(cx, &out->files, s, &part->files.samples[f]));
    XKD_TRY(xkd_sample_set_identity(cx, &out->files, s, xkd_sample_identity_of(&part->files.samples[f])));
    for (int m = 0; m < XKD_MODALITIES; m++) {
        const xkd_feature_table *t = &part->table[m];
        for (int64_t i; (i = at[m]) < t->count && t->file[i] == f; at[m]++) {
            const xkd_feature_row row = {number, t->seconds[i], t->damage[i], t->x + i * t->rows * t->width};
            XKD_TRY(xkd_embeddings_add(cx, &out->table[m], &row));
        }
    }
fail:
    return status;
}

/* Number k of the work is file k / of of shard k % of + 1: one file of each in turn until all have ended. */
static xkd_status append_shards(xkd_context *cx, const xkd_embeddings *parts, char *const *names, int64_t count,
                                xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    int64_t *place = NULL, (*at)[XKD_MODALITIES] = NULL;
    XKD_TRY(xkd_alloc(cx, &place, count, sizeof *place));
    XKD_TRY(xkd_alloc(cx, &at, count, sizeof *at));
    XKD_TRY(order_shards(cx, parts, names, count, place));
    bool more = true;
    for (int64_t f = 0; more; f++) {
        more = false;
        for (int64_t s = 0; s < count; s++) {
            const xkd_embeddings *part = &parts[place[s]];
            if (f >= part->files.count) continue;
            XKD_TRY(append_file(cx, part, f, at[s], out));
            more = true;
        }
    }
    out->settings = parts[0].shard.work; /* what one run over all files would have written */
    out->recipe = parts[0].recipe;
fail:
    xkd_free(place);
    xkd_free(at);
    return status;
}

/* For qsort. */
static int by_path(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Paths are relative to roots that a feature file does not name, so a path that comes twice is taken for one file. */
static xkd_status append_wholes(xkd_context *cx, const xkd_embeddings *parts, int64_t count, xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    const char **paths = NULL;
    for (int64_t i = 0; i < count; i++) {
        int64_t at[XKD_MODALITIES] = {0};
        for (int64_t f = 0; f < parts[i].files.count; f++) XKD_TRY(append_file(cx, &parts[i], f, at, out));
    }
    XKD_TRY(xkd_alloc(cx, &paths, out->files.count, sizeof *paths));
    for (int64_t f = 0; f < out->files.count; f++) paths[f] = out->files.samples[f].path;
    qsort(paths, (size_t)out->files.count, sizeof *paths, by_path);
    for (int64_t f = 1; f < out->files.count; f++)
        if (strcmp(paths[f - 1], paths[f]) == 0)
            XKD_FAIL(XKD_ERR_DATA, "%s: stands in the features twice: join every file once", paths[f]);
fail:
    xkd_free(paths);
    return status;
}

/* Kind, layer, models, widths and classes: each of the first part that has them. */
static xkd_status take_description(xkd_context *cx, const xkd_embeddings *part, xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    int64_t label;
    out->kind = part->kind;
    out->layer = part->layer;
    if (!out->level[0]) memcpy(out->level, part->level, sizeof out->level);
    for (int m = 0; m < XKD_MODALITIES; m++) {
        if (!out->model[m][0]) memcpy(out->model[m], part->model[m], sizeof out->model[m]);
        if (out->table[m].width || !part->table[m].count) continue;
        out->table[m].rows = part->table[m].rows;
        out->table[m].width = part->table[m].width;
    }
    for (int64_t k = out->files.class_count; k < part->files.class_count; k++)
        XKD_TRY(xkd_manifest_class(cx, &out->files, part->files.classes[k], true, &label));
fail:
    return status;
}

xkd_status xkd_embeddings_join(xkd_context *cx, const xkd_embeddings *parts, char *const *names, int64_t count,
                               xkd_embeddings *out)
{
    xkd_status status = XKD_OK;
    *out = (xkd_embeddings){0};
    for (int64_t i = 0; i < count; i++) {
        /* With each before it, for the first may lack a modality or labels that two others have. */
        for (int64_t j = 0; j < i; j++) {
            XKD_TRY(xkd_embeddings_compare(cx, &parts[j], names[j], &parts[i], names[i], (const bool[]){true, true}));
            XKD_TRY(xkd_manifest_compare_classes(cx, &parts[j].files, names[j], &parts[i].files, names[i], NULL));
        }
        XKD_TRY(take_description(cx, &parts[i], out));
    }
    bool shards = false;
    for (int64_t i = 0; i < count; i++) shards |= parts[i].shard.of > 1;
    XKD_TRY(shards ? append_shards(cx, parts, names, count, out) : append_wholes(cx, parts, count, out));
fail:
    return status;
}
