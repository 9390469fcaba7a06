/* Shared by the plan (packing_plan.c) and the work (packing.c) of packing only. */
#ifndef XKD_DATA_PACKING_PARTS_H
#define XKD_DATA_PACKING_PARTS_H

#include "data/packing.h"

/* Samples that one thread packs one after the other. */
typedef struct {
    int64_t first, count;
} xkd_packing_stretch;

/* The runs of this process, [manifest->count] at most; returns how many. `runs` NULL: they are counted only. */
int64_t xkd_packing_cut(const xkd_manifest *manifest, const xkd_packing_options *options, xkd_packing_stretch *runs,
                        xkd_packing_forecast *out);

#endif
