/* xkd bench kernels: single operations of the table at the sizes of the full model, with what they reach. */
#include <stdio.h>

#include "backend/cpu/levels.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "cli.h"

struct values {
    int64_t threads, repeats;
};

static const struct cli_option options[] = {
    {0, "repeats", CLI_INT, offsetof(struct values, repeats), "N", "runs of each; the fastest counts (default 5)"},
    {0, "threads", CLI_INT, offsetof(struct values, threads), "N", "threads (default: all processors)"},
    {0},
};

/* Eight audio clips of the base encoder; MMD and distillation of a batch of 256. */
enum { R = 4488, D = 768, F = 3072, H = 12, DECODER = 384, ROWS = 256, K = 8192, MOST = R * F };

struct bench {
    xkd_backend *be;
    float *a, *b, *c, *d, *small[4]; /* [MOST]; [R * H] */
    double *weights;                 /* [(2 ROWS)^2] */
};

static const xkd_segment audio = {8, 561};
static const xkd_segments clips = {1, &audio, R};

static void norm_forward(const struct bench *x)
{
    x->be->ops->layernorm_forward(x->be, x->b, x->small[0], x->small[1], x->a, x->small[2], x->small[3], R, D);
}

static void norm_backward(const struct bench *x)
{
    x->be->ops->layernorm_backward(x->be, &(xkd_layernorm_grad){.dx = x->b,
                                                                .dw = x->small[2],
                                                                .db = x->small[3],
                                                                .residual = x->b,
                                                                .dy = x->c,
                                                                .x = x->a,
                                                                .mean = x->small[0],
                                                                .rstd = x->small[1],
                                                                .w = x->d,
                                                                .R = R,
                                                                .D = D});
}

static void gelu_forward(const struct bench *x)
{
    x->be->ops->gelu_forward(x->be, x->b, x->a, (int64_t)R * F);
}

static void gelu_backward(const struct bench *x)
{
    x->be->ops->gelu_backward(x->be, x->b, x->c, x->a, (int64_t)R * F);
}

static void attend(const struct bench *x, int64_t width, int64_t heads)
{
    x->be->ops->attention_forward(x->be, x->b, x->small[0], x->a, &clips, heads, width);
}

static void attend_backward(const struct bench *x, int64_t width, int64_t heads)
{
    x->be->ops->attention_backward(x->be, x->c, x->d, x->a, x->b, x->small[0], &clips, heads, width);
}

static void encoder_attention(const struct bench *x)
{
    attend(x, D, H);
}

static void encoder_attention_backward(const struct bench *x)
{
    attend_backward(x, D, H);
}

static void decoder_attention(const struct bench *x)
{
    attend(x, DECODER, H);
}

static void decoder_attention_backward(const struct bench *x)
{
    attend_backward(x, DECODER, H);
}

static xkd_align_sides sides(const struct bench *x)
{
    return (xkd_align_sides){.x = x->a, .y = x->b, .views_x = 1, .views_y = 1, .B = ROWS, .K = K, .samples = ROWS};
}

static void mmd(const struct bench *x)
{
    double loss;
    xkd_align_sides s = sides(x);
    x->be->ops->mmd_forward(x->be, &loss, x->weights, &s);
    x->be->ops->mmd_backward(x->be, x->c, x->d, x->weights, &s, 1);
}

static void distil(const struct bench *x)
{
    double loss, entropy;
    static const double temperature = 0.1;
    xkd_kd_args args = {x->a, x->b, x->small[0], &temperature, &temperature, 2 * ROWS, ROWS, K};
    x->be->ops->kd_forward(x->be, &loss, &entropy, x->small[1], x->small[2], &args);
    x->be->ops->kd_backward(x->be, x->c, &args, x->small[1], x->small[2], 1);
}

/* bytes: read and written, without what caches save; 0 where products count. */
static const struct row {
    const char *name;
    void (*run)(const struct bench *x);
    double bytes;
} rows[] = {
    {"LayerNorm 4488x768", norm_forward, 8.0 * R *D},
    {"LayerNorm backward", norm_backward, 16.0 * R *D},
    {"GELU 4488x3072", gelu_forward, 8.0 * R *F},
    {"GELU backward", gelu_backward, 12.0 * R *F},
    {"attention 8x561, 12 heads of 64", encoder_attention, 0},
    {"attention backward", encoder_attention_backward, 0},
    {"attention 8x561, 12 heads of 32", decoder_attention, 0},
    {"attention backward", decoder_attention_backward, 0},
    {"MMD of 512 rows, both ways", mmd, 0},
    {"distillation 512 rows, both ways", distil, 0},
};

/* The fastest run after one that touches memory. */
static double time_of(const struct bench *x, const struct row *row, int64_t repeats, double *products)
{
    double best = 1e30;
    row->run(x);
    for (int64_t i = 0; i < repeats; i++) {
        x->be->products = 0;
        double start = xkd_now();
        row->run(x);
        double seconds = xkd_now() - start;
        if (seconds < best) best = seconds;
    }
    *products = (double)x->be->products;
    return best;
}

static void print_row(const struct cli *cli, const struct row *row, double seconds, double products, bool last)
{
    if (cli->json) {
        printf("{\"kernel\": \"%s\", \"seconds\": %.6f, \"gflops\": %.2f, \"gbytes_per_s\": %.2f}%s", row->name,
               seconds, 2e-9 * products / seconds, 1e-9 * row->bytes / seconds, last ? "" : ", ");
        return;
    }
    printf("%-34s %9.3f ms", row->name, 1e3 * seconds);
    if (products > 0) printf("  %7.1f GFLOP/s", 2e-9 * products / seconds);
    if (row->bytes > 0) printf("  %7.1f GB/s", 1e-9 * row->bytes / seconds);
    printf("\n");
}

/* Small normal numbers, so that softmax and GELU see what they see in training. */
static xkd_status make(xkd_context *cx, struct bench *b, int threads)
{
    xkd_status status = XKD_OK;
    float **large[] = {&b->a, &b->b, &b->c, &b->d};
    XKD_TRY(xkd_backend_new(cx, &b->be, "cpu", XKD_F32, threads));
    for (int i = 0; i < 4; i++) {
        xkd_rng rng = xkd_rng_make(1, 0, (uint32_t)i, 0, XKD_RNG_TEST);
        XKD_TRY(xkd_alloc(cx, large[i], MOST, sizeof **large[i]));
        for (int64_t k = 0; k < MOST; k++) (*large[i])[k] = (float)xkd_rng_u32(&rng) * 0x1p-31f - 1;
        XKD_TRY(xkd_alloc(cx, &b->small[i], R * H, sizeof *b->small[i]));
    }
    XKD_TRY(xkd_alloc(cx, &b->weights, (int64_t)4 * ROWS * ROWS, sizeof *b->weights));
fail:
    return status;
}

static xkd_status bench(struct cli *cli, const struct values *v)
{
    xkd_status status = XKD_OK;
    struct bench b = {0};
    const xkd_cpu_level *level;
    int count = sizeof rows / sizeof *rows;
    XKD_TRY(xkd_cpu_level_choose(cli->cx, &level));
    XKD_TRY(make(cli->cx, &b, (int)v->threads));
    if (cli->json) printf("{\"level\": \"%s\", \"threads\": %lld, \"kernels\": [", level->name, (long long)v->threads);
    for (int i = 0; i < count; i++) {
        double products, seconds = time_of(&b, &rows[i], v->repeats, &products);
        print_row(cli, &rows[i], seconds, products, i + 1 == count);
    }
    if (cli->json) printf("]}\n");
    XKD_TRY(xkd_backend_status(b.be));
fail:
    for (int i = 0; i < 4; i++) xkd_free(b.small[i]);
    xkd_free(b.a);
    xkd_free(b.b);
    xkd_free(b.c);
    xkd_free(b.d);
    xkd_free(b.weights);
    xkd_backend_free(b.be);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct values v = {.repeats = 5, .threads = xkd_processor_count()};
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_bench_kernels, argc, argv, &v, &rest);
    if (status == XKD_OK) status = cli_no_arguments(cli, &cmd_bench_kernels, rest, argv);
    if (status != XKD_OK) return status;
    if (v.repeats < 1 || v.threads < 1)
        return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--repeats and --threads want at least 1");
    return bench(cli, &v);
}

const struct cli_command cmd_bench_kernels = {
    .name = "kernels",
    .summary = "rate of single operations: norms, GELU, attention, losses",
    .usage = "[--threads N]",
    .example = "xkd bench kernels --json",
    .options = options,
    .run = run,
};
