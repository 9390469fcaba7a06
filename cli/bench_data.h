/* What the measurements of `xkd bench data` share. */
#ifndef XKD_CLI_BENCH_DATA_H
#define XKD_CLI_BENCH_DATA_H

#include "cli.h"
#include "data/raw.h"
#include "media/media.h"

/* Where the pieces of a decoded clip go: into memory, as the loader keeps them. */
struct bench_sink {
    xkd_context *cx;
    uint8_t *rgb;
    int64_t rgb_bytes, frames, width, height;
    int16_t *sound;
    int64_t room, samples;
};

/* Everything of one measurement; memory is kept from clip to clip, as the loader keeps it. */
struct data_bench {
    struct cli *cli;
    const xkd_data_config *data;
    const char *path;
    int64_t count;
    xkd_view_shapes shapes; /* sizes of all views */
    xkd_viewer *viewer;
    float *values; /* room for the largest view */
    xkd_raw_plan plan;
    xkd_raw_batch raw; /* one clip for a device that makes the views */
    struct bench_sink sink;
    double decode, all_pictures, sample, raw_sample, worker; /* seconds a clip */
    double raw_bytes, view_bytes;                            /* a clip: of `raw`, and of its views */
};

/* Processor seconds of this thread: other programs on the machine do not disturb it. */
double bench_cpu_now(void);

/* Into the bench's memory. */
xkd_media_sink bench_sink_of(struct data_bench *bench);

/* Places are drawn, but are the same in every run. */
double bench_place_of(int64_t i);

/* All views of one sample, drawn as in training. */
xkd_status bench_make_views(struct data_bench *bench, const xkd_clip *clip, int64_t number);

/* The same clip in packs of several kinds: decoding alone, and with all views. Prints a line each. */
xkd_status bench_packs(struct data_bench *bench);

#endif
