/* What `xkd viz` shows, against products computed here and the oracle's predictions: class-token attention from q and k,
 * refinement weights against training's own pooling, masked patches and what is predicted for them; and where colours land. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "eval/encode/attention.h"
#include "eval/encode/autoencoder_file.h"
#include "golden_file.h"
#include "report/panels.h"

#define BACKBONES "tests/golden/backbone/"
#define MODEL "tests/golden/xkd/"

enum { B = 2, D = 32, H = 2, HEAD = D / H };

/* float32 sums of 16 and 65 numbers. */
static const double ATTENTION_TOLERANCE = 1e-5, PREDICTION_TOLERANCE = 1e-4;

/* params.json's geometry: the file itself cannot say it. */
static const xkd_model_config geometry = {.channels = 3,
                                          .frame_height = 32,
                                          .frame_width = 32,
                                          .num_frames = 8,
                                          .vid_patch_t = 2,
                                          .vid_patch_h = 8,
                                          .vid_patch_w = 8,
                                          .spec_freq = 16,
                                          .spec_time = 32,
                                          .spec_patch_f = 4,
                                          .spec_patch_t = 8,
                                          .teacher = {32, 2, 2},
                                          .student = {32, 2, 2}};

typedef struct {
    xkd_encoder encoder;
    xkd_encoder_run run;
    float *w; /* [B,H,N] */
    int64_t N;
} looking;

static xkd_context *cx;
static xkd_backend *be;

static int open_backend(void **state)
{
    (void)state;
    cx = xkd_context_new();
    return xkd_backend_new(cx, &be, "cpu", XKD_F32, 1) == XKD_OK ? 0 : -1;
}

static int close_backend(void **state)
{
    (void)state;
    xkd_backend_free(be);
    xkd_context_free(cx);
    return 0;
}

/* The golden input through a golden backbone, cut to `layer` blocks. */
static void look(xkd_modality m, int64_t layer, looking *out)
{
    static const char *const names[] = {"vid", "aud"};
    char path[100], tensor[100];
    int64_t sides[4], bytes;
    float features[B * D];
    xkd_view_shape shape = m == XKD_VIDEO ? (xkd_view_shape){.B = B, .T = 8, .H = 32, .W = 32}
                                          : (xkd_view_shape){.B = B, .T = 1, .H = 16, .W = 32};
    snprintf(path, sizeof path, BACKBONES "%s_teacher.pth.tar", names[m]);
    snprintf(tensor, sizeof tensor, "%s.train_size.input", names[m]);
    float *input = golden_tensor(BACKBONES "expected.safetensors", tensor, sides, &bytes);
    xkd_encoder_source source = {.path = path, .modality = m, .geometry = &geometry};
    assert_int_equal(xkd_encoder_load(cx, &source, be, &out->encoder), XKD_OK);
    assert_int_equal(xkd_encoder_run_new(cx, &out->encoder, &shape, XKD_FEATURE_MEAN, layer, &out->run), XKD_OK);
    assert_int_equal(xkd_encoder_features(be, &out->run, input, features), XKD_OK);
    out->N = xkd_attention_patches(&out->run);
    assert_int_equal(xkd_attention_heads(&out->run), H);
    assert_int_equal(xkd_alloc(cx, &out->w, B * H * out->N, sizeof *out->w), XKD_OK);
    assert_int_equal(xkd_encoder_attention(cx, be, &out->run, out->w), XKD_OK);
    free(input);
}

static void look_away(looking *l)
{
    xkd_encoder_run_free(&l->run);
    xkd_encoder_free(&l->encoder);
    xkd_free(l->w);
}

/* softmax of the class token's q times every k, in double, from the block's qkv [R,3D]. */
static void attention_is_the_softmax_of_q_and_k(void **state)
{
    (void)state;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        for (int64_t layer = 1; layer <= 2; layer++) {
            looking l;
            look(m, layer, &l);
            const float *qkv = l.run.run.blocks.blocks[layer - 1].qkv;
            int64_t tokens = l.N + 1;
            for (int64_t b = 0; b < B; b++)
                for (int64_t h = 0; h < H; h++) {
                    double e[80], sum = 0, row = 0;
                    const float *q = qkv + b * tokens * 3 * D + h * HEAD;
                    for (int64_t t = 0; t < tokens; t++) {
                        const float *k = qkv + (b * tokens + t) * 3 * D + D + h * HEAD;
                        double dot = 0;
                        for (int64_t i = 0; i < HEAD; i++) dot += (double)q[i] * k[i];
                        sum += e[t] = exp(dot / sqrt(HEAD));
                    }
                    for (int64_t n = 0; n < l.N; n++) {
                        double w = l.w[(b * H + h) * l.N + n];
                        row += w;
                        if (fabs(w - e[n + 1] / sum) > ATTENTION_TOLERANCE)
                            fail_msg("modality %d layer %d head %d patch %d: %g, not %g", m, (int)layer, (int)h, (int)n,
                                     w, e[n + 1] / sum);
                    }
                    /* With the class token's own share a row is whole. */
                    assert_true(fabs(row + e[0] / sum - 1) < ATTENTION_TOLERANCE);
                }
            look_away(&l);
        }
}

static void there_is_no_attention_before_the_first_block(void **state)
{
    (void)state;
    looking l;
    look(XKD_VIDEO, 1, &l);
    l.run.backbone.blocks.depth = 0;
    assert_int_equal(xkd_encoder_attention(cx, be, &l.run, l.w), XKD_ERR_CONFIG);
    look_away(&l);
}

/* The pooled refined feature is the mean of s * w_i * f_i, s keeping the mean's energy: with the weights shown here it must be
 * what training computes. */
static void check_refinement(const looking *own, const looking *other, bool softmax)
{
    float pooled[B * D];
    double w[80];
    const float *z = own->run.run.z;
    xkd_refine_args args = {.features = z,
                            .self_attn = own->w,
                            .other_attn = other->w,
                            .B = B,
                            .tokens = own->N + 1,
                            .D = D,
                            .H = H,
                            .N = own->N,
                            .M = other->N,
                            .softmax = softmax};
    be->ops->refine_pool(be, pooled, &args);
    for (int64_t b = 0; b < B; b++) {
        double plain[D] = {0}, weighed[D] = {0}, before = 0, after = 0;
        xkd_refine_weights(own->w + b * H * own->N, own->N, other->w + b * H * other->N, other->N, H, softmax, w);
        for (int64_t n = 0; n < own->N; n++)
            for (int64_t d = 0; d < D; d++) {
                double f = z[(b * (own->N + 1) + 1 + n) * D + d];
                plain[d] += f / (double)own->N;
                weighed[d] += w[n] * f / (double)own->N;
            }
        for (int64_t d = 0; d < D; d++) {
            before += plain[d] * plain[d];
            after += weighed[d] * weighed[d];
        }
        for (int64_t d = 0; d < D; d++)
            assert_true(fabs(sqrt(before / after) * weighed[d] - pooled[b * D + d]) < PREDICTION_TOLERANCE);
    }
    double sum = 0;
    for (int64_t n = 0; n < own->N; n++) sum += w[n];
    if (softmax) assert_true(fabs(sum - 1) < ATTENTION_TOLERANCE);
}

static void refinement_is_that_of_training(void **state)
{
    (void)state;
    looking video, audio;
    look(XKD_VIDEO, -1, &video);
    look(XKD_AUDIO, -1, &audio);
    for (int softmax = 0; softmax < 2; softmax++) {
        check_refinement(&video, &audio, softmax);
        check_refinement(&audio, &video, softmax);
    }
    look_away(&video);
    look_away(&audio);
}

/* ---- reconstruction ---- */

/* Offset in the clip of element e of patch n; inside a patch (t,h,w,c), c fastest. */
static int64_t place_of(const xkd_patch_grid *g, int64_t n, int64_t e)
{
    int64_t rows = g->H / g->ph, columns = g->W / g->pw, c = e % g->C, w = e / g->C % g->pw;
    int64_t h = e / (g->C * g->pw) % g->ph, t = e / (g->C * g->pw * g->ph);
    t += n / (rows * columns) * g->pt;
    h += n / columns % rows * g->ph;
    w += n % columns * g->pw;
    return ((c * g->T + t) * g->H + h) * g->W + w;
}

/* One modality's clips against the oracle's mask [N] (1: masked) and predictions [N,P] in units of each patch's deviation. */
static void check_reconstruction(const xkd_reconstruction *r, const float *clip, const float *mask, const float *pred)
{
    const xkd_patch_grid *g = &r->grid;
    int64_t P = g->C * g->pt * g->ph * g->pw, hidden = 0;
    for (int64_t n = 0; n < r->patches; n++) {
        double mean = 0, variance = 0;
        assert_int_equal(r->hidden[n], mask[n] != 0);
        hidden += r->hidden[n];
        for (int64_t e = 0; e < P; e++) mean += clip[place_of(g, n, e)] / (double)P;
        for (int64_t e = 0; e < P; e++) variance += pow(clip[place_of(g, n, e)] - mean, 2) / (double)(P - 1);
        for (int64_t e = 0; e < P; e++) {
            int64_t at = place_of(g, n, e);
            double want = pred[n * P + e] * sqrt(variance + 1e-6) + mean;
            if (r->hidden[n]) {
                assert_true(isnan(r->masked[at]));
                assert_true(fabs(r->predicted[at] - want) < PREDICTION_TOLERANCE);
                assert_true(r->filled[at] == r->predicted[at]);
            } else {
                assert_true(r->masked[at] == clip[at] && r->filled[at] == clip[at] && isnan(r->predicted[at]));
            }
        }
    }
    assert_int_equal(hidden, r->hidden_count);
}

static void reconstructions_are_the_oracles(void **state)
{
    (void)state;
    xkd_autoencoders a = {0};
    xkd_reconstruction made[XKD_MODALITIES] = {{.grid = {0}}};
    int64_t sides[4], bytes;
    double error[XKD_MODALITIES];
    float *clip[] = {golden_tensor(MODEL "batch.safetensors", "step1.frames.0", sides, &bytes),
                     golden_tensor(MODEL "batch.safetensors", "step1.specs.0", sides, &bytes)};
    float *noise[] = {golden_tensor(MODEL "batch.safetensors", "step1.vid_noise", sides, &bytes),
                      golden_tensor(MODEL "batch.safetensors", "step1.aud_noise", sides, &bytes)};
    float *mask[] = {golden_tensor(MODEL "activations.safetensors", "vid_mask", sides, &bytes),
                     golden_tensor(MODEL "activations.safetensors", "aud_mask", sides, &bytes)};
    float *pred[] = {golden_tensor(MODEL "activations.safetensors", "vid_pred", sides, &bytes),
                     golden_tensor(MODEL "activations.safetensors", "aud_pred", sides, &bytes)};
    const float *const clips[] = {clip[0], clip[1]}, *const drawn[] = {noise[0], noise[1]};
    char *sizes[] = {"dataset.crop_size=32", "dataset.clip_duration=0.5"};
    if (xkd_autoencoders_load(cx, MODEL "init.safetensors", sizes, 2, &a) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    if (xkd_autoencoders_run(cx, &a, clips, drawn, made, error) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    for (int m = 0; m < XKD_MODALITIES; m++) {
        check_reconstruction(&made[m], clip[m], mask[m], pred[m]);
        assert_true(error[m] > 0.5 && error[m] < 5);
        xkd_reconstruction_free(&made[m]);
    }
    /* Sound alone: the other clip is not there. */
    const float *const sound[] = {NULL, clip[1]};
    assert_int_equal(xkd_autoencoders_run(cx, &a, sound, drawn, made, error), XKD_OK);
    assert_null(made[XKD_VIDEO].masked);
    check_reconstruction(&made[XKD_AUDIO], clip[1], mask[1], pred[1]);
    xkd_reconstruction_free(&made[XKD_AUDIO]);
    xkd_autoencoders_free(&a);
    for (int m = 0; m < XKD_MODALITIES; m++) {
        free(clip[m]);
        free(noise[m]);
        free(mask[m]);
        free(pred[m]);
    }
}

static void an_encoder_alone_reconstructs_nothing(void **state)
{
    (void)state;
    xkd_autoencoders a = {0};
    xkd_clear_error(cx);
    assert_int_equal(xkd_autoencoders_load(cx, BACKBONES "vid_teacher.safetensors", NULL, 0, &a), XKD_ERR_CHECKPOINT);
    assert_non_null(strstr(xkd_last_error(cx), "holds no decoder"));
    xkd_autoencoders_free(&a);
}

/* ---- panels ---- */

static const uint8_t *pixel(const xkd_canvas *c, int64_t x, int64_t y)
{
    return c->rgb + (y * c->width + x) * 3;
}

/* The colour map's upper end is yellow, its lower one violet. */
static bool is_yellow(const uint8_t *rgb)
{
    return rgb[0] > 150 && rgb[1] > 130 && rgb[2] < 120;
}

/* One weight on one patch: its frames and its place are yellow, all else is not. The first frame of a strip begins at (6, 20):
 * a gap of 6 and a title of 14; frames of 16 pixels are enlarged 7 times. */
static void weights_colour_their_patch(void **state)
{
    (void)state;
    enum { T = 4, SIDE = 16, ZOOM = 7, STEP = SIDE * ZOOM + 6 };
    static float frames[3 * T * SIDE * SIDE];
    double weights[2 * 2 * 2] = {[4 + 1] = 0.25}; /* the second half of the time, the top right quarter */
    const xkd_panel panels[] = {{.title = "clip", .clip = frames}, {.title = "w", .clip = frames, .weights = weights}};
    const xkd_panels p = {
        .grid = {.C = 3, .T = T, .H = SIDE, .W = SIDE, .pt = 2, .ph = 8, .pw = 8}, .panels = panels, .count = 2};
    xkd_canvas c;
    assert_int_equal(xkd_panels_strip(cx, &p, &c), XKD_OK);
    assert_int_equal(c.width, 6 + T * STEP);
    assert_int_equal(c.height, 6 + 2 * (STEP + 14));
    for (int64_t t = 0; t < T; t++)
        for (int64_t quarter = 0; quarter < 4; quarter++) {
            int64_t x = 6 + t * STEP + (quarter % 2 * 8 + 4) * ZOOM, y = 20 + (quarter / 2 * 8 + 4) * ZOOM;
            assert_false(is_yellow(pixel(&c, x, y)));
            assert_int_equal(is_yellow(pixel(&c, x, y + STEP + 14)), t >= 2 && quarter == 1);
        }
    xkd_canvas_free(&c);
}

/* A spectrogram's first band is its lowest, at the bottom of the picture. */
static void a_spectrograms_bands_rise(void **state)
{
    (void)state;
    enum { SIDE = 16, ZOOM = 7 };
    static float spec[SIDE * SIDE];
    double weights[4] = {[1] = 1}; /* low frequencies, the second half of the time */
    for (int i = 0; i < SIDE * SIDE; i++) spec[i] = (float)(i % 7);
    const xkd_panel panel = {.title = "w", .clip = spec, .weights = weights};
    const xkd_panels p = {
        .grid = {.C = 1, .T = 1, .H = SIDE, .W = SIDE, .pt = 1, .ph = 8, .pw = 8}, .panels = &panel, .count = 1};
    xkd_canvas c;
    assert_int_equal(xkd_panels_strip(cx, &p, &c), XKD_OK);
    for (int64_t quarter = 0; quarter < 4; quarter++) {
        const uint8_t *rgb = pixel(&c, 6 + (quarter % 2 * 8 + 4) * ZOOM, 20 + (quarter / 2 * 8 + 4) * ZOOM);
        assert_int_equal(rgb[0] > rgb[2] + 40, quarter == 3);
    }
    xkd_canvas_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_the_softmax_of_q_and_k),
        cmocka_unit_test(there_is_no_attention_before_the_first_block),
        cmocka_unit_test(refinement_is_that_of_training),
        cmocka_unit_test(reconstructions_are_the_oracles),
        cmocka_unit_test(an_encoder_alone_reconstructs_nothing),
        cmocka_unit_test(weights_colour_their_patch),
        cmocka_unit_test(a_spectrograms_bands_rise),
    };
    return cmocka_run_group_tests(tests, open_backend, close_backend);
}
