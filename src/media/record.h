/* One decoded file as packs and the folder cache keep it: frames of the grid, 16-bit sound, a sum for each. The bytes are
 * described in docs/pack-format.md; the structs below are those bytes (little endian).
 *
 * A reader takes exactly the frames and the sound of a clip, with pread. Raw records are safe to read anywhere; JPEG of
 * strangers is decoded in a worker process. */
#ifndef XKD_MEDIA_RECORD_H
#define XKD_MEDIA_RECORD_H

#include <stdint.h>

#include "base/file.h"
#include "media/damage.h"

enum {
    XKD_RECORD_ALIGN = 4096,         /* records begin at multiples of it: the unit of pages and disks */
    XKD_RECORD_CHUNK = 16000,        /* samples that share a sum: a second at 16 kHz */
    XKD_RECORD_MAX_ROW = 1 << 20,    /* bytes: a path has 4096 at most, a list of labels may be long */
    XKD_RECORD_MAX_FRAMES = 1 << 27, /* a day at 1000 frames a second is fewer */
};

typedef enum { XKD_CODEC_RAW, XKD_CODEC_JPEG, XKD_CODEC_COUNT } xkd_record_codec;

/* "raw", "jpeg"; -1 for another name. */
const char *xkd_record_codec_name(int codec);
int xkd_record_codec_of(const char *name);

/* First bytes of a record. Places are counted from there. */
typedef struct {
    char magic[8];
    uint64_t sum;   /* XXH3-64 of all of the head behind it */
    int64_t bytes;  /* of the record, up to the next one */
    int64_t number; /* of the sample in the manifest that was packed */
    int64_t frames, width, height, samples;
    int64_t table_at; /* of an xkd_record_piece for each frame, then for each chunk of sound */
    int64_t row_at, row_bytes;
    uint64_t row_sum; /* XXH3-64 of the row: a line of a manifest */
    double grid_fps;
    /* The file's own facts, as in xkd_media_info; frame 0 and sample 0 are of time `start`. */
    double start, video_start, video_end, audio_start, audio_end, video_last, key_gap, fps;
    double video_damage, audio_damage, video_seen, audio_seen; /* as in xkd_media_tally, of the whole file */
    int64_t errors;
    int32_t file_width, file_height, sample_rate, channels, audio_track, audio_tracks;
    int32_t audio_rate;
    uint8_t codec, has_video, has_audio;
    uint8_t fault; /* xkd_media_fault: the file could not be packed, and there are no frames; the row says why */
    /* Of xkd_record_stretch, which are where the file is damaged. Where `damage_at` is 0, nothing is, or the record is of before
     * these fields and has only the shares above. */
    int64_t damage_at;
    uint32_t stretches;
    uint32_t damage_sum; /* low half of XXH3-64 of all of them */
} xkd_record_head;

/* As xkd_media_stretch, in seconds from frame 0 and sample 0 on. */
typedef struct {
    double from, to;
    uint32_t video, lost; /* 1 or 0 */
} xkd_record_stretch;

/* A frame, or a chunk of sound. Equal frames in a row are one piece that several entries name. */
typedef struct {
    uint64_t at;
    uint32_t bytes;
    uint32_t sum; /* low half of XXH3-64 */
} xkd_record_piece;

typedef struct xkd_record_reader xkd_record_reader;

/* One thread's tool; its memory is used from record to record. The descriptor stays the caller's. */
xkd_status xkd_record_reader_new(xkd_context *cx, xkd_record_reader **out);
void xkd_record_reader_free(xkd_record_reader *reader); /* NULL is allowed */

/* Reads and checks the head. What is wrong with the record is XKD_ERR_DATA with *fault: unreadable (the disk), refused
 * (limits) or broken. It is told without names. */
xkd_status xkd_record_open(xkd_record_reader *reader, const xkd_source *source, xkd_media_fault *fault);
const xkd_record_head *xkd_record_about(const xkd_record_reader *reader);

/* The line of the manifest, with a 0 behind it; valid until the next call for another record. */
xkd_status xkd_record_row(xkd_record_reader *reader, const char **row, xkd_media_fault *fault);

/* `count` frames from `first` on, each `step`th: rgb [count,height,width,3]. Within the record. */
xkd_status xkd_record_frames(xkd_record_reader *reader, int64_t first, int64_t step, int64_t count, uint8_t *rgb,
                             xkd_media_fault *fault);
xkd_status xkd_record_sound(xkd_record_reader *reader, int64_t first, int64_t count, int16_t *out,
                            xkd_media_fault *fault);

/* The encoded bytes of a frame as they stand in the record; valid until the next call. */
xkd_status xkd_record_piece_of(xkd_record_reader *reader, int64_t frame, const uint8_t **data, int64_t *size,
                               xkd_media_fault *fault);

/* What is known of the file, with the common part of the streams that are wanted. */
void xkd_record_describe(const xkd_record_head *head, bool video, bool audio, xkd_media_info *out);

/* Which frames and samples a request means. */
typedef struct {
    double start; /* s of the common clock */
    int64_t first, step, count, first_sample, samples;
} xkd_record_clip;

/* XKD_ERR_DATA with XKD_FAULT_REFUSED where the record's grid or rate cannot give what is asked for. */
xkd_status xkd_record_clip_of(xkd_context *cx, const xkd_record_head *head, const xkd_media_request *request,
                              xkd_record_clip *out, xkd_media_fault *fault);

/* Fills in the damage of a clip, as decoding it alone from the file would find it. */
xkd_status xkd_record_judge(xkd_record_reader *reader, const xkd_media_request *request, const xkd_record_clip *clip,
                            xkd_media_tally *tally, xkd_media_fault *fault);

/* Where the file is damaged, for who looks whether a record is whole. The reader's, valid until another record is opened. */
xkd_status xkd_record_damage(xkd_record_reader *reader, const xkd_damage **out, xkd_media_fault *fault);

/* Serves a request as xkd_media_decode does for a file: clips begin on the grid. *info as in xkd_media_about. */
xkd_status xkd_record_decode(xkd_record_reader *reader, const xkd_media_request *request, const xkd_media_sink *sink,
                             xkd_media_info *info, xkd_media_tally *tally, xkd_media_fault *fault);

/* ---- writing ---- */

typedef struct {
    int codec;
    int64_t quality;  /* of JPEG, 1 to 100 */
    bool full_colour; /* JPEG: as many chroma as luma samples, else a quarter */
    double grid_fps;
    int64_t audio_rate;
} xkd_record_options;

typedef struct xkd_record_writer xkd_record_writer;

xkd_status xkd_record_writer_new(xkd_context *cx, const xkd_record_options *options, xkd_record_writer **out);
void xkd_record_writer_free(xkd_record_writer *writer); /* NULL is allowed */

/* Begins a record at the end of `to`, which must be at a multiple of XKD_RECORD_ALIGN. */
xkd_status xkd_record_begin(xkd_record_writer *writer, xkd_writer *to, int64_t number);
xkd_status xkd_record_add_frame(xkd_record_writer *writer, const uint8_t *rgb, int64_t width, int64_t height);
xkd_status xkd_record_add_sound(xkd_record_writer *writer, const int16_t *samples, int64_t count);
xkd_status xkd_record_add_damage(xkd_record_writer *writer, const xkd_media_stretch *stretch);

/* Completes it with tables, row and head. `about`, `tally`: of the whole file; NULL with a fault. *out: what was written. */
xkd_status xkd_record_end(xkd_record_writer *writer, const xkd_media_info *about, const xkd_media_tally *tally,
                          xkd_media_fault fault, const char *row, xkd_record_head *out);

/* Sums of a head. */
uint64_t xkd_record_head_sum(const xkd_record_head *head);

#endif
