/* Looks at every file of a manifest, each in a worker process: probing (index) or decoding all of it (check). */
#ifndef XKD_DATA_CHECK_H
#define XKD_DATA_CHECK_H

#include "config/config.h"
#include "data/manifest.h"
#include "dist/dist.h"

/* What was found about one sample. */
typedef struct {
    xkd_media_fault fault; /* XKD_FAULT_NONE: nothing wrong */
    const char *message;   /* the manifest's, as is note; "": nothing to say */
    const char *note;      /* of a file in order: what makes it slow, and the remedy; else "" */
    double seconds;        /* decoded, the shorter stream; 0 when only measured */
} xkd_finding;

typedef struct {
    bool decode;     /* everything, otherwise headers only */
    bool names_only; /* open no file: sizes and times of change alone */
    int hash;        /* XKD_HASH_HEAD or XKD_HASH_FULL: fill in hashes of the contents */
    int threads;     /* each with a worker process of its own */
    /* Called now and then from one thread at a time. May be NULL. */
    void (*progress)(void *user, int64_t done, int64_t total);
    int (*stop)(void *user); /* non-zero: no further file is begun, XKD_ERR_INTERRUPTED. May be NULL. */
    void *user;
    const char *log;   /* file that keeps what is found until the work is done (data/check_log.h); NULL: none */
    xkd_dist *dist;    /* the ranks that share the samples out, each with a log of its own; all end with all findings */
    uint64_t settings; /* hash of the settings that findings depend on, for the log */
    /* Once, where an earlier sitting has done some. May be NULL. */
    void (*resumed)(void *user, int64_t done, int64_t total);
} xkd_check_options;

/* Fills in what the files say about themselves (durations, sizes, ...) and findings[i] for each sample: broken in any way,
 * no picture, shorter than data->clip_duration, silent (no sound stream, or nothing in it), or streams that start more
 * than 0.25 s apart. findings: [manifest->count], allocated by the caller. The status is for our own troubles only, a rank
 * that was lost among them. */
xkd_status xkd_check(xkd_context *cx, xkd_manifest *manifest, const xkd_data_config *data,
                     const xkd_check_options *options, xkd_finding *findings);

/* True for faults of the file itself, false for short, silent and out-of-sync ones that may still be wanted. */
bool xkd_fault_is_broken(xkd_media_fault fault);

/* How many of `files` may be broken: `fraction` of them (data.max_bad_fraction), and 10 in any case, so that a small set
 * survives a few. */
int64_t xkd_most_broken(double fraction, int64_t files);

#endif
