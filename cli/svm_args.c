/* The SVM's words on the command line: the list of costs, and the table of what came out. */
#include "svm_args.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* "0.001,0.01": a comma at the end is accepted, another character is not. A list on the command line replaces the
 * configuration's. */
xkd_status svm_parse_costs(struct cli *cli, const char *text, xkd_svm_settings *out)
{
    out->costs = 0;
    for (char *end; *text; text = *end ? end + 1 : end) {
        double c = strtod(text, &end);
        /* C = 0 would be no training at all, and infinity none that ends. */
        if (end == text || (*end && *end != ',') || !(c > 0) || !isfinite(c) || out->costs == XKD_SVM_MOST_COSTS)
            return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--cost: want up to %d positive numbers with commas between",
                            XKD_SVM_MOST_COSTS);
        out->cost[out->costs++] = c;
    }
    if (out->costs) return XKD_OK;
    return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--cost: wants a number");
}

xkd_status svm_embed_videos(struct cli *cli, const xkd_svm_videos *videos, const xkd_feature_choice *choice,
                            xkd_feature_sets *out)
{
    const xkd_listener listener = cli_listener(cli);
    xkd_status status = xkd_svm_embed_videos(cli->cx, videos, choice, &listener, out);
    return status == XKD_ERR_INTERRUPTED ? cli_stopped(cli) : status;
}

/* honest and best stand under each other. */
static void print_figures(const xkd_svm_verdict *v, const char *word, const xkd_svm_row *r, const char *why)
{
    if (v->multi)
        printf("%s mAP %.2f (%s)\n", word, r->test.map, why);
    else
        printf("%s top-1 %.2f, top-5 %.2f (%s)\n", word, r->test.top1, r->test.top5, why);
}

/* One line for each C; the two choices are marked in it and told again below. */
void svm_print(const xkd_svm_verdict *v)
{
    puts(v->multi ? "       C     mAP  cross-validated" : "       C   top-1   top-5  clip top-1  cross-validated");
    for (int64_t c = 0; c < v->costs; c++) {
        const xkd_svm_row *r = &v->rows[c];
        if (v->multi)
            printf("%8g %7.2f ", r->C, r->test.map);
        else
            printf("%8g %7.2f %7.2f %11.2f ", r->C, r->test.top1, r->test.top5, r->test.clip_top1);
        if (isnan(r->cross_validated))
            printf("%16s", "-");
        else
            printf("%16.2f", r->cross_validated);
        printf("%s%s%s\n", c == v->honest ? "  honest" : "", c == v->best ? "  best" : "",
               r->unconverged ? "  (not converged)" : "");
    }
    if (v->honest >= 0)
        print_figures(v, "honest:", &v->rows[v->honest], "C chosen by cross-validation on the training set");
    print_figures(v, "best:  ", &v->rows[v->best], "C chosen on the test set, as released");
    /* An interval of the honest figure says how far another test set might have been off. */
    printf("95 %% of bootstrap samples of the test videos: %.2f to %.2f (C = %g)\n", v->interval.low, v->interval.high,
           xkd_svm_chosen(v)->C);
    if (v->train_lacking || v->test_lacking)
        printf("without %" PRId64 " of %" PRId64 " training videos and %" PRId64 " of %" PRId64
               " test videos, which have no features of this modality or could not be read\n",
               v->train_lacking, v->train_lacking + v->train_videos, v->test_lacking, v->test_lacking + v->test_videos);
    if (v->train_damaged || v->test_damaged)
        printf("with %" PRId64 " of %" PRId64 " training clips and %" PRId64 " of %" PRId64
               " test clips damaged beyond data.max_clip_damage\n",
               v->train_damaged, v->train_clips, v->test_damaged, v->test_clips);
}
