/* Memory that runs out anywhere in a run, from opening it to its report: the status says so and nothing leaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/context.h"
#include "fake_loader.h"
#include "train/loop.h"

static const char *const small[] = {
    "model.kwargs={frame_size: [3, 8, 8], num_frames: 2, vid_patch_spatial: [4, 4], vid_patch_temporal: 1}",
    "model.kwargs={spec_size: [8, 8], spec_patch_spatial: [4, 4], decoder_cfg: {embed_dim: 8, depth: 1, num_heads: 2}}",
    "model.kwargs.teacher_cfg={embed_dim: 8, depth: 1, num_heads: 2}",
    "model.kwargs.student_cfg={embed_dim: 8, depth: 1, num_heads: 2}",
    "model.kwargs.projector_cfg={hidden_dim: 8, bottleneck_dim: 4, out_dim: 8}",
    "model.fwd_kwargs={vid_mask_ratio: 0.5, aud_mask_ratio: 0.5}",
    "dataset={crop_size: 8, clip_duration: 1, video_fps: 2, audio_fps: 1600, hop_length: 228, n_mels: 8, n_fft: 256}",
    "dataset.batch_size=4",
    "num_node=1",
    "hyperparams.num_epochs=1",
    "run.backend=ref",
    "run.threads=1",
    "run.max_steps=1",
    "data.path=none"};

static xkd_status run_once(xkd_context *cx, const char *folder, xkd_account *account, int64_t fail_at)
{
    const xkd_run_options options = {.mode = XKD_RUN_FORCE};
    xkd_config c;
    xkd_run_result result;
    char out[200];
    xkd_status status = xkd_config_init(cx, &c);
    for (size_t i = 0; status == XKD_OK && i < sizeof small / sizeof *small; i++)
        status = xkd_config_override(cx, &c, small[i]);
    snprintf(out, sizeof out, "run.out=%s/run", folder);
    if (status == XKD_OK) status = xkd_config_override(cx, &c, out);
    if (status == XKD_OK) status = xkd_config_finish(cx, &c);
    assert_int_equal(status, XKD_OK);
    account->count = 0;
    account->fail_at = fail_at;
    status = xkd_train(cx, &c, &options, NULL, &result, NULL);
    xkd_config_free(&c);
    return status;
}

static void test_each_allocation_may_fail(void **state)
{
    /* In memory where there is such a place: hundreds of runs would wait for the disk at every save. */
    char folder[50], command[100];
    (void)state;
    snprintf(folder, sizeof folder, "%s/xkd-test-memory-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(folder));
    for (int64_t n = 0;; n++) {
        xkd_context *cx = xkd_context_new();
        assert_non_null(cx);
        xkd_account *account = xkd_context_account(cx);
        xkd_status status = run_once(cx, folder, account, n);
        bool reached = account->count > n;
        if (status != (reached ? XKD_ERR_MEMORY : XKD_OK))
            fail_msg("allocation %lld: status %d: %s", (long long)n, status, xkd_last_error(cx));
        xkd_context_free(cx);
        if (!reached) {
            assert_true(n > 100); /* or the loop has tested nothing */
            break;
        }
    }
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_allocation_may_fail)};
    return cmocka_run_group_tests_name("loop_memory", tests, NULL, NULL);
}
