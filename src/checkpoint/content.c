/* What a tensor file holds, found out from its names alone: a whole model, one backbone, or something
 * else; under which of the three spellings; and of what size. A state dict has no version or type, so
 * names are all there is to go by. */
#include "checkpoint/content.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"

static bool begins(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* Names of whole networks. One is enough: a file with any of them is a model, and what is missing is found when it is
 * loaded. */
static bool is_model_name(const char *name)
{
    static const char *const prefixes[] = {"vid_student.", "vid_teacher.", "aud_student.",   "aud_teacher.",
                                           "vid_ae.",      "aud_ae.",      "vt2as_ce_loss.", "at2vs_ce_loss."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (begins(name, prefixes[i])) return true;
    return false;
}

/* The evaluation code's names and the release's. {embed} depends on the modality.
 * Only names that begin like this are changed, each by the one row that fits. */
static const struct {
    const char *from, *to;
} renames[] = {{"blocks.", "encoder.blocks."}, {"norm.", "encoder_norm."}, {"pos_embed", "enc_pos_embed"}};
enum { RENAMES = sizeof renames / sizeof *renames };

/* A linear search over names: files have a few thousand at most, and this runs a handful of times. */
static bool has(const xkd_tensor_file *file, const char *prefix)
{
    for (int64_t i = 0; i < file->count; i++)
        if (begins(file->tensors[i].name, prefix)) return true;
    return false;
}

/* Where the model's own names begin. Valid for names that begin with the prefix only. */
static const char *own_name(const xkd_content *c, const char *name)
{
    return name + strlen(c->prefix);
}

/* What training programs save beside the model, the release's and others. */
static bool is_beside_model(const char *name)
{
    static const char *const keys[] = {"optimizer", "optimizers", "amp",  "scaler", "scheduler", "lr_scheduler",
                                       "epoch",     "step",       "args", "config", "rng_state"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        size_t length = strlen(keys[i]);
        if (strncmp(name, keys[i], length) == 0 && (name[length] == '.' || name[length] == 0)) return true;
    }
    return false;
}

/* Whether there is something beside "model.", and all of it belongs to a training checkpoint. Many models of other projects
 * have "model." as a prefix of their own. Notes of a PyTorch file are values of its tree. */
static bool known_beside_model(const xkd_tensor_file *file)
{
    bool torch = file->kind == XKD_FILE_TORCH || file->kind == XKD_FILE_TORCH_LEGACY, any = false;
    for (int64_t i = 0; i < file->count; i++) {
        const char *name = file->tensors[i].name;
        if (begins(name, "model.")) continue;
        if (!is_beside_model(name)) return false;
        any = true;
    }
    for (int64_t i = 0; torch && i < file->note_count; i++) any |= is_beside_model(file->notes[i].name);
    return any;
}

/* False where no tensor is in scope at all. */
static bool all_begin(const xkd_tensor_file *file, const char *scope, const char *prefix)
{
    bool any = false;
    for (int64_t i = 0; i < file->count; i++) {
        const char *name = file->tensors[i].name;
        if (!begins(name, scope)) continue;
        if (!begins(name + strlen(scope), prefix)) return false;
        any = true;
    }
    return any;
}

/* A video patch has 3 channels; a spectrogram's has one and a power of two elements in every released model.
 * A 4x16x16 video patch has 3072 values, an audio patch of 4x16 has 64. */
static xkd_modality modality_of(const xkd_stored_tensor *embed)
{
    return embed && embed->shape.ndim >= 2 && embed->shape.dims[1] % 3 == 0 ? XKD_VIDEO : XKD_AUDIO;
}

/* The result is the release's name, which is the one that this program uses; the caller frees it. Only a backbone
 * under short names is renamed; within a whole model the names are the release's. */
static xkd_status rename_tensor(xkd_context *cx, const xkd_content *c, const char *name, char **out)
{
    if (c->kind == XKD_CONTENT_BACKBONE && c->short_names) {
        for (int i = 0; i < RENAMES; i++)
            if (begins(name, renames[i].from))
                return xkd_format_string(cx, out, "%s%s", renames[i].to, name + strlen(renames[i].from));
        if (c->modality == XKD_VIDEO && begins(name, "patch_embed."))
            return xkd_format_string(cx, out, "cuboid_embed.%s", name + strlen("patch_embed."));
    }
    return xkd_copy_string(cx, out, name);
}

/* NULL if there is none. Names are unique by check_unique. */
const xkd_stored_tensor *xkd_content_find(const xkd_content *content, const char *name)
{
    for (int64_t i = 0; i < content->count; i++)
        if (strcmp(content->tensors[i].name, name) == 0) return &content->tensors[i];
    return NULL;
}

/* Wrappers around parts of a network stand within names: torch.compile of a block, FSDP, activation checkpointing. None of
 * them is a name of this model. */
static const char *const inner[] = {"._orig_mod.", "._fsdp_wrapped_module.", "._checkpoint_wrapped_module."};
enum { INNER = sizeof inner / sizeof *inner };

static void cut_wrappers(xkd_content *c, char *name)
{
    for (int i = 0; c->kind != XKD_CONTENT_OTHER && i < INNER; i++)
        for (char *at; (at = strstr(name, inner[i])) != NULL;) {
            const char *behind = at + strlen(inner[i]) - 1;
            memmove(at, behind, strlen(behind) + 1);
            c->inner = inner[i];
            i = 0; /* one may have stood within another */
        }
}

/* Whether a name begins with `wanted` once wrappers are cut out of it; *rest is what stands behind. */
static bool matches(const char *name, const char *wanted, const char **rest)
{
    for (const char *at = name; *wanted; at++, wanted++) {
        for (int i = 0; i < INNER; i++)
            if (begins(at, inner[i])) {
                at += strlen(inner[i]) - 1;
                i = -1;
            }
        if (*at != *wanted) return false;
        *rest = at + 1;
    }
    return true;
}

static bool is_embedding(const char *name)
{
    const char *rest = "";
    return (matches(name, "cuboid_embed.proj.weight", &rest) || matches(name, "patch_embed.proj.weight", &rest)) &&
           !*rest;
}

/* What the names behind a prefix say. */
typedef struct {
    xkd_content_kind kind;
    const xkd_stored_tensor *embed;
    bool short_names;
} judgement;

static judgement judge(const xkd_tensor_file *file, const char *prefix)
{
    judgement j = {.kind = XKD_CONTENT_OTHER};
    bool blocks = false, model = false;
    size_t length = strlen(prefix);
    for (int64_t i = 0; i < file->count; i++) {
        if (!begins(file->tensors[i].name, prefix)) continue;
        const char *name = file->tensors[i].name + length;
        const char *rest = "";
        model |= is_model_name(name);
        if (begins(name, "blocks.")) j.short_names = blocks = true;
        blocks |= matches(name, "encoder.blocks.", &rest);
        if (is_embedding(name)) j.embed = &file->tensors[i];
    }
    if (model) j.kind = XKD_CONTENT_MODEL;
    /* Blocks without an embedding could be a decoder's or a head's neighbour: too little to call it a
     * backbone. */
    if (!model && blocks && j.embed) j.kind = XKD_CONTENT_BACKBONE;
    return j;
}

/* What training programs put in front of all names: the place in a checkpoint (Lightning's state_dict among them), DDP,
 * torch.compile, FSDP, the member that holds the encoder, and averages of weights, which come last: beside the weights
 * themselves they are not taken. */
static const char *const wrappers[] = {"module.",
                                       "_orig_mod.",
                                       "model.",
                                       "state_dict.",
                                       "model_state_dict.",
                                       "encoder.",
                                       "backbone.",
                                       "net.",
                                       "_forward_module.",
                                       "_fsdp_wrapped_module.",
                                       "_checkpoint_wrapped_module.",
                                       "network.",
                                       "weights.",
                                       "params.",
                                       "model_state.",
                                       "ema.",
                                       "model_ema.",
                                       "ema_model.",
                                       "state_dict_ema."};
enum { WRAPPERS = sizeof wrappers / sizeof *wrappers, MOST_WRAPPERS = 4 };

/* The shortest chain of wrappers behind which the names are known ones, in c->prefix. Chains that no name begins with are
 * not gone on with, so that there are few. */
static bool find_wrapped(const xkd_tensor_file *file, xkd_content *c, judgement *found)
{
    char chains[512][sizeof c->prefix] = {""};
    int first = 0, count = 1;
    for (int depth = 0; depth < MOST_WRAPPERS; depth++) {
        int end = count;
        for (; first < end; first++)
            for (int w = 0; w < WRAPPERS; w++) {
                char *next = chains[count];
                int length = snprintf(next, sizeof c->prefix, "%s%s", chains[first], wrappers[w]);
                if (length >= (int)sizeof c->prefix || !has(file, next)) continue;
                *found = judge(file, next);
                if (found->kind != XKD_CONTENT_OTHER) {
                    strcpy(c->prefix, next);
                    return true;
                }
                if (count + 1 < (int)(sizeof chains / sizeof *chains)) count++;
            }
    }
    return false;
}

/* Prefixes of any spelling behind which networks may stand. */
typedef struct {
    char prefix[8][sizeof((xkd_content *)0)->prefix];
    int count;
} places;

static void add_place(places *p, const char *name, size_t length)
{
    if (length >= sizeof p->prefix[0]) return;
    for (int i = 0; i < p->count; i++)
        if (strlen(p->prefix[i]) == length && begins(name, p->prefix[i])) return;
    if (p->count == (int)(sizeof p->prefix / sizeof *p->prefix)) return;
    memcpy(p->prefix[p->count], name, length);
    p->prefix[p->count++][length] = 0;
}

/* A model begins where a name of its networks does, an encoder where that of its patch embedding does. */
static void find_places(const xkd_tensor_file *file, xkd_content_kind kind, places *out)
{
    for (int64_t i = 0; i < file->count; i++) {
        const char *name = file->tensors[i].name;
        for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.'))
            if (kind == XKD_CONTENT_MODEL ? is_model_name(dot + 1) : is_embedding(dot + 1))
                add_place(out, name, (size_t)(dot + 1 - name));
    }
}

/* The one place where a model stands, else the one of an encoder, in c->prefix. Of several, none is better than another:
 * c->several lists them. */
static bool find_elsewhere(const xkd_tensor_file *file, xkd_content *c, judgement *found)
{
    static const xkd_content_kind kinds[] = {XKD_CONTENT_MODEL, XKD_CONTENT_BACKBONE};
    int fit = 0;
    for (int k = 0; k < 2 && !fit; k++) {
        places p = {.count = 0};
        find_places(file, kinds[k], &p);
        for (int i = 0; i < p.count; i++) {
            judgement j = judge(file, p.prefix[i]);
            size_t used = strlen(c->several);
            if (j.kind != kinds[k]) continue;
            snprintf(c->several + used, sizeof c->several - used, "%s'%s'", fit++ ? " and " : "", p.prefix[i]);
            *found = j;
            strcpy(c->prefix, p.prefix[i]);
        }
    }
    if (fit < 2) c->several[0] = 0;
    if (fit > 1) *found = (judgement){.kind = XKD_CONTENT_OTHER};
    return fit == 1;
}

/* Other architectures that people have at hand, by what only they have. NULL: none of them. */
static const char *foreign_text(const xkd_tensor_file *file, const xkd_stored_tensor *embed)
{
    if (embed && embed->shape.ndim == 5)
        return "a ViT with patches by 3-D convolution, as VideoMAE's: another architecture than XKD's, whose weights "
               "do not "
               "fit";
    if (embed && embed->shape.ndim == 4)
        return "a ViT with patches by 2-D convolution, as timm's, MAE's and AST's: another architecture than XKD's, "
               "whose "
               "weights do not fit";
    for (int64_t i = 0; i < file->count; i++)
        if (strstr(file->tensors[i].name, "encoder.layer.0.attention.attention."))
            return "a ViT of Hugging Face's transformers (VideoMAE, ViT, AST): another architecture than XKD's, whose "
                   "weights do not fit";
    return NULL;
}

/* Kind and names from what is there; tensors still have the file's names. */
static void classify(const xkd_tensor_file *file, xkd_content *c)
{
    char scope[8] = "";
    /* Names of a backbone at the top level speak against it. Kept in two flags, since both prefixes may stand before a
     * name: "model.module.vid_student...". */
    c->checkpoint = has(file, "model.") && !has(file, "encoder.") && !has(file, "blocks.");
    if (c->checkpoint) strcpy(scope, "model.");
    c->ddp = all_begin(file, scope, "module.");
    snprintf(c->prefix, sizeof c->prefix, "%s%s", scope, c->ddp ? "module." : "");
    judgement j = judge(file, c->prefix);
    /* Before names of no known model both prefixes may be the model's own; then nothing may be lost or renamed. */
    if (j.kind == XKD_CONTENT_OTHER) {
        bool beside = c->checkpoint && known_beside_model(file);
        char kept[sizeof c->prefix];
        strcpy(kept, c->prefix);
        c->wrapped = find_wrapped(file, c, &j) || find_elsewhere(file, c, &j);
        if (c->wrapped) {
            c->checkpoint = begins(c->prefix, "model") || begins(c->prefix, "state_dict.");
            c->ddp = strstr(c->prefix, "module.") != NULL;
        } else if (beside) {
            strcpy(c->prefix, kept);
        } else {
            c->checkpoint = c->ddp = false;
            c->prefix[0] = 0;
        }
    }
    c->kind = j.kind;
    c->short_names = j.short_names;
    if (j.embed) c->modality = modality_of(j.embed);
    if (c->kind != XKD_CONTENT_MODEL) c->foreign = foreign_text(file, j.embed);
    if (c->foreign) c->kind = XKD_CONTENT_OTHER;
}

/* The number of heads leaves no trace in any shape: qkv is [3D,D] whatever it is. The released sizes
 * are tried. */
static int64_t preset_heads(int64_t width)
{
    static const int64_t presets[][2] = {{192, 3}, {384, 6}, {768, 12}, {1024, 16}};
    for (int i = 0; i < 4; i++)
        if (presets[i][0] == width) return presets[i][1];
    return 0;
}

/* Sizes that cannot be told stay 0. */
xkd_geometry xkd_content_geometry(const xkd_content *c, const char *prefix)
{
    static const char BLOCKS[] = "encoder.blocks.";
    xkd_geometry g = {0};
    for (int64_t i = 0; i < c->count; i++) {
        if (!begins(c->tensors[i].name, prefix)) continue;
        const char *own = c->tensors[i].name + strlen(prefix);
        const xkd_shape *shape = &c->tensors[i].shape;
        /* The class token decides whether the positional table has a row for it. */
        if (strcmp(own, "cls_token") == 0) g.cls_token = true;
        if (begins(own, BLOCKS)) {
            int64_t block = strtol(own + strlen(BLOCKS), NULL, 10);
            /* A hostile number must not make anybody declare billions of blocks; what is missing is found later. */
            if (block >= g.depth && block < c->count) g.depth = block + 1;
        }
        /* [D,P] of the patch embedding; "cuboid_embed" for video, "patch_embed" for audio. */
        if (strstr(own, "_embed.proj.weight") && shape->ndim == 2) {
            g.width = shape->dims[0];
            g.patch = shape->dims[1];
        }
        /* The positions' table, [1,N,D] or [1,N+1,D]. */
        if (strcmp(own, "enc_pos_embed") == 0 && shape->ndim == 3) g.tokens = shape->dims[1];
    }
    if (g.tokens > 0) g.tokens -= g.cls_token;
    /* 0 where the width is none of the presets'; a description then leaves the number out. */
    g.heads = preset_heads(g.width);
    return g;
}

/* T/pt x H/ph x W/pw tokens of pt x ph x pw x C numbers. */
void xkd_geometry_of(const xkd_model_config *c, xkd_modality modality, int64_t *tokens, int64_t *patch)
{
    bool video = modality == XKD_VIDEO;
    *patch = video ? c->vid_patch_t * c->vid_patch_h * c->vid_patch_w * c->channels : c->spec_patch_f * c->spec_patch_t;
    *tokens =
        video ? c->num_frames / c->vid_patch_t * (c->frame_height / c->vid_patch_h) * (c->frame_width / c->vid_patch_w)
              : c->spec_freq / c->spec_patch_f * (c->spec_time / c->spec_patch_t);
}

/* Two spellings of one name in a file would make the result depend on their order. */
static xkd_status check_unique(xkd_context *cx, const xkd_content *c, const char *path)
{
    xkd_status status = XKD_OK;
    const xkd_stored_tensor **order = NULL;
    XKD_TRY(xkd_tensors_by_name(cx, c->tensors, c->count, &order));
    for (int64_t i = 1; i < c->count; i++)
        if (strcmp(order[i - 1]->name, order[i]->name) == 0)
            XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: two tensors mean '%s'", path, order[i]->name);
fail:
    xkd_free(order);
    return status;
}

/* Whose sizes are told: a backbone's own, else those of the first encoder that a model has. */
static const char *network_of(const xkd_content *c)
{
    static const char *const networks[] = {"vid_student.backbone.", "aud_student.backbone.", "vid_teacher.backbone.",
                                           "aud_teacher.backbone."};
    if (c->kind != XKD_CONTENT_MODEL) return "";
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++)
        for (int64_t k = 0; k < c->count; k++)
            if (begins(c->tensors[k].name, networks[i])) return networks[i];
    return networks[0];
}

/* The tensors are copied as descriptions; their data stay the file's, which must outlive the content.
 * On failure the caller frees what is there. */
xkd_status xkd_content_identify(xkd_context *cx, const xkd_tensor_file *file, xkd_content *out)
{
    xkd_status status = XKD_OK;
    *out = (xkd_content){0};
    classify(file, out);
    XKD_TRY(xkd_alloc(cx, &out->tensors, file->count, sizeof *out->tensors));
    XKD_TRY(xkd_alloc(cx, &out->names, file->count, sizeof *out->names));
    XKD_TRY(xkd_alloc(cx, &out->rest, file->count, sizeof *out->rest));
    for (int64_t i = 0; i < file->count; i++) {
        const xkd_stored_tensor *t = &file->tensors[i];
        /* Our own checkpoints keep the optimiser's tensors beside the model's. */
        bool own = out->kind == XKD_CONTENT_MODEL && !out->checkpoint && begins(t->name, "optimizer.");
        out->own_checkpoint |= own;
        if (own || !begins(t->name, out->prefix)) {
            out->rest[out->rest_count++] = *t;
            continue;
        }
        XKD_TRY(rename_tensor(cx, out, own_name(out, t->name), &out->names[out->count]));
        cut_wrappers(out, out->names[out->count]);
        out->tensors[out->count] = *t;
        out->tensors[out->count].name = out->names[out->count];
        out->count++;
    }
    /* Two names may become one only by renaming, so this is checked behind it. */
    XKD_TRY(check_unique(cx, out, file->path));
    out->geometry = xkd_content_geometry(out, network_of(out));
fail:
    return status;
}

/* Tensors' data are the file's. */
void xkd_content_free(xkd_content *content)
{
    for (int64_t i = 0; i < content->count; i++) xkd_free(content->names[i]);
    xkd_free(content->names);
    xkd_free(content->tensors);
    xkd_free(content->rest);
    *content = (xkd_content){0};
}

xkd_status xkd_content_refuse(xkd_context *cx, const xkd_content *c, const char *path)
{
    if (c->foreign) return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: holds %s", path, c->foreign);
    if (c->several[0])
        return xkd_fail(cx, XKD_ERR_CHECKPOINT,
                        "%s: holds several networks, behind %s: 'xkd convert --part' takes one of them", path,
                        c->several);
    return xkd_fail(
        cx, XKD_ERR_CHECKPOINT,
        "%s: holds no encoder: neither a whole XKD model nor a backbone ('xkd inspect' lists what is in it)", path);
}

/* One line for people. The caller frees *out. */
xkd_status xkd_content_describe(xkd_context *cx, const xkd_content *c, char **out)
{
    const xkd_geometry *g = &c->geometry;
    xkd_text text = xkd_text_make(cx);
    if (c->checkpoint || c->own_checkpoint) xkd_text_puts(&text, "training checkpoint of a ");
    if (c->kind == XKD_CONTENT_MODEL)
        xkd_text_puts(&text, "whole XKD model");
    else if (c->kind == XKD_CONTENT_BACKBONE)
        xkd_text_printf(&text, "%s backbone", c->modality == XKD_VIDEO ? "video" : "audio");
    else
        xkd_text_puts(&text, c->foreign ? c->foreign : "state dict of no known kind");
    if (c->ddp) xkd_text_puts(&text, ", saved by DDP");
    if (c->wrapped) xkd_text_printf(&text, ", whose names stand behind '%s'", c->prefix);
    if (c->inner) xkd_text_printf(&text, ", with '%s' within its names", c->inner + 1);
    if (c->short_names) xkd_text_puts(&text, ", under the evaluation code's names");
    if (c->kind != XKD_CONTENT_OTHER && g->width) {
        xkd_text_printf(&text, ", width %lld, %lld blocks", (long long)g->width, (long long)g->depth);
        /* Said to be by preset, since the file cannot confirm it. */
        if (g->heads) xkd_text_printf(&text, ", %lld heads (by preset)", (long long)g->heads);
        xkd_text_printf(&text, ", patches of %lld, %lld tokens%s", (long long)g->patch, (long long)g->tokens,
                        g->cls_token ? " and a class token" : "");
    }
    return xkd_text_take(&text, out);
}

/* First part of a name, up to the dot: for the message.
 * Neighbours with the same first part count once; files list a network's tensors together. */
static void list_parts(const xkd_content *c, xkd_text *text)
{
    const char *last = "";
    for (int64_t i = 0; i < c->count; i++) {
        const char *name = c->tensors[i].name;
        size_t length = strcspn(name, ".");
        if (strncmp(name, last, length + 1) == 0) continue;
        xkd_text_printf(text, "%s%.*s", *last ? ", " : "", (int)length, name);
        last = name;
    }
}

/* Keeps the tensors of one network, without its prefix, in place. The message lists what could have
 * been asked for. */
xkd_status xkd_content_select(xkd_context *cx, xkd_content *content, const char *part, const char *path)
{
    int64_t kept = 0;
    size_t length = strlen(part);
    xkd_text parts = xkd_text_make(cx);
    /* The list of parts was made before anything is dropped, for the message. */
    list_parts(content, &parts);
    for (int64_t i = 0; i < content->count; i++) {
        char *name = content->names[i];
        if (strncmp(name, part, length) != 0 || name[length] != '.') {
            xkd_free(name);
            continue;
        }
        /* The prefix is cut off in place; the pointer, which the list owns, stays the same. */
        memmove(name, name + length + 1, strlen(name + length + 1) + 1);
        content->tensors[kept] = content->tensors[i];
        content->tensors[kept].name = content->names[kept] = name;
        kept++;
    }
    content->count = kept;
    xkd_status status = XKD_OK;
    if (!kept)
        status = xkd_fail(cx, XKD_ERR_CONFIG, "%s: has no part '%s'; it has %s", path, part,
                          parts.data ? parts.data : "nothing");
    xkd_text_free(&parts);
    return status;
}
