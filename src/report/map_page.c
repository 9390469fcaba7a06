/* The map's data as JSON for the page's script; a list of the names stands in for it where scripts are off. */
#include "report/map_page.h"

#include <inttypes.h>

#include "report/page.h"
#include "report/web.h"

static void add_places(xkd_text *json, const char *name, const float *xy, int64_t count)
{
    xkd_text_printf(json, ",\"%s\":[", name);
    for (int64_t k = 0; k < 2 * count; k++) {
        if (k) xkd_text_puts(json, ",");
        xkd_page_number(json, xy[k]);
    }
    xkd_text_puts(json, "]");
}

static void add_near(xkd_text *json, const xkd_map_page *m)
{
    bool first = true;
    xkd_text_puts(json, ",\"near\":[");
    for (int l = 0; l < XKD_MAP_LISTS; l++) {
        if (!m->near[l]) continue;
        xkd_text_puts(json, first ? "{\"title\":" : ",{\"title\":");
        xkd_page_json(json, m->near_title[l]);
        xkd_text_puts(json, ",\"of\":[");
        for (int64_t k = 0; k < m->count * m->neighbours; k++)
            xkd_text_printf(json, k ? ",%" PRId64 : "%" PRId64, m->near[l][k]);
        xkd_text_puts(json, "]}");
        first = false;
    }
    xkd_text_printf(json, "],\"neighbours\":%" PRId64, m->neighbours);
}

static void add_strings(xkd_text *json, const char *name, const char *const *texts, int64_t count)
{
    xkd_text_printf(json, "\"%s\":[", name);
    for (int64_t i = 0; i < count; i++) {
        if (i) xkd_text_puts(json, ",");
        if (texts[i])
            xkd_page_json(json, texts[i]);
        else
            xkd_text_puts(json, "null");
    }
    xkd_text_puts(json, "]");
}

static void add_data(xkd_text *json, const xkd_map_page *m)
{
    xkd_text_puts(json, "{");
    add_strings(json, "names", m->names, m->count);
    xkd_text_puts(json, ",");
    add_strings(json, "classes", m->classes, m->class_count);
    xkd_text_puts(json, ",\"label\":[");
    for (int64_t i = 0; m->label && i < m->count; i++) xkd_text_printf(json, i ? ",%" PRId64 : "%" PRId64, m->label[i]);
    xkd_text_puts(json, "],\"cluster\":[");
    for (int64_t i = 0; i < m->count; i++) xkd_text_printf(json, i ? ",%d" : "%d", (int)m->cluster[i]);
    xkd_text_puts(json, "]");
    add_places(json, "pca", m->pca, m->count);
    if (m->tsne) add_places(json, "tsne", m->tsne, m->count);
    add_near(json, m);
    if (m->pictures) {
        xkd_text_puts(json, ",");
        add_strings(json, "pictures", (const char *const *)m->pictures, m->count);
    }
    xkd_text_puts(json, "}");
}

void xkd_map_page_write(xkd_text *out, const xkd_map_page *m)
{
    xkd_text json = xkd_text_make(out->cx);
    xkd_page_begin(out, m->title);
    xkd_text_puts(out, "<p class=\"soft\">");
    xkd_page_text(out, m->about, "");
    xkd_text_puts(out,
                  "</p>\n<noscript><p>The map needs scripts.</p></noscript>\n"
                  "<div class=\"bar\"><input id=\"search\" type=\"search\" placeholder=\"search by name\" "
                  "aria-label=\"search by name\"><select id=\"layout\" aria-label=\"layout\"></select>"
                  "<select id=\"colour\" aria-label=\"colour\"></select><span id=\"found\" class=\"soft\"></span>"
                  "</div>\n<div class=\"map\"><div class=\"stage\" id=\"stage\"><canvas id=\"map\" "
                  "aria-label=\"map\"></canvas><div class=\"legend\" id=\"legend\"></div></div>"
                  "<div class=\"side\" id=\"side\"><p class=\"soft\">Click a point for what is like it. Drag to move, "
                  "scroll to zoom, double click for the whole.</p></div></div>\n");
    add_data(&json, m);
    if (json.status != XKD_OK) out->status = json.status;
    xkd_page_end(out, json.status == XKD_OK ? json.data : "", xkd_web_map_js);
    xkd_text_free(&json);
}
