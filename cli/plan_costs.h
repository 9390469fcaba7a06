/* What a training would cost at other micro-batches and numbers of ranks: every figure comes out of train/plan.c, laid out anew for
 * each; nothing is extrapolated but time. */
#ifndef XKD_CLI_PLAN_COSTS_H
#define XKD_CLI_PLAN_COSTS_H

#include "cli.h"
#include "config/config.h"
#include "train/loop.h"

/* Where the time of a sample comes from. */
typedef enum { PLAN_MEASURED, PLAN_GIVEN, PLAN_BENCH, PLAN_GFLOPS, PLAN_UNKNOWN } plan_source;

typedef struct {
    plan_source source;
    double per_sample, per_step; /* s; per_step: of optimiser and moving averages */
} plan_rate;

/* One way to do the same steps. */
typedef struct {
    int64_t ranks, accumulate, micro_batch;
    double memory; /* bytes a rank */
    bool fits;
    double exchange; /* s a step between ranks */
    double seconds;  /* of the whole schedule; 0: unknown */
} plan_way;

/* Bytes that a run leaves behind. */
typedef struct {
    double checkpoints, backbones, logs, pictures, cache;
} plan_disk;

struct plan {
    struct cli *cli;
    /* What is asked. */
    const char *config_file, *data, *bench;
    char **overrides;
    int64_t override_count;
    int64_t samples;      /* files, where no data are given; 0: unknown */
    double memory;        /* bytes a rank may take */
    double network;       /* bytes a second between machines */
    double given, gflops; /* s a sample; GFLOP/s of its products; 0: not given */
    /* What comes out. */
    xkd_config config;
    xkd_train_plan base;
    xkd_plan_details details;
    plan_rate rate;
    plan_disk disk;
    plan_way *ways; /* [way_count] of one rank, fewest micro-batches first */
    int64_t way_count;
};

/* Memory of all parts of a plan. */
double plan_memory(const xkd_train_plan *p);

/* Everything but ways of several ranks. Free with plan_free in any case. */
xkd_status plan_make(struct plan *p);
void plan_free(struct plan *p);

/* The fewest micro-batches with which `ranks` fit. XKD_ERR_CONFIG where they cannot share the batch; out->fits is false where
 * nothing fits, and *out is then the smallest. */
xkd_status plan_ranks(struct plan *p, int64_t ranks, plan_way *out);

#endif
