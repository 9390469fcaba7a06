/* What the parts of the loader share: its state (loader.c), the threads that fill batches (loader_work.c), and the account of
 * clips that could not be read (loader_failures.c). */
#ifndef XKD_DATA_LOADER_PARTS_H
#define XKD_DATA_LOADER_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "data/fetch.h"
#include "data/loader.h"
#include "data/raw.h"
#include "data/sampler.h"

enum {
    XKD_LOADER_TRIES = 20, /* replacements of one place before the data set is given up */
    XKD_LOADER_DEPTH = 4,  /* batches in the ring: the one in use and up to three ahead */
    XKD_LOADER_WORKERS = 256
};
/* One try at one place of a batch that failed. Kept with the batch and reported when it is delivered, so that log, counts
 * and the decision to stop depend on the data alone, not on how far ahead the threads are.
 * A try is not a file: the same file may be tried in many places. */
typedef struct {
    int64_t sample; /* index into the manifest; the sample of a batch counts the passes too */
    xkd_media_fault fault;
    bool dropped; /* left out by the audio policy, which is no fault */
    char message[160];
} xkd_loader_failure;

/* A failure with its place, as the ranks of a run tell each other. */
typedef struct {
    uint32_t epoch;
    int64_t step, sample; /* of the batch */
    xkd_loader_failure failure;
} xkd_loader_news;

/* One micro-batch. Places 0 .. next-1 are handed out, `done` of them finished; the caller may have it
 * when done equals the count. */
typedef struct {
    xkd_batch batch;
    xkd_raw_batch raw;            /* of a loader whose batches are */
    int64_t sequence;             /* which micro-batch; -1: free */
    int64_t next;                 /* next place to hand out */
    int64_t done;                 /* places finished */
    int64_t first;                /* into the epoch's order */
    int64_t *silent;              /* [B] 1: this place got silence */
    int64_t *tries;               /* [B] failures of this place */
    xkd_loader_failure *failures; /* [B,XKD_LOADER_TRIES] */
    xkd_status status;            /* of the first place that failed for good */
    char message[512];
} xkd_loader_slot;

typedef struct {
    struct xkd_loader *loader;
    pthread_t thread;
    bool started;
    xkd_context *cx;      /* of its own: a bad clip must not leave a message in the caller's context */
    xkd_fetcher *fetcher; /* owned, one worker process each */
    xkd_viewer *viewer;   /* of pre-training */
    void *maker;          /* of a plan */
    xkd_status status;    /* of making the above */
} xkd_loader_worker;

struct xkd_loader {
    xkd_context *cx;
    const xkd_data_config *data; /* settings, outlives the loader */
    xkd_loader_plan plan;        /* a copy of the caller's, or that of pre-training */
    bool planned;                /* views are the plan's, not those of pre-training */
    xkd_manifest manifest;
    xkd_sampler sampler;
    xkd_view_shapes shapes;
    xkd_cache *cache;   /* NULL: none */
    xkd_memory *memory; /* where micro-batches go that are raw */
    bool is_raw;        /* a device makes the views */
    xkd_raw_plan raw;   /* then */
    int64_t batch;      /* B */
    int64_t steps;      /* a rank's optimiser steps an epoch */
    xkd_loader_worker *workers;
    int64_t worker_count;

    pthread_mutex_t lock;       /* guards all below */
    pthread_cond_t work, ready; /* work: threads wait here for places; ready: the caller, for a slot */
    xkd_loader_slot slots[XKD_LOADER_DEPTH];
    int depth;
    uint32_t *order; /* of order_epoch */
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
    xkd_loader_news *news;  /* of several ranks: what the others have not been told yet */
    int64_t news_count, news_capacity;
    xkd_loader_statistics stats;
};

/* Numbers of one view of a clip. */
int64_t xkd_loader_video_floats(const xkd_loader *l, int64_t v);
int64_t xkd_loader_audio_floats(const xkd_loader *l, int64_t v);

/* Main of a thread; arg: its xkd_loader_worker. */
void *xkd_loader_work(void *arg);

/* Cuts bad_clips.jsonl back to what lies before a place in the data. */
xkd_status xkd_loader_cut_log(xkd_loader *l, uint32_t epoch, int64_t step);

/* Counts and logs the failures of a batch that is handed out. XKD_ERR_DATA where there are too many. */
xkd_status xkd_loader_report(xkd_loader *l, const xkd_loader_slot *s);

#endif
