/* xkd viz attention: where the encoders' class tokens look in one clip, head by head, and how each side weighs the other. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "data_args.h"
#include "eval/encode/attention.h"
#include "eval/encode/clips.h"
#include "model_args.h"
#include "viz_clip.h"

struct values {
    struct model_args model;
    const char *out;
    double at;
    int64_t layer;
};

static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "DIR", "folder for the results (default: viz)"},
    {0, "at", CLI_REAL, offsetof(struct values, at), "S", "second of the file where the clip begins (default: 0)"},
    {0, "layer", CLI_INT, offsetof(struct values, layer), "L", "attention of block L (default: the last)"},
    MODEL_OPTIONS(struct values, model),
    {0},
};

/* One modality's. */
struct side {
    bool there;
    xkd_patch_grid grid;
    int64_t heads, patches;
    float *attention; /* [H,N] */
    double *weights;  /* [H+2,N]: heads, their mean, refinement */
    double *refine;   /* the last of them; NULL: none */
};

struct attention {
    struct cli *cli;
    struct values v;
    xkd_models models;
    struct viz_clip clip;
    struct side side[XKD_MODALITIES];
    struct viz_output output;
};

static const char *const names[] = {"video", "audio"};

static xkd_status compute_side(struct attention *a, xkd_modality m)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = a->cli->cx;
    struct side *s = &a->side[m];
    xkd_encoder_run run = {0};
    float *feature = NULL;
    xkd_view_shape shape = xkd_clip_shape(&a->models.config.data, m);
    shape.B = 1;
    XKD_TRY(xkd_encoder_run_new(cx, &a->models.encoder[m], &shape, XKD_FEATURE_MEAN, a->v.layer, &run));
    s->heads = xkd_attention_heads(&run);
    s->patches = xkd_attention_patches(&run);
    XKD_TRY(xkd_alloc(cx, &feature, run.rows * run.width, sizeof *feature));
    XKD_TRY(xkd_alloc(cx, &s->attention, s->heads * s->patches, sizeof *s->attention));
    XKD_TRY(xkd_alloc(cx, &s->weights, (s->heads + 2) * s->patches, sizeof *s->weights));
    XKD_TRY(xkd_encoder_features(a->models.be, &run, a->clip.clip[m], feature));
    XKD_TRY(xkd_encoder_attention(cx, a->models.be, &run, s->attention));
    const xkd_patch_geometry *g = &run.run.view[0].geometry;
    s->grid = (xkd_patch_grid){.C = g->C, .T = g->T, .H = g->H, .W = g->W, .pt = g->pt, .ph = g->ph, .pw = g->pw};
    double *mean = s->weights + s->heads * s->patches;
    for (int64_t i = 0; i < s->heads * s->patches; i++) {
        s->weights[i] = s->attention[i];
        mean[i % s->patches] += s->attention[i] / (double)s->heads;
    }
    s->there = true;
fail:
    xkd_free(feature);
    xkd_encoder_run_free(&run);
    return status;
}

/* Each side's patches as the teachers' refinement weighs them: only of two encoders with as many heads, and of the last block, as in
 * training. */
static void compute_refinement(struct attention *a)
{
    struct side *video = &a->side[XKD_VIDEO], *audio = &a->side[XKD_AUDIO];
    bool softmax = a->models.config.step.attn_mode == XKD_ATTN_SOFTMAX;
    if (!video->there || !audio->there || video->heads != audio->heads || a->v.layer >= 0) return;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        struct side *own = &a->side[m], *other = &a->side[!m];
        own->refine = own->weights + (own->heads + 1) * own->patches;
        xkd_refine_weights(own->attention, own->patches, other->attention, other->patches, own->heads, softmax,
                           own->refine);
    }
}

/* The clip, a panel a head, all heads, and the refinement. */
static xkd_status write_side(struct attention *a, xkd_modality m)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = a->cli->cx;
    static const char *const files[] = {"attention-video", "attention-audio"};
    static const char *const refined[] = {"as the sound weighs it", "as the picture weighs it"};
    const struct side *s = &a->side[m];
    xkd_panel *panels = NULL;
    char(*titles)[32] = NULL;
    int64_t count = s->heads + 2 + (s->refine != NULL);
    XKD_TRY(xkd_alloc(cx, &panels, count, sizeof *panels));
    XKD_TRY(xkd_alloc(cx, &titles, s->heads, sizeof *titles));
    panels[0] = (xkd_panel){.title = "clip"};
    for (int64_t h = 0; h < s->heads; h++) {
        snprintf(titles[h], sizeof *titles, "head %" PRId64, h + 1);
        panels[1 + h] = (xkd_panel){.title = titles[h], .weights = s->weights + h * s->patches};
    }
    panels[s->heads + 1] = (xkd_panel){.title = "all heads", .weights = s->weights + s->heads * s->patches};
    if (s->refine) panels[s->heads + 2] = (xkd_panel){.title = refined[m], .weights = s->refine};
    for (int64_t i = 0; i < count; i++) panels[i].clip = a->clip.clip[m];
    const xkd_panels all = {.grid = s->grid, .panels = panels, .count = count};
    XKD_TRY(viz_write(&a->output, &all, files[m]));
fail:
    xkd_free(panels);
    xkd_free(titles);
    return status;
}

/* The numbers themselves: [H,t,h,w] of attention and [t,h,w] of refinement, a modality each. */
static xkd_status write_numbers(struct attention *a)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = a->cli->cx;
    static const char *const tensors[][2] = {{"video.attention", "video.refinement"},
                                             {"audio.attention", "audio.refinement"}};
    xkd_tensor_item items[2 * XKD_MODALITIES];
    int64_t count = 0;
    char *path = NULL;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        const struct side *s = &a->side[m];
        const xkd_patch_grid *g = &s->grid;
        if (!s->there) continue;
        const int64_t t = g->T / g->pt, h = g->H / g->ph, w = g->W / g->pw;
        items[count++] = (xkd_tensor_item){tensors[m][0], XKD_F32, {4, {s->heads, t, h, w}}, s->attention, NULL};
        if (s->refine) items[count++] = (xkd_tensor_item){tensors[m][1], XKD_F64, {3, {t, h, w}}, s->refine, NULL};
    }
    XKD_TRY(viz_path(&a->output, "attention", ".safetensors", &path));
    XKD_TRY(xkd_safetensors_write(cx, path, items, count, NULL, 0));
fail:
    xkd_free(path);
    return status;
}

static void print_results(struct attention *a)
{
    if (a->cli->json) printf("{\"start\": %.6f", a->clip.start);
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        const struct side *s = &a->side[m];
        if (!s->there) continue;
        double sum = 0;
        for (int64_t i = 0; i < s->heads * s->patches; i++) sum += s->attention[i] / (double)s->heads;
        if (a->cli->json)
            printf(", \"%s\": {\"heads\": %" PRId64 ", \"patches\": %" PRId64 ", \"on_patches\": %.6f}", names[m],
                   s->heads, s->patches, sum);
        else
            printf("%s: %" PRId64 " heads over %" PRId64 " patches, %.1f %% of the attention on them\n", names[m],
                   s->heads, s->patches, 100 * sum);
    }
    printf(a->cli->json ? ", \"files\": [%s]}\n" : "%s", a->output.files.data);
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct attention a = {.cli = cli, .v = {.out = "viz", .layer = -1}};
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_viz_attention, argc, argv, &a.v, &rest));
    if (rest < 2) XKD_FAIL(XKD_ERR_CONFIG, "viz attention: want a MODEL and a CLIP ('--help' shows its use)");
    if (!(a.v.at >= 0 && isfinite(a.v.at)))
        XKD_FAIL(XKD_ERR_CONFIG, "viz attention: --at must be a second of the file");
    XKD_TRY(viz_check_path(cli, argv[2]));
    XKD_TRY(models_load(cli, &a.v.model, argv[1], argv + 3, rest - 2, &a.models));
    a.output = (struct viz_output){cli, &a.models.config, &a.clip, a.v.out, xkd_text_make(cx)};
    XKD_TRY(viz_clip_read(cli, &a.models.config, a.models.wanted, argv[2], a.v.at, &a.clip));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (a.clip.clip[m]) XKD_TRY(compute_side(&a, m));
    compute_refinement(&a);
    XKD_TRY(xkd_make_folder(cx, a.v.out));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (a.side[m].there) XKD_TRY(write_side(&a, m));
    XKD_TRY(write_numbers(&a));
    print_results(&a);
fail:
    for (int m = 0; m < XKD_MODALITIES; m++) {
        xkd_free(a.side[m].attention);
        xkd_free(a.side[m].weights);
    }
    viz_clip_free(&a.clip);
    if (a.output.cli) xkd_text_free(&a.output.files);
    xkd_models_free(&a.models);
    return status;
}

const struct cli_command cmd_viz_attention = {
    .name = "attention",
    .summary = "show where the encoders look in one clip, head by head",
    .usage = "MODEL CLIP [--out DIR] [--at S] [--layer L] [KEY=VALUE ...]",
    .description = "MODEL is anything that 'xkd embed' takes; --audio-model adds the sound's where each encoder has "
                   "its own file.\n"
                   "DIR gets attention-video and attention-audio, each as .png and as .mp4 with the clip's sound: the "
                   "attention of the\n"
                   "class token to the patches, a panel a head, then all heads, then the weights by which the "
                   "teachers' features are\n"
                   "refined with the other modality's attention. Colours go from 0 to a panel's largest value; the "
                   "numbers are in\n"
                   "attention.safetensors.",
    .example = "xkd viz attention runs/first holiday.mp4 --at 12 --out viz\n"
               "  xkd viz attention vid_teacher.pth.tar holiday.mp4 --audio-model aud_teacher.pth.tar",
    .options = options,
    .run = run,
};
