/* The computing side of many files: clips come from the feed (clip_feed.h) in the order of the files, are copied into one batch
 * per modality, full batches are computed, and a file is handed on when all its clips have come back. Only the caller's thread
 * touches the backend, the files' results and the sink. */
#include "eval/encode/embed.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/file.h"
#include "media/damage.h"

/* Clips decoded ahead, in batches: two let decoding go on while a batch is computed. */
enum { AHEAD = 2 };

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
    double *seconds, *damage;         /* [B] */
    int64_t filled;                   /* rows in use, 0 .. B - 1 between two calls */
} batch;

struct xkd_embed_engine {
    xkd_context *cx;
    xkd_backend *be;
    const xkd_embed_options *options;
    batch batch[XKD_MODALITIES];
    xkd_clip_feed *feed;
    /* The list at hand. */
    const xkd_embed_input *inputs;
    const xkd_embed_sink *sink; /* NULL: files keep their features until the next list */
    int64_t count;
    /* Files in the order of inputs, from `first_pending` on; a ring would be shorter, but this is less than a kilobyte
     * a file. */
    pending *files;                  /* [count] */
    int64_t first_pending, computed; /* files handed on; clips */
};

/* ---- one list ---- */

/* Features wait here until their file is whole; capacity doubles, so a day of video is copied twice at most. */
static xkd_status add_feature(xkd_embed_engine *w, xkd_modality m, int64_t i)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = w->cx;
    const batch *b = &w->batch[m];
    xkd_embedded *f = &w->files[b->input[i]].file;
    int64_t size = w->batch[m].rows * w->batch[m].width;
    /* Three arrays with one capacity, raised only when all have grown. */
    if (f->count[m] == f->capacity[m]) {
        int64_t larger = f->capacity[m] ? 2 * f->capacity[m] : 4;
        XKD_TRY(xkd_resize(cx, &f->feature[m], f->capacity[m] * size, larger * size, sizeof(float)));
        XKD_TRY(xkd_resize(cx, &f->seconds[m], f->capacity[m], larger, sizeof(double)));
        XKD_TRY(xkd_resize(cx, &f->damage[m], f->capacity[m], larger, sizeof(double)));
        f->capacity[m] = larger;
    }
    memcpy(f->feature[m] + f->count[m] * size, b->features + i * size, (size_t)size * sizeof(float));
    f->damage[m][f->count[m]] = b->damage[i];
    f->seconds[m][f->count[m]++] = b->seconds[i];
fail:
    return status;
}

static void free_file(xkd_embedded *f)
{
    for (int m = 0; m < XKD_MODALITIES; m++) {
        xkd_free(f->feature[m]);
        xkd_free(f->seconds[m]);
        xkd_free(f->damage[m]);
        f->feature[m] = NULL;
        f->seconds[m] = f->damage[m] = NULL;
    }
}

/* Counts and names the clips of a whole file that training would not have taken. Their features stand for what is there, and
 * whoever uses them decides. Crops of one clip are told once. */
static xkd_status tell_damage(xkd_embed_engine *w, pending *p)
{
    xkd_status status = XKD_OK;
    const xkd_embed_input *in = &w->inputs[w->first_pending];
    double most = w->options->clips.data->max_clip_damage;
    char words[160], *path = NULL;
    if (p->file.result.fault != XKD_FAULT_NONE) return XKD_OK;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        double told = -1;
        for (int64_t i = 0; i < p->file.count[m]; i++) {
            double seconds = p->file.seconds[m][i];
            if (!(p->file.damage[m][i] > most)) continue;
            p->file.damaged++;
            if (seconds == told) continue;
            told = seconds;
            if (!path) XKD_TRY(xkd_join_path(w->cx, &path, in->manifest->root, in->manifest->samples[in->sample].path));
            xkd_damage_words(words, sizeof words, "the clip's", m, p->file.damage[m][i], most);
            xkd_log(w->cx, XKD_LOG_WARN, "%s: at %.2f s %s", path, seconds, words);
        }
    }
fail:
    xkd_free(path);
    return status;
}

/* Hands on files, in order, whose clips have all been computed. */
static xkd_status hand_on(xkd_embed_engine *w)
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
        XKD_TRY(tell_damage(w, p));
        if (!w->sink) continue;
        XKD_TRY(w->sink->done(w->sink->user, &p->file));
        free_file(&p->file); /* at once: memory holds the files in work only */
    }
fail:
    return status;
}

/* A number that is none spreads into every figure made from it, mostly unseen. A scorer's rows are its caller's to judge:
 * a training that diverges is ended by its steps, not by a test. */
static xkd_status check_finite(xkd_embed_engine *w, xkd_modality m, int64_t i)
{
    const batch *b = &w->batch[m];
    int64_t size = b->rows * b->width;
    for (int64_t k = 0; k < size; k++) {
        if (isfinite(b->features[i * size + k])) continue;
        const xkd_embed_input *in = &w->inputs[b->input[i]];
        return xkd_fail(w->cx, XKD_ERR_NUMERIC,
                        "%s: number %" PRId64 " of the %s features of its clip at %.2f s is not finite: the model's "
                        "weights may hold NaN ('xkd verify MODEL' looks)",
                        in->manifest ? in->manifest->samples[in->sample].path : "memory", k,
                        m == XKD_VIDEO ? "video" : "audio", b->seconds[i]);
    }
    return XKD_OK;
}

/* A last batch that is not full is computed with what its other rows held before; those results are dropped. */
static xkd_status compute(xkd_embed_engine *w, xkd_modality m)
{
    xkd_status status = XKD_OK;
    batch *b = &w->batch[m];
    if (b->filled == 0) return XKD_OK;
    const xkd_embed_scorer *scorer = w->options->scorer;
    XKD_TRY(scorer ? scorer->run(scorer->user, b->clips, b->features)
                   : xkd_encoder_features(w->be, &b->run, b->clips, b->features));
    for (int64_t i = 0; !scorer && i < b->filled; i++) XKD_TRY(check_finite(w, m, i));
    for (int64_t i = 0; i < b->filled; i++) XKD_TRY(add_feature(w, m, i));
    w->computed += b->filled;
    b->filled = 0;
    XKD_TRY(hand_on(w));
fail:
    return status;
}

static xkd_status take(xkd_embed_engine *w, const xkd_fed_clip *s)
{
    pending *p = &w->files[s->input];
    /* The end of a file does not flush its batch: small files share batches, and the batch size stays constant. */
    if (s->end) {
        p->ended = true;
        p->file.result = s->result;
        return hand_on(w);
    }
    xkd_modality m = s->place.modality;
    for (int k = 0; k < XKD_MODALITIES; k++) p->file.lacks[k] = !s->place.has[k];
    batch *b = &w->batch[m];
    memcpy(b->clips + b->filled * b->clip_floats, s->clip, (size_t)b->clip_floats * sizeof(float));
    b->input[b->filled] = s->input;
    b->damage[b->filled] = s->place.damage;
    b->seconds[b->filled++] = s->place.seconds;
    p->taken[m]++;
    return b->filled == w->options->batch ? compute(w, m) : XKD_OK;
}

/* Of one file the clips are told, whose number nobody knows; of many the files. */
static xkd_status tell(xkd_embed_engine *w)
{
    return w->count > 1 ? xkd_tell_progress(w->cx, "embed", w->first_pending, w->count)
                        : xkd_tell_progress(w->cx, "embed", w->computed, 0);
}

static void free_files(xkd_embed_engine *w)
{
    for (int64_t i = 0; w->files && i < w->count; i++) free_file(&w->files[i].file);
    xkd_free(w->files);
    w->files = NULL;
    w->count = 0;
}

xkd_status xkd_embed_engine_begin(xkd_embed_engine *w, const xkd_embed_input *inputs, int64_t count)
{
    xkd_embed_engine_cancel(w);
    free_files(w);
    xkd_status status = xkd_alloc(w->cx, &w->files, count, sizeof *w->files);
    if (status != XKD_OK) return status;
    w->inputs = inputs;
    w->count = count;
    w->sink = NULL;
    w->first_pending = w->computed = 0;
    for (int m = 0; m < XKD_MODALITIES; m++) w->batch[m].filled = 0;
    xkd_clip_feed_begin(w->feed, inputs, count);
    return XKD_OK;
}

void xkd_embed_engine_cancel(xkd_embed_engine *w)
{
    xkd_clip_feed_cancel(w->feed);
}

/* One of the ring; behind its last the batches that are not full. */
xkd_status xkd_embed_engine_step(xkd_embed_engine *w, bool *more)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = w->cx;
    const xkd_fed_clip *s;
    *more = true;
    XKD_TRY(xkd_clip_feed_next(w->feed, &s));
    if (s) {
        bool end = s->end; /* read before the slot goes back */
        XKD_TRY(take(w, s));
        xkd_clip_feed_release(w->feed);
        XKD_TRY(tell(w));
        /* Between files only: what has been handed to the sink is whole, and the next run goes on behind it. */
        if (end && w->sink && w->sink->stop && w->sink->stop(w->sink->user)) XKD_FAIL(XKD_ERR_INTERRUPTED, "stopped");
        return XKD_OK;
    }
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (w->options->clips.wanted[m]) XKD_TRY(compute(w, m));
    *more = false;
    return XKD_OK;
fail:
    xkd_embed_engine_cancel(w);
    return status;
}

xkd_status xkd_embed_engine_run(xkd_embed_engine *w, const xkd_embed_input *inputs, int64_t count,
                                const xkd_embed_sink *sink)
{
    bool more = true;
    xkd_status status = xkd_embed_engine_begin(w, inputs, count);
    w->sink = sink;
    while (status == XKD_OK && more) status = xkd_embed_engine_step(w, &more);
    return status;
}

const xkd_embedded *xkd_embed_engine_file(const xkd_embed_engine *w, int64_t input)
{
    return &w->files[input].file;
}

bool xkd_embed_engine_ended(const xkd_embed_engine *w, int64_t input)
{
    return input < w->first_pending;
}

xkd_status xkd_embed_engine_clips(xkd_embed_engine *w, xkd_modality m, const float *clips, int64_t count, float *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = w->cx;
    batch *b = &w->batch[m];
    int64_t size = b->rows * b->width, B = w->options->batch;
    const xkd_embed_scorer *scorer = w->options->scorer;
    for (int64_t first = 0; first < count; first += B) {
        int64_t n = count - first < B ? count - first : B;
        memcpy(b->clips, clips + first * b->clip_floats, (size_t)(n * b->clip_floats) * sizeof *clips);
        XKD_TRY(scorer ? scorer->run(scorer->user, b->clips, b->features)
                       : xkd_encoder_features(w->be, &b->run, b->clips, b->features));
        for (int64_t i = 0; i < n * size; i++)
            if (!isfinite(b->features[i]))
                XKD_FAIL(XKD_ERR_NUMERIC,
                         "the result of clip %" PRId64 " is not finite: the clip or the model's weights may hold NaN",
                         first + i / size);
        memcpy(out + first * size, b->features, (size_t)(n * size) * sizeof *out);
        XKD_TRY(xkd_tell_progress(cx, "embed", first + n, count));
    }
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
    XKD_TRY(xkd_alloc(cx, &b->damage, o->batch, sizeof *b->damage));
fail:
    return status;
}

/* Slots fit either modality, so that clips stay in the order in which the file interleaves them. */
xkd_status xkd_embed_engine_new(xkd_context *cx, xkd_backend *be, const xkd_embed_options *o, xkd_embed_engine **out)
{
    xkd_status status = XKD_OK;
    xkd_embed_engine *w = NULL;
    int64_t floats = 0; /* of the larger modality's clip */
    *out = NULL;
    if (o->batch < 1) XKD_FAIL(XKD_ERR_CONFIG, "embed: the batch must be at least 1");
    XKD_TRY(xkd_alloc(cx, &w, 1, sizeof *w));
    w->cx = cx;
    w->be = be;
    w->options = o;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        if (!o->clips.wanted[m]) continue;
        XKD_TRY(batch_new(cx, o, m, &w->batch[m]));
        if (w->batch[m].clip_floats > floats) floats = w->batch[m].clip_floats;
    }
    XKD_TRY(xkd_clip_feed_new(cx, &o->clips, AHEAD * o->batch, floats, &w->feed));
    *out = w;
    w = NULL;
fail:
    xkd_embed_engine_free(w);
    return status;
}

/* The feed first: it may be writing into its ring, and reads the inputs. */
void xkd_embed_engine_free(xkd_embed_engine *w)
{
    if (!w) return;
    xkd_clip_feed_free(w->feed);
    for (int m = 0; m < XKD_MODALITIES; m++) {
        batch *b = &w->batch[m];
        xkd_encoder_run_free(&b->run);
        xkd_free(b->clips);
        xkd_free(b->features);
        xkd_free(b->input);
        xkd_free(b->seconds);
        xkd_free(b->damage);
    }
    free_files(w);
    xkd_free(w);
}

xkd_status xkd_embed(xkd_context *cx, xkd_backend *be, const xkd_embed_options *options, const xkd_embed_input *inputs,
                     int64_t count, const xkd_embed_sink *sink)
{
    xkd_embed_engine *engine;
    xkd_status status = xkd_embed_engine_new(cx, be, options, &engine);
    if (status == XKD_OK) status = xkd_embed_engine_run(engine, inputs, count, sink);
    xkd_embed_engine_free(engine);
    return status;
}
