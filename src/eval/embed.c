/* Two threads and a ring of clips. The producer decodes file after file into slots; the caller's thread copies clips
 * into one batch per modality, computes full batches, and hands a file on when all its clips have come back. Only the
 * caller's thread touches the backend, the files' results and the sink; the ring's counters are under the lock, and a
 * slot's content belongs to the producer until `publish` and to the consumer until `release_slot`. */
#include "eval/embed.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"

/* Clips decoded ahead, in batches: two let decoding go on while a batch is computed. */
enum { AHEAD = 2 };

/* What stands in the ring between the two threads: a clip, or the end of a file. */
typedef struct {
    bool end;
    int64_t input;
    xkd_clip_place place;
    xkd_media_result result; /* of an end */
    float *clip;             /* the slot's memory, large enough for either modality */
} slot;

/* A file that is not finished yet. `wanted` counts its clips that have been taken from the ring. */
typedef struct {
    xkd_embedded file;
    int64_t taken[XKD_MODALITIES];
    bool ended;
} pending;

/* One modality's batch. */
typedef struct {
    xkd_encoder_run run;              /* not of a scorer */
    int64_t rows, width, clip_floats; /* rows and width of a clip's feature; floats of a clip */
    float *clips;                     /* [B,clip] */
    float *features;                  /* [B,rows,D] */
    int64_t *input;                   /* [B] */
    double *seconds;                  /* [B] */
    int64_t filled;                   /* rows in use, 0 .. B - 1 between two calls */
} batch;

typedef struct {
    xkd_context *cx;
    xkd_backend *be;
    const xkd_embed_options *options;
    const xkd_embed_input *inputs;
    const xkd_embed_sink *sink;
    int64_t count;
    batch batch[XKD_MODALITIES];
    /* Files in the order of inputs, from `first_pending` on; a ring would be shorter, but this is less than a kilobyte
     * a file. */
    pending *files; /* [count] */
    int64_t first_pending;
    /* The ring. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    slot *slots;
    int64_t slot_count, head, tail; /* slots [head, tail) are filled, modulo slot_count */
    bool quit, producer_done;       /* the consumer gave up; the producer has ended */
    xkd_status producer_status;
    xkd_context *producer_cx; /* errors of the other thread: a context serves one */
    int64_t producing;        /* input being decoded */
} work;

/* ---- the decoding thread ---- */

/* Waits for a free slot; NULL when the consumer has given up. */
static slot *free_slot(work *w)
{
    pthread_mutex_lock(&w->lock);
    while (!w->quit && w->tail - w->head == w->slot_count) pthread_cond_wait(&w->changed, &w->lock);
    slot *s = w->quit ? NULL : &w->slots[w->tail % w->slot_count];
    /* The slot is not counted yet: the consumer cannot see it until `publish`, so it is filled outside the lock. */
    pthread_mutex_unlock(&w->lock);
    return s;
}

/* Hands the slot at `tail` to the other thread. */
static void publish(work *w)
{
    pthread_mutex_lock(&w->lock);
    w->tail++;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

/* The clip is written straight into the ring: 5 MB are copied once, into the batch. */
static xkd_status reserve(void *user, xkd_modality modality, float **clip)
{
    work *w = user;
    slot *s = free_slot(w);
    (void)modality;
    /* Not an error to report: the producer's status is dropped when the consumer has quit. */
    if (!s) return XKD_ERR_INTERRUPTED;
    *clip = s->clip;
    return XKD_OK;
}

static xkd_status commit(void *user, const xkd_clip_place *place)
{
    work *w = user;
    slot *s = &w->slots[w->tail % w->slot_count]; /* the one just reserved */
    s->end = false;
    s->input = w->producing;
    s->place = *place;
    publish(w);
    return XKD_OK;
}

/* One decoder keeps ahead of a base encoder, which needs 0.4 s a clip on two cores, and files stay in order. */
static xkd_status produce(work *w)
{
    xkd_status status = XKD_OK;
    xkd_clipper *clipper = NULL;
    const xkd_clip_sink sink = {w, reserve, commit};
    XKD_TRY(xkd_clipper_new(w->producer_cx, &w->options->clips, &clipper));
    for (w->producing = 0; w->producing < w->count; w->producing++) {
        const xkd_embed_input *in = &w->inputs[w->producing];
        xkd_media_result result;
        XKD_TRY(xkd_clipper_run(clipper, in->manifest, in->sample, in->number, in->draw, &sink, &result));
        slot *s = free_slot(w);
        /* An end goes through the ring like a clip, so it arrives behind the last clip of its file. */
        if (!s) break;
        s->end = true;
        s->input = w->producing;
        s->result = result;
        publish(w);
    }
fail:
    xkd_clipper_free(clipper);
    return status;
}

/* Errors travel in `work`: the consumer reports them, in its own context, when it has used what came before. */
static void *producer(void *arg)
{
    work *w = arg;
    xkd_status status = produce(w);
    pthread_mutex_lock(&w->lock);
    w->producer_status = w->quit ? XKD_OK : status; /* what followed from quitting is no fault */
    w->producer_done = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- the computing thread ---- */

/* Features wait here until their file is whole; capacity doubles, so a day of video is copied twice at most. */
static xkd_status add_feature(work *w, xkd_modality m, int64_t input, double seconds, const float *feature)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = w->cx;
    xkd_embedded *f = &w->files[input].file;
    int64_t size = w->batch[m].rows * w->batch[m].width;
    /* Features and seconds are two arrays with one capacity, raised only when both have grown. */
    if (f->count[m] == f->capacity[m]) {
        int64_t larger = f->capacity[m] ? 2 * f->capacity[m] : 4;
        XKD_TRY(xkd_resize(cx, &f->feature[m], f->capacity[m] * size, larger * size, sizeof(float)));
        XKD_TRY(xkd_resize(cx, &f->seconds[m], f->capacity[m], larger, sizeof(double)));
        f->capacity[m] = larger;
    }
    memcpy(f->feature[m] + f->count[m] * size, feature, (size_t)size * sizeof(float));
    f->seconds[m][f->count[m]++] = seconds;
fail:
    return status;
}

static void free_file(xkd_embedded *f)
{
    for (int m = 0; m < XKD_MODALITIES; m++) {
        xkd_free(f->feature[m]);
        xkd_free(f->seconds[m]);
        f->feature[m] = NULL;
        f->seconds[m] = NULL;
    }
}

/* Hands on files, in order, whose clips have all been computed. */
static xkd_status hand_on(work *w)
{
    xkd_status status = XKD_OK;
    for (; w->first_pending < w->count; w->first_pending++) {
        pending *p = &w->files[w->first_pending];
        bool whole = p->ended;
        /* Clips still stand in a batch as long as fewer were computed than taken; a batch mixes files, so a later one
         * can be whole before an earlier one, and then waits. */
        for (int m = 0; m < XKD_MODALITIES; m++) whole &= p->file.count[m] == p->taken[m];
        if (!whole) break;
        p->file.input = w->first_pending;
        XKD_TRY(w->sink->done(w->sink->user, &p->file));
        free_file(&p->file); /* at once: memory holds the files in work only */
    }
fail:
    return status;
}

/* A number that is none spreads into every figure made from it, mostly unseen. A scorer's rows are its caller's to judge:
 * a training that diverges is ended by its steps, not by a test. */
static xkd_status check_finite(work *w, xkd_modality m, int64_t i)
{
    const batch *b = &w->batch[m];
    int64_t size = b->rows * b->width;
    for (int64_t k = 0; k < size; k++) {
        if (isfinite(b->features[i * size + k])) continue;
        const xkd_embed_input *in = &w->inputs[b->input[i]];
        return xkd_fail(w->cx, XKD_ERR_NUMERIC,
                        "%s: number %" PRId64 " of the %s features of its clip at %.2f s is not finite: the model's "
                        "weights may hold NaN ('xkd verify MODEL' looks)",
                        in->manifest->samples[in->sample].path, k, m == XKD_VIDEO ? "video" : "audio", b->seconds[i]);
    }
    return XKD_OK;
}

/* A last batch that is not full is computed with what its other rows held before; those results are dropped. */
static xkd_status compute(work *w, xkd_modality m)
{
    xkd_status status = XKD_OK;
    batch *b = &w->batch[m];
    int64_t size = b->rows * b->width;
    if (b->filled == 0) return XKD_OK;
    const xkd_embed_scorer *scorer = w->options->scorer;
    XKD_TRY(scorer ? scorer->run(scorer->user, b->clips, b->features)
                   : xkd_encoder_features(w->be, &b->run, b->clips, b->features));
    for (int64_t i = 0; !scorer && i < b->filled; i++) XKD_TRY(check_finite(w, m, i));
    for (int64_t i = 0; i < b->filled; i++)
        XKD_TRY(add_feature(w, m, b->input[i], b->seconds[i], b->features + i * size));
    b->filled = 0;
    XKD_TRY(hand_on(w));
fail:
    return status;
}

static xkd_status take(work *w, const slot *s)
{
    pending *p = &w->files[s->input];
    /* The end of a file does not flush its batch: small files share batches, and the batch size stays constant. */
    if (s->end) {
        p->ended = true;
        p->file.result = s->result;
        return hand_on(w);
    }
    xkd_modality m = s->place.modality;
    batch *b = &w->batch[m];
    memcpy(b->clips + b->filled * b->clip_floats, s->clip, (size_t)b->clip_floats * sizeof(float));
    b->input[b->filled] = s->input;
    b->seconds[b->filled++] = s->place.seconds;
    p->taken[m]++;
    return b->filled == w->options->batch ? compute(w, m) : XKD_OK;
}

/* The oldest filled slot, NULL at the end. */
static slot *next_slot(work *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->head == w->tail && !w->producer_done) pthread_cond_wait(&w->changed, &w->lock);
    slot *s = w->head < w->tail ? &w->slots[w->head % w->slot_count] : NULL;
    pthread_mutex_unlock(&w->lock);
    return s;
}

/* Only after the slot was copied: the decoder writes into it at once. */
static void release_slot(work *w)
{
    pthread_mutex_lock(&w->lock);
    w->head++;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

/* Ends when the ring is empty and the producer gone; then partly filled batches remain. */
static xkd_status consume(work *w)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = w->cx;
    for (slot *s; (s = next_slot(w)) != NULL;) {
        /* Read before the slot goes back to the producer. */
        bool end = s->end;
        XKD_TRY(take(w, s));
        release_slot(w);
        /* Between files only: what has been handed to the sink is whole, and the next run goes on behind it. */
        if (end && w->sink->stop && w->sink->stop(w->sink->user)) XKD_FAIL(XKD_ERR_INTERRUPTED, "stopped");
    }
    /* Partly filled batches are not computed then: their files are incomplete. */
    if (w->producer_status != XKD_OK) XKD_FAIL(w->producer_status, "%s", xkd_last_error(w->producer_cx));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (w->options->clips.wanted[m]) XKD_TRY(compute(w, m));
fail:
    return status;
}

/* ---- set-up ---- */

/* The encoder planned for batches of this modality's clips. */
static xkd_status run_of(xkd_context *cx, const xkd_embed_options *o, xkd_modality m, xkd_encoder_run *run)
{
    xkd_view_shape shape = xkd_clip_shape(o->clips.data, m);
    shape.B = o->batch;
    return xkd_encoder_run_new(cx, o->encoder[m], &shape, o->kind, o->layer, run);
}

xkd_status xkd_embed_shape(xkd_context *cx, const xkd_embed_options *o, xkd_modality m, int64_t *rows, int64_t *width)
{
    xkd_encoder_run run;
    /* Rows and width do not depend on the batch; planning one clip is cheap and takes no memory of activations'
     * size. */
    xkd_embed_options one = *o;
    one.batch = 1;
    xkd_status status = run_of(cx, &one, m, &run);
    *rows = run.rows;
    *width = run.width;
    xkd_encoder_run_free(&run);
    return status;
}

/* Memory of one modality's batches: made once, used for all files. */
static xkd_status batch_new(xkd_context *cx, const xkd_embed_options *o, xkd_modality m, batch *b)
{
    xkd_status status = XKD_OK;
    if (o->scorer) {
        xkd_view_shape s = xkd_clip_shape(o->clips.data, m);
        b->rows = 1;
        b->width = o->scorer->width;
        b->clip_floats = (m == XKD_VIDEO ? 3 : 1) * s.T * s.H * s.W;
    } else {
        XKD_TRY(run_of(cx, o, m, &b->run));
        b->rows = b->run.rows;
        b->width = b->run.width;
        b->clip_floats = b->run.clip_floats;
    }
    XKD_TRY(xkd_alloc(cx, &b->clips, o->batch * b->clip_floats, sizeof *b->clips));
    XKD_TRY(xkd_alloc(cx, &b->features, o->batch * b->rows * b->width, sizeof *b->features));
    XKD_TRY(xkd_alloc(cx, &b->input, o->batch, sizeof *b->input));
    XKD_TRY(xkd_alloc(cx, &b->seconds, o->batch, sizeof *b->seconds));
fail:
    return status;
}

/* Slots fit either modality, so that clips stay in the order in which the file interleaves them. */
static xkd_status work_new(work *w)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = w->cx;
    const xkd_embed_options *o = w->options;
    int64_t floats = 0; /* of the larger modality's clip */
    if (o->batch < 1) XKD_FAIL(XKD_ERR_CONFIG, "embed: the batch must be at least 1");
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        if (!o->clips.wanted[m]) continue;
        XKD_TRY(batch_new(cx, o, m, &w->batch[m]));
        if (w->batch[m].clip_floats > floats) floats = w->batch[m].clip_floats;
    }
    w->slot_count = AHEAD * o->batch;
    XKD_TRY(xkd_alloc(cx, &w->slots, w->slot_count, sizeof *w->slots));
    for (int64_t i = 0; i < w->slot_count; i++) XKD_TRY(xkd_alloc(cx, &w->slots[i].clip, floats, sizeof(float)));
    XKD_TRY(xkd_alloc(cx, &w->files, w->count, sizeof *w->files));
    w->producer_cx = xkd_context_new(); /* made here, where a failure can be reported */
    if (!w->producer_cx) XKD_FAIL(XKD_ERR_MEMORY, "out of memory");
fail:
    return status;
}

static void work_free(work *w)
{
    for (int m = 0; m < XKD_MODALITIES; m++) {
        batch *b = &w->batch[m];
        xkd_encoder_run_free(&b->run);
        xkd_free(b->clips);
        xkd_free(b->features);
        xkd_free(b->input);
        xkd_free(b->seconds);
    }
    for (int64_t i = 0; w->slots && i < w->slot_count; i++) xkd_free(w->slots[i].clip);
    xkd_free(w->slots);
    for (int64_t i = 0; w->files && i < w->count; i++) free_file(&w->files[i].file);
    xkd_free(w->files);
    xkd_context_free(w->producer_cx);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
}

/* `quit` first, then join: the producer may be waiting for a free slot when the consumer fails. */
xkd_status xkd_embed(xkd_context *cx, xkd_backend *be, const xkd_embed_options *options, const xkd_embed_input *inputs,
                     int64_t count, const xkd_embed_sink *sink)
{
    xkd_status status = XKD_OK;
    pthread_t thread;
    work w = {.cx = cx, .be = be, .options = options, .inputs = inputs, .count = count, .sink = sink};
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.changed, NULL);
    XKD_TRY(work_new(&w));
    if (pthread_create(&thread, NULL, producer, &w) != 0) XKD_FAIL(XKD_ERR_MEMORY, "cannot start the decoding thread");
    status = consume(&w);
    pthread_mutex_lock(&w.lock);
    w.quit = true;
    pthread_cond_broadcast(&w.changed);
    pthread_mutex_unlock(&w.lock);
    pthread_join(thread, NULL);
fail:
    work_free(&w);
    return status;
}
