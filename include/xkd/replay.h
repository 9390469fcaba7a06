/* Recorded training steps, for comparison with other implementations; the same as `xkd replay`. */
#ifndef XKD_REPLAY_H
#define XKD_REPLAY_H

#include <xkd/context.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *folder; /* the case: config.yaml, init.safetensors, batch.safetensors, steps.json; docs/replay.md */
    const char *out;    /* results: losses.json, grads.safetensors, state.safetensors; made if it is missing */
    const char *device; /* as run.device: "cpu", "ref", "cuda" */
    const char *dtype;  /* computes in "f32" (NULL: the same), "bf16", "tf32" on a GPU, or "f64" with "ref" only */
    int threads;        /* at least 1 */
} xkd_replay_options;

/* Runs the steps and writes the results. XKD_ERR_CONFIG, XKD_ERR_DATA or XKD_ERR_CHECKPOINT name the file at fault. */
XKD_API xkd_status xkd_replay(xkd_context *cx, const xkd_replay_options *options);

#ifdef __cplusplus
}
#endif
#endif
