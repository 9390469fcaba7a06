/* xkd data unpack: ordinary files out of a pack, for a look. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/status.h"
#include "data/index.h"
#include "data/pack.h"
#include "data/wav.h"
#include "data_args.h"
#include "report/png.h"

struct values {
    const char *out, *like;
    int64_t most;
};

static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "DIR", "folder to write to"},
    {0, "like", CLI_TEXT, offsetof(struct values, like), "TEXT", "only samples whose name has this in it"},
    {0, "most", CLI_INT, offsetof(struct values, most), "N", "samples at most (default: all)"},
    {0},
};

/* A sample on its way out. */
struct unpacking {
    xkd_context *cx;
    xkd_record_reader *reader;
    char *folder; /* of its files */
    int16_t *sound;
    bool ours; /* what went wrong is the disk that is written to, not the pack */
};

/* JPEG as it stands there; raw frames as PNG. */
static xkd_status write_frame(struct unpacking *u, int64_t k, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    const xkd_record_head *h = xkd_record_about(u->reader);
    bool raw = h->codec == XKD_CODEC_RAW;
    const uint8_t *data;
    int64_t size;
    char name[32], *path = NULL;
    XKD_TRY(xkd_record_piece_of(u->reader, k, &data, &size, fault));
    snprintf(name, sizeof name, "%06" PRId64 ".%s", k, raw ? "png" : "jpg");
    u->ours = true;
    XKD_TRY(xkd_join_path(u->cx, &path, u->folder, name));
    XKD_TRY(raw ? xkd_png_write(u->cx, path, data, h->width, h->height) : xkd_write_file(u->cx, path, data, size));
    u->ours = false;
fail:
    xkd_free(path);
    return status;
}

static xkd_status write_sound(struct unpacking *u, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    const xkd_record_head *h = xkd_record_about(u->reader);
    char *path = NULL;
    if (!h->samples) return XKD_OK;
    u->ours = true;
    XKD_TRY(xkd_alloc(u->cx, &u->sound, h->samples, sizeof *u->sound));
    u->ours = false;
    XKD_TRY(xkd_record_sound(u->reader, 0, h->samples, u->sound, fault));
    u->ours = true;
    XKD_TRY(xkd_join_path(u->cx, &path, u->folder, "sound.wav"));
    XKD_TRY(xkd_wav_write(u->cx, path, u->sound, h->samples, h->audio_rate));
    u->ours = false;
fail:
    xkd_free(path);
    return status;
}

/* Sample i below `out`. What is wrong with its record stands in `why`; the status is for our own troubles. */
static xkd_status unpack(xkd_context *cx, const xkd_manifest *m, int64_t i, const char *out, char why[512])
{
    xkd_status status = XKD_OK;
    struct unpacking u = {.cx = cx};
    xkd_source source;
    xkd_media_fault fault = XKD_FAULT_NONE;
    why[0] = 0;
    XKD_TRY(xkd_manifest_open(cx, m, &m->samples[i], false, &source, &fault));
    u.ours = true;
    XKD_TRY(xkd_record_reader_new(cx, &u.reader));
    XKD_TRY(xkd_join_path(cx, &u.folder, out, m->samples[i].path));
    XKD_TRY(xkd_make_folder(cx, u.folder));
    u.ours = false;
    XKD_TRY(xkd_record_open(u.reader, &source, &fault));
    for (int64_t k = 0; k < xkd_record_about(u.reader)->frames; k++) XKD_TRY(write_frame(&u, k, &fault));
    XKD_TRY(write_sound(&u, &fault));
fail:
    if (status != XKD_OK && !u.ours) {
        snprintf(why, 512, "%.500s", xkd_last_error(cx));
        if (source.fd >= 0) xkd_manifest_blame(m, &m->samples[i], why, 512);
        xkd_clear_error(cx);
        status = XKD_OK;
    }
    if (source.fd >= 0) close(source.fd);
    xkd_record_reader_free(u.reader);
    xkd_free(u.folder);
    xkd_free(u.sound);
    return status;
}

struct counts {
    int64_t done, failed;
};

static xkd_status unpack_all(struct cli *cli, const struct values *v, const xkd_manifest *m, struct counts *n)
{
    xkd_status status = XKD_OK;
    for (int64_t i = 0; i < m->count && n->done + n->failed < v->most; i++) {
        const char *path = m->samples[i].path;
        char why[512];
        if (v->like && !strstr(path, v->like)) continue;
        XKD_TRY(unpack(cli->cx, m, i, v->out, why));
        n->done += !why[0];
        n->failed += why[0] != 0;
        if (why[0]) cli_say(cli, "%s: %s", path, why);
    }
fail:
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {.most = INT64_MAX};
    xkd_manifest manifest = {0};
    struct counts n = {0};
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_data_unpack, argc, argv, &v, &rest));
    if (rest != 1) XKD_FAIL(XKD_ERR_CONFIG, "data unpack: which pack? (xkd data unpack DIR --out DIR)");
    if (!v.out) XKD_FAIL(XKD_ERR_CONFIG, "data unpack: --out DIR is missing");
    if (v.most < 1) XKD_FAIL(XKD_ERR_CONFIG, "--most %" PRId64 ": at least one", v.most);
    XKD_TRY(xkd_manifest_load(cx, argv[1], false, &manifest));
    if (!manifest.pack) XKD_FAIL(XKD_ERR_CONFIG, "%s: is no pack ('xkd data pack' makes one)", argv[1]);
    XKD_TRY(unpack_all(cli, &v, &manifest, &n));
    if (cli->json)
        printf("{\"samples\": %" PRId64 ", \"unreadable\": %" PRId64 "}\n", n.done, n.failed);
    else
        printf("%" PRId64 " samples in %s, %" PRId64 " unreadable\n", n.done, v.out, n.failed);
    if (n.failed) status = XKD_ERR_DATA; /* the lines above say which */
fail:
    xkd_manifest_free(&manifest);
    return status;
}

const struct cli_command cmd_data_unpack = {
    .name = "unpack",
    .summary = "write the frames and the sound of a pack as ordinary files",
    .usage = "PACK --out DIR [--like TEXT] [--most N]",
    .description =
        "Each sample becomes a folder with its frames (.jpg as they stand in the pack, or .png) and sound.wav.",
    .example = "xkd data unpack packed --out look --most 3",
    .options = options,
    .run = run,
};
