/* Kinetics400 and Kinetics-Sound: folders of classes or of videos, with lists as CSV or JSON, which folders of videos
 * need. */
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

/* Releases name the validation split in two ways, folder and list not always in the same; `other`: the list's second
 * name. `subset` is how an entry of a JSON list begins to name its own. */
static const struct {
    const char *folder, *split, *subset, *other;
} kinetics_splits[] = {{"train", "train", "train", NULL},
                       {"val", "val", "val", "validate"},
                       {"validate", "val", "val", "val"},
                       {"test", "test", "test", NULL}};
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

/* Labels are alphabetical over all splits, so the classes are collected before the first sample. */
static xkd_status collect_class(xkd_import_job *job, const char *written, bool sound)
{
    char name[256];
    int64_t label;
    underscores(name, sizeof name, written);
    return wanted_class(job, name, sound) ? xkd_manifest_class(job->cx, job->manifest, name, true, &label) : XKD_OK;
}

/* One entry of a list. */
typedef struct {
    const char *label, *id;
    int64_t start, end; /* seconds of the segment; end 0: not said, or part of the ID */
} entry;

/* A class's folder. */
typedef struct {
    const char *written; /* its name; belongs to `names` */
    char *class;         /* with '_' */
    xkd_names files;
    bool read; /* `files` has been filled, on first use */
} class_folder;

/* A split in work: first only its classes are collected, then its files. */
typedef struct {
    xkd_import_job *job;
    int split; /* index into kinetics_splits */
    bool collect, sound;
    xkd_names names;       /* in the split's folder: folders of classes, or the videos themselves */
    class_folder *classes; /* [folders] those of `names` that are folders */
    int64_t folders;       /* 0: the split is flat */
} listing;

/* The name of a file without its ending: youtube-dl's scripts write ID_START_END with six digits. */
static void stem_of(const entry *e, char *out, size_t size)
{
    if (e->end)
        snprintf(out, size, "%.200s_%06lld_%06lld", e->id, (long long)e->start, (long long)e->end);
    else
        snprintf(out, size, "%.200s", e->id);
}

/* Once for each class: lists of 240 000 entries ask in any order. */
static xkd_status read_class(const listing *l, class_folder *c)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    char *folder = NULL;
    if (c->read) return XKD_OK;
    XKD_TRY(xkd_format_string(cx, &folder, "%s/%s/%s", l->job->root, kinetics_splits[l->split].folder, c->written));
    XKD_TRY(xkd_list_folder(cx, folder, &c->files));
    c->read = true;
fail:
    xkd_free(folder);
    return status;
}

/* Every video of a class's folder, whatever its name: downloads are named in several ways. */
static xkd_status add_class(const listing *l, class_folder *c)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    char *path = NULL;
    int64_t label;
    XKD_TRY(xkd_manifest_class(cx, l->job->manifest, c->class, false, &label));
    /* A class that is not wanted was never collected. */
    if (label < 0) return XKD_OK;
    XKD_TRY(read_class(l, c));
    for (int64_t k = 0; k < c->files.count; k++) {
        const char *name = c->files.items[k];
        if (name[0] == '.' || !xkd_is_media_name(name)) continue; /* what downloaders leave beside the videos */
        XKD_TRY(xkd_format_string(cx, &path, "%s/%s/%s", kinetics_splits[l->split].folder, c->written, name));
        XKD_TRY(xkd_import_add_found(l->job, path, label, kinetics_splits[l->split].split));
        xkd_free(path);
        path = NULL;
    }
fail:
    xkd_free(path);
    return status;
}

/* Which file of the split an entry is. Downloads lack videos that are gone: they are counted. */
static xkd_status add_entry(listing *l, const entry *e)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    const char *split = kinetics_splits[l->split].folder, *written, *file;
    char *path = NULL, name[256], stem[300];
    const xkd_names *files = &l->names; /* a folder beside the videos of a flat split does not make it another */
    int64_t label;
    xkd_sample *sample;
    underscores(name, sizeof name, e->label);
    XKD_TRY(xkd_manifest_class(cx, l->job->manifest, name, false, &label));
    if (label < 0) return XKD_OK;
    written = l->folders ? name : NULL;
    for (int64_t i = 0; i < l->folders; i++) {
        class_folder *c = &l->classes[i];
        if (strcmp(c->class, name) != 0) continue;
        XKD_TRY(read_class(l, c));
        written = c->written;
        files = &c->files;
    }
    /* With the segment first: one video may have several. */
    stem_of(e, stem, sizeof stem);
    file = xkd_import_find(files, stem, false);
    if (!file) file = xkd_import_find(files, e->id, e->end != 0);
    if (file && files == &l->names) written = NULL;
    /* The stem stands for a file that is missing, in the count and the message; where there are folders it is under its
     * class's name, even if that class has none. */
    XKD_TRY(written ? xkd_format_string(cx, &path, "%s/%s/%s", split, written, file ? file : stem)
                    : xkd_format_string(cx, &path, "%s/%s", split, file ? file : stem));
    XKD_TRY(xkd_import_add(l->job, path, label, kinetics_splits[l->split].split, &sample));
fail:
    xkd_free(path);
    return status;
}

/* Labels are known only once all classes of all splits are. */
static xkd_status take_entry(listing *l, const entry *e)
{
    return l->collect ? collect_class(l->job, e->label, l->sound) : add_entry(l, e);
}

/* Columns of a CSV list; -1: there is none. The initial ones are those of lists without a header. */
typedef struct {
    int label, id, start, end, most;
} columns;

/* Whether the first line is a header, whose columns may stand in any order. */
static bool read_header(char **fields, int n, columns *c)
{
    columns found = {-1, -1, -1, -1, 0};
    for (int i = 0; i < n; i++) {
        int *of = strcmp(fields[i], "label") == 0        ? &found.label
                  : strcmp(fields[i], "youtube_id") == 0 ? &found.id
                  : strcmp(fields[i], "time_start") == 0 ? &found.start
                  : strcmp(fields[i], "time_end") == 0   ? &found.end
                                                         : NULL;
        if (!of) continue;
        *of = i;
        found.most = i;
    }
    /* Either word: no class and no ID is called so. */
    if (found.id < 0 && found.label < 0) return false;
    *c = found;
    return true;
}

/* The test split was first published without labels: it cannot be scored then, and the others are still of use. */
static xkd_status no_labels(const listing *l, const char *path)
{
    xkd_context *cx = l->job->cx;
    const char *split = kinetics_splits[l->split].split;
    if (strcmp(split, "test") != 0)
        return xkd_fail(cx, XKD_ERR_DATA,
                        "%s: has no column \"label\", so its files are of no class (fetch the list that has one)",
                        path);
    if (!l->collect) xkd_log(cx, XKD_LOG_WARN, "%s: has no column \"label\": split '%s' is left out", path, split);
    return XKD_OK;
}

/* Other programs keep lists of the same names beside the folders, "path label" mostly. Those say nothing here: the
 * folders do. Where there are none the reader goes on, and says what is wrong. */
static bool pass_over(const listing *l, const char *path)
{
    if (l->folders && l->collect)
        xkd_log(l->job->cx, XKD_LOG_WARN, "%s: no list of Kinetics, passed over (such lists: xkd data index LIST)",
                path);
    return l->folders > 0;
}

/* label,youtube_id,time_start,time_end,split[,is_cc]. *other: the list was passed over. */
static xkd_status read_csv(listing *l, const char *list, bool *other)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    xkd_lines lines = {0};
    columns c = {0, 1, 2, 3, 3};
    char *fields[XKD_MOST_FIELDS];
    bool first = true;
    XKD_TRY(xkd_lines_open(l->job, list, NULL, &lines));
    for (char *line; (line = xkd_lines_next(&lines)) != NULL;) {
        if (!*line) continue;
        int n = xkd_csv_split(line, fields);
        bool header = first && read_header(fields, n, &c);
        /* The header "path,label" is not Kinetics' either. */
        *other = first && n <= 3 && !(header && c.id >= 0) && pass_over(l, lines.path);
        if (*other) break;
        first = false;
        if (header) {
            if (c.id < 0)
                XKD_FAIL(XKD_ERR_DATA, "%s:1: has no column \"youtube_id\" (is it a list of Kinetics?)", lines.path);
            if (c.label >= 0) continue;
            status = no_labels(l, lines.path);
            goto fail;
        }
        /* Also of an open quote, which gives -1. */
        if (n <= c.most)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: want label,youtube_id,time_start,time_end,split", lines.path,
                     (long long)lines.number);
        /* A number that is none reads as 0: the file is then looked for by its ID. */
        const entry e = {fields[c.label], fields[c.id], c.start < 0 ? 0 : atoll(fields[c.start]),
                         c.end < 0 ? 0 : atoll(fields[c.end])};
        XKD_TRY(take_entry(l, &e));
    }
fail:
    xkd_lines_close(&lines);
    return status;
}

/* One entry of the JSON form: "ID": {"annotations": {"label": "...", "segment": [start, end]}, "subset": "...", ...}. Other
 * keys are of no use here. The segment may be missing, where files are named by the ID alone; a label may not, but in the
 * test split, which was first published without: those entries are passed over. */
static xkd_status json_entry(listing *l, const char *path, const char *id, const json_t *value)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    const char *want = kinetics_splits[l->split].subset, *subset = json_string_value(json_object_get(value, "subset"));
    const json_t *notes = json_object_get(value, "annotations"), *segment = json_object_get(notes, "segment"),
                 *start = json_array_get(segment, 0), *end = json_array_get(segment, 1);
    entry e = {.id = id, .label = json_string_value(json_object_get(notes, "label"))};
    /* The ID becomes part of a path. */
    if (!*id || strchr(id, '/')) XKD_FAIL(XKD_ERR_DATA, "%s: \"%s\" is no YouTube ID (correct the list)", path, id);
    if (subset && strncmp(subset, want, strlen(want)) != 0)
        XKD_FAIL(XKD_ERR_DATA, "%s: %s is of subset \"%s\": is this the list of another split?", path, id, subset);
    if (!e.label && strcmp(want, "test") == 0) return XKD_OK;
    if (!e.label || !*e.label)
        XKD_FAIL(XKD_ERR_DATA, "%s: %s has no \"annotations\": {\"label\": ...} (fetch the list anew)", path, id);
    if (segment && (json_array_size(segment) != 2 || !json_is_number(start) || !json_is_number(end)))
        XKD_FAIL(XKD_ERR_DATA, "%s: %s: \"segment\" must be [start, end] in seconds", path, id);
    e.start = llround(json_number_value(start));
    /* json_number_value of what is not there is 0, which stands for `not said`. */
    e.end = llround(json_number_value(end));
    XKD_TRY(take_entry(l, &e));
fail:
    return status;
}

/* One entry of the release's form, "class/file": the ending may be another one here. */
static xkd_status json_path(listing *l, const char *path, int64_t number, const json_t *value)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    char *label = NULL, *slash, *dot;
    if (!json_is_string(value))
        XKD_FAIL(XKD_ERR_DATA, "%s: entry %lld is no text \"CLASS/FILE\" (other lists: xkd data index LIST)", path,
                 (long long)number);
    XKD_TRY(xkd_copy_string(cx, &label, json_string_value(value)));
    slash = strchr(label, '/');
    if (!slash || slash == label || *label == '.' || !slash[1] || strchr(slash + 1, '/'))
        XKD_FAIL(XKD_ERR_DATA, "%s: entry %lld, \"%s\": want \"CLASS/FILE\"", path, (long long)number, label);
    *slash = 0;
    dot = strrchr(slash + 1, '.');
    if (dot > slash + 1 && xkd_is_media_name(dot)) *dot = 0;
    const entry e = {.label = label, .id = slash + 1};
    XKD_TRY(take_entry(l, &e));
fail:
    xkd_free(label);
    return status;
}

/* By its first two signs: an object or an array of texts. A broken list of Kinetics is told from one of another kind so. */
static bool looks_like_json(const char *text)
{
    const char *at = text + strspn(text, " \t\r\n");
    if (*at != '{' && *at != '[') return false;
    at++;
    return at[strspn(at, " \t\r\n")] == '"';
}

/* Kinetics itself comes as one object keyed by YouTube ID, the lists of the method's release are arrays of paths. Lists
 * of records that other programs write have no fixed keys, and are not guessed at. */
static xkd_status read_json(listing *l, const char *list, bool *other)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    char *path = NULL, *text = NULL;
    const char *id;
    json_t *root = NULL, *value;
    json_error_t error;
    size_t number;
    int64_t size;
    XKD_TRY(xkd_join_path(cx, &path, l->job->root, list));
    XKD_TRY(xkd_read_file(cx, path, XKD_MOST_LIST_BYTES, XKD_ERR_DATA, &text, &size));
    *other = !looks_like_json(text) && pass_over(l, path);
    if (*other) goto fail;
    /* Duplicates of an ID are refused by the parser. */
    root = json_loadb(text, (size_t)size, JSON_REJECT_DUPLICATES, &error);
    if (!root) XKD_FAIL(XKD_ERR_DATA, "%s:%d: bad JSON at column %d: %s", path, error.line, error.column, error.text);
    /* Each loop is over nothing where the list is of the other form; the parser takes no third. */
    json_object_foreach(root, id, value) XKD_TRY(json_entry(l, path, id, value));
    json_array_foreach(root, number, value) XKD_TRY(json_path(l, path, (int64_t)number + 1, value));
fail:
    json_decref(root);
    xkd_free(text);
    xkd_free(path);
    return status;
}

/* The first list of Kinetics by a split's name that is there; all forms of one release say the same. *there: there was
 * one. */
static xkd_status read_list_of(listing *l, const char *split, bool *there)
{
    static const struct {
        const char *before, *ending;
        xkd_status (*read)(listing *l, const char *list, bool *other);
        bool sound; /* of Kinetics-Sound only */
    } places[] = {{"kinetics_sound/", "txt", read_json, true},
                  {"kinetics_sound/", "json", read_json, true},
                  {"", "csv", read_csv, false},
                  {"annotations/", "csv", read_csv, false},
                  {"", "json", read_json, false},
                  {"annotations/", "json", read_json, false},
                  {"kinetics_", "json", read_json, false},
                  {"annotations/kinetics_", "json", read_json, false},
                  {"", "txt", read_json, false},
                  {"annotations/", "txt", read_json, false}};
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    char *whole = NULL;
    *there = false;
    for (size_t i = 0; i < sizeof places / sizeof *places && !*there; i++) {
        char list[64];
        bool other = false;
        if (places[i].sound && !l->sound) continue;
        snprintf(list, sizeof list, "%s%s.%s", places[i].before, split, places[i].ending);
        XKD_TRY(xkd_join_path(cx, &whole, l->job->root, list));
        *there = xkd_path_exists(whole);
        xkd_free(whole);
        whole = NULL;
        /* The first form that exists is read, even if it turns out to be broken: two lists that disagree must not be
         * mixed. */
        if (*there) XKD_TRY(places[i].read(l, list, &other));
        *there &= !other;
    }
fail:
    xkd_free(whole);
    return status;
}

/* Under the folder's own name first. A list is of one folder: where there are two, the other name is the other's. */
static xkd_status read_list(listing *l, bool *there)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    const char *other = kinetics_splits[l->split].other;
    char *folder = NULL;
    XKD_TRY(read_list_of(l, kinetics_splits[l->split].folder, there));
    if (*there || !other) return XKD_OK;
    XKD_TRY(xkd_join_path(cx, &folder, l->job->root, other));
    if (!xkd_is_folder(folder)) XKD_TRY(read_list_of(l, other, there));
fail:
    xkd_free(folder);
    return status;
}

static void listing_free(listing *l)
{
    for (int64_t i = 0; i < l->folders; i++) {
        xkd_free(l->classes[i].class);
        xkd_free_names(&l->classes[i].files);
    }
    xkd_free(l->classes);
    xkd_free_names(&l->names);
}

/* What stands in the split's folder. Videos are told by their names, so that a flat split of many is not asked for
 * folders one by one; other files mean nothing. */
static xkd_status look_into(listing *l, const char *folder)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->job->cx;
    char *inner = NULL, class[256];
    XKD_TRY(xkd_list_folder(cx, folder, &l->names));
    XKD_TRY(xkd_alloc(cx, &l->classes, l->names.count, sizeof *l->classes));
    for (int64_t i = 0; i < l->names.count; i++) {
        const char *name = l->names.items[i];
        if (name[0] == '.' || xkd_is_media_name(name)) continue;
        XKD_TRY(xkd_join_path(cx, &inner, folder, name));
        bool is_class = xkd_is_folder(inner);
        xkd_free(inner);
        inner = NULL;
        if (!is_class) continue;
        underscores(class, sizeof class, name);
        XKD_TRY(xkd_copy_string(cx, &l->classes[l->folders].class, class));
        l->classes[l->folders++].written = name;
    }
fail:
    xkd_free(inner);
    return status;
}

/* A list that is there says which files are of the split; without one, all that is in folders of classes is. */
static xkd_status read_split(xkd_import_job *job, int s, bool collect, bool sound)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    listing l = {.job = job, .split = s, .collect = collect, .sound = sound};
    char *folder = NULL;
    bool listed;
    const char *split = kinetics_splits[s].folder;
    XKD_TRY(xkd_join_path(cx, &folder, job->root, split));
    if (!xkd_is_folder(folder)) goto fail;
    XKD_TRY(look_into(&l, folder));
    XKD_TRY(read_list(&l, &listed));
    if (listed) goto fail;
    if (l.folders == 0)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s/%s: has no folders of classes, and neither %s.csv nor %s.json is there (fetch one of them)",
                 job->root, split, split, split);
    for (int64_t i = 0; i < l.folders; i++)
        XKD_TRY(collect ? collect_class(job, l.classes[i].class, sound) : add_class(&l, &l.classes[i]));
fail:
    listing_free(&l);
    xkd_free(folder);
    return status;
}

/* Two passes: names first, because a label is the place of a name among all of them. */
static xkd_status read_kinetics(xkd_import_job *job, bool sound)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_manifest *m = job->manifest;
    for (int s = 0; s < KINETICS_SPLITS; s++) XKD_TRY(read_split(job, s, true, sound));
    if (m->class_count == 0)
        XKD_FAIL(XKD_ERR_DATA, "%s: no folder of a class in train, val or test (unpack the clips into it)", job->root);
    /* Sorted before labels are given out in the second pass. */
    xkd_manifest_sort_classes(m);
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
