/* The threads of the loader, which fill places of micro-batches: decoding, replacement of bad clips, views. */
#include "data/loader_parts.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/rng.h"
#include "data/fetch.h"
#include "data/sampler.h"

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
static void open_slot(xkd_loader *l, xkd_loader_slot *s, int64_t sequence)
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
    xkd_raw_batch_empty(&s->raw);
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
static xkd_loader_slot *find_work(xkd_loader *l, int64_t *place)
{
    if (l->paused) return NULL;
    for (int64_t q = l->consumed; q < l->consumed + l->depth; q++) {
        xkd_loader_slot *s = &l->slots[q % l->depth];
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
static bool try_clip(xkd_loader_worker *w, xkd_loader_slot *s, int64_t place, int64_t sample, xkd_clip *clip,
                     xkd_status *status)
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
    xkd_loader_failure *f = &s->failures[place * XKD_LOADER_TRIES + s->tries[place]++];
    *f = (xkd_loader_failure){.sample = sample, .fault = result.fault, .dropped = dropped};
    snprintf(f->message, sizeof f->message, "%.150s", result.message);
    return false;
}

/* Numbers of one view of a clip. */
int64_t xkd_loader_video_floats(const xkd_loader *l, int64_t v)
{
    return 3 * l->shapes.video[v].frames * l->shapes.video[v].height * l->shapes.video[v].width;
}

int64_t xkd_loader_audio_floats(const xkd_loader *l, int64_t v)
{
    return l->shapes.audio[v].bands * l->shapes.audio[v].columns;
}

/* Written straight into the batch: [B,3,T,H,W] and [B,1,F,T], the place-th of B. */
static xkd_status make_views(xkd_loader_worker *w, xkd_loader_slot *s, int64_t place, const xkd_clip *clip)
{
    xkd_status status = XKD_OK;
    const xkd_loader *l = w->loader;
    /* Keyed by the sample drawn, not by its replacement: a view's augmentation does not depend on a
     * bad file. */
    xkd_view_key key = {l->sampler.seed, s->batch.epoch, (uint32_t)s->batch.sample[place]};
    if (l->is_raw) return xkd_raw_put(w->cx, &s->raw, clip, key, place);
    if (l->planned) {
        float *out[XKD_MODALITIES] = {0};
        if (l->plan.wanted[XKD_VIDEO]) out[XKD_VIDEO] = s->batch.frames[0] + place * xkd_loader_video_floats(l, 0);
        if (l->plan.wanted[XKD_AUDIO]) out[XKD_AUDIO] = s->batch.specs[0] + place * xkd_loader_audio_floats(l, 0);
        return l->plan.make(w->maker, clip, &key, out);
    }
    /* Global views first, then local ones. */
    for (int64_t v = 0; l->plan.wanted[XKD_VIDEO] && v < l->shapes.video_views; v++) {
        XKD_TRY(xkd_view_video(w->viewer, clip, key, v, s->batch.frames[v] + place * xkd_loader_video_floats(l, v)));
    }
    for (int64_t v = 0; l->plan.wanted[XKD_AUDIO] && v < l->shapes.audio_views; v++) {
        XKD_TRY(xkd_view_audio(w->viewer, clip, key, v, s->batch.specs[v] + place * xkd_loader_audio_floats(l, v)));
    }
fail:
    return status;
}

/* One place of a batch. A clip that cannot be read is replaced by draw number 1, 2, ... of this place.
 * The number of replacements is bounded, so that a data set without a single readable file is an
 * error and not a loop. */
static xkd_status fill_place(xkd_loader_worker *w, xkd_loader_slot *s, int64_t place)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = w->cx;
    xkd_loader *l = w->loader;
    int64_t drawn = s->batch.sample[place], sample = s->batch.source[place];
    xkd_clip clip;
    while (!try_clip(w, s, place, sample, &clip, &status)) {
        /* The last failure leaves no room for another in `failures`. */
        if (s->tries[place] == XKD_LOADER_TRIES)
            XKD_FAIL(XKD_ERR_DATA, "%s and %d files drawn in its place cannot be used (run `xkd data check`)",
                     l->manifest.samples[drawn % l->manifest.count].path, XKD_LOADER_TRIES - 1);
        xkd_rng rng =
            xkd_rng_make(l->sampler.seed, s->batch.epoch, (uint32_t)drawn, (uint32_t)s->tries[place], XKD_RNG_REPLACE);
        s->batch.source[place] = sample = xkd_rng_below(&rng, l->manifest.count);
    }
    XKD_TRY(status);
    XKD_TRY(make_views(w, s, place, &clip));
fail:
    return status;
}

/* By the time that the threads have gone round once, the disk has been asked for the clip that is next. */
static void read_ahead(const xkd_loader_worker *w, const xkd_loader_slot *s, int64_t place)
{
    const xkd_loader *l = w->loader;
    int64_t next = place + l->worker_count;
    if (!l->manifest.pack || next >= s->batch.count) return;
    int64_t drawn = s->batch.sample[next];
    xkd_rng rng = xkd_rng_make(l->sampler.seed, s->batch.epoch, (uint32_t)drawn, 0, XKD_RNG_CLIP);
    xkd_fetch_ahead(w->fetcher, drawn % l->manifest.count, xkd_rng_uniform(&rng));
}

/* The lock is held only while work is handed out and given back; decoding and views run without it. */
void *xkd_loader_work(void *arg)
{
    xkd_loader_worker *w = arg;
    xkd_loader *l = w->loader;
    pthread_mutex_lock(&l->lock);
    while (!l->quit) {
        int64_t place = 0;
        xkd_loader_slot *s = find_work(l, &place);
        if (!s) {
            pthread_cond_wait(&l->work, &l->lock);
            continue;
        }
        /* What is found is worked on without the lock: a place belongs to one thread. */
        l->active++;
        pthread_mutex_unlock(&l->lock);
        /* A difference, because the fetcher counts since it was made. */
        int64_t before = xkd_fetcher_restarts(w->fetcher);
        read_ahead(w, s, place);
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
        xkd_tick();
        /* For the caller, and for a seek that waits for `active` to reach 0. */
        pthread_cond_broadcast(&l->ready);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}
