/* Log-mel and spectrogram operations against tests/golden/audio, within the tolerances given there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "media/mel.h"
#include "golden_file.h"

static const char GOLDEN[] = "tests/golden/audio/audio.safetensors";
static const double LOGMEL_TOLERANCE = 2e-3, TOLERANCE = 1e-4; /* params.json */

static xkd_context *cx;
static xkd_mel *mel;

static void expect(const char *name, const float *values, double tolerance)
{
    int64_t shape[4], bytes = 0;
    float *golden = golden_tensor(GOLDEN, name, shape, &bytes);
    double worst = 0;
    assert_non_null(golden);
    for (int64_t i = 0; i < bytes / 4; i++) worst = fmax(worst, fabs((double)values[i] - (double)golden[i]));
    print_message("# %s: largest difference %g\n", name, worst);
    free(golden);
    assert_true(worst <= tolerance);
}

static void normalise(float *spec, int64_t n)
{
    for (int64_t i = 0; i < n; i++) spec[i] = (spec[i] + 5.3688107f) / 4.410007f;
}

static void bank_is_slaney(void **state)
{
    (void)state;
    expect("mel_bank", xkd_mel_tables_of(mel)->bank, 1e-7);
}

static void log_mel_of_a_wave(void **state)
{
    int64_t shape[4], bytes = 0;
    float *wave = golden_tensor(GOLDEN, "wave", shape, &bytes), *out = malloc(80 * 448 * sizeof(float));
    (void)state;
    assert_int_equal(xkd_mel_columns(64000, 143), 448);
    xkd_mel_run(mel, wave, 64000, out);
    normalise(out, 80 * 448);
    expect("logmel", out, LOGMEL_TOLERANCE);
    xkd_mel_run(mel, wave + 16000, 16000, out);
    normalise(out, 80 * 112);
    expect("logmel_16000_32000", out, LOGMEL_TOLERANCE);
    free(wave);
    free(out);
}

static void resize_crop_and_warp(void **state)
{
    int64_t shape[4], bytes = 0;
    (void)state;
    float *spec = golden_tensor(GOLDEN, "logmel_16000_32000", shape, &bytes);
    float *scratch = malloc((80 * 168 + 80 * 168) * sizeof(float));
    xkd_spec_box box = {80, 168, 7, 20, 61, 95};
    xkd_spec_resize_crop(spec, 80, 112, &box, scratch);
    expect("resize_crop", spec, TOLERANCE);
    free(spec);
    free(scratch);
    spec = golden_tensor(GOLDEN, "logmel", shape, &bytes);
    scratch = malloc(80 * 448 * sizeof(float));
    xkd_spec_time_warp(spec, 80, 448, 200, 213, scratch);
    expect("time_warp", spec, TOLERANCE);
    free(spec);
    free(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bank_is_slaney),
        cmocka_unit_test(log_mel_of_a_wave),
        cmocka_unit_test(resize_crop_and_warp),
    };
    cx = xkd_context_new();
    if (xkd_mel_new(cx, 16000, 1024, 143, 80, &mel) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    xkd_mel_free(mel);
    xkd_context_free(cx);
    return failed;
}
