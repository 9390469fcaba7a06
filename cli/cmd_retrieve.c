/* xkd retrieve: nearest files, within a modality or across. The features of a file's clips are averaged, and each file
 * asks for its nearest others: within one modality, or for its own sound or picture in the other. Recall says how
 * often the right file, or one of its class, is among the first. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "feature_args.h"

/* recall@1, @5 and @10 are what the literature reports for cross-modal retrieval. */
enum { AT_MOST = 10 };
static const int64_t recall_at[] = {1, 5, AT_MOST};

struct values {
    const char *query, *against, *split, *like;
    int64_t show, threads;
};

static const struct cli_option options[] = {
    {0, "query", CLI_TEXT, offsetof(struct values, query), "M",
     "modality to ask with: video or audio (default: video)"},
    {0, "against", CLI_TEXT, offsetof(struct values, against), "M", "modality to look in (default: the other one)"},
    {0, "split", CLI_TEXT, offsetof(struct values, split), "NAME", "files of this split only"},
    {0, "like", CLI_TEXT, offsetof(struct values, like), "PATH", "print what is nearest to this file"},
    {'n', "show", CLI_INT, offsetof(struct values, show), "N", "files to print for --like (default: 10)"},
    {'t', "threads", CLI_INT, offsetof(struct values, threads), "N", "threads (default: processors)"},
    {0},
};

/* Mean features of the files that have both modalities. Row i of both arrays is of file[i]. */
struct pairs {
    float *a, *b;  /* [n,D] query and gallery */
    int64_t *file; /* [n] */
    int64_t n, D;
    bool same; /* one modality: a file must not find itself */
};

/* XKD_VIDEO is only a start value: another word is refused. */
static xkd_status modality_of(struct cli *cli, const char *word, xkd_modality *out)
{
    *out = strcmp(word, "audio") == 0 ? XKD_AUDIO : XKD_VIDEO;
    if (strcmp(word, "audio") == 0 || strcmp(word, "video") == 0) return XKD_OK;
    return xkd_fail(cli->cx, XKD_ERR_CONFIG, "'%s' is no modality: video or audio", word);
}

/* Mean of the features of file f, as they are stored; false if there are none. out [D] must be 0 before. Moves the
 * cursor behind the file. */
static bool mean_of(const xkd_feature_table *t, int64_t f, int64_t *cursor, float *out)
{
    int64_t clips = 0, D = t->rows * t->width;
    while (*cursor < t->count && t->file[*cursor] < f) ++*cursor;
    for (; *cursor < t->count && t->file[*cursor] == f; ++*cursor, clips++)
        for (int64_t k = 0; k < D; k++) out[k] += t->x[*cursor * D + k];
    for (int64_t k = 0; clips && k < D; k++) out[k] /= (float)clips;
    return clips > 0;
}

/* The files that can be asked and found are the same, so a rank is comparable from set to set. */
static xkd_status make_pairs(struct cli *cli, const struct values *v, const xkd_embeddings *e, struct pairs *p)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_modality from, to;
    XKD_TRY(modality_of(cli, v->query ? v->query : "video", &from));
    /* Asking one modality in the other is the point of the method, so it is the default. */
    XKD_TRY(modality_of(cli, v->against ? v->against : from == XKD_VIDEO ? "audio" : "video", &to));
    const xkd_feature_table *a = &e->table[from], *b = &e->table[to];
    p->same = from == to;
    /* Features of all tokens have rows * width numbers a clip and can be compared as well. */
    p->D = a->rows * a->width;
    if (!a->count || !b->count) XKD_FAIL(XKD_ERR_DATA, "the features do not hold both modalities that are asked for");
    /* Mean features of two encoders live in unrelated spaces even where widths agree; --pool head embeds into one. */
    if (p->D != b->rows * b->width)
        XKD_FAIL(XKD_ERR_DATA, "features of %lld and %lld numbers cannot be compared", (long long)p->D,
                 (long long)(b->rows * b->width));
    XKD_TRY(xkd_alloc(cx, &p->a, e->files.count * p->D, sizeof *p->a));
    XKD_TRY(xkd_alloc(cx, &p->b, e->files.count * p->D, sizeof *p->b));
    XKD_TRY(xkd_alloc(cx, &p->file, e->files.count, sizeof *p->file));
    int64_t ca = 0, cb = 0;
    /* Both cursors must pass every file, wanted or not, so mean_of is called before the tests. */
    for (int64_t f = 0; f < e->files.count; f++) {
        float *x = p->a + p->n * p->D, *y = p->b + p->n * p->D;
        bool wanted = !v->split || strcmp(e->files.samples[f].split, v->split) == 0;
        memset(x, 0, (size_t)p->D * sizeof *x);
        memset(y, 0, (size_t)p->D * sizeof *y);
        bool has_a = mean_of(a, f, &ca, x), has_b = mean_of(b, f, &cb, y);
        if (wanted && has_a && has_b) p->file[p->n++] = f;
    }
    if (p->n < 2) XKD_FAIL(XKD_ERR_DATA, "fewer than two files have what is asked for");
fail:
    return status;
}

/* Neighbours of row i but itself, in one modality; `near` [k]. Returns how many. In one modality a file finds itself
 * first, which says nothing. */
static int64_t others(const struct pairs *p, const int64_t *near, int64_t k, int64_t i, int64_t *out)
{
    int64_t n = 0;
    for (int64_t j = 0; j < k; j++)
        if (!p->same || near[j] != i) out[n++] = near[j];
    return n;
}

/* -1: no label, and then no kin. */
static int64_t label_of(const xkd_embeddings *e, const struct pairs *p, int64_t i)
{
    return e->files.samples[p->file[i]].label;
}

/* Percent of queries with their own file, or one of their class, among the first 1, 5, 10. own: the same index; class:
 * another file of the same label counts as well. */
static void count_hits(const xkd_embeddings *e, const struct pairs *p, const int64_t *near, int64_t k, double own[3],
                       double class[3])
{
    for (int64_t i = 0; i < p->n; i++) {
        /* One more than is judged: the row itself may be among them. */
        int64_t list[AT_MOST + 1], n = others(p, near + i * k, k, i, list), label = label_of(e, p, i);
        for (int r = 0; r < 3; r++) {
            bool found = false, kin = false;
            for (int64_t j = 0; j < n && j < recall_at[r]; j++) {
                found |= list[j] == i;
                kin |= label >= 0 && label_of(e, p, list[j]) == label;
            }
            own[r] += found ? 100.0 / (double)p->n : 0;
            class[r] += kin ? 100.0 / (double)p->n : 0;
        }
    }
}

/* JSON has all three even in a small set; class recall needs labels and is 0 without. */
static void print_recall(const struct cli *cli, const struct pairs *p, const double own[3], const double class[3])
{
    if (cli->json) {
        printf("{\"files\": %" PRId64 ", \"recall\": ", p->n);
        if (p->same)
            printf("null");
        else
            printf("[%.4f, %.4f, %.4f]", own[0], own[1], own[2]);
        printf(", \"class_recall\": [%.4f, %.4f, %.4f], \"at\": [1, 5, 10]}\n", class[0], class[1], class[2]);
        return;
    }
    printf("%" PRId64 " files          @1      @5     @10\n", p->n);
    /* Chance is said beside it, because recall@10 of 20 files is 50 % for any model. */
    if (!p->same)
        printf("same file     %7.2f %7.2f %7.2f  (chance %.2f %.2f %.2f)\n", own[0], own[1], own[2],
               100.0 / (double)p->n, 500.0 / (double)p->n, 1000.0 / (double)p->n);
    printf("same class    %7.2f %7.2f %7.2f\n", class[0], class[1], class[2]);
}

/* The query's own row is asked for in addition and then left out. */
static xkd_status show_like(struct cli *cli, const struct values *v, const xkd_embeddings *e, const struct pairs *p,
                            xkd_pool *pool)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    int64_t query = -1, *near = NULL, k = v->show + p->same;
    for (int64_t i = 0; i < p->n; i++) /* Both modalities are found by path, which a manifest has once only. */
        if (strcmp(e->files.samples[p->file[i]].path, v->like) == 0) query = i;
    if (query < 0) XKD_FAIL(XKD_ERR_DATA, "%s: is not among the files with both modalities", v->like);
    if (k > p->n) k = p->n;
    XKD_TRY(xkd_alloc(cx, &near, k, sizeof *near));
    XKD_TRY(xkd_nearest(cx, pool, p->a + query * p->D, 1, p->b, p->n, p->D, k, near));
    for (int64_t j = 0; j < k; j++)
        if (!p->same || near[j] != query) printf("%s\n", e->files.samples[p->file[near[j]]].path);
fail:
    xkd_free(near);
    return status;
}

/* Everything is held in memory: one mean feature a file. */
static xkd_status retrieve(struct cli *cli, const struct values *v, const xkd_embeddings *e, struct pairs *p)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_pool *pool = NULL;
    int64_t *near = NULL;
    double own[3] = {0}, class[3] = {0};
    XKD_TRY(make_pairs(cli, v, e, p));
    XKD_TRY(xkd_pool_new(cx, &pool, (int)v->threads));
    if (v->like) {
        /* A lookup prints paths alone, for pipes; no recall is computed. */
        XKD_TRY(show_like(cli, v, e, p, pool));
        goto fail;
    }
    /* k may be smaller than 10 in a small set; recall@10 is then that of all of them. */
    int64_t k = AT_MOST + p->same < p->n ? AT_MOST + p->same : p->n;
    XKD_TRY(xkd_alloc(cx, &near, p->n * k, sizeof *near));
    XKD_TRY(xkd_nearest(cx, pool, p->a, p->n, p->b, p->n, p->D, k, near));
    count_hits(e, p, near, k, own, class);
    print_recall(cli, p, own, class);
fail:
    xkd_free(near);
    xkd_pool_free(pool);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {.show = 10, .threads = xkd_processor_count()};
    xkd_embeddings e = {0};
    struct pairs p = {0};
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_retrieve, argc, argv, &v, &rest));
    if (rest != 1) XKD_FAIL(XKD_ERR_CONFIG, "retrieve: want one file of features ('xkd embed' makes it)");
    if (v.show < 1 || v.threads < 1) XKD_FAIL(XKD_ERR_CONFIG, "retrieve: --show and --threads must be positive");
    XKD_TRY(xkd_embeddings_read(cx, argv[1], &e));
    XKD_TRY(xkd_embeddings_check_whole(cx, &e, argv[1]));
    XKD_TRY(retrieve(cli, &v, &e, &p));
fail:
    xkd_free(p.a);
    xkd_free(p.b);
    xkd_free(p.file);
    xkd_embeddings_free(&e);
    return status;
}

const struct cli_command cmd_retrieve = {
    .name = "retrieve",
    .summary = "find the nearest files within a modality or across, and measure recall",
    .usage = "FEATURES [--query M] [--against M] [--like PATH]",
    .description =
        "Nearest by cosine of the mean feature of a file's clips. Video and sound can be compared where both have\n"
        "features of one width; --pool head embeds both in the space in which distillation matched them.",
    .example = "xkd retrieve features.safetensors --query audio --against video",
    .options = options,
    .run = run,
};
