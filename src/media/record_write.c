/* Writing records, in memory that does not grow with the file but for its tables: frames and sound go out as they come, head
 * and tables last. A record whose head is not there yet is none. */
#include "media/record.h"

#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "media/jpeg.h"
#include "media/record_parts.h"

/* Written at once. */
enum { BUFFER_BYTES = 1 << 20 };

/* A growing table of pieces. */
typedef struct {
    xkd_record_piece *items;
    int64_t count, capacity;
} piece_list;

struct xkd_record_writer {
    xkd_context *cx;
    xkd_record_options options;
    xkd_jpeg *jpeg;
    xkd_writer *to; /* of the record at hand; the caller's */
    int64_t begin;  /* where it begins in the file */
    int64_t number, width, height, samples;
    piece_list frames, chunks;
    xkd_damage damage;
    int16_t sound[XKD_RECORD_CHUNK];
    int64_t held;      /* samples in it */
    uint8_t *previous; /* [height,width,3] the frame before, which may be told again */
    int64_t previous_bytes;
    uint8_t buffer[BUFFER_BYTES];
    int64_t buffered;
};

xkd_status xkd_record_writer_new(xkd_context *cx, const xkd_record_options *options, xkd_record_writer **out)
{
    xkd_status status = XKD_OK;
    xkd_record_writer *w = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &w, 1, sizeof *w));
    w->cx = cx;
    w->options = *options;
    if (options->codec == XKD_CODEC_JPEG) XKD_TRY(xkd_jpeg_new(cx, &w->jpeg));
    *out = w;
    w = NULL;
fail:
    xkd_record_writer_free(w);
    return status;
}

void xkd_record_writer_free(xkd_record_writer *w)
{
    if (!w) return;
    xkd_jpeg_free(w->jpeg);
    xkd_free(w->frames.items);
    xkd_free(w->chunks.items);
    xkd_free(w->damage.item);
    xkd_free(w->previous);
    xkd_free(w);
}

static xkd_status flush(xkd_record_writer *w)
{
    xkd_status status = w->buffered ? xkd_writer_write(w->to, w->buffer, w->buffered) : XKD_OK;
    w->buffered = 0;
    return status;
}

/* Where the next byte goes, from the record's begin. */
static int64_t place(const xkd_record_writer *w)
{
    return xkd_writer_size(w->to) + w->buffered - w->begin;
}

static xkd_status put(xkd_record_writer *w, const void *data, int64_t size)
{
    xkd_status status = XKD_OK;
    if (w->buffered + size > BUFFER_BYTES) XKD_TRY(flush(w));
    if (size > BUFFER_BYTES) return xkd_writer_write(w->to, data, size);
    if (size) memcpy(w->buffer + w->buffered, data, (size_t)size);
    w->buffered += size;
fail:
    return status;
}

xkd_status xkd_record_begin(xkd_record_writer *w, xkd_writer *to, int64_t number)
{
    static const xkd_record_head none;
    w->to = to;
    w->begin = xkd_writer_size(to);
    w->number = number;
    w->width = w->height = w->samples = w->held = w->buffered = 0;
    w->frames.count = w->chunks.count = w->damage.count = 0;
    return put(w, &none, sizeof none);
}

static xkd_status add_piece(xkd_record_writer *w, piece_list *list, const void *data, int64_t size)
{
    xkd_status status = XKD_OK;
    xkd_record_piece p = {.at = (uint64_t)place(w), .bytes = (uint32_t)size, .sum = xkd_record_sum(data, size)};
    XKD_TRY(xkd_reserve(w->cx, &list->items, list->count, &list->capacity, sizeof *list->items));
    XKD_TRY(put(w, data, size));
    list->items[list->count++] = p;
fail:
    return status;
}

/* A still picture to a song is kept once. */
xkd_status xkd_record_add_frame(xkd_record_writer *w, const uint8_t *rgb, int64_t width, int64_t height)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = w->cx;
    piece_list *list = &w->frames;
    int64_t bytes = 3 * width * height, size = bytes;
    const uint8_t *data = rgb;
    if (list->count && (width != w->width || height != w->height))
        XKD_FAIL(XKD_ERR_INTERNAL, "frames of two sizes cannot be one record");
    if (list->count == XKD_RECORD_MAX_FRAMES) XKD_FAIL(XKD_ERR_DATA, "more than %d frames", XKD_RECORD_MAX_FRAMES);
    if (list->count && !memcmp(w->previous, rgb, (size_t)bytes)) {
        XKD_TRY(xkd_reserve(cx, &list->items, list->count, &list->capacity, sizeof *list->items));
        list->items[list->count] = list->items[list->count - 1];
        list->count++;
        goto fail;
    }
    if (bytes > w->previous_bytes) {
        XKD_TRY(xkd_resize(cx, &w->previous, 0, bytes, 1));
        w->previous_bytes = bytes;
    }
    memcpy(w->previous, rgb, (size_t)bytes);
    w->width = width;
    w->height = height;
    if (w->jpeg)
        XKD_TRY(xkd_jpeg_encode(w->jpeg, rgb, width, height, w->options.quality, w->options.full_colour, &data, &size));
    XKD_TRY(add_piece(w, list, data, size));
fail:
    return status;
}

xkd_status xkd_record_add_sound(xkd_record_writer *w, const int16_t *samples, int64_t count)
{
    xkd_status status = XKD_OK;
    while (count > 0) {
        int64_t room = XKD_RECORD_CHUNK - w->held, n = count < room ? count : room;
        memcpy(w->sound + w->held, samples, (size_t)n * sizeof *samples);
        w->held += n;
        w->samples += n;
        samples += n;
        count -= n;
        if (w->held < XKD_RECORD_CHUNK) break;
        XKD_TRY(add_piece(w, &w->chunks, w->sound, 2 * w->held));
        w->held = 0;
    }
fail:
    return status;
}

xkd_status xkd_record_add_damage(xkd_record_writer *w, const xkd_media_stretch *stretch)
{
    return xkd_damage_add(w->cx, &w->damage, stretch);
}

static void describe(const xkd_record_writer *w, const xkd_media_info *i, const xkd_media_tally *t, xkd_record_head *h)
{
    h->frames = w->frames.count;
    h->width = w->width;
    h->height = w->height;
    h->samples = w->samples;
    h->start = i->start;
    h->video_start = i->video_start;
    h->video_end = i->video_end;
    h->audio_start = i->audio_start;
    h->audio_end = i->audio_end;
    h->video_last = i->video_last;
    h->key_gap = i->key_gap;
    h->fps = i->fps;
    h->video_damage = t->video_damage;
    h->audio_damage = t->audio_damage;
    h->video_seen = t->video_seen;
    h->audio_seen = t->audio_seen;
    h->errors = t->errors;
    h->file_width = (int32_t)i->width;
    h->file_height = (int32_t)i->height;
    h->sample_rate = (int32_t)i->sample_rate;
    h->channels = (int32_t)i->channels;
    h->audio_track = (int32_t)i->audio_track;
    h->audio_tracks = (int32_t)i->audio_tracks;
    h->has_video = i->has_video;
    h->has_audio = i->has_audio;
}

/* Of a damaged file, and also where no stretch is damaged and only the end is missing: that the place is not 0 says that the
 * others are in order. */
static xkd_status put_damage(xkd_record_writer *w, const xkd_media_tally *t, xkd_record_head *h)
{
    xkd_status status = XKD_OK;
    xkd_record_stretch *list = NULL;
    int64_t count = w->damage.count, size = count * (int64_t)sizeof *list;
    if (t->unplaced || !(count || t->video_damage > 0 || t->audio_damage > 0)) return XKD_OK;
    XKD_TRY(xkd_alloc(w->cx, &list, count, sizeof *list));
    for (int64_t i = 0; i < count; i++) {
        const xkd_media_stretch *s = &w->damage.item[i];
        list[i] = (xkd_record_stretch){.from = s->from, .to = s->to, .video = s->video, .lost = s->lost};
    }
    h->damage_at = place(w);
    h->stretches = (uint32_t)count;
    h->damage_sum = xkd_record_sum(list, size);
    XKD_TRY(put(w, list, size));
fail:
    xkd_free(list);
    return status;
}

/* Tables, row, and zeros up to the next record. */
static xkd_status put_tail(xkd_record_writer *w, const xkd_media_tally *tally, const char *row, xkd_record_head *h)
{
    static const uint8_t zeros[XKD_RECORD_ALIGN];
    xkd_status status = XKD_OK;
    int64_t piece = (int64_t)sizeof(xkd_record_piece);
    h->table_at = place(w);
    XKD_TRY(put(w, w->frames.items, h->frames * piece));
    XKD_TRY(put(w, w->chunks.items, w->chunks.count * piece));
    if (tally) XKD_TRY(put_damage(w, tally, h));
    h->row_at = place(w);
    h->row_bytes = (int64_t)strlen(row);
    h->row_sum = XXH3_64bits(row, (size_t)h->row_bytes);
    XKD_TRY(put(w, row, h->row_bytes));
    h->bytes = (place(w) + XKD_RECORD_ALIGN - 1) / XKD_RECORD_ALIGN * XKD_RECORD_ALIGN;
    XKD_TRY(put(w, zeros, h->bytes - place(w)));
    XKD_TRY(flush(w));
fail:
    return status;
}

xkd_status xkd_record_end(xkd_record_writer *w, const xkd_media_info *about, const xkd_media_tally *tally,
                          xkd_media_fault fault, const char *row, xkd_record_head *out)
{
    xkd_status status = XKD_OK;
    xkd_record_head h = {.number = w->number,
                         .grid_fps = w->options.grid_fps,
                         .audio_rate = (int32_t)w->options.audio_rate,
                         .codec = (uint8_t)w->options.codec,
                         .fault = (uint8_t)fault};
    memcpy(h.magic, XKD_RECORD_MAGIC, sizeof h.magic);
    if (w->held) XKD_TRY(add_piece(w, &w->chunks, w->sound, 2 * w->held));
    w->held = 0;
    if (about) describe(w, about, tally, &h);
    XKD_TRY(put_tail(w, about ? tally : NULL, row, &h));
    h.sum = xkd_record_head_sum(&h);
    XKD_TRY(xkd_writer_patch(w->to, w->begin, &h, sizeof h));
    *out = h;
fail:
    return status;
}
