/* Fine-tuning's augmentation: what is drawn stays in its range, happens as often as it should, and depends on the stream
 * alone; mixing keeps every pixel and every target accounted for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "data/finetune_views.h"

enum { H = 24, W = 30, T = 2, B = 5, K = 4 };

static xkd_rng stream(uint32_t i)
{
    return xkd_rng_make(1, 0, i, 0, XKD_RNG_TEST);
}

static void notation(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    xkd_rand_augment p;
    assert_int_equal(xkd_rand_augment_parse(cx, "rand-m7-n4-mstd0.5-inc1", &p), XKD_OK);
    assert_true(p.magnitude == 7 && p.draws == 4 && p.deviation == 0.5);
    assert_int_equal(xkd_rand_augment_parse(cx, "rand-m11-n4-mstd0.5-inc1", &p), XKD_ERR_CONFIG);
    assert_int_equal(xkd_rand_augment_parse(cx, "rand-m7-n4", &p), XKD_ERR_CONFIG);
    assert_int_equal(xkd_rand_augment_parse(cx, "rand-m7-n4-mstd0.5-inc1-w0", &p), XKD_ERR_CONFIG);
    xkd_context_free(cx);
}

/* All frames of a clip get the same treatment: equal frames stay equal. The same stream gives the same clip. */
static void rand_augment(void **state)
{
    static uint8_t a[3][T * H * W], b[3][T * H * W], scratch[H * W];
    xkd_rand_augment policy = {7, 0.5, 4};
    int changed = 0;
    (void)state;
    for (uint32_t i = 0; i < 200; i++) {
        xkd_planes p = {T, H, W, {a[0], a[1], a[2]}}, q = {T, H, W, {b[0], b[1], b[2]}};
        for (int c = 0; c < 3; c++)
            for (int k = 0; k < T * H * W; k++) a[c][k] = b[c][k] = (uint8_t)(k % (H * W) * 7 + 40 * c);
        xkd_rng r = stream(i), s = stream(i);
        xkd_rand_augment_run(&p, &policy, &r, scratch);
        xkd_rand_augment_run(&q, &policy, &s, scratch);
        assert_memory_equal(a, b, sizeof a);
        for (int c = 0; c < 3; c++) assert_memory_equal(a[c], a[c] + H * W, H * W);
        changed += a[0][0] != 0 || a[1][5] != 75;
    }
    assert_true(changed > 120); /* nothing is applied once in 16, and some operations leave these two pixels */
}

static void crops(void **state)
{
    static const double area[2] = {0.2, 0.766}, ratio[2] = {0.75, 1.3333};
    static float in[H * W], out[8 * 8], scratch[H * W];
    (void)state;
    for (int i = 0; i < H * W; i++) in[i] = (float)(i % W);
    for (uint32_t i = 0; i < 500; i++) {
        xkd_rng r = stream(i);
        xkd_crop_box box = xkd_draw_crop(&r, area, ratio, H, W);
        double share = (double)(box.height * box.width) / (H * W);
        assert_true(box.top >= 0 && box.left >= 0 && box.top + box.height <= H && box.left + box.width <= W);
        assert_true(share > 0.15 && share < 0.85);
        xkd_crop_resize(in, 1, H, W, &box, scratch, out, 8);
        /* A ramp stays a ramp within the box. */
        for (int k = 0; k < 64; k++) assert_true(out[k] >= (float)box.left && out[k] <= (float)(box.left + box.width - 1));
    }
    int64_t start[3];
    xkd_three_crops(299, 224, start);
    assert_true(start[0] == 0 && start[1] == 38 && start[2] == 75);
}

static void erasing(void **state)
{
    static float frames[3 * T * H * W];
    int erased = 0;
    (void)state;
    for (uint32_t i = 0; i < 1000; i++) {
        xkd_rng r = stream(i);
        for (int k = 0; k < 3 * T * H * W; k++) frames[k] = 100;
        xkd_random_erase(&r, 0.25, frames, 3, T, H, W);
        int count = 0, others = 0;
        for (int k = 0; k < H * W; k++) count += frames[k] != 100;
        for (int k = 0; k < H * W; k++) others += (frames[k] != 100) != (frames[(3 * T - 1) * H * W + k] != 100);
        assert_int_equal(others, 0); /* one box for all frames and channels */
        assert_true(count == 0 || (count > 0.01 * H * W && count < 0.4 * H * W));
        erased += count > 0;
    }
    assert_true(erased > 200 && erased < 300); /* 250, deviation 14 */
}

static void masks(void **state)
{
    static float spec[20 * 40];
    const int64_t width[2] = {0, 10}, none[2] = {0, 0};
    (void)state;
    for (uint32_t i = 0; i < 200; i++) {
        xkd_rng r = stream(i);
        for (int k = 0; k < 20 * 40; k++) spec[k] = (float)(k % 7) + (k % 7 == 3 ? 0.25f : 0);
        xkd_mask_spectrogram(&r, spec, 20, 40, i % 2, 2, i % 3 ? width : none);
        int whole = 0;
        for (int k = 0; k < (i % 2 ? 40 : 20); k++) {
            bool same = true;
            for (int o = 1; o < (i % 2 ? 20 : 40); o++)
                same &= spec[i % 2 ? o * 40 + k : k * 40 + o] == spec[i % 2 ? k : k * 40];
            whole += same;
        }
        assert_true(whole <= 18 && (i % 3 || whole == 0));
    }
}

static void mixing(void **state)
{
    static float clips[B * 2 * H * W], targets[B * K];
    static const int32_t label[B] = {0, 1, 2, 3, 0};
    const xkd_mix mix = {.mixup = 0.6, .cutmix = 0.5, .probability = 1, .switching = 0.5, .smoothing = 0.1};
    double mean = 0;
    int cuts = 0;
    (void)state;
    for (uint32_t i = 0; i < 400; i++) {
        xkd_rng r = stream(i);
        for (int k = 0; k < B * 2 * H * W; k++) clips[k] = (float)(k / (2 * H * W));
        xkd_smooth_targets(label, B, K, mix.smoothing, targets);
        assert_true(fabsf(targets[0] - 0.925f) < 1e-6f && fabsf(targets[1] - 0.025f) < 1e-6f);
        double lambda = xkd_mix_batch(&r, &mix, clips, B, 2, H, W, targets, K), pixels = 0;
        bool cut = true;
        assert_true(lambda >= 0 && lambda <= 1);
        for (int k = 0; k < 2 * H * W; k++) {
            pixels += clips[k] / (2.0 * H * W);
            cut &= clips[k] == 0 || clips[k] == 4;
        }
        /* Clip 0 (all 0) and its partner, clip 4 (all 4): both kinds of mixing leave a mean of 4 (1 - lambda). */
        assert_true(fabs(pixels - 4 * (1 - lambda)) < 1e-4);
        assert_true(clips[2 * 2 * H * W] == 2); /* the middle clip is its own partner */
        for (int b = 0; b < B; b++) {
            double sum = 0;
            for (int k = 0; k < K; k++) sum += targets[b * K + k];
            assert_true(fabs(sum - 1) < 1e-5);
        }
        assert_true(fabs(targets[K + 1] - (lambda * 0.925 + (1 - lambda) * 0.025)) < 1e-5);
        cuts += cut;
        mean += lambda / 400;
    }
    assert_true(cuts > 150 && cuts < 280);
    assert_true(mean > 0.45 && mean < 0.75); /* 1/2 for mixup, more for boxes that the border cuts */
}

static void beta(void **state)
{
    double sum = 0, squares = 0;
    xkd_rng r = stream(0);
    (void)state;
    for (int i = 0; i < 20000; i++) {
        double x = xkd_draw_beta(&r, 0.6);
        sum += x / 20000;
        squares += (x - 0.5) * (x - 0.5) / 20000;
    }
    assert_true(fabs(sum - 0.5) < 0.01);
    assert_true(fabs(squares - 1 / (4 * (2 * 0.6 + 1))) < 0.005); /* 1 / (4 (2a + 1)) */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(notation), cmocka_unit_test(rand_augment), cmocka_unit_test(crops),
                                       cmocka_unit_test(erasing),  cmocka_unit_test(masks),        cmocka_unit_test(mixing),
                                       cmocka_unit_test(beta)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
