/* Replays a recorded run: `xkd replay CASE --out DIR`. A case is a folder with config.yaml, init.safetensors,
 * batch.safetensors and steps.json (see docs/replay.md); results go to losses.json, grads.safetensors (step 1, before
 * clipping) and state.safetensors. Every term is computed and reported, also where its coefficient is 0. */
#ifndef XKD_TRAIN_REPLAY_H
#define XKD_TRAIN_REPLAY_H

#include "base/status.h"
#include "tensor/dtype.h"

typedef struct {
    const char *folder, *out; /* case and results */
    const char *backend;      /* "ref" or "cpu" */
    xkd_dtype dtype;          /* F32, or F64 on ref */
    int threads;
} xkd_replay_options;

xkd_status xkd_replay(xkd_context *cx, const xkd_replay_options *options);

#endif
