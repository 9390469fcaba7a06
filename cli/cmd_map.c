/* xkd map: features -> a map of the collection as one HTML file. A point is a file, at the mean of its clips' features. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "eval/judge/projection.h"
#include "eval/judge/feature_sets.h"
#include "eval/judge/protocols.h"
#include "map_pictures.h"
#include "report/map_page.h"

/* Beyond these the page is of a sample: t-SNE's time grows with the square, the page with the number. */
enum { MOST_POINTS = 3000, MOST_PCA_POINTS = 20000, NEIGHBOURS = 8, COMPONENTS = 50 };

struct values {
    const char *out, *media, *modality, *method, *title;
    double perplexity;
    int64_t clusters, threads;
};

static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "FILE", "page to write (default: map.html)"},
    {0, "media", CLI_TEXT, offsetof(struct values, media), "ROOT",
     "folder that the files' paths start from: with pictures of at most 1000 files"},
    {0, "modality", CLI_TEXT, offsetof(struct values, modality), "M",
     "place points by video, audio or both (default: what there is)"},
    {0, "method", CLI_TEXT, offsetof(struct values, method), "M",
     "tsne: with PCA beside it, 3000 files at most; pca: alone, 20000 (default: tsne)"},
    {0, "perplexity", CLI_REAL, offsetof(struct values, perplexity), "P", "neighbours that t-SNE minds (default: 30)"},
    {'k', "clusters", CLI_INT, offsetof(struct values, clusters), "K", "groups of k-means, 1 .. 100 (default: 10)"},
    {0, "title", CLI_TEXT, offsetof(struct values, title), "TEXT", "heading (default: the file's name)"},
    {'t', "threads", CLI_INT, offsetof(struct values, threads), "N", "threads (default: processors)"},
    {0},
};

struct map {
    struct cli *cli;
    struct values v;
    xkd_embeddings e;
    xkd_pool *pool;
    int64_t *file;            /* [n] index into e.files */
    float *x[XKD_MODALITIES]; /* [n,D] L2-normalised means; NULL: none */
    int64_t D[XKD_MODALITIES];
    bool used[XKD_MODALITIES]; /* for the places */
    int64_t n, files;          /* points; files that could have been */
    bool tsne;
};

/* Adds up the clips of every point and makes the mean of length 1. A point without clips in this modality is 0. */
static xkd_status make_means(struct map *m, xkd_modality modality)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cli->cx;
    const xkd_feature_table *t = &m->e.table[modality];
    int64_t D = m->D[modality] = t->rows * t->width, clip = 0;
    XKD_TRY(xkd_alloc(cx, &m->x[modality], m->n * D, sizeof *m->x[modality]));
    for (int64_t i = 0; i < m->n; i++) {
        float *x = m->x[modality] + i * D;
        double squares = 0;
        while (clip < t->count && t->file[clip] < m->file[i]) clip++;
        for (; clip < t->count && t->file[clip] == m->file[i]; clip++)
            for (int64_t d = 0; d < D; d++) x[d] += t->x[clip * D + d];
        for (int64_t d = 0; d < D; d++) squares += (double)x[d] * x[d];
        for (int64_t d = 0; squares > 0 && d < D; d++) x[d] = (float)(x[d] / sqrt(squares));
    }
fail:
    return status;
}

/* Files with features of every modality that places them; of too many every so-manieth. */
static xkd_status choose_points(struct map *m)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cli->cx;
    int64_t clip[XKD_MODALITIES] = {0}, most = m->tsne ? MOST_POINTS : MOST_PCA_POINTS;
    XKD_TRY(xkd_alloc(cx, &m->file, m->e.files.count, sizeof *m->file));
    for (int64_t f = 0; f < m->e.files.count; f++) {
        bool whole = true;
        for (int k = 0; k < XKD_MODALITIES; k++) {
            const xkd_feature_table *t = &m->e.table[k];
            while (clip[k] < t->count && t->file[clip[k]] < f) clip[k]++;
            whole &= !m->used[k] || (clip[k] < t->count && t->file[clip[k]] == f);
        }
        if (whole) m->file[m->files++] = f;
    }
    if (m->files == 0)
        XKD_FAIL(XKD_ERR_DATA, "no file has features of what --modality asks for: leave it out to take what there is");
    m->n = m->files < most ? m->files : most;
    for (int64_t i = 0; i < m->n; i++) m->file[i] = m->file[i * m->files / m->n];
    for (int k = 0; k < XKD_MODALITIES; k++)
        if (m->e.table[k].count) XKD_TRY(make_means(m, (xkd_modality)k));
fail:
    return status;
}

/* Both modalities one behind the other, where both are used. The caller frees *out. */
static xkd_status join_rows(struct map *m, float **out, int64_t *width)
{
    int64_t D = 0, at = 0;
    for (int k = 0; k < XKD_MODALITIES; k++) D += m->used[k] ? m->D[k] : 0;
    xkd_status status = xkd_alloc(m->cli->cx, out, m->n * D, sizeof **out);
    if (status != XKD_OK) return status;
    for (int k = 0; k < XKD_MODALITIES; k++) {
        if (!m->used[k]) continue;
        for (int64_t i = 0; i < m->n; i++)
            memcpy(*out + i * D + at, m->x[k] + i * m->D[k], (size_t)m->D[k] * sizeof **out);
        at += m->D[k];
    }
    *width = D;
    return XKD_OK;
}

static int stopped(void *user)
{
    (void)user;
    return cli_signal();
}

/* places: [2][n,2] PCA and t-SNE. */
static xkd_status make_places(struct map *m, float *pca, float *tsne, int32_t *cluster)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cli->cx;
    float *x = NULL, *parts = NULL;
    int64_t D, count;
    xkd_tsne_options settings = xkd_tsne_defaults();
    settings.perplexity = m->v.perplexity;
    XKD_TRY(join_rows(m, &x, &D));
    count = D < COMPONENTS ? D : COMPONENTS;
    if (count < 2) XKD_FAIL(XKD_ERR_DATA, "features of one number make no map");
    XKD_TRY(xkd_alloc(cx, &parts, m->n * count, sizeof *parts));
    XKD_TRY(xkd_pca(cx, m->pool, x, m->n, D, count, parts));
    for (int64_t i = 0; i < m->n; i++) memcpy(pca + 2 * i, parts + i * count, 2 * sizeof *pca);
    XKD_TRY(xkd_kmeans(cx, m->pool, x, m->n, D, m->v.clusters, cluster));
    if (m->tsne) {
        cli_progress(m->cli, "map: t-SNE");
        XKD_TRY(xkd_tsne(cx, m->pool, parts, m->n, count, &settings, stopped, NULL, tsne));
    }
fail:
    cli_progress(m->cli, NULL);
    xkd_free(x);
    xkd_free(parts);
    return status;
}

/* Rows of `near` without the point itself, or with it where the other modality answers. */
static xkd_status make_list(struct map *m, xkd_modality query, xkd_modality against, int64_t **out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cli->cx;
    int64_t own = query == against, k = NEIGHBOURS + own, *near = NULL;
    if (k > m->n) k = m->n;
    XKD_TRY(xkd_alloc(cx, &near, m->n * k, sizeof *near));
    XKD_TRY(xkd_alloc(cx, out, m->n * NEIGHBOURS, sizeof **out));
    XKD_TRY(xkd_nearest(cx, m->pool, m->x[query], m->n, m->x[against], m->n, m->D[query], k, near));
    for (int64_t i = 0; i < m->n; i++) {
        int64_t *row = *out + i * NEIGHBOURS, count = 0;
        for (int64_t j = 0; j < k && count < NEIGHBOURS; j++)
            if (!own || near[i * k + j] != i) row[count++] = near[i * k + j];
        for (; count < NEIGHBOURS; count++) row[count] = -1;
    }
fail:
    xkd_free(near);
    return status;
}

/* Within each modality; across where the features are of the heads, which alone can be compared. */
static xkd_status make_lists(struct map *m, xkd_map_page *page, int64_t *lists[XKD_MAP_LISTS])
{
    static const struct {
        xkd_modality query, against;
        const char *title;
    } all[XKD_MAP_LISTS] = {{XKD_VIDEO, XKD_VIDEO, "looks like it"},
                            {XKD_AUDIO, XKD_AUDIO, "sounds like it"},
                            {XKD_VIDEO, XKD_AUDIO, "sounds like this picture"},
                            {XKD_AUDIO, XKD_VIDEO, "looks like this sound"}};
    xkd_status status = XKD_OK;
    for (int l = 0; l < XKD_MAP_LISTS; l++) {
        xkd_modality a = all[l].query, b = all[l].against;
        if (!m->x[a] || !m->x[b] || (a != b && (m->e.kind != XKD_FEATURE_HEAD || m->D[a] != m->D[b]))) continue;
        XKD_TRY(make_list(m, a, b, &lists[l]));
        page->near[l] = lists[l];
        page->near_title[l] = all[l].title;
    }
fail:
    return status;
}

/* Everything that the page shows, then the page. */
static xkd_status write_map(struct map *m, const char *features)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cli->cx;
    xkd_text out = xkd_text_make(cx);
    float *pca = NULL, *tsne = NULL;
    int32_t *cluster = NULL;
    int64_t *lists[XKD_MAP_LISTS] = {NULL}, *label = NULL;
    const char **names = NULL;
    char **pictures = NULL, about[300];
    const xkd_manifest *files = &m->e.files;
    XKD_TRY(xkd_alloc(cx, &pca, 2 * m->n, sizeof *pca));
    XKD_TRY(xkd_alloc(cx, &tsne, 2 * m->n, sizeof *tsne));
    XKD_TRY(xkd_alloc(cx, &cluster, m->n, sizeof *cluster));
    XKD_TRY(xkd_alloc(cx, &names, m->n, sizeof *names));
    XKD_TRY(xkd_alloc(cx, &label, m->n, sizeof *label));
    for (int64_t i = 0; i < m->n; i++) {
        const xkd_sample *s = &files->samples[m->file[i]];
        names[i] = s->path;
        label[i] = xkd_sample_label_count(s) ? s->more->labels[0] : s->label;
    }
    XKD_TRY(make_places(m, pca, tsne, cluster));
    snprintf(about, sizeof about, "%" PRId64 " of %" PRId64 " files, placed by %s%s", m->n, m->files,
             m->used[XKD_VIDEO] ? m->used[XKD_AUDIO] ? "picture and sound" : "picture" : "sound",
             m->n < m->files ? "; the others are left out, evenly" : "");
    xkd_map_page page = {.title = m->v.title ? m->v.title : features,
                         .about = about,
                         .count = m->n,
                         .names = names,
                         .label = xkd_manifest_has_labels(files) ? label : NULL,
                         .classes = (const char *const *)files->classes,
                         .class_count = files->class_count,
                         .cluster = cluster,
                         .pca = pca,
                         .tsne = m->tsne ? tsne : NULL,
                         .neighbours = NEIGHBOURS};
    XKD_TRY(make_lists(m, &page, lists));
    if (m->v.media) XKD_TRY(map_pictures(m->cli, &m->e, m->file, m->n, m->v.media, &pictures));
    page.pictures = pictures;
    xkd_map_page_write(&out, &page);
    XKD_TRY(out.status);
    XKD_TRY(xkd_write_file(cx, m->v.out, out.data, out.size));
fail:
    for (int l = 0; l < XKD_MAP_LISTS; l++) xkd_free(lists[l]);
    for (int64_t i = 0; pictures && i < m->n; i++) xkd_free(pictures[i]);
    xkd_free(pictures);
    xkd_free(pca);
    xkd_free(tsne);
    xkd_free(cluster);
    xkd_free(names);
    xkd_free(label);
    xkd_text_free(&out);
    return status;
}

static xkd_status check_values(struct map *m)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cli->cx;
    const struct values *v = &m->v;
    m->tsne = !v->method || strcmp(v->method, "tsne") == 0;
    if (!m->tsne && strcmp(v->method, "pca") != 0) XKD_FAIL(XKD_ERR_CONFIG, "--method %s: tsne or pca", v->method);
    if (v->clusters < 1 || v->clusters > 100) XKD_FAIL(XKD_ERR_CONFIG, "map: --clusters must be 1 .. 100");
    if (!(v->perplexity >= 2 && v->perplexity <= 1000)) XKD_FAIL(XKD_ERR_CONFIG, "map: --perplexity must be 2 .. 1000");
    if (v->threads < 1) XKD_FAIL(XKD_ERR_CONFIG, "map: --threads must be positive");
    if (v->media && !xkd_is_folder(v->media)) XKD_FAIL(XKD_ERR_STORAGE, "%s: is no folder (--media)", v->media);
    XKD_TRY(xkd_check_folder_of(cx, v->out));
fail:
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct map m = {.cli = cli,
                    .v = {.out = "map.html", .perplexity = 30, .clusters = 10, .threads = xkd_processor_count()}};
    int rest = 0;
    char name[4096];
    XKD_TRY(cli_parse(cli, &cmd_map, argc, argv, &m.v, &rest));
    if (rest != 1) XKD_FAIL(XKD_ERR_CONFIG, "map: want one file of features ('xkd embed' makes it)");
    XKD_TRY(check_values(&m));
    XKD_TRY(xkd_embeddings_read(cx, argv[1], &m.e));
    XKD_TRY(xkd_feature_modality(cx, m.v.modality, &m.e, &m.used[XKD_VIDEO], &m.used[XKD_AUDIO]));
    const bool all[XKD_MODALITIES] = {true, true};
    XKD_TRY(xkd_embeddings_check_finite(cx, &m.e, argv[1], all));
    XKD_TRY(xkd_pool_new(cx, &m.pool, (int)m.v.threads));
    cli_catch_signals();
    XKD_TRY(choose_points(&m));
    XKD_TRY(write_map(&m, argv[1]));
    if (cli->json)
        printf("{\"points\": %" PRId64 ", \"files\": %" PRId64 "}\n", m.n, m.files);
    else
        printf("%s: %" PRId64 " of %" PRId64 " files\n", cli_name(name, sizeof name, m.v.out), m.n, m.files);
fail:
    xkd_pool_free(m.pool);
    xkd_free(m.file);
    for (int k = 0; k < XKD_MODALITIES; k++) xkd_free(m.x[k]);
    xkd_embeddings_free(&m.e);
    return status;
}

const struct cli_command cmd_map = {
    .name = "map",
    .summary = "draw a collection as a map of its files, one HTML page",
    .usage = "FEATURES [--out FILE] [--media ROOT]",
    .description = "Files that are alike lie together. Hover shows a file, a click what is nearest to it in picture "
                   "and in sound; with\n"
                   "features of --pool head also what sounds like a picture and looks like a sound. The same features "
                   "give the same\n"
                   "bytes. The page is one file and fetches nothing.",
    .example = "xkd embed runs/first videos/ --pool head --out heads.safetensors\n"
               "xkd map heads.safetensors --media videos/ --out map.html",
    .options = options,
    .run = run,
};
