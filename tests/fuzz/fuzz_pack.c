/* libFuzzer: any bytes as a shard of a pack. The sums that would stop every change are made right first, so that what lies
 * behind them is met: limits, tables, JPEG. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "data/pack.h"
#include "data/shard.h"
#include "media/record_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Little-endian words at a place of the bytes. */
static uint64_t word(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static void put(uint8_t *at, uint64_t value)
{
    memcpy(at, &value, sizeof value);
}

/* Sums of a record's pieces, row and head; places as in docs/pack-format.md. */
static void mend_record(uint8_t *r, size_t size)
{
    xkd_record_head h;
    memcpy(&h, r, sizeof h);
    uint64_t table = (uint64_t)h.table_at, row = (uint64_t)h.row_at, bytes = (uint64_t)h.row_bytes;
    for (int64_t i = 0; i < 64 && table < size && size - table >= (uint64_t)(i + 1) * 16; i++) {
        xkd_record_piece p;
        memcpy(&p, r + table + i * 16, sizeof p);
        if (p.at > size || p.bytes > size - p.at) continue;
        p.sum = (uint32_t)XXH3_64bits(r + p.at, p.bytes);
        memcpy(r + table + i * 16, &p, sizeof p);
    }
    if (row <= size && bytes <= size - row) put(r + 88, XXH3_64bits(r + row, bytes));
    uint64_t damage = (uint64_t)h.damage_at, list = (uint64_t)h.stretches * sizeof(xkd_record_stretch);
    if (damage <= size && list <= size - damage) {
        h.damage_sum = (uint32_t)XXH3_64bits(r + damage, list);
        memcpy(r, &h, sizeof h);
    }
    put(r + 8, XXH3_64bits(r + 16, sizeof h - 16));
}

static void mend(uint8_t *b, size_t size)
{
    if (size < 64) return;
    uint64_t text = word(b + 24);
    if (text <= size - 64) put(b + 16, XXH3_64bits(b + 64, text));
    for (size_t at = 0; at + 256 <= size; at += XKD_RECORD_ALIGN)
        if (!memcmp(b + at, XKD_RECORD_MAGIC, 8)) mend_record(b + at, size - at);
    uint8_t *foot = b + size - 64;
    uint64_t index = word(foot + 16), count = word(foot + 24), rows = word(foot + 32), room = size - 64;
    if (index > room || count > (room - index) / 40 || rows > room - index - count * 40) return;
    put(foot + 40, XXH3_64bits(b + index, count * 40) ^ XXH3_64bits(b + index + count * 40, rows));
    put(foot + 8, XXH3_64bits(foot + 16, 48));
}

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    (void)user, (void)info, (void)start;
    return XKD_OK;
}

static volatile unsigned used; /* so that the reading is not optimised away */

static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    (void)index;
    used += rgb[3 * width * height - 1];
    return ++*(int *)user > 200 ? XKD_ERR_INTERRUPTED : XKD_OK;
}

static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    used += (unsigned)samples[count - 1];
    return ++*(int *)user > 200 ? XKD_ERR_INTERRUPTED : XKD_OK;
}

static xkd_status on_damage(void *user, const xkd_media_stretch *s)
{
    if (!(s->from >= 0 && s->to > s->from)) abort();
    return ++*(int *)user > 200 ? XKD_ERR_INTERRUPTED : XKD_OK;
}

static void read_record(xkd_context *cx, xkd_record_reader *reader, int fd, size_t size, const xkd_records_entry *e)
{
    static const xkd_clip_mode MODES[] = {XKD_CLIP_PLACE, XKD_CLIP_WHOLE, XKD_CLIP_AT, XKD_CLIP_NONE};
    xkd_source source = {.fd = fd, .offset = e->offset, .size = e->bytes, .record = true};
    xkd_media_fault fault;
    const char *row;
    if (e->bytes > (int64_t)size - e->offset) abort();
    if (xkd_record_open(reader, &source, &fault) != XKD_OK) return;
    xkd_record_row(reader, &row, &fault);
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++) {
        int count = 0;
        xkd_media_info info;
        xkd_media_tally tally;
        const xkd_media_sink sink = {
            .user = &count, .begin = on_begin, .frame = on_frame, .sound = on_sound, .damage = on_damage};
        const xkd_media_request q = {.mode = MODES[i],
                                     .start = 0.5,
                                     .duration = 1,
                                     .fps = xkd_record_about(reader)->grid_fps,
                                     .short_side = i & 1 ? 16 : 0,
                                     .audio_rate = xkd_record_about(reader)->audio_rate,
                                     .video = true,
                                     .audio = true};
        if (xkd_record_decode(reader, &q, &sink, &info, &tally, &fault) == XKD_ERR_DATA && !xkd_last_error(cx)[0])
            abort();
        if (!(tally.video_damage >= 0 && tally.audio_damage >= 0)) abort();
        xkd_clear_error(cx);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    xkd_context *cx = xkd_context_new();
    uint8_t *bytes = malloc(size + 1);
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (!cx || !bytes || fd < 0) abort();
    memcpy(bytes, data, size);
    if (size && bytes[size - 1] % 4) mend(bytes, size);
    if (size && write(fd, bytes, size) != (ssize_t)size) abort();
    char *text = NULL;
    int64_t first, records_at;
    bool rebuilt;
    xkd_records_index index = {0};
    xkd_record_reader *reader = NULL;
    xkd_pack_settings settings;
    xkd_manifest classes = {0};
    if (xkd_records_open(cx, fd, (int64_t)size, "fuzz", &text, &first, &records_at) == XKD_OK) {
        xkd_pack_settings_read(cx, "fuzz", text, &settings, &classes);
        xkd_clear_error(cx);
        if (xkd_records_read(cx, fd, (int64_t)size, "fuzz", first, records_at, &index, &rebuilt) == XKD_OK &&
            xkd_record_reader_new(cx, &reader) == XKD_OK)
            for (int64_t i = 0; i < index.count; i++) read_record(cx, reader, fd, size, &index.entries[i]);
    }
    xkd_record_reader_free(reader);
    xkd_records_free(&index);
    xkd_manifest_free(&classes);
    xkd_free(text);
    close(fd);
    free(bytes);
    xkd_context_free(cx);
    return 0;
}
