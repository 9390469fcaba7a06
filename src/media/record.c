/* Reading records. Everything in them may be a stranger's: sizes are bounded by the bytes that are there before anything is
 * allocated or multiplied, and whatever is given out has had its sum compared. */
#include "media/record.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "media/jpeg.h"
#include "media/record_parts.h"
#include "media/resize.h"

/* Frames that go out at once: large enough that calls do not matter, small enough for the second-level cache. */
enum { BATCH_BYTES = 1 << 20 };
/* JPEG of noise is smaller than its pixels, headers are 600 bytes. */
enum { JPEG_EXTRA = 1 << 16, JPEG_LEAST = 256 };

/* The end of what is told of a record that is damaged. */
#define ANEW " (remove the shard and give its `xkd data pack` again)"

static const char *const CODEC_NAMES[XKD_CODEC_COUNT] = {"raw", "jpeg"};

struct xkd_record_reader {
    xkd_context *cx;
    xkd_source source;
    xkd_record_head head;
    xkd_record_piece *pieces; /* of the frames or chunks at hand */
    uint8_t *bytes;           /* as they stand in the record */
    uint8_t *rgb;             /* [batch,height,width,3] */
    int16_t *sound;           /* a chunk, or a batch on its way to a sink */
    xkd_damage damage;        /* of the record, where `judged` */
    bool judged;
    char *row;
    int64_t piece_capacity, byte_capacity, rgb_capacity, sound_capacity, row_capacity;
    xkd_jpeg *jpeg;
    xkd_resizer *resizer; /* for the sizes below */
    int64_t in_width, in_height, out_width, out_height;
    uint8_t *small; /* a frame after it */
};

const char *xkd_record_codec_name(int codec)
{
    return codec >= 0 && codec < XKD_CODEC_COUNT ? CODEC_NAMES[codec] : "unknown";
}

int xkd_record_codec_of(const char *name)
{
    for (int i = 0; i < XKD_CODEC_COUNT; i++)
        if (!strcmp(name, CODEC_NAMES[i])) return i;
    return -1;
}

uint64_t xkd_record_head_sum(const xkd_record_head *head)
{
    size_t from = offsetof(xkd_record_head, bytes);
    return XXH3_64bits((const char *)head + from, sizeof *head - from);
}

uint32_t xkd_record_sum(const void *data, int64_t size)
{
    return (uint32_t)XXH3_64bits(data, (size_t)size);
}

xkd_status xkd_record_reader_new(xkd_context *cx, xkd_record_reader **out)
{
    xkd_status status = xkd_alloc(cx, out, 1, sizeof **out);
    if (status == XKD_OK) (*out)->cx = cx;
    return status;
}

void xkd_record_reader_free(xkd_record_reader *r)
{
    if (!r) return;
    xkd_jpeg_free(r->jpeg);
    xkd_resizer_free(r->resizer);
    xkd_free(r->pieces);
    xkd_free(r->bytes);
    xkd_free(r->rgb);
    xkd_free(r->sound);
    xkd_free(r->damage.item);
    xkd_free(r->row);
    xkd_free(r->small);
    xkd_free(r);
}

const xkd_record_head *xkd_record_about(const xkd_record_reader *r)
{
    return &r->head;
}

/* Room for `need` elements; what was there is not kept. */
static xkd_status hold(xkd_record_reader *r, void *memory, int64_t need, int64_t *capacity, size_t size)
{
    if (need <= *capacity) return XKD_OK;
    xkd_status status = xkd_resize(r->cx, memory, 0, need, size);
    if (status == XKD_OK) *capacity = need;
    return status;
}

/* Bytes of the record. The disk's faults are told apart from those of the contents. */
static xkd_status read_part(xkd_record_reader *r, void *out, int64_t size, int64_t at, xkd_media_fault *fault)
{
    xkd_context *cx = r->cx;
    if (at < 0 || size < 0 || at > r->source.size - size) {
        *fault = XKD_FAULT_BROKEN;
        return xkd_fail(cx, XKD_ERR_DATA, "the record points outside of itself" ANEW);
    }
    if (xkd_read_at(cx, r->source.fd, "the record", out, size, r->source.offset + at) == XKD_OK) return XKD_OK;
    *fault = XKD_FAULT_UNREADABLE;
    return XKD_ERR_DATA;
}

/* As no film has it: a strip of one pixel would become a picture of terabytes where its short side is resized. Sides of a few
 * pixels were rounded, hence the one more. */
static bool is_frame_size(int64_t width, int64_t height)
{
    int64_t longer = width > height ? width : height, shorter = width < height ? width : height;
    return shorter >= 1 && longer <= XKD_MEDIA_MAX_SIDE && width * height <= XKD_MEDIA_MAX_PIXELS &&
           longer <= (shorter + 1) * XKD_MEDIA_MAX_ASPECT;
}

/* What must hold before any of the numbers is used. */
static const char *fault_of_head(const xkd_record_head *h, int64_t size)
{
    int64_t chunks = xkd_record_chunks(h->samples), pieces = (int64_t)sizeof(xkd_record_piece);
    if (h->bytes < (int64_t)sizeof *h || h->bytes > size) return "has another size than it says";
    if (h->frames < 0 || h->frames > XKD_RECORD_MAX_FRAMES || h->samples < 0 ||
        h->samples > (int64_t)XKD_MEDIA_MAX_SECONDS * XKD_MEDIA_MAX_RATE)
        return "has too many frames or samples";
    if (h->frames && !is_frame_size(h->width, h->height)) return "has frames of an impossible size";
    /* A picture of one colour takes two bits for 64 samples, and JPEG_LEAST pixels a byte are fewer than that. */
    if (h->frames && h->width * h->height * 3 / (h->codec == XKD_CODEC_RAW ? 1 : 3 * JPEG_LEAST) > h->bytes)
        return "has frames that are larger than itself";
    /* Divided, for the sum may be anything. */
    if (h->table_at < (int64_t)sizeof *h || h->table_at > h->bytes ||
        h->frames + chunks > (h->bytes - h->table_at) / pieces)
        return "has no room for its tables";
    if (h->row_bytes < 0 || h->row_bytes > XKD_RECORD_MAX_ROW || h->row_at < 0 || h->row_at > h->bytes - h->row_bytes)
        return "has no room for its row";
    if (h->damage_at &&
        (h->damage_at < (int64_t)sizeof *h || h->damage_at > h->bytes || h->stretches > XKD_MEDIA_MAX_STRETCHES ||
         h->stretches > (h->bytes - h->damage_at) / (int64_t)sizeof(xkd_record_stretch)))
        return "has no room for where it is damaged";
    if (h->codec >= XKD_CODEC_COUNT || h->fault >= XKD_FAULT_COUNT) return "is of a kind that is not known here";
    if (!(h->grid_fps > 0 && h->grid_fps <= 1000) || h->audio_rate < 1000 || h->audio_rate > XKD_MEDIA_MAX_RATE)
        return "has an impossible grid";
    return NULL;
}

/* Times end up in draws and in what is told of the file. */
static bool times_are_sound(const xkd_record_head *h)
{
    const double times[] = {h->start,     h->video_start, h->video_end,  h->audio_start,
                            h->audio_end, h->video_last,  h->video_seen, h->audio_seen};
    const double lengths[] = {h->key_gap, h->fps, h->video_damage, h->audio_damage};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        if (!(fabs(times[i]) <= 2e9)) return false;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        if (!(lengths[i] >= 0 && lengths[i] <= 1e6)) return false;
    return h->video_end - h->start <= XKD_MEDIA_MAX_SECONDS && h->audio_end - h->start <= XKD_MEDIA_MAX_SECONDS &&
           h->file_width >= 0 && h->file_height >= 0 && h->sample_rate >= 0 && h->channels >= 0 &&
           h->audio_track >= 0 && h->audio_tracks >= 0 && h->errors >= 0 && h->sample_rate <= XKD_MEDIA_MAX_RATE &&
           h->file_width <= XKD_MEDIA_MAX_PIXELS && h->file_height <= XKD_MEDIA_MAX_PIXELS;
}

xkd_status xkd_record_open(xkd_record_reader *r, const xkd_source *source, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    xkd_record_head *h = &r->head;
    r->source = *source;
    r->judged = false;
    *fault = XKD_FAULT_NONE;
    XKD_TRY(read_part(r, h, sizeof *h, 0, fault));
    *fault = XKD_FAULT_BROKEN;
    if (memcmp(h->magic, XKD_RECORD_MAGIC, sizeof h->magic)) XKD_FAIL(XKD_ERR_DATA, "there is no record here" ANEW);
    if (h->sum != xkd_record_head_sum(h)) XKD_FAIL(XKD_ERR_DATA, "the head of the record is damaged" ANEW);
    const char *what = fault_of_head(h, source->size);
    if (!what && !times_are_sound(h)) what = "has impossible times";
    if (!what && source->row && source->row != h->row_sum) what = "is another one than the index says";
    if (what) XKD_FAIL(XKD_ERR_DATA, "the record %s" ANEW, what);
    *fault = XKD_FAULT_NONE;
fail:
    if (status != XKD_OK) *h = (xkd_record_head){0};
    return status;
}

xkd_status xkd_record_row(xkd_record_reader *r, const char **row, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    int64_t size = r->head.row_bytes;
    XKD_TRY(hold(r, &r->row, size + 1, &r->row_capacity, 1));
    XKD_TRY(read_part(r, r->row, size, r->head.row_at, fault));
    r->row[size] = 0;
    if (XXH3_64bits(r->row, (size_t)size) != r->head.row_sum || strlen(r->row) != (size_t)size) {
        *fault = XKD_FAULT_BROKEN;
        XKD_FAIL(XKD_ERR_DATA, "the row of the record is damaged" ANEW);
    }
    *row = r->row;
fail:
    return status;
}

/* Entries [first, first + count * step) of the table, each `step`th, into r->pieces. */
static xkd_status load_pieces(xkd_record_reader *r, int64_t first, int64_t step, int64_t count, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    int64_t size = (int64_t)sizeof(xkd_record_piece), span = (count - 1) * step + 1;
    XKD_TRY(hold(r, &r->pieces, span, &r->piece_capacity, sizeof *r->pieces));
    XKD_TRY(read_part(r, r->pieces, span * size, r->head.table_at + first * size, fault));
    for (int64_t i = 0; i < count; i++) r->pieces[i] = r->pieces[i * step];
fail:
    return status;
}

/* How many pieces from i on stand one behind the other, of at most `most` bytes together; at least one. */
static int64_t run_of(const xkd_record_piece *p, int64_t i, int64_t count, int64_t most, int64_t *bytes)
{
    int64_t n = 1;
    *bytes = p[i].bytes;
    while (i + n < count && p[i + n].at == p[i + n - 1].at + p[i + n - 1].bytes && *bytes + p[i + n].bytes <= most)
        *bytes += p[i + n++].bytes;
    return n;
}

static xkd_status check_piece(xkd_record_reader *r, const xkd_record_piece *p, const void *data, const char *what,
                              int64_t number, xkd_media_fault *fault)
{
    if (xkd_record_sum(data, p->bytes) == p->sum) return XKD_OK;
    *fault = XKD_FAULT_BROKEN;
    return xkd_fail(r->cx, XKD_ERR_DATA, "%s %" PRId64 " of the record is damaged" ANEW, what, number);
}

static bool same_piece(const xkd_record_piece *a, const xkd_record_piece *b)
{
    return a->at == b->at && a->bytes == b->bytes && a->sum == b->sum;
}

static xkd_status decode_frame(xkd_record_reader *r, const uint8_t *data, int64_t bytes, int64_t number, uint8_t *rgb,
                               xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    if (!r->jpeg) XKD_TRY(xkd_jpeg_new(r->cx, &r->jpeg));
    status = xkd_jpeg_decode(r->jpeg, data, bytes, r->head.width, r->head.height, rgb);
    if (status == XKD_OK) return XKD_OK;
    *fault = XKD_FAULT_BROKEN;
    xkd_error_prefix(r->cx, "frame %" PRId64, number);
fail:
    return status;
}

/* Pieces that stand one behind the other in the file, and the numbers of their frames. */
typedef struct {
    const xkd_record_piece *piece;
    int64_t count, bytes, number, step;
} run;

/* Raw frames go where they are wanted, without a stop on the way. */
static xkd_status raw_run(xkd_record_reader *r, const run *p, int64_t frame, uint8_t *rgb, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    XKD_TRY(read_part(r, rgb, p->bytes, (int64_t)p->piece->at, fault));
    for (int64_t k = 0; k < p->count; k++)
        XKD_TRY(check_piece(r, p->piece + k, rgb + k * frame, "frame", p->number + k * p->step, fault));
fail:
    return status;
}

static xkd_status jpeg_run(xkd_record_reader *r, const run *p, int64_t frame, uint8_t *rgb, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    int64_t done = 0;
    XKD_TRY(hold(r, &r->bytes, p->bytes, &r->byte_capacity, 1));
    XKD_TRY(read_part(r, r->bytes, p->bytes, (int64_t)p->piece->at, fault));
    for (int64_t k = 0; k < p->count; done += p->piece[k++].bytes) {
        const uint8_t *data = r->bytes + done;
        XKD_TRY(check_piece(r, p->piece + k, data, "frame", p->number + k * p->step, fault));
        XKD_TRY(decode_frame(r, data, p->piece[k].bytes, p->number + k * p->step, rgb + k * frame, fault));
    }
fail:
    return status;
}

/* In pieces that stay in the cache until their sums have been taken. A frame that is shown again is a copy. */
static xkd_status read_frames(xkd_record_reader *r, int64_t first, int64_t step, int64_t count, uint8_t *rgb,
                              xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    int64_t frame = 3 * r->head.width * r->head.height;
    for (int64_t i = 0; i < count;) {
        run p = {.piece = &r->pieces[i], .number = first + i * step, .step = step};
        if (i && same_piece(p.piece, p.piece - 1)) {
            memcpy(rgb + i * frame, rgb + (i - 1) * frame, (size_t)frame);
            i++;
            continue;
        }
        p.count = run_of(r->pieces, i, count, BATCH_BYTES, &p.bytes);
        XKD_TRY((r->head.codec == XKD_CODEC_RAW ? raw_run : jpeg_run)(r, &p, frame, rgb + i * frame, fault));
        i += p.count;
    }
fail:
    return status;
}

/* A frame has just its pixels, or no more than JPEG can make of them. */
static xkd_status check_sizes(xkd_record_reader *r, int64_t count, xkd_media_fault *fault)
{
    int64_t frame = 3 * r->head.width * r->head.height;
    for (int64_t i = 0; i < count; i++) {
        int64_t bytes = r->pieces[i].bytes;
        if (r->pieces[i].at <= INT64_MAX / 2 &&
            (r->head.codec == XKD_CODEC_RAW ? bytes == frame : bytes > 0 && bytes <= 2 * frame + JPEG_EXTRA))
            continue;
        *fault = XKD_FAULT_BROKEN;
        return xkd_fail(r->cx, XKD_ERR_DATA, "a frame of the record has an impossible size" ANEW);
    }
    return XKD_OK;
}

xkd_status xkd_record_frames(xkd_record_reader *r, int64_t first, int64_t step, int64_t count, uint8_t *rgb,
                             xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    if (count < 1) return XKD_OK;
    XKD_TRY(load_pieces(r, first, step, count, fault));
    XKD_TRY(check_sizes(r, count, fault));
    XKD_TRY(read_frames(r, first, step, count, rgb, fault));
fail:
    return status;
}

xkd_status xkd_record_piece_of(xkd_record_reader *r, int64_t frame, const uint8_t **data, int64_t *size,
                               xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    XKD_TRY(load_pieces(r, frame, 1, 1, fault));
    XKD_TRY(check_sizes(r, 1, fault));
    XKD_TRY(hold(r, &r->bytes, r->pieces->bytes, &r->byte_capacity, 1));
    XKD_TRY(read_part(r, r->bytes, r->pieces->bytes, (int64_t)r->pieces->at, fault));
    XKD_TRY(check_piece(r, r->pieces, r->bytes, "frame", frame, fault));
    *data = r->bytes;
    *size = r->pieces->bytes;
fail:
    return status;
}

/* Whole chunks, as their sums are of whole ones. */
xkd_status xkd_record_sound(xkd_record_reader *r, int64_t first, int64_t count, int16_t *out, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    if (count < 1) return XKD_OK;
    int64_t chunk = first / XKD_RECORD_CHUNK, last = (first + count - 1) / XKD_RECORD_CHUNK;
    XKD_TRY(load_pieces(r, r->head.frames + chunk, 1, last - chunk + 1, fault));
    XKD_TRY(hold(r, &r->bytes, 2 * XKD_RECORD_CHUNK, &r->byte_capacity, 1));
    for (int64_t c = chunk; c <= last; c++) {
        const xkd_record_piece *p = &r->pieces[c - chunk];
        int64_t begin = c * XKD_RECORD_CHUNK, left = r->head.samples - begin;
        int64_t samples = left < XKD_RECORD_CHUNK ? left : XKD_RECORD_CHUNK;
        if (p->bytes != 2 * samples || p->at > INT64_MAX / 2) {
            *fault = XKD_FAULT_BROKEN;
            XKD_FAIL(XKD_ERR_DATA, "the sound of the record has an impossible size" ANEW);
        }
        XKD_TRY(read_part(r, r->bytes, p->bytes, (int64_t)p->at, fault));
        XKD_TRY(check_piece(r, p, r->bytes, "second", c, fault));
        int64_t from = first > begin ? first - begin : 0, to = first + count - begin;
        if (to > samples) to = samples;
        memcpy(out + (begin + from - first), r->bytes + 2 * from, (size_t)(2 * (to - from)));
    }
fail:
    return status;
}

/* ---- clips ---- */

void xkd_record_describe(const xkd_record_head *h, bool video, bool audio, xkd_media_info *out)
{
    video = video && h->has_video;
    audio = audio && h->has_audio;
    if (!video && !audio) {
        video = h->has_video;
        audio = h->has_audio;
    }
    double end = video && audio ? fmin(h->video_end, h->audio_end) : video ? h->video_end : h->audio_end;
    *out = (xkd_media_info){.has_video = h->has_video,
                            .has_audio = h->has_audio,
                            .video_start = h->video_start,
                            .video_end = h->video_end,
                            .audio_start = h->audio_start,
                            .audio_end = h->audio_end,
                            .start = h->start,
                            .end = end,
                            .fps = h->fps,
                            .width = h->file_width,
                            .height = h->file_height,
                            .sample_rate = h->sample_rate,
                            .channels = h->channels,
                            .audio_track = h->audio_track,
                            .audio_tracks = h->audio_tracks,
                            .video_last = h->video_last};
    snprintf(out->format, sizeof out->format, "xkdpack");
    snprintf(out->video_codec, sizeof out->video_codec, "%s", h->has_video ? xkd_record_codec_name(h->codec) : "");
    snprintf(out->audio_codec, sizeof out->audio_codec, "%s", h->has_audio ? "pcm_s16le" : "");
}

static int64_t fewest(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Frames of a coarser grid are those of the finer one whose times it has. */
xkd_status xkd_record_clip_of(xkd_context *cx, const xkd_record_head *h, const xkd_media_request *q,
                              xkd_record_clip *out, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_media_info info;
    int64_t step = llround(h->grid_fps / q->fps), start = 0;
    *fault = XKD_FAULT_REFUSED;
    if (step < 1 || fabs(h->grid_fps - (double)step * q->fps) > 1e-9 * h->grid_fps)
        XKD_FAIL(XKD_ERR_DATA, "frames at %g a second cannot be had from %g", q->fps, h->grid_fps);
    if (q->audio && h->has_audio && q->audio_rate != h->audio_rate)
        XKD_FAIL(XKD_ERR_DATA, "sound at %lld Hz cannot be had from %d", (long long)q->audio_rate, h->audio_rate);
    *fault = XKD_FAULT_NONE;
    xkd_record_describe(h, q->video, q->audio, &info);
    double seconds = fmax(info.end - info.start, 0);
    if (q->mode == XKD_CLIP_PLACE) start = xkd_media_grid_start(seconds, q->duration, q->fps, q->start);
    if (q->mode == XKD_CLIP_AT) start = (int64_t)floor(fmin(fmax(q->start, 0), 1e9) * q->fps + 1e-6);
    bool whole = q->mode == XKD_CLIP_WHOLE;
    *out = (xkd_record_clip){.start = (double)start / q->fps,
                             .first = start * step,
                             .step = step,
                             .count = whole ? INT64_MAX : llround(q->duration * q->fps),
                             .first_sample = llround((double)start * (double)q->audio_rate / q->fps),
                             .samples = whole ? INT64_MAX : llround(q->duration * (double)q->audio_rate)};
    int64_t left = h->frames > out->first ? (h->frames - out->first + step - 1) / step : 0;
    out->count = q->video ? fewest(out->count, left) : 0;
    left = h->samples > out->first_sample ? h->samples - out->first_sample : 0;
    out->samples = q->audio ? fewest(out->samples, left) : 0;
fail:
    return status;
}

static bool is_stretch(const xkd_record_stretch *s)
{
    return s->from >= 0 && s->to > s->from && s->to <= 2 * XKD_MEDIA_MAX_SECONDS && s->video <= 1 && s->lost <= 1;
}

xkd_status xkd_record_damage(xkd_record_reader *r, const xkd_damage **out, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_record_head *h = &r->head;
    xkd_record_stretch s;
    int64_t size = h->stretches * (int64_t)sizeof s;
    *out = &r->damage;
    if (r->judged) return XKD_OK;
    r->damage.count = 0;
    if (h->damage_at) {
        XKD_TRY(hold(r, &r->bytes, size, &r->byte_capacity, 1));
        XKD_TRY(read_part(r, r->bytes, size, h->damage_at, fault));
        bool whole = xkd_record_sum(r->bytes, size) == h->damage_sum;
        for (int64_t i = 0; whole && i < h->stretches; i++) {
            memcpy(&s, r->bytes + i * (int64_t)sizeof s, sizeof s);
            whole = is_stretch(&s);
            const xkd_media_stretch add = {.video = s.video, .lost = s.lost, .from = s.from, .to = s.to};
            if (whole) XKD_TRY(xkd_damage_add(cx, &r->damage, &add));
        }
        if (!whole) {
            *fault = XKD_FAULT_BROKEN;
            XKD_FAIL(XKD_ERR_DATA, "the record's list of where it is damaged is damaged itself" ANEW);
        }
    }
    r->judged = true;
fail:
    return status;
}

/* Which frames of the clip show damaged pictures of this stretch: [*first, *end). */
static void frames_of(const xkd_record_head *h, const xkd_record_clip *c, const xkd_media_stretch *s, int64_t *first,
                      int64_t *end)
{
    int64_t from = llround(s->from * h->grid_fps) - c->first, to = llround(s->to * h->grid_fps) - c->first;
    *first = from > 0 ? (from + c->step - 1) / c->step : 0;
    *end = fewest(to > 0 ? (to + c->step - 1) / c->step : 0, c->count);
}

static void judge_sound(const xkd_record_head *h, const xkd_media_request *q, const xkd_record_clip *c,
                        const xkd_damage *d, xkd_media_tally *t)
{
    double given = (double)c->samples / (double)q->audio_rate;
    double seconds = fmax(fmin(h->audio_end - h->start - c->start, q->duration), 0);
    double flagged = xkd_damage_seconds(d, XKD_AUDIO, false, c->start, c->start + seconds);
    double lost = xkd_damage_seconds(d, XKD_AUDIO, true, c->start, c->start + seconds);
    t->audio_damage = xkd_media_heard_damage(flagged, lost, given, seconds);
}

/* Early records have the shares of the whole file alone. */
xkd_status xkd_record_judge(xkd_record_reader *r, const xkd_media_request *q, const xkd_record_clip *c,
                            xkd_media_tally *t, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    const xkd_record_head *h = &r->head;
    const xkd_damage *d;
    int64_t bad = 0, first, end;
    t->video_damage = h->video_damage;
    t->audio_damage = h->audio_damage;
    t->unplaced = !h->damage_at && (h->video_damage > 0 || h->audio_damage > 0);
    if (!h->damage_at || q->mode == XKD_CLIP_WHOLE) return XKD_OK;
    XKD_TRY(xkd_record_damage(r, &d, fault));
    for (int64_t i = 0; i < d->count; i++) {
        if (!d->item[i].video) continue;
        frames_of(h, c, &d->item[i], &first, &end);
        bad += end > first ? end - first : 0;
    }
    double left = fmax(h->video_end - h->start - c->start, 0);
    t->video_damage = t->audio_damage = 0;
    if (q->video && h->has_video)
        t->video_damage =
            xkd_media_picture_damage(fmin(left, q->duration), q->fps, llround(q->duration * q->fps), bad, c->count);
    if (q->audio && h->has_audio) judge_sound(h, q, c, d, t);
fail:
    return status;
}

/* Tells the sink, as decoding would, in seconds of the clip. */
static xkd_status send_damage(xkd_record_reader *r, const xkd_media_request *q, const xkd_record_clip *c,
                              const xkd_media_sink *sink, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    const xkd_damage *d;
    int64_t first, end;
    if (!sink->damage || !r->head.damage_at) return XKD_OK;
    XKD_TRY(xkd_record_damage(r, &d, fault));
    double length = q->mode == XKD_CLIP_WHOLE ? INFINITY : q->duration;
    for (int64_t i = 0; i < d->count; i++) {
        xkd_media_stretch s = d->item[i];
        if (!(s.video ? q->video : q->audio)) continue;
        s.from = fmax(s.from - c->start, 0);
        s.to = fmin(s.to - c->start, length);
        if (s.video) {
            frames_of(&r->head, c, &d->item[i], &first, &end);
            s.from = (double)first / q->fps;
            s.to = (double)end / q->fps;
        }
        if (s.to > s.from) XKD_TRY(sink->damage(sink->user, &s));
    }
fail:
    return status;
}

/* The plan for frames of the record's size, kept as long as that is the same. */
static xkd_status make_resizer(xkd_record_reader *r, int64_t short_side)
{
    xkd_status status = XKD_OK;
    int64_t w = r->head.width, h = r->head.height, out_w = w, out_h = h;
    if (short_side) xkd_short_side_size(w, h, short_side, &out_w, &out_h);
    if (r->in_width == w && r->in_height == h && r->out_width == out_w && r->out_height == out_h) return XKD_OK;
    xkd_resizer_free(r->resizer);
    r->resizer = NULL;
    r->in_width = 0;
    if (out_w != w || out_h != h) {
        XKD_TRY(xkd_resizer_new(r->cx, w, h, out_w, out_h, &r->resizer));
        xkd_free(r->small);
        r->small = NULL;
        XKD_TRY(xkd_alloc(r->cx, &r->small, 3 * out_w * out_h, 1));
    }
    r->in_width = w;
    r->in_height = h;
    r->out_width = out_w;
    r->out_height = out_h;
fail:
    return status;
}

/* Frames [from, to) of the clip. */
static xkd_status send_frames(xkd_record_reader *r, const xkd_record_clip *c, int64_t from, int64_t to,
                              const xkd_media_sink *sink, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    if (from >= to) return XKD_OK; /* frames of a record of sound have no size */
    int64_t w = r->head.width, frame = 3 * w * r->head.height, batch = BATCH_BYTES / frame;
    if (batch < 1) batch = 1;
    for (int64_t i = from; i < to; i += batch) {
        int64_t n = fewest(batch, to - i);
        XKD_TRY(hold(r, &r->rgb, n * frame, &r->rgb_capacity, 1));
        XKD_TRY(xkd_record_frames(r, c->first + i * c->step, c->step, n, r->rgb, fault));
        for (int64_t k = 0; k < n; k++) {
            const uint8_t *rgb = r->rgb + k * frame;
            if (r->resizer) {
                xkd_resizer_run(r->resizer, rgb, 3 * w, r->small);
                rgb = r->small;
            }
            XKD_TRY(sink->frame(sink->user, rgb, r->out_width, r->out_height, i + k));
        }
    }
fail:
    return status;
}

static xkd_status send_sound(xkd_record_reader *r, const xkd_record_clip *c, int64_t from, int64_t to,
                             const xkd_media_sink *sink, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    for (int64_t i = from; i < to; i += XKD_RECORD_CHUNK) {
        int64_t n = fewest(XKD_RECORD_CHUNK, to - i);
        XKD_TRY(hold(r, &r->sound, n, &r->sound_capacity, sizeof *r->sound));
        XKD_TRY(xkd_record_sound(r, c->first_sample + i, n, r->sound, fault));
        XKD_TRY(sink->sound(sink->user, r->sound, n));
    }
fail:
    return status;
}

/* Second by second, as they stand in the record and as a film would give them. */
static xkd_status send_clip(xkd_record_reader *r, const xkd_media_request *q, const xkd_record_clip *c,
                            const xkd_media_sink *sink, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    int64_t frames = llround(fmax(q->fps, 1)), rate = q->audio_rate;
    for (int64_t s = 0; s * frames < c->count || s * rate < c->samples; s++) {
        XKD_TRY(send_frames(r, c, fewest(s * frames, c->count), fewest((s + 1) * frames, c->count), sink, fault));
        XKD_TRY(send_sound(r, c, fewest(s * rate, c->samples), fewest((s + 1) * rate, c->samples), sink, fault));
    }
fail:
    return status;
}

xkd_status xkd_record_decode(xkd_record_reader *r, const xkd_media_request *q, const xkd_media_sink *sink,
                             xkd_media_info *info, xkd_media_tally *tally, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_record_head *h = &r->head;
    xkd_record_clip clip;
    *fault = XKD_FAULT_NONE;
    xkd_record_describe(h, q->video, q->audio, info);
    *tally = (xkd_media_tally){.errors = h->errors,
                               .video_seen = h->video_seen,
                               .audio_seen = h->audio_seen,
                               .video_damage = h->video_damage,
                               .audio_damage = h->audio_damage};
    if (q->mode == XKD_CLIP_NONE) return XKD_OK;
    XKD_TRY(xkd_record_clip_of(cx, h, q, &clip, fault));
    XKD_TRY(xkd_record_judge(r, q, &clip, tally, fault));
    if (clip.count) XKD_TRY(make_resizer(r, q->short_side));
    XKD_TRY(sink->begin(sink->user, info, clip.start));
    XKD_TRY(send_damage(r, q, &clip, sink, fault));
    XKD_TRY(send_clip(r, q, &clip, sink, fault));
    tally->frames = clip.count;
    tally->samples = clip.samples;
    if (q->video && h->has_video && clip.count == 0) {
        *fault = XKD_FAULT_BROKEN;
        XKD_FAIL(XKD_ERR_DATA, "has no frame at %.2f s", clip.start);
    }
fail:
    return status;
}
