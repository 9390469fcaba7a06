/* Scores by class, for every command that judges: a table, or the confusion matrix as a picture. The arrays are the
 * caller's; a `struct judged` only says what they are. */
#include "class_table.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/alloc.h"

/* Points into the set and the files, which must outlive the result. */
struct judged judged_set(const float *scores, const xkd_clip_set *set, const xkd_manifest *files)
{
    return (struct judged){.scores = scores,
                           .label = set->video_label,
                           .truth = set->truth,
                           .n = set->videos,
                           .K = set->K,
                           .names = files->classes,
                           .name_count = files->class_count};
}

/* The caller frees *counts [K,K]. */
static xkd_status count(struct cli *cli, const struct judged *j, int64_t **counts)
{
    xkd_status status = xkd_alloc(cli->cx, counts, j->K * j->K, sizeof **counts);
    if (status == XKD_OK) xkd_confusion(j->scores, j->label, j->n, j->K, *counts);
    return status;
}

static const char *name_of(const struct judged *j, int64_t k) /* numbers without names, or no class at all */
{
    return k >= 0 && k < j->name_count ? j->names[k] : "";
}

/* Average precision has no confusion: each class is judged by itself. */
static xkd_status print_precisions(struct cli *cli, const struct judged *j)
{
    xkd_status status = XKD_OK;
    double *each = NULL, mean;
    int64_t empty;
    XKD_TRY(xkd_alloc(cli->cx, &each, j->K, sizeof *each));
    XKD_TRY(xkd_mean_average_precision(cli->cx, j->scores, j->truth, j->n, j->K, each, &mean, &empty));
    puts("class                           files  average precision");
    for (int64_t k = 0; k < j->K; k++) {
        int64_t files = 0;
        /* Files that have the class, of those that were scored. */
        for (int64_t i = 0; i < j->n; i++) files += j->truth[i * j->K + k];
        printf("%4" PRId64 " %-24.24s %7" PRId64 " %7.2f\n", k, name_of(j, k), files, 100 * each[k]);
    }
    /* They pull the mean down, which a reader who compares two sets must know. */
    if (empty) printf("%" PRId64 " classes have no file in the test set and count as 0\n", empty);
fail:
    xkd_free(each);
    return status;
}

xkd_status print_classes(struct cli *cli, const struct judged *j)
{
    xkd_status status = XKD_OK;
    int64_t *counts = NULL;
    xkd_class_row *rows = NULL;
    if (j->truth) return print_precisions(cli, j); /* several labels: the classes do not exclude each other */
    XKD_TRY(count(cli, j, &counts));
    XKD_TRY(xkd_alloc(cli->cx, &rows, j->K, sizeof *rows));
    xkd_class_table(counts, j->K, rows);
    puts("class                          videos  recall  precision  most often taken for");
    /* A class without test videos that was never predicted has nothing to show. */
    for (int64_t k = 0; k < j->K; k++)
        if (rows[k].samples || rows[k].predicted)
            printf("%4" PRId64 " %-24.24s %7" PRId64 " %7.2f %10.2f  %s\n", k, name_of(j, k), rows[k].samples,
                   rows[k].recall, rows[k].precision, name_of(j, rows[k].confused));
fail:
    xkd_free(counts);
    xkd_free(rows);
    return status;
}

xkd_status draw_confusion(struct cli *cli, const char *path, const struct judged *j)
{
    int64_t *counts = NULL;
    if (j->truth) /* Refused and not left out in silence: a script waits for the file. */
        return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--confusion: files with several labels have no confusion matrix");
    xkd_status status = count(cli, j, &counts);
    if (status == XKD_OK) status = xkd_confusion_picture(cli->cx, path, counts, j->K);
    xkd_free(counts);
    return status;
}
