/* xkd viz recon: what the autoencoders make up of the masked parts of one clip. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/file.h"
#include "eval/encode/autoencoder_file.h"
#include "eval/encode/clips.h"
#include "viz_clip.h"

struct values {
    const char *out;
    double at;
    int64_t seed;
};

static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "DIR", "folder for the results (default: viz)"},
    {0, "at", CLI_REAL, offsetof(struct values, at), "S", "second of the file where the clip begins (default: 0)"},
    {0, "seed", CLI_INT, offsetof(struct values, seed), "X", "another seed masks other patches (default: 0)"},
    {0},
};

struct recon {
    struct cli *cli;
    struct values v;
    xkd_autoencoders model;
    struct viz_clip clip;
    xkd_reconstruction made[XKD_MODALITIES];
    double error[XKD_MODALITIES];
    struct viz_output output;
};

static const char *const names[] = {"video", "audio"};

/* A masked view has the size that the model was trained with; positions of another size would have to be guessed. */
static xkd_status check_sizes(const struct recon *r)
{
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        xkd_patch_grid g = xkd_reconstruction_grid(&r->model.networks.config, m);
        xkd_view_shape s = xkd_clip_shape(&r->model.config.data, m);
        if (r->model.has[m] && (g.T != s.T || g.H != s.H || g.W != s.W))
            return xkd_fail(r->cli->cx, XKD_ERR_CONFIG,
                            "viz recon: clips of %" PRId64 "x%" PRId64 "x%" PRId64 ", but the model's %s is %" PRId64
                            "x%" PRId64 "x%" PRId64 ": set dataset.%s",
                            s.T, s.H, s.W, names[m], g.T, g.H, g.W,
                            m == XKD_VIDEO ? "crop_size, clip_duration and video_fps"
                                           : "n_mels, hop_length and clip_duration");
    }
    return XKD_OK;
}

static xkd_status compute(struct recon *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cli->cx;
    float *noise[XKD_MODALITIES] = {NULL};
    const float *const clips[] = {r->clip.clip[XKD_VIDEO], r->clip.clip[XKD_AUDIO]};
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (clips[m]) XKD_TRY(xkd_autoencoders_noise(cx, &r->model, m, (uint64_t)r->v.seed, &noise[m]));
    const float *const drawn[] = {noise[XKD_VIDEO], noise[XKD_AUDIO]};
    XKD_TRY(xkd_autoencoders_run(cx, &r->model, clips, drawn, r->made, r->error));
fail:
    xkd_free(noise[XKD_VIDEO]);
    xkd_free(noise[XKD_AUDIO]);
    return status;
}

static xkd_status write_results(struct recon *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cli->cx;
    static const char *const files[] = {"recon-video", "recon-audio"};
    XKD_TRY(xkd_make_folder(cx, r->v.out));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        const xkd_reconstruction *made = &r->made[m];
        if (!made->masked) continue;
        const xkd_panel panels[] = {{.title = "clip", .clip = r->clip.clip[m]},
                                    {.title = "what the encoder sees", .clip = made->masked},
                                    {.title = "what it predicts", .clip = made->predicted},
                                    {.title = "both", .clip = made->filled}};
        const xkd_panels all = {.grid = made->grid, .panels = panels, .count = sizeof panels / sizeof *panels};
        XKD_TRY(viz_write(&r->output, &all, files[m]));
    }
fail:
    return status;
}

/* The error is in units of each patch's variance where the model was trained so: 1 is what its mean would give. */
static void print_results(struct recon *r)
{
    bool relative = r->model.networks.config.norm_pix_loss;
    if (r->cli->json) printf("{\"start\": %.6f", r->clip.start);
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        const xkd_reconstruction *made = &r->made[m];
        if (!made->masked) continue;
        if (r->cli->json)
            printf(", \"%s\": {\"patches\": %" PRId64 ", \"masked\": %" PRId64 ", \"error\": %.6g}", names[m],
                   made->patches, made->hidden_count, r->error[m]);
        else
            printf("%s: %" PRId64 " of %" PRId64 " patches masked, mean squared error %.3f%s\n", names[m],
                   made->hidden_count, made->patches, r->error[m], relative ? " of a patch's variance" : "");
    }
    printf(r->cli->json ? ", \"files\": [%s]}\n" : "%s", r->output.files.data);
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct recon r = {.cli = cli, .v = {.out = "viz"}};
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_viz_recon, argc, argv, &r.v, &rest));
    if (rest < 2) XKD_FAIL(XKD_ERR_CONFIG, "viz recon: want a MODEL and a CLIP ('--help' shows its use)");
    if (!(r.v.at >= 0 && isfinite(r.v.at))) XKD_FAIL(XKD_ERR_CONFIG, "viz recon: --at must be a second of the file");
    XKD_TRY(viz_check_path(cli, argv[2]));
    XKD_TRY(xkd_autoencoders_load(cx, argv[1], argv + 3, rest - 2, &r.model));
    XKD_TRY(check_sizes(&r));
    r.output = (struct viz_output){cli, &r.model.config, &r.clip, r.v.out, xkd_text_make(cx)};
    XKD_TRY(viz_clip_read(cli, &r.model.config, r.model.has, argv[2], r.v.at, &r.clip));
    XKD_TRY(compute(&r));
    XKD_TRY(write_results(&r));
    print_results(&r);
fail:
    for (int m = 0; m < XKD_MODALITIES; m++) xkd_reconstruction_free(&r.made[m]);
    viz_clip_free(&r.clip);
    if (r.output.cli) xkd_text_free(&r.output.files);
    xkd_autoencoders_free(&r.model);
    return status;
}

const struct cli_command cmd_viz_recon = {
    .name = "recon",
    .summary = "mask one clip and show what the model makes up of the rest",
    .usage = "MODEL CLIP [--out DIR] [--at S] [KEY=VALUE ...]",
    .description =
        "MODEL is a run folder or a file of a whole model: an encoder alone has no decoder. DIR gets recon-video and\n"
        "recon-audio, each as .png (clip, what is left of it, prediction, both) and as .mp4 with the clip's sound. A\n"
        "prediction is scaled with the true patch's mean and variance where the model was trained to predict patches "
        "so.\n"
        "model.fwd_kwargs.vid_mask_ratio and aud_mask_ratio are the shares that are masked.",
    .example = "xkd viz recon runs/first holiday.mp4 --at 12 --out viz",
    .options = options,
    .run = run,
};
