/* What the `xkd viz` commands share: one clip as the encoders get it with the sound to hear, and files of panels. */
#ifndef XKD_CLI_VIZ_CLIP_H
#define XKD_CLI_VIZ_CLIP_H

#include "base/text.h"
#include "cli.h"
#include "config/config.h"
#include "report/panels.h"

struct viz_clip {
    float *clip[XKD_MODALITIES]; /* [C,T,H,W]; NULL: the file has no such stream, or it is not wanted */
    int16_t *sound;              /* [samples] to hear; NULL: none */
    int64_t samples;
    double start; /* seconds into the file */
};

/* XKD_ERR_DATA where there is no file: found before a model is loaded. */
xkd_status viz_check_path(struct cli *cli, const char *path);

/* The clip that begins `at` seconds into the file, centre crop, no augmentation: what `xkd embed --protocol test --clips 1` would
 * make of a file that begins there. Free with viz_clip_free in any case. */
xkd_status viz_clip_read(struct cli *cli, const xkd_config *config, const bool wanted[XKD_MODALITIES], const char *path,
                         double at, struct viz_clip *out);
void viz_clip_free(struct viz_clip *clip);

/* Where results go, and their paths for the end: printed, or a JSON list in `files`. */
struct viz_output {
    struct cli *cli;
    const xkd_config *config;
    const struct viz_clip *clip;
    const char *folder;
    xkd_text files;
};

/* FOLDER/NAME + END, noted; the caller frees *out. */
xkd_status viz_path(struct viz_output *o, const char *name, const char *end, char **out);

/* NAME.png and NAME.mp4. */
xkd_status viz_write(struct viz_output *o, const xkd_panels *panels, const char *name);

#endif
