/* xkd diff: two tensor files, tensor by tensor. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "base/text.h"
#include "checkpoint/content.h"
#include "cli.h"
#include "tensor_args.h"

/* Exit code where files differ; 0 where they do not. */
enum { FILES_DIFFER = 1 };

/* tolerance is relative to the tensor's largest element. */
struct values {
    double tolerance;
    bool all;
    int64_t header_limit;
};

static const struct cli_option options[] = {
    {'t', "tolerance", CLI_REAL, offsetof(struct values, tolerance), "X",
     "largest relative difference that still counts as equal (default 0)"},
    {'a', "all", CLI_FLAG, offsetof(struct values, all), NULL, "list equal tensors too"},
    HEADER_LIMIT_OPTION(header_limit),
    {0},
};

typedef struct {
    double largest, relative; /* max |a - b|, and that over max(|a|, |b|) of the tensor */
    int64_t unequal;
} difference;

/* |a - b| of one element. Two NaN count as equal, so that a file equals itself; one NaN is as far away as can be. Integers
 * are compared exactly, other types as doubles. */
static double distance(const xkd_stored_tensor *a, const xkd_stored_tensor *b, int64_t i)
{
    if (xkd_dtype_is_integer(a->dtype) && xkd_dtype_is_integer(b->dtype))
        return (double)fabsl(xkd_integer_element(a->dtype, a->data, i) - xkd_integer_element(b->dtype, b->data, i));
    double x = xkd_element(a->dtype, a->data, i), y = xkd_element(b->dtype, b->data, i);
    if (x == y || (isnan(x) && isnan(y))) return 0;
    return isnan(x) || isnan(y) ? INFINITY : fabs(x - y);
}

/* Shapes are equal. */
static difference compare(const xkd_stored_tensor *a, const xkd_stored_tensor *b)
{
    difference d = {0};
    double scale = 0;
    int64_t n = xkd_shape_count(&a->shape);
    /* The common case, and the fast one. */
    if (a->dtype == b->dtype && (a->bytes == 0 || memcmp(a->data, b->data, (size_t)a->bytes) == 0)) return d;
    for (int64_t i = 0; i < n; i++) {
        double e = distance(a, b, i);
        if (e != 0) d.unequal++;
        d.largest = fmax(d.largest, e);
        /* fmax passes NaN over. */
        scale = fmax(scale, fmax(fabs(xkd_element(a->dtype, a->data, i)), fabs(xkd_element(b->dtype, b->data, i))));
    }
    /* scale is above 0 where finite numbers differ; infinite distances stay infinite. */
    d.relative = d.largest == 0 || isinf(d.largest) ? d.largest : d.largest / scale;
    return d;
}

/* Prints one tensor's comparison where it says something; returns whether they count as different. */
static bool report(const struct cli *cli, const struct values *v, const xkd_stored_tensor *a,
                   const xkd_stored_tensor *b, xkd_text *json, bool *first)
{
    const char *name = a ? a->name : b->name, *state = "equal";
    difference d = {0};
    bool differs = true;
    if (!a || !b) state = a ? "only in the first" : "only in the second";
    /* Shapes are compared before elements: the loop below trusts that both have as many. */
    else if (!xkd_shape_equal(&a->shape, &b->shape))
        state = "other shape";
    else {
        d = compare(a, b);
        differs = d.relative > v->tolerance;
        if (d.unequal) state = "other values";
        if (a->dtype != b->dtype && !d.unequal) state = "equal, other type";
    }
    /* JSON has no infinity. */
    if (cli->json) {
        xkd_text_puts(json, *first ? "\n {\"name\": " : ",\n {\"name\": ");
        xkd_text_json_string(json, name);
        xkd_text_printf(json, ", \"state\": \"%s\", \"max_difference\": %.9g, \"relative\": %.9g}", state,
                        isfinite(d.largest) ? d.largest : 1e308, isfinite(d.relative) ? d.relative : 1e308);
        *first = false;
    } else if (differs || d.unequal || v->all) {
        printf("%-60s %-18s max %.6g, relative %.6g, %" PRId64 " elements\n", name, state, d.largest, d.relative,
               d.unequal);
    }
    return differs;
}

/* What is said of all tensors together. */
typedef struct {
    xkd_text json;
    bool first;
    int64_t different;
} summary;

/* Names of the first list in its order, then what only the second one has. */
static xkd_status compare_lists(const struct cli *cli, const struct values *v, const xkd_stored_tensor *a,
                                int64_t a_count, const xkd_stored_tensor *b, int64_t b_count, summary *s)
{
    xkd_context *cx = cli->cx;
    xkd_status status = XKD_OK;
    const xkd_stored_tensor **in_a = NULL, **in_b = NULL;
    XKD_TRY(xkd_tensors_by_name(cx, a, a_count, &in_a));
    XKD_TRY(xkd_tensors_by_name(cx, b, b_count, &in_b));
    for (int64_t i = 0; i < a_count; i++)
        s->different += report(cli, v, &a[i], xkd_tensors_find(in_b, b_count, a[i].name), &s->json, &s->first);
    for (int64_t i = 0; i < b_count; i++)
        if (!xkd_tensors_find(in_a, a_count, b[i].name))
            s->different += report(cli, v, NULL, &b[i], &s->json, &s->first);
fail:
    xkd_free(in_a);
    xkd_free(in_b);
    return status;
}

/* The optimiser's tensors are compared where both files have some: a checkpoint also compares with a model alone. */
static xkd_status compare_files(struct cli *cli, const struct values *v, const xkd_content *a, const xkd_content *b)
{
    xkd_status status = XKD_OK;
    summary s = {.json = xkd_text_make(cli->cx), .first = true};
    int64_t left_out = a->rest_count && b->rest_count ? 0 : a->rest_count + b->rest_count;
    xkd_text_puts(&s.json, "{\"tensors\": [");
    XKD_TRY(compare_lists(cli, v, a->tensors, a->count, b->tensors, b->count, &s));
    if (!left_out) XKD_TRY(compare_lists(cli, v, a->rest, a->rest_count, b->rest, b->rest_count, &s));
    xkd_text_printf(&s.json, "],\n \"different\": %" PRId64 ", \"left_out\": %" PRId64 "}\n", s.different, left_out);
    XKD_TRY(s.json.status);
    if (cli->json)
        fputs(s.json.data, stdout);
    else
        printf("%" PRId64 " tensors differ\n", s.different);
    if (left_out && !cli->json)
        printf("%" PRId64 " tensors beside the model in one of the files were left out\n", left_out);
    /* No message: `state` has been printed, and the exit code says the rest. */
    if (s.different) status = (xkd_status)FILES_DIFFER;
fail:
    xkd_text_free(&s.json);
    return status;
}

/* Files stay open until the end, since contents point into them. Two files in memory maps: nothing is loaded, so
 * models larger than memory can be compared. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_context *cx = cli->cx;
    struct values v = {0};
    xkd_tensor_file files[2] = {{0}, {0}};
    xkd_content contents[2] = {{0}, {0}};
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_diff, argc, argv, &v, &rest);
    if (status != XKD_OK) return status;
    if (rest != 2) return xkd_fail(cx, XKD_ERR_CONFIG, "diff needs two files (see 'xkd diff --help')");
    for (int i = 0; i < 2; i++) {
        XKD_TRY(tensor_args_open(cx, v.header_limit, argv[1 + i], &files[i]));
        XKD_TRY(xkd_content_identify(cx, &files[i], &contents[i]));
    }
    status = compare_files(cli, &v, &contents[0], &contents[1]);
fail:
    for (int i = 0; i < 2; i++) {
        xkd_content_free(&contents[i]);
        xkd_tensor_file_close(&files[i]);
    }
    return status;
}

const struct cli_command cmd_diff = {
    .name = "diff",
    .summary = "compare two tensor files, tensor by tensor; exit code 1 where they differ",
    .usage = "A B [--tolerance X]",
    .description =
        "Formats and types may differ. Names are brought into the release's form first, so a released backbone "
        "compares with an exported one. What a checkpoint holds beside the model is compared where both files have it.",
    .example = "xkd diff vid_teacher.pth.tar runs/first/backbones/vid_teacher.safetensors",
    .options = options,
    .run = run,
};
