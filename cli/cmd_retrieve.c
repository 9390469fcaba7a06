/* xkd retrieve: recall of files, and the clips that are nearest to a file, within a modality or across. For recall the
 * features of a file's clips are averaged, and each file asks for its nearest others: within one modality, or for its own
 * sound or picture in the other. Recall says how often the right file, or one of its class, is among the first. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "eval/judge/neighbours.h"
#include "feature_args.h"

/* recall@1, @5 and @10 are what the literature reports for cross-modal retrieval. */
enum { AT_MOST = 10 };
static const int64_t recall_at[] = {1, 5, AT_MOST};
static const char *const modality_names[] = {"video", "audio"};

struct values {
    const char *query, *against, *split, *like, *from;
    int64_t show, threads;
};

static const struct cli_option options[] = {
    {0, "query", CLI_TEXT, offsetof(struct values, query), "M",
     "modality to ask with: video or audio (default: video, if there is any)"},
    {0, "against", CLI_TEXT, offsetof(struct values, against), "M",
     "modality to look in (default: with --pool head the other one, else the same)"},
    {0, "split", CLI_TEXT, offsetof(struct values, split), "NAME", "files of this split only"},
    {0, "like", CLI_TEXT, offsetof(struct values, like), "PATH",
     "print the clips that are nearest to this file, named as the features name it, by the mean of its clips"},
    {0, "from", CLI_TEXT, offsetof(struct values, from), "F",
     "features that hold the file of --like (default: FEATURES)"},
    {'n', "show", CLI_INT, offsetof(struct values, show), "N", "clips to print for --like (default: 10)"},
    {'t', "threads", CLI_INT, offsetof(struct values, threads), "N", "threads (default: processors)"},
    {0},
};

/* Mean features of the files that have both modalities. Row i of both arrays is of file[i]. */
struct pairs {
    float *a, *b;  /* [n,D] query and gallery */
    int64_t *file; /* [n] */
    int64_t n, D;
};

/* One call. */
struct retrieval {
    struct cli *cli;
    struct values v;
    xkd_embeddings e, from; /* from: of --from, else empty */
    xkd_modality query, against;
    struct pairs pairs;
    xkd_pool *pool;
};

/* ---- what is asked ---- */

static xkd_status modality_of(struct cli *cli, const char *word, xkd_modality *out)
{
    *out = strcmp(word, "audio") == 0 ? XKD_AUDIO : XKD_VIDEO;
    if (strcmp(word, "audio") == 0 || strcmp(word, "video") == 0) return XKD_OK;
    return xkd_fail(cli->cx, XKD_ERR_CONFIG, "'%s' is no modality: video or audio", word);
}

/* Asking one modality in the other is the point of the method, so it is the default where the features allow it: only the
 * heads' outputs were trained to be near one another. Means of two encoders live in unrelated spaces, even where their
 * widths agree, and a recall of them would be chance. */
static xkd_status choose(struct retrieval *r)
{
    xkd_status status = XKD_OK;
    struct cli *cli = r->cli;
    xkd_context *cx = cli->cx;
    const struct values *v = &r->v;
    const xkd_embeddings *e = &r->e;
    bool head = e->kind == XKD_FEATURE_HEAD, both = e->table[XKD_VIDEO].count && e->table[XKD_AUDIO].count;
    r->query = e->table[XKD_VIDEO].count ? XKD_VIDEO : XKD_AUDIO;
    if (v->query) XKD_TRY(modality_of(cli, v->query, &r->query));
    r->against = head && both ? (xkd_modality)!r->query : r->query;
    if (v->against) XKD_TRY(modality_of(cli, v->against, &r->against));
    XKD_TRY(xkd_check_comparable(cx, e, r->query, r->against));
    /* The query of --like may stand in another file. */
    if ((!v->from && !e->table[r->query].count) || !e->table[r->against].count)
        XKD_FAIL(XKD_ERR_DATA, "the features hold no %s: embed with a model that has that encoder",
                 modality_names[e->table[r->against].count ? r->query : r->against]);
fail:
    return status;
}

static bool in_split(const struct retrieval *r, int64_t f)
{
    return !r->v.split || strcmp(r->e.files.samples[f].split, r->v.split) == 0;
}

static xkd_status check_split(const struct retrieval *r)
{
    for (int64_t f = 0; f < r->e.files.count; f++)
        if (in_split(r, f)) return XKD_OK;
    return xkd_fail(r->cli->cx, XKD_ERR_DATA,
                    "no file of split '%s': leave out --split, or take one that the embedded manifest has", r->v.split);
}

/* ---- recall ---- */

/* The files that can be asked and found are the same, so a rank is comparable from set to set. */
static xkd_status make_pairs(struct retrieval *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cli->cx;
    struct pairs *p = &r->pairs;
    const xkd_embeddings *e = &r->e;
    const xkd_feature_table *a = &e->table[r->query], *b = &e->table[r->against];
    int64_t ca = 0, cb = 0;
    /* Features of all tokens have rows * width numbers a clip and can be compared as well. */
    p->D = a->rows * a->width;
    if (p->D != b->rows * b->width)
        XKD_FAIL(XKD_ERR_DATA, "features of %lld and %lld numbers cannot be compared", (long long)p->D,
                 (long long)(b->rows * b->width));
    XKD_TRY(xkd_alloc(cx, &p->a, e->files.count * p->D, sizeof *p->a));
    XKD_TRY(xkd_alloc(cx, &p->b, e->files.count * p->D, sizeof *p->b));
    XKD_TRY(xkd_alloc(cx, &p->file, e->files.count, sizeof *p->file));
    /* Both cursors must pass every file, wanted or not, so xkd_file_mean is called before the tests. */
    for (int64_t f = 0; f < e->files.count; f++) {
        bool has_a = xkd_file_mean(a, f, &ca, p->a + p->n * p->D), has_b = xkd_file_mean(b, f, &cb, p->b + p->n * p->D);
        if (in_split(r, f) && has_a && has_b) p->file[p->n++] = f;
    }
    if (p->n < 2) XKD_FAIL(XKD_ERR_DATA, "fewer than two files have what is asked for: embed more files");
fail:
    return status;
}

/* Neighbours of row i but itself, in one modality; `near` [k]. Returns how many. In one modality a file finds itself
 * first, which says nothing. */
static int64_t others(const struct retrieval *r, const int64_t *near, int64_t k, int64_t i, int64_t *out)
{
    int64_t n = 0;
    for (int64_t j = 0; j < k; j++)
        if (r->query != r->against || near[j] != i) out[n++] = near[j];
    return n;
}

/* Whether two samples have a label in common. */
static bool are_kin(const xkd_sample *a, const xkd_sample *b)
{
    const int32_t *x, *y;
    int32_t one, other;
    int64_t n = xkd_sample_labels(a, &x, &one), m = xkd_sample_labels(b, &y, &other);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++)
            if (x[i] == y[j]) return true;
    return false;
}

struct recall {
    int64_t labelled;           /* queries that have a class */
    double own[3], of_class[3]; /* percent of all queries; of the labelled ones */
};

/* Queries with their own file, or one of their class, among the first 1, 5, 10. own: the same index; of_class: another
 * file that shares a label counts as well. */
static void count_hits(const struct retrieval *r, const int64_t *near, int64_t k, struct recall *out)
{
    const struct pairs *p = &r->pairs;
    const xkd_sample *samples = r->e.files.samples;
    for (int64_t i = 0; i < p->n; i++) {
        /* One more than is judged: the row itself may be among them. */
        int64_t list[AT_MOST + 1], n = others(r, near + i * k, k, i, list);
        const xkd_sample *s = &samples[p->file[i]];
        out->labelled += are_kin(s, s);
        for (int at = 0; at < 3; at++) {
            bool found = false, kin = false;
            for (int64_t j = 0; j < n && j < recall_at[at]; j++) {
                found |= list[j] == i;
                kin |= are_kin(s, &samples[p->file[list[j]]]);
            }
            out->own[at] += found;
            out->of_class[at] += kin;
        }
    }
    for (int at = 0; at < 3; at++) {
        out->own[at] *= 100.0 / (double)p->n;
        out->of_class[at] *= out->labelled ? 100.0 / (double)out->labelled : 0;
    }
}

static void print_json(const struct retrieval *r, const struct recall *recall)
{
    printf("{\"query\": \"%s\", \"against\": \"%s\", \"files\": %" PRId64 ", \"recall\": ", modality_names[r->query],
           modality_names[r->against], r->pairs.n);
    if (r->query == r->against)
        printf("null");
    else
        printf("[%.4f, %.4f, %.4f]", recall->own[0], recall->own[1], recall->own[2]);
    printf(", \"labelled\": %" PRId64 ", \"class_recall\": ", recall->labelled);
    if (recall->labelled)
        printf("[%.4f, %.4f, %.4f]", recall->of_class[0], recall->of_class[1], recall->of_class[2]);
    else
        printf("null");
    puts(", \"at\": [1, 5, 10]}");
}

/* A figure that was not measured is a dash: 0 would look like a result. */
static void print_recall(const struct retrieval *r, const struct recall *recall)
{
    double n = (double)r->pairs.n;
    char title[64];
    snprintf(title, sizeof title, "%" PRId64 " files", r->pairs.n);
    printf("%-16s%s in %s:  @1      @5     @10\n", title, modality_names[r->query], modality_names[r->against]);
    /* Chance is said beside it, because recall@10 of 20 files is 50 % for any model. */
    if (r->query != r->against)
        printf("%-28s%7.2f %7.2f %7.2f  (chance %.2f %.2f %.2f)\n", "same file", recall->own[0], recall->own[1],
               recall->own[2], 100 / n, fmin(500 / n, 100), fmin(1000 / n, 100));
    if (recall->labelled)
        printf("%-28s%7.2f %7.2f %7.2f\n", "same class", recall->of_class[0], recall->of_class[1], recall->of_class[2]);
    else
        printf("%-28s%7s %7s %7s  (no file has a label)\n", "same class", "-", "-", "-");
}

/* Everything is held in memory: one mean feature a file. */
static xkd_status measure(struct retrieval *r)
{
    xkd_status status = XKD_OK;
    struct pairs *p = &r->pairs;
    int64_t *near = NULL;
    struct recall recall = {0};
    XKD_TRY(make_pairs(r));
    /* In one modality the row itself is asked for in addition. k may be smaller than 10 in a small set; recall@10 is then
     * that of all of them. */
    int64_t k = AT_MOST + (r->query == r->against);
    if (k > p->n) k = p->n;
    XKD_TRY(xkd_alloc(r->cli->cx, &near, p->n * k, sizeof *near));
    XKD_TRY(xkd_nearest(r->cli->cx, r->pool, p->a, p->n, p->b, p->n, p->D, k, near));
    count_hits(r, near, k, &recall);
    if (r->cli->json)
        print_json(r, &recall);
    else
        print_recall(r, &recall);
fail:
    xkd_free(near);
    return status;
}

/* ---- what is like a file ---- */

/* A stored path that ends the one that was asked for, as below the folder that was embedded; NULL: none. */
static const char *find_ending(const xkd_manifest *files, const char *asked)
{
    size_t length = strlen(asked);
    for (int64_t f = 0; f < files->count; f++) {
        const char *path = files->samples[f].path;
        size_t n = strlen(path);
        if (n < length && asked[length - n - 1] == '/' && strcmp(asked + length - n, path) == 0) return path;
    }
    return NULL;
}

/* Feature of --like, [D] of the gallery's width. *file is its index in the gallery's files, -1 where it is of --from. */
static xkd_status make_query(struct retrieval *r, float **out, int64_t *file)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cli->cx;
    const xkd_embeddings *from = r->v.from ? &r->from : &r->e;
    const xkd_feature_table *t = &from->table[r->query], *gallery = &r->e.table[r->against];
    int64_t cursor = 0, found = -1;
    if (t->count && t->rows * t->width != gallery->rows * gallery->width)
        XKD_FAIL(XKD_ERR_DATA, "features of %lld and %lld numbers cannot be compared", (long long)(t->rows * t->width),
                 (long long)(gallery->rows * gallery->width));
    XKD_TRY(xkd_alloc(cx, out, t->rows * t->width, sizeof **out));
    for (int64_t f = 0; f < from->files.count && found < 0; f++)
        if (strcmp(from->files.samples[f].path, r->v.like) == 0) found = f;
    const char *ending = found < 0 ? find_ending(&from->files, r->v.like) : NULL;
    if (ending)
        XKD_FAIL(XKD_ERR_DATA, "%s: the features name files below the folder that was embedded: --like %s", r->v.like,
                 ending);
    if (found < 0 || !xkd_file_mean(t, found, &cursor, *out))
        XKD_FAIL(XKD_ERR_DATA,
                 "%s: has no %s features in the file: paths are as it holds them ('xkd embed' a new file "
                 "with the same options, and name the result with --from)",
                 r->v.like, modality_names[r->query]);
    *file = r->v.from ? -1 : found;
fail:
    return status;
}

/* Drops the clips of other splits, in place: a gallery may be half of the memory. */
static void keep_split(const struct retrieval *r, xkd_feature_table *t)
{
    int64_t kept = 0, D = t->rows * t->width;
    for (int64_t i = 0; i < t->count; i++) {
        if (!in_split(r, t->file[i])) continue;
        memmove(t->x + kept * D, t->x + i * D, (size_t)D * sizeof *t->x);
        t->file[kept] = t->file[i];
        t->seconds[kept++] = t->seconds[i];
    }
    t->count = kept;
}

static xkd_status print_clips(const struct retrieval *r, const float *query, const int64_t *near, int64_t k)
{
    xkd_status status = XKD_OK;
    const xkd_feature_table *t = &r->e.table[r->against];
    int64_t D = t->rows * t->width;
    xkd_text json = xkd_text_make(r->cli->cx);
    xkd_text_puts(&json, "{\"like\": ");
    xkd_text_json_string(&json, r->v.like);
    xkd_text_printf(&json, ", \"query\": \"%s\", \"against\": \"%s\", \"clips\": [", modality_names[r->query],
                    modality_names[r->against]);
    for (int64_t j = 0; j < k; j++) {
        const char *path = r->e.files.samples[t->file[near[j]]].path;
        double c = xkd_cosine(query, t->x + near[j] * D, D), seconds = t->seconds[near[j]];
        xkd_text_puts(&json, j ? ", {\"path\": " : "{\"path\": ");
        xkd_text_json_string(&json, path);
        xkd_text_puts(&json, ", \"seconds\": ");
        xkd_text_json_number(&json, seconds);
        xkd_text_puts(&json, ", \"cosine\": ");
        xkd_text_json_number(&json, c);
        xkd_text_puts(&json, "}");
        char name[4096];
        if (!r->cli->json) printf("%7.4f %8.2f s  %s\n", c, seconds, cli_name(name, sizeof name, path));
    }
    xkd_text_puts(&json, "]}");
    XKD_TRY(json.status);
    if (r->cli->json) puts(json.data);
fail:
    xkd_text_free(&json);
    return status;
}

static xkd_status show_like(struct retrieval *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cli->cx;
    xkd_feature_table *t = &r->e.table[r->against];
    int64_t *near = NULL, file = -1, found = 0;
    float *query = NULL;
    XKD_TRY(make_query(r, &query, &file));
    keep_split(r, t);
    int64_t k = r->v.show < t->count ? r->v.show : t->count;
    XKD_TRY(xkd_alloc(cx, &near, k, sizeof *near));
    /* In its own modality a file would find itself first. */
    XKD_TRY(xkd_nearest_clips(cx, r->pool, t, query, r->query == r->against ? file : -1, k, near, &found));
    if (found == 0)
        XKD_FAIL(XKD_ERR_DATA, "there is no other %s clip to look in: embed more files", modality_names[r->against]);
    XKD_TRY(print_clips(r, query, near, found));
fail:
    xkd_free(near);
    xkd_free(query);
    return status;
}

/* ---- the command ---- */

static xkd_status read_features(struct retrieval *r, const char *path)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cli->cx;
    XKD_TRY(xkd_embeddings_read(cx, path, &r->e));
    XKD_TRY(xkd_embeddings_check_whole(cx, &r->e, path));
    XKD_TRY(check_split(r));
    XKD_TRY(choose(r));
    const bool used[XKD_MODALITIES] = {r->query == XKD_VIDEO || r->against == XKD_VIDEO,
                                       r->query == XKD_AUDIO || r->against == XKD_AUDIO};
    XKD_TRY(xkd_embeddings_check_finite(cx, &r->e, path, used));
    if (!r->v.from) goto fail;
    XKD_TRY(xkd_embeddings_read(cx, r->v.from, &r->from));
    XKD_TRY(xkd_embeddings_check_finite(cx, &r->from, r->v.from, used));
    /* Across modalities the two files hold what the two heads of one model gave. Labels play no part. */
    XKD_TRY(xkd_embeddings_compare(cx, &r->e, path, &r->from, r->v.from, used));
fail:
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct retrieval r = {.cli = cli, .v = {.show = 10, .threads = xkd_processor_count()}};
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_retrieve, argc, argv, &r.v, &rest));
    if (rest != 1) XKD_FAIL(XKD_ERR_CONFIG, "retrieve: want one file of features ('xkd embed' makes it)");
    if (r.v.show < 1 || r.v.threads < 1) XKD_FAIL(XKD_ERR_CONFIG, "retrieve: --show and --threads must be positive");
    if (r.v.from && !r.v.like) XKD_FAIL(XKD_ERR_CONFIG, "retrieve: --from goes with --like");
    XKD_TRY(read_features(&r, argv[1]));
    XKD_TRY(xkd_pool_new(cx, &r.pool, (int)r.v.threads));
    XKD_TRY(r.v.like ? show_like(&r) : measure(&r));
fail:
    xkd_pool_free(r.pool);
    xkd_free(r.pairs.a);
    xkd_free(r.pairs.b);
    xkd_free(r.pairs.file);
    xkd_embeddings_free(&r.e);
    xkd_embeddings_free(&r.from);
    return status;
}

const struct cli_command cmd_retrieve = {
    .name = "retrieve",
    .summary = "find the nearest clips within a modality or across, and measure recall",
    .usage = "FEATURES [--query M] [--against M] [--like PATH [--from F]]",
    .description =
        "Compares by cosine. Recall is that of files, by the mean feature of their clips; files of one class share a\n"
        "label. Video and sound can be compared only in features of --pool head, the space in which distillation\n"
        "matched them. --like prints cosine, second and file of clips, the nearest first. PATH names a file as the\n"
        "features do: below the folder that was embedded (train/a.mp4 for videos/train/a.mp4), and without any folder\n"
        "if the file was embedded by itself.",
    .example = "xkd retrieve features.safetensors --like train/a.mp4\n"
               "  xkd retrieve heads.safetensors --query audio --against video",
    .options = options,
    .run = run,
};
