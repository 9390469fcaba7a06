/* Rows and settings of the evaluations. A setting is text, KEY=VALUE, so that it goes through the same checks as a user's
 * own, can be overridden by one, and shows in the resolved configuration. Keys that a released file has but that change
 * nothing (workers, logging, the encoder's geometry, which the encoder itself tells) are left out. */
#include "eval/judge/benchmarks.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/spelling.h"

/* ---- settings that rows share; values are facts of the released configurations ---- */

/* 25 augmented clips of a training video against three plain ones of a test video. The grid of C is short, for each of
 * its values trains all classes anew; 1000 is scikit-learn's own limit of iterations. */
static const char *const video_svm[] = {"dataset.vid_transform=strong3crop",
                                        "dataset.return_audio=false",
                                        "dataset.train.vid_aug_kwargs.color=[0.4, 0.4, 0.4, 0.2]",
                                        "dataset.train.vid_aug_kwargs.min_area=[0.08, 1]",
                                        "dataset.train.vid_aug_kwargs.p_flip=0.5",
                                        "dataset.train.vid_aug_kwargs.p_gray=0.2",
                                        "dataset.train.vid_aug_kwargs.p_blur=0.0",
                                        "dataset.train.clips_per_video=25",
                                        "dataset.test.clips_per_video=3",
                                        "model.svm.cost=[0.001, 0.01, 0.1, 1]",
                                        "model.svm.iter=1000",
                                        NULL};

/* Sounds are short and few, so each gives more clips than a video; C begins lower. */
static const char *const audio_svm[] = {"dataset.aud_transform=strong",
                                        "dataset.return_video=false",
                                        "dataset.train.aud_aug_kwargs.vol=0.1",
                                        "dataset.train.aud_aug_kwargs.voljitter=true",
                                        "dataset.train.aud_aug_kwargs.timewarp=false",
                                        "dataset.train.aud_aug_kwargs.randcrop=false",
                                        "dataset.train.clips_per_video=100",
                                        "dataset.test.clips_per_video=3",
                                        "model.svm.cost=[0.00001, 0.0001, 0.001, 0.01, 0.1, 1]",
                                        "model.svm.iter=1000",
                                        NULL};

/* Both modalities of Kinetics-Sound, together and one by one. L2 comes before the two features are put behind one
 * another: without it the modality with the larger norms would decide alone. */
static const char *const sound_svm[] = {"dataset.vid_transform=strong3crop",
                                        "dataset.aud_transform=strong",
                                        "dataset.train.vid_aug_kwargs.color=[0.4, 0.4, 0.4, 0.2]",
                                        "dataset.train.vid_aug_kwargs.min_area=[0.08, 1]",
                                        "dataset.train.vid_aug_kwargs.p_flip=0.5",
                                        "dataset.train.vid_aug_kwargs.p_gray=0.2",
                                        "dataset.train.vid_aug_kwargs.p_blur=0.0",
                                        "dataset.train.aud_aug_kwargs.vol=0.1",
                                        "dataset.train.aud_aug_kwargs.voljitter=true",
                                        "dataset.train.aud_aug_kwargs.timewarp=false",
                                        "dataset.train.aud_aug_kwargs.randcrop=false",
                                        "dataset.train.clips_per_video=20",
                                        "dataset.test.clips_per_video=2",
                                        "dataset.train.split=train",
                                        "dataset.test.split=val",
                                        "model.apply_l2=true",
                                        "model.svm.cost=[0.00001, 0.0001, 0.001, 0.01, 0.1, 1]",
                                        "model.svm.iter=1000",
                                        NULL};

/* The crop is twice that of pre-training: positions are interpolated. Rate, layer decay and mixing differ from set to
 * set. `rand-m7-n4-mstd0.5-inc1` is timm's name for four operations of strength 7 with deviation 0.5. Nine views of
 * each test video take about as long as an epoch of training, so a test comes at every tenth only. */
static const char *const video_finetune[] = {"eval_mode=finetune",
                                             "dataset.vid_transform=randaug3crop",
                                             "dataset.return_audio=false",
                                             "dataset.crop_size=224",
                                             "dataset.batch_size=24",
                                             "dataset.train.clips_per_video=1",
                                             "dataset.test.clips_per_video=3",
                                             "dataset.train.vid_aug_kwargs.auto_augment=rand-m7-n4-mstd0.5-inc1",
                                             "dataset.train.vid_aug_kwargs.aspect_ratio=[0.75, 1.3333]",
                                             "dataset.train.vid_aug_kwargs.min_area=[0.2, 0.766]",
                                             "dataset.train.vid_aug_kwargs.hflip=true",
                                             "dataset.train.vid_aug_kwargs.rand_erase.probability=0.25",
                                             "eval_freq=10",
                                             "hyperparams.num_epochs=100",
                                             "hyperparams.label_smoothing=0.1",
                                             "hyperparams.weight_decay=0.05",
                                             "hyperparams.optimizer.betas=[0.9, 0.999]",
                                             "hyperparams.lr.name=cosine",
                                             "hyperparams.lr.warmup_lr=0",
                                             "hyperparams.lr.final_lr=0.000001",
                                             "hyperparams.mixup_prob=1.0",
                                             "hyperparams.mixup_switch_prob=0.5",
                                             "model.classifier.use_dropout=true",
                                             "model.classifier.dropout=0.5",
                                             NULL};

/* Every augmentation of sound at once; batch, length and decay differ from set to set. */
static const char *const audio_finetune[] = {"eval_mode=finetune",
                                             "dataset.aud_transform=strong",
                                             "dataset.return_video=false",
                                             "dataset.train.clips_per_video=1",
                                             "dataset.train.aud_aug_kwargs.vol=0.2",
                                             "dataset.train.aud_aug_kwargs.voljitter=true",
                                             "dataset.train.aud_aug_kwargs.wrap_window=20",
                                             "dataset.train.aud_aug_kwargs.timewarp=true",
                                             "dataset.train.aud_aug_kwargs.randcrop=true",
                                             "dataset.train.aud_aug_kwargs.fmask=true",
                                             "dataset.train.aud_aug_kwargs.tmask=true",
                                             "dataset.train.aud_aug_kwargs.fmask_len=[0, 10]",
                                             "dataset.train.aud_aug_kwargs.tmask_len=[0, 20]",
                                             "dataset.train.aud_aug_kwargs.num_fmask=2",
                                             "dataset.train.aud_aug_kwargs.num_tmask=2",
                                             "eval_freq=1",
                                             "hyperparams.layer_decay=0.65",
                                             "hyperparams.optimizer.betas=[0.9, 0.999]",
                                             "hyperparams.lr.base_lr=0.0001",
                                             "hyperparams.lr.final_lr=0",
                                             "model.classifier.use_dropout=true",
                                             NULL};

/* The classifier alone; the released file of Kinetics400 says `finetune`, but is the linear protocol of the paper. The
 * encoder does not change, so a batch is an order of magnitude larger than in fine-tuning, and a test after every
 * epoch is cheap. */
static const char *const linear[] = {"eval_mode=linear", "dataset.batch_size=256", "eval_freq=1",
                                     "hyperparams.optimizer.betas=[0.9, 0.999]", NULL};

/* ---- settings of one row ---- */

/* The splits' names as `xkd data import` writes them into the manifest. {fold} is filled in by the configuration. */
#define UCF101_SPLITS "dataset.train.split=trainlist{fold:02d}", "dataset.test.split=testlist{fold:02d}"
#define HMDB51_SPLITS "dataset.train.split=train-split{fold}", "dataset.test.split=test-split{fold}"
#define ESC50_SPLITS "dataset.train.split=train-{fold}", "dataset.test.split=test-{fold}"
#define KINETICS_SPLITS "dataset.train.split=train", "dataset.test.split=val"
#define FSD50K_SPLITS "dataset.train.split=train", "dataset.test.split=test"

static const char *const ucf101[] = {UCF101_SPLITS, NULL};
static const char *const hmdb51[] = {HMDB51_SPLITS, NULL};
static const char *const esc50[] = {ESC50_SPLITS, NULL};
static const char *const nothing[] = {NULL};
/* 240 000 videos: 25 clips of each, as of the small sets, would be 18 GB of features. In fine-tuning, HMDB51 with its
 * 70 training videos a class takes a lower rate, a longer warm-up and stronger mixing than UCF101. */
static const char *const kinetics400[] = {KINETICS_SPLITS, "dataset.train.clips_per_video=3", NULL};
static const char *const ucf101_finetune[] = {UCF101_SPLITS,
                                              "hyperparams.lr.base_lr=0.0005",
                                              "hyperparams.lr.warmup_epochs=5",
                                              "hyperparams.layer_decay=0.45",
                                              "hyperparams.mixup=0.6",
                                              "hyperparams.cutmix=0.5",
                                              NULL};
static const char *const hmdb51_finetune[] = {HMDB51_SPLITS,
                                              "hyperparams.lr.base_lr=0.0001",
                                              "hyperparams.lr.warmup_epochs=20",
                                              "hyperparams.layer_decay=0.75",
                                              "hyperparams.mixup=1",
                                              "hyperparams.cutmix=1",
                                              NULL};
static const char *const kinetics400_finetune[] = {KINETICS_SPLITS,
                                                   "hyperparams.lr.base_lr=0.0005",
                                                   "hyperparams.lr.warmup_epochs=5",
                                                   "hyperparams.layer_decay=0.45",
                                                   "hyperparams.mixup=0.6",
                                                   "hyperparams.cutmix=0.5",
                                                   NULL};
/* A number for min_area is the lower end of an interval whose upper end is 1. */
static const char *const kinetics400_linear[] = {KINETICS_SPLITS,
                                                 "dataset.vid_transform=strong3crop",
                                                 "dataset.return_audio=false",
                                                 "dataset.crop_size=224",
                                                 "dataset.train.clips_per_video=1",
                                                 "dataset.test.clips_per_video=3",
                                                 "dataset.train.vid_aug_kwargs.color=[0.4, 0.4, 0.4, 0.2]",
                                                 "dataset.train.vid_aug_kwargs.min_area=0.08",
                                                 "dataset.train.vid_aug_kwargs.p_flip=0.5",
                                                 "dataset.train.vid_aug_kwargs.p_gray=0.0",
                                                 "dataset.train.vid_aug_kwargs.p_blur=0.0",
                                                 "hyperparams.num_epochs=100",
                                                 "hyperparams.optimizer.weight_decay=0",
                                                 "hyperparams.lr.name=cosine",
                                                 "hyperparams.lr.warmup_epochs=10",
                                                 "hyperparams.lr.warmup_lr=0",
                                                 "hyperparams.lr.base_lr=0.01",
                                                 "hyperparams.lr.final_lr=0",
                                                 NULL};
/* `optimizer.weight_decay`, as the released file has it, where those of video use `hyperparams.weight_decay`. */
static const char *const esc50_finetune[] = {ESC50_SPLITS,
                                             "dataset.batch_size=64",
                                             "dataset.test.clips_per_video=3",
                                             "hyperparams.num_epochs=100",
                                             "hyperparams.optimizer.weight_decay=0.005",
                                             "hyperparams.lr.name=cosine",
                                             "hyperparams.lr.warmup_epochs=10",
                                             "hyperparams.lr.warmup_lr=0",
                                             "model.classifier.l2_norm=true",
                                             "model.classifier.dropout=0.5",
                                             NULL};
/* `fixed`: the release gives warm-up and final rates here as well, which that form ignores. */
static const char *const fsd50k_finetune[] = {FSD50K_SPLITS,
                                              "dataset.batch_size=128",
                                              "dataset.test.clips_per_video=8",
                                              "dataset.test.ensemble=mean",
                                              "hyperparams.num_epochs=30",
                                              "hyperparams.optimizer.weight_decay=0.00001",
                                              "hyperparams.lr.name=fixed",
                                              "model.classifier.dropout=0.3",
                                              NULL};
/* FSD50K alone has several labels a clip: the loss is BCE and scores are sigmoids, which may be ensembled otherwise
 * than by their mean. */
static const char *const fsd50k_linear[] = {FSD50K_SPLITS,
                                            "dataset.aud_transform=strong",
                                            "dataset.return_video=false",
                                            "dataset.train.clips_per_video=10",
                                            "dataset.test.clips_per_video=8",
                                            "dataset.test.ensemble=mean",
                                            "dataset.train.aud_aug_kwargs.vol=0.1",
                                            "dataset.train.aud_aug_kwargs.voljitter=true",
                                            "dataset.train.aud_aug_kwargs.timewarp=false",
                                            "dataset.train.aud_aug_kwargs.randcrop=false",
                                            "dataset.train.aud_aug_kwargs.fmask=false",
                                            "dataset.train.aud_aug_kwargs.tmask=false",
                                            "hyperparams.num_epochs=50",
                                            "hyperparams.optimizer.weight_decay=0.00001",
                                            "hyperparams.lr.name=fixed",
                                            "hyperparams.lr.base_lr=0.001",
                                            "model.classifier.use_dropout=true",
                                            "model.classifier.dropout=0.3",
                                            NULL};

/* Which modalities a row reads, as initialisers of `uses`; clang-format spreads them. */
#define VIDEO       \
    {               \
        true, false \
    }
#define AUDIO       \
    {               \
        false, true \
    }
#define BOTH       \
    {              \
        true, true \
    }

/* A line a row, as a table is read. */
/* clang-format off */
static const xkd_benchmark benchmarks[] = {
    /* The paper's figures are in the order of xkd_paper_model; only the fine-tuning of Kinetics400 comes with a
     * top-5. */
    {"ucf101-svm", "UCF101", XKD_BENCHMARK_SVM, VIDEO, false, 3, video_svm, ucf101, {83.8, 81.7, 80.1, 88.4}, 0},
    {"hmdb51-svm", "HMDB51", XKD_BENCHMARK_SVM, VIDEO, false, 3, video_svm, hmdb51, {57.4, 55.1, 53.1, 62.2}, 0},
    {"kinetics400-svm", "Kinetics400", XKD_BENCHMARK_SVM, VIDEO, false, 0, video_svm, kinetics400, {51.4, 50.1, 48.8, 56.5}, 0},
    {"kinetics-sound-svm", "Kinetics-Sound", XKD_BENCHMARK_SVM, BOTH, false, 0, sound_svm, nothing, {81.2, 78.8, 78.3}, 0},
    {"kinetics-sound-video-svm", "Kinetics-Sound", XKD_BENCHMARK_SVM, VIDEO, false, 0, sound_svm, nothing, {70.7, 68.3, 67.7}, 0},
    {"kinetics-sound-audio-svm", "Kinetics-Sound", XKD_BENCHMARK_SVM, AUDIO, false, 0, sound_svm, nothing, {64.6, 61.7, 61.8}, 0},
    {"esc50-svm", "ESC50", XKD_BENCHMARK_SVM, AUDIO, false, 5, audio_svm, esc50, {89.4, 87.3, 88.7, 93.6}, 0},
    {"ucf101-finetune", "UCF101", XKD_BENCHMARK_FINETUNE, VIDEO, false, 3, video_finetune, ucf101_finetune, {94.1, 93.4, 93.1, 95.8}, 0},
    {"hmdb51-finetune", "HMDB51", XKD_BENCHMARK_FINETUNE, VIDEO, false, 3, video_finetune, hmdb51_finetune, {69.0, 65.9, 65.7, 75.7}, 0},
    {"kinetics400-finetune", "Kinetics400", XKD_BENCHMARK_FINETUNE, VIDEO, false, 0, video_finetune, kinetics400_finetune, {77.6, 75.9, 75.7, 80.1}, 92.9},
    {"kinetics400-linear", "Kinetics400", XKD_BENCHMARK_LINEAR, VIDEO, false, 0, linear, kinetics400_linear, {51.4, 50.1, 48.8, 56.5}, 0},
    {"esc50-finetune", "ESC50", XKD_BENCHMARK_FINETUNE, AUDIO, false, 5, audio_finetune, esc50_finetune, {93.6, 92.7, 92.9, 96.5}, 0},
    {"fsd50k-finetune", "FSD50K", XKD_BENCHMARK_FINETUNE, AUDIO, true, 0, audio_finetune, fsd50k_finetune, {54.1, 52.3, 53.8, 58.5}, 0},
    {"fsd50k-linear", "FSD50K", XKD_BENCHMARK_LINEAR, AUDIO, true, 0, linear, fsd50k_linear, {45.8, 43.0, 43.4, 51.5}, 0},
};
/* clang-format on */
enum { BENCHMARKS = sizeof benchmarks / sizeof *benchmarks };

int64_t xkd_benchmark_count(void)
{
    return BENCHMARKS;
}

const xkd_benchmark *xkd_benchmark_at(int64_t i)
{
    return i >= 0 && i < BENCHMARKS ? &benchmarks[i] : NULL;
}

xkd_status xkd_benchmark_find(xkd_context *cx, const char *name, const xkd_benchmark **out)
{
    int distance = 5; /* further apart is no typing error */
    const char *best = NULL;
    for (int i = 0; i < BENCHMARKS; i++) {
        *out = &benchmarks[i];
        if (strcmp(benchmarks[i].name, name) == 0) return XKD_OK;
        int d = xkd_edit_distance(name, benchmarks[i].name, distance);
        if (d >= distance) continue;
        distance = d;
        best = benchmarks[i].name;
    }
    return xkd_fail(cx, XKD_ERR_CONFIG, "'%s' is no evaluation%s%s%s ('xkd eval --list' shows all)", name,
                    best ? "; did you mean '" : "", best ? best : "", best ? "'?" : "");
}

const char *xkd_benchmark_task_text(xkd_benchmark_task task)
{
    static const char *const texts[] = {"linear SVM on frozen features", "fine-tuning",
                                        "linear classifier on the frozen encoder"};
    return texts[task];
}

/* i below XKD_PAPER_MODELS. */
const char *xkd_paper_model(int64_t i)
{
    static const char *const names[XKD_PAPER_MODELS] = {"XKD", "XKD-MAS", "XKD-MATS", "XKD, AudioSet"};
    return names[i];
}

/* XKD_BENCHMARK_SETTINGS leaves room above the longest pair of lists; later settings override earlier ones, so `own`
 * wins over `shared`. */
void xkd_benchmark_settings(const xkd_benchmark *b, const char *out[XKD_BENCHMARK_SETTINGS])
{
    int n = 0;
    for (const char *const *s = b->shared; *s; s++) out[n++] = *s;
    for (const char *const *s = b->own; *s; s++) out[n++] = *s;
    out[n] = NULL;
}
