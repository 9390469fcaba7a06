/* A pack's part of a shared list (data/shared_list.h): all that is known of it, in memory that all ranks have at one address. */
#ifndef XKD_DATA_SHARED_PACK_H
#define XKD_DATA_SHARED_PACK_H

#include "data/pack.h"

/* Of what xkd_pack_put writes. */
int64_t xkd_pack_shared_bytes(const xkd_pack *pack);

/* Writes it at `at`, aligned to 8 bytes. The pack gives its own copy back, and has the `bytes` at `memory`, in which `at` lies, from
 * then on: they are unmapped with it. Nobody else may use it meanwhile. */
void xkd_pack_put(xkd_pack *pack, void *at, void *memory, int64_t bytes);

/* A pack of another process from what it has put at `at`, with the same ownership of the memory; not after an error. */
xkd_status xkd_pack_attach(xkd_context *cx, void *at, void *memory, int64_t bytes, xkd_pack **out);

#endif
