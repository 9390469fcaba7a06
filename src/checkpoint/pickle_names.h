/* The names that a pickle may hold. All others are refused by name; none is ever imported, looked up or called. */
#ifndef XKD_CHECKPOINT_PICKLE_NAMES_H
#define XKD_CHECKPOINT_PICKLE_NAMES_H

#include <stddef.h>

#include "tensor/dtype.h"

/* What calling or naming a global does here. */
typedef enum {
    XKD_PICKLE_ORDERED_DICT,
    XKD_PICKLE_REBUILD_V2,
    XKD_PICKLE_REBUILD,
    XKD_PICKLE_PARAMETER,
    XKD_PICKLE_STORAGE_TYPE,
    XKD_PICKLE_DTYPE,
    XKD_PICKLE_SIZE,
    XKD_PICKLE_DEVICE
} xkd_pickle_global_kind;

typedef struct {
    const char *module, *name;
    xkd_pickle_global_kind kind;
    xkd_dtype dtype;
} xkd_pickle_global;

/* Number of a name that means something here; -1: it is none of them. */
int xkd_pickle_find_global(const char *module, const char *name);
const xkd_pickle_global *xkd_pickle_global_at(int number);

/* Number, below XKD_PICKLE_WIDE, of a name whose objects are passed over as opaque data; -1: it is none of them. */
int xkd_pickle_find_inert(const char *module, const char *name);
enum { XKD_PICKLE_WIDE = 255 }; /* no name, but an integer of more than 64 bits */
/* "argparse.Namespace", for messages. */
void xkd_pickle_inert_name(int number, char *out, size_t size);

#endif
