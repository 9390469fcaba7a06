/* How much memory the data of a training take beside the model, before any of it is taken. */
#ifndef XKD_DATA_FOOTPRINT_H
#define XKD_DATA_FOOTPRINT_H

#include "data/loader.h"

typedef struct {
    double list;    /* of samples, with all that is known of each */
    double ring;    /* batches that are decoded ahead */
    double workers; /* buffers of the decoding threads and their processes */
    double cache;   /* decoded files where data.cache=ram */
} xkd_data_footprint;

/* Of a loader that runs with `workers` threads. Files whose length the manifest does not say are taken for as long as the
 * others on average. */
xkd_data_footprint xkd_data_footprint_of(const xkd_data_config *data, const xkd_loader *loader, int64_t workers);

#endif
