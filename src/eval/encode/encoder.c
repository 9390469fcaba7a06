/* An encoder from any file that holds one. Three steps: which file and which tensors in it (select_part), which
 * geometry they belong to (xkd_content_geometry, find_geometry, check_geometry), and their values (load_rows). Then features: a
 * forward pass of planned batches, and what is taken from its tokens. */
#include "eval/encode/encoder.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/file.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/params_file.h"
#include "checkpoint/state.h"
#include "model/networks.h"

static const char HEAD[] = "head.";

static bool begins(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static const char *modality_word(xkd_modality m)
{
    return m == XKD_VIDEO ? "video" : "audio";
}

/* ---- which file ---- */

/* The file of a folder that holds its model: what supervised training leaves, encoder and classifier, or that of a Hugging
 * Face style folder. *out is NULL in other folders. */
static xkd_status find_model(xkd_context *cx, const char *folder, char **out)
{
    xkd_status status = XKD_OK;
    XKD_TRY(xkd_join_path(cx, out, folder, "classifier.safetensors"));
    if (xkd_path_exists(*out)) return XKD_OK;
    xkd_free(*out);
    *out = NULL;
    XKD_TRY(xkd_find_model_in(cx, folder, false, out));
fail:
    return status;
}

/* A run folder stands for the backbone it exported, or, where the projection head is wanted, for its newest checkpoint, that of supervised training for the one it trained.
 * Owned by the caller. */
static xkd_status find_file(xkd_context *cx, const xkd_encoder_source *s, char **out)
{
    xkd_status status = XKD_OK;
    if (!xkd_is_folder(s->path)) return xkd_copy_string(cx, out, s->path);
    *out = NULL;
    if (s->projector) XKD_TRY(xkd_state_newest(cx, s->path, out));
    if (*out) return XKD_OK;
    XKD_TRY(find_model(cx, s->path, out));
    if (*out) return XKD_OK;
    XKD_TRY(xkd_format_string(cx, out, "%s/backbones/%s_%s.safetensors", s->path, xkd_modality_prefix(s->modality),
                              s->student ? "student" : "teacher"));
    if (!xkd_path_exists(*out))
        XKD_FAIL(XKD_ERR_CONFIG,
                 "%s: has no backbones/%s_%s.safetensors: name the run folder of a finished training, "
                 "or a file",
                 s->path, xkd_modality_prefix(s->modality), s->student ? "student" : "teacher");
fail:
    return status;
}

/* config.yaml of the run that the file belongs to: RUN/config.yaml for RUN/x and for RUN/backbones/x. */
static xkd_status find_config(xkd_context *cx, const char *path, char **out)
{
    static const char *const places[] = {"config.yaml", "../config.yaml"};
    xkd_status status = XKD_OK;
    char *folder = NULL;
    *out = NULL;
    XKD_TRY(xkd_copy_string(cx, &folder, path));
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = 0; /* the folder's name, or "/" itself */
    for (int i = 0; i < 2; i++) {
        XKD_TRY(xkd_join_path(cx, out, slash ? folder : ".", places[i]));
        if (xkd_path_exists(*out)) break;
        xkd_free(*out);
        *out = NULL;
    }
fail:
    xkd_free(folder);
    return status;
}

/* ---- geometry ---- */

static const char *note_of(const xkd_tensor_file *file, const char *name)
{
    for (int64_t i = 0; i < file->note_count; i++)
        if (strcmp(file->notes[i].name, name) == 0) return file->notes[i].value;
    return NULL;
}

/* The configuration that belongs to an open file. What a file says of itself comes before its neighbour in the folder:
 * files are copied, and a stray config.yaml may be another run's. *from stays as it was where there is neither. */
static xkd_status overlay(xkd_context *cx, const xkd_tensor_file *file, xkd_config *config, const char **from)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    const char *text = note_of(file, "xkd.config");
    bool described = false;
    XKD_TRY(find_config(cx, file->path, &path));
    if (!text || !*text) XKD_TRY(xkd_hf_folder_describe(cx, file->path, config, &described));
    if (text && *text) {
        XKD_TRY(xkd_config_parse(cx, config, file->path, text, (int64_t)strlen(text), false));
        *from = "the configuration in the file";
    } else if (described) {
        *from = "config.json beside the file";
    } else if (path) {
        XKD_TRY(xkd_config_load(cx, config, path, false));
        *from = "config.yaml of its run";
    }
fail:
    xkd_free(path);
    return status;
}

xkd_status xkd_encoder_check_path(xkd_context *cx, const char *path)
{
    if (xkd_path_exists(path)) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: no such model: want a run folder, or a file that 'xkd inspect' knows",
                    path);
}

xkd_status xkd_encoder_describe(xkd_context *cx, const char *path, xkd_config *config, bool has[XKD_MODALITIES])
{
    xkd_status status = XKD_OK;
    xkd_tensor_file file = {0};
    xkd_content content = {0};
    const char *from;
    char *name = NULL;
    has[XKD_VIDEO] = has[XKD_AUDIO] = false;
    /* A run folder is judged by its names alone; its files are opened when they are used. */
    if (xkd_is_folder(path)) {
        XKD_TRY(find_model(cx, path, &name));
        if (name) {
            status = xkd_encoder_describe(cx, name, config, has);
            goto fail;
        }
        for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
            XKD_TRY(xkd_format_string(cx, &name, "%s/backbones/%s_teacher.safetensors", path, xkd_modality_prefix(m)));
            has[m] = xkd_path_exists(name);
            xkd_free(name);
            name = NULL;
        }
        XKD_TRY(xkd_join_path(cx, &name, path, "config.yaml"));
        if (xkd_path_exists(name)) XKD_TRY(xkd_config_load(cx, config, name, false));
        if (!has[0] && !has[1])
            XKD_FAIL(XKD_ERR_CONFIG,
                     "%s: neither a run folder with backbones (the training may not have exported any yet) nor a "
                     "folder with "
                     "model.safetensors",
                     path);
        /* Not a failure: the way past the reading of a file. */
        goto fail;
    }
    XKD_TRY(xkd_encoder_check_path(cx, path));
    XKD_TRY(xkd_tensor_file_open(cx, path, &file));
    XKD_TRY(xkd_content_identify(cx, &file, &content));
    XKD_TRY(overlay(cx, &file, config, &from));
    if (content.kind == XKD_CONTENT_OTHER) XKD_TRY(xkd_content_refuse(cx, &content, path));
    if (content.kind == XKD_CONTENT_BACKBONE) has[content.modality] = true;
    /* Teachers, as down-stream tasks use them; a whole model always has the students too. */
    for (int64_t i = 0; content.kind == XKD_CONTENT_MODEL && i < content.count; i++) {
        has[XKD_VIDEO] |= begins(content.tensors[i].name, "vid_teacher.backbone.");
        has[XKD_AUDIO] |= begins(content.tensors[i].name, "aud_teacher.backbone.");
    }
fail:
    xkd_free(name);
    xkd_content_free(&content);
    if (file.path || file.parts) xkd_tensor_file_close(&file);
    return status;
}

/* Fills *out from the first source there is; *from names it for messages. */
static xkd_status find_geometry(xkd_context *cx, const xkd_encoder_source *s, const xkd_tensor_file *file,
                                xkd_model_config *out, const char **from)
{
    xkd_status status = XKD_OK;
    xkd_config config = {0}; /* released: the paper's 3x32x112x112 and 80x448 */
    *from = "what was given";
    if (s->geometry) {
        *out = *s->geometry;
        return XKD_OK;
    }
    XKD_TRY(xkd_config_init(cx, &config));
    *from = "the released models";
    XKD_TRY(overlay(cx, file, &config, from));
    XKD_TRY(xkd_config_finish(cx, &config));
    *out = config.model;
fail:
    xkd_config_free(&config);
    return status;
}

/* Heads leave no trace in any tensor, and a wrong number gives wrong features without an error: so none is guessed. */
static xkd_status choose_heads(xkd_context *cx, const xkd_encoder_source *s, const xkd_model_config *c,
                               const xkd_geometry *have, int64_t *heads)
{
    const xkd_vit_size *size = s->student ? &c->student : &c->teacher;
    *heads = s->heads;
    /* What the user says, then the configuration if it is of this width, then the preset of this width: the surest
     * first. Other presets of the same width (tiny_h6, small_h12) must be asked for. */
    if (!*heads && size->width == have->width) *heads = size->heads;
    if (!*heads) *heads = have->heads;
    if (!*heads)
        return xkd_fail(cx, XKD_ERR_CONFIG, "%s: how many heads has an encoder of width %lld? Give --heads", s->path,
                        (long long)have->width);
    if (*heads < 1 || have->width % *heads)
        return xkd_fail(cx, XKD_ERR_CONFIG, "%s: %lld heads do not divide the width %lld", s->path, (long long)*heads,
                        (long long)have->width);
    return XKD_OK;
}

/* The number of tokens and the patch length are all that a file can confirm of a geometry. A swapped grid of equal size,
 * such as 7x8 for 8x7, cannot be told apart. */
static xkd_status check_geometry(xkd_context *cx, const xkd_encoder_source *s, const xkd_model_config *c,
                                 const xkd_geometry *have, const char *from)
{
    int64_t tokens, patch;
    xkd_geometry_of(c, s->modality, &tokens, &patch);
    if (patch == have->patch && tokens == have->tokens) return XKD_OK;
    return xkd_fail(
        cx, XKD_ERR_CONFIG,
        "%s: %lld tokens of %lld numbers each, but %s have %lld of %lld: set model.kwargs.%s and the patch sizes",
        s->path, (long long)have->tokens, (long long)have->patch, from, (long long)tokens, (long long)patch,
        s->modality == XKD_VIDEO ? "frame_size, num_frames" : "spec_size");
}

/* Backbone and head of one network; the backbone's names lose their prefix, the head's stay "head.*". */
static xkd_status select_network(xkd_context *cx, const xkd_encoder_source *s, const char *path, xkd_content *content)
{
    static const char PREFIX[] = "backbone.";
    char part[64];
    snprintf(part, sizeof part, "%s_%s", xkd_modality_prefix(s->modality), s->student ? "student" : "teacher");
    /* The projection head is asked for with the backbone; the names must become those of a single backbone, which the
     * declared rows have. Names are owned by the content, and become shorter, so they move in place. */
    xkd_status status = xkd_content_select(cx, content, part, path);
    for (int64_t i = 0; status == XKD_OK && i < content->count; i++) {
        char *name = content->names[i];
        if (begins(name, PREFIX)) memmove(name, name + strlen(PREFIX), strlen(name + strlen(PREFIX)) + 1);
    }
    return status;
}

/* Narrows a whole model to the wanted encoder, and refuses files that hold none. */
static xkd_status select_part(xkd_context *cx, const xkd_encoder_source *s, const char *path, xkd_content *content)
{
    xkd_status status = XKD_OK;
    if (content->kind == XKD_CONTENT_OTHER) XKD_TRY(xkd_content_refuse(cx, content, path));
    if (s->projector && content->kind != XKD_CONTENT_MODEL)
        XKD_FAIL(XKD_ERR_CHECKPOINT,
                 "%s: holds an encoder without its projection head: name a whole model, such as a "
                 "run's checkpoints/step-*.safetensors",
                 path);
    if (content->kind == XKD_CONTENT_MODEL && s->projector) {
        XKD_TRY(select_network(cx, s, path, content));
    } else if (content->kind == XKD_CONTENT_MODEL) {
        char part[64];
        snprintf(part, sizeof part, "%s_%s.backbone", xkd_modality_prefix(s->modality),
                 s->student ? "student" : "teacher");
        XKD_TRY(xkd_content_select(cx, content, part, path));
        /* A whole model has both modalities and cannot be of the wrong one. */
    } else if (content->modality != s->modality) {
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: is an encoder of %s, not of %s", path, modality_word(content->modality),
                 modality_word(s->modality));
    }
fail:
    return status;
}

/* The file stays open between this and the allocation: callers add rows in between, and memory is one block. */
xkd_status xkd_encoder_declare(xkd_context *cx, const xkd_encoder_source *source, xkd_param_role role, xkd_encoder *out)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    const char *from; /* text for messages; not owned */
    int64_t heads;
    *out = (xkd_encoder){0};
    XKD_TRY(find_file(cx, source, &path));
    XKD_TRY(xkd_encoder_check_path(cx, path));
    XKD_TRY(xkd_tensor_file_open(cx, path, &out->file));
    XKD_TRY(xkd_content_identify(cx, &out->file, &out->content));
    XKD_TRY(select_part(cx, source, path, &out->content));
    xkd_geometry have = xkd_content_geometry(&out->content, "");
    if (have.width < 1 || have.tokens < 1)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: its patch embedding or positions have no usable shape", path);
    XKD_TRY(find_geometry(cx, source, &out->file, &out->config, &from));
    /* The tensors know better than a configuration whether there is a class token. */
    out->config.cls_token = have.cls_token;
    XKD_TRY(check_geometry(cx, source, &out->config, &have, from));
    XKD_TRY(choose_heads(cx, source, &out->config, &have, &heads));
    xkd_vit_size size = {have.width, have.depth, heads};
    /* Teacher and student alike, so that it does not matter which of the two later code asks for. */
    out->config.teacher = out->config.student = size;
    xkd_declare at = {.cx = cx, .params = &out->params, .prefix = "", .role = role};
    XKD_TRY(xkd_backbone_declare(&at, &out->backbone, &out->config, source->modality, size, NULL));
    out->projector = source->projector;
    out->classifier = source->head;
    at.prefix = HEAD;
    if (source->projector) XKD_TRY(xkd_head_declare(&at, &out->head, have.width, out->config.head));
    for (int64_t i = 0; !source->projector && !source->head && i < out->content.count; i++)
        if (begins(out->content.tensors[i].name, HEAD))
            xkd_log(cx, XKD_LOG_DEBUG, "%s: its classifier is not used here", path);
fail:
    xkd_free(path);
    return status;
}

/* ---- values ---- */

/* Strict both ways: a name that is misread would leave a layer at zero, and features that look plausible. */
static xkd_status load_rows(xkd_context *cx, xkd_encoder *e)
{
    xkd_status status = XKD_OK;
    const char *path = e->file.path;
    xkd_differences d = xkd_differences_make(cx);
    for (int64_t i = 0; i < e->params.count; i++) {
        xkd_param *row = e->params.rows[i];
        const xkd_stored_tensor *t = xkd_content_find(&e->content, row->name);
        /* A classifier's own rows may be missing: it is made new, or its absence is reported by who needs it. */
        if ((!t || !e->classifier) && begins(row->name, HEAD) && !e->projector) continue;
        XKD_TRY(xkd_load_row(cx, &e->params, row, t, path, &d));
    }
    for (int64_t i = 0; i < e->content.count; i++) {
        const char *name = e->content.tensors[i].name;
        if (!xkd_params_find(&e->params, name) && !begins(name, HEAD))
            xkd_differences_add(&d, "does not belong to an encoder", name, NULL, NULL);
    }
    XKD_TRY(xkd_differences_report(cx, &d, path));
fail:
    xkd_differences_free(&d);
    return status;
}

static xkd_status hash_piece(void *state, const void *piece, int64_t bytes)
{
    XXH3_128bits_update(state, piece, (size_t)bytes);
    return XKD_OK;
}

/* Over values, not the file: the same encoder in another form is the same encoder. Names are part of it, so that two
 * layers exchanged give another hash, and so is what no tensor shows but every feature depends on: heads, patch sides and
 * the grid of the positions. */
static xkd_status hash_rows(xkd_context *cx, xkd_encoder *e, const xkd_backend *be)
{
    const xkd_backbone *b = &e->backbone;
    const int64_t geometry[] = {b->blocks.heads, b->C, b->pt, b->ph, b->pw, b->grid.t, b->grid.h, b->grid.w};
    XXH3_state_t *state = XXH3_createState();
    if (!state) return xkd_fail(cx, XKD_ERR_MEMORY, "out of memory while hashing an encoder");
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, geometry, sizeof geometry);
    for (int64_t i = 0; i < e->params.count; i++) {
        const xkd_param *row = e->params.rows[i];
        XXH3_128bits_update(state, row->name, strlen(row->name));
        xkd_memory_read(e->params.memory, row->master, row->count * xkd_dtype_size(e->params.dtype), hash_piece, state);
    }
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    snprintf(e->hash, sizeof e->hash, "%016llx%016llx%s", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64,
             e->params.stored == XKD_BF16 ? "-bfloat16"
             : be->tf32                   ? "-tf32"
                                          : "");
    XXH3_freeState(state);
    return XKD_OK;
}

/* The file is closed also when this fails: nothing may be read from it twice. */
xkd_status xkd_encoder_allocate(xkd_context *cx, xkd_encoder *e, const xkd_backend *be, bool training)
{
    xkd_status status = XKD_OK;
    XKD_TRY(xkd_params_allocate(cx, &e->params, be->memory, be->dtype, training));
    XKD_TRY(load_rows(cx, e));
    XKD_TRY(hash_rows(cx, e, be));
fail:
    xkd_content_free(&e->content);
    xkd_tensor_file_close(&e->file);
    e->file = (xkd_tensor_file){0};
    return status;
}

xkd_status xkd_encoder_load(xkd_context *cx, const xkd_encoder_source *source, const xkd_backend *be, xkd_encoder *out)
{
    xkd_status status = xkd_encoder_declare(cx, source, XKD_ROLE_FROZEN, out);
    return status == XKD_OK ? xkd_encoder_allocate(cx, out, be, false) : status;
}

void xkd_encoder_free(xkd_encoder *e)
{
    xkd_content_free(&e->content);
    if (e->file.path || e->file.parts) xkd_tensor_file_close(&e->file);
    xkd_backbone_free(&e->backbone);
    xkd_params_free(&e->params);
    *e = (xkd_encoder){0};
}

void xkd_encoder_borrow(xkd_encoder *out, const xkd_backbone *backbone, const xkd_head *head, const xkd_backend *be)
{
    *out = (xkd_encoder){.backbone = *backbone,
                         .head = *head,
                         .projector = true,
                         .params = {.memory = be->memory, .dtype = be->exact_dtype, .stored = be->dtype}};
}

/* ---- features ---- */

const char *const xkd_feature_kind_names[] = {"mean", "cls", "none", "head"};

/* "pool" is the release's word, "mean" what it does. */
bool xkd_feature_kind_of(const char *word, xkd_feature_kind *out)
{
    static const struct {
        const char *word;
        xkd_feature_kind kind;
    } words[] = {{"mean", XKD_FEATURE_MEAN},
                 {"pool", XKD_FEATURE_MEAN},
                 {"cls", XKD_FEATURE_CLS},
                 {"none", XKD_FEATURE_NONE},
                 {"head", XKD_FEATURE_HEAD}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(word, words[i].word) == 0) {
            *out = words[i].kind;
            return true;
        }
    return false;
}

/* Planned twice, on a measuring arena and on the real one. Sizes come from the same code that assigns, so they cannot
 * differ; xkd_arena_check proves it. */
static xkd_status plan(xkd_context *cx, xkd_encoder_run *r, xkd_widths element)
{
    xkd_status status = XKD_OK;
    int64_t R = r->run.segs.rows, D = r->backbone.blocks.width;
    r->clips = xkd_arena_room(&r->arena, r->B * r->clip_floats * (int64_t)sizeof *r->clips);
    XKD_TRY(xkd_backbone_plan(cx, &r->arena, &r->backbone, element, false, &r->run));
    xkd_block_scratch_plan(&r->arena, R, D, element, &r->scratch);
    /* The head owns the memory of its input, and the mean is pooled straight into it. */
    if (r->kind == XKD_FEATURE_HEAD) {
        xkd_head_plan(&r->arena, r->head, r->B, element.exact, &r->saved);
        r->pooled = r->saved.x;
    } else {
        r->pooled = xkd_arena_take(&r->arena, r->B * D * element.exact);
    }
fail:
    return status;
}

/* A layer in the middle is an encoder with fewer blocks; the rows are shared. encoder_norm follows whichever block is
 * last: features of a middle layer would otherwise have their own scale. */
xkd_status xkd_encoder_run_new(xkd_context *cx, const xkd_encoder *e, const xkd_view_shape *shape,
                               xkd_feature_kind kind, int64_t layer, xkd_encoder_run *out)
{
    xkd_status status = XKD_OK;
    xkd_widths element = xkd_widths_of(e->params.stored);
    int64_t depth = e->backbone.blocks.depth;
    *out = (xkd_encoder_run){.backbone = e->backbone,
                             .kind = kind,
                             .B = shape->B,
                             .width = e->backbone.blocks.width,
                             .arena = {.of = e->params.memory}};
    if (layer < -1 || layer > depth)
        XKD_FAIL(XKD_ERR_CONFIG, "layer %lld: this encoder has %lld blocks", (long long)layer, (long long)depth);
    if (kind == XKD_FEATURE_CLS && !e->backbone.cls)
        XKD_FAIL(XKD_ERR_CONFIG, "this encoder has no class token: take the mean of the patches");
    if (kind == XKD_FEATURE_HEAD && !e->projector)
        XKD_FAIL(XKD_ERR_CONFIG, "this encoder was loaded without its projection head");
    if (layer >= 0) out->backbone.blocks.depth = layer;
    out->head = &e->head;
    if (kind == XKD_FEATURE_HEAD) out->width = e->head.size.outputs;
    XKD_TRY(xkd_backbone_run_new(cx, &out->backbone, shape, 1, &out->run));
    /* All tokens of a clip, class token included. */
    out->rows = kind == XKD_FEATURE_NONE ? out->run.items[0].tokens : 1;
    out->clip_floats = e->backbone.C * shape->T * shape->H * shape->W;
    XKD_TRY(plan(cx, out, element));
    XKD_TRY(xkd_arena_commit(cx, &out->arena));
    XKD_TRY(plan(cx, out, element));
    XKD_TRY(xkd_arena_check(cx, &out->arena));
fail:
    return status;
}

void xkd_encoder_run_free(xkd_encoder_run *run)
{
    xkd_backbone_run_free(&run->run);
    xkd_arena_free(&run->arena);
    *run = (xkd_encoder_run){0};
}

/* Features leave as float32 whatever the backend computes in. */
static void copy_out(const xkd_backend *be, xkd_dtype dtype, float *out, const void *in, int64_t count)
{
    xkd_tensor_read_floats(be->memory, dtype, out, in, count);
}

xkd_status xkd_encoder_features(xkd_backend *be, xkd_encoder_run *r, const float *clips, float *out)
{
    const int32_t *keep = NULL; /* no mask: all tokens are kept */
    int64_t tokens = r->run.items[0].tokens, D = r->backbone.blocks.width, cls = xkd_cls_rows(&r->backbone);
    const float *lent = xkd_memory_lend(be->memory, r->clips, clips, r->B * r->clip_floats * (int64_t)sizeof *clips);
    xkd_backbone_forward(be, &r->backbone, &r->run, &lent, &keep, &r->scratch);
    if (r->kind == XKD_FEATURE_NONE) {
        copy_out(be, be->dtype, out, r->run.z, r->B * tokens * D);
        return xkd_backend_status(be);
    }
    /* The class token is the first of each clip, and the patches are all others. */
    int64_t first = r->kind == XKD_FEATURE_CLS ? 0 : cls, last = r->kind == XKD_FEATURE_CLS ? 1 : tokens;
    be->ops->pool_forward(be, r->pooled, r->run.z, r->B, tokens, D, first, last);
    if (r->kind == XKD_FEATURE_HEAD) xkd_head_forward(be, r->head, &r->saved);
    copy_out(be, be->exact_dtype, out, r->kind == XKD_FEATURE_HEAD ? r->saved.logits : r->pooled, r->B * r->width);
    return xkd_backend_status(be);
}

/* Valid until the next forward pass. */
void xkd_encoder_pooled(const xkd_backend *be, const xkd_encoder_run *r, int64_t count, float *out)
{
    copy_out(be, be->exact_dtype, out, r->pooled, count * r->backbone.blocks.width);
}
