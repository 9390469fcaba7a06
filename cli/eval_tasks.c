#include "eval_tasks.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "report/progress.h"
#include "svm_args.h"

/* Files of one split in the manifest: what the figures should be made of. */
static int64_t count_split(const xkd_manifest *m, const char *split)
{
    int64_t count = 0;
    for (int64_t i = 0; i < m->count; i++) count += strcmp(m->samples[i].split, split) == 0;
    return count;
}

/* ---- linear SVM ---- */

static struct svm_videos videos_of(struct eval_fold *f)
{
    return (struct svm_videos){.models = &f->models,
                               .manifest = &f->manifest,
                               .train = f->models.config.data.split,
                               .test = f->models.config.eval.test_split,
                               .folder = f->folder};
}

static xkd_figures figures_of(const xkd_svm_row *r)
{
    return (xkd_figures){
        .top1 = r->test.top1, .top5 = r->test.top5, .clip_top1 = r->test.clip_top1, .map = r->test.map, .at = r->C};
}

static xkd_status run_svm(struct cli *cli, struct eval_fold *f, xkd_fold_result *out)
{
    xkd_status status = XKD_OK;
    struct svm_videos videos = videos_of(f);
    struct feature_args choice = {.normalise = f->models.config.eval.l2_norm};
    struct svm_settings settings = svm_settings_of(&f->models.config);
    struct feature_sets sets = {0};
    struct svm_verdict verdict = {0};
    settings.seed = (int64_t)f->models.config.train.seed;
    XKD_TRY(svm_embed_videos(cli, &videos, &choice, &sets));
    XKD_TRY(svm_run(cli, &sets.train_set, &sets.test_set, &settings, &verdict));
    out->honest = figures_of(svm_chosen(&verdict));
    out->best = figures_of(&verdict.rows[verdict.best]);
    out->interval[0] = verdict.interval.low;
    out->interval[1] = verdict.interval.high;
    out->unreadable[0] = out->files[0] - verdict.train_videos;
    out->unreadable[1] = out->files[1] - verdict.test_videos;
fail:
    svm_verdict_free(&verdict);
    features_free(&sets);
    return status;
}

static xkd_status plan_svm(struct cli *cli, struct eval_fold *f)
{
    struct svm_videos videos = videos_of(f);
    struct svm_plan plan;
    char time[32], memory[32];
    xkd_status status = svm_plan_videos(cli, &videos, &plan);
    if (status != XKD_OK) return status;
    xkd_format_duration(time, sizeof time, plan.seconds);
    xkd_format_count(memory, sizeof memory, plan.bytes, "B");
    printf("%" PRId64 " training files, %" PRId64 " clips; %" PRId64 " test files, %" PRId64
           " clips; about %s in the encoder, %s for the SVM",
           plan.files[0], plan.clips[0], plan.files[1], plan.clips[1], time, memory);
    return XKD_OK;
}

/* ---- whichever it is ---- */

xkd_status eval_fold_run(struct cli *cli, struct eval_fold *f, xkd_fold_result *out)
{
    *out = (xkd_fold_result){.fold = f->fold,
                             .settings = f->settings,
                             .files = {count_split(&f->manifest, f->models.config.data.split),
                                       count_split(&f->manifest, f->models.config.eval.test_split)},
                             .listed = f->imported.listed,
                             .missing = f->imported.missing};
    return run_svm(cli, f, out);
}

xkd_status eval_fold_plan(struct cli *cli, struct eval_fold *f)
{
    xkd_status status = XKD_OK;
    if (f->fold)
        printf("fold %" PRId64 ": ", f->fold);
    else
        printf("whole set: ");
    if (xkd_path_exists(f->result_path))
        printf("done already");
    else
        status = plan_svm(cli, f);
    puts("");
    return status;
}
