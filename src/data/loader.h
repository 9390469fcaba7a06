/* The prefetching loader: threads, each with a media worker process of its own, turn files into batches of views ahead
 * of the training step. What a batch holds is a function of (manifest, configuration, seed, epoch, step, rank, world)
 * alone: the number of workers, their speed and a resumed run never change a bit of it. */
#ifndef XKD_DATA_LOADER_H
#define XKD_DATA_LOADER_H

#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"
#include "config/config.h"
#include "dist/dist.h"

struct xkd_clip;
struct xkd_view_key;
struct xkd_manifest;
struct xkd_raw_batch;
struct xkd_raw_plan;

/* Upper bound of views of one modality in a batch (global ones included). */
enum { XKD_MAX_VIEWS = 16 };

/* Shapes of all views, by modality; index 0 .. views-1, the global views first. */
typedef struct {
    int64_t video_views, audio_views; /* global + local */
    struct {
        int64_t frames, height, width; /* T H W */
    } video[XKD_MAX_VIEWS];
    struct {
        int64_t bands, columns; /* F T */
    } audio[XKD_MAX_VIEWS];
} xkd_view_shapes;

/* Shapes that `data` asks for: global views have clip_duration * video_fps frames of crop_size^2 and
 * 1 + clip_duration * audio_rate / hop_length columns; local ones are divided by the configured ratios. Impossible
 * values (a view without frames, more than XKD_MAX_VIEWS views) are XKD_ERR_CONFIG. */
xkd_status xkd_view_shapes_of(xkd_context *cx, const xkd_data_config *data, xkd_view_shapes *shapes);

/* One micro-batch. Memory belongs to the loader and is valid until the next xkd_loader_next or xkd_loader_free. */
typedef struct {
    int64_t
        count; /* B: samples in this micro-batch = batch / (accumulate * world), less in a last batch that is kept */
    int64_t video_views, audio_views;
    float *frames[XKD_MAX_VIEWS]; /* per view [B,3,T,H,W], normalised; the global views first */
    float *specs[XKD_MAX_VIEWS];  /* per view [B,1,F,T], normalised; the global views first */
    struct xkd_raw_batch *raw;    /* what a device makes them of; then frames and specs are NULL. NULL: they are made */
    int64_t *sample;              /* [B] number drawn for this place (of a plan with passes: below passes * samples),
                                     the RNG's sample number, also where an unreadable clip has been replaced */
    int64_t *source;              /* [B] manifest index of the file that the clip is from: what its label is */
    uint32_t epoch;
    int64_t step;        /* optimiser step within the epoch */
    int64_t micro;       /* micro-batch within the step, 0 .. accumulate-1 */
    double wait_seconds; /* how long xkd_loader_next had to wait for this one */
} xkd_batch;

typedef struct {
    int64_t clips;         /* clips delivered so far */
    int64_t bad_clips;     /* clips that could not be read and were replaced */
    int64_t bad_files;     /* distinct files among them */
    int64_t silent_clips;  /* clips of files without sound that got silence (audio_policy: silence) */
    int64_t dropped_files; /* files left out because they have no sound (audio_policy: drop) */
    int64_t restarts;      /* worker processes that crashed or were killed for exceeding their time */
    double wait_seconds;   /* total time that xkd_loader_next waited */
} xkd_loader_statistics;

/* What training other than pre-training makes of a clip: one view of each wanted modality. */
typedef struct {
    bool wanted[XKD_MODALITIES];
    int64_t short_side;                  /* of the decoded frames; 0: as they are in the file */
    int64_t passes;                      /* of an epoch over all files, each with another clip of a file */
    int rank, world;                     /* as in xkd_loader_new; world 0: one process */
    xkd_dist *dist;                      /* whose ranks share the list of samples by host, all calling; NULL: none */
    bool look;                           /* everything is checked, but no batch made and no memory for one taken */
    const struct xkd_manifest *manifest; /* copied in place of data->path; NULL: that is read */
    const void *user;
    /* A maker of each thread, with its scratch memory; maker_free takes NULL. `cx` is the thread's. */
    xkd_status (*maker_new)(xkd_context *cx, const void *user, void **maker);
    void (*maker_free)(void *maker);
    /* out: [3,T,H,W] and [1,F,T] of the shapes of `data`'s first global view; NULL where not wanted. */
    xkd_status (*make)(void *maker, const struct xkd_clip *clip, const struct xkd_view_key *key,
                       float *const out[XKD_MODALITIES]);
} xkd_loader_plan;

typedef struct xkd_loader xkd_loader;

/* Reads the manifest (or scans the folder) data->path, keeps the lines of data->split, and starts data->workers threads
 * at epoch 0, step 0. The configurations must outlive the loader. rank of world: this process takes the rank-th
 * contiguous part of each global batch. Errors: XKD_ERR_CONFIG (batch not divisible by accumulate * world, no workers),
 * XKD_ERR_DATA (manifest, too few samples for one batch). Free with xkd_loader_free. */
xkd_status xkd_loader_new(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train, int rank,
                          int world, xkd_loader **out);
void xkd_loader_free(xkd_loader *loader); /* NULL is allowed */

/* The same with micro-batches of what was decoded (data/raw.h), which go to `memory`; it must outlive the loader. A batch that
 * was sent is waited for by the call that gives it back. */
xkd_status xkd_loader_new_raw(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train, int rank,
                              int world, xkd_memory *memory, xkd_loader **out);

/* The same for the ranks of a run, which all call it: those of a host share one copy of the list of samples. `raw`: micro-batches
 * are raw and go to `memory`; else it is not looked at. */
xkd_status xkd_loader_new_ranked(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train,
                                 xkd_dist *dist, bool raw, xkd_memory *memory, xkd_loader **out);

/* The same with views that `plan` makes instead of those of pre-training; there is no cache (XKD_ERR_CONFIG). */
xkd_status xkd_loader_new_planned(xkd_context *cx, const xkd_data_config *data, const xkd_train_config *train,
                                  const xkd_loader_plan *plan, xkd_loader **out);

/* Names the run folder: bad clips are appended to FOLDER/bad_clips.jsonl, one JSON object a line, from now on. */
xkd_status xkd_loader_set_folder(xkd_loader *loader, const char *folder);

/* Distinct files that FOLDER/bad_clips.jsonl names: of the whole run, also where it was stopped and resumed. */
xkd_status xkd_loader_bad_files(xkd_loader *loader, int64_t *out);

/* Optimiser steps in one epoch. Each consists of train->accumulate micro-batches. */
int64_t xkd_loader_steps_per_epoch(const xkd_loader *loader);
/* Samples of a micro-batch in the last step of an epoch: fewer than in others where that is kept though it is not full. */
int64_t xkd_loader_last_count(const xkd_loader *loader);
/* Samples the loader draws from, after split and audio policy. */
int64_t xkd_loader_sample_count(const xkd_loader *loader);
/* XXH3-64 of the paths, sizes and hashes of all samples: changes when the data set does. */
uint64_t xkd_loader_data_hash(const xkd_loader *loader);
/* The samples that are drawn from, with their labels. Belongs to the loader. */
const struct xkd_manifest *xkd_loader_manifest(const xkd_loader *loader);
const xkd_view_shapes *xkd_loader_shapes(const xkd_loader *loader);
/* What its batches have in common where a device makes the views; NULL elsewhere. */
const struct xkd_raw_plan *xkd_loader_raw(const xkd_loader *loader);
/* Bytes of the batches that are held: the one in use and those ahead. */
int64_t xkd_loader_ring_bytes(const xkd_loader *loader);

/* Goes on at micro-batch 0 of (epoch, step); what was prefetched for elsewhere is dropped, and what bad_clips.jsonl says of
 * steps from there on, which come again. */
xkd_status xkd_loader_seek(xkd_loader *loader, uint32_t epoch, int64_t step);

/* Waits for the next micro-batch. After the last step of an epoch comes step 0 of the next one; there is no end.
 * XKD_ERR_DATA: more distinct files than max_bad_fraction allows (and at least 10) could not be read. */
xkd_status xkd_loader_next(xkd_loader *loader, const xkd_batch **out);

/* Tells the ranks of a run what each could not read since the last call; called by all of them after each step. One process
 * alone need not. XKD_ERR_DATA, on all ranks, where more distinct files than max_bad_fraction allows could not be read. */
xkd_status xkd_loader_share(xkd_loader *loader, xkd_dist *dist);

void xkd_loader_stats(const xkd_loader *loader, xkd_loader_statistics *out);

#endif
