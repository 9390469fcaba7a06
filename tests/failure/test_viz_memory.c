/* Memory that runs out anywhere while a reconstruction or the attention of a clip is made and drawn: the status says so and nothing
 * leaks (the address sanitizer's runs tell). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/context.h"
#include "eval/encode/attention.h"
#include "eval/encode/autoencoder_file.h"
#include "golden_file.h"
#include "report/panels.h"

#define MODEL "tests/golden/xkd/"

static float *frames, *specs;

static int read_clip(void **state)
{
    int64_t sides[4], bytes;
    (void)state;
    frames = golden_tensor(MODEL "batch.safetensors", "step1.frames.0", sides, &bytes);
    specs = golden_tensor(MODEL "batch.safetensors", "step1.specs.0", sides, &bytes);
    return frames && specs ? 0 : -1;
}

static int free_clip(void **state)
{
    (void)state;
    free(frames);
    free(specs);
    return 0;
}

static xkd_status reconstruct(xkd_context *cx)
{
    static char *sizes[] = {"dataset.crop_size=32", "dataset.clip_duration=0.5", "run.threads=1"};
    xkd_status status = XKD_OK;
    xkd_autoencoders a = {0};
    xkd_reconstruction made[XKD_MODALITIES] = {{.grid = {0}}};
    xkd_canvas picture = {0};
    double error[XKD_MODALITIES];
    float *noise[XKD_MODALITIES] = {NULL};
    const float *const clips[] = {frames, specs};
    XKD_TRY(xkd_autoencoders_load(cx, MODEL "init.safetensors", sizes, 3, &a));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) XKD_TRY(xkd_autoencoders_noise(cx, &a, m, 0, &noise[m]));
    const float *const drawn[] = {noise[0], noise[1]};
    XKD_TRY(xkd_autoencoders_run(cx, &a, clips, drawn, made, error));
    const xkd_panel panels[] = {{.title = "clip", .clip = frames}, {.title = "both", .clip = made[XKD_VIDEO].filled}};
    const xkd_panels all = {.grid = made[XKD_VIDEO].grid, .panels = panels, .count = 2};
    XKD_TRY(xkd_panels_strip(cx, &all, &picture));
fail:
    xkd_canvas_free(&picture);
    for (int m = 0; m < XKD_MODALITIES; m++) {
        xkd_reconstruction_free(&made[m]);
        xkd_free(noise[m]);
    }
    xkd_autoencoders_free(&a);
    return status;
}

static xkd_status attend(xkd_context *cx)
{
    xkd_status status = XKD_OK;
    xkd_encoder encoder = {.hash = ""};
    xkd_encoder_run run = {0};
    xkd_backend *be = NULL;
    const xkd_view_shape shape = {.B = 1, .T = 1, .H = 16, .W = 32};
    const xkd_encoder_source source = {.path = MODEL "init.safetensors", .modality = XKD_AUDIO};
    float feature[32], *w = NULL;
    XKD_TRY(xkd_backend_new(cx, &be, "cpu", XKD_F32, 1));
    XKD_TRY(xkd_encoder_load(cx, &source, be, &encoder));
    XKD_TRY(xkd_encoder_run_new(cx, &encoder, &shape, XKD_FEATURE_MEAN, -1, &run));
    XKD_TRY(xkd_alloc(cx, &w, xkd_attention_heads(&run) * xkd_attention_patches(&run), sizeof *w));
    XKD_TRY(xkd_encoder_features(be, &run, specs, feature));
    XKD_TRY(xkd_encoder_attention(cx, be, &run, w));
fail:
    xkd_free(w);
    xkd_encoder_run_free(&run);
    xkd_encoder_free(&encoder);
    xkd_backend_free(be);
    return status;
}

static void let_each_fail(xkd_status (*work)(xkd_context *))
{
    for (int64_t n = 0;; n++) {
        xkd_context *cx = xkd_context_new();
        assert_non_null(cx);
        xkd_account *account = xkd_context_account(cx);
        account->count = 0;
        account->fail_at = n;
        xkd_status status = work(cx);
        bool reached = account->count > n;
        if (status != (reached ? XKD_ERR_MEMORY : XKD_OK))
            fail_msg("allocation %lld: status %d: %s", (long long)n, status, xkd_last_error(cx));
        xkd_context_free(cx);
        if (reached) continue;
        assert_true(n > 50); /* or the loop has tested nothing */
        return;
    }
}

static void test_reconstruction(void **state)
{
    (void)state;
    let_each_fail(reconstruct);
}

static void test_attention(void **state)
{
    (void)state;
    let_each_fail(attend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reconstruction), cmocka_unit_test(test_attention)};
    return cmocka_run_group_tests_name("viz_memory", tests, read_clip, free_clip);
}
