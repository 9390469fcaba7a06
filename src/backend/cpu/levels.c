/* Which level the process runs. Looked up once: results have one level's bits, whatever the environment becomes. */
#include "backend/cpu/levels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/status.h"

#if defined(__x86_64__)
void xkd_cpu_fill_v2(xkd_ops *ops, xkd_dtype dtype);
void xkd_cpu_fill_v3(xkd_ops *ops, xkd_dtype dtype);
void xkd_cpu_fill_v4(xkd_ops *ops, xkd_dtype dtype);
void xkd_cpu_fill_amx(xkd_ops *ops, xkd_dtype dtype);
extern const xkd_double_loops xkd_cpu_loops_v2, xkd_cpu_loops_v3, xkd_cpu_loops_v4;
static xkd_cpu_level levels[] = {
    {"v2", "SSE4.2 and POPCNT", false, xkd_cpu_fill_v2, &xkd_cpu_loops_v2},
    {"v3", "AVX2, FMA and BMI2", false, xkd_cpu_fill_v3, &xkd_cpu_loops_v3},
    {"v4", "AVX-512 F, BW, CD, DQ and VL", false, xkd_cpu_fill_v4, &xkd_cpu_loops_v4},
    {"amx", "AMX_BF16 beside v4", false, xkd_cpu_fill_amx, &xkd_cpu_loops_v4, .tiles = true},
};
#elif defined(__aarch64__)
void xkd_cpu_fill_neon(xkd_ops *ops, xkd_dtype dtype);
extern const xkd_double_loops xkd_cpu_loops_neon;
static xkd_cpu_level levels[] = {{"neon", "Advanced SIMD", true, xkd_cpu_fill_neon, &xkd_cpu_loops_neon}};
#else
#error "no kernels for this processor"
#endif

enum { COUNT = sizeof levels / sizeof *levels };

static const xkd_cpu_level *chosen;
static char wanted[32]; /* XKD_CPU as it was at the first look; empty: not set */
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
/* Tiles are 8 KB of registers that a process must ask for, once and before its threads use them; a system that does not
 * know them, or that a signal stack is too small for, refuses. */
static bool system_gives_tiles(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

/* What the compiler's run-time has no name for: leaf 7 of cpuid. */
static bool has_tiles(void)
{
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, BOTH = AMX_BF16 | AMX_TILE };
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & BOTH) == BOTH && system_gives_tiles();
}
#endif

/* The compiler's run-time asks cpuid for the instructions and xgetbv for the registers that the system saves. */
static void look(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    /* One by one: clang 14 does not know the levels' own names. */
    levels[0].present = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
    levels[1].present = levels[0].present && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    levels[2].present = levels[1].present && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    levels[3].present = levels[2].present && has_tiles();
#endif
    const char *name = getenv("XKD_CPU");
    if (name) snprintf(wanted, sizeof wanted, "%s", name);
    for (int i = 0; i < COUNT; i++)
        if (levels[i].present && (!*wanted || strcmp(wanted, levels[i].name) == 0)) chosen = &levels[i];
}

static bool multiplies_in_tiles(const char *name)
{
    for (int i = 0; i < COUNT; i++)
        if (levels[i].tiles && strcmp(levels[i].name, name) == 0) return true;
    return false;
}

const xkd_cpu_level *xkd_cpu_levels(int *count)
{
    pthread_once(&once, look);
    *count = COUNT;
    return levels;
}

/* "v2, v3" of those present. */
static void list_present(char *out, size_t size)
{
    size_t used = 0;
    *out = 0;
    for (int i = 0; i < COUNT; i++)
        if (levels[i].present && used < size)
            used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "", levels[i].name);
}

xkd_status xkd_cpu_level_choose(xkd_context *cx, const xkd_cpu_level **out)
{
    char present[64];
    pthread_once(&once, look);
    *out = chosen;
    if (chosen) return XKD_OK;
    list_present(present, sizeof present);
    if (!*present)
        return xkd_fail(cx, XKD_ERR_DEVICE, "this processor lacks %s (x86-64-v2), which xkd needs at least",
                        levels[0].needs);
    for (int i = 0; i < COUNT; i++)
        if (strcmp(wanted, levels[i].name) == 0)
            return xkd_fail(cx, XKD_ERR_CONFIG, "XKD_CPU=%s: this processor lacks %s; it has the levels %s", wanted,
                            levels[i].needs, present);
    return xkd_fail(cx, XKD_ERR_CONFIG, "XKD_CPU=%s: unknown level; this processor has %s", wanted, present);
}

const char *xkd_cpu_level_name(void)
{
    pthread_once(&once, look);
    return chosen ? chosen->name : "";
}

/* All levels but v2 have the fused multiply-add, and agree to the bit (parity/test_operations); those with tiles differ in the
 * products of bfloat16. */
void xkd_cpu_level_note(xkd_context *cx, const char *what, const char *before, const char *now)
{
    if (!*before || !*now || strcmp(before, now) == 0) return;
    bool same = strcmp(before, "v2") != 0 && strcmp(now, "v2") != 0;
    bool half = multiplies_in_tiles(before) || multiplies_in_tiles(now);
    xkd_log(cx, same ? XKD_LOG_INFO : XKD_LOG_WARN, "%s: made at processor level %s, goes on at level %s: %s", what,
            before, now,
            !same  ? "last bits of results may differ"
            : half ? "the same bits in float32, other last bits in bfloat16"
                   : "the same bits");
}
