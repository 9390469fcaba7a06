/* Small pictures of files for a map. */
#ifndef XKD_CLI_MAP_PICTURES_H
#define XKD_CLI_MAP_PICTURES_H

#include "cli.h"
#include "eval/encode/embeddings.h"

/* data: addresses of PNG pictures of the files file[n] below `root`: a frame of the middle, or the waveform where there is no
 * picture. At most 1000, evenly spread; NULL for the others and for what cannot be read, which is told. The caller frees
 * (*out)[n] and *out, also after an error. */
xkd_status map_pictures(struct cli *cli, const xkd_embeddings *e, const int64_t *file, int64_t n, const char *root,
                        char ***out);

#endif
