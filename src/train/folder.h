/* The folder of a run: config.yaml, metrics.jsonl, metrics.csv, epochs.jsonl, train.log, tensorboard/, pictures/,
 * curves/, checkpoints/, backbones/, report.html; of supervised training also classifier.safetensors, best.safetensors,
 * tests.jsonl, classes.json. */
#ifndef XKD_TRAIN_FOLDER_H
#define XKD_TRAIN_FOLDER_H

#include <stddef.h>
#include <xkd/pretrain.h>

#include "config/config.h"

typedef struct {
    char *path, *checkpoints, *backbones; /* owned */
    int lock;
} xkd_run_folder;

/* Makes and locks the folder. NEW refuses one that holds anything; FORCE removes what a former run wrote and nothing
 * else; RESUME needs the folder. Refusals are XKD_ERR_CONFIG. Free with xkd_run_folder_close. */
xkd_status xkd_run_folder_open(xkd_context *cx, const char *path, xkd_run_mode mode, xkd_run_folder *out);
void xkd_run_folder_close(xkd_run_folder *folder);

/* Whether xkd_run_folder_open would take the path, without making anything: for plans. */
xkd_status xkd_run_folder_check(xkd_context *cx, const char *path, xkd_run_mode mode);

/* config.yaml, written anew at each start: what stands in the folder is what the last call used. */
xkd_status xkd_run_folder_write_config(xkd_context *cx, const xkd_run_folder *folder, const char *yaml);

/* "auto" numbers of threads and decoding processes become this machine's. Call it after the configuration has been
 * written: a run that is resumed elsewhere uses that machine's. Neither number changes a result. */
void xkd_run_fill_in_machine(xkd_config *config);

/* Warns of settings that changed since the run was saved: its numbers are no longer those of one configuration. Both
 * texts are of xkd_config_write; the section `run` does not touch the numbers. */
void xkd_run_compare_configs(xkd_context *cx, const char *before, const char *now);

/* Whether a setting that ranks must share differs between two texts of xkd_config_write; the first one is described in
 * text [size]. */
bool xkd_run_first_difference(const char *first, const char *here, char *text, size_t size);

#endif
