/* Tar archives as WebDataset makes them: key.mp4 beside key.json or key.cls. Members are read where they stand, nothing is
 * unpacked, and their names are keys: no path of a file is ever made of them. */
#ifndef XKD_DATA_TAR_H
#define XKD_DATA_TAR_H

#include "data/manifest.h"

bool xkd_is_archive_name(const char *name); /* *.tar */

/* What was found in archives and is no sample. */
typedef struct {
    int64_t refused;   /* members that are links, devices, sparse, of names or sizes that cannot be */
    int64_t cut_off;   /* archives that end within a member */
    char example[256]; /* of the first of them: which, and why */
} xkd_tar_findings;

/* Labels as they stand in the archives, to be numbered once all are known. */
typedef struct {
    char **names; /* [count] of each sample that was added; NULL: none */
    int64_t count, capacity;
} xkd_tar_labels;

/* Appends the samples of the archive m->root/archive. Damage is told in *findings and leaves what stands before it;
 * XKD_ERR_DATA for a file that is no archive at all. */
xkd_status xkd_tar_index(xkd_context *cx, xkd_manifest *m, const char *archive, bool follow_links,
                         xkd_tar_labels *labels, xkd_tar_findings *findings);

/* Gives samples [first, m->count) their labels: numbers if all are, else classes in byte order. Frees *labels. */
xkd_status xkd_tar_label(xkd_context *cx, xkd_manifest *m, int64_t first, xkd_tar_labels *labels);
void xkd_tar_labels_free(xkd_tar_labels *labels);

/* Whether a member of this size begins at `at`. XKD_ERR_DATA: the archive is another one by now. */
xkd_status xkd_tar_check(xkd_context *cx, int fd, int64_t archive_size, const char *archive, int64_t at, int64_t bytes);

#endif
