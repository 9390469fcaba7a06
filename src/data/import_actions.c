/* UCF101, HMDB51, Kinetics400 and Kinetics-Sound. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "data/import_parts.h"

/* ---- UCF101 ---- */

/* classInd.txt: "1 ApplyEyeMakeup"; numbers from 1, in order. */
static xkd_status read_class_index(xkd_import_job *job)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_lines lines;
    XKD_TRY(xkd_lines_open(job, "ucfTrainTestlist/classInd.txt", "classInd.txt", &lines));
    for (char *line; (line = xkd_lines_next(&lines)) != NULL;) {
        char *name;
        int64_t label, number = strtoll(line, &name, 10);
        if (!*line) continue;
        while (*name == ' ') name++;
        XKD_TRY(xkd_manifest_class(cx, job->manifest, name, true, &label));
        if (!*name || label != number - 1)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: want \"%lld CLASS\"", lines.path, (long long)lines.number,
                     (long long)job->manifest->class_count);
    }
fail:
    xkd_lines_close(&lines);
    return status;
}

/* One line "Class/v_Class_g08_c01.avi[ 1]": test lists carry no label, the folder says it. */
static xkd_status add_ucf_line(xkd_import_job *job, const xkd_lines *lines, char *line, const char *folder,
                               const char *split)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_sample *sample;
    char *path = NULL, *space = strrchr(line, ' '), *slash;
    int64_t label = -1, listed = -1;
    if (space) {
        listed = strtoll(space + 1, NULL, 10) - 1;
        *space = 0;
    }
    XKD_TRY(xkd_format_string(cx, &path, "%s%s", folder, line));
    slash = strchr(line, '/');
    if (slash) {
        *slash = 0;
        XKD_TRY(xkd_manifest_class(cx, job->manifest, line, false, &label));
    }
    if (label < 0 || (listed >= 0 && listed != label))
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"%s\" is not the class of that line", lines->path, (long long)lines->number,
                 line);
    XKD_TRY(xkd_import_add(job, path, label, split, &sample));
fail:
    xkd_free(path);
    return status;
}

/* Lists may stand in their own folder, as packed, or beside the videos. */
xkd_status xkd_import_ucf101(xkd_import_job *job)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_lines lines = {0};
    char *folder = NULL;
    XKD_TRY(read_class_index(job));
    XKD_TRY(xkd_join_path(cx, &folder, job->root, "UCF-101"));
    const char *prefix = xkd_is_folder(folder) ? "UCF-101/" : "";
    for (int test = 0; test < 2; test++) {
        char split[16], inside[64], beside[32];
        snprintf(split, sizeof split, "%slist%02d", test ? "test" : "train", (int)job->options->fold);
        snprintf(inside, sizeof inside, "ucfTrainTestlist/%s.txt", split);
        snprintf(beside, sizeof beside, "%s.txt", split);
        XKD_TRY(xkd_lines_open(job, inside, beside, &lines));
        for (char *line; (line = xkd_lines_next(&lines)) != NULL;)
            if (*line) XKD_TRY(add_ucf_line(job, &lines, line, prefix, split));
        xkd_lines_close(&lines);
    }
fail:
    xkd_lines_close(&lines);
    xkd_free(folder);
    return status;
}

/* ---- HMDB51 ---- */

/* "NAME.avi 1 ": codes 1 train, 2 test, 0 unused in this fold. Names may hold blanks and # & ; ( ). */
static xkd_status add_hmdb_line(xkd_import_job *job, const xkd_lines *lines, char *line, const char *folder,
                                const char *class)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_sample *sample;
    int64_t label;
    char *path = NULL, *space = strrchr(line, ' '), split[16] = "unused";
    int code = space && isdigit((unsigned char)space[1]) && !space[2] ? space[1] - '0' : -1;
    if (code < 0 || code > 2)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: want \"NAME 0\", 1 or 2", lines->path, (long long)lines->number);
    while (space > line && space[-1] == ' ') space--;
    *space = 0;
    if (code) snprintf(split, sizeof split, "%s-split%d", code == 1 ? "train" : "test", (int)job->options->fold);
    XKD_TRY(xkd_manifest_class(cx, job->manifest, class, true, &label));
    XKD_TRY(xkd_format_string(cx, &path, "%s%s/%s", folder, class, line));
    XKD_TRY(xkd_import_add(job, path, label, split, &sample));
fail:
    xkd_free(path);
    return status;
}

/* The class is part of the list's name: brush_hair_test_split1.txt. */
xkd_status xkd_import_hmdb51(xkd_import_job *job)
{
    static const char *const places[] = {"testTrainMulti_7030_splits", "splits"};
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_names names = {0};
    xkd_lines lines = {0};
    char *folder = NULL, *videos = NULL, *list = NULL, ending[32];
    int place = 0;
    XKD_TRY(xkd_join_path(cx, &videos, job->root, "videos"));
    const char *prefix = xkd_is_folder(videos) ? "videos/" : "";
    for (;; place++) {
        if (place == 2) XKD_FAIL(XKD_ERR_DATA, "%s: has no folder with the lists of the splits", job->root);
        XKD_TRY(xkd_join_path(cx, &folder, job->root, places[place]));
        if (xkd_is_folder(folder)) break;
        xkd_free(folder);
        folder = NULL;
    }
    XKD_TRY(xkd_list_folder(cx, folder, &names));
    snprintf(ending, sizeof ending, "_test_split%d.txt", (int)job->options->fold);
    for (int64_t i = 0; i < names.count; i++) {
        char *name = names.items[i], *end = strstr(name, ending);
        if (!end || end[strlen(ending)] || name[0] == '.') continue;
        XKD_TRY(xkd_join_path(cx, &list, places[place], name));
        XKD_TRY(xkd_lines_open(job, list, NULL, &lines));
        *end = 0;
        for (char *line; (line = xkd_lines_next(&lines)) != NULL;)
            if (*line) XKD_TRY(add_hmdb_line(job, &lines, line, prefix, name));
        xkd_lines_close(&lines);
        xkd_free(list);
        list = NULL;
    }
    if (job->result->listed == 0) XKD_FAIL(XKD_ERR_DATA, "%s: holds no *%s", folder, ending);
fail:
    xkd_lines_close(&lines);
    xkd_free_names(&names);
    xkd_free(folder);
    xkd_free(videos);
    xkd_free(list);
    return status;
}

/* ---- Kinetics ---- */

/* The 32 classes of Kinetics-Sound in the paper; other work leaves out strumming_guitar. */
static const char *const sound_classes[] = {"blowing_nose",
                                            "blowing_out_candles",
                                            "bowling",
                                            "chopping_wood",
                                            "dribbling_basketball",
                                            "laughing",
                                            "mowing_lawn",
                                            "playing_accordion",
                                            "playing_bagpipes",
                                            "playing_bass_guitar",
                                            "playing_clarinet",
                                            "playing_drums",
                                            "playing_guitar",
                                            "playing_harmonica",
                                            "playing_keyboard",
                                            "playing_organ",
                                            "playing_piano",
                                            "playing_saxophone",
                                            "playing_trombone",
                                            "playing_trumpet",
                                            "playing_violin",
                                            "playing_xylophone",
                                            "ripping_paper",
                                            "shoveling_snow",
                                            "shuffling_cards",
                                            "singing",
                                            "stomping_grapes",
                                            "strumming_guitar",
                                            "tap_dancing",
                                            "tapping_guitar",
                                            "tapping_pen",
                                            "tickling"};
enum { SOUND_CLASSES = sizeof sound_classes / sizeof *sound_classes };

static const struct {
    const char *folder, *list, *split;
} kinetics_splits[] = {{"train", "train.csv", "train"},
                       {"val", "val.csv", "val"},
                       {"validate", "validate.csv", "val"},
                       {"test", "test.csv", "test"}};
enum { KINETICS_SPLITS = sizeof kinetics_splits / sizeof *kinetics_splits };

/* Class folders are written with blanks or with '_'; the name of the class has '_'. */
static void underscores(char *out, size_t size, const char *name)
{
    snprintf(out, size, "%s", name);
    for (; *out; out++)
        if (*out == ' ') *out = '_';
}

/* Kinetics400 takes every class; Kinetics-Sound the listed ones. */
static bool wanted_class(const xkd_import_job *job, const char *name, bool sound)
{
    if (!sound) return true;
    for (int i = 0; i < SOUND_CLASSES; i++)
        if (strcmp(sound_classes[i], name) == 0)
            return job->options->classes != 31 || strcmp(name, "strumming_guitar") != 0;
    return false;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Labels are alphabetical over all splits, so the classes are collected before the first sample. */
static xkd_status collect_class(xkd_import_job *job, const char *written, bool sound)
{
    char name[256];
    int64_t label;
    underscores(name, sizeof name, written);
    return wanted_class(job, name, sound) ? xkd_manifest_class(job->cx, job->manifest, name, true, &label) : XKD_OK;
}

/* Every file of a class folder, whatever its name: downloads are named in several ways. */
static xkd_status class_folder(xkd_import_job *job, const char *split, const char *written, const char *as)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_names names = {0};
    char *folder = NULL, *path = NULL, name[256];
    int64_t label;
    xkd_sample *sample;
    underscores(name, sizeof name, written);
    XKD_TRY(xkd_manifest_class(cx, job->manifest, name, false, &label));
    if (label < 0) return XKD_OK;
    XKD_TRY(xkd_format_string(cx, &folder, "%s/%s/%s", job->root, split, written));
    XKD_TRY(xkd_list_folder(cx, folder, &names));
    for (int64_t i = 0; i < names.count; i++) {
        if (names.items[i][0] == '.') continue;
        XKD_TRY(xkd_format_string(cx, &path, "%s/%s/%s", split, written, names.items[i]));
        XKD_TRY(xkd_import_add(job, path, label, as, &sample));
        xkd_free(path);
        path = NULL;
    }
fail:
    xkd_free_names(&names);
    xkd_free(folder);
    xkd_free(path);
    return status;
}

/* One row of a CSV: which file of the split's folder it is. Downloads lack videos that are gone: they are counted. */
static xkd_status csv_row(xkd_import_job *job, char **fields, int s, const xkd_names *flat)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    char *path = NULL, name[256], stem[300];
    int64_t label;
    xkd_sample *sample;
    underscores(name, sizeof name, fields[0]);
    XKD_TRY(xkd_manifest_class(cx, job->manifest, name, false, &label));
    if (label < 0) return XKD_OK;
    snprintf(stem, sizeof stem, "%.200s_%06d_%06d", fields[1], atoi(fields[2]), atoi(fields[3]));
    const char *file = xkd_import_find(flat, stem);
    if (!file) file = xkd_import_find(flat, fields[1]);
    XKD_TRY(xkd_format_string(cx, &path, "%s/%s", kinetics_splits[s].folder, file ? file : stem));
    XKD_TRY(xkd_import_add(job, path, label, kinetics_splits[s].split, &sample));
fail:
    xkd_free(path);
    return status;
}

/* A split with a list and no class folders. `collect`: only the classes. */
static xkd_status read_csv(xkd_import_job *job, int s, const xkd_names *flat, bool collect, bool sound)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_lines lines = {0};
    char *fields[XKD_MOST_FIELDS], other[64];
    snprintf(other, sizeof other, "annotations/%s", kinetics_splits[s].list);
    XKD_TRY(xkd_lines_open(job, kinetics_splits[s].list, other, &lines));
    for (char *line; (line = xkd_lines_next(&lines)) != NULL;) {
        if (!*line || (lines.number == 1 && strncmp(line, "label", 5) == 0)) continue;
        if (xkd_csv_split(line, fields) < 4)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: want label,youtube_id,time_start,time_end,split", lines.path,
                     (long long)lines.number);
        XKD_TRY(collect ? collect_class(job, fields[0], sound) : csv_row(job, fields, s, flat));
    }
fail:
    xkd_lines_close(&lines);
    return status;
}

/* One split; folders decide, a list is used where the folder holds the videos themselves. */
static xkd_status read_split(xkd_import_job *job, int s, bool collect, bool sound)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_names names = {0};
    char *folder = NULL, *inner = NULL;
    int64_t folders = 0;
    XKD_TRY(xkd_join_path(cx, &folder, job->root, kinetics_splits[s].folder));
    if (!xkd_is_folder(folder)) goto fail;
    XKD_TRY(xkd_list_folder(cx, folder, &names));
    for (int64_t i = 0; i < names.count; i++) {
        if (names.items[i][0] == '.') continue;
        XKD_TRY(xkd_join_path(cx, &inner, folder, names.items[i]));
        bool is_class = xkd_is_folder(inner);
        xkd_free(inner);
        inner = NULL;
        folders += is_class;
        if (is_class)
            XKD_TRY(collect ? collect_class(job, names.items[i], sound)
                            : class_folder(job, kinetics_splits[s].folder, names.items[i], kinetics_splits[s].split));
        else if (folders == 0)
            break; /* flat */
    }
    if (folders == 0) XKD_TRY(read_csv(job, s, &names, collect, sound));
fail:
    xkd_free_names(&names);
    xkd_free(folder);
    xkd_free(inner);
    return status;
}

/* Two passes: names first, because a label is the place of a name among all of them. */
static xkd_status read_kinetics(xkd_import_job *job, bool sound)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_manifest *m = job->manifest;
    for (int s = 0; s < KINETICS_SPLITS; s++) XKD_TRY(read_split(job, s, true, sound));
    if (m->class_count == 0) XKD_FAIL(XKD_ERR_DATA, "%s: no folder of a class in train, val or test", job->root);
    qsort(m->classes, (size_t)m->class_count, sizeof *m->classes, by_name);
    for (int s = 0; s < KINETICS_SPLITS; s++) XKD_TRY(read_split(job, s, false, sound));
    int64_t want = job->options->classes == 31 ? 31 : SOUND_CLASSES;
    if (sound && !job->options->partial && m->class_count != want)
        XKD_FAIL(XKD_ERR_DATA, "%s: %lld of the %lld classes of Kinetics-Sound are there (--partial accepts that)",
                 job->root, (long long)m->class_count, (long long)want);
fail:
    return status;
}

xkd_status xkd_import_kinetics400(xkd_import_job *job)
{
    return read_kinetics(job, false);
}

xkd_status xkd_import_kinetics_sound(xkd_import_job *job)
{
    return read_kinetics(job, true);
}
