/* Threads fill micro-batches ahead of the caller. The ring of slots is ordered by sequence number;
 * threads take single places (clip and views of one sample) of the oldest unfinished slot, so that
 * the batch waited for is done first. Every random draw is keyed by epoch, sample and try, never by
 * thread or time: the data are the same for any number of workers. */
#include "data/loader.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <jansson.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/text.h"
#include "data/check.h"
#include "data/fetch.h"
#include "data/index.h"
#include "data/json_name.h"
#include "data/sampler.h"

enum {
    MAX_TRIES = 20, /* replacements of one place before the data set is given up */
    MAX_DEPTH = 4,  /* batches in the ring: the one in use and up to three ahead */
    MAX_WORKERS = 256
};
static const int64_t MOST_LOG_BYTES = (int64_t)1 << 30; /* of bad_clips.jsonl */
/* The ring is kept below this where two batches allow it: large batches need little look-ahead. */
static const int64_t RING_BYTES = (int64_t)512 << 20;

/* One try at one place of a batch that failed. Kept with the batch and reported when it is delivered, so that log, counts
 * and the decision to stop depend on the data alone, not on how far ahead the threads are.
 * A try is not a file: the same file may be tried in many places. */
typedef struct {
    int64_t sample; /* index into the manifest; the sample of a batch counts the passes too */
    xkd_media_fault fault;
    bool dropped; /* left out by the audio policy, which is no fault */
    char message[160];
} failure;

/* One micro-batch. Places 0 .. next-1 are handed out, `done` of them finished; the caller may have it
 * when done equals the count. */
typedef struct {
    xkd_batch batch;
    int64_t sequence;  /* which micro-batch; -1: free */
    int64_t next;      /* next place to hand out */
    int64_t done;      /* places finished */
    int64_t first;     /* into the epoch's order */
    int64_t *silent;   /* [B] 1: this place got silence */
    int64_t *tries;    /* [B] failures of this place */
    failure *failures; /* [B,MAX_TRIES] */
    xkd_status status; /* of the first place that failed for good */
    char message[512];
} slot;

typedef struct {
    struct xkd_loader *loader;
    pthread_t thread;
    bool started;
    xkd_context *cx;      /* of its own: a bad clip must not leave a message in the caller's context */
    xkd_fetcher *fetcher; /* owned, one worker process each */
    xkd_viewer *viewer;   /* of pre-training */
    void *maker;          /* of a plan */
    xkd_status status;    /* of making the above */
} worker;

struct xkd_loader {
    xkd_context *cx;
    const xkd_data_config *data; /* settings, outlives the loader */
    xkd_loader_plan plan;        /* a copy of the caller's, or that of pre-training */
    bool planned;                /* views are the plan's, not those of pre-training */
    xkd_manifest manifest;
    xkd_sampler sampler;
    xkd_view_shapes shapes;
    xkd_cache *cache; /* NULL: none */
    int64_t batch;    /* B */
    int64_t steps;    /* a rank's optimiser steps an epoch */
    worker *workers;
    int64_t worker_count;

    pthread_mutex_t lock;       /* guards all below */
    pthread_cond_t work, ready; /* work: threads wait here for places; ready: the caller, for a slot */
    slot slots[MAX_DEPTH];
    int depth;
    int64_t *order; /* of order_epoch */
    int64_t order_epoch;
    /* Sequences start at 0 with each seek, so `consumed` and slots need no other reset. */
    int64_t base;     /* sequence 0 is this micro-batch, counted from epoch 0 */
    int64_t consumed; /* sequences given back by the caller */
    bool held;        /* the caller has sequence `consumed` */
    int64_t active;   /* places being worked on */
    bool paused, quit;
    _Atomic int64_t restarts; /* worker processes lost */

    char *log_path; /* NULL: nothing is logged */
    int log_fd;
    uint8_t *bad, *dropped; /* [samples] seen so */
    xkd_loader_statistics stats;
};

/* Sequence numbers count micro-batches from the last seek; this turns one into epoch, step and micro-batch.
 * Micro-batches are counted through all epochs without a gap. */
static void locate(const xkd_loader *l, int64_t sequence, int64_t *epoch, int64_t *step, int64_t *micro)
{
    int64_t at = l->base + sequence, per_epoch = l->steps * l->sampler.accumulate;
    *epoch = at / per_epoch;
    *step = at % per_epoch / l->sampler.accumulate;
    *micro = at % l->sampler.accumulate;
}

/* Prepares a free slot for its next micro-batch. Called with the lock held.
 * The order of an epoch is drawn when its first batch is opened. Slots at an epoch's turn belong to
 * different epochs, but sample numbers are copied into them, so one order is enough. */
static void open_slot(xkd_loader *l, slot *s, int64_t sequence)
{
    int64_t epoch, step, micro, first, count;
    locate(l, sequence, &epoch, &step, &micro);
    if (l->order_epoch != epoch) {
        xkd_sampler_order(&l->sampler, (uint32_t)epoch, l->order);
        l->order_epoch = epoch;
    }
    xkd_sampler_part(&l->sampler, step, micro, &first, &count);
    s->sequence = sequence;
    s->next = s->done = 0;
    s->status = XKD_OK;
    s->batch.count = count;
    s->batch.epoch = (uint32_t)epoch;
    s->batch.step = step;
    s->batch.micro = micro;
    for (int64_t i = 0; i < count; i++) {
        s->batch.sample[i] = l->order[first + i];
        /* A plan of several passes draws a file more than once an epoch: `sample` counts up to files x passes and keys
         * the draws, `source` is the file. */
        s->batch.source[i] = s->batch.sample[i] % l->manifest.count;
        s->tries[i] = s->silent[i] = 0;
    }
}

/* Next place to work on: batches in order, so that the oldest is ready first. Called with the lock held.
 * Slots behind the last consumed one are free again and are opened here by whoever comes first. */
static slot *find_work(xkd_loader *l, int64_t *place)
{
    if (l->paused) return NULL;
    for (int64_t q = l->consumed; q < l->consumed + l->depth; q++) {
        slot *s = &l->slots[q % l->depth];
        /* sequence < q: the slot's former batch has been given back, or it was never opened. */
        if (s->sequence < q) open_slot(l, s, q);
        if (s->sequence == q && s->next < s->batch.count) {
            *place = s->next++;
            return s;
        }
    }
    return NULL;
}

/* Tries one clip; true: it is good, or trying more is useless because of s->status. */
static bool try_clip(worker *w, slot *s, int64_t place, int64_t sample, xkd_clip *clip, xkd_status *status)
{
    xkd_loader *l = w->loader;
    bool silent = false;
    xkd_media_result result;
    int64_t drawn = s->batch.sample[place];
    /* The number of tries is in the key: a second try at a place draws another start. */
    xkd_rng rng =
        xkd_rng_make(l->sampler.seed, s->batch.epoch, (uint32_t)drawn, (uint32_t)s->tries[place], XKD_RNG_CLIP);
    *status = xkd_fetch_clip(w->fetcher, sample, xkd_rng_uniform(&rng), clip, &silent, &result);
    if (*status != XKD_OK) return true;
    /* A plan for video alone does not care about sound. */
    silent = silent && l->plan.wanted[XKD_AUDIO];
    bool dropped = result.fault == XKD_FAULT_NONE && silent && l->data->audio_policy == XKD_AUDIO_DROP;
    /* A file of sound alone among videos is no damage: it is left out like one without sound, and counted so. */
    dropped = dropped || (result.fault == XKD_FAULT_NO_VIDEO && l->plan.wanted[XKD_AUDIO]);
    if (result.fault == XKD_FAULT_NONE && silent && l->data->audio_policy == XKD_AUDIO_REQUIRE) {
        result.fault = XKD_FAULT_NO_AUDIO;
        snprintf(result.message, sizeof result.message, "no sound (data.audio_policy=silence or drop accept that)");
    }
    if (result.fault == XKD_FAULT_NONE && !dropped) {
        s->silent[place] = silent;
        return true;
    }
    /* Tries are written by the one thread that has this place; the slot's arrays need no lock. */
    failure *f = &s->failures[place * MAX_TRIES + s->tries[place]++];
    *f = (failure){.sample = sample, .fault = result.fault, .dropped = dropped};
    snprintf(f->message, sizeof f->message, "%.150s", result.message);
    return false;
}

/* Numbers of one view of a clip. */
static int64_t video_floats(const xkd_loader *l, int64_t v)
{
    return 3 * l->shapes.video[v].frames * l->shapes.video[v].height * l->shapes.video[v].width;
}

static int64_t audio_floats(const xkd_loader *l, int64_t v)
{
    return l->shapes.audio[v].bands * l->shapes.audio[v].columns;
}

/* Written straight into the batch: [B,3,T,H,W] and [B,1,F,T], the place-th of B. */
static xkd_status make_views(worker *w, slot *s, int64_t place, const xkd_clip *clip)
{
    xkd_status status = XKD_OK;
    const xkd_loader *l = w->loader;
    /* Keyed by the sample drawn, not by its replacement: a view's augmentation does not depend on a
     * bad file. */
    xkd_view_key key = {l->sampler.seed, s->batch.epoch, (uint32_t)s->batch.sample[place]};
    if (l->planned) {
        float *out[XKD_MODALITIES] = {0};
        if (l->plan.wanted[XKD_VIDEO]) out[XKD_VIDEO] = s->batch.frames[0] + place * video_floats(l, 0);
        if (l->plan.wanted[XKD_AUDIO]) out[XKD_AUDIO] = s->batch.specs[0] + place * audio_floats(l, 0);
        return l->plan.make(w->maker, clip, &key, out);
    }
    /* Global views first, then local ones. */
    for (int64_t v = 0; l->plan.wanted[XKD_VIDEO] && v < l->shapes.video_views; v++) {
        XKD_TRY(xkd_view_video(w->viewer, clip, key, v, s->batch.frames[v] + place * video_floats(l, v)));
    }
    for (int64_t v = 0; l->plan.wanted[XKD_AUDIO] && v < l->shapes.audio_views; v++) {
        XKD_TRY(xkd_view_audio(w->viewer, clip, key, v, s->batch.specs[v] + place * audio_floats(l, v)));
    }
fail:
    return status;
}

/* One place of a batch. A clip that cannot be read is replaced by draw number 1, 2, ... of this place.
 * The number of replacements is bounded, so that a data set without a single readable file is an
 * error and not a loop. */
static xkd_status fill_place(worker *w, slot *s, int64_t place)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = w->cx;
    xkd_loader *l = w->loader;
    int64_t drawn = s->batch.sample[place], sample = s->batch.source[place];
    xkd_clip clip;
    while (!try_clip(w, s, place, sample, &clip, &status)) {
        /* The last failure leaves no room for another in `failures`. */
        if (s->tries[place] == MAX_TRIES)
            XKD_FAIL(XKD_ERR_DATA, "%s and %d files drawn in its place cannot be used (run `xkd data check`)",
                     l->manifest.samples[drawn % l->manifest.count].path, MAX_TRIES - 1);
        xkd_rng rng =
            xkd_rng_make(l->sampler.seed, s->batch.epoch, (uint32_t)drawn, (uint32_t)s->tries[place], XKD_RNG_REPLACE);
        s->batch.source[place] = sample = xkd_rng_below(&rng, l->manifest.count);
    }
    XKD_TRY(status);
    XKD_TRY(make_views(w, s, place, &clip));
fail:
    return status;
}

/* The lock is held only while work is handed out and given back; decoding and views run without it. */
static void *worker_main(void *arg)
{
    worker *w = arg;
    xkd_loader *l = w->loader;
    pthread_mutex_lock(&l->lock);
    while (!l->quit) {
        int64_t place = 0;
        slot *s = find_work(l, &place);
        if (!s) {
            pthread_cond_wait(&l->work, &l->lock);
            continue;
        }
        /* What is found is worked on without the lock: a place belongs to one thread. */
        l->active++;
        pthread_mutex_unlock(&l->lock);
        /* A difference, because the fetcher counts since it was made. */
        int64_t before = xkd_fetcher_restarts(w->fetcher);
        xkd_status status = fill_place(w, s, place);
        atomic_fetch_add(&l->restarts, xkd_fetcher_restarts(w->fetcher) - before);
        pthread_mutex_lock(&l->lock);
        /* One failure is enough to end the batch; later ones would only hide it. */
        if (status != XKD_OK && s->status == XKD_OK) {
            s->status = status;
            snprintf(s->message, sizeof s->message, "%.500s", xkd_last_error(w->cx));
        }
        xkd_clear_error(w->cx);
        l->active--;
        s->done++;
        /* For the caller, and for a seek that waits for `active` to reach 0. */
        pthread_cond_broadcast(&l->ready);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* Slots are allocated once and used for the whole run. */
static xkd_status make_slot(xkd_loader *l, slot *s)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    s->sequence = -1;
    s->batch.video_views = l->shapes.video_views;
    s->batch.audio_views = l->shapes.audio_views;
    for (int64_t v = 0; v < l->shapes.video_views; v++) {
        XKD_TRY(xkd_alloc(cx, &s->batch.frames[v], l->batch * video_floats(l, v), sizeof(float)));
    }
    for (int64_t v = 0; v < l->shapes.audio_views; v++) {
        XKD_TRY(xkd_alloc(cx, &s->batch.specs[v], l->batch * audio_floats(l, v), sizeof(float)));
    }
    XKD_TRY(xkd_alloc(cx, &s->batch.sample, l->batch, sizeof(int64_t)));
    XKD_TRY(xkd_alloc(cx, &s->batch.source, l->batch, sizeof(int64_t)));
    XKD_TRY(xkd_alloc(cx, &s->silent, l->batch, sizeof(int64_t)));
    XKD_TRY(xkd_alloc(cx, &s->tries, l->batch, sizeof(int64_t)));
    XKD_TRY(xkd_alloc(cx, &s->failures, l->batch * MAX_TRIES, sizeof(failure)));
fail:
    return status;
}

/* Takes slots that were never made. */
static void free_slot(slot *s)
{
    for (int v = 0; v < XKD_MAX_VIEWS; v++) {
        xkd_free(s->batch.frames[v]);
        xkd_free(s->batch.specs[v]);
    }
    xkd_free(s->batch.sample);
    xkd_free(s->batch.source);
    xkd_free(s->silent);
    xkd_free(s->tries);
    xkd_free(s->failures);
}

/* Of one slot, for all of its views. */
static int64_t batch_bytes(const xkd_loader *l)
{
    int64_t floats = 0;
    for (int64_t v = 0; v < l->shapes.video_views; v++) floats += video_floats(l, v);
    for (int64_t v = 0; v < l->shapes.audio_views; v++) floats += audio_floats(l, v);
    return l->batch * floats * (int64_t)sizeof(float);
}

/* Files that the manifest knows to be sound alone. */
static xkd_status drop_without_pictures(xkd_loader *l)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    int64_t kept = 0, all = l->manifest.count;
    if (!l->plan.wanted[XKD_VIDEO]) return XKD_OK;
    for (int64_t i = 0; i < all; i++) {
        if (l->manifest.samples[i].has_video == 0)
            xkd_sample_free(&l->manifest.samples[i]);
        else
            l->manifest.samples[kept++] = l->manifest.samples[i];
    }
    l->manifest.count = kept;
    l->stats.dropped_files += all - kept;
    if (kept == 0)
        XKD_FAIL(XKD_ERR_DATA, "%s: no file has pictures (sound alone: model.fwd_kwargs.modality=audio)",
                 l->data->path);
    if (kept < all)
        xkd_log(cx, XKD_LOG_WARN, "%lld of %lld files have no pictures and are left out", (long long)(all - kept),
                (long long)all);
fail:
    return status;
}

/* Reads the list of samples and applies split and audio policy.
 * Under `drop`, files known to be silent go before the first epoch; those whose sound is unknown are
 * found out when they are read. */
static xkd_status load_samples(xkd_loader *l)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    const xkd_data_config *d = l->data;
    XKD_TRY(l->plan.manifest ? xkd_manifest_copy(cx, l->plan.manifest, &l->manifest)
                             : xkd_manifest_load(cx, d->path, d->follow_links, &l->manifest));
    int64_t all = l->manifest.count;
    if (d->split) xkd_manifest_keep_split(&l->manifest, d->split);
    if (l->manifest.count == 0)
        XKD_FAIL(XKD_ERR_DATA, "%s: none of its %lld samples is of split \"%s\" (data.split=...)", d->path,
                 (long long)all, d->split);
    XKD_TRY(drop_without_pictures(l));
    /* Silence that is known from the manifest; -1, unknown, is found out on reading. */
    int64_t without = 0, kept = 0;
    for (int64_t i = 0; l->plan.wanted[XKD_AUDIO] && i < l->manifest.count; i++)
        without += l->manifest.samples[i].has_audio == 0;
    if (d->audio_policy == XKD_AUDIO_DROP && without) {
        for (int64_t i = 0; i < l->manifest.count; i++) {
            if (l->manifest.samples[i].has_audio == 0)
                xkd_sample_free(&l->manifest.samples[i]);
            else
                l->manifest.samples[kept++] = l->manifest.samples[i];
        }
        l->manifest.count = kept;
        l->stats.dropped_files += without;
    }
    static const char *const DONE[] = {"will be refused", "get silence", "are left out"};
    if (without)
        xkd_log(cx, XKD_LOG_WARN, "%lld of %lld files have no sound and %s (data.audio_policy)", (long long)without,
                (long long)(l->manifest.count + l->stats.dropped_files), DONE[d->audio_policy]);
    if (l->manifest.count == 0) XKD_FAIL(XKD_ERR_DATA, "%s: no file has sound", d->path);
    /* Sample numbers are 32 bits wide in the keys of the random generator. With every pass, for passes count as
     * samples. */
    if (l->manifest.count > UINT32_MAX / l->plan.passes) XKD_FAIL(XKD_ERR_DATA, "%s: more than 2^32 samples", d->path);
    l->sampler.samples = l->manifest.count * l->plan.passes;
    XKD_TRY(xkd_sampler_check(cx, &l->sampler));
    int64_t left_out = xkd_sampler_left_out(&l->sampler);
    if (!d->drop_last && left_out > 0)
        xkd_log(cx, XKD_LOG_INFO, "the last %" PRId64 " samples of an epoch make no whole %s and are left out",
                left_out, l->sampler.multiple > 1 ? "group of mmd_group samples" : "micro-batch");
fail:
    return status;
}

/* Two slots are the least: one with the caller, one being filled. */
static xkd_status make_ring(xkd_loader *l)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    l->batch = l->sampler.batch / (l->sampler.accumulate * l->sampler.world);
    l->steps = xkd_sampler_steps(&l->sampler);
    l->depth = MAX_DEPTH;
    /* Less look-ahead rather than more memory. A slot holds all views of a micro-batch in float: 32 clips of 32 frames
     * at 112 x 112 take 154 MB for the global view. */
    while (l->depth > 2 && l->depth * batch_bytes(l) > RING_BYTES) l->depth--;
    for (int i = 0; i < MAX_DEPTH; i++) l->slots[i].sequence = -1;
    for (int i = 0; i < l->depth; i++) XKD_TRY(make_slot(l, &l->slots[i]));
    XKD_TRY(xkd_alloc(cx, &l->order, l->sampler.samples, sizeof *l->order));
    XKD_TRY(xkd_alloc(cx, &l->bad, l->manifest.count, 1));
    XKD_TRY(xkd_alloc(cx, &l->dropped, l->manifest.count, 1));
    l->order_epoch = -1;
    if (l->data->cache != XKD_CACHE_NONE) XKD_TRY(xkd_cache_new(cx, l->data, l->manifest.count, &l->cache));
fail:
    return status;
}

/* Messages of a thread's own context are passed on to the caller's. */
static xkd_status start_workers(xkd_loader *l)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    XKD_TRY(xkd_alloc(cx, &l->workers, l->worker_count, sizeof *l->workers));
    for (int64_t i = 0; i < l->worker_count; i++) {
        worker *w = &l->workers[i];
        w->loader = l;
        w->cx = xkd_context_new();
        if (!w->cx) XKD_FAIL(XKD_ERR_MEMORY, "out of memory for loader threads");
        status = xkd_fetcher_new(w->cx, l->data, &l->manifest, l->cache, &w->fetcher);
        if (status == XKD_OK && l->planned) {
            xkd_fetcher_want(w->fetcher, l->plan.wanted, l->plan.short_side);
            status = l->plan.maker_new(w->cx, l->plan.user, &w->maker);
        } else if (status == XKD_OK) {
            status = xkd_viewer_new(w->cx, l->data, &w->viewer);
        }
        /* The thread's context dies with it, so its message is copied. */
        if (status != XKD_OK) XKD_FAIL(status, "%s", xkd_last_error(w->cx));
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0)
            XKD_FAIL(XKD_ERR_MEMORY, "cannot start loader thread %lld: lower data.workers", (long long)i + 1);
        w->started = true;
    }
fail:
    return status;
}

/* Threads start at once and fill the first batches while the model is still being built. plan NULL: pre-training. */
static xkd_status loader_new(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train,
                             const xkd_loader_plan *plan, int rank, int world, xkd_loader **out)
{
    xkd_status status = XKD_OK;
    xkd_loader *l = NULL;
    *out = NULL;
    if (data->workers < 1 || data->workers > MAX_WORKERS)
        XKD_FAIL(XKD_ERR_CONFIG, "data.workers=%lld: from 1 to %d", (long long)data->workers, MAX_WORKERS);
    if (!(data->decode_seconds > 0)) XKD_FAIL(XKD_ERR_CONFIG, "data.decode_seconds must be above 0");
    XKD_TRY(xkd_alloc(cx, &l, 1, sizeof *l));
    l->cx = cx;
    l->data = data;
    l->log_fd = -1;
    l->worker_count = data->workers;
    l->planned = plan != NULL;
    l->plan = plan ? *plan
                   : (xkd_loader_plan){.wanted = {!data->left_out[XKD_VIDEO], !data->left_out[XKD_AUDIO]}, .passes = 1};
    l->sampler = (xkd_sampler){.batch = train->batch,
                               .accumulate = train->accumulate > 0 ? train->accumulate : 1,
                               .rank = rank,
                               .world = world,
                               .multiple = plan ? 1 : train->micro_multiple,
                               .least = plan ? 1 : train->micro_least,
                               .shuffle = data->shuffle,
                               .drop_last = data->drop_last,
                               .seed = train->seed};
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->ready, NULL);
    XKD_TRY(xkd_view_shapes_of(cx, data, &l->shapes));
    /* The shapes' tables stay; a plan has one view of each wanted modality. */
    if (plan) {
        l->shapes.video_views = plan->wanted[XKD_VIDEO];
        l->shapes.audio_views = plan->wanted[XKD_AUDIO];
    }
    XKD_TRY(load_samples(l));
    XKD_TRY(make_ring(l));
    XKD_TRY(start_workers(l));
    *out = l;
    l = NULL;
fail:
    xkd_loader_free(l);
    return status;
}

xkd_status xkd_loader_new(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train, int rank,
                          int world, xkd_loader **out)
{
    return loader_new(cx, data, train, NULL, rank, world, out);
}

/* Cached files have the size of pre-training's frames. */
xkd_status xkd_loader_new_planned(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train,
                                  const xkd_loader_plan *plan, xkd_loader **out)
{
    *out = NULL;
    if (data->cache != XKD_CACHE_NONE)
        return xkd_fail(cx, XKD_ERR_CONFIG, "data.cache: is for pre-training only: set it to none");
    return loader_new(cx, data, train, plan, 0, 1, out);
}

/* Threads finish the place they are at, which a worker's time limit bounds, and are joined before
 * anything they use is freed. */
void xkd_loader_free(xkd_loader *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->quit = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int64_t i = 0; l->workers && i < l->worker_count; i++) {
        worker *w = &l->workers[i];
        if (w->started) pthread_join(w->thread, NULL);
        xkd_fetcher_free(w->fetcher);
        xkd_viewer_free(w->viewer);
        if (w->maker) l->plan.maker_free(w->maker);
        xkd_context_free(w->cx);
    }
    for (int i = 0; i < MAX_DEPTH; i++) free_slot(&l->slots[i]);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->ready);
    xkd_cache_free(l->cache);
    xkd_manifest_free(&l->manifest);
    if (l->log_fd >= 0) close(l->log_fd);
    xkd_free(l->log_path);
    xkd_free(l->workers);
    xkd_free(l->order);
    xkd_free(l->bad);
    xkd_free(l->dropped);
    xkd_free(l);
}

/* Failures before this call are counted but not logged in a file. */
xkd_status xkd_loader_set_folder(xkd_loader *l, const char *folder)
{
    xkd_status status = XKD_OK;
    xkd_free(l->log_path);
    l->log_path = NULL;
    if (l->log_fd >= 0) close(l->log_fd);
    l->log_fd = -1;
    XKD_TRY(xkd_join_path(l->cx, &l->log_path, folder, "bad_clips.jsonl"));
    XKD_TRY(xkd_append_open(l->cx, l->log_path, &l->log_fd));
fail:
    return status;
}

int64_t xkd_loader_steps_per_epoch(const xkd_loader *l)
{
    return l->steps;
}

int64_t xkd_loader_sample_count(const xkd_loader *l)
{
    return l->manifest.count;
}

const xkd_manifest *xkd_loader_manifest(const xkd_loader *l)
{
    return &l->manifest;
}

int64_t xkd_loader_ring_bytes(const xkd_loader *l)
{
    return l->depth * batch_bytes(l);
}

const xkd_view_shapes *xkd_loader_shapes(const xkd_loader *l)
{
    return &l->shapes;
}

/* Tells whether a resumed run has the data it began with. Paths, sizes and hashes where known;
 * contents are not read. The chaining makes it depend on the order as well. */
uint64_t xkd_loader_data_hash(const xkd_loader *l)
{
    XXH64_hash_t hash = 0;
    for (int64_t i = 0; i < l->manifest.count; i++) {
        const xkd_sample *s = &l->manifest.samples[i];
        /* The 0 at the end of the path separates it from what follows. */
        hash = XXH3_64bits_withSeed(s->path, strlen(s->path) + 1, hash);
        hash = XXH3_64bits_withSeed(&s->bytes, sizeof s->bytes, hash);
        hash = XXH3_64bits_withSeed(s->hash, strlen(s->hash), hash);
    }
    return hash;
}

/* Keeps the lines of bad_clips.jsonl in front of a place: what lies behind it will be met again. A torn last line goes as
 * well. The file is replaced in one step. */
static xkd_status cut_log(xkd_loader *l, uint32_t epoch, int64_t step)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    xkd_text kept = xkd_text_make(cx);
    char *text = NULL;
    int64_t size;
    if (l->log_fd < 0) return XKD_OK;
    status = xkd_read_file(cx, l->log_path, MOST_LOG_BYTES, XKD_ERR_DATA, &text, &size);
    if (status == XKD_ERR_DATA || status == XKD_ERR_STORAGE) {
        /* A log is no reason not to go on. */
        xkd_log(cx, XKD_LOG_WARN, "bad_clips.jsonl is not cut back: %s", xkd_last_error(cx));
        xkd_clear_error(cx);
        status = XKD_OK;
        goto fail;
    }
    XKD_TRY(status);
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        json_t *o = json_loadb(line, (size_t)(end - line), 0, NULL);
        const json_t *e = json_object_get(o, "epoch"), *s = json_object_get(o, "step");
        bool before =
            json_is_integer(e) && json_is_integer(s) &&
            (json_integer_value(e) < epoch || (json_integer_value(e) == epoch && json_integer_value(s) < step));
        json_decref(o);
        if (before) xkd_text_add(&kept, line, end + 1 - line);
    }
    XKD_TRY(kept.status);
    if (kept.size == size) goto fail;
    close(l->log_fd);
    l->log_fd = -1;
    XKD_TRY(xkd_write_file(cx, l->log_path, kept.data, kept.size));
    XKD_TRY(xkd_append_open(cx, l->log_path, &l->log_fd));
fail:
    xkd_text_free(&kept);
    xkd_free(text);
    return status;
}

/* Waits for places in work, then drops all slots: what they held is made again from its keys when it
 * is needed. */
xkd_status xkd_loader_seek(xkd_loader *l, uint32_t epoch, int64_t step)
{
    if (step < 0 || step >= l->steps)
        return xkd_fail(l->cx, XKD_ERR_INTERNAL, "step %lld of an epoch of %lld", (long long)step, (long long)l->steps);
    pthread_mutex_lock(&l->lock);
    l->paused = true;
    /* Places in work write into slots that are about to be given away. A place takes up to the time limit of a
     * decoding, and so may a seek. */
    while (l->active) pthread_cond_wait(&l->ready, &l->lock);
    l->base = ((int64_t)epoch * l->steps + step) * l->sampler.accumulate;
    l->consumed = 0;
    l->held = false;
    for (int i = 0; i < l->depth; i++) l->slots[i].sequence = -1;
    l->paused = false;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    return cut_log(l, epoch, step);
}

/* One line of bad_clips.jsonl.
 * JSON Lines, one write a line, so that a killed run leaves whole lines. */
static xkd_status write_failure(xkd_loader *l, const xkd_batch *b, int64_t place, const failure *f)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    if (l->log_fd < 0) return XKD_OK;
    json_t *line = json_pack("{s:I,s:I,s:I,s:I,s:s}", "epoch", (json_int_t)b->epoch, "step", (json_int_t)b->step,
                             "sample", (json_int_t)b->sample[place], "file", (json_int_t)f->sample, "reason",
                             xkd_media_fault_name(f->fault));
    json_t *path = NULL, *message = json_string(f->message);
    status = xkd_json_name(cx, l->manifest.samples[f->sample].path, &path);
    if (path) json_object_set_new(line, "path", path);
    if (message) json_object_set_new(line, "message", message);
    char *text = json_dumps(line, JSON_COMPACT);
    json_decref(line);
    XKD_TRY(status);
    if (!text) XKD_FAIL(XKD_ERR_MEMORY, "out of memory while writing bad_clips.jsonl");
    size_t length = strlen(text);
    text[length] = '\n'; /* in place of the final 0: one write per line */
    status = xkd_append(cx, l->log_fd, l->log_path, text, (int64_t)length + 1);
fail:
    free(text);
    return status;
}

/* From the log and not from this call's statistics: a run that is resumed does not read earlier epochs again. */
xkd_status xkd_loader_bad_files(xkd_loader *l, int64_t *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    char *text = NULL;
    uint8_t *seen = NULL;
    int64_t size;
    *out = 0;
    if (!l->log_path || !xkd_path_exists(l->log_path)) return XKD_OK;
    XKD_TRY(xkd_read_file(cx, l->log_path, MOST_LOG_BYTES, XKD_ERR_DATA, &text, &size));
    XKD_TRY(xkd_alloc(cx, &seen, l->manifest.count, 1));
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        json_t *o = json_loadb(line, (size_t)(end - line), 0, NULL);
        const json_t *number = json_object_get(o, "file");
        int64_t file = json_is_integer(number) ? json_integer_value(number) : -1;
        json_decref(o);
        /* Lines that a crash tore say nothing. */
        if (file < 0 || file >= l->manifest.count) continue;
        *out += !seen[file];
        seen[file] = 1;
    }
fail:
    xkd_free(seen);
    xkd_free(text);
    return status;
}

/* Only the first fault of a file is told in the log; all are in bad_clips.jsonl. The limit counts
 * files, not clips, so it does not depend on the length of the run. */
static xkd_status report_failure(xkd_loader *l, const xkd_batch *b, int64_t place, const failure *f)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    const char *path = l->manifest.samples[f->sample].path;
    if (f->dropped) {
        l->stats.dropped_files += !l->dropped[f->sample];
        l->dropped[f->sample] = 1;
        return XKD_OK;
    }
    /* Once a file, or a long run would fill the log. */
    if (!l->bad[f->sample]) xkd_log(cx, XKD_LOG_WARN, "%s: %s: %s", path, xkd_media_fault_name(f->fault), f->message);
    l->stats.bad_clips++;
    l->stats.bad_files += !l->bad[f->sample];
    l->bad[f->sample] = 1;
    XKD_TRY(write_failure(l, b, place, f));
    if (l->stats.bad_files > xkd_most_broken(l->data->max_bad_fraction, l->manifest.count))
        XKD_FAIL(XKD_ERR_DATA,
                 "%lld of %lld files cannot be read, more than data.max_bad_fraction allows; the last one is %s: %s "
                 "(run `xkd data check`)",
                 (long long)l->stats.bad_files, (long long)l->manifest.count, path, f->message);
fail:
    return status;
}

/* In order of places and tries, which makes log and statistics reproducible. */
static xkd_status report_batch(xkd_loader *l, const slot *s)
{
    xkd_status status = XKD_OK;
    for (int64_t i = 0; i < s->batch.count; i++) {
        l->stats.silent_clips += s->silent[i];
        for (int64_t k = 0; k < s->tries[i]; k++)
            XKD_TRY(report_failure(l, &s->batch, i, &s->failures[i * MAX_TRIES + k]));
    }
    l->stats.clips += s->batch.count;
fail:
    return status;
}

/* The slot of the last call is given back first. Failures are reported before the batch is: a run
 * with too many of them ends here. */
xkd_status xkd_loader_next(xkd_loader *l, const xkd_batch **out)
{
    double start = xkd_now();
    *out = NULL;
    pthread_mutex_lock(&l->lock);
    /* Gives back the batch of the call before: the threads may open its slot anew. */
    if (l->held) l->consumed++;
    l->held = true;
    pthread_cond_broadcast(&l->work);
    slot *s = &l->slots[l->consumed % l->depth];
    /* Waiting by sequence: the slot of a ring may still hold the batch before. */
    while (s->sequence != l->consumed || s->done < s->batch.count) pthread_cond_wait(&l->ready, &l->lock);
    pthread_mutex_unlock(&l->lock);
    /* From here on the slot is the caller's until the next call. */
    s->batch.wait_seconds = xkd_now() - start;
    l->stats.wait_seconds += s->batch.wait_seconds;
    xkd_status status = report_batch(l, s);
    if (s->status != XKD_OK) return xkd_fail(l->cx, s->status, "%s", s->message);
    if (status == XKD_OK) *out = &s->batch;
    return status;
}

/* Counts of delivered batches only, whatever has been read ahead. */
void xkd_loader_stats(const xkd_loader *l, xkd_loader_statistics *out)
{
    *out = l->stats;
    out->restarts = atomic_load(&l->restarts);
}
