/* Kinetics400 and Kinetics-Sound: folders of classes, or folders of videos with a list as CSV or JSON. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "data/import_parts.h"

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

/* Releases name the validation split in two ways. `subset` is how an entry of a JSON list begins to name its own. */
static const struct {
    const char *folder, *split, *subset;
} kinetics_splits[] = {
    {"train", "train", "train"}, {"val", "val", "val"}, {"validate", "val", "val"}, {"test", "test", "test"}};
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
    if (!sound) return true; /* the whole of Kinetics400 */
    for (int i = 0; i < SOUND_CLASSES; i++)
        if (strcmp(sound_classes[i], name) == 0) /* 31: without the class that other work leaves out */
            return job->options->classes != 31 || strcmp(name, "strumming_guitar") != 0;
    return false;
}

/* strcmp's order, whatever the locale. */
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
    /* A class that is not wanted was never collected. */
    if (label < 0) return XKD_OK;
    XKD_TRY(xkd_format_string(cx, &folder, "%s/%s/%s", job->root, split, written));
    XKD_TRY(xkd_list_folder(cx, folder, &names));
    for (int64_t i = 0; i < names.count; i++) {
        if (names.items[i][0] == '.') continue; /* hidden files of downloaders */
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

/* One entry of a list. */
typedef struct {
    const char *label, *id;
    int64_t start, end; /* seconds of the segment; end 0: not said */
} entry;

/* Which file of the split's folder an entry is. Downloads lack videos that are gone: they are counted. */
static xkd_status add_entry(xkd_import_job *job, const entry *e, int s, const xkd_names *flat)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    char *path = NULL, name[256], stem[300];
    int64_t label;
    xkd_sample *sample;
    underscores(name, sizeof name, e->label);
    XKD_TRY(xkd_manifest_class(cx, job->manifest, name, false, &label));
    if (label < 0) return XKD_OK;
    /* youtube-dl's scripts name files ID_START_END with six digits. */
    snprintf(stem, sizeof stem, "%.200s_%06lld_%06lld", e->id, (long long)e->start, (long long)e->end);
    /* With the segment first: one video may have several. */
    const char *file = e->end ? xkd_import_find(flat, stem) : NULL;
    if (!file) file = xkd_import_find(flat, e->id);
    /* The stem stands for a file that is missing, in the count and the message. */
    XKD_TRY(xkd_format_string(cx, &path, "%s/%s", kinetics_splits[s].folder, file ? file : stem));
    XKD_TRY(xkd_import_add(job, path, label, kinetics_splits[s].split, &sample));
fail:
    xkd_free(path);
    return status;
}

/* A list in work: first only its classes are collected, then its files. */
typedef struct {
    xkd_import_job *job;
    int split; /* index into kinetics_splits */
    const xkd_names *flat;
    bool collect, sound;
} listing;

static xkd_status take_entry(const listing *l, const entry *e)
{
    return l->collect ? collect_class(l->job, e->label, l->sound) : add_entry(l->job, e, l->split, l->flat);
}

/* label,youtube_id,time_start,time_end,split[,is_cc] */
static xkd_status read_csv(const listing *l, const char *list)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    xkd_lines lines = {0};
    char *fields[XKD_MOST_FIELDS];
    XKD_TRY(xkd_lines_open(l->job, list, NULL, &lines));
    for (char *line; (line = xkd_lines_next(&lines)) != NULL;) {
        /* A header, which not all lists have. */
        if (!*line || (lines.number == 1 && strncmp(line, "label", 5) == 0)) continue;
        if (xkd_csv_split(line, fields) < 4)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: want label,youtube_id,time_start,time_end,split", lines.path,
                     (long long)lines.number);
        /* A number that is none reads as 0: the file is then looked for by its ID. */
        const entry e = {fields[0], fields[1], atoll(fields[2]), atoll(fields[3])};
        XKD_TRY(take_entry(l, &e));
    }
fail:
    xkd_lines_close(&lines);
    return status;
}

/* One entry of the JSON form: "ID": {"annotations": {"label": "...", "segment": [start, end]}, "subset": "...", ...}. Other
 * keys are of no use here. The segment may be missing, where files are named by the ID alone; a label may not, but in the
 * test split, which was first published without: those entries are passed over. */
static xkd_status json_entry(const listing *l, const char *path, const char *id, const json_t *value)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    const char *want = kinetics_splits[l->split].subset, *subset = json_string_value(json_object_get(value, "subset"));
    const json_t *notes = json_object_get(value, "annotations"), *segment = json_object_get(notes, "segment"),
                 *start = json_array_get(segment, 0), *end = json_array_get(segment, 1);
    entry e = {.id = id, .label = json_string_value(json_object_get(notes, "label"))};
    /* The ID becomes part of a path. */
    if (!*id || strchr(id, '/')) XKD_FAIL(XKD_ERR_DATA, "%s: \"%s\" is no YouTube ID", path, id);
    if (subset && strncmp(subset, want, strlen(want)) != 0)
        XKD_FAIL(XKD_ERR_DATA, "%s: %s is of subset \"%s\": is this the list of another split?", path, id, subset);
    if (!e.label && strcmp(want, "test") == 0) return XKD_OK;
    if (!e.label || !*e.label) XKD_FAIL(XKD_ERR_DATA, "%s: %s has no \"annotations\": {\"label\": ...}", path, id);
    if (segment && (json_array_size(segment) != 2 || !json_is_number(start) || !json_is_number(end)))
        XKD_FAIL(XKD_ERR_DATA, "%s: %s: \"segment\" must be [start, end] in seconds", path, id);
    e.start = llround(json_number_value(start));
    /* json_number_value of what is not there is 0, which stands for `not said`. */
    e.end = llround(json_number_value(end));
    XKD_TRY(take_entry(l, &e));
fail:
    return status;
}

/* The release's JSON: one object keyed by YouTube ID. Lists of records that other programs write have no fixed keys, and
 * are not guessed at. */
static xkd_status read_json(const listing *l, const char *list)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    char *path = NULL, *text = NULL;
    const char *id;
    json_t *root = NULL, *value;
    json_error_t error;
    int64_t size;
    XKD_TRY(xkd_join_path(cx, &path, l->job->root, list));
    XKD_TRY(xkd_read_file(cx, path, XKD_MOST_LIST_BYTES, XKD_ERR_DATA, &text, &size));
    /* Duplicates of an ID are refused by the parser. */
    root = json_loadb(text, (size_t)size, JSON_REJECT_DUPLICATES, &error);
    if (!root) XKD_FAIL(XKD_ERR_DATA, "%s:%d: bad JSON at column %d: %s", path, error.line, error.column, error.text);
    if (!json_is_object(root))
        XKD_FAIL(XKD_ERR_DATA,
                 "%s: want one object keyed by YouTube ID, as Kinetics comes (other lists: xkd data index LIST)", path);
    json_object_foreach(root, id, value) XKD_TRY(json_entry(l, path, id, value));
fail:
    json_decref(root);
    xkd_free(text);
    xkd_free(path);
    return status;
}

/* A split without class folders: the first list that is there. All forms of one release say the same. */
static xkd_status read_list(const listing *l)
{
    static const struct {
        const char *before, *ending;
        xkd_status (*read)(const listing *l, const char *list);
    } places[] = {{"", "csv", read_csv},
                  {"annotations/", "csv", read_csv},
                  {"", "json", read_json},
                  {"annotations/", "json", read_json},
                  {"kinetics_", "json", read_json},
                  {"annotations/kinetics_", "json", read_json}};
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    const char *split = kinetics_splits[l->split].folder;
    char *whole = NULL;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char list[64];
        snprintf(list, sizeof list, "%s%s.%s", places[i].before, split, places[i].ending);
        XKD_TRY(xkd_join_path(cx, &whole, l->job->root, list));
        bool there = xkd_path_exists(whole);
        xkd_free(whole);
        whole = NULL;
        /* The first form that exists is read, even if it turns out to be broken: two lists that disagree must not be
         * mixed. */
        if (there) return places[i].read(l, list);
    }
    XKD_FAIL(XKD_ERR_DATA, "%s/%s: has no folders of classes, and neither %s.csv nor %s.json is there", l->job->root,
             split, split, split);
fail:
    xkd_free(whole);
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
            /* Decided by the first name: a folder of videos would otherwise be walked to its end for every split. */
            break; /* flat */
    }
    const listing l = {job, s, &names, collect, sound};
    if (folders == 0) XKD_TRY(read_list(&l));
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
    /* Sorted before labels are given out in the second pass; xkd_manifest_class finds names by a linear search, so
     * order is free. */
    qsort(m->classes, (size_t)m->class_count, sizeof *m->classes, by_name);
    for (int s = 0; s < KINETICS_SPLITS; s++) XKD_TRY(read_split(job, s, false, sound));
    if (sound) job->result->counts.official_classes = job->options->classes == 31 ? 31 : SOUND_CLASSES;
    /* The number of classes alone would let any set of 400 pass. */
    for (int i = 0; i < SOUND_CLASSES && !sound && !job->options->partial; i++) {
        int64_t label;
        XKD_TRY(xkd_manifest_class(cx, m, sound_classes[i], false, &label));
        if (label < 0 && m->class_count == job->result->counts.official_classes)
            XKD_FAIL(XKD_ERR_DATA,
                     "%s: has %lld classes, but none is %s: this is not Kinetics400 (--partial accepts that)",
                     job->root, (long long)m->class_count, sound_classes[i]);
    }
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
