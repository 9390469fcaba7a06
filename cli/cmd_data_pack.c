/* xkd data pack: a manifest's clips, decoded once, in a few large files. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/machine.h"
#include "base/status.h"
#include "data/index.h"
#include "data/packing.h"
#include "data_args.h"

enum { SHARD_MB = 512 };
static const double FPS_NOT_GIVEN = -1;

struct values {
    const char *out, *config, *codec, *chroma, *shard;
    int64_t short_side, quality, jobs, shard_mb;
    double fps;
    bool follow_links, dry_run;
};

static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "DIR", "folder of the pack"},
    {0, "short-side", CLI_INT, offsetof(struct values, short_side), "PIXELS",
     "of the frames; 0: as in the files (default: 128)"},
    {0, "fps", CLI_REAL, offsetof(struct values, fps), "N", "frames a second (default: dataset.video_fps)"},
    {0, "codec", CLI_TEXT, offsetof(struct values, codec), "jpeg|raw",
     "jpeg: small; raw: the very bits of data.cache, and no decoding (default: jpeg)"},
    {0, "quality", CLI_INT, offsetof(struct values, quality), "Q", "of JPEG, 1 to 100 (default: 95)"},
    {0, "chroma", CLI_TEXT, offsetof(struct values, chroma), "full|half",
     "of JPEG; half: a fourth of the colour samples, a quarter smaller and faster (default: full)"},
    {0, "shard", CLI_TEXT, offsetof(struct values, shard), "I/N",
     "this process does the Ith of N parts (default: by rank under mpirun, srun and torchrun, else 1/1)"},
    {0, "jobs", CLI_INT, offsetof(struct values, jobs), "N", "files decoded side by side (default: processors)"},
    {0, "shard-mb", CLI_INT, offsetof(struct values, shard_mb), "MB", "size of a file of the pack (default: 512)"},
    {0, "dry-run", CLI_FLAG, offsetof(struct values, dry_run), NULL, "say what it would come to, and stop"},
    {'c', "config", CLI_TEXT, offsetof(struct values, config), "FILE", "configuration (sound rate, track, colour)"},
    FOLLOW_LINKS_OPTION(struct values, follow_links),
    {0},
};

/* Launchers tell a process its place. Outside of a step SLURM_PROCID is set as well, so the step's own size decides. */
static void place_by_launcher(int64_t *part, int64_t *parts)
{
    static const char *const NAMES[][2] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                           {"PMI_RANK", "PMI_SIZE"},
                                           {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"},
                                           {"RANK", "WORLD_SIZE"}};
    *part = 0;
    *parts = 1;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        const char *rank = getenv(NAMES[i][0]), *size = getenv(NAMES[i][1]);
        if (!rank || !size) continue;
        long r = strtol(rank, NULL, 10), n = strtol(size, NULL, 10);
        if (n < 1 || r < 0 || r >= n) continue;
        *part = r;
        *parts = n;
        return;
    }
}

static xkd_status place_of(struct cli *cli, const char *shard, int64_t *part, int64_t *parts)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    char end;
    place_by_launcher(part, parts);
    if (!shard) {
        if (*parts > 1) cli_say(cli, "part %" PRId64 " of %" PRId64 ", by rank", *part + 1, *parts);
        return XKD_OK;
    }
    if (sscanf(shard, "%" SCNd64 "/%" SCNd64 "%c", part, parts, &end) != 2 || *part < 1 || *part > *parts)
        XKD_FAIL(XKD_ERR_CONFIG, "--shard %s: I/N with I from 1 to N, such as 2/8", shard);
    --*part;
fail:
    return status;
}

static xkd_status check_values(xkd_context *cx, const struct values *v, xkd_record_options *record)
{
    xkd_status status = XKD_OK;
    record->codec = xkd_record_codec_of(v->codec);
    record->quality = v->quality;
    record->full_colour = !strcmp(v->chroma, "full");
    if (!v->out) XKD_FAIL(XKD_ERR_CONFIG, "data pack: --out DIR is missing");
    if (record->codec < 0) XKD_FAIL(XKD_ERR_CONFIG, "--codec %s: jpeg or raw", v->codec);
    if (!record->full_colour && strcmp(v->chroma, "half"))
        XKD_FAIL(XKD_ERR_CONFIG, "--chroma %s: full or half", v->chroma);
    if (v->short_side && (v->short_side < 8 || v->short_side > 4096))
        XKD_FAIL(XKD_ERR_CONFIG, "--short-side %" PRId64 ": from 8 to 4096, or 0 for the size of the files",
                 v->short_side);
    if (!(v->fps > 0 && v->fps <= 240)) XKD_FAIL(XKD_ERR_CONFIG, "--fps %g: above 0, to 240", v->fps);
    if (v->quality < 1 || v->quality > 100)
        XKD_FAIL(XKD_ERR_CONFIG, "--quality %" PRId64 ": from 1 to 100", v->quality);
    if (v->jobs < 1 || v->jobs > 1024) XKD_FAIL(XKD_ERR_CONFIG, "--jobs %" PRId64 ": from 1 to 1024", v->jobs);
    if (v->shard_mb < 1 || v->shard_mb > 16384)
        XKD_FAIL(XKD_ERR_CONFIG, "--shard-mb %" PRId64 ": from 1 to 16384", v->shard_mb);
fail:
    return status;
}

/* "3.21 GB", or MB where there are few. */
static const char *size_text(char text[32], double bytes)
{
    bool large = bytes >= 1e9;
    snprintf(text, 32, "%.2f %s", bytes / (large ? 1e9 : 1e6), large ? "GB" : "MB");
    return text;
}

static void print_forecast(struct cli *cli, const xkd_packing_forecast *f)
{
    if (cli->json) {
        printf("{\"samples\": %" PRId64 ", \"hours\": %.3f, \"bytes\": %.0f, \"shards\": %" PRId64
               ", \"without_length\": %" PRId64 ", \"free_bytes\": %" PRId64 "}\n",
               f->samples, f->seconds / 3600, f->bytes, f->runs, f->without_length, f->free_bytes);
        return;
    }
    char size[32], room[32];
    printf("%" PRId64 " samples, %.2f hours: about %s in %" PRId64 " shards", f->samples, f->seconds / 3600,
           size_text(size, f->bytes), f->runs);
    if (f->free_bytes >= 0) printf("; %s are free there", size_text(room, (double)f->free_bytes));
    printf("\n");
    if (f->without_length)
        printf("of %" PRId64 " files the length is not known, and 10 s are assumed (`xkd data index` measures it)\n",
               f->without_length);
}

static void print_result(struct cli *cli, const xkd_packing_result *r, double seconds)
{
    char size[32];
    if (cli->json) {
        printf("{\"packed\": %" PRId64 ", \"unreadable\": %" PRId64 ", \"damaged\": %" PRId64
               ", \"done_before\": %" PRId64 ", \"shards\": %" PRId64 ", \"bytes\": %" PRId64 ", \"seconds\": %.2f}\n",
               r->packed, r->unreadable, r->damaged, r->kept, r->shards, r->bytes, seconds);
        return;
    }
    printf("%" PRId64 " samples packed, %" PRId64 " unreadable", r->packed, r->unreadable);
    if (r->damaged) printf(", %" PRId64 " with damage in them", r->damaged);
    if (r->kept) printf(" (%" PRId64 " were done before)", r->kept);
    printf(": %" PRId64 " shards, %s, %.1f s\n", r->shards, size_text(size, (double)r->bytes), seconds);
}

static int stop(void *user)
{
    (void)user;
    return cli_signal();
}

static xkd_status pack(struct cli *cli, const struct values *v, const xkd_config *config, const xkd_manifest *manifest,
                       xkd_packing_options *o)
{
    xkd_status status = XKD_OK;
    struct data_progress progress = {cli, "pack", xkd_now()};
    xkd_packing_forecast forecast;
    xkd_packing_result result;
    char size[32];
    o->progress = data_show_progress;
    o->stop = stop;
    o->user = &progress;
    XKD_TRY(xkd_packing_plan(cli->cx, manifest, &config->data, o, &forecast));
    if (v->dry_run) {
        print_forecast(cli, &forecast);
        return XKD_OK;
    }
    cli_say(cli, "%" PRId64 " samples, about %s in %" PRId64 " shards", forecast.samples,
            size_text(size, forecast.bytes), forecast.runs);
    if (forecast.free_bytes >= 0 && forecast.bytes > (double)forecast.free_bytes)
        xkd_log(cli->cx, XKD_LOG_WARN,
                "%s: only %.2f GB are free: packing will stop there, and go on once there is room", v->out,
                (double)forecast.free_bytes / 1e9);
    cli_catch_signals();
    status = xkd_packing_run(cli->cx, manifest, &config->data, o, &result);
    if (status == XKD_ERR_INTERRUPTED) status = cli_stopped(cli);
    XKD_TRY(status);
    print_result(cli, &result, xkd_now() - progress.start);
fail:
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {.codec = "jpeg",
                       .chroma = "full",
                       .fps = FPS_NOT_GIVEN,
                       .short_side = 128,
                       .quality = 95,
                       .shard_mb = SHARD_MB,
                       .jobs = xkd_processor_count()};
    xkd_config config = {0};
    xkd_manifest manifest = {0};
    xkd_record_options record = {0};
    xkd_packing_options o = {0};
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_data_pack, argc, argv, &v, &rest));
    if (rest < 1) XKD_FAIL(XKD_ERR_CONFIG, "data pack: which data? (xkd data pack DIR|MANIFEST --out DIR)");
    XKD_TRY(data_configure(cli, v.config, argv + 2, rest - 1, &config));
    config.data.follow_links |= v.follow_links;
    if (v.fps == FPS_NOT_GIVEN) v.fps = config.data.video_fps;
    XKD_TRY(check_values(cx, &v, &record));
    record.grid_fps = v.fps;
    record.audio_rate = config.data.audio_rate;
    XKD_TRY(xkd_manifest_load(cx, argv[1], config.data.follow_links, &manifest));
    o = (xkd_packing_options){
        .out = v.out,
        .threads = (int)v.jobs,
        .settings = xkd_pack_settings_of(&config.data, v.short_side, &record, v.shard_mb << 20, &manifest)};
    XKD_TRY(place_of(cli, v.shard, &o.part, &o.parts));
    XKD_TRY(xkd_check_folder(cx, v.out));
    XKD_TRY(pack(cli, &v, &config, &manifest, &o));
fail:
    xkd_manifest_free(&manifest);
    xkd_config_free(&config);
    return status;
}

const struct cli_command cmd_data_pack = {
    .name = "pack",
    .summary = "decode all clips once into a few large files that are read instead",
    .usage = "DIR|MANIFEST --out DIR [--short-side PIXELS] [--codec jpeg|raw] [--shard I/N] [KEY=VALUE ...]",
    .description =
        "Every command that takes a manifest also takes the pack, with the same draws. A pack holds all frames of the\n"
        "grid and the sound at dataset.audio_fps, with labels, splits and classes. If the command was stopped, give\n"
        "it again and it continues. It names files that it cannot read; these keep their place.",
    .example = "xkd data pack videos.jsonl --out packed\n  xkd pretrain --data packed --out runs/first",
    .options = options,
    .run = run,
};
