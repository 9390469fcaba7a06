/* xkd bench embed: embedding a file, decoding included, beside the encoder's forward pass alone. */
#include <inttypes.h>
#include <stdio.h>

#include "backend/cpu/rate.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "data/index.h"
#include "eval/encode/embed.h"
#include "model_args.h"

/* Clips of a batch, as `xkd embed` has them. */
enum { BATCH = 8 };

struct values {
    struct model_args model;
    int64_t repeats;
};

static const struct cli_option options[] = {
    MODEL_OPTIONS(struct values, model),
    {0, "repeats", CLI_INT, offsetof(struct values, repeats), "N", "timed batches of the forward pass (default: 5)"},
    {0},
};

/* Of the forward pass: clips and floating-point operations of its matrix products a second. */
struct rates {
    double clips, flop;
};

/* On random clips; the first batch warms up. */
static xkd_status forward_rate(struct cli *cli, const xkd_models *models, xkd_modality m, int64_t repeats,
                               struct rates *rate)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_encoder_run run = {0};
    float *clips = NULL, *features = NULL;
    xkd_view_shape shape = xkd_clip_shape(&models->config.data, m);
    xkd_rng rng = xkd_rng_make(1, 0, 0, 0, XKD_RNG_TEST);
    shape.B = BATCH;
    XKD_TRY(xkd_encoder_run_new(cx, &models->encoder[m], &shape, XKD_FEATURE_MEAN, -1, &run));
    XKD_TRY(xkd_alloc(cx, &clips, BATCH * run.clip_floats, sizeof *clips));
    XKD_TRY(xkd_alloc(cx, &features, BATCH * run.width, sizeof *features));
    /* Random values, and not zeros: denormal or constant inputs may be faster than real ones. */
    for (int64_t i = 0; i < BATCH * run.clip_floats; i++) clips[i] = (float)xkd_rng_normal(&rng);
    /* The first batch touches memory for the first time. */
    XKD_TRY(xkd_encoder_features(models->be, &run, clips, features));
    int64_t products = models->be->products;
    double start = xkd_now();
    for (int64_t i = 0; i < repeats; i++) XKD_TRY(xkd_encoder_features(models->be, &run, clips, features));
    double seconds = xkd_now() - start;
    rate->clips = (double)(BATCH * repeats) / seconds;
    rate->flop = 2 * (double)(models->be->products - products) / seconds;
fail:
    xkd_encoder_run_free(&run);
    xkd_free(clips);
    xkd_free(features);
    return status;
}

/* A sink's function: the features themselves are thrown away. */
static xkd_status count_clips(void *user, const xkd_embedded *file)
{
    int64_t *clips = user;
    for (int m = 0; m < XKD_MODALITIES; m++) clips[m] += file->count[m];
    return XKD_OK;
}

/* Embeds all of a manifest, one modality. */
static xkd_status embed_rate(struct cli *cli, xkd_models *models, xkd_modality m, const xkd_manifest *manifest,
                             double *rate)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_embed_input *inputs = NULL;
    int64_t clips[XKD_MODALITIES] = {0};
    xkd_embed_sink sink = {clips, count_clips, NULL};
    xkd_data_config *d = &models->config.data;
    xkd_embed_options o = {.batch = BATCH, .layer = -1, .clips = {.data = d, .stride = d->clip_duration}};
    /* One view a clip, as `xkd embed` decodes it: windows side by side. */
    d->global_views = 1;
    d->video_local_views = d->audio_local_views = 0;
    o.clips.wanted[m] = true;
    o.encoder[m] = &models->encoder[m];
    XKD_TRY(xkd_alloc(cx, &inputs, manifest->count, sizeof *inputs));
    for (int64_t i = 0; i < manifest->count; i++) inputs[i] = (xkd_embed_input){manifest, i, i, i};
    /* The clock stands still for the lists above; decoding and the last, partly filled batch count. */
    double start = xkd_now();
    /* Decoding and forward pass are two threads here, as in `xkd embed`. */
    XKD_TRY(xkd_embed(cx, models->be, &o, inputs, manifest->count, &sink));
    *rate = (double)clips[m] / (xkd_now() - start);
fail:
    xkd_free(inputs);
    return status;
}

/* Both rates in one call, so that they share the machine's clock and temperature. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {.repeats = 5};
    xkd_models models = {0};
    xkd_manifest manifest = {0};
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_bench_embed, argc, argv, &v, &rest));
    if (rest < 2 || v.repeats < 1) XKD_FAIL(XKD_ERR_CONFIG, "bench embed: want MODEL and a folder or manifest");
    /* MODEL, data, then KEY=VALUE. */
    XKD_TRY(models_load(cli, &v.model, argv[1], argv + 3, rest - 2, &models));
    XKD_TRY(xkd_manifest_load(cx, argv[2], models.config.data.follow_links, &manifest));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        double embed;
        struct rates forward;
        xkd_gemm_rates gemm;
        if (!models.wanted[m]) continue;
        XKD_TRY(forward_rate(cli, &models, m, v.repeats, &forward));
        XKD_TRY(xkd_gemm_rate(cx, xkd_pool_threads(models.be->pool), &gemm));
        XKD_TRY(embed_rate(cli, &models, m, &manifest, &embed));
        /* The ratio is what the decoding costs beside the encoder: 1 means that it is hidden behind it. */
        printf(cli->json
                   ? "{\"modality\": \"%s\", \"forward\": %.4f, \"gemm_share\": %.4f, \"embed\": %.4f, "
                     "\"ratio\": %.4f}\n"
                   : "%s: forward alone %.2f clips/s at %.3f of the GEMM rate, embedding files %.2f clips/s, ratio "
                     "%.3f\n",
               m == XKD_VIDEO ? "video" : "audio", forward.clips, forward.flop / xkd_gemm_best(&gemm), embed,
               embed / forward.clips);
    }
fail:
    xkd_manifest_free(&manifest);
    xkd_models_free(&models);
    return status;
}

const struct cli_command cmd_bench_embed = {
    .name = "embed",
    .summary = "time embedding files beside the encoder's forward pass alone",
    .usage = "MODEL DIR|MANIFEST [KEY=VALUE ...]",
    .example = "xkd bench embed vid_teacher.pth.tar videos/",
    .options = options,
    .run = run,
};
