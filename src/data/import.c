/* Importers of public data sets: a folder as it was downloaded becomes a manifest. The table says what each set looks
 * like and how large it officially is; import_actions.c, import_kinetics.c and import_sounds.c read the lists; lines,
 * CSV and the search for files are shared from here. A set that is not whole is refused unless asked for, since its
 * figures could not be compared with anybody's. */
#include "data/import.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "data/import_parts.h"

enum { NAMED = 20 }; /* absent files in a message */
/* Share of listed files that may be absent: of what is downloaded as a whole, and of what is gathered video by video and
 * has usually lost 5 to 10 %. */
static const double MOST_ABSENT = 0.01, MOST_ABSENT_YOUTUBE = 0.15;

/* The counts are of the official lists. Sets from YouTube shrink with every deleted video, so only their classes are
 * checked. */
static const struct {
    const char *name, *about, *tree; /* tree: where files are expected, for messages */
    int64_t folds;                   /* 0: one split; otherwise which fold is chosen */
    int64_t total;                   /* samples of all splits of a fold; 0: videos of YouTube, which vanish */
    int64_t tests;                   /* of them in the test split; 0: not known, or the reader says it */
    int64_t classes;                 /* 0: the reader says it */
    xkd_status (*read)(xkd_import_job *job);
} sets[] = {
    {"UCF101", "101 actions, 3 folds, 13 320 videos",
     "  ROOT/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi (or ROOT/ApplyEyeMakeup/...)\n"
     "  ROOT/ucfTrainTestlist/classInd.txt, trainlist01.txt, testlist01.txt",
     3, 13320, 0, 101, xkd_import_ucf101},
    {"HMDB51", "51 actions, 3 folds, 6 766 videos",
     "  ROOT/brush_hair/NAME.avi (or ROOT/videos/brush_hair/...)\n"
     "  ROOT/testTrainMulti_7030_splits/brush_hair_test_split1.txt (or in ROOT/splits)",
     3, 6766, 1530, 51, xkd_import_hmdb51},
    {"Kinetics400", "400 actions; how many videos are left differs from download to download",
     "  ROOT/train/abseiling/ID_000001_000011.mp4 and ROOT/val/..., or without class folders and with a list.\n"
     "  A list that is there says which files are of the split (they may also lie in ROOT/annotations; the first "
     "counts):\n"
     "  ROOT/train.csv, ROOT/val.csv: label,youtube_id,time_start,time_end,split, or\n"
     "  ROOT/train.json, ROOT/val.json: {ID: {\"annotations\": {\"label\": ..., \"segment\": [1, 11]}, \"subset\": "
     "...}}\n"
     "  ROOT/train.json or train.txt, as the release's: [\"abseiling/ID_000001_000011.avi\", ...]",
     0, 0, 0, 400, xkd_import_kinetics400},
    {"Kinetics-Sound", "32 (or 31) audible actions of Kinetics400",
     "  as Kinetics400; lists also in ROOT/kinetics_sound, which are read first", 0, 0, 0, 0,
     xkd_import_kinetics_sound},
    {"ESC50", "50 sounds, 5 folds, 2 000 clips", "  ROOT/audio/1-100032-A-0.wav\n  ROOT/meta/esc50.csv", 5, 2000, 400,
     50, xkd_import_esc50},
    {"FSD50K", "200 labels, several a clip, 40 966 and 10 231 clips",
     "  ROOT/FSD50K.dev_audio/NUMBER.wav, ROOT/FSD50K.eval_audio/NUMBER.wav\n"
     "  ROOT/FSD50K.ground_truth/dev.csv, eval.csv, vocabulary.csv",
     0, 40966 + 10231, 10231, 200, xkd_import_fsd50k},
    {"AudioSet", "527 labels, several a clip; how many clips are left differs from download to download",
     "  ROOT/balanced_train_segments.csv, unbalanced_train_segments.csv, eval_segments.csv (those that are there)\n"
     "  ROOT/class_labels_indices.csv\n  ROOT/balanced_train/ID.mp4 or ID_START.wav, ROOT/unbalanced_train/, "
     "ROOT/eval/",
     0, 0, 0, 527, xkd_import_audioset},
};
enum { SETS = sizeof sets / sizeof *sets };

int64_t xkd_import_count(void)
{
    return SETS;
}

const char *xkd_import_name(int64_t i)
{
    return i >= 0 && i < SETS ? sets[i].name : NULL;
}

const char *xkd_import_about(int64_t i)
{
    return i >= 0 && i < SETS ? sets[i].about : NULL;
}

/* ---- lists ---- */

xkd_status xkd_lines_open(const xkd_import_job *job, const char *a, const char *b, xkd_lines *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    int64_t size;
    *out = (xkd_lines){0};
    XKD_TRY(xkd_join_path(cx, &out->path, job->root, a));
    if (!xkd_path_exists(out->path) && b) {
        /* The second place is for those who keep the lists beside the data. */
        xkd_free(out->path);
        out->path = NULL;
        XKD_TRY(xkd_join_path(cx, &out->path, job->root, b));
    }
    if (!xkd_path_exists(out->path))
        XKD_FAIL(XKD_ERR_DATA, "%s: is not there (download the set's lists into it)", out->path);
    XKD_TRY(xkd_read_file(cx, out->path, XKD_MOST_LIST_BYTES, XKD_ERR_DATA, &out->text, &size));
    /* A zero byte would end the text for every function below and hide the rest of it. */
    if (memchr(out->text, 0, (size_t)size))
        XKD_FAIL(XKD_ERR_DATA, "%s: is no text file (fetch the list anew)", out->path);
    out->next = out->text;
    if (strncmp(out->next, "\xef\xbb\xbf", 3) == 0) out->next += 3; /* a byte order mark, as Windows programs leave */
fail:
    return status;
}

void xkd_lines_close(xkd_lines *l)
{
    xkd_free(l->text);
    xkd_free(l->path);
    *l = (xkd_lines){0};
}

char *xkd_lines_next(xkd_lines *l)
{
    char *line = l->next;
    if (!line || !*line) return NULL;
    /* In place: the line feed becomes the end, and blanks before it go, with the carriage return of Windows. */
    size_t length = strcspn(line, "\n");
    l->next = line[length] ? line + length + 1 : line + length;
    line[length] = 0;
    while (length && isspace((unsigned char)line[length - 1])) line[--length] = 0;
    l->number++;
    return line;
}

/* Fields point into the line, which is overwritten: RFC 4180 without line feeds inside of quotes. */
int xkd_csv_split(char *line, char *fields[XKD_MOST_FIELDS])
{
    int n = 0;
    for (char *at = line; n < XKD_MOST_FIELDS;) {
        while (*at == ' ' || *at == '\t') at++;
        char *out = at, *end;
        fields[n++] = out;
        if (*at == '"') {
            /* `out` runs behind `at`, since a doubled quote is shortened. */
            for (at++; *at && !(*at == '"' && at[1] != '"'); at++) {
                if (*at == '"') at++; /* two quotes mean one */
                *out++ = *at;
            }
            if (!*at) return -1;
            end = out;
            at += strcspn(at, ","); /* what stands between a closing quote and the comma is passed over */
        } else {
            at += strcspn(at, ",");
            for (end = at; end > fields[n - 1] && isspace((unsigned char)end[-1]);) end--;
        }
        bool more = *at == ',';
        /* Last, for the end of the field may be the comma just looked at. */
        *end = 0;
        if (!more) break;
        at++;
    }
    return n;
}

static xkd_status add_sample(xkd_import_job *job, const char *path, int64_t label, const char *split,
                             xkd_sample **sample)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    XKD_TRY(xkd_manifest_add(cx, job->manifest, path, sample));
    (*sample)->label = (int32_t)label;
    XKD_TRY(xkd_sample_set_split(cx, job->manifest, *sample, split));
fail:
    return status;
}

xkd_status xkd_import_add_found(xkd_import_job *job, const char *path, int64_t label, const char *split)
{
    xkd_sample *sample;
    job->result->counts.tests += strncmp(split, "test", 4) == 0;
    return add_sample(job, path, label, split, &sample);
}

xkd_status xkd_import_add(xkd_import_job *job, const char *path, int64_t label, const char *split, xkd_sample **sample)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = job->cx;
    xkd_import_result *r = job->result;
    char *whole = NULL;
    *sample = NULL;
    r->counts.listed++;
    r->counts.tests += strncmp(split, "test", 4) == 0;
    /* Lists are from strangers: a name must not lead out of the data set. The manifest's reader checks this as well;
     * here the message can say that a list is at fault. */
    if (!xkd_manifest_path_is_plain(path))
        XKD_FAIL(XKD_ERR_DATA, "\"%s\": a listed path leads out of %s, or goes there by a detour (correct the list)",
                 path, job->root);
    XKD_TRY(xkd_join_path(cx, &whole, job->root, path));
    if (!xkd_path_exists(whole)) {
        xkd_names *names = &r->missing;
        XKD_TRY(xkd_reserve(cx, &names->items, names->count, &names->capacity, sizeof *names->items));
        XKD_TRY(xkd_copy_string(cx, &names->items[names->count], path));
        r->counts.missing = ++names->count;
    } else {
        XKD_TRY(add_sample(job, path, label, split, sample));
    }
fail:
    xkd_free(whole);
    return status;
}

/* "_000001_000011.": the seconds that a video was cut at. */
static bool is_segment(const char *rest)
{
    for (int i = 0; i < 14; i++)
        if (i % 7 ? !isdigit((unsigned char)rest[i]) : rest[i] != '_') return false;
    return rest[14] == '.';
}

/* Binary search for the first name that is not below the stem; those that begin with it follow. ID.mp4 and
 * ID_000001_000011.mp4 are found by ID, but not IDX.mp4, nor what downloaders leave beside them (ID.json, ID.mp4.part). */
const char *xkd_import_find(const xkd_names *names, const char *stem, bool whole)
{
    size_t length = strlen(stem);
    int64_t low = 0, high = names->count;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (strcmp(names->items[middle], stem) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < names->count && strncmp(names->items[low], stem, length) == 0; low++) {
        const char *rest = names->items[low] + length;
        if ((*rest == '.' || *rest == '_') && xkd_is_media_name(names->items[low]) && !(whole && is_segment(rest)))
            return names->items[low];
    }
    return NULL;
}

/* ---- the whole ---- */

static xkd_status find_set(xkd_context *cx, const char *name, const xkd_import_options *o, int *out)
{
    xkd_status status = XKD_OK;
    for (*out = 0; *out < SETS; ++*out)
        if (strcasecmp(sets[*out].name, name) == 0) break;
    if (*out == SETS)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "'%s' is no data set that is known here: UCF101, HMDB51, Kinetics400, Kinetics-Sound, "
                 "ESC50, FSD50K or AudioSet",
                 name);
    /* The fold is checked here and not by the reader: sets without folds ignore it. */
    if (sets[*out].folds && (o->fold < 1 || o->fold > sets[*out].folds))
        XKD_FAIL(XKD_ERR_CONFIG, "%s has no fold %lld: 1 .. %lld", sets[*out].name, (long long)o->fold,
                 (long long)sets[*out].folds);
fail:
    return status;
}

/* The order of a manifest seeds random draws, so it must not depend on that of the lists. */
static int by_path(const void *a, const void *b)
{
    return strcmp(((const xkd_sample *)a)->path, ((const xkd_sample *)b)->path);
}

bool xkd_import_is_unlisted(const xkd_import_counts *c)
{
    return c->files + c->missing > c->listed;
}

bool xkd_import_is_whole(const xkd_import_counts *c)
{
    return c->missing == 0 && !xkd_import_is_unlisted(c) && (!c->official_files || c->files == c->official_files) &&
           (!c->official_tests || c->tests == c->official_tests) &&
           (!c->official_classes || c->classes == c->official_classes);
}

void xkd_import_result_free(xkd_import_result *r)
{
    xkd_free_names(&r->missing);
    *r = (xkd_import_result){0};
}

/* Some names show what is wrong; thousands of lines would hide it. */
void xkd_import_missing_text(xkd_text *out, const xkd_import_result *r)
{
    const xkd_names *names = &r->missing;
    xkd_text_printf(out, "%lld of %lld listed files are not there:", (long long)names->count,
                    (long long)r->counts.listed);
    for (int64_t i = 0; i < names->count && i < NAMED; i++) xkd_text_printf(out, "\n  %s", names->items[i]);
    if (names->count > NAMED) xkd_text_printf(out, "\n  and %lld more", (long long)(names->count - NAMED));
}

/* Videos vanish from public sets: a few may be absent, and are told. What is left of a set of which more is gone is
 * another set, and nothing is none, which --partial does not accept either. */
static xkd_status check_missing(const xkd_import_job *job)
{
    xkd_context *cx = job->cx;
    const xkd_import_counts *c = &job->result->counts;
    xkd_text text = xkd_text_make(cx);
    double most = job->options->absent;
    if (most == 0) most = c->official_files ? MOST_ABSENT : MOST_ABSENT_YOUTUBE;
    if (c->files && (job->options->partial || (double)c->missing <= most * (double)c->listed)) return XKD_OK;
    xkd_import_missing_text(&text, job->result);
    /* The value that is offered is rounded up, so that it does what it says. */
    if (c->files)
        xkd_text_printf(&text,
                        "\nThat is more than data.max_absent_fraction=%g allows: data.max_absent_fraction=%g would, "
                        "--partial accepts any number and other counts",
                        most, fmin((double)(1000 * c->missing / c->listed + 1) / 1000, 1));
    xkd_status status = text.status;
    if (status == XKD_OK) status = xkd_fail(cx, XKD_ERR_DATA, "%s: %s", job->root, text.data);
    xkd_text_free(&text);
    return status;
}

/* From the plainest fault to the subtlest. A file listed twice would be trained on twice and may be in both splits. */
static xkd_status check(xkd_context *cx, const xkd_import_job *job)
{
    xkd_status status = XKD_OK;
    const xkd_import_counts *c = &job->result->counts;
    const xkd_manifest *m = job->manifest;
    if (m->count == 0 && c->missing == 0)
        XKD_FAIL(XKD_ERR_DATA, "%s: no file is found or listed (unpack the set's clips into it)", job->root);
    XKD_TRY(check_missing(job));
    for (int64_t i = 1; i < m->count; i++)
        if (strcmp(m->samples[i - 1].path, m->samples[i].path) == 0)
            XKD_FAIL(XKD_ERR_DATA, "%s: %s is listed twice (remove one of the lines)", job->root, m->samples[i].path);
    if (job->options->partial) return XKD_OK;
    /* With those that are absent: the lists must be the official ones. */
    if (c->official_files && c->files + c->missing != c->official_files)
        XKD_FAIL(XKD_ERR_DATA, "%s: %lld samples, the official set has %lld (--partial accepts that)", job->root,
                 (long long)(c->files + c->missing), (long long)c->official_files);
    if (c->official_tests && c->tests != c->official_tests)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s: %lld of the samples are for testing, of the official set %lld (--partial accepts that)",
                 job->root, (long long)c->tests, (long long)c->official_tests);
    if (c->official_classes && c->classes != c->official_classes)
        XKD_FAIL(XKD_ERR_DATA, "%s: %lld classes, the official set has %lld (--partial accepts that)", job->root,
                 (long long)c->classes, (long long)c->official_classes);
fail:
    return status;
}

xkd_status xkd_import(xkd_context *cx, const char *name, const char *root, const xkd_import_options *options,
                      xkd_manifest *out, xkd_import_result *result)
{
    xkd_status status = XKD_OK;
    xkd_import_job job = {cx, root, options, out, result};
    char *message = NULL;
    int set = 0;
    *out = (xkd_manifest){0};
    *result = (xkd_import_result){0};
    XKD_TRY(find_set(cx, name, options, &set));
    if (!xkd_is_folder(root)) XKD_FAIL(XKD_ERR_DATA, "%s: no such folder (check the path)", root);
    XKD_TRY(xkd_copy_string(cx, &out->root, root));
    result->counts.official_files = sets[set].total;
    result->counts.official_tests = sets[set].tests;
    result->counts.official_classes = sets[set].classes;
    status = sets[set].read(&job);
    if (status == XKD_OK) {
        /* qsort must not be given NULL, not even for no elements. */
        if (out->count) qsort(out->samples, (size_t)out->count, sizeof *out->samples, by_path);
        result->counts.files = out->count;
        result->counts.classes = out->class_count;
        status = check(cx, &job);
    }
    /* The message gets the expected layout behind it; the copy is needed because the message lives in the context that
     * is about to be written. */
    if (status == XKD_ERR_DATA) {
        XKD_TRY(xkd_copy_string(cx, &message, xkd_last_error(cx)));
        xkd_clear_error(cx);
        XKD_FAIL(XKD_ERR_DATA, "%s\nThe layout of %s is:\n%s", message, sets[set].name, sets[set].tree);
    }
fail:
    xkd_free(message);
    if (status != XKD_OK) xkd_manifest_free(out);
    return status;
}
