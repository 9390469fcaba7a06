/* TensorBoard event files without TensorFlow: a record is a length, its sum, a protobuf message and
 * the sum of that. Only the few fields that scalars and pictures need are written, by hand. */
#include "report/tensorboard.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"

struct xkd_tensorboard {
    xkd_context *cx;
    char *path;
    int fd;
    xkd_text event, inner, value; /* reused from event to event: no allocation in the long run */
};

/* CRC-32C (Castagnoli), bit by bit: events are short, and a table would be more code than use. */
uint32_t xkd_crc32c(const void *bytes, int64_t size)
{
    const unsigned char *p = bytes;
    uint32_t crc = ~0u;
    for (int64_t i = 0; i < size; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0x82f63b78u & -(crc & 1));
    }
    return ~crc;
}

/* TFRecord stores a rotated sum, so that the CRC of data that holds CRCs stays meaningful. The constant and the
 * rotation are TFRecord's. */
static uint32_t masked_crc(const void *bytes, int64_t size)
{
    uint32_t crc = xkd_crc32c(bytes, size);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

/* Little-endian bytes of a number, whatever the machine's order. */
static void put_fixed(xkd_text *out, uint64_t value, int bytes)
{
    unsigned char raw[8];
    for (int i = 0; i < bytes; i++) raw[i] = (unsigned char)(value >> 8 * i);
    xkd_text_add(out, raw, bytes);
}

/* Seven bits at a time, the highest bit says that more follow. */
static void put_varint(xkd_text *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) put_fixed(out, (value & 0x7f) | 0x80, 1);
    put_fixed(out, value, 1);
}

/* Protobuf wire types and fields: https://protobuf.dev/programming-guides/encoding, tensorflow's event.proto. */
enum { RECORD_EXTRA = 16 }; /* bytes of a record around its event: length and two sums */
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };
enum { EVENT_TIME = 1, EVENT_STEP = 2, EVENT_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION = 7 };
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2, VALUE_IMAGE = 4 };
enum { IMAGE_HEIGHT = 1, IMAGE_WIDTH = 2, IMAGE_COLORSPACE = 3, IMAGE_BYTES = 4, IMAGE_RGB = 3 };
enum { SESSION_STATUS = 1, SESSION_START = 1 };

/* Field number and wire type in one number. */
static void put_tag(xkd_text *out, int field, int wire)
{
    put_varint(out, (uint64_t)field << 3 | (uint64_t)wire);
}

/* Negative numbers do not occur. */
static void put_number(xkd_text *out, int field, int64_t value)
{
    put_tag(out, field, WIRE_VARINT);
    put_varint(out, (uint64_t)value);
}

/* A string, or a message within a message. */
static void put_bytes(xkd_text *out, int field, const void *bytes, int64_t size)
{
    put_tag(out, field, WIRE_BYTES);
    put_varint(out, (uint64_t)size);
    xkd_text_add(out, bytes, size);
}

/* Every event begins with its time; step 0 is the default and left out, as protobuf does. `event` is cleared here,
 * `inner` and `value` by who fills them. */
static void begin_event(xkd_tensorboard *board, int64_t step)
{
    double now = xkd_wall_time();
    uint64_t bits;
    memcpy(&bits, &now, sizeof bits);
    xkd_text_clear(&board->event);
    put_tag(&board->event, EVENT_TIME, WIRE_64);
    put_fixed(&board->event, bits, 8);
    if (step) put_number(&board->event, EVENT_STEP, step);
}

/* Frames the event as a record and appends it in one write, so that a reader never sees half of one. */
static xkd_status end_event(xkd_tensorboard *board)
{
    unsigned char length[8];
    xkd_text *event = &board->event, *record = &board->inner;
    if (board->value.status != XKD_OK) return board->value.status;
    if (event->status != XKD_OK) return event->status;
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)event->size >> 8 * i);
    /* `inner` is free again here: what was in it has been copied into the event. */
    xkd_text_clear(record);
    xkd_text_add(record, length, 8);
    put_fixed(record, masked_crc(length, 8), 4);
    xkd_text_add(record, event->data, event->size);
    put_fixed(record, masked_crc(event->data, event->size), 4);
    if (record->status != XKD_OK) return record->status;
    return xkd_append(board->cx, board->fd, board->path, record->data, record->size);
}

/* Step of an event that this file wrote: time (9 bytes), then the step if it is not 0. */
static int64_t event_step(const unsigned char *event, int64_t size)
{
    uint64_t step = 0;
    if (size < 11 || event[9] != (EVENT_STEP << 3 | WIRE_VARINT)) return 0;
    for (int64_t i = 10, shift = 0; i < size && shift < 63; i++, shift += 7) {
        step |= (uint64_t)(event[i] & 0x7f) << shift;
        if (!(event[i] & 0x80)) break;
    }
    return (int64_t)step;
}

/* Rewrites an event file without what comes after the given step and epoch; a torn last record goes as well. */
static xkd_status cut_file(xkd_context *cx, const char *path, int64_t last_step, int64_t epochs)
{
    static const char epoch_tag[] = "pretext-epoch/";
    xkd_status status = XKD_OK;
    xkd_map map = {0};
    xkd_text kept = xkd_text_make(cx);
    XKD_TRY(xkd_map_file(cx, path, &map));
    /* A record: 8 bytes of length, 4 of its sum, the event, 4 of its sum. */
    for (int64_t at = 0; map.size - at >= RECORD_EXTRA;) {
        /* Lengths are compared before they are used, for the file may be torn anywhere. */
        uint64_t size = 0;
        for (int i = 7; i >= 0; i--) size = size << 8 | map.base[at + i];
        if (size > (uint64_t)(map.size - at - RECORD_EXTRA)) break;
        const unsigned char *event = map.base + at + 12;
        /* Epoch events count epochs instead of steps; they are told by their tag. */
        bool of_epoch = memmem(event, size, epoch_tag, sizeof epoch_tag - 1) != NULL;
        if (event_step(event, (int64_t)size) <= (of_epoch ? epochs : last_step))
            xkd_text_add(&kept, map.base + at, (int64_t)size + RECORD_EXTRA);
        at += (int64_t)size + RECORD_EXTRA;
    }
    XKD_TRY(kept.status);
    if (kept.size != map.size) XKD_TRY(xkd_write_file(cx, path, kept.data, kept.size));
fail:
    xkd_text_free(&kept);
    xkd_unmap(&map);
    return status;
}

/* Likewise all event files of former starts. */
static xkd_status cut_folder(xkd_context *cx, const char *folder, int64_t last_step, int64_t epochs)
{
    static const char prefix[] = "events.out.tfevents.";
    xkd_status status = XKD_OK;
    xkd_names names = {0};
    char *path = NULL;
    XKD_TRY(xkd_list_folder(cx, folder, &names));
    for (int64_t i = 0; i < names.count; i++) {
        if (strncmp(names.items[i], prefix, sizeof prefix - 1) != 0) continue;
        XKD_TRY(xkd_join_path(cx, &path, folder, names.items[i]));
        XKD_TRY(cut_file(cx, path, last_step, epochs));
        xkd_free(path);
        path = NULL;
    }
fail:
    xkd_free(path);
    xkd_free_names(&names);
    return status;
}

/* first_step 0: a new run. On resume, events after it are cut from older files, and a session mark
 * tells TensorBoard that steps may repeat. */
xkd_status xkd_tensorboard_open(xkd_context *cx, const char *folder, int64_t first_step, int64_t epochs,
                                xkd_tensorboard **out)
{
    xkd_status status = XKD_OK;
    xkd_tensorboard *board = NULL;
    char host[256] = "localhost", name[400];
    static const char version[] = "brain.Event:2";
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &board, 1, sizeof *board));
    *board = (xkd_tensorboard){
        .cx = cx, .fd = -1, .event = xkd_text_make(cx), .inner = xkd_text_make(cx), .value = xkd_text_make(cx)};
    if (first_step > 0) XKD_TRY(cut_folder(cx, folder, first_step - 1, epochs));
    gethostname(host, sizeof host - 1);
    /* A run may be resumed within the second; each start has a file of its own. */
    for (int n = 0; !board->path || xkd_path_exists(board->path); n++) {
        xkd_free(board->path);
        board->path = NULL;
        /* The name's form is what TensorBoard looks for. */
        snprintf(name, sizeof name, "events.out.tfevents.%.0f.%s.%d.%d", xkd_wall_time(), host, (int)getpid(), n);
        XKD_TRY(xkd_join_path(cx, &board->path, folder, name));
    }
    XKD_TRY(xkd_append_open(cx, board->path, &board->fd));
    begin_event(board, 0);
    put_bytes(&board->event, EVENT_VERSION, version, sizeof version - 1);
    XKD_TRY(end_event(board));
    if (first_step > 0) {
        const char session[] = {SESSION_STATUS << 3 | WIRE_VARINT, SESSION_START};
        begin_event(board, first_step);
        put_bytes(&board->event, EVENT_SESSION, session, sizeof session);
        XKD_TRY(end_event(board));
    }
    *out = board;
    board = NULL;
fail:
    xkd_tensorboard_close(board);
    return status;
}

/* NULL does nothing. */
void xkd_tensorboard_close(xkd_tensorboard *board)
{
    if (!board) return;
    if (board->fd >= 0) close(board->fd);
    xkd_text_free(&board->event);
    xkd_text_free(&board->inner);
    xkd_text_free(&board->value);
    xkd_free(board->path);
    xkd_free(board);
}

/* Values are float there, whatever they were. What was not measured in this step (NAN) is left out: TensorBoard would
 * mark every such point. */
xkd_status xkd_tensorboard_scalars(xkd_tensorboard *board, int64_t step, const char *prefix, const char *const *names,
                                   const double *values, int64_t count)
{
    xkd_text *summary = &board->inner, *value = &board->value;
    char tag[160];
    begin_event(board, step);
    xkd_text_clear(summary);
    for (int64_t i = 0; i < count; i++) {
        float number = (float)values[i];
        uint32_t bits;
        if (isnan(number)) continue;
        memcpy(&bits, &number, sizeof bits);
        snprintf(tag, sizeof tag, "%s/%s", prefix, names[i]);
        xkd_text_clear(value);
        put_bytes(value, VALUE_TAG, tag, (int64_t)strlen(tag));
        put_tag(value, VALUE_SIMPLE, WIRE_32);
        put_fixed(value, bits, 4);
        put_bytes(summary, SUMMARY_VALUE, value->data, value->size);
    }
    put_bytes(&board->event, EVENT_SUMMARY, summary->data, summary->size);
    return end_event(board);
}

/* The PNG is embedded as it is. `inner` holds the picture first and then the summary around it, which
 * by then has been copied out. */
xkd_status xkd_tensorboard_image(xkd_tensorboard *board, int64_t step, const char *tag, const uint8_t *png,
                                 int64_t size, int64_t width, int64_t height)
{
    xkd_text *image = &board->inner, *value = &board->value;
    begin_event(board, step);
    xkd_text_clear(image);
    put_number(image, IMAGE_HEIGHT, height);
    put_number(image, IMAGE_WIDTH, width);
    put_number(image, IMAGE_COLORSPACE, IMAGE_RGB);
    put_bytes(image, IMAGE_BYTES, png, size);
    xkd_text_clear(value);
    put_bytes(value, VALUE_TAG, tag, (int64_t)strlen(tag));
    put_bytes(value, VALUE_IMAGE, image->data, image->size);
    xkd_text_clear(image);
    put_bytes(image, SUMMARY_VALUE, value->data, value->size);
    put_bytes(&board->event, EVENT_SUMMARY, image->data, image->size);
    return end_event(board);
}
