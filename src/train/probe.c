/* The probe of the live teachers. Read xkd_probe_run at the end first: embed all files, then neighbours within each
 * modality, then across. */
#include "train/probe.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "data/index.h"
#include "eval/encode/clips.h"
#include "eval/encode/encoder.h"
#include "eval/judge/protocols.h"
#include "media/damage.h"

/* Clips of a forward pass: the largest that adds little to a training step's own memory. */
enum { BATCH = 8, NEIGHBOURS = 20, RECALL_FEW = 5 };
/* As `xkd knn`: votes fall to a third where the cosine falls by this. */
static const double TEMPERATURE = 0.07;

const char *const xkd_probe_names[XKD_PROBE_FIGURES] = {"probe_video_knn",     "probe_audio_knn",
                                                        "probe_video_recall1", "probe_video_recall5",
                                                        "probe_audio_recall1", "probe_audio_recall5"};

/* One modality's clips and what the teacher makes of them. */
typedef struct {
    xkd_encoder encoder; /* borrows the trainer's rows */
    xkd_encoder_run run;
    float *clips;   /* [slots,clip]: every file's, or those of the batch at hand */
    bool *has;      /* [n] the file has this modality */
    float *mean;    /* [n,D] */
    float *head;    /* [n,K] */
    float *feature; /* [BATCH,K] of the batch at hand */
    int64_t D, K;
} stream;

struct xkd_probe {
    xkd_context *cx;
    const xkd_config *config;
    xkd_trainer *trainer;
    xkd_data_config data; /* the training's, with one view: what the clipper lays out */
    xkd_manifest files;
    int64_t n;
    bool held; /* all clips stay decoded, and not only a batch of them */
    bool wanted[XKD_MODALITIES];
    stream stream[XKD_MODALITIES];
    xkd_clipper *clipper; /* only while files are decoded: its worker is a process */
    xkd_pool *pool;
    /* Scratch of the figures. */
    float *a, *b, *scores; /* [n,max(D,K)] rows that take part, twice; [n,classes] */
    int32_t *label;        /* [n] of those rows */
    int64_t *near;         /* [n,NEIGHBOURS + 1] */
    int64_t slot, bad;     /* where the file at hand goes; unreadable files of the last decoding */
};

/* ---- decoding ---- */

/* A clip_sink function. The slot's memory is the encoder's input, so a clip is decoded into its place in the batch. */
static xkd_status reserve(void *user, xkd_modality m, float **clip)
{
    const xkd_probe *p = user;
    *clip = p->stream[m].clips + p->slot * p->stream[m].run.clip_floats;
    return XKD_OK;
}

/* A clip_sink function. The sample is the number that `decode` gave: the index in `files`. */
static xkd_status commit(void *user, const xkd_clip_place *place)
{
    xkd_probe *p = user;
    double most = p->data.max_clip_damage;
    char words[160];
    p->stream[place->modality].has[place->sample] = true;
    if (!(place->damage > most)) return XKD_OK;
    xkd_damage_words(words, sizeof words, "the clip's", place->modality, place->damage, most);
    xkd_log(p->cx, XKD_LOG_WARN, "probe: %s: at %.2f s %s", p->files.samples[place->sample].path, place->seconds,
            words);
    return XKD_OK;
}

/* One clip of each of the files [first, first + count), which go into the slots from 0 on. A file that cannot be read
 * takes no part and is named. */
static xkd_status decode(xkd_probe *p, int64_t first, int64_t count)
{
    xkd_status status = XKD_OK;
    const xkd_clip_sink sink = {p, reserve, commit};
    for (int64_t i = first; i < first + count; i++) {
        xkd_media_result result;
        for (int m = 0; m < XKD_MODALITIES; m++) p->stream[m].has[i] = false;
        p->slot = i - first;
        XKD_TRY(xkd_clipper_run(p->clipper, &p->files, i, i, i, &sink, &result));
        if (result.fault == XKD_FAULT_NONE) continue;
        p->bad++;
        xkd_log(p->cx, XKD_LOG_WARN, "probe: %s: %s", p->files.samples[i].path, xkd_media_fault_name(result.fault));
    }
fail:
    return status;
}

/* The first clip of the test protocol: the file's beginning, centre crop, no augmentation. */
static xkd_status open_clipper(xkd_probe *p)
{
    xkd_clip_options o = {.data = &p->data, .protocol = XKD_CLIPS_TEST, .clips = 1};
    memcpy(o.wanted, p->wanted, sizeof o.wanted);
    p->bad = 0;
    return xkd_clipper_new(p->cx, &o, &p->clipper);
}

/* The worker process ends with it: between probes nothing but memory is held. */
static void close_clipper(xkd_probe *p)
{
    xkd_clipper_free(p->clipper);
    p->clipper = NULL;
}

/* Figures of a few survivors would look like figures of the whole set. */
static xkd_status check_budget(xkd_probe *p)
{
    if ((double)p->bad <= p->config->data.max_bad_fraction * (double)p->n && p->n - p->bad >= 2) return XKD_OK;
    return xkd_fail(p->cx, XKD_ERR_DATA,
                    "%s: %" PRId64 " of %" PRId64 " files could not be read, more than data.max_bad_fraction allows "
                    "(run.probe_epochs=off trains without a probe)",
                    p->config->run.probe_data, p->bad, p->n);
}

/* ---- making ---- */

/* The live teacher as an encoder: rows are the trainer's own, so the features are always the current ones. */
static xkd_status stream_new(xkd_probe *p, xkd_modality m)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    /* The teachers of the networks, whose rows the training changes in place. */
    stream *s = &p->stream[m];
    xkd_networks *n = &xkd_trainer_look(p->trainer)->networks;
    xkd_view_shape shape = xkd_clip_shape(&p->data, m);
    shape.B = BATCH;
    xkd_encoder_borrow(&s->encoder, &n->teacher[m], &n->teacher_head[m], xkd_trainer_look(p->trainer)->be);
    s->D = n->teacher[m].blocks.width;
    s->K = n->config.head.outputs;
    XKD_TRY(xkd_encoder_run_new(cx, &s->encoder, &shape, XKD_FEATURE_HEAD, -1, &s->run));
    XKD_TRY(xkd_alloc(cx, &s->mean, p->n * s->D, sizeof *s->mean));
    XKD_TRY(xkd_alloc(cx, &s->head, p->n * s->K, sizeof *s->head));
    XKD_TRY(xkd_alloc(cx, &s->feature, BATCH * s->K, sizeof *s->feature));
fail:
    return status;
}

/* Whether all clips fit decides the slots (a GB holds some 200 of 32 frames at 112 x 112): memory belongs to the
 * training first. Both modalities are held or neither. */
static xkd_status allocate_clips(xkd_probe *p)
{
    xkd_status status = XKD_OK;
    double bytes = 0;
    for (int m = 0; m < XKD_MODALITIES; m++) bytes += (double)(p->n * p->stream[m].run.clip_floats) * sizeof(float);
    /* Floats of four bytes: 1 GB is 10^9 bytes here, as the option says. */
    p->held = bytes <= 1e9 * p->config->run.probe_memory;
    int64_t slots = p->held ? (p->n + BATCH - 1) / BATCH * BATCH : BATCH; /* batches read whole slots */
    for (int m = 0; m < XKD_MODALITIES; m++) {
        XKD_TRY(xkd_alloc(p->cx, &p->stream[m].has, p->n, sizeof(bool)));
        if (p->wanted[m])
            XKD_TRY(xkd_alloc(p->cx, &p->stream[m].clips, slots * p->stream[m].run.clip_floats, sizeof(float)));
    }
fail:
    return status;
}

/* Sized for all files and the wider of the two features, once: a probe in the middle of a run must not fail for
 * memory. */
static xkd_status allocate_scratch(xkd_probe *p)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    int64_t widest = 0;
    for (int m = 0; m < XKD_MODALITIES; m++) {
        const stream *s = &p->stream[m];
        int64_t wider = s->D > s->K ? s->D : s->K;
        if (wider > widest) widest = wider;
    }
    XKD_TRY(xkd_alloc(cx, &p->a, p->n * widest, sizeof *p->a));
    XKD_TRY(xkd_alloc(cx, &p->b, p->n * widest, sizeof *p->b));
    XKD_TRY(xkd_alloc(cx, &p->scores, p->n * p->files.class_count, sizeof *p->scores));
    XKD_TRY(xkd_alloc(cx, &p->label, p->n, sizeof *p->label));
    XKD_TRY(xkd_alloc(cx, &p->near, p->n * (NEIGHBOURS + 1), sizeof *p->near));
fail:
    return status;
}

/* After it p->n is the number of files. */
static xkd_status open_files(xkd_probe *p)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    const xkd_run_config *run = &p->config->run;
    if (!*run->probe_data)
        XKD_FAIL(XKD_ERR_CONFIG, "run.probe_epochs needs run.probe_data: a manifest or folder of held-out files");
    XKD_TRY(xkd_manifest_load(cx, run->probe_data, p->data.follow_links, &p->files));
    /* Checked below: a split's name that is misspelt leaves nothing. */
    xkd_manifest_keep_split(&p->files, run->probe_split);
    p->n = p->files.count;
    if (p->n < 2)
        XKD_FAIL(XKD_ERR_DATA, "%s: has %" PRId64 " files of split '%s': a probe needs two (run.probe_split)",
                 run->probe_data, p->n, run->probe_split);
    /* Lists with numbers for labels name no classes. */
    for (int64_t i = 0; i < p->n; i++)
        if (p->files.samples[i].label >= p->files.class_count) p->files.samples[i].label = -1;
fail:
    return status;
}

xkd_status xkd_probe_new(xkd_context *cx, const xkd_config *config, xkd_trainer *trainer, xkd_probe **out)
{
    xkd_status status = XKD_OK;
    xkd_probe *p = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &p, 1, sizeof *p));
    p->cx = cx;
    p->config = config;
    p->trainer = trainer;
    p->data = config->data;
    /* One view: local views would be decoded and thrown away. */
    p->data.global_views = 1;
    p->data.video_local_views = p->data.audio_local_views = 0;
    XKD_TRY(open_files(p));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        p->wanted[m] = xkd_trainer_look(trainer)->pass.wants.modality[m];
        if (p->wanted[m]) XKD_TRY(stream_new(p, m));
    }
    XKD_TRY(allocate_clips(p));
    XKD_TRY(allocate_scratch(p));
    /* A pool of its own: the backend's is the training's. */
    XKD_TRY(xkd_pool_new(cx, &p->pool, (int)config->threads));
    /* What is wrong with the files shows now, and not behind the first epochs. */
    if (p->held) {
        XKD_TRY(open_clipper(p));
        XKD_TRY(decode(p, 0, p->n));
        XKD_TRY(check_budget(p));
        close_clipper(p);
    }
    *out = p;
    p = NULL;
fail:
    xkd_probe_free(p);
    return status;
}

void xkd_probe_free(xkd_probe *p)
{
    if (!p) return;
    for (int m = 0; m < XKD_MODALITIES; m++) {
        stream *s = &p->stream[m];
        xkd_encoder_run_free(&s->run);
        xkd_free(s->clips);
        xkd_free(s->has);
        xkd_free(s->mean);
        xkd_free(s->head);
        xkd_free(s->feature);
    }
    close_clipper(p);
    xkd_pool_free(p->pool);
    xkd_manifest_free(&p->files);
    xkd_free(p->a);
    xkd_free(p->b);
    xkd_free(p->scores);
    xkd_free(p->label);
    xkd_free(p->near);
    xkd_free(p);
}

bool xkd_probe_is_due(const xkd_probe *p, int64_t epochs)
{
    return p && epochs % p->config->run.probe_epochs == 0;
}

/* ---- figures ---- */

/* Features of the files [first, first + count). Rows behind `count` hold clips of an earlier batch; an encoder treats
 * each row by itself, and their features are not read. */
static xkd_status embed_batch(xkd_probe *p, xkd_modality m, int64_t first, int64_t count)
{
    stream *s = &p->stream[m];
    int64_t slot = p->held ? first : 0;
    xkd_status status = xkd_encoder_features(xkd_trainer_look(p->trainer)->be, &s->run,
                                             s->clips + slot * s->run.clip_floats, s->feature);
    if (status != XKD_OK) return status;
    memcpy(s->head + first * s->K, s->feature, (size_t)(count * s->K) * sizeof *s->head);
    xkd_encoder_pooled(xkd_trainer_look(p->trainer)->be, &s->run, count, s->mean + first * s->D);
    return XKD_OK;
}

/* Files that are not held are decoded again for each probe: time instead of memory. */
static xkd_status embed_all(xkd_probe *p)
{
    xkd_status status = XKD_OK;
    if (!p->held) XKD_TRY(open_clipper(p));
    for (int64_t first = 0; first < p->n; first += BATCH) {
        int64_t count = p->n - first < BATCH ? p->n - first : BATCH;
        /* Batch by batch, so only BATCH clips are in memory. */
        if (!p->held) XKD_TRY(decode(p, first, count));
        for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
            if (p->wanted[m]) XKD_TRY(embed_batch(p, m, first, count));
    }
    if (!p->held) XKD_TRY(check_budget(p));
fail:
    close_clipper(p);
    return status;
}

/* Only files with this modality and a label vote and are judged. */
static xkd_status measure_knn(xkd_probe *p, xkd_modality m, double *out)
{
    const stream *s = &p->stream[m];
    xkd_knn_rows rows = {.x = p->a, .label = p->label, .D = s->D, .K = p->files.class_count};
    for (int64_t i = 0; i < p->n; i++) {
        if (!s->has[i] || p->files.samples[i].label < 0) continue;
        memcpy(p->a + rows.n * s->D, s->mean + i * s->D, (size_t)s->D * sizeof *p->a);
        p->label[rows.n++] = (int32_t)p->files.samples[i].label;
    }
    /* Too few rows: the figure stays NAN, as the caller set it. */
    if (!p->wanted[m] || rows.n < 2) return XKD_OK;
    /* Small sets have fewer neighbours to ask. */
    int64_t k = rows.n - 1 < NEIGHBOURS ? rows.n - 1 : NEIGHBOURS;
    return xkd_knn_leave_one_out(p->cx, p->pool, &rows, k, TEMPERATURE, p->near, p->scores, out);
}

/* Files with both modalities ask and answer. */
static xkd_status measure_recall(xkd_probe *p, double figures[XKD_PROBE_FIGURES])
{
    xkd_status status = XKD_OK;
    int64_t K = xkd_trainer_look(p->trainer)->networks.config.head.outputs, n = 0;
    for (int64_t i = 0; i < p->n; i++) {
        if (!p->stream[XKD_VIDEO].has[i] || !p->stream[XKD_AUDIO].has[i]) continue;
        memcpy(p->a + n * K, p->stream[XKD_VIDEO].head + i * K, (size_t)K * sizeof *p->a);
        memcpy(p->b + n++ * K, p->stream[XKD_AUDIO].head + i * K, (size_t)K * sizeof *p->b);
    }
    if (n < 2) return XKD_OK;
    /* The two directions are separate searches: the nearest of a need not have a as its nearest. */
    int64_t k = n < RECALL_FEW ? n : RECALL_FEW;
    XKD_TRY(xkd_nearest(p->cx, p->pool, p->a, n, p->b, n, K, k, p->near));
    figures[XKD_PROBE_VIDEO_RECALL1] = xkd_own_recall(p->near, n, k, 1);
    figures[XKD_PROBE_VIDEO_RECALL5] = xkd_own_recall(p->near, n, k, RECALL_FEW);
    XKD_TRY(xkd_nearest(p->cx, p->pool, p->b, n, p->a, n, K, k, p->near));
    figures[XKD_PROBE_AUDIO_RECALL1] = xkd_own_recall(p->near, n, k, 1);
    figures[XKD_PROBE_AUDIO_RECALL5] = xkd_own_recall(p->near, n, k, RECALL_FEW);
fail:
    return status;
}

xkd_status xkd_probe_run(xkd_probe *p, double figures[XKD_PROBE_FIGURES])
{
    xkd_status status = XKD_OK;
    /* All figures NAN first: those that cannot be measured are left alone. */
    for (int i = 0; i < XKD_PROBE_FIGURES; i++) figures[i] = NAN;
    XKD_TRY(embed_all(p));
    XKD_TRY(measure_knn(p, XKD_VIDEO, &figures[XKD_PROBE_VIDEO_KNN]));
    XKD_TRY(measure_knn(p, XKD_AUDIO, &figures[XKD_PROBE_AUDIO_KNN]));
    XKD_TRY(measure_recall(p, figures));
fail:
    return status;
}
