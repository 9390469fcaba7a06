/* Two fine-tuning steps with layer decay against the oracle, on both backends, video and audio, through interpolated
 * positions: losses and tensors within 1e-4; the layer decay's factors; gradients of every option by central differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "data/finetune_views.h"
#include "supervised/finetune.h"
#include "golden_file.h"

#define FOLDER "tests/golden/backbone/"
static const double TOLERANCE = 1e-4;
/* Adam divides a gradient by its own size: where it is nearly zero, the rounding of float32 becomes a step of a share of
 * lr = .01, in any program. Only such elements, whose gradient in float64 is below this share of the tensor's largest, may
 * be outside the tolerance: one in a thousand, and by no more than a step. */
static const double NEAR_ZERO = 1e-6, A_STEP = 5e-4;
enum { B = 2, K = 5, D = 32 };

static const xkd_model_config geometry = {.channels = 3, .frame_height = 32, .frame_width = 32, .num_frames = 8,
                                          .vid_patch_t = 2, .vid_patch_h = 8, .vid_patch_w = 8, .spec_freq = 16,
                                          .spec_time = 32, .spec_patch_f = 4, .spec_patch_t = 8,
                                          .teacher = {32, 2, 2}, .student = {32, 2, 2}};

static float *golden(xkd_modality m, const char *name, int64_t *count)
{
    char whole[120];
    int64_t shape[4], bytes = 0;
    snprintf(whole, sizeof whole, "%s.%s", m == XKD_VIDEO ? "vid" : "aud", name);
    float *out = golden_tensor(FOLDER "expected.safetensors", whole, shape, &bytes);
    if (!out) fail_msg("%s is missing", whole);
    *count = bytes / 4;
    return out;
}

static void build(xkd_context *cx, xkd_backend *be, xkd_modality m, const xkd_finetune_options *o, xkd_finetune *f)
{
    xkd_encoder_source source = {.path = m == XKD_VIDEO ? FOLDER "vid_teacher.safetensors" : FOLDER "aud_teacher.pth.tar",
                                 .modality = m, .geometry = &geometry};
    xkd_view_shape shape = m == XKD_VIDEO ? (xkd_view_shape){.B = B, .T = 8, .H = 64, .W = 64}
                                          : (xkd_view_shape){.B = B, .T = 1, .H = 16, .W = 64};
    if (xkd_finetune_new(cx, be, &source, &shape, K, o, f) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
}

enum { NAMES = 5, MOST = 4096 };
static const char *const names[NAMES] = {"cls_token", "enc_pos_embed", "encoder.blocks.0.attn.qkv.weight",
                                         "encoder.blocks.1.mlp.fc2.weight", "head.weight"};

/* What float64 says of the elements: the smaller of the two steps' gradients as a share of the tensor's largest. */
typedef struct {
    double share[NAMES][MOST];
} conditions;

static void note_conditions(conditions *c, const xkd_finetune *f, int step)
{
    for (int k = 0; k < NAMES; k++) {
        const xkd_param *row = xkd_params_find(&f->encoder.params, names[k]);
        const double *g = row->grad;
        double largest = 0;
        assert_true(row->count <= MOST);
        for (int64_t i = 0; i < row->count; i++) largest = fmax(largest, fabs(g[i]));
        for (int64_t i = 0; i < row->count; i++)
            c->share[k][i] = step ? fmin(c->share[k][i], fabs(g[i]) / largest) : fabs(g[i]) / largest;
    }
}

static void compare(xkd_modality m, const xkd_finetune *f, int k, const conditions *c)
{
    char whole[100];
    int64_t count, outside = 0;
    snprintf(whole, sizeof whole, "finetune.final.%s", names[k]);
    float *want = golden(m, whole, &count);
    const xkd_param *row = xkd_params_find(&f->encoder.params, names[k]);
    assert_non_null(row);
    assert_int_equal(row->count, count);
    for (int64_t i = 0; i < count; i++) {
        double got = xkd_get(f->be->dtype, row->value, i), off = fabs(got - want[i]);
        bool ill = f->be->dtype == XKD_F32 && c->share[k][i] < NEAR_ZERO;
        outside += off > TOLERANCE;
        if (!(off <= (ill ? A_STEP : TOLERANCE)))
            fail_msg("%s[%lld] is %g, not %g", whole, (long long)i, got, want[i]);
    }
    if (outside > count / 1000) fail_msg("%s: %lld of %lld differ", whole, (long long)outside, (long long)count);
    free(want);
}

static void check(xkd_modality m, const char *backend, xkd_dtype dtype, conditions *c)
{
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    xkd_finetune f;
    xkd_finetune_options o = xkd_finetune_defaults();
    int64_t count;
    o.layer_decay = 0.6;
    assert_int_equal(xkd_backend_new(cx, &be, backend, dtype, 2), XKD_OK);
    build(cx, be, m, &o, &f);
    float *weight = golden(m, "finetune.head.weight", &count), *input = golden(m, "other_size.input", &count);
    float *target = golden(m, "finetune.target", &count), *losses = golden(m, "finetune.losses", &count);
    for (int i = 0; i < K * D; i++) xkd_set(dtype, f.classifier.w->value, i, weight[i]);
    for (int step = 0; step < 2; step++) {
        double loss;
        assert_int_equal(xkd_finetune_step(cx, &f, input, target, 0.01, 0.05, &loss), XKD_OK);
        if (!(fabs(loss - losses[step]) <= TOLERANCE)) fail_msg("loss %d is %g, not %g", step, loss, losses[step]);
        if (dtype == XKD_F64) note_conditions(c, &f, step);
    }
    for (int k = 0; k < NAMES; k++) compare(m, &f, k, c);
    free(weight);
    free(input);
    free(target);
    free(losses);
    xkd_finetune_free(&f);
    xkd_backend_free(be);
    xkd_context_free(cx);
}

static void two_steps(void **state)
{
    (void)state;
    static conditions c;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        check(m, "ref", XKD_F64, &c);
        check(m, "ref", XKD_F32, &c);
        check(m, "cpu", XKD_F32, &c);
    }
}

static void layer_decay(void **state)
{
    (void)state;
    json_t *root = json_load_file("tests/golden/schedule/expected.json", 0, NULL), *e = json_object_get(root, "layer_decay");
    json_t *scales = json_object_get(e, "scales");
    double decay = json_number_value(json_object_get(e, "decay"));
    assert_int_equal(json_array_size(scales), 14);
    for (int i = 0; i < 14; i++) {
        double want = json_number_value(json_array_get(scales, (size_t)i));
        assert_true(fabs(xkd_layer_scale(decay, 12, i) - want) <= 1e-13 * want);
    }
    assert_int_equal(xkd_layer_of("cls_token", 12), 0);
    assert_int_equal(xkd_layer_of("enc_pos_embed", 12), 0);
    assert_int_equal(xkd_layer_of("patch_embed.proj.bias", 12), 0);
    assert_int_equal(xkd_layer_of("encoder.blocks.11.mlp.fc1.bias", 12), 12);
    assert_int_equal(xkd_layer_of("encoder_norm.weight", 12), 13);
    assert_int_equal(xkd_layer_of("head.weight", 12), 13);
    json_decref(root);
}

/* Loss without an update: lr 0 leaves values, and step 0 repeated keeps the dropout. */
static double loss_of(xkd_context *cx, xkd_finetune *f, const float *input, const float *target)
{
    double loss;
    assert_int_equal(xkd_finetune_step(cx, f, input, target, 0, 0, &loss), XKD_OK);
    f->step = 0;
    return loss;
}

/* Central differences in float64 on some elements of every tensor. */
static void check_gradient(const xkd_finetune_options *o)
{
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    xkd_finetune f;
    int64_t count;
    const double step = 1e-5;
    assert_int_equal(xkd_backend_new(cx, &be, "ref", XKD_F64, 1), XKD_OK);
    build(cx, be, XKD_AUDIO, o, &f);
    float *input = golden(XKD_AUDIO, "other_size.input", &count), *target = golden(XKD_AUDIO, "finetune.target", &count);
    for (int64_t r = 0; r < f.encoder.params.count; r++) {
        xkd_param *row = f.encoder.params.rows[r];
        for (int64_t i = 0; row->role == XKD_ROLE_TRAINED && i < row->count; i += row->count / 2 + 1) {
            double *value = (double *)row->value + i, old = *value;
            *value = old + step;
            double high = loss_of(cx, &f, input, target);
            *value = old - step;
            double low = loss_of(cx, &f, input, target), numeric = (high - low) / (2 * step);
            *value = old;
            loss_of(cx, &f, input, target);
            double analytic = ((double *)row->grad)[i];
            if (!(fabs(analytic - numeric) <= 1e-6 * fmax(1e-2, fabs(numeric))))
                fail_msg("%s[%lld]: %g, by differences %g", row->name, (long long)i, analytic, numeric);
        }
    }
    free(input);
    free(target);
    xkd_finetune_free(&f);
    xkd_backend_free(be);
    xkd_context_free(cx);
}

static void gradients(void **state)
{
    (void)state;
    xkd_finetune_options o = xkd_finetune_defaults();
    check_gradient(&o);
    o.kind = XKD_FEATURE_CLS;
    o.loss = XKD_CLASSIFY_SIGMOID;
    o.dropout = 0.3;
    check_gradient(&o);
    o = xkd_finetune_defaults();
    o.l2_norm = true;
    o.dropout = 0.5;
    check_gradient(&o);
}

/* The draws of step 0 must drop something and keep something, or this would test nothing. */
static void gradients_of_drop_path_and_batch_norm(void **state)
{
    (void)state;
    xkd_finetune_options o = xkd_finetune_defaults();
    float path[2 * 2 * B];
    int64_t dropped = 0;
    o.drop_path = 0.6;
    for (o.seed = 0; dropped < 1 || dropped > 3; o.seed++) {
        xkd_rng rng = xkd_rng_make(o.seed + 1, 0, 0, XKD_STREAM_DROP_PATH, XKD_RNG_EVAL);
        xkd_draw_paths(&rng, 0.6, 2, B, path);
        dropped = 0;
        for (int i = 0; i < 2 * B; i++) assert_true(path[i] == 1); /* the first block's rate is 0 */
        for (int i = 2 * B; i < 4 * B; i++) dropped += path[i] == 0;
        for (int i = 2 * B; i < 4 * B; i++) assert_true(path[i] == 0 || path[i] == (float)(1 / 0.4));
    }
    check_gradient(&o);
    o.batch_norm = o.l2_norm = true;
    check_gradient(&o);
    o.frozen = true;
    o.dropout = 0.5;
    check_gradient(&o);
}

/* Training statistics of a batch of 2 and the running ones, by hand; scores use the latter. */
static void batch_norm(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    xkd_finetune f;
    xkd_finetune_options o = xkd_finetune_defaults();
    int64_t count;
    double loss;
    float scores[B * K];
    o.batch_norm = true;
    assert_int_equal(xkd_backend_new(cx, &be, "ref", XKD_F64, 1), XKD_OK);
    build(cx, be, XKD_AUDIO, &o, &f);
    float *input = golden(XKD_AUDIO, "other_size.input", &count), *target = golden(XKD_AUDIO, "finetune.target", &count);
    assert_int_equal(xkd_finetune_step(cx, &f, input, target, 0, 0, &loss), XKD_OK);
    for (int d = 0; d < D; d++) {
        double x = ((double *)f.unit)[d], y = ((double *)f.unit)[D + d], mean = (x + y) / 2, half = (x - y) / 2;
        assert_true(fabs(((double *)f.normed)[d] - half / sqrt(half * half + 1e-5)) < 1e-12);
        assert_true(fabs(((double *)f.running[0]->value)[d] - 0.1 * mean) < 1e-12);
        assert_true(fabs(((double *)f.running[1]->value)[d] - (0.9 + 0.1 * 2 * half * half)) < 1e-12);
    }
    assert_int_equal(xkd_finetune_scores(&f, input, scores), XKD_OK);
    for (int d = 0; d < D; d++) {
        double mean = ((double *)f.running[0]->value)[d], var = ((double *)f.running[1]->value)[d];
        assert_true(fabs(((double *)f.normed)[d] - (((double *)f.unit)[d] - mean) / sqrt(var + 1e-5)) < 1e-12);
    }
    assert_int_equal(xkd_finetune_resize(cx, &f, 1), XKD_OK);
    assert_int_equal(xkd_finetune_step(cx, &f, input, target, 0, 0, &loss), XKD_ERR_CONFIG); /* no variance in one */
    free(input);
    free(target);
    xkd_finetune_free(&f);
    xkd_backend_free(be);
    xkd_context_free(cx);
}

/* Two micro-batches of one clip each are a step on both. */
static void micro_batches(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    xkd_finetune f[2];
    xkd_finetune_options o = xkd_finetune_defaults();
    int64_t count;
    double loss, mean;
    bool skipped;
    assert_int_equal(xkd_backend_new(cx, &be, "ref", XKD_F64, 1), XKD_OK);
    float *input = golden(XKD_AUDIO, "other_size.input", &count), *target = golden(XKD_AUDIO, "finetune.target", &count);
    for (int i = 0; i < 2; i++) build(cx, be, XKD_AUDIO, &o, &f[i]);
    assert_int_equal(xkd_finetune_step(cx, &f[0], input, target, 0.01, 0.05, &loss), XKD_OK);
    assert_int_equal(xkd_finetune_resize(cx, &f[1], 1), XKD_OK);
    assert_int_equal(xkd_finetune_share(cx, &f[1], NULL, B), XKD_OK);
    xkd_finetune_begin(&f[1]);
    for (int b = 0; b < B; b++)
        assert_int_equal(xkd_finetune_micro_batch(cx, &f[1], input + b * 16 * 64, target + b * K, 0.5), XKD_OK);
    assert_int_equal(xkd_finetune_finish(cx, &f[1], 0.01, 0.05), XKD_OK);
    assert_int_equal(xkd_finetune_collect(&f[1], &mean, &skipped), XKD_OK);
    assert_true(!skipped && fabs(mean - loss) < 1e-12);
    for (int64_t r = 0; r < f[0].encoder.params.count; r++)
        for (int64_t i = 0; i < f[0].encoder.params.rows[r]->count; i++)
            assert_true(fabs(((double *)f[0].encoder.params.rows[r]->grad)[i] -
                             ((double *)f[1].encoder.params.rows[r]->grad)[i]) < 1e-12);
    free(input);
    free(target);
    for (int i = 0; i < 2; i++) xkd_finetune_free(&f[i]);
    xkd_backend_free(be);
    xkd_context_free(cx);
}

static void orthogonal_weights(void **state)
{
    (void)state;
    double w[40 * 7];
    for (int wide = 0; wide < 2; wide++) {
        int rows = wide ? 7 : 40, columns = wide ? 40 : 7;
        xkd_orthogonal(w, rows, columns, 3);
        for (int i = 0; i < 7; i++)
            for (int j = 0; j < 7; j++) {
                double dot = 0;
                for (int k = 0; k < 40; k++) dot += wide ? w[i * 40 + k] * w[j * 40 + k] : w[k * 7 + i] * w[k * 7 + j];
                assert_true(fabs(dot - (i == j)) < 1e-12);
            }
    }
}

/* A frozen encoder stays as it is; its classifier learns. */
static void linear_probe(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    xkd_finetune f;
    xkd_finetune_options o = xkd_finetune_defaults();
    int64_t count;
    double first = 0, loss = 0;
    float scores[B * K];
    o.frozen = true;
    assert_int_equal(xkd_backend_new(cx, &be, "cpu", XKD_F32, 1), XKD_OK);
    build(cx, be, XKD_VIDEO, &o, &f);
    float *input = golden(XKD_VIDEO, "other_size.input", &count), *target = golden(XKD_VIDEO, "finetune.target", &count);
    float before = ((float *)f.encoder.backbone.pos->value)[5];
    for (int step = 0; step < 30; step++) {
        assert_int_equal(xkd_finetune_step(cx, &f, input, target, 0.05, 0, &loss), XKD_OK);
        if (step == 0) first = loss;
    }
    assert_true(loss < first - 0.1);
    assert_true(((float *)f.encoder.backbone.pos->value)[5] == before);
    assert_int_equal(xkd_finetune_scores(&f, input, scores), XKD_OK);
    double sum = 0;
    for (int k = 0; k < K; k++) sum += scores[k];
    assert_true(fabs(sum - 1) < 1e-6);
    free(input);
    free(target);
    xkd_finetune_free(&f);
    xkd_backend_free(be);
    xkd_context_free(cx);
}

/* A frozen encoder does a large batch in pieces, the last of which overlaps: every score is that of the clip alone. */
static void pieces(void **state)
{
    (void)state;
    enum { MANY = 11, CLIP = 16 * 64 };
    static float clips[MANY * CLIP], scores[MANY * K], one[K];
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    xkd_finetune f;
    xkd_finetune_options o = xkd_finetune_defaults();
    xkd_rng rng = xkd_rng_make(3, 0, 0, 0, XKD_RNG_TEST);
    for (int i = 0; i < MANY * CLIP; i++) clips[i] = (float)xkd_rng_normal(&rng);
    o.frozen = true;
    assert_int_equal(xkd_backend_new(cx, &be, "ref", XKD_F64, 1), XKD_OK);
    build(cx, be, XKD_AUDIO, &o, &f);
    assert_int_equal(xkd_finetune_resize(cx, &f, MANY), XKD_OK);
    assert_true(f.together < MANY);
    assert_int_equal(xkd_finetune_scores(&f, clips, scores), XKD_OK);
    assert_int_equal(xkd_finetune_resize(cx, &f, 1), XKD_OK);
    for (int b = 0; b < MANY; b++) {
        assert_int_equal(xkd_finetune_scores(&f, clips + b * CLIP, one), XKD_OK);
        for (int k = 0; k < K; k++) assert_true(fabs(one[k] - scores[b * K + k]) < 1e-7);
    }
    xkd_finetune_free(&f);
    xkd_backend_free(be);
    xkd_context_free(cx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(two_steps), cmocka_unit_test(layer_decay), cmocka_unit_test(gradients),
                                       cmocka_unit_test(gradients_of_drop_path_and_batch_norm), cmocka_unit_test(batch_norm), cmocka_unit_test(micro_batches),
                                       cmocka_unit_test(orthogonal_weights), cmocka_unit_test(linear_probe), cmocka_unit_test(pieces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
