/* xkd data synth: an audio-visual data set to try everything on. */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/pool.h"
#include "base/status.h"
#include "data/synth.h"
#include "data_args.h"
#include "media/encode.h"

/* size: of the short side; width follows as 4:3. Classes cannot be told from a single frame or from silence: what is
 * learnt must come from motion and sound. */
struct values {
    const char *out;
    int64_t classes, clips, seed, size, workers;
    double seconds, test_share, variety;
};

static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "DIR", "folder to make"},
    {0, "classes", CLI_INT, offsetof(struct values, classes), "K", "2 to 16 classes of motion (default: 12)"},
    {0, "clips", CLI_INT, offsetof(struct values, clips), "N", "clips of each class (default: 20)"},
    {0, "seconds", CLI_REAL, offsetof(struct values, seconds), "S", "length of a clip (default: 5)"},
    {0, "seed", CLI_INT, offsetof(struct values, seed), "X", "another seed makes other clips (default: 0)"},
    {0, "size", CLI_INT, offsetof(struct values, size), "PIXELS", "short side, 48 to 480 (default: 120)"},
    {0, "test-share", CLI_REAL, offsetof(struct values, test_share), "R", "share of clips for testing (default: 0.2)"},
    {0, "variety", CLI_REAL, offsetof(struct values, variety), "V",
     "0 to 1: how much colours, place, size, pace, pitch and noise differ (default: 1)"},
    {0, "workers", CLI_INT, offsetof(struct values, workers), "N", "clips made side by side (default: processors)"},
    {0},
};

static int stop(void *user)
{
    (void)user;
    return cli_signal();
}

/* Sides are made even for the encoder. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_synth_options o = xkd_synth_defaults();
    /* The library's defaults are the command's, so help and library need to agree on the text alone. */
    struct values v = {.classes = o.classes,
                       .clips = o.clips,
                       .seconds = o.seconds,
                       .size = o.height,
                       .test_share = o.test_share,
                       .variety = o.variety,
                       .workers = xkd_processor_count()};
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_data_synth, argc, argv, &v, &rest));
    XKD_TRY(cli_no_arguments(cli, &cmd_data_synth, rest, argv));
    if (!v.out) XKD_FAIL(XKD_ERR_CONFIG, "data synth: --out DIR is missing");
    /* Ranges of the other options are the library's to check. */
    if (v.size < 48 || v.size > 480) XKD_FAIL(XKD_ERR_CONFIG, "--size %" PRId64 ": from 48 to 480", v.size);
    if (v.workers < 1) XKD_FAIL(XKD_ERR_CONFIG, "--workers %" PRId64 ": at least one is needed", v.workers);
    o.out = v.out;
    o.classes = v.classes;
    o.clips = v.clips;
    o.seconds = v.seconds;
    o.test_share = v.test_share;
    o.variety = v.variety;
    o.seed = (uint64_t)v.seed;
    /* Rounded down to even numbers, as 4:2:0 pictures need; the width follows as 4:3. */
    o.height = v.size / 2 * 2;
    o.width = v.size * 4 / 3 / 2 * 2;
    o.threads = (int)v.workers;
    struct data_progress progress = {cli, "synth", xkd_now()};
    o.stop = stop;
    cli_catch_signals();
    status = xkd_synth(cx, &o, data_show_progress, &progress);
    if (status == XKD_ERR_INTERRUPTED) status = cli_stopped(cli);
    XKD_TRY(status);
    /* Which encoder FFmpeg has decides the codec; what is seen and heard is the same. */
    const char *codec = xkd_encoder_has_h264() ? "H.264" : "MPEG-4";
    if (cli->json)
        printf("{\"files\": %" PRId64 ", \"classes\": %" PRId64 ", \"codec\": \"%s\", \"seconds\": %.2f}\n",
               o.classes * o.clips, o.classes, codec, xkd_now() - progress.start);
    else
        printf("%s: %" PRId64 " clips of %" PRId64 " classes, %g s each, %s and AAC\n", o.out, o.classes * o.clips,
               o.classes, o.seconds, codec);
fail:
    return status;
}

const struct cli_command cmd_data_synth = {
    .name = "synth",
    .summary = "make a synthetic audio-visual data set of real .mp4 files",
    .usage = "--out DIR [--classes K] [--clips N] [--seconds S] [--seed X]",
    .description =
        "The class of a clip is how its object moves; sounds go with the motion. DIR gets train/ and test/ with a\n"
        "folder per class. The same options make the same files.",
    .example = "xkd data synth --out toys --classes 12 --clips 20 --seconds 5 --seed 1",
    .options = options,
    .run = run,
};
