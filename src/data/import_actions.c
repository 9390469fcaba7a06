/* UCF101 and HMDB51. Both come as folders of classes with lists of train and test files for each of three folds. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "data/import_parts.h"

/* ---- UCF101 ---- */

/* classInd.txt: "1 ApplyEyeMakeup"; numbers from 1, in order. The order is that of the official numbers, so that
 * labels agree with other people's. */
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
        /* A list that was sorted or cut would give other labels. */
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
    /* Training lists have the number behind the path, test lists do not. */
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
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"%s\" is not the class of that line (fetch the list anew)", lines->path,
                 (long long)lines->number, line);
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
    static const int64_t tests[] = {3783, 3734, 3696}; /* of the official folds */
    char *folder = NULL;
    job->result->counts.official_tests = tests[job->options->fold - 1];
    XKD_TRY(read_class_index(job));
    XKD_TRY(xkd_join_path(cx, &folder, job->root, "UCF-101"));
    const char *prefix = xkd_is_folder(folder) ? "UCF-101/" : "";
    /* Both lists of a fold; the split's name is the list's, which the released configurations use too. */
    for (int test = 0; test < 2; test++) {
        char split[16], inside[64], beside[32];
        snprintf(split, sizeof split, "%slist%02d", test ? "test" : "train", (int)job->options->fold);
        snprintf(inside, sizeof inside, "ucfTrainTestlist/%s.txt", split);
        snprintf(beside, sizeof beside, "%s.txt", split); /* the lists may lie in the root */
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
    /* "unused" files stay in the manifest, in no split that is trained or tested. */
    char *path = NULL, *space = strrchr(line, ' '), split[16] = "unused";
    /* One digit at the end of the line; xkd_lines_next has cut the blank that follows it in the official lists. */
    int code = space && isdigit((unsigned char)space[1]) && !space[2] ? space[1] - '0' : -1;
    if (code < 0 || code > 2)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: want \"NAME 0\", 1 or 2", lines->path, (long long)lines->number);
    /* Several blanks may stand before the code. */
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
    /* The videos may be in a folder of their own. */
    const char *prefix = xkd_is_folder(videos) ? "videos/" : "";
    for (;; place++) {
        if (place == 2)
            XKD_FAIL(XKD_ERR_DATA, "%s: has no folder with the lists of the splits (unpack them into it)", job->root);
        XKD_TRY(xkd_join_path(cx, &folder, job->root, places[place]));
        if (xkd_is_folder(folder)) break;
        xkd_free(folder);
        folder = NULL;
    }
    XKD_TRY(xkd_list_folder(cx, folder, &names));
    /* The fold is in the names: only lists of this fold are read. */
    snprintf(ending, sizeof ending, "_test_split%d.txt", (int)job->options->fold);
    for (int64_t i = 0; i < names.count; i++) {
        char *name = names.items[i], *end = strstr(name, ending);
        /* The ending must be the end: an editor's copy such as NAME.txt~ is not a list. */
        if (!end || end[strlen(ending)] || name[0] == '.') continue;
        XKD_TRY(xkd_join_path(cx, &list, places[place], name));
        XKD_TRY(xkd_lines_open(job, list, NULL, &lines));
        *end = 0; /* `name` is the class from here on */
        for (char *line; (line = xkd_lines_next(&lines)) != NULL;)
            if (*line) XKD_TRY(add_hmdb_line(job, &lines, line, prefix, name));
        xkd_lines_close(&lines);
        xkd_free(list);
        list = NULL;
    }
    if (job->result->counts.listed == 0)
        XKD_FAIL(XKD_ERR_DATA, "%s: holds no *%s (unpack the lists anew)", folder, ending);
fail:
    xkd_lines_close(&lines);
    xkd_free_names(&names);
    xkd_free(folder);
    xkd_free(videos);
    xkd_free(list);
    return status;
}
