/* Sound decoders that the library's own encoder cannot test: the seeds of the media fuzz target hold a rising tone,
 * 0.4 sin(2 pi t (300 + 200 t)), which must come out, at its place and of the right length. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "media/media.h"

enum { RATE = 16000, MOST = 2 * RATE };
/* An encoder may put its own delay in front without telling it: DTS 1024 samples at 8 kHz, Nellymoser 128. */
static const double DELAY = 0.13;
/* Of the encoder's last block. */
static const double BLOCK = 0.07;

static xkd_context *cx;

typedef struct {
    int16_t sound[MOST];
    int64_t count;
} heard;

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    (void)info, (void)start;
    ((heard *)user)->count = 0;
    return XKD_OK;
}

static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    heard *h = user;
    assert_true(h->count + count <= MOST);
    memcpy(h->sound + h->count, samples, (size_t)count * sizeof *samples);
    h->count += count;
    return XKD_OK;
}

/* Of the tone with what is heard `lag` samples later, without the mean. */
static double correlation(const heard *h, int64_t lag, int64_t count)
{
    double xx = 0, yy = 0, xy = 0, mean = 0;
    for (int64_t i = 0; i < count; i++) mean += h->sound[i + lag] / (double)count;
    for (int64_t i = 0; i < count; i++) {
        double t = (double)i / RATE, x = sin(2 * M_PI * t * (300 + 200 * t)), y = h->sound[i + lag] - mean;
        xx += x * x;
        yy += y * y;
        xy += x * y;
    }
    return xy / sqrt(fmax(xx * yy, 1e-9));
}

static void hears(const char *file, const char *codec, int64_t channels, double seconds)
{
    static heard h;
    char path[4096];
    xkd_media *media = NULL;
    xkd_media_fault fault;
    xkd_media_tally tally;
    xkd_media_sink sink = {.user = &h, .begin = on_begin, .sound = on_sound};
    xkd_media_request request = {.mode = XKD_CLIP_WHOLE, .fps = 8, .audio_rate = RATE, .audio = true};
    snprintf(path, sizeof path, "tests/fuzz/corpus/media/%s", file);
    if (xkd_media_open(cx, path, &media, &fault) != XKD_OK) fail_msg("%s: %s", file, xkd_last_error(cx));
    const xkd_media_info *info = xkd_media_about(media);
    assert_string_equal(info->audio_codec, codec);
    assert_int_equal(info->channels, channels);
    double length = info->end - info->start;
    if (length < seconds - 0.001 || length > seconds + BLOCK) fail_msg("%s: %g s for %g", file, length, seconds);
    if (xkd_media_decode(media, &request, &sink, &tally, &fault) != XKD_OK)
        fail_msg("%s: %s", file, xkd_last_error(cx));
    assert_int_equal(tally.errors, 0);
    double decoded = (double)h.count / RATE;
    if (decoded < seconds - 0.002 || decoded > seconds + DELAY) fail_msg("%s: %g s of sound", file, decoded);
    double best = 0;
    int64_t count = (int64_t)(0.6 * seconds * RATE);
    for (int64_t lag = 0; lag + count <= h.count && lag <= (int64_t)(DELAY * RATE); lag++)
        best = fmax(best, correlation(&h, lag, count));
    if (best < 0.95) fail_msg("%s: the tone correlates by %g", file, best);
    xkd_media_free(media);
}

static void dts(void **state)
{
    (void)state;
    hears("dca.mkv", "dts", 1, 1.2);
    hears("dca.mp4", "dts", 1, 0.6);
    hears("dca-6.wav", "dts", 6, 0.1);
}

static void truehd(void **state)
{
    (void)state;
    hears("truehd.mkv", "truehd", 2, 0.1);
    hears("truehd-2.mp4", "truehd", 2, 0.1);
    hears("mlp.mkv", "mlp", 1, 0.1);
}

static void ima_qt(void **state)
{
    (void)state;
    hears("ima_qt.mov", "adpcm_ima_qt", 1, 1.2);
    hears("ima_qt-2.mov", "adpcm_ima_qt", 2, 0.8);
}

static void nellymoser(void **state)
{
    (void)state;
    hears("nellymoser.flv", "nellymoser", 1, 1.2);
    hears("nellymoser-22050.flv", "nellymoser", 1, 0.6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dts),
        cmocka_unit_test(truehd),
        cmocka_unit_test(ima_qt),
        cmocka_unit_test(nellymoser),
    };
    cx = xkd_context_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    xkd_context_free(cx);
    return failed;
}
