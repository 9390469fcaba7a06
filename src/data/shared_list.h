/* One copy of a finished list for all ranks of a host. The lowest of them makes it and puts rows and all they point to into shared
 * memory, which the others map read-only at the same address. The memory has no name: it goes with the last process that maps
 * it, however that ends. */
#ifndef XKD_DATA_SHARED_LIST_H
#define XKD_DATA_SHARED_LIST_H

#include "data/manifest.h"
#include "dist/dist.h"

/* What a list is made of, and how. */
typedef struct {
    const char *path;  /* of the manifest, or whatever stands for it */
    uint64_t settings; /* stands for all else that decides what is in the list */
    /* *note: a number that the maker has to say; 0 at first. */
    xkd_status (*make)(xkd_context *cx, void *user, xkd_manifest *out, int64_t *note);
    void *user;
} xkd_list_source;

/* Makes the list; called by all ranks, `dist` NULL: a process alone. Ranks of a host share one copy where `settings`, the text of
 * the path, and the file and folder behind it (device, inode, size, time) are the same: *out may not be changed then. A rank that
 * cannot map it and any rank with another file have a copy of their own, as the log says at its lowest level.
 * A fault of `make` is returned at once, and by the other ranks as the loss of this one: XKD_ERR_PEER. */
xkd_status xkd_list_share(xkd_context *cx, xkd_dist *dist, const xkd_list_source *source, xkd_manifest *out,
                          int64_t *note);

#endif
