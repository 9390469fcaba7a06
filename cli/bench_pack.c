/* xkd bench data --pack: what a clip costs out of a pack, on one core. JPEG is decoded in this thread, or its time would
 * not be counted; in training a worker process does it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/machine.h"
#include "base/status.h"
#include "bench_data.h"
#include "data/fetch.h"
#include "data/index.h"
#include "data/packing.h"

/* So often the clip is packed, that its frames do not stay in a processor's cache. */
enum { COPIES = 16 };

struct kind {
    const char *name;
    int codec;
    bool full_colour;
    int64_t short_side; /* 0: the views' */
};

static const struct kind KINDS[] = {{"jpeg, short side 128", XKD_CODEC_JPEG, true, 128},
                                    {"jpeg, short side 128, --chroma half", XKD_CODEC_JPEG, false, 128},
                                    {"raw, short side 128", XKD_CODEC_RAW, true, 128},
                                    {"raw, short side of the views", XKD_CODEC_RAW, true, 0}};

/* Of one kind of pack; seconds a clip. */
struct figures {
    double decode, sample, bytes;
};

/* The folder with the copies, which are links to the clip. */
static xkd_status make_copies(struct data_bench *b, const char *folder)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = b->cli->cx;
    char *real = realpath(b->path, NULL), *path = NULL;
    if (!real) XKD_FAIL(XKD_ERR_DATA, "%s: no such file", b->path);
    for (int i = 0; i < COPIES; i++) {
        xkd_free(path);
        path = NULL;
        XKD_TRY(xkd_format_string(cx, &path, "%s/%02d.mp4", folder, i));
        if (symlink(real, path) != 0) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot make a link", path);
    }
fail:
    free(real);
    xkd_free(path);
    return status;
}

static xkd_status make_pack(struct data_bench *b, const struct kind *k, const char *copies, const char *folder,
                            double *bytes)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = b->cli->cx;
    xkd_data_config d = *b->data;
    xkd_manifest m = {0};
    xkd_packing_result result;
    int64_t skipped;
    const xkd_record_options record = {.codec = k->codec,
                                       .quality = 95,
                                       .full_colour = k->full_colour,
                                       .grid_fps = d.video_fps,
                                       .audio_rate = d.audio_rate};
    d.follow_links = true;
    XKD_TRY(xkd_index_folder(cx, copies, true, &m, &skipped));
    const xkd_packing_options o = {.out = folder,
                                   .parts = 1,
                                   .threads = xkd_processor_count(),
                                   .settings = xkd_pack_settings_of(&d, k->short_side ? k->short_side : d.crop_size,
                                                                    &record, (int64_t)512 << 20, &m)};
    XKD_TRY(xkd_packing_run(cx, &m, &d, &o, &result));
    if (result.unreadable) XKD_FAIL(XKD_ERR_DATA, "%s: cannot be packed", b->path);
    *bytes = (double)result.bytes / COPIES;
fail:
    xkd_manifest_free(&m);
    return status;
}

/* A clip as it is in the pack, then one as the views want it, with them. */
static xkd_status measure_clip(struct data_bench *b, const xkd_manifest *m, xkd_record_reader *reader,
                               xkd_fetcher *fetcher, int64_t i, struct figures *f)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = b->cli->cx;
    const xkd_data_config *d = b->data;
    const xkd_media_sink sink = bench_sink_of(b);
    xkd_media_request q = {.mode = XKD_CLIP_PLACE,
                           .start = bench_place_of(i),
                           .duration = d->clip_duration,
                           .fps = d->video_fps,
                           .audio_rate = d->audio_rate,
                           .video = true,
                           .audio = true};
    bool raw = xkd_pack_about(m->pack)->record.codec == XKD_CODEC_RAW, silent;
    int64_t sample = (i + 1) * 7 % m->count;
    xkd_source source = {.fd = -1};
    xkd_media_info info;
    xkd_media_tally tally;
    xkd_media_fault fault;
    xkd_media_result result;
    xkd_clip clip;
    double start = bench_cpu_now(), middle;
    XKD_TRY(xkd_manifest_open(cx, m, &m->samples[sample], false, &source, &fault));
    XKD_TRY(xkd_record_open(reader, &source, &fault));
    if (raw) { /* as training reads it, straight into its memory */
        xkd_record_clip c;
        XKD_TRY(xkd_record_clip_of(cx, xkd_record_about(reader), &q, &c, &fault));
        XKD_TRY(xkd_record_frames(reader, c.first, c.step, c.count, b->sink.rgb, &fault));
        XKD_TRY(xkd_record_sound(reader, c.first_sample, c.samples, b->sink.sound, &fault));
    } else {
        XKD_TRY(xkd_record_decode(reader, &q, &sink, &info, &tally, &fault));
    }
    middle = bench_cpu_now();
    f->decode += (middle - start) / (double)b->count;
    q.short_side = d->crop_size;
    start = bench_cpu_now();
    if (raw) {
        XKD_TRY(xkd_fetch_clip(fetcher, sample, q.start, &clip, &silent, &result));
        if (result.fault != XKD_FAULT_NONE) XKD_FAIL(XKD_ERR_DATA, "%s", result.message);
    } else {
        XKD_TRY(xkd_record_open(reader, &source, &fault));
        XKD_TRY(xkd_record_decode(reader, &q, &sink, &info, &tally, &fault));
        clip = (xkd_clip){b->sink.rgb, b->sink.frames, b->sink.height, b->sink.width, b->sink.sound, b->sink.samples};
    }
    XKD_TRY(bench_make_views(b, &clip, i + 1));
    f->sample += (bench_cpu_now() - start) / (double)b->count;
fail:
    if (source.fd >= 0) close(source.fd);
    return status;
}

static xkd_status measure_pack(struct data_bench *b, const char *folder, struct figures *f)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = b->cli->cx;
    xkd_manifest m = {0};
    xkd_record_reader *reader = NULL;
    xkd_fetcher *fetcher = NULL;
    /* Room for a clip at the largest size, before anything is timed. */
    int64_t most = (int64_t)(b->data->clip_duration * b->data->video_fps + 1) * 3 * 256 * 256;
    XKD_TRY(xkd_resize(cx, &b->sink.rgb, b->sink.rgb_bytes, most, 1));
    b->sink.rgb_bytes = most;
    XKD_TRY(xkd_pack_read(cx, folder, &m));
    XKD_TRY(xkd_record_reader_new(cx, &reader));
    XKD_TRY(xkd_fetcher_new(cx, b->data, &m, NULL, &fetcher));
    for (int64_t i = -COPIES; i < b->count; i++) { /* all copies once to warm up */
        if (i == 0) f->decode = f->sample = 0;
        XKD_TRY(measure_clip(b, &m, reader, fetcher, i + COPIES, f));
    }
fail:
    xkd_fetcher_free(fetcher);
    xkd_record_reader_free(reader);
    xkd_manifest_free(&m);
    return status;
}

static void print(const struct data_bench *b, const struct kind *k, const struct figures *f, bool first)
{
    if (b->cli->json) {
        printf("%s{\"pack\": \"%s\", \"decode_ms\": %.3f, \"sample_ms\": %.3f, \"decode_per_second\": %.1f, "
               "\"sample_per_second\": %.1f, \"bytes_a_second\": %.0f}",
               first ? "[" : ", ", k->name, 1e3 * f->decode, 1e3 * f->sample, 1 / f->decode, 1 / f->sample, f->bytes);
        return;
    }
    printf("%-38s %7.2f ms a clip  %7.1f clips/s   with all views %6.2f ms %6.1f clips/s\n", k->name, 1e3 * f->decode,
           1 / f->decode, 1e3 * f->sample, 1 / f->sample);
}

static xkd_status measure_kind(struct data_bench *b, const struct kind *k, const char *folder, const char *copies,
                               bool first)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = b->cli->cx;
    struct figures f = {0};
    char *packed = NULL;
    xkd_names names = {0};
    XKD_TRY(xkd_join_path(cx, &packed, folder, "pack"));
    XKD_TRY(make_pack(b, k, copies, packed, &f.bytes));
    XKD_TRY(measure_pack(b, packed, &f));
    print(b, k, &f, first);
fail:
    if (packed && xkd_is_folder(packed) && xkd_list_folder(cx, packed, &names) == XKD_OK)
        for (int64_t i = 0; i < names.count; i++) xkd_remove_in(cx, packed, names.items[i]);
    xkd_free_names(&names);
    if (packed) rmdir(packed);
    xkd_free(packed);
    return status;
}

xkd_status bench_packs(struct data_bench *b)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = b->cli->cx;
    char folder[] = "/tmp/xkd-bench-XXXXXX", name[8];
    char *copies = NULL;
    if (!mkdtemp(folder)) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot make a folder for the packs", folder);
    XKD_TRY(xkd_join_path(cx, &copies, folder, "clips"));
    XKD_TRY(xkd_make_folder(cx, copies));
    XKD_TRY(make_copies(b, copies));
    for (size_t k = 0; k < sizeof KINDS / sizeof *KINDS; k++)
        XKD_TRY(measure_kind(b, &KINDS[k], folder, copies, k == 0));
    if (b->cli->json) printf("]\n");
fail:
    for (int i = 0; copies && i < COPIES; i++) {
        snprintf(name, sizeof name, "%02d.mp4", i);
        xkd_remove_in(cx, copies, name);
    }
    if (copies) rmdir(copies);
    rmdir(folder);
    xkd_free(copies);
    return status;
}
