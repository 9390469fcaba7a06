/* File -> frames and samples. This folder is the only one that includes libav*.
 *
 * A file is always our own open descriptor: libavformat reads it through our callbacks, may not open anything else
 * (io_open is denied) and chooses among the formats and codecs of open.c's tables only (docs/media-formats.md). Times are
 * seconds. The common clock of a file starts at 0 = the later of both streams' starts, so that at every time from 0
 * on there is both picture and sound. */
#ifndef XKD_MEDIA_MEDIA_H
#define XKD_MEDIA_MEDIA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* What is wrong with a file. The order is that of severity for reports; names by xkd_media_fault_name. */
typedef enum {
    XKD_FAULT_NONE,
    XKD_FAULT_MISSING,     /* no such file */
    XKD_FAULT_UNREADABLE,  /* not a regular file, no permission, I/O error */
    XKD_FAULT_EMPTY,       /* zero bytes */
    XKD_FAULT_NOT_MEDIA,   /* no known format recognised */
    XKD_FAULT_REFUSED,     /* a format, codec or size outside the lists and limits */
    XKD_FAULT_BROKEN,      /* recognised, but headers or packets are damaged or cut off */
    XKD_FAULT_NO_VIDEO,    /* no video stream where one is needed */
    XKD_FAULT_NO_AUDIO,    /* no sound where it is needed */
    XKD_FAULT_SHORT,       /* shorter than a clip */
    XKD_FAULT_OUT_OF_SYNC, /* streams start too far apart */
    XKD_FAULT_TIMEOUT,     /* decoding took longer than allowed */
    XKD_FAULT_CRASH,       /* the decoder brought its process down */
    XKD_FAULT_CLOCK,       /* the clock steps in mid-file, as where recordings were joined; last: numbers are stored */
    XKD_FAULT_COUNT
} xkd_media_fault;

/* "ok", "missing", "unreadable", "empty", "not-media", ... Static strings. */
const char *xkd_media_fault_name(xkd_media_fault fault);

/* What a file holds. Starts and ends are on the file's own clock. Plain data: it crosses process borders as bytes. */
typedef struct {
    bool has_video, has_audio;
    double video_start, video_end, audio_start, audio_end;
    double start, end;     /* the common clock: start = later start, end = earlier end; with one stream, its own */
    double fps;            /* average; 0 unknown */
    int64_t width, height; /* after rotation */
    int64_t quarter_turns; /* clockwise turns for display, 0 .. 3 */
    int64_t sample_rate, channels;
    int64_t audio_track, audio_tracks; /* of the file's sound tracks: which was taken, 1, 2, ...; how many there are */
    char format[32], video_codec[32], audio_codec[32];
    double video_last; /* time stamp of the last frame; 0 unknown */
    double clock_step; /* s after the start at which the clock steps; 0: it does not */
    double key_gap;    /* largest distance of two key frames in seconds; 0 unknown */
    double cut_at;     /* s of `cut_of` that are there, where the header promises more; 0: nothing is missing */
    double cut_of;
} xkd_media_info;

/* Where the streams begin and end, as the packets say; seconds on the file's clock. Plain data: it crosses process
 * borders as bytes. Manifests keep it, so that a file is not read through at every clip. */
typedef struct {
    bool known;              /* else nothing of it counts */
    bool no_video, no_audio; /* the stream is announced, but has not one packet */
    double video_start, video_end, audio_start, audio_end;
    double video_last, clock_step, key_gap; /* as in xkd_media_info */
    double read_end;                        /* of the last packet of any stream */
    int64_t audio_track;                    /* of whose sound this is, as it was asked for; 0: the usual one */
} xkd_media_span;

/* Where the bytes of a file stand: a descriptor of its own, or a part of a larger file. */
typedef struct {
    int fd;
    int64_t offset, size;
    bool record;  /* a record of a pack (media/record.h) and no media file */
    uint64_t row; /* sum of its row, by which an index and its records are compared; 0: not known */
} xkd_source;

typedef struct xkd_media xkd_media;

/* Streams that are not wanted are neither opened nor judged, whatever codec they have. A span that is known spares
 * reading the file through. */
typedef struct {
    bool video, audio;
    bool hold_last_frame; /* the last picture stays to the end of the sound */
    int64_t audio_track;  /* 1, 2, ... of the file's sound tracks; 0: the one marked as default, else the first */
    xkd_media_span span;
} xkd_media_options;

/* Opens a file by path, with both streams wanted, or a source, whose descriptor the media object then owns (closed in any case);
 * `name` is for messages; options NULL: both streams. On failure *fault says why. Errors: XKD_ERR_DATA,
 * XKD_ERR_STORAGE, XKD_ERR_MEMORY. Free with xkd_media_free. Sets libav's process-wide log level to quiet. */
xkd_status xkd_media_open(xkd_context *cx, const char *path, xkd_media **out, xkd_media_fault *fault);
xkd_status xkd_media_open_source(xkd_context *cx, const xkd_source *source, const char *name,
                                 const xkd_media_options *options, xkd_media **out, xkd_media_fault *fault);
void xkd_media_free(xkd_media *media); /* NULL is allowed */

const xkd_media_info *xkd_media_about(const xkd_media *media);
/* What was found or given: always known after opening. */
const xkd_media_span *xkd_media_spans(const xkd_media *media);

typedef enum {
    XKD_CLIP_AT,    /* a clip at `start` seconds of the common clock */
    XKD_CLIP_PLACE, /* a clip at the fraction `start` in [0,1) of all admissible starts [0, end - duration] */
    XKD_CLIP_WHOLE, /* everything from 0 on; `duration` is ignored */
    XKD_CLIP_NONE   /* nothing: the file is only opened and described */
} xkd_clip_mode;

/* What to decode. Plain data: it crosses process borders as bytes. */
typedef struct {
    xkd_clip_mode mode;
    double start, duration;
    double fps;         /* of the grid: frame k is the last one with time stamp <= start + k / fps */
    int64_t short_side; /* frames are resized (Pillow, bilinear, antialiased) so; 0: as they are */
    int64_t audio_rate; /* mono, 16 bit */
    bool video, audio;  /* wanted streams; a file without one of them simply delivers none of it */
    bool stream_colour; /* colour matrix and range from the file's tags instead of swscale's default */
    bool on_grid;       /* PLACE: only starts that are multiples of 1 / fps, which is what a cache can give */
    bool hold_last_frame;
    int64_t view_side;   /* of the largest view that is made of the frames; matters where short_side is 0 */
    bool all_pictures;   /* decode those too that no grid time shows: for who looks for damage */
    int64_t audio_track; /* as in xkd_media_options */
    xkd_media_span span; /* what is known of the file; .known false: it is found out */
} xkd_media_request;

/* A stretch of a clip that is not as it should be. Plain data: it crosses process borders as bytes. */
typedef struct {
    bool video;      /* pictures, else sound */
    bool lost;       /* of sound: packets that gave none; else sound that the decoder reports as damaged */
    double from, to; /* s from the clip's start */
} xkd_media_stretch;

/* Where the result goes, piece by piece and in constant memory. `begin` comes first; where an index turns out to be
 * wrong it comes again, and what was delivered of the clip before is void (never for whole files). A non-zero status of
 * a callback ends decoding with that status. */
typedef struct {
    void *user;
    /* `start`: where decoding starts on the common clock, in seconds */
    xkd_status (*begin)(void *user, const xkd_media_info *info, double start);
    /* Frame `index` = 0, 1, 2, ... of the grid: rgb [height,width,3], tightly packed; all frames have the same size. */
    xkd_status (*frame)(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index);
    /* The next `count` samples; the first ever is that of the time `start`. */
    xkd_status (*sound)(void *user, const int16_t *samples, int64_t count);
    /* Comes before the frames and samples of that time. NULL: only the tally is wanted. */
    xkd_status (*damage)(void *user, const xkd_media_stretch *stretch);
} xkd_media_sink;

/* How decoding went. Plain data. */
typedef struct {
    int64_t frames, samples;       /* delivered */
    int64_t errors;                /* packets or frames that the decoders reported as damaged */
    int64_t holes;                 /* in the clip's sound: stretches of which the file has no packet */
    double hole_seconds;           /* of these together */
    double video_seen, audio_seen; /* end of the last decoded frame / sample on the file's clock */
    /* Shares in [0,1] of the clip itself, without what is decoded before it: pictures and sound that were damaged or
     * should be there and are not. */
    double video_damage, audio_damage;
    bool unplaced; /* the two are of the whole file: an early record of a pack does not say where its damage lies */
} xkd_media_tally;

/* Share in [0,1] of a clip's pictures that are damaged or missing: `bad` of the `given` ones are damaged. `seconds`: how much of
 * the film there is from the clip's start on, at `fps` and at most `wanted` pictures. */
double xkd_media_picture_damage(double seconds, double fps, int64_t wanted, int64_t bad, int64_t given);

/* Share in [0,1] of `seconds` of sound that is damaged, of which `flagged` seconds are so by the decoder's word and `lost`
 * are sound that it should have given and did not. */
double xkd_media_sound_damage(double flagged, double lost, double seconds);
/* The same of a clip's sound, of which `given` seconds came. */
double xkd_media_heard_damage(double flagged, double lost, double given, double seconds);

/* Decodes. A clip delivers at most round(duration * fps) frames and round(duration * audio_rate) samples, less where
 * the streams end before. XKD_ERR_DATA with *fault where nothing useful could be decoded. May be called repeatedly. */
xkd_status xkd_media_decode(xkd_media *media, const xkd_media_request *request, const xkd_media_sink *sink,
                            xkd_media_tally *tally, xkd_media_fault *fault);

/* Where a clip starts in a file of `seconds`, in frames of the grid: `place` in [0,1) of the starts that leave room for
 * `duration`. What XKD_CLIP_PLACE does with `on_grid`. */
int64_t xkd_media_grid_start(double seconds, double duration, double fps, double place);

/* What is told of a file whose clock steps, with the remedy. */
void xkd_media_step_words(const xkd_media_info *info, char out[200]);

/* Names the decoders: what is kept of their work is void when it changes. */
void xkd_media_decoders(char out[64]);

/* Limits, each with its reason. */
enum {
    XKD_MEDIA_MAX_STREAMS = 256,        /* films on disc have up to 32 subtitles and as many sound tracks */
    XKD_MEDIA_MAX_PACKETS = 50000000,   /* of a file that is read through: a day of sound in packets of 2 ms */
    XKD_MEDIA_MAX_PIXELS = 8192 * 4320, /* 8K: larger frames exist only to exhaust memory */
    XKD_MEDIA_MAX_SIDE = 16384,
    XKD_MEDIA_MAX_ASPECT = 16, /* long / short side; keeps a resized frame small */
    XKD_MEDIA_MAX_CHANNELS = 32,
    XKD_MEDIA_MAX_RATE = 768000,     /* Hz; the highest that sound hardware uses */
    XKD_MEDIA_PROBE_BYTES = 5 << 20, /* libavformat's own default: enough for every common container */
    XKD_MEDIA_PROBE_SECONDS = 5,
    XKD_MEDIA_MAX_SECONDS = 24 * 3600,        /* of one file */
    XKD_MEDIA_MAX_PACKETS_PER_SECOND = 20000, /* more is an attack on time, not media */
    XKD_MEDIA_MAX_PACKETS_TO_START = 2000000, /* packets before the clip: long files without an index */
    XKD_MEDIA_MAX_STRETCHES = 1 << 20         /* damaged places of a file: twelve a second for a day */
};

#endif
