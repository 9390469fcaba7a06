/* xkd bench data: what a training sample costs between file and batch, on one core. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/status.h"
#include "data/fetch.h"
#include "bench_data.h"
#include "data_args.h"
#include "media/encode.h"

/* What Kinetics clips look like after the usual preparation. */
enum { WIDTH = 340, HEIGHT = 256, RATE = 25, SECONDS = 20, SAMPLE_RATE = 44100 };

/* A named file replaces the one that is made: figures are then of the user's own videos. */
struct values {
    const char *clip, *config;
    int64_t count;
    bool pack;
};

/* The defaults measure a whole sample of the paper's configuration. */
static const struct cli_option options[] = {
    {0, "clip", CLI_TEXT, offsetof(struct values, clip), "FILE",
     "media file (default: a 340x256 H.264 one made for it)"},
    {'c', "config", CLI_TEXT, offsetof(struct values, config), "FILE", "configuration of the views (default: XKD)"},
    {0, "count", CLI_INT, offsetof(struct values, count), "N", "clips of each kind (default: 30)"},
    {0, "pack", CLI_FLAG, offsetof(struct values, pack), NULL, "measure packs of the clip instead: jpeg and raw"},
    {0},
};

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    struct bench_sink *s = user;
    (void)info, (void)start;
    s->frames = s->samples = 0;
    return XKD_OK;
}

/* Frames come in order; memory grows by doubling and is kept for the next clip. */
static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    xkd_status status = XKD_OK;
    struct bench_sink *s = user;
    int64_t bytes = 3 * width * height;
    /* Twice the room that is needed: frames come one by one. */
    if ((index + 1) * bytes > s->rgb_bytes) {
        XKD_TRY(xkd_resize(s->cx, &s->rgb, s->rgb_bytes, 2 * (index + 1) * bytes, 1));
        s->rgb_bytes = 2 * (index + 1) * bytes;
    }
    memcpy(s->rgb + index * bytes, rgb, (size_t)bytes);
    s->frames = index + 1;
    s->width = width;
    s->height = height;
fail:
    return status;
}

/* Never more than fits: the last block may reach past the end of the clip. */
static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    struct bench_sink *s = user;
    if (count > s->room - s->samples) count = s->room - s->samples;
    memcpy(s->sound + s->samples, samples, (size_t)count * sizeof *samples);
    s->samples += count;
    return XKD_OK;
}

xkd_media_sink bench_sink_of(struct data_bench *b)
{
    return (xkd_media_sink){.user = &b->sink, .begin = on_begin, .frame = on_frame, .sound = on_sound};
}

/* A moving scene with texture and grain, so that 600 kb/s are really used. */
static void paint(uint8_t *rgb, int frame, xkd_rng *rng)
{
    for (int y = 0; y < HEIGHT; y++) {
        uint32_t word = 0;
        for (int x = 0; x < WIDTH; x++) {
            if (x % 4 == 0) word = xkd_rng_u32(rng);
            int grain = (int)(word >> 8 * (x % 4) & 15) - 8, shift = 2 * frame;
            int texture = (((x + shift) / 12 + y / 9) % 7) * 17 + ((x * 3 + y * 5 + 4 * frame) % 64);
            int inside = (x - 170 - (int)(100 * sin(frame * 0.07))) * (x - 170 - (int)(100 * sin(frame * 0.07))) +
                             (y - 128) * (y - 128) <
                         2500;
            uint8_t *p = rgb + 3 * (y * WIDTH + x);
            for (int c = 0; c < 3; c++) {
                int value = (inside ? 220 - 60 * c : texture + 20 * c) + grain;
                p[c] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
            }
        }
    }
}

/* Made with the program's own encoder, so that the measurement needs no files. Twenty seconds, so that seeking has
 * something to do. */
static xkd_status make_clip(xkd_context *cx, const char *path)
{
    xkd_status status = XKD_OK;
    xkd_encoder *encoder = NULL, *complete;
    uint8_t *rgb = NULL;
    xkd_rng rng = xkd_rng_make(0, 0, 0, 0, XKD_RNG_TEST); /* a fixed seed: the clip is the same on every machine */
    xkd_encode_options o = {.width = WIDTH,
                            .height = HEIGHT,
                            .fps = RATE,
                            .video_bits = 600000,
                            /* A key frame every ten seconds, as ordinary encoders set it: seeking has to decode up to
                             * 250 frames. */
                            .key_frames = 250,
                            .sample_rate = SAMPLE_RATE,
                            .channels = 2};
    XKD_TRY(xkd_alloc(cx, &rgb, 3 * WIDTH * HEIGHT, 1));
    XKD_TRY(xkd_encoder_new(cx, path, &o, &encoder));
    for (int k = 0; k < RATE * SECONDS; k++) {
        paint(rgb, k, &rng);
        XKD_TRY(xkd_encoder_frame(encoder, rgb, (double)k / RATE));
        for (int i = 0; i < SAMPLE_RATE / RATE; i++) {
            double t = (double)k / RATE + (double)i / SAMPLE_RATE;
            /* 440 Hz on the left, noise on the right: neither codec nor down-mix has an easy case. */
            int16_t pair[2] = {(int16_t)(9000 * sin(2 * M_PI * 440 * t)), (int16_t)(3000 * xkd_rng_normal(&rng))};
            XKD_TRY(xkd_encoder_sound(encoder, pair, 1));
        }
    }
    /* The pointer is handed over before commit, which frees the encoder also when it fails. */
    complete = encoder;
    encoder = NULL;
    XKD_TRY(xkd_encoder_commit(complete));
fail:
    xkd_encoder_abort(encoder);
    xkd_free(rgb);
    return status;
}

/* Processor seconds of this thread: other programs on the machine do not disturb it.
 * Decoding runs in this thread here, not in a worker process, or its time would not be counted. */
double bench_cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* short_side 0 keeps the size: the bare decoding that a sample is compared with. */
static xkd_status decode_clip(struct data_bench *b, int64_t short_side, double place, bool all_pictures)
{
    xkd_status status = XKD_OK;
    xkd_media *media = NULL;
    xkd_media_fault fault;
    xkd_media_tally tally;
    const xkd_data_config *d = b->data;
    xkd_media_request request = {.mode = XKD_CLIP_PLACE,
                                 .start = place,
                                 .duration = d->clip_duration,
                                 .fps = d->video_fps,
                                 .short_side = short_side,
                                 .audio_rate = d->audio_rate,
                                 .video = true,
                                 .audio = true,
                                 .stream_colour = d->stream_colour,
                                 .all_pictures = all_pictures};
    xkd_media_sink sink = bench_sink_of(b);
    /* A file is opened for each clip, as in training: opening and seeking belong to the cost. */
    XKD_TRY(xkd_media_open(b->cli->cx, b->path, &media, &fault));
    XKD_TRY(xkd_media_decode(media, &request, &sink, &tally, &fault));
fail:
    xkd_media_free(media);
    return status;
}

/* All views of one sample, drawn as in training; only their cost counts. */
xkd_status bench_make_views(struct data_bench *b, const xkd_clip *clip, int64_t number)
{
    xkd_status status = XKD_OK;
    xkd_view_key key = {1, 0, (uint32_t)number};
    for (int64_t v = 0; v < b->shapes.video_views; v++) XKD_TRY(xkd_view_video(b->viewer, clip, key, v, b->values));
    for (int64_t v = 0; v < b->shapes.audio_views; v++) XKD_TRY(xkd_view_audio(b->viewer, clip, key, v, b->values));
fail:
    return status;
}

/* Places are drawn, but are the same in every run. */
double bench_place_of(int64_t i)
{
    xkd_rng rng = xkd_rng_make(2, 0, (uint32_t)i, 0, XKD_RNG_TEST);
    return xkd_rng_uniform(&rng);
}

/* The same clips once bare and once as whole samples, in turns, so that a change of clock rate hits both. */
static xkd_status measure(struct data_bench *b)
{
    xkd_status status = XKD_OK;
    for (int64_t i = -1; i < b->count; i++) { /* -1 warms up */
        double place = bench_place_of(i), start = bench_cpu_now();
        XKD_TRY(decode_clip(b, 0, place, false));
        double middle = bench_cpu_now();
        XKD_TRY(decode_clip(b, b->data->crop_size, place, false));
        double decoded = bench_cpu_now();
        xkd_clip clip = {b->sink.rgb, b->sink.frames, b->sink.height, b->sink.width, b->sink.sound, b->sink.samples};
        XKD_TRY(bench_make_views(b, &clip, i + 1));
        double end = bench_cpu_now();
        xkd_raw_batch_empty(&b->raw);
        XKD_TRY(xkd_raw_put(b->cli->cx, &b->raw, &clip, (xkd_view_key){1, 0, (uint32_t)(i + 1)}, 0));
        double put = bench_cpu_now();
        XKD_TRY(decode_clip(b, 0, place, true));
        double last = bench_cpu_now();
        if (i < 0) continue;
        /* The mean over all clips; the first one is left out. */
        b->decode += (middle - start) / (double)b->count;
        b->sample += (end - middle) / (double)b->count;
        b->raw_sample += (decoded - middle + put - end) / (double)b->count;
        b->raw_bytes += (double)b->raw.used / (double)b->count;
        b->all_pictures += (last - put) / (double)b->count;
    }
fail:
    return status;
}

/* As the loader does it, with a worker process: wall-clock time of one thread and its worker.
 * The fetcher wants a manifest, so one is made of the single file. */
static xkd_status measure_worker(struct data_bench *b)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = b->cli->cx;
    xkd_manifest manifest = {0};
    xkd_sample *sample;
    xkd_fetcher *fetcher = NULL;
    xkd_media_result result;
    xkd_clip clip;
    bool silent;
    char *copy = NULL;
    XKD_TRY(xkd_copy_string(cx, &copy, b->path));
    char *slash = strrchr(copy, '/');
    XKD_TRY(xkd_manifest_add(cx, &manifest, slash ? slash + 1 : copy, &sample));
    if (slash) *slash = 0;
    XKD_TRY(xkd_copy_string(cx, &manifest.root, slash ? (*copy ? copy : "/") : "."));
    XKD_TRY(xkd_fetcher_new(cx, b->data, &manifest, NULL, &fetcher));
    double start = 0;
    for (int64_t i = -1; i < b->count; i++) {
        /* The worker process has been started by then. */
        if (i == 0) start = xkd_now();
        XKD_TRY(xkd_fetch_clip(fetcher, 0, bench_place_of(i), &clip, &silent, &result));
        if (result.fault != XKD_FAULT_NONE) XKD_FAIL(XKD_ERR_DATA, "%s: %s", b->path, result.message);
        XKD_TRY(bench_make_views(b, &clip, i + 1));
    }
    b->worker = (xkd_now() - start) / (double)b->count;
fail:
    xkd_fetcher_free(fetcher);
    xkd_manifest_free(&manifest);
    xkd_free(copy);
    return status;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Memory is taken before anything is timed. */
static xkd_status prepare(struct data_bench *b)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = b->cli->cx;
    const xkd_data_config *d = b->data;
    int64_t largest = 0;
    XKD_TRY(xkd_view_shapes_of(cx, d, &b->shapes));
    XKD_TRY(xkd_viewer_new(cx, d, &b->viewer));
    XKD_TRY(xkd_raw_plan_new(cx, d, 1, &b->plan));
    XKD_TRY(xkd_raw_batch_new(cx, &b->plan, NULL, &b->raw));
    for (int64_t v = 0; v < b->shapes.video_views; v++) {
        int64_t floats = 3 * b->shapes.video[v].frames * b->shapes.video[v].height * b->shapes.video[v].width;
        largest = larger(largest, floats);
        b->view_bytes += (double)(floats * (int64_t)sizeof(float));
    }
    for (int64_t v = 0; v < b->shapes.audio_views; v++) {
        int64_t floats = b->shapes.audio[v].bands * b->shapes.audio[v].columns;
        largest = larger(largest, floats);
        b->view_bytes += (double)(floats * (int64_t)sizeof(float));
    }
    XKD_TRY(xkd_alloc(cx, &b->values, largest, sizeof *b->values));
    b->sink.cx = cx;
    /* A few samples more, for a resampler that rounds up. */
    b->sink.room = llround(d->clip_duration * (double)d->audio_rate) + 16;
    XKD_TRY(xkd_alloc(cx, &b->sink.sound, b->sink.room, sizeof *b->sink.sound));
fail:
    return status;
}

/* Milliseconds for reading, rates for comparing with a training step. */
static void print(const struct data_bench *b)
{
    double ratio = b->sample / b->decode;
    if (b->cli->json) {
        printf("{\"clips\": %" PRId64 ", \"decode_ms\": %.3f, \"all_pictures_ms\": %.3f, \"sample_ms\": %.3f, "
               "\"raw_sample_ms\": %.3f, \"raw_bytes\": %.0f, \"view_bytes\": %.0f, \"ratio\": %.4f, "
               "\"decode_per_second\": "
               "%.3f, \"sample_per_second\": %.3f, \"worker_sample_per_second\": %.3f}\n",
               b->count, 1e3 * b->decode, 1e3 * b->all_pictures, 1e3 * b->sample, 1e3 * b->raw_sample, b->raw_bytes,
               b->view_bytes, ratio, 1 / b->decode, 1 / b->sample, 1 / b->worker);
        return;
    }
    printf("open + seek + decode      %8.2f ms a clip  %7.2f clips/s per core\n", 1e3 * b->decode, 1 / b->decode);
    printf("with unseen pictures too  %8.2f ms a clip  %7.2f clips/s per core, %.2f times\n", 1e3 * b->all_pictures,
           1 / b->all_pictures, b->all_pictures / b->decode);
    printf("whole sample, all views   %8.2f ms a clip  %7.2f clips/s per core, %.2f times the decoding\n",
           1e3 * b->sample, 1 / b->sample, ratio);
    printf("same for run.augment=gpu  %8.2f ms a clip  %7.2f clips/s per core; %.2f MB go to the GPU, not %.2f\n",
           1e3 * b->raw_sample, 1 / b->raw_sample, b->raw_bytes / 1e6, b->view_bytes / 1e6);
    printf("through a worker process  %8.2f ms a clip  %7.2f clips/s\n", 1e3 * b->worker, 1 / b->worker);
}

/* The temporary folder is removed even if something fails. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {.count = 30};
    xkd_config config = {0};
    struct data_bench b = {.cli = cli, .data = &config.data};
    char folder[] = "/tmp/xkd-bench-XXXXXX";
    char *made = NULL;
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_bench_data, argc, argv, &v, &rest));
    /* All words behind the options are KEY=VALUE here. */
    XKD_TRY(data_configure(cli, v.config, argv + 1, rest, &config));
    if (v.count < 1) XKD_FAIL(XKD_ERR_CONFIG, "--count %" PRId64 ": at least one", v.count);
    b.count = v.count;
    b.path = v.clip;
    if (!v.clip) {
        /* Under /tmp, with a name nobody else has. */
        if (!mkdtemp(folder))
            XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot make a folder for the test clip (name a film of yours with --clip)",
                     folder);
        XKD_TRY(xkd_join_path(cx, &made, folder, "clip.mp4"));
        XKD_TRY(make_clip(cx, made));
        b.path = made;
    }
    XKD_TRY(prepare(&b));
    if (v.pack) {
        status = bench_packs(&b);
        goto fail;
    }
    XKD_TRY(measure(&b));
    /* Measuring the worker comes last: it is the only part that uses another process. */
    XKD_TRY(measure_worker(&b));
    print(&b);
fail:
    if (made) {
        unlink(made);
        rmdir(folder);
    }
    xkd_free(made);
    xkd_viewer_free(b.viewer);
    xkd_raw_batch_free(&b.raw);
    xkd_raw_plan_free(&b.plan);
    xkd_free(b.values);
    xkd_free(b.sink.rgb);
    xkd_free(b.sink.sound);
    xkd_config_free(&config);
    return status;
}

const struct cli_command cmd_bench_data = {
    .name = "data",
    .summary = "measure decoding and augmentation",
    .usage = "[--clip FILE] [--pack] [-c FILE] [--count N] [--json]",
    .description =
        "Times, on one core and in processor seconds, opening, seeking and decoding pictures and sound of a clip,\n"
        "and a whole training sample with all its views, and one whose views a GPU makes (run.augment=gpu).",
    .example = "xkd bench data --json",
    .options = options,
    .run = run,
};
