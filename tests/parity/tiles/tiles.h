/* The instructions of AMX on any processor, so that the products of level amx can be tried where it is not to be had: eight tiles of 16
 * rows of 64 bytes for each thread, and what Intel's manual says of TDPBF16PS. Included before the source that uses them. */
#ifndef XKD_TESTS_TILES_H
#define XKD_TESTS_TILES_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TILES = 8, TILE_ROWS = 16, TILE_BYTES = 64, TILE_FLOATS = TILE_BYTES / 4 };

typedef struct {
    uint8_t bytes[TILES][TILE_ROWS][TILE_BYTES];
    bool ready; /* between _tile_loadconfig and _tile_release */
} amx_registers;

static _Thread_local amx_registers registers;

/* The processor would end the process. */
static inline void want_tiles(bool right, const char *what)
{
    if (right) return;
    fprintf(stderr, "tiles: %s\n", what);
    abort();
}

/* All tiles must have their full size: nothing else is asked for. */
static inline void amx_configure(const void *shape)
{
    const uint8_t *b = shape;
    want_tiles(!registers.ready, "configured twice");
    want_tiles(b[0] == 1, "palette 1 is the only one");
    for (int t = 0; t < TILES; t++)
        want_tiles(b[16 + 2 * t] == TILE_BYTES && b[17 + 2 * t] == 0 && b[48 + t] == TILE_ROWS,
                   "a tile of another size");
    memset(&registers, 0, sizeof registers);
    registers.ready = true;
}

static inline void amx_forget(void)
{
    want_tiles(registers.ready, "released twice");
    memset(&registers, 0xff, sizeof registers); /* NaN: whoever reads on sees it */
    registers.ready = false;
}

static inline void amx_clear(int t)
{
    want_tiles(registers.ready, "no configuration");
    memset(registers.bytes[t], 0, sizeof registers.bytes[t]);
}

static inline void amx_load(int t, const void *from, int64_t stride)
{
    want_tiles(registers.ready, "no configuration");
    for (int r = 0; r < TILE_ROWS; r++) memcpy(registers.bytes[t][r], (const char *)from + r * stride, TILE_BYTES);
}

static inline void amx_store(int t, void *to, int64_t stride)
{
    want_tiles(registers.ready, "no configuration");
    for (int r = 0; r < TILE_ROWS; r++) memcpy((char *)to + r * stride, registers.bytes[t][r], TILE_BYTES);
}

/* Numbers 2 n + odd of a row of bfloat16, as floats. */
static inline void amx_half_row(float out[TILE_FLOATS], const uint8_t *row, int odd)
{
    for (int n = 0; n < TILE_FLOATS; n++) {
        uint16_t half;
        memcpy(&half, row + 4 * n + 2 * odd, sizeof half);
        uint32_t bits = (uint32_t)half << 16;
        memcpy(&out[n], &bits, sizeof bits);
    }
}

/* Even and odd numbers of K are summed up apart, and both sums are added to the output. */
static inline void amx_multiply(int to, int left, int right)
{
    want_tiles(registers.ready, "no configuration");
    for (int m = 0; m < TILE_ROWS; m++) {
        float a[2][TILE_FLOATS], b[TILE_FLOATS], sums[2][TILE_FLOATS] = {{0}}, out[TILE_FLOATS];
        for (int odd = 0; odd < 2; odd++) {
            amx_half_row(a[odd], registers.bytes[left][m], odd);
            for (int k = 0; k < TILE_FLOATS; k++) {
                amx_half_row(b, registers.bytes[right][k], odd);
                for (int n = 0; n < TILE_FLOATS; n++) sums[odd][n] += a[odd][k] * b[n];
            }
        }
        memcpy(out, registers.bytes[to][m], sizeof out);
        for (int n = 0; n < TILE_FLOATS; n++) out[n] += sums[0][n] + sums[1][n];
        memcpy(registers.bytes[to][m], out, sizeof out);
    }
}

/* The compiler's header may have made macros of them. */
#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(shape) amx_configure(shape)
#define _tile_release() amx_forget()
#define _tile_zero(tile) amx_clear(tile)
#define _tile_loadd(tile, from, stride) amx_load(tile, from, stride)
#define _tile_stored(tile, to, stride) amx_store(tile, to, stride)
#define _tile_dpbf16ps(to, left, right) amx_multiply(to, left, right)

#endif
