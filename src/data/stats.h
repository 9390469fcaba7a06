/* Counts of a data set, and the mean and deviation of its log-mel values. */
#ifndef XKD_DATA_STATS_H
#define XKD_DATA_STATS_H

#include "config/config.h"
#include "data/manifest.h"

typedef struct {
    int64_t files, with_audio, without_audio, unknown_audio, labelled;
    double video_hours, shortest, longest; /* of files whose length is known */
    int64_t mel_files;                     /* files the following come from */
    int64_t unreadable;                    /* files that could not be decoded on the way */
    int64_t silent;                        /* files that turned out to have no sound */
    double mel_mean, mel_std;
} xkd_data_stats;

/* Counts, and one clip from the middle of each of at most `max_files` files, evenly spread, for the mel values (0: none).
 * The result does not depend on anything but the files. */
xkd_status xkd_stats(xkd_context *cx, const xkd_manifest *manifest, const xkd_data_config *data, int64_t max_files,
                     xkd_data_stats *out);

#endif
