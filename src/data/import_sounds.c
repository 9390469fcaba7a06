/* ESC50, FSD50K and AudioSet. Sounds with one label (ESC50) or several. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "data/import_parts.h"

/* ---- ESC50 ---- */

/* filename,fold,target,category,...: the class numbers are `target`, their names `category`. names [50] by target are
 * the caller's. */
static xkd_status esc50_row(xkd_import_job *job, const xkd_lines *lines, char **fields, char *names[50])
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    char *path = NULL, split[16];
    xkd_sample *sample;
    /* The numbers are text of a file: bounded before they index `names`. */
    int64_t fold = atoll(fields[1]), target = atoll(fields[2]);
    if (fold < 1 || fold > 5 || target < 0 || target >= 50)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: fold %lld, target %lld: out of range (fetch the list anew)", lines->path,
                 (long long)lines->number, (long long)fold, (long long)target);
    /* The first row of a class names it. */
    if (!names[target]) XKD_TRY(xkd_copy_string(cx, &names[target], fields[3]));
    /* One fold is the test, the other four are trained on, as the set's authors do. */
    snprintf(split, sizeof split, "%s-%d", fold == job->options->fold ? "test" : "train", (int)job->options->fold);
    XKD_TRY(xkd_join_path(cx, &path, "audio", fields[0]));
    XKD_TRY(xkd_import_add(job, path, target, split, &sample));
fail:
    xkd_free(path);
    return status;
}

/* Class names are known only after the whole list was read, so they are added at its end, in the order of their
 * numbers. */
xkd_status xkd_import_esc50(xkd_import_job *job)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_lines lines = {0};
    char *fields[XKD_MOST_FIELDS], *names[50] = {0};
    int64_t label;
    XKD_TRY(xkd_lines_open(job, "meta/esc50.csv", "esc50.csv", &lines));
    for (char *line; (line = xkd_lines_next(&lines)) != NULL;) {
        if (!*line || lines.number == 1) continue; /* the header */
        if (xkd_csv_split(line, fields) < 4)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: want filename,fold,target,category", lines.path, (long long)lines.number);
        XKD_TRY(esc50_row(job, &lines, fields, names));
    }
    for (int k = 0; k < 50; k++) {
        char number[16];
        snprintf(number, sizeof number, "class-%d", k); /* of a partial copy; numbers must stay what they are */
        XKD_TRY(xkd_manifest_class(cx, job->manifest, names[k] ? names[k] : number, true, &label));
        /* Two names for one target would have made more classes than targets. */
        if (label != k)
            XKD_FAIL(XKD_ERR_DATA, "%s: category %s has two targets (fetch the list anew)", lines.path, names[k]);
    }
fail:
    xkd_lines_close(&lines);
    for (int k = 0; k < 50; k++) xkd_free(names[k]);
    return status;
}

/* ---- several labels a clip ---- */

/* Sets the sample's labels from a list of names or codes with commas between; codes [count] are looked up in order.
 * Cuts `list` up in place. */
static xkd_status set_labels(xkd_import_job *job, const xkd_lines *lines, xkd_sample *s, char *list,
                             const xkd_names *codes)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    /* As many labels as commas and one more, at most: empty parts are passed over. */
    int64_t most = 1, count = 0;
    int32_t *labels = NULL, *kept;
    for (const char *c = list; *c; c++) most += *c == ',';
    XKD_TRY(xkd_alloc(cx, &labels, most, sizeof *labels));
    char *rest;
    for (char *name = strtok_r(list, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        int64_t label = -1;
        /* A few hundred codes a label, once an import: a linear search is fast enough. */
        for (int64_t i = 0; codes && i < codes->count; i++)
            if (strcmp(codes->items[i], name) == 0) label = i;
        if (!codes) XKD_TRY(xkd_manifest_class(cx, job->manifest, name, false, &label));
        if (label < 0)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"%s\" is no label of the vocabulary (fetch both lists anew)", lines->path,
                     (long long)lines->number, name);
        labels[count++] = (int32_t)label;
    }
    XKD_TRY(xkd_sample_set_labels(cx, job->manifest, s, count, &kept));
    memcpy(kept, labels, (size_t)count * sizeof *kept);
fail:
    xkd_free(labels);
    return status;
}

/* ---- FSD50K ---- */

/* vocabulary.csv has no header: index,label,mid. */
static xkd_status read_vocabulary(xkd_import_job *job)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_lines lines = {0};
    char *fields[XKD_MOST_FIELDS];
    int64_t label;
    XKD_TRY(xkd_lines_open(job, "FSD50K.ground_truth/vocabulary.csv", "vocabulary.csv", &lines));
    for (char *line; (line = xkd_lines_next(&lines)) != NULL;) {
        if (!*line) continue;
        /* The index is the label of other programs, so gaps or another order are refused. */
        if (xkd_csv_split(line, fields) < 2 || atoll(fields[0]) != job->manifest->class_count)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: want index,label,mid with indices in order", lines.path,
                     (long long)lines.number);
        XKD_TRY(xkd_manifest_class(cx, job->manifest, fields[1], true, &label));
    }
fail:
    xkd_lines_close(&lines);
    return status;
}

/* Development clips say in a fourth column whether they train or validate. */
xkd_status xkd_import_fsd50k(xkd_import_job *job)
{
    static const struct {
        const char *list, *other, *folder;
    } parts[] = {{"FSD50K.ground_truth/dev.csv", "dev.csv", "FSD50K.dev_audio"},
                 {"FSD50K.ground_truth/eval.csv", "eval.csv", "FSD50K.eval_audio"}};
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_lines lines = {0};
    char *fields[XKD_MOST_FIELDS], *path = NULL;
    xkd_sample *sample;
    XKD_TRY(read_vocabulary(job));
    for (int p = 0; p < 2; p++) {
        XKD_TRY(xkd_lines_open(job, parts[p].list, parts[p].other, &lines));
        for (char *line; (line = xkd_lines_next(&lines)) != NULL;) {
            if (!*line || lines.number == 1) continue;
            int n = xkd_csv_split(line, fields); /* fname,"labels","mids"[,split] */
            /* The evaluation list has no split column. */
            if (n < (p ? 2 : 4))
                XKD_FAIL(XKD_ERR_DATA, "%s:%lld: want fname,labels,mids%s", lines.path, (long long)lines.number,
                         p ? "" : ",split");
            XKD_TRY(xkd_format_string(cx, &path, "%s/%s.wav", parts[p].folder, fields[0]));
            XKD_TRY(xkd_import_add(job, path, -1,
                                   p                               ? "test"
                                   : strcmp(fields[3], "val") == 0 ? "val"
                                                                   : "train",
                                   &sample));
            /* NULL where the file is missing: it has been counted. */
            if (sample) XKD_TRY(set_labels(job, &lines, sample, fields[1], NULL));
            xkd_free(path);
            path = NULL;
        }
        xkd_lines_close(&lines);
    }
fail:
    xkd_lines_close(&lines);
    xkd_free(path);
    return status;
}

/* ---- AudioSet ---- */

/* index,mid,display_name with a header; codes become the mids in order. */
static xkd_status read_audioset_classes(xkd_import_job *job, xkd_names *codes)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_lines lines = {0};
    char *fields[XKD_MOST_FIELDS];
    int64_t label;
    XKD_TRY(xkd_lines_open(job, "class_labels_indices.csv", "metadata/class_labels_indices.csv", &lines));
    for (char *line; (line = xkd_lines_next(&lines)) != NULL;) {
        if (!*line || lines.number == 1) continue;
        if (xkd_csv_split(line, fields) < 3 || atoll(fields[0]) != codes->count)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: want index,mid,display_name with indices in order", lines.path,
                     (long long)lines.number);
        if (codes->count == codes->capacity) {
            /* Grown before the copy, so the count never covers an item that is not there. */
            XKD_TRY(xkd_resize(cx, &codes->items, codes->capacity, 2 * codes->capacity + 64, sizeof *codes->items));
            codes->capacity = 2 * codes->capacity + 64;
        }
        XKD_TRY(xkd_copy_string(cx, &codes->items[codes->count], fields[1]));
        codes->count++;
        XKD_TRY(xkd_manifest_class(cx, job->manifest, fields[2], true, &label));
    }
fail:
    xkd_lines_close(&lines);
    return status;
}

/* YTID, start_seconds, end_seconds, "mid,mid": files are named by the ID, with or without the start behind it, or
 * with a Y in front (so that no name begins with '-'). */
static xkd_status audioset_row(xkd_import_job *job, const xkd_lines *lines, char **fields, const char *folder,
                               const xkd_names *names, const xkd_names *codes)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    char *path = NULL, stem[128];
    xkd_sample *sample;
    const char *file = xkd_import_find(names, fields[0], false);
    snprintf(stem, sizeof stem, "Y%.100s", fields[0]);
    if (!file) file = xkd_import_find(names, stem, false);
    /* A file that is not found is added by its ID, to be counted as missing under it. */
    XKD_TRY(xkd_format_string(cx, &path, "%s/%s", folder, file ? file : fields[0]));
    XKD_TRY(xkd_import_add(job, path, -1, strcmp(folder, "eval") == 0 ? "test" : "train", &sample));
    if (sample) XKD_TRY(set_labels(job, lines, sample, fields[3], codes));
fail:
    xkd_free(path);
    return status;
}

/* A folder that is not there is a part that was not downloaded. */
static xkd_status audioset_part(xkd_import_job *job, const char *folder, const xkd_names *codes, int64_t *parts)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_names names = {0};
    xkd_lines lines = {0};
    char *fields[XKD_MOST_FIELDS], *whole = NULL, list[64], other[80];
    snprintf(list, sizeof list, "%s_segments.csv", folder);
    snprintf(other, sizeof other, "metadata/%s", list);
    XKD_TRY(xkd_join_path(cx, &whole, job->root, folder));
    if (!xkd_is_folder(whole)) goto fail;
    ++*parts;
    XKD_TRY(xkd_list_folder(cx, whole, &names));
    XKD_TRY(xkd_lines_open(job, list, other, &lines));
    for (char *line; (line = xkd_lines_next(&lines)) != NULL;) {
        if (!*line || *line == '#') continue; /* three lines of comment */
        if (xkd_csv_split(line, fields) != 4)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: want YTID, start_seconds, end_seconds, \"labels\"", lines.path,
                     (long long)lines.number);
        XKD_TRY(audioset_row(job, &lines, fields, folder, &names, codes));
    }
fail:
    xkd_free_names(&names);
    xkd_lines_close(&lines);
    xkd_free(whole);
    return status;
}

/* Any of the three folders will do; the classes are those of the whole set. */
xkd_status xkd_import_audioset(xkd_import_job *job)
{
    static const char *const folders[] = {"balanced_train", "unbalanced_train", "eval"};
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_names codes = {0};
    int64_t parts = 0;
    XKD_TRY(read_audioset_classes(job, &codes));
    for (int i = 0; i < 3; i++) XKD_TRY(audioset_part(job, folders[i], &codes, &parts));
    if (parts == 0) XKD_FAIL(XKD_ERR_DATA, "%s: has none of the folders of clips (unpack them into it)", job->root);
fail:
    xkd_free_names(&codes);
    return status;
}
