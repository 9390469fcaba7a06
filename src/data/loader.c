/* Threads fill micro-batches ahead of the caller. The ring of slots is ordered by sequence number;
 * threads take single places (clip and views of one sample) of the oldest unfinished slot, so that
 * the batch waited for is done first. Every random draw is keyed by epoch, sample and try, never by
 * thread or time: the data are the same for any number of workers. */
#include "data/loader_parts.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "data/fetch.h"
#include "data/index.h"
#include "data/pack.h"
#include "data/sampler.h"
#include "data/shared_list.h"

/* The ring is kept below this where two batches allow it: large batches need little look-ahead. */
static const int64_t RING_BYTES = (int64_t)512 << 20;

/* Slots are allocated once and used for the whole run. */
static xkd_status make_slot(xkd_loader *l, xkd_loader_slot *s)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    s->sequence = -1;
    s->batch.video_views = l->shapes.video_views;
    s->batch.audio_views = l->shapes.audio_views;
    if (l->is_raw) {
        XKD_TRY(xkd_raw_batch_new(cx, &l->raw, l->memory, &s->raw));
        s->batch.raw = &s->raw;
    }
    for (int64_t v = 0; v < l->shapes.video_views && !l->is_raw; v++) {
        XKD_TRY(xkd_alloc(cx, &s->batch.frames[v], l->batch * xkd_loader_video_floats(l, v), sizeof(float)));
    }
    for (int64_t v = 0; v < l->shapes.audio_views && !l->is_raw; v++) {
        XKD_TRY(xkd_alloc(cx, &s->batch.specs[v], l->batch * xkd_loader_audio_floats(l, v), sizeof(float)));
    }
    XKD_TRY(xkd_alloc(cx, &s->batch.sample, l->batch, sizeof(int64_t)));
    XKD_TRY(xkd_alloc(cx, &s->batch.source, l->batch, sizeof(int64_t)));
    XKD_TRY(xkd_alloc(cx, &s->silent, l->batch, sizeof(int64_t)));
    XKD_TRY(xkd_alloc(cx, &s->tries, l->batch, sizeof(int64_t)));
    XKD_TRY(xkd_alloc(cx, &s->failures, l->batch * XKD_LOADER_TRIES, sizeof(xkd_loader_failure)));
fail:
    return status;
}

/* Takes slots that were never made. */
static void free_slot(xkd_loader_slot *s)
{
    xkd_raw_batch_free(&s->raw);
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
    if (l->is_raw) return l->raw.bytes;
    for (int64_t v = 0; v < l->shapes.video_views; v++) floats += xkd_loader_video_floats(l, v);
    for (int64_t v = 0; v < l->shapes.audio_views; v++) floats += xkd_loader_audio_floats(l, v);
    return l->batch * floats * (int64_t)sizeof(float);
}

static bool may_have_pictures(const void *user, const xkd_sample *s, int64_t i)
{
    (void)user, (void)i;
    return s->has_video != 0;
}

static bool may_have_sound(const void *user, const xkd_sample *s, int64_t i)
{
    (void)user, (void)i;
    return s->has_audio != 0;
}

/* Files that the manifest knows to be sound alone. */
static xkd_status drop_without_pictures(const xkd_loader *l, xkd_manifest *m, int64_t *dropped_files)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    int64_t all = m->count;
    if (!l->plan.wanted[XKD_VIDEO]) return XKD_OK;
    int64_t dropped = xkd_manifest_keep(m, may_have_pictures, NULL);
    *dropped_files += dropped;
    if (dropped == all)
        XKD_FAIL(XKD_ERR_DATA, "%s: no file has pictures (sound alone: model.fwd_kwargs.modality=audio)",
                 l->data->path);
    if (dropped)
        xkd_log(cx, XKD_LOG_WARN, "%lld of %lld files have no pictures and are left out", (long long)dropped,
                (long long)all);
fail:
    return status;
}

/* Reads the list of samples and applies split and audio policy: it is final then.
 * Under `drop`, files known to be silent go before the first epoch; those whose sound is unknown are
 * found out when they are read. */
static xkd_status make_list(xkd_context *cx, void *user, xkd_manifest *m, int64_t *dropped_files)
{
    xkd_status status = XKD_OK;
    const xkd_loader *l = user;
    const xkd_data_config *d = l->data;
    XKD_TRY(l->plan.manifest ? xkd_manifest_copy(cx, l->plan.manifest, m)
                             : xkd_manifest_load(cx, d->path, d->follow_links, m));
    int64_t all = m->count;
    if (d->split) xkd_manifest_keep_split(m, d->split);
    if (m->count == 0)
        XKD_FAIL(XKD_ERR_DATA, "%s: none of its %lld samples is of split \"%s\" (data.split=...)", d->path,
                 (long long)all, d->split);
    XKD_TRY(drop_without_pictures(l, m, dropped_files));
    /* Silence that is known from the manifest; -1, unknown, is found out on reading. */
    int64_t without = 0;
    for (int64_t i = 0; l->plan.wanted[XKD_AUDIO] && i < m->count; i++) without += m->samples[i].has_audio == 0;
    if (d->audio_policy == XKD_AUDIO_DROP && without) *dropped_files += xkd_manifest_keep(m, may_have_sound, NULL);
    static const char *const DONE[] = {"will be refused", "get silence", "are left out"};
    if (without)
        xkd_log(cx, XKD_LOG_WARN, "%lld of %lld files have no sound and %s (data.audio_policy)", (long long)without,
                (long long)(m->count + *dropped_files), DONE[d->audio_policy]);
    if (m->count == 0)
        XKD_FAIL(XKD_ERR_DATA, "%s: no file has sound (pictures alone: model.fwd_kwargs.modality=video)", d->path);
fail:
    return status;
}

/* All that make_list looks at beside the file. */
static uint64_t list_settings(const xkd_loader *l)
{
    const xkd_data_config *d = l->data;
    const int64_t numbers[] = {d->follow_links, d->audio_policy, l->plan.wanted[XKD_VIDEO], l->plan.wanted[XKD_AUDIO],
                               l->plan.manifest != NULL};
    const char *split = d->split ? d->split : "";
    return XXH3_64bits_withSeed(numbers, sizeof numbers, XXH3_64bits(split, strlen(split)));
}

static xkd_status load_samples(xkd_loader *l)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    const xkd_data_config *d = l->data;
    const xkd_list_source source = {.path = d->path, .settings = list_settings(l), .make = make_list, .user = l};
    XKD_TRY(xkd_list_share(cx, l->plan.dist, &source, &l->manifest, &l->stats.dropped_files));
    /* Sample numbers are 32 bits wide in the keys of the random generator. With every pass, for passes count as
     * samples. */
    if (l->manifest.count > UINT32_MAX / l->plan.passes)
        XKD_FAIL(XKD_ERR_DATA, "%s: more than 2^32 samples (divide the set)", d->path);
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
    l->depth = XKD_LOADER_DEPTH;
    if (l->is_raw) XKD_TRY(xkd_raw_plan_new(cx, l->data, l->batch, &l->raw));
    /* Less look-ahead rather than more memory. A slot holds all views of a micro-batch in float: 32 clips of 32 frames
     * at 112 x 112 take 154 MB for the global view. */
    while (l->depth > 2 && l->depth * batch_bytes(l) > RING_BYTES) l->depth--;
    for (int i = 0; i < XKD_LOADER_DEPTH; i++) l->slots[i].sequence = -1;
    for (int i = 0; i < l->depth && !l->plan.look; i++) XKD_TRY(make_slot(l, &l->slots[i]));
    XKD_TRY(xkd_alloc(cx, &l->order, l->sampler.samples, sizeof *l->order));
    XKD_TRY(xkd_alloc(cx, &l->bad, l->manifest.count, 1));
    XKD_TRY(xkd_alloc(cx, &l->dropped, l->manifest.count, 1));
    l->order_epoch = -1;
    bool cached = l->data->cache != XKD_CACHE_NONE;
    if (cached && l->manifest.pack) xkd_log(cx, XKD_LOG_INFO, "%s is a pack: data.cache has no effect", l->data->path);
    if (cached && !l->manifest.pack) XKD_TRY(xkd_cache_new(cx, l->data, l->manifest.count, &l->cache));
fail:
    return status;
}

/* What is not an error and not quite the same: views of frames as they are in the files, made of those of a pack. */
static void tell_of_pack(xkd_loader *l)
{
    int64_t side = l->manifest.pack ? xkd_pack_about(l->manifest.pack)->short_side : 0;
    if (side && l->planned && l->plan.wanted[XKD_VIDEO] && !l->plan.short_side)
        xkd_log(l->cx, XKD_LOG_INFO, "frames have the pack's short side of %" PRId64 ", not that of the files", side);
}

/* Messages of a thread's own context are passed on to the caller's. */
static xkd_status start_workers(xkd_loader *l)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    XKD_TRY(xkd_alloc(cx, &l->workers, l->worker_count, sizeof *l->workers));
    for (int64_t i = 0; i < l->worker_count; i++) {
        xkd_loader_worker *w = &l->workers[i];
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
        if (status == XKD_OK) status = xkd_fetcher_check(w->fetcher);
        /* The thread's context dies with it, so its message is copied. */
        if (status != XKD_OK) XKD_FAIL(status, "%s", xkd_last_error(w->cx));
        if (l->plan.look) continue;
        if (pthread_create(&w->thread, NULL, xkd_loader_work, w) != 0)
            XKD_FAIL(XKD_ERR_MEMORY, "cannot start loader thread %lld: lower data.workers", (long long)i + 1);
        w->started = true;
    }
fail:
    return status;
}

/* How a loader is made; plan NULL: for pre-training. */
typedef struct {
    const xkd_loader_plan *plan;
    int rank, world;
    bool raw;
    xkd_memory *memory;
    xkd_dist *dist; /* whose ranks share the list; NULL: none */
} making;

static xkd_sampler sampler_of(const xkd_data_config *data, const xkd_train_config *train, const making *how)
{
    return (xkd_sampler){.batch = train->batch,
                         .accumulate = train->accumulate > 0 ? train->accumulate : 1,
                         .rank = how->rank,
                         .world = how->world,
                         .multiple = how->plan ? 1 : train->micro_multiple,
                         .least = how->plan ? 1 : train->micro_least,
                         .shuffle = data->shuffle,
                         .drop_last = data->drop_last,
                         .seed = train->seed};
}

/* Threads start at once and fill the first batches while the model is still being built. */
static xkd_status loader_new(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train,
                             const making *how, xkd_loader **out)
{
    const xkd_loader_plan *plan = how->plan;
    xkd_status status = XKD_OK;
    xkd_loader *l = NULL;
    *out = NULL;
    if (data->workers < 1 || data->workers > XKD_LOADER_WORKERS)
        XKD_FAIL(XKD_ERR_CONFIG, "data.workers=%lld: from 1 to %d", (long long)data->workers, XKD_LOADER_WORKERS);
    if (!(data->decode_seconds > 0)) XKD_FAIL(XKD_ERR_CONFIG, "data.decode_seconds must be above 0");
    XKD_TRY(xkd_alloc(cx, &l, 1, sizeof *l));
    l->cx = cx;
    l->data = data;
    l->log_fd = -1;
    l->worker_count = plan && plan->look ? 1 : data->workers;
    l->planned = plan != NULL;
    l->is_raw = how->raw;
    l->memory = how->memory;
    l->plan = plan ? *plan
                   : (xkd_loader_plan){.wanted = {!data->left_out[XKD_VIDEO], !data->left_out[XKD_AUDIO]},
                                       .passes = 1,
                                       .dist = how->dist};
    l->sampler = sampler_of(data, train, how);
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
    tell_of_pack(l);
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
    return loader_new(cx, data, train, &(making){.rank = rank, .world = world}, out);
}

xkd_status xkd_loader_new_raw(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train, int rank,
                              int world, xkd_memory *memory, xkd_loader **out)
{
    return loader_new(cx, data, train, &(making){.rank = rank, .world = world, .raw = true, .memory = memory}, out);
}

xkd_status xkd_loader_new_ranked(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train,
                                 xkd_dist *dist, bool raw, xkd_memory *memory, xkd_loader **out)
{
    const making how = {.rank = xkd_dist_rank(dist),
                        .world = xkd_dist_size(dist),
                        .raw = raw,
                        .memory = raw ? memory : NULL,
                        .dist = dist};
    return loader_new(cx, data, train, &how, out);
}

/* Cached files have the size of pre-training's frames. */
xkd_status xkd_loader_new_planned(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train,
                                  const xkd_loader_plan *plan, xkd_loader **out)
{
    *out = NULL;
    if (data->cache != XKD_CACHE_NONE)
        return xkd_fail(cx, XKD_ERR_CONFIG, "data.cache: is for pre-training only: set it to none");
    return loader_new(cx, data, train,
                      &(making){.plan = plan, .rank = plan->rank, .world = plan->world ? plan->world : 1}, out);
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
        xkd_loader_worker *w = &l->workers[i];
        if (w->started) pthread_join(w->thread, NULL);
        xkd_fetcher_free(w->fetcher);
        xkd_viewer_free(w->viewer);
        if (w->maker) l->plan.maker_free(w->maker);
        xkd_context_free(w->cx);
    }
    for (int i = 0; i < XKD_LOADER_DEPTH; i++) free_slot(&l->slots[i]);
    xkd_raw_plan_free(&l->raw);
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
    xkd_free(l->news);
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

int64_t xkd_loader_last_count(const xkd_loader *l)
{
    int64_t first, count;
    xkd_sampler_part(&l->sampler, l->steps - 1, 0, &first, &count);
    return count;
}

int64_t xkd_loader_sample_count(const xkd_loader *l)
{
    return l->manifest.count;
}

const xkd_manifest *xkd_loader_manifest(const xkd_loader *l)
{
    return &l->manifest;
}

const xkd_raw_plan *xkd_loader_raw(const xkd_loader *l)
{
    return l->is_raw ? &l->raw : NULL;
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
    char text[33];
    for (int64_t i = 0; i < l->manifest.count; i++) {
        const xkd_sample *s = &l->manifest.samples[i];
        /* The 0 at the end of the path separates it from what follows. */
        hash = XXH3_64bits_withSeed(s->path, strlen(s->path) + 1, hash);
        hash = XXH3_64bits_withSeed(&s->bytes, sizeof s->bytes, hash);
        xkd_sample_hash(s, text);
        hash = XXH3_64bits_withSeed(text, strlen(text), hash);
    }
    return hash;
}

/* Waits for places in work, then drops all slots: what they held is made again from its keys when it
 * is needed. */
xkd_status xkd_loader_seek(xkd_loader *l, uint32_t epoch, int64_t step)
{
    if (step < 0 || step >= l->steps)
        return xkd_fail(l->cx, XKD_ERR_INTERNAL, "step %lld of an epoch of %lld", (long long)step, (long long)l->steps);
    for (int i = 0; i < l->depth; i++) xkd_raw_batch_wait(&l->slots[i].raw);
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
    return xkd_loader_cut_log(l, epoch, step);
}

/* The slot of the last call is given back first. Failures are reported before the batch is: a run
 * with too many of them ends here. */
xkd_status xkd_loader_next(xkd_loader *l, const xkd_batch **out)
{
    double start = xkd_now();
    *out = NULL;
    if (l->held) xkd_raw_batch_wait(&l->slots[l->consumed % l->depth].raw);
    pthread_mutex_lock(&l->lock);
    /* Gives back the batch of the call before: the threads may open its slot anew. */
    if (l->held) l->consumed++;
    l->held = true;
    pthread_cond_broadcast(&l->work);
    xkd_loader_slot *s = &l->slots[l->consumed % l->depth];
    /* Waiting by sequence: the slot of a ring may still hold the batch before. */
    while (s->sequence != l->consumed || s->done < s->batch.count) pthread_cond_wait(&l->ready, &l->lock);
    pthread_mutex_unlock(&l->lock);
    /* From here on the slot is the caller's until the next call. */
    s->batch.wait_seconds = xkd_now() - start;
    l->stats.wait_seconds += s->batch.wait_seconds;
    xkd_status status = xkd_loader_report(l, s);
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
