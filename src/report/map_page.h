/* A map of a collection as one HTML file. docs/report.md describes it. */
#ifndef XKD_REPORT_MAP_PAGE_H
#define XKD_REPORT_MAP_PAGE_H

#include "base/text.h"

enum { XKD_MAP_LISTS = 4 };

/* Borrowed. Everything is in the order of the points. */
typedef struct {
    const char *title, *about; /* a line on what is shown */
    int64_t count;
    const char *const *names;   /* [count] */
    const int64_t *label;       /* [count] index into classes, -1: none; NULL where there are none */
    const char *const *classes; /* [class_count] */
    int64_t class_count;
    const int32_t *cluster;                /* [count] */
    const float *pca, *tsne;               /* [count,2]; tsne NULL: not made */
    const int64_t *near[XKD_MAP_LISTS];    /* [count,neighbours] indices, -1: none; NULL where there is no such list */
    const char *near_title[XKD_MAP_LISTS]; /* "sounds like", ... */
    int64_t neighbours;
    char *const *pictures; /* [count] data: addresses, NULL: none; or NULL */
} xkd_map_page;

/* Appends the page. */
void xkd_map_page_write(xkd_text *out, const xkd_map_page *map);

#endif
