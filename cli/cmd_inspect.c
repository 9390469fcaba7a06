/* xkd inspect: what a tensor file holds, without running anything from it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "checkpoint/content.h"
#include "cli.h"
#include "tensor_args.h"

struct values {
    int64_t header_limit;
};

static const struct cli_option options[] = {
    HEADER_LIMIT_OPTION(header_limit),
    {0},
};

/* The text is reused from tensor to tensor. */
static void shape_text(const xkd_shape *shape, xkd_text *out)
{
    xkd_text_clear(out);
    xkd_text_puts(out, "[");
    for (int i = 0; i < shape->ndim; i++) xkd_text_printf(out, i ? ", %" PRId64 : "%" PRId64, shape->dims[i]);
    xkd_text_puts(out, "]");
}

/* A shared storage counts for every tensor that uses it. */
static int64_t elements(const xkd_tensor_file *file)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < file->count; i++) sum += xkd_shape_count(&file->tensors[i].shape);
    return sum;
}

/* Bytes as stored; a storage that several tensors share counts each time. */
static int64_t bytes_of(const xkd_tensor_file *file)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < file->count; i++) sum += file->tensors[i].bytes;
    return sum;
}

/* Names and metadata come from the file and are escaped; nothing is printed until all of it is there. */
static xkd_status print_json(xkd_context *cx, const xkd_tensor_file *file, const char *described)
{
    xkd_text t = xkd_text_make(cx), shape = xkd_text_make(cx);
    xkd_text_puts(&t, "{\"path\": ");
    xkd_text_json_string(&t, file->path);
    xkd_text_puts(&t, ", \"format\": ");
    xkd_text_json_string(&t, xkd_file_kind_name(file->kind));
    xkd_text_puts(&t, ", \"content\": ");
    xkd_text_json_string(&t, described);
    xkd_text_printf(&t, ", \"checksummed\": %s, \"elements\": %" PRId64 ", \"bytes\": %" PRId64 ", \"metadata\": {",
                    file->checksummed ? "true" : "false", elements(file), bytes_of(file));
    for (int64_t i = 0; i < file->note_count; i++) {
        if (i) xkd_text_puts(&t, ", ");
        xkd_text_json_string(&t, file->notes[i].name);
        xkd_text_puts(&t, ": ");
        xkd_text_json_string(&t, file->notes[i].value);
    }
    xkd_text_puts(&t, "}, \"tensors\": [");
    for (int64_t i = 0; i < file->count; i++) {
        xkd_text_puts(&t, i ? ",\n {\"name\": " : "\n {\"name\": ");
        xkd_text_json_string(&t, file->tensors[i].name);
        shape_text(&file->tensors[i].shape, &shape);
        xkd_text_printf(&t, ", \"dtype\": \"%s\", \"shape\": %s}", xkd_dtype_name(file->tensors[i].dtype), shape.data);
    }
    xkd_text_puts(&t, "]}\n");
    xkd_status status = t.status != XKD_OK ? t.status : shape.status;
    if (status == XKD_OK) fputs(t.data, stdout);
    xkd_text_free(&t);
    xkd_text_free(&shape);
    return status;
}

/* Long metadata, such as a whole configuration, are cut. Names of tensors are printable in every file that opens, notes are
 * not: a file could otherwise show lines of its own making. */
static void print_note(const xkd_file_note *note)
{
    char name[200], value[200];
    printf("  %s = %s\n", xkd_escape(name, sizeof name, note->name, strlen(note->name), ""),
           xkd_escape(value, sizeof value, note->value, strlen(note->value), ""));
}

/* Columns are as wide as the longest name, within reason. */
static xkd_status print_table(xkd_context *cx, const xkd_tensor_file *file, const char *described)
{
    xkd_text shape = xkd_text_make(cx);
    int width = 8;
    for (int64_t i = 0; i < file->count; i++) {
        int length = (int)strlen(file->tensors[i].name);
        /* One very long name must not widen all rows. */
        if (length > width && length <= 90) width = length;
    }
    printf("%s: %s, %s\n", file->path, xkd_file_kind_name(file->kind), described);
    for (int64_t i = 0; i < file->note_count; i++) print_note(&file->notes[i]);
    for (int64_t i = 0; i < file->count; i++) {
        shape_text(&file->tensors[i].shape, &shape);
        printf("%-*s  %-8s  %s\n", width, file->tensors[i].name, xkd_dtype_name(file->tensors[i].dtype), shape.data);
    }
    printf("%" PRId64 " tensors, %" PRId64 " elements, %.1f MB, %s\n", file->count, elements(file),
           (double)bytes_of(file) / 1e6, file->checksummed ? "checksums agree" : "no checksums in this file");
    xkd_status status = shape.status;
    xkd_text_free(&shape);
    return status;
}

/* Opening the file is what verifies it: format, sizes and checksums. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_context *cx = cli->cx;
    xkd_tensor_file file = {0};
    xkd_content content = {0};
    char *described = NULL;
    struct values v = {0};
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_inspect, argc, argv, &v, &rest);
    if (status != XKD_OK) return status;
    if (rest != 1)
        return xkd_fail(cx, XKD_ERR_CONFIG, "inspect needs one file or run folder (see 'xkd inspect --help')");
    /* A map of the file: no tensor is copied. */
    XKD_TRY(tensor_args_open(cx, v.header_limit, argv[1], &file));
    XKD_TRY(xkd_content_identify(cx, &file, &content));
    XKD_TRY(xkd_content_describe(cx, &content, &described));
    XKD_TRY(cli->json ? print_json(cx, &file, described) : print_table(cx, &file, described));
fail:
    xkd_free(described);
    xkd_content_free(&content);
    xkd_tensor_file_close(&file);
    return status;
}

const struct cli_command cmd_inspect = {
    .name = "inspect",
    .summary = "list the tensors and metadata of a safetensors, PyTorch, npy or npz file",
    .usage = "FILE|RUN [--json]",
    .description = "Says what the file is, and the name, type and shape of each tensor. RUN stands for its newest "
                   "checkpoint. Nothing in the file is ever run: "
                   "what is not plain tensors, numbers and texts is refused with exit code 4.",
    .example = "xkd inspect vid_teacher.pth.tar",
    .options = options,
    .run = run,
};
