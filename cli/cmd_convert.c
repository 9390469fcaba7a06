/* xkd convert: from any tensor file to any other form. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/status.h"
#include "checkpoint/content.h"
#include "checkpoint/hf_folder.h"
#include "cli.h"
#include "supervised/classifier.h"
#include "tensor_args.h"

struct values {
    const char *to, *part;
    bool all, force;
    int64_t header_limit;
};

static const struct cli_option options[] = {
    {0, "to", CLI_TEXT, offsetof(struct values, to), "FORM",
     "safetensors, pth, npz, npy or hf (default: by OUT's ending)"},
    {0, "part", CLI_TEXT, offsetof(struct values, part), "NAME",
     "one network of a whole model, e.g. vid_teacher.backbone, under its own names"},
    {0, "all", CLI_FLAG, offsetof(struct values, all), NULL,
     "everything under the file's own names, optimiser included, instead of the model alone"},
    {'f', "force", CLI_FLAG, offsetof(struct values, force), NULL, "replace OUT if it exists"},
    HEADER_LIMIT_OPTION(header_limit),
    {0},
};

/* One form more than there are file kinds: a folder. */
enum { TO_FOLDER = XKD_FILE_KINDS };

/* The ending decides unless --to does; case does not matter. */
static const struct {
    const char *name;
    int kind;
} forms[] = {{"safetensors", XKD_FILE_SAFETENSORS},
             {"pth", XKD_FILE_TORCH},
             {"pt", XKD_FILE_TORCH},
             {"pth.tar", XKD_FILE_TORCH},
             {"npz", XKD_FILE_NPZ},
             {"npy", XKD_FILE_NPY},
             {"hf", TO_FOLDER}};
/* Both endings and --to go through one table, so a form has the same names in both places. */
enum { FORMS = sizeof forms / sizeof *forms };

/* The dot is part of the match: "xpth" is no ending. */
static xkd_status choose_form(xkd_context *cx, const struct values *v, const char *out, int *kind)
{
    size_t length = strlen(out);
    for (int i = 0; i < FORMS; i++) {
        size_t ending = strlen(forms[i].name);
        /* Something must stand in front of the dot. An ending in capitals counts; the word behind --to is taken as it
         * stands. */
        bool by_name = !v->to && length > ending + 1 && out[length - ending - 1] == '.' &&
                       strcasecmp(out + length - ending, forms[i].name) == 0;
        if (by_name || (v->to && strcmp(v->to, forms[i].name) == 0)) {
            *kind = forms[i].kind;
            return XKD_OK;
        }
    }
    return xkd_fail(cx, XKD_ERR_CONFIG, "%s: which form? Use an ending of safetensors, pth, npz or npy, or --to",
                    v->to ? v->to : out);
}

/* Notes of a safetensors file travel on; its checksum is made anew. *out points into the file and is allocated for all
 * notes; *count says how many are in it. */
static xkd_status notes_of(xkd_context *cx, const xkd_tensor_file *file, xkd_metadata_item **out, int64_t *count)
{
    xkd_status status = XKD_OK;
    XKD_TRY(xkd_alloc(cx, out, file->note_count, sizeof **out));
    for (int64_t i = 0; i < file->note_count; i++) /* A checksum of other bytes would make the new file look damaged. */
        if (strcmp(file->notes[i].name, "xkd.xxh3_128") != 0)
            (*out)[(*count)++] = (xkd_metadata_item){file->notes[i].name, file->notes[i].value};
fail:
    return status;
}

/* A classifier file names its classes; other files have none. */
static xkd_status labels_of(xkd_context *cx, const xkd_tensor_file *file, xkd_class_names *out)
{
    for (int64_t i = 0; i < file->note_count; i++)
        if (strcmp(file->notes[i].name, "xkd.classes") == 0)
            return xkd_class_names_read(cx, file->path, file->notes[i].value, out);
    return XKD_OK;
}

/* Tensors are not copied: items point into the open input file. */
static xkd_status write_out(xkd_context *cx, const char *out, int kind, const xkd_tensor_file *file,
                            const xkd_content *content, bool all)
{
    xkd_status status = XKD_OK;
    xkd_tensor_item *items = NULL;
    xkd_metadata_item *notes = NULL;
    xkd_class_names labels = {0};
    /* --all bypasses the recognised content: names and order are the file's own. */
    int64_t note_count = 0, count = all ? file->count : content->count;
    const xkd_stored_tensor *tensors = all ? file->tensors : content->tensors;
    XKD_TRY(notes_of(cx, file, &notes, &note_count));
    if (kind == TO_FOLDER) {
        /* The names come from the classifier's metadata; config.json needs them as id2label. */
        XKD_TRY(labels_of(cx, file, &labels));
        XKD_TRY(
            xkd_hf_folder_write(cx, out, content, notes, note_count, (const char *const *)labels.items, labels.count));
    } else {
        XKD_TRY(xkd_alloc(cx, &items, count, sizeof *items));
        for (int64_t i = 0; i < count; i++)
            items[i] = (xkd_tensor_item){tensors[i].name, tensors[i].dtype, tensors[i].shape, tensors[i].data};
        XKD_TRY(xkd_tensor_file_write(cx, out, (xkd_file_kind)kind, items, count, notes, note_count));
    }
fail:
    xkd_class_names_free(&labels);
    xkd_free(items);
    xkd_free(notes);
    return status;
}

/* The input is opened and checked before OUT is touched; OUT is published in one step. */
static xkd_status convert(struct cli *cli, const struct values *v, const char *in, const char *out)
{
    xkd_context *cx = cli->cx;
    xkd_status status = XKD_OK;
    xkd_tensor_file file = {0};
    xkd_content content = {0};
    char *described = NULL;
    int kind = 0;
    /* Before the input is opened, since a wrong ending is the more common mistake. */
    XKD_TRY(choose_form(cx, v, out, &kind));
    if (v->all && v->part)
        XKD_FAIL(XKD_ERR_CONFIG, "convert: --all is the whole file and --part one network of it: give one of the two");
    if (v->all && kind == TO_FOLDER)
        XKD_FAIL(XKD_ERR_CONFIG, "convert: a Hugging Face folder holds the model alone: leave out --all");
    /* A dangling link counts as existing too. */
    if (!v->force && xkd_path_exists(out)) XKD_FAIL(XKD_ERR_STORAGE, "%s: exists already: --force replaces it", out);
    XKD_TRY(tensor_args_open(cx, v->header_limit, in, &file));
    XKD_TRY(xkd_content_identify(cx, &file, &content));
    XKD_TRY(xkd_content_describe(cx, &content, &described));
    xkd_log(cx, XKD_LOG_INFO, "%s: %s", in, described);
    /* Said unasked, because a training cannot be resumed from the result. */
    if ((content.checkpoint || content.own_checkpoint) && !v->all)
        xkd_log(cx, XKD_LOG_INFO,
                "optimiser state and counters of the checkpoint are left out, %lld tensors (--all keeps them)",
                (long long)content.rest_count);
    /* After the identification, which brings names into the release's form. */
    if (v->part) XKD_TRY(xkd_content_select(cx, &content, v->part, in));
    XKD_TRY(write_out(cx, out, kind, &file, &content, v->all));
    if (!cli->json) printf("%s: %lld tensors\n", out, (long long)(v->all ? file.count : content.count));
fail:
    xkd_free(described);
    xkd_content_free(&content);
    xkd_tensor_file_close(&file);
    return status;
}

/* Two words, neither of them guessed. */
static int run(struct cli *cli, int argc, char **argv)
{
    struct values v = {0};
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_convert, argc, argv, &v, &rest);
    if (status != XKD_OK) return status;
    if (rest != 2)
        return xkd_fail(cli->cx, XKD_ERR_CONFIG, "convert needs a file and where to write (see 'xkd convert --help')");
    return convert(cli, &v, argv[1], argv[2]);
}

const struct cli_command cmd_convert = {
    .name = "convert",
    .summary = "write a tensor file in another form: safetensors, PyTorch, npz, npy, Hugging Face folder",
    .usage = "IN OUT [--to FORM] [--part NAME]",
    .description =
        "The content of IN tells its form, and the ending of OUT, or --to, tells that of OUT. From a training\n"
        "checkpoint the command takes the model, without the 'module.' of DDP. Names come out in the release's form.",
    .example = "xkd convert XKD_checkpoint.pth.tar vid_teacher.safetensors --part vid_teacher.backbone",
    .options = options,
    .run = run,
};
