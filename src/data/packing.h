/* Making a pack of a manifest: decoded once, at the rate of the disk from then on. The work is cut into runs of samples that
 * depend on the manifest and the settings alone, so that the same shards come out of any number of threads and processes,
 * and a stopped or crashed packing goes on where it was. */
#ifndef XKD_DATA_PACKING_H
#define XKD_DATA_PACKING_H

#include "config/config.h"
#include "data/pack.h"

typedef struct {
    const char *out; /* the pack's folder */
    xkd_pack_settings settings;
    int64_t part, parts; /* this process does every `parts`th run, from the `part`th of 0 .. parts-1 on */
    int threads;         /* each with a worker process of its own */
    /* Called now and then from one thread at a time. May be NULL. */
    void (*progress)(void *user, int64_t done, int64_t total);
    int (*stop)(void *user); /* non-zero: no further file is begun, XKD_ERR_INTERRUPTED. May be NULL. */
    void *user;
} xkd_packing_options;

/* What packing will take and give. */
typedef struct {
    int64_t samples, runs;  /* of this process: samples, and runs of them */
    int64_t without_length; /* files whose length no index has told: ten seconds are assumed */
    double seconds;         /* of all samples of this process */
    double bytes;
    int64_t free_bytes; /* where the pack goes; -1: not known */
} xkd_packing_forecast;

typedef struct {
    int64_t packed, unreadable; /* samples of this process, those of earlier sittings included */
    int64_t kept;               /* of them done before */
    int64_t shards, bytes;
    int64_t damaged; /* packed with damage in them */
} xkd_packing_result;

/* The settings that `data` asks for, with these frames. */
xkd_pack_settings xkd_pack_settings_of(const xkd_data_config *data, int64_t short_side,
                                       const xkd_record_options *record, int64_t shard_bytes,
                                       const xkd_manifest *manifest);

/* Of JPEG a second of a few files is decoded, to see how much they take. */
xkd_status xkd_packing_plan(xkd_context *cx, const xkd_manifest *manifest, const xkd_data_config *data,
                            const xkd_packing_options *options, xkd_packing_forecast *out);

/* XKD_ERR_CONFIG where the folder has a pack of other data or settings, or another process works on the same part;
 * XKD_ERR_DATA where more files than data->max_bad_fraction allows cannot be read; XKD_ERR_STORAGE where the disk is full:
 * the pack goes on from there. */
xkd_status xkd_packing_run(xkd_context *cx, const xkd_manifest *manifest, const xkd_data_config *data,
                           const xkd_packing_options *options, xkd_packing_result *out);

#endif
