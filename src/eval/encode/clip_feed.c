/* The ring's counters and the state of the list are under the lock; a slot's content belongs to the decoding thread until
 * `publish` and to the user's until xkd_clip_feed_release. */
#include "eval/encode/clip_feed.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base/alloc.h"
#include "base/context.h"

/* Between two looks at the progress callback while nothing comes. */
enum { LOOK_NANOSECONDS = 100000000 };

struct xkd_clip_feed {
    xkd_context *cx;     /* of the user's thread */
    xkd_context *own_cx; /* of the decoding thread: messages of one thread each */
    xkd_clip_options options;
    xkd_fed_clip *slots;
    int64_t slot_count;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int64_t head, tail; /* slots [head, tail) are filled, modulo slot_count */
    const xkd_embed_input *inputs;
    int64_t count;
    bool busy;           /* a list is being decoded */
    bool over;           /* the thread is to end */
    atomic_bool give_up; /* the list at hand is not wanted any more; read without the lock while a file is decoded */
    xkd_status status;   /* of the last list */
    int64_t producing;   /* input being decoded; the thread's */
};

/* ---- the decoding thread ---- */

/* Waits for a free slot; NULL when the list has been given up. */
static xkd_fed_clip *free_slot(xkd_clip_feed *f)
{
    pthread_mutex_lock(&f->lock);
    while (!f->give_up && f->tail - f->head == f->slot_count) pthread_cond_wait(&f->changed, &f->lock);
    xkd_fed_clip *s = f->give_up ? NULL : &f->slots[f->tail % f->slot_count];
    /* The slot is not counted yet: the user cannot see it until `publish`, so it is filled outside the lock. */
    pthread_mutex_unlock(&f->lock);
    return s;
}

/* Hands the slot at `tail` to the other thread. */
static void publish(xkd_clip_feed *f)
{
    pthread_mutex_lock(&f->lock);
    f->tail++;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

/* The clip is written straight into the ring: 5 MB are copied once, into the batch. */
static xkd_status reserve(void *user, xkd_modality modality, float **clip)
{
    xkd_clip_feed *f = user;
    xkd_fed_clip *s = free_slot(f);
    (void)modality;
    /* Not an error to report: the status of a list that was given up is dropped. */
    if (!s) return XKD_ERR_INTERRUPTED;
    *clip = s->clip;
    return XKD_OK;
}

static xkd_status commit(void *user, const xkd_clip_place *place)
{
    xkd_clip_feed *f = user;
    xkd_fed_clip *s = &f->slots[f->tail % f->slot_count]; /* the one just reserved */
    s->end = false;
    s->input = f->producing;
    s->place = *place;
    publish(f);
    return XKD_OK;
}

/* One decoder keeps ahead of a base encoder, which needs 0.4 s a clip on two cores, and files stay in order. */
static xkd_status produce(xkd_clip_feed *f, xkd_clipper *clipper)
{
    xkd_status status = XKD_OK;
    const xkd_clip_sink sink = {f, reserve, commit};
    for (f->producing = 0; f->producing < f->count && !f->give_up; f->producing++) {
        const xkd_embed_input *in = &f->inputs[f->producing];
        xkd_media_result result;
        XKD_TRY(in->memory ? xkd_clipper_run_memory(clipper, in->memory, in->number, &sink, &result)
                           : xkd_clipper_run(clipper, in->manifest, in->sample, in->number, in->draw, &sink, &result));
        xkd_fed_clip *s = free_slot(f);
        /* An end goes through the ring like a clip, so it arrives behind the last clip of its file. */
        if (!s) break;
        s->end = true;
        s->input = f->producing;
        s->result = result;
        publish(f);
    }
fail:
    return status;
}

/* One list after the other. Errors travel in the feed: the user reports them when it has used what came before. */
static void *decode_lists(void *arg)
{
    xkd_clip_feed *f = arg;
    xkd_clipper *clipper = NULL;
    pthread_mutex_lock(&f->lock);
    for (;;) {
        while (!f->busy && !f->over) pthread_cond_wait(&f->changed, &f->lock);
        if (!f->busy) break;
        pthread_mutex_unlock(&f->lock);
        xkd_clear_error(f->own_cx);
        xkd_status status = clipper ? XKD_OK : xkd_clipper_new(f->own_cx, &f->options, &clipper);
        if (status == XKD_OK) status = produce(f, clipper);
        pthread_mutex_lock(&f->lock);
        f->status = f->give_up ? XKD_OK : status; /* what followed from giving up is no fault */
        f->busy = false;
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->lock);
    xkd_clipper_free(clipper);
    return NULL;
}

/* ---- the user's thread ---- */

xkd_status xkd_clip_feed_new(xkd_context *cx, const xkd_clip_options *options, int64_t slots, int64_t floats,
                             xkd_clip_feed **out)
{
    xkd_status status = XKD_OK;
    xkd_clip_feed *f = NULL;
    pthread_condattr_t attributes;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &f, 1, sizeof *f));
    f->cx = cx;
    f->options = *options;
    f->options.give_up = &f->give_up;
    f->slot_count = slots;
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* the wall clock may be set while we wait */
    pthread_cond_init(&f->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    XKD_TRY(xkd_alloc(cx, &f->slots, slots, sizeof *f->slots));
    for (int64_t i = 0; i < slots; i++) XKD_TRY(xkd_alloc(cx, &f->slots[i].clip, floats, sizeof(float)));
    f->own_cx = xkd_context_branch(cx); /* made here, where a failure can be reported */
    if (!f->own_cx) XKD_FAIL(XKD_ERR_MEMORY, "out of memory");
    if (pthread_create(&f->thread, NULL, decode_lists, f) != 0)
        XKD_FAIL(XKD_ERR_MEMORY, "cannot start the decoding thread");
    f->started = true;
    *out = f;
    f = NULL;
fail:
    xkd_clip_feed_free(f);
    return status;
}

void xkd_clip_feed_free(xkd_clip_feed *f)
{
    if (!f) return;
    if (f->started) {
        xkd_clip_feed_cancel(f);
        pthread_mutex_lock(&f->lock);
        f->over = true;
        pthread_cond_broadcast(&f->changed);
        pthread_mutex_unlock(&f->lock);
        pthread_join(f->thread, NULL);
    }
    for (int64_t i = 0; f->slots && i < f->slot_count; i++) xkd_free(f->slots[i].clip);
    xkd_free(f->slots);
    xkd_context_free(f->own_cx);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
    xkd_free(f);
}

void xkd_clip_feed_begin(xkd_clip_feed *f, const xkd_embed_input *inputs, int64_t count)
{
    pthread_mutex_lock(&f->lock);
    f->inputs = inputs;
    f->count = count;
    f->head = f->tail = 0;
    f->status = XKD_OK;
    f->give_up = false;
    f->busy = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

/* Waits until something changes, or for as long as may pass between two questions. Called with the lock. */
static void wait_a_little(xkd_clip_feed *f)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_NANOSECONDS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&f->changed, &f->lock, &until);
}

xkd_status xkd_clip_feed_next(xkd_clip_feed *f, const xkd_fed_clip **out)
{
    xkd_status status = XKD_OK;
    bool asked = xkd_wants_progress(f->cx);
    *out = NULL;
    pthread_mutex_lock(&f->lock);
    while (f->head == f->tail && f->busy && status == XKD_OK) {
        if (!asked) {
            pthread_cond_wait(&f->changed, &f->lock);
            continue;
        }
        wait_a_little(f);
        if (f->head < f->tail || !f->busy) break;
        pthread_mutex_unlock(&f->lock);
        status = xkd_tell_progress(f->cx, "decode", 0, 0);
        pthread_mutex_lock(&f->lock);
    }
    if (status == XKD_OK && f->head < f->tail)
        *out = &f->slots[f->head % f->slot_count];
    else if (status == XKD_OK && f->status != XKD_OK)
        status = xkd_fail(f->cx, f->status, "%s", xkd_last_error(f->own_cx));
    pthread_mutex_unlock(&f->lock);
    return status;
}

void xkd_clip_feed_release(xkd_clip_feed *f)
{
    pthread_mutex_lock(&f->lock);
    f->head++;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

void xkd_clip_feed_cancel(xkd_clip_feed *f)
{
    pthread_mutex_lock(&f->lock);
    f->give_up = true;
    pthread_cond_broadcast(&f->changed);
    while (f->busy) pthread_cond_wait(&f->changed, &f->lock);
    f->head = f->tail;
    f->status = XKD_OK;
    pthread_mutex_unlock(&f->lock);
}

/* ---- lists ---- */

xkd_status xkd_input_list_of(xkd_context *cx, const char *const *paths, int64_t count, xkd_input_list *out)
{
    xkd_status status = XKD_OK;
    *out = (xkd_input_list){0};
    XKD_TRY(xkd_alloc(cx, &out->manifests, count, sizeof *out->manifests));
    XKD_TRY(xkd_alloc(cx, &out->inputs, count, sizeof *out->inputs));
    for (int64_t i = 0; i < count; i++) {
        out->count++; /* also of one that is only half made */
        XKD_TRY(xkd_manifest_of_file(cx, paths[i], &out->manifests[i]));
        out->inputs[i] = (xkd_embed_input){.manifest = &out->manifests[i], .number = i, .draw = i};
    }
fail:
    return status;
}

void xkd_input_list_free(xkd_input_list *list)
{
    for (int64_t i = 0; i < list->count; i++) xkd_manifest_free(&list->manifests[i]);
    xkd_free(list->manifests);
    xkd_free(list->inputs);
    *list = (xkd_input_list){0};
}
