/* The folder of a run: config.yaml, metrics.jsonl, metrics.csv, epochs.jsonl, train.log, tensorboard/, pictures/,
 * curves/, checkpoints/, backbones/, report.html. */
#ifndef XKD_TRAIN_FOLDER_H
#define XKD_TRAIN_FOLDER_H

#include <xkd/pretrain.h>

#include "base/status.h"

typedef struct {
    char *path, *checkpoints, *backbones; /* owned */
    int lock;
} xkd_run_folder;

/* Makes and locks the folder. NEW refuses one that holds anything; FORCE removes what a former run wrote and nothing
 * else; RESUME needs the folder. Refusals are XKD_ERR_CONFIG. Free with xkd_run_folder_close. */
xkd_status xkd_run_folder_open(xkd_context *cx, const char *path, xkd_run_mode mode, xkd_run_folder *out);
void xkd_run_folder_close(xkd_run_folder *folder);

#endif
