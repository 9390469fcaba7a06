/* The state of a training run as one safetensors file: values, moments, step counts, and the place in the
 * data as text in the metadata. A checkpoint is published in one step and carries a sum by which loading finds damage;
 * older ones are removed only once it is in place, so at every moment of a run there is a whole one. */
#include "checkpoint/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/levels.h"
#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"
#include "checkpoint/differences.h"
#include "checkpoint/safetensors.h"

/* Tensors beside the model's. No public name begins like this. */
static const char MOMENT1[] = "optimizer.moment1.", MOMENT2[] = "optimizer.moment2.", STEPS[] = "optimizer.steps";
static const char OPTIMIZER[] = "optimizer.";
static const char FORMAT_KEY[] = "xkd.format", FORMAT[] = "1";

/* The numbers of a state by the key of their metadata entry. */
enum { STEP, EPOCH, EPOCH_STEP, BAD_STEPS, EPOCH_SKIPPED, SEED, DATA_HASH, WHOLE };
static const char *const whole_keys[WHOLE] = {"xkd.step",          "xkd.epoch", "xkd.epoch_step", "xkd.bad_steps",
                                              "xkd.epoch_skipped", "xkd.seed",  "xkd.data_hash"};
/* As %.17g, which gives back the same double. */
enum { SECONDS, EPOCH_LOSS, EPOCH_SECONDS, EPOCH_WAIT, REAL };
static const char *const real_keys[REAL] = {"xkd.seconds", "xkd.epoch_loss", "xkd.epoch_seconds", "xkd.epoch_wait"};
static const char CONFIG_KEY[] = "xkd.config";
static const char LEVEL_KEY[] = "xkd.processor_level";

/* The configuration's text is the state's own. */
void xkd_run_state_free(xkd_run_state *state)
{
    xkd_free(state->config);
    *state = (xkd_run_state){0};
}

/* A list of tensors with names that it owns. */
typedef struct {
    xkd_tensor_item *items;
    char (*names)[XKD_PARAM_NAME + 32];
    int64_t count;
    xkd_memory *memory; /* of the tensors that are added */
} tensor_list;

/* One block of names of fixed size: no allocation a tensor. */
static xkd_status list_new(xkd_context *cx, tensor_list *list, int64_t capacity)
{
    xkd_status status = xkd_alloc(cx, &list->items, capacity, sizeof *list->items);
    if (status == XKD_OK) status = xkd_alloc(cx, &list->names, capacity, sizeof *list->names);
    return status;
}

/* Data belong to the parameters. */
static void list_free(tensor_list *list)
{
    xkd_free(list->items);
    xkd_free(list->names);
}

/* Adds "prefix" + "name"; the list was made large enough for everything. Names of rows are unique, and the prefixes
 * are no network's, so no two tensors share a name. */
static void list_add(tensor_list *list, const char *prefix, const char *name, xkd_dtype dtype, const xkd_shape *shape,
                     const void *data)
{
    char *full = list->names[list->count];
    snprintf(full, sizeof list->names[0], "%s%s", prefix, name);
    list->items[list->count++] = (xkd_tensor_item){full, dtype, *shape, data, list->memory};
}

/* Values, moments and step counts of all rows, and shared blocks under their second names. `steps` [rows] is filled and
 * must live as long as the list. */
static xkd_status list_of_run(xkd_context *cx, tensor_list *list, const xkd_params *params, int64_t *steps)
{
    xkd_status status = XKD_OK;
    /* Value and two moments a row, aliases, and the step counts. */
    XKD_TRY(list_new(cx, list, 3 * params->count + params->alias_count + 1));
    list->memory = params->memory;
    for (int64_t i = 0; i < params->count; i++) {
        const xkd_param *row = params->rows[i];
        steps[i] = row->steps;
        list_add(list, "", row->name, params->dtype, &row->shape, row->master);
        /* Rows that are not trained have no moments. */
        if (row->moment1) list_add(list, MOMENT1, row->name, params->dtype, &row->shape, row->moment1);
        if (row->moment2) list_add(list, MOMENT2, row->name, params->dtype, &row->shape, row->moment2);
    }
    for (int64_t i = 0; i < params->alias_count; i++) {
        const xkd_param_alias *alias = &params->aliases[i];
        if (alias->shared) list_add(list, "", alias->name, params->dtype, &alias->row->shape, alias->row->master);
    }
    const xkd_shape one = {1, {params->count}};
    list->memory = NULL; /* the step counts are the host's */
    list_add(list, "", STEPS, XKD_I64, &one, steps);
fail:
    return status;
}

/* "step-00000012.safetensors", and not its temporary forerunner. */
static bool is_checkpoint(const char *name)
{
    size_t length = strlen(name);
    return strncmp(name, "step-", 5) == 0 && length > 17 && strcmp(name + length - 12, ".safetensors") == 0;
}

/* Names of the checkpoints, oldest first: the step has a fixed width, so sorted names are sorted steps. Loading never
 * picks by date: copies and backups have other ones. */
static xkd_status list_checkpoints(xkd_context *cx, const char *folder, xkd_names *names)
{
    *names = (xkd_names){0};
    if (!xkd_is_folder(folder)) return XKD_OK;
    xkd_status status = xkd_list_folder(cx, folder, names);
    int64_t kept = 0;
    /* Other files in the folder are passed over: they are not ours to count or remove. */
    for (int64_t i = 0; i < names->count; i++) {
        if (is_checkpoint(names->items[i]))
            names->items[kept++] = names->items[i];
        else
            xkd_free(names->items[i]);
    }
    names->count = kept;
    return status;
}

/* A folder that does not exist holds none. */
xkd_status xkd_state_count(xkd_context *cx, const char *folder, int64_t *count)
{
    xkd_names names;
    xkd_status status = list_checkpoints(cx, folder, &names);
    *count = names.count;
    xkd_free_names(&names);
    return status;
}

xkd_status xkd_state_newest(xkd_context *cx, const char *run, char **out)
{
    xkd_status status = XKD_OK;
    xkd_names names = {0};
    char *folder = NULL;
    *out = NULL;
    XKD_TRY(xkd_join_path(cx, &folder, run, "checkpoints"));
    XKD_TRY(list_checkpoints(cx, folder, &names));
    if (names.count) XKD_TRY(xkd_join_path(cx, out, folder, names.items[names.count - 1]));
fail:
    xkd_free(folder);
    xkd_free_names(&names);
    return status;
}

/* Removes the oldest checkpoints only after the newest one is safely in place. */
static xkd_status prune(xkd_context *cx, const char *folder, int64_t keep_last)
{
    xkd_status status = XKD_OK;
    xkd_names names;
    XKD_TRY(list_checkpoints(cx, folder, &names));
    /* Names ascend by step, so the oldest come first. */
    for (int64_t i = 0; i + keep_last < names.count; i++) {
        XKD_TRY(xkd_remove_in(cx, folder, names.items[i]));
    }
fail:
    xkd_free_names(&names);
    return status;
}

/* A checkpoint that the run has gone back behind (its file was damaged, so an older one was loaded) would be newer than
 * the one being written and be taken for the newest at the next start. It is renamed and not removed: it may be days of
 * training, and a tool that mends it may be found. */
static xkd_status set_later_aside(xkd_context *cx, const char *folder, int64_t step)
{
    xkd_status status = XKD_OK;
    xkd_names names;
    XKD_TRY(list_checkpoints(cx, folder, &names));
    for (int64_t i = 0; i < names.count; i++) {
        /* 5: behind "step-". */
        if (strtoll(names.items[i] + 5, NULL, 10) <= step) continue;
        XKD_TRY(xkd_set_aside(cx, folder, names.items[i]));
    }
fail:
    xkd_free_names(&names);
    return status;
}

/* Numbers travel as decimal text in the metadata: exact for 64-bit integers, and readable with any tool. Two's
 * complement survives the way through uint64_t; none of them is negative. */
static xkd_status write_state(xkd_context *cx, const char *path, const tensor_list *list, const xkd_run_state *s)
{
    const uint64_t whole[WHOLE] = {(uint64_t)s->step,
                                   (uint64_t)s->epoch,
                                   (uint64_t)s->epoch_step,
                                   (uint64_t)s->bad_steps,
                                   (uint64_t)s->epoch_skipped,
                                   s->seed,
                                   s->data_hash};
    const double real[REAL] = {s->seconds, s->epoch_loss, s->epoch_seconds, s->epoch_wait};
    char numbers[WHOLE + REAL][32];
    xkd_metadata_item metadata[WHOLE + REAL + 3];
    int64_t n = 0;
    metadata[n++] = (xkd_metadata_item){FORMAT_KEY, FORMAT};
    metadata[n++] = (xkd_metadata_item){CONFIG_KEY, s->config ? s->config : ""};
    metadata[n++] = (xkd_metadata_item){LEVEL_KEY, xkd_cpu_level_name()};
    for (int i = 0; i < WHOLE; i++) {
        snprintf(numbers[i], sizeof numbers[i], "%" PRIu64, whole[i]);
        metadata[n++] = (xkd_metadata_item){whole_keys[i], numbers[i]};
    }
    for (int i = 0; i < REAL; i++) {
        snprintf(numbers[WHOLE + i], sizeof numbers[0], "%.17g", real[i]);
        metadata[n++] = (xkd_metadata_item){real_keys[i], numbers[WHOLE + i]};
    }
    return xkd_safetensors_write(cx, path, list->items, list->count, metadata, n);
}

/* The order of the last steps is what makes it safe: write, then remove. */
xkd_status xkd_state_save(xkd_context *cx, const char *folder, const xkd_params *params, const xkd_run_state *state,
                          int64_t keep_last)
{
    xkd_status status = XKD_OK;
    tensor_list list = {0};
    int64_t *steps = NULL;
    char *path = NULL;
    /* The folder may have been removed while the run went on. */
    XKD_TRY(xkd_make_folder(cx, folder));
    XKD_TRY(xkd_alloc(cx, &steps, params->count, sizeof *steps));
    XKD_TRY(list_of_run(cx, &list, params, steps));
    /* Eight digits, so that names sort by step. */
    XKD_TRY(xkd_format_string(cx, &path, "%s/step-%08" PRId64 ".safetensors", folder, state->step));
    XKD_TRY(write_state(cx, path, &list, state));
    /* Before pruning, which would otherwise count them as the newest. */
    XKD_TRY(set_later_aside(cx, folder, state->step));
    XKD_TRY(prune(cx, folder, keep_last));
fail:
    xkd_free(path);
    xkd_free(steps);
    list_free(&list);
    return status;
}

/* ---- loading ---- */

/* What is wrong with one row of the model in the file. */
static void compare_row(xkd_differences *d, const xkd_safetensors *file, const xkd_params *params, const xkd_param *row)
{
    const xkd_stored_tensor *t = xkd_safetensors_find(file, row->name);
    if (!t)
        xkd_differences_add(d, "is missing in the file", row->name, NULL, NULL);
    else if (!xkd_shape_equal(&t->shape, &row->shape))
        xkd_differences_add(d, "is", row->name, &t->shape, &row->shape);
    else if (t->dtype != params->dtype)
        xkd_differences_add(d, "has another element type", row->name, NULL, NULL);
}

static xkd_status check_architecture(xkd_context *cx, const char *path, const xkd_safetensors *file,
                                     const xkd_params *params)
{
    xkd_differences d = xkd_differences_make(cx);
    for (int64_t i = 0; i < params->count; i++) compare_row(&d, file, params, params->rows[i]);
    for (int64_t i = 0; i < xkd_safetensors_count(file); i++) {
        /* The optimiser's tensors are looked at by copy_rows. */
        const xkd_stored_tensor *t = xkd_safetensors_at(file, i);
        if (strncmp(t->name, OPTIMIZER, sizeof OPTIMIZER - 1) != 0 && !xkd_params_find(params, t->name))
            xkd_differences_add(&d, "is not in the model", t->name, NULL, NULL);
    }
    return xkd_differences_report(cx, &d, path);
}

/* The tensor prefix + row name, if it fits the row.
 * Moments are as large as the row, in its element type. */
static xkd_status find_like(xkd_context *cx, const char *path, const xkd_safetensors *file, const xkd_param *row,
                            xkd_dtype dtype, const char *prefix, const xkd_stored_tensor **out)
{
    char name[XKD_PARAM_NAME + 32];
    snprintf(name, sizeof name, "%s%s", prefix, row->name);
    *out = xkd_safetensors_find(file, name);
    if (*out && (*out)->dtype == dtype && xkd_shape_equal(&(*out)->shape, &row->shape)) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: tensor '%s' is missing or has another shape", path, name);
}

/* Copies tensors into the rows. Everything was checked before, so either all rows change or none. */
static xkd_status copy_rows(xkd_context *cx, const char *path, const xkd_safetensors *file, xkd_params *params,
                            bool copy)
{
    xkd_status status = XKD_OK;
    const xkd_stored_tensor *t, *steps = xkd_safetensors_find(file, STEPS);
    /* Step counts have one entry a row, in the table's order, which the architecture fixes. */
    if (!steps || steps->dtype != XKD_I64 || steps->bytes != params->count * 8)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: tensor '%s' is missing or has another shape", path, STEPS);
    /* With copy false this only checks, in the same order and by the same rules. */
    for (int64_t i = 0; i < params->count; i++) {
        xkd_param *row = params->rows[i];
        void *const targets[] = {row->master, row->moment1, row->moment2};
        static const char *const prefixes[] = {"", MOMENT1, MOMENT2};
        for (int k = 0; k < 3; k++) {
            if (!targets[k]) continue;
            XKD_TRY(find_like(cx, path, file, row, params->dtype, prefixes[k], &t));
            if (copy) xkd_memory_upload(params->memory, targets[k], t->data, t->bytes);
        }
        if (!copy) continue;
        xkd_param_refresh(params, row);
        row->steps = ((const int64_t *)steps->data)[i];
    }
    if (copy) xkd_params_set_counters(params);
fail:
    return status;
}

/* The place in the data; refuses files that are tensors of something else.
 * strtoull and strtod must use up the whole text; `end` is "x" where nothing was read. */
static xkd_status read_state(xkd_context *cx, const char *path, const xkd_safetensors *file, xkd_run_state *s)
{
    uint64_t whole[WHOLE];
    double real[REAL];
    const char *format = xkd_safetensors_metadata(file, FORMAT_KEY),
               *config = xkd_safetensors_metadata(file, CONFIG_KEY);
    if (!format || strcmp(format, FORMAT) != 0 || !config)
        return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: not the state of a training run", path);
    for (int i = 0; i < WHOLE + REAL; i++) {
        const char *key = i < WHOLE ? whole_keys[i] : real_keys[i - WHOLE];
        const char *text = xkd_safetensors_metadata(file, key);
        if (!text && i == EPOCH_SKIPPED) text = "0"; /* earlier versions did not count them */
        char *end = (char *)"x";
        /* A number without digits leaves `end` at the text's start, which is not 0. */
        if (text && *text && i < WHOLE) whole[i] = strtoull(text, &end, 10);
        if (text && *text && i >= WHOLE) real[i - WHOLE] = strtod(text, &end);
        if (*end) return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: its '%s' is missing or no number", path, key);
    }
    /* Half of the range leaves room for additions. */
    for (int i = 0; i <= EPOCH_SKIPPED; i++)
        if (whole[i] > INT64_MAX / 2)
            return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: '%s' is too large", path, whole_keys[i]);
    *s = (xkd_run_state){.step = (int64_t)whole[STEP],
                         .epoch = (int64_t)whole[EPOCH],
                         .epoch_step = (int64_t)whole[EPOCH_STEP],
                         .bad_steps = (int64_t)whole[BAD_STEPS],
                         .epoch_skipped = (int64_t)whole[EPOCH_SKIPPED],
                         .seed = whole[SEED],
                         .data_hash = whole[DATA_HASH],
                         .seconds = real[SECONDS],
                         .epoch_loss = real[EPOCH_LOSS],
                         .epoch_seconds = real[EPOCH_SECONDS],
                         .epoch_wait = real[EPOCH_WAIT]};
    const char *level = xkd_safetensors_metadata(file, LEVEL_KEY); /* earlier versions did not record it */
    xkd_cpu_level_note(cx, path, level ? level : "", xkd_cpu_level_name());
    return xkd_copy_string(cx, &s->config, config);
}

/* The rows are copied only after everything, the metadata included, has been found good. *damaged: the file could be read
 * and its content is malformed or its sum wrong; any other error is about what it says, or about a disk, a right or a
 * limit that may be mended. Reading stops at the first fault that makes the file useless;
 * differences of a sound one are listed together. */
static xkd_status load(xkd_context *cx, const char *path, xkd_params *params, xkd_run_state *state, bool *damaged)
{
    xkd_status status = XKD_OK;
    xkd_safetensors *file = NULL;
    *damaged = false;
    *state = (xkd_run_state){0};
    XKD_TRY(xkd_read_through(cx, path));
    status = xkd_safetensors_open(cx, path, &file);
    /* Every byte is read for the checksum: a damaged tensor must not become weights. */
    if (status == XKD_OK) status = xkd_safetensors_verify(cx, file, NULL);
    *damaged = status == XKD_ERR_CHECKPOINT;
    XKD_TRY(status);
    XKD_TRY(check_architecture(cx, path, file, params));
    /* A rehearsal without copying. */
    XKD_TRY(copy_rows(cx, path, file, params, false));
    XKD_TRY(read_state(cx, path, file, state));
    XKD_TRY(copy_rows(cx, path, file, params, true));
fail:
    xkd_safetensors_close(file);
    return status;
}

/* Of one given file, without falling back to others. */
xkd_status xkd_state_load(xkd_context *cx, const char *path, xkd_params *params, xkd_run_state *state)
{
    bool damaged;
    return load(cx, path, params, state, &damaged);
}

/* What a killed run was just writing. The folder is locked by its run, so nobody is writing now. */
static xkd_status remove_temporaries(xkd_context *cx, const char *folder)
{
    xkd_status status = XKD_OK;
    xkd_names names = {0};
    XKD_TRY(xkd_list_folder(cx, folder, &names));
    for (int64_t i = 0; i < names.count; i++) {
        /* xkd_writer's names for files that are not yet in place. */
        if (!strstr(names.items[i], ".safetensors.tmp-")) continue;
        XKD_TRY(xkd_remove_in(cx, folder, names.items[i]));
    }
fail:
    xkd_free_names(&names);
    return status;
}

/* Puts the remedy behind the message: going back to an older one is the user's decision. */
static xkd_status unreadable(xkd_context *cx, const char *older)
{
    char message[2048];
    snprintf(message, sizeof message, "%s", xkd_last_error(cx));
    xkd_clear_error(cx);
    return xkd_fail(
        cx, XKD_ERR_STORAGE,
        "%s: the newest checkpoint cannot be read now and may be whole: --resume again when it can be read, or "
        "move it away to go on from %s",
        message, older ? older : "the start");
}

/* The newest whole one. Warnings name the damaged files that were passed over. */
xkd_status xkd_state_load_newest(xkd_context *cx, const char *folder, xkd_params *params, xkd_run_state *state)
{
    xkd_status status = XKD_OK;
    xkd_names names = {0};
    char *path = NULL;
    bool damaged = false;
    *state = (xkd_run_state){0};
    if (!xkd_is_folder(folder)) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: no checkpoint to resume from", folder);
    XKD_TRY(remove_temporaries(cx, folder));
    XKD_TRY(list_checkpoints(cx, folder, &names));
    if (names.count == 0) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: no checkpoint to resume from", folder);
    /* From the newest back. */
    for (int64_t i = names.count - 1; i >= 0; i--) {
        xkd_free(path);
        XKD_TRY(xkd_join_path(cx, &path, folder, names.items[i]));
        status = load(cx, path, params, state, &damaged);
        if (status == XKD_ERR_STORAGE) status = unreadable(cx, i > 0 ? names.items[i - 1] : NULL);
        /* Only proven damage is a reason to look further back; lack of memory or another model is not. */
        if (!damaged || i == 0) break;
        xkd_log(cx, XKD_LOG_WARN, "%s; falling back to %s", xkd_last_error(cx), names.items[i - 1]);
        xkd_clear_error(cx);
    }
fail:
    xkd_free(path);
    xkd_free_names(&names);
    return status;
}

/* ---- export ---- */

/* One backbone, without its prefix. Blocks that two networks share are in both files. */
static xkd_status export_backbone(xkd_context *cx, const char *folder, const xkd_params *params, const char *network)
{
    xkd_status status = XKD_OK;
    tensor_list list = {0};
    char *path = NULL, prefix[64];
    int length = snprintf(prefix, sizeof prefix, "%s.backbone.", network);
    const xkd_metadata_item metadata[] = {{"format", "pt"}, {"xkd.network", network}};
    /* Moments are left out: an exported encoder is for use, not for going on. */
    XKD_TRY(list_new(cx, &list, params->count + params->alias_count));
    list.memory = params->memory;
    for (int64_t i = 0; i < params->count; i++) {
        const xkd_param *row = params->rows[i];
        if (strncmp(row->name, prefix, (size_t)length) == 0)
            list_add(&list, "", row->name + length, params->dtype, &row->shape, row->master);
    }
    for (int64_t i = 0; i < params->alias_count; i++) {
        const xkd_param_alias *alias = &params->aliases[i];
        if (strncmp(alias->name, prefix, (size_t)length) == 0)
            list_add(&list, "", alias->name + length, params->dtype, &alias->row->shape, alias->row->master);
    }
    XKD_TRY(xkd_format_string(cx, &path, "%s/%s.safetensors", folder, network));
    XKD_TRY(xkd_safetensors_write(cx, path, list.items, list.count, metadata, 2));
fail:
    xkd_free(path);
    list_free(&list);
    return status;
}

/* The files that evaluation and other programs take. */
xkd_status xkd_export_backbones(xkd_context *cx, const char *folder, const xkd_params *params, const bool left_out[2])
{
    static const char *const networks[] = {"vid_student", "vid_teacher", "aud_student", "aud_teacher"};
    xkd_status status = xkd_make_folder(cx, folder);
    for (int i = 0; status == XKD_OK && i < 4; i++)
        if (!left_out[i / 2]) status = export_backbone(cx, folder, params, networks[i]);
    return status;
}
