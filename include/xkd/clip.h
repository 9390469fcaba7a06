/* Frames and sound: in memory, and read from media files as training reads them.
 *
 *     xkd_reader *reader;
 *     xkd_clip_data clip;
 *     xkd_reader_open(cx, NULL, 0, &reader);
 *     if (xkd_reader_clip(reader, "holiday.mp4", 12.5, &clip) == XKD_OK) use(clip.frames, clip.samples);
 *     else puts(xkd_reader_error(reader));
 *     xkd_reader_close(reader);
 *
 * Threads: a handle serves one thread at a time, and may pass from thread to thread. Any number of handles work side by
 * side, of one context or of several. The context must outlive its handles. */
#ifndef XKD_CLIP_H
#define XKD_CLIP_H

#include <stdint.h>
#include <xkd/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Index of everything that there is for pictures and for sound; XKD_MODALITIES is their number. */
typedef enum { XKD_VIDEO, XKD_AUDIO, XKD_MODALITIES } xkd_modality;

/* Characters of a model's hash, the end included. */
enum { XKD_MODEL_HASH = 48 };

/* Pictures of the caller's, which stay its own: 8-bit R, G, B, full range, of any size, at the model's rate (8 a second
 * unless it was trained otherwise). Pixel (x,y) of frame t begins at data + t*frame_stride + y*row_stride + x*pixel_stride;
 * strides are in bytes, may be negative, and 0 stands for packed: [count,height,width,3]. */
typedef struct {
    const uint8_t *data;
    int64_t count, height, width;
    int64_t frame_stride, row_stride, pixel_stride;
} xkd_frames;

/* Sound of the caller's, which stays its own: mono, in [-1,1], at the model's rate (16 000 Hz unless it was trained
 * otherwise). It is rounded to 16 bits, as the sound of a file is. Sample i is data[i*stride]; 0 stands for 1. */
typedef struct {
    const float *data;
    int64_t count, stride;
} xkd_samples;

typedef struct xkd_reader xkd_reader;

/* settings [count]: "key=value" as `xkd help options` lists them; those of `data.` and `dataset.` matter: durations, rates, and
 * the size of frames. NULL and 0: 4 s, 8 frames a second, a short side of 112 pixels, 16 000 Hz. The caller closes *out,
 * which is NULL after an error; the message is then the context's. */
XKD_API xkd_status xkd_reader_open(xkd_context *cx, const char *const *settings, int64_t count, xkd_reader **out);
XKD_API void xkd_reader_close(xkd_reader *reader); /* NULL is allowed */

/* Message of the handle's last call that failed, "" if none has. Valid until its next call. */
XKD_API const char *xkd_reader_error(const xkd_reader *reader);

/* A clip, in memory of the reader's that is valid until its next call. A stream that the file lacks, and what lies behind the
 * file's end, is not there: frame_count and sample_count say how much is. */
typedef struct {
    const uint8_t *frames; /* [frame_count,height,width,3], the short side as set; NULL: none */
    int64_t frame_count, height, width;
    const float *samples; /* [sample_count] mono in [-1,1]; NULL: none */
    int64_t sample_count;
    double fps;
    int64_t sample_rate;
    double start;    /* seconds from the begin of the file */
    double duration; /* of the whole file, in seconds */
} xkd_clip_data;

/* The clip that begins `start` seconds into the file. One that is damaged beyond data.max_clip_damage is named in the log as a
 * warning. XKD_ERR_DATA: no such file, or one that cannot be decoded. */
XKD_API xkd_status xkd_reader_clip(xkd_reader *reader, const char *path, double start, xkd_clip_data *out);

/* What training makes of a clip: the views of method.md section 2. In memory of the reader's, valid until its next call. */
typedef struct {
    int64_t count[XKD_MODALITIES]; /* views, the global ones first */
    struct {
        const float *data; /* [shape]: video C,T,H,W = 3,32,112,112; audio C,T,H,W = 1,1,80,448; normalised */
        int64_t shape[4];
    } video[16], audio[16];
} xkd_clip_views;

/* Augmented views of the clip at `start`. The draws are a function of (seed, epoch, sample) alone. XKD_ERR_DATA also where the
 * file has no pictures there; sound that is missing is silence. */
XKD_API xkd_status xkd_reader_views(xkd_reader *reader, const char *path, double start, uint64_t seed, uint32_t epoch,
                                    uint32_t sample, xkd_clip_views *out);

/* The same with the start drawn too: to the bit the views that pre-training makes of sample number `sample` of its manifest in
 * this epoch, where this is its file. */
XKD_API xkd_status xkd_reader_training_views(xkd_reader *reader, const char *path, uint64_t seed, uint32_t epoch,
                                             uint32_t sample, xkd_clip_views *out);

/* The files of a manifest or a folder. Constant, so that any number of threads may read it. */
typedef struct xkd_listing xkd_listing;

/* path: a manifest of `xkd data index`, or a folder, whose subfolders are then classes. split NULL: all lines. Files that
 * are reached through links out of the folder are XKD_ERR_DATA unless follow_links. The caller closes *out, which is NULL after
 * an error; the message is the context's. */
XKD_API xkd_status xkd_listing_open(xkd_context *cx, const char *path, const char *split, int follow_links,
                                    xkd_listing **out);
XKD_API void xkd_listing_close(xkd_listing *listing); /* NULL is allowed */

/* Strings are the listing's. */
typedef struct {
    const char *path;      /* as it can be opened */
    const char *split;     /* "" where none is given */
    int64_t label;         /* number of its class, -1: none; of several the first */
    const int32_t *labels; /* [label_count] where a file has several, else NULL */
    int64_t label_count;
    double video_seconds, audio_seconds; /* 0: unknown, or no such stream */
} xkd_listed_file;

XKD_API int64_t xkd_listing_count(const xkd_listing *listing);
XKD_API xkd_listed_file xkd_listing_file(const xkd_listing *listing, int64_t i); /* all zero for an i that is none */
XKD_API int64_t xkd_listing_class_count(const xkd_listing *listing);
XKD_API const char *xkd_listing_class(const xkd_listing *listing, int64_t k); /* NULL for a k that is none */

#ifdef __cplusplus
}
#endif
#endif
