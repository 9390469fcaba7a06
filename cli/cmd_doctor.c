/* xkd doctor: what this build and this machine can do, and what is missing. */
#include <jansson.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswresample/swresample.h>
#include <libswscale/swscale.h>
#include <png.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include <yaml.h>
#include <zlib.h>
#include <xkd/version.h>

#include "backend/cpu/levels.h"
#include "backend/cpu/onednn.h"
#include "backend/cpu/rate.h"
#include "backend/cuda/cuda.h"
#include "dist/dist.h"
#include "base/pool.h"
#include "base/status.h"
#include "base/text.h"
#include "cli.h"
#include "media/encode.h"

/* The measurement takes about 2 s and 150 MB. */
struct values {
    bool quick;
};

/* The measurement can be left out, for scripts that only want versions. */
static const struct cli_option options[] = {
    {0, "quick", CLI_FLAG, offsetof(struct values, quick), NULL, "do not measure the GEMM rate"},
    {0},
};

/* One line of the findings; all of them are text or JSON strings alike. */
struct finding {
    const char *name;
    char value[400];
};

enum { FINDINGS = 40 };

struct findings {
    struct finding items[FINDINGS];
    int count;
};

/* What does not fit is dropped: there are some thirty lines. Later findings lose, which are the machine's. */
__attribute__((format(printf, 3, 4))) static void note(struct findings *f, const char *name, const char *format, ...)
{
    if (f->count == FINDINGS) return;
    struct finding *item = &f->items[f->count++];
    va_list args;
    va_start(args, format);
    vsnprintf(item->value, sizeof item->value, format, args);
    va_end(args);
    item->name = name; /* `name` is a constant of the caller and is not copied */
}

/* FFmpeg's libraries pack their versions in three bytes. */
static void note_version(struct findings *f, const char *name, unsigned version)
{
    note(f, name, "%u.%u.%u", version >> 16, version >> 8 & 255, version & 255);
}

/* Versions as the libraries that are loaded say, not the headers this was compiled with. */
static void libraries(struct findings *f)
{
    char onednn[80];
    unsigned xxh = XXH_versionNumber(); /* as x * 10000 + y * 100 + z */
    note(f, "oneDNN", "%s", xkd_onednn_version(onednn, sizeof onednn));
    note_version(f, "libavformat", avformat_version());
    note_version(f, "libavcodec", avcodec_version());
    note_version(f, "libswscale", swscale_version());
    note_version(f, "libswresample", swresample_version());
    note(f, "libyaml", "%s", yaml_get_version_string());
    note(f, "jansson", "%s", jansson_version_str());
    note(f, "zlib", "%s", zlibVersion());
    note(f, "libpng", "%s", png_get_header_ver(NULL));
    note(f, "xxhash", "%u.%u.%u", xxh / 10000, xxh / 100 % 100, xxh % 100);
}

/* What several processes can talk through; over TCP they always can. */
static void ranks(struct findings *f)
{
    char version[120];
    const char *lack = xkd_dist_mpi_lack(version, sizeof version);
    note(f, "ranks", "TCP (--ranks, torchrun, srun)%s%s",
         *version ? ", MPI (mpirun, srun): " : "; no MPI: ", *version ? version : lack);
}

/* GPUs, or what is missing to use one. */
static void gpus(struct findings *f)
{
    char versions[160], devices[300], lack[400];
    xkd_cuda_describe(versions, sizeof versions, devices, sizeof devices, lack, sizeof lack);
    note(f, "CUDA", "%s%s%s", versions, *versions && *lack ? "; " : "", lack);
    note(f, "GPUs", "%s", *devices ? devices : "none that can be used");
}

/* Which kernels there are, which of them run, and why. */
static void levels(struct findings *f)
{
    xkd_context *cx = xkd_context_new(); /* for the message alone: a wrong XKD_CPU does not end the report */
    const xkd_cpu_level *all, *chosen = NULL;
    const char *forced = getenv("XKD_CPU");
    char present[64] = "", absent[160] = "";
    int count;
    all = xkd_cpu_levels(&count);
    for (int i = 0; i < count; i++) {
        char *list = all[i].present ? present : absent;
        size_t size = all[i].present ? sizeof present : sizeof absent, used = strlen(list);
        snprintf(list + used, size - used, all[i].present ? "%s%s" : "%s%s (no %s)", used ? ", " : "", all[i].name,
                 all[i].needs);
    }
    note(f, "kernel levels", "%s%s%s", *present ? present : "none", *absent ? "; not here: " : "", absent);
    if (!cx || xkd_cpu_level_choose(cx, &chosen) != XKD_OK)
        note(f, "level in use", "none: %s", cx ? xkd_last_error(cx) : "out of memory");
    else
        note(f, "level in use", "%s, %s", chosen->name,
             forced && *forced ? "as XKD_CPU says" : "the highest that is present");
    if (chosen)
        note(f, "bfloat16", "%s",
             chosen->tiles ? "products have instructions of their own: saves memory and time"
                           : "no instructions for it: saves memory, not time");
    xkd_context_free(cx);
}

/* What this processor can do, and what the program makes of it. */
static void processor(struct findings *f)
{
    char model[160] = "unknown", line[400];
    /* The one file outside the library's own functions: there is no library call that gives the processor's name. */
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "model name : %159[^\n]", model) == 1) break;
    if (file) fclose(file);
    note(f, "processor", "%s", model);
    xkd_processor_words("", line, sizeof line);
    note(f, "processors", "%s", line);
    char features[200] = "";
    size_t used = 0;
/* Compilers know these names; the macro keeps list and test together. */
#define FEATURE(NAME)                 \
    if (__builtin_cpu_supports(NAME)) \
    used += (size_t)snprintf(features + used, sizeof features - used, "%s%s", used ? " " : "", NAME)
#if defined(__x86_64__)
    FEATURE("sse4.2");
    FEATURE("avx2");
    FEATURE("fma");
    FEATURE("avx512f");
    FEATURE("avx512bw");
    FEATURE("avx512vnni");
    FEATURE("avx512bf16");
#endif
#undef FEATURE
    note(f, "instructions", "%s", used ? features : "none known"); /* other processors: the names above are x86's */
    levels(f);
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    note(f, "memory", "%.1f GB", (double)pages * (double)page / 1e9);
    xkd_memory_words("", line, sizeof line);
    note(f, "memory free", "%s", line);
}

/* By codec, not by decoder: which one implements it differs. */
static const char *has_decoder(enum AVCodecID id)
{
    return avcodec_find_decoder(id) ? "yes" : "MISSING";
}

/* What is built in. Decoders differ between builds of FFmpeg. */
static void features(struct findings *f)
{
    note(f, "backends", "cpu and cuda (float32, bfloat16), ref (float64 too)");
    note(f, "H.264 decoder", "%s", has_decoder(AV_CODEC_ID_H264));
    note(f, "HEVC decoder", "%s", has_decoder(AV_CODEC_ID_HEVC));
    note(f, "VP9 decoder", "%s", has_decoder(AV_CODEC_ID_VP9));
    note(f, "AV1 decoder", "%s", has_decoder(AV_CODEC_ID_AV1));
    note(f, "AAC decoder", "%s", has_decoder(AV_CODEC_ID_AAC));
    note(f, "Opus decoder", "%s", has_decoder(AV_CODEC_ID_OPUS));
    note(f, "H.264 encoder", "%s", xkd_encoder_has_h264() ? "yes" : "no: synthetic videos are MPEG-4");
}

/* People get two columns, programs one JSON object. */
static xkd_status print(struct cli *cli, const struct findings *f)
{
    xkd_text out = xkd_text_make(cli->cx);
    if (cli->json) xkd_text_puts(&out, "{");
    for (int i = 0; i < f->count; i++) {
        if (!cli->json) {
            xkd_text_printf(&out, "%-16s %s\n", f->items[i].name, f->items[i].value);
            continue;
        }
        if (i) xkd_text_puts(&out, ", ");
        xkd_text_json_string(&out, f->items[i].name);
        xkd_text_puts(&out, ": ");
        xkd_text_json_string(&out, f->items[i].value);
    }
    if (cli->json) xkd_text_puts(&out, "}\n");
    xkd_status status = out.status;
    if (status == XKD_OK) fputs(out.data, stdout);
    xkd_text_free(&out);
    return status;
}

/* Missing decoders are shown, not refused: they may never be needed. Order of the lines: what one is asked for in a
 * report of a fault, from the program to the machine. */
static int run(struct cli *cli, int argc, char **argv)
{
    struct values v = {0};
    struct findings f = {.count = 0};
    xkd_gemm_rates rates;
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_doctor, argc, argv, &v, &rest);
    if (status == XKD_OK) status = cli_no_arguments(cli, &cmd_doctor, rest, argv);
    if (status != XKD_OK) return status;
    note(&f, "xkd", "%s", xkd_version());
    features(&f);
    libraries(&f);
    ranks(&f);
    gpus(&f);
    processor(&f);
    /* The one part that takes time. */
    const xkd_cpu_level *level;
    if (!v.quick && xkd_cpu_level_choose(cli->cx, &level) == XKD_OK) {
        status = xkd_gemm_rate(cli->cx, xkd_processor_count(), &rates);
        if (status != XKD_OK) return status;
        note(&f, "GEMM rate", "%.1f GFLOP/s, oneDNN %.1f (4096x3072x3072, float32, all processors)", rates.own / 1e9,
             rates.onednn / 1e9);
    }
    return print(cli, &f);
}

const struct cli_command cmd_doctor = {
    .name = "doctor",
    .summary = "show what is built in, library versions, processor features and the GEMM rate",
    .usage = "[--quick]",
    .example = "xkd doctor --json",
    .options = options,
    .run = run,
};
