/* The class names of a manifest: their numbers are their places in the list. A table of hashes finds a name, since sets
 * with a folder a speaker or a video have tens of thousands of them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "data/manifest.h"

/* Slot of a name in the table, or the free one where it belongs; a slot holds label + 1. */
static int64_t slot_of(const xkd_manifest *m, const char *name)
{
    int64_t mask = m->class_slot_count - 1, at = (int64_t)(XXH3_64bits(name, strlen(name)) & (uint64_t)mask);
    while (m->class_slots[at] && strcmp(m->classes[m->class_slots[at] - 1], name) != 0) at = (at + 1) & mask;
    return at;
}

/* Room for one more class at a load of at most a half. */
static xkd_status make_table(xkd_context *cx, xkd_manifest *m)
{
    int64_t slots = m->class_slot_count ? m->class_slot_count : 64;
    if (m->class_slot_count && 2 * (m->class_count + 1) <= slots) return XKD_OK;
    while (slots < 4 * (m->class_count + 1)) slots *= 2;
    xkd_free(m->class_slots);
    m->class_slots = NULL;
    m->class_slot_count = 0;
    xkd_status status = xkd_alloc(cx, &m->class_slots, slots, sizeof *m->class_slots);
    if (status != XKD_OK) return status;
    m->class_slot_count = slots;
    for (int64_t k = 0; k < m->class_count; k++) m->class_slots[slot_of(m, m->classes[k])] = (int32_t)k + 1;
    return XKD_OK;
}

xkd_status xkd_manifest_class(xkd_context *cx, xkd_manifest *m, const char *name, bool add, int64_t *label)
{
    xkd_status status = XKD_OK;
    *label = -1;
    if (!m->class_count && !add) return XKD_OK;
    XKD_TRY(make_table(cx, m));
    int64_t slot = slot_of(m, name);
    *label = (int64_t)m->class_slots[slot] - 1;
    if (*label >= 0 || !add) return XKD_OK;
    XKD_TRY(xkd_reserve(cx, &m->classes, m->class_count, &m->class_capacity, sizeof *m->classes));
    XKD_TRY(xkd_copy_string(cx, &m->classes[m->class_count], name));
    m->class_slots[slot] = (int32_t)m->class_count + 1;
    *label = m->class_count++;
fail:
    return status;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void xkd_manifest_sort_classes(xkd_manifest *m)
{
    if (m->class_count) qsort(m->classes, (size_t)m->class_count, sizeof *m->classes, compare_names);
    /* Made anew by the next look-up. */
    xkd_free(m->class_slots);
    m->class_slots = NULL;
    m->class_slot_count = 0;
}

void xkd_manifest_free_classes(xkd_manifest *m)
{
    for (int64_t i = 0; i < m->class_count; i++) xkd_free(m->classes[i]);
    xkd_free(m->classes);
    xkd_free(m->class_slots);
    m->classes = NULL;
    m->class_slots = NULL;
    m->class_count = m->class_capacity = m->class_slot_count = 0;
}

xkd_status xkd_manifest_lend_classes(xkd_context *cx, xkd_manifest *from, xkd_manifest *to)
{
    xkd_status status = XKD_OK;
    int64_t label;
    if (from->class_count) XKD_TRY(xkd_manifest_class(cx, from, from->classes[0], false, &label)); /* makes the table */
    to->classes = from->classes;
    to->class_count = from->class_count;
    to->class_slots = from->class_slots;
    to->class_slot_count = from->class_slot_count;
fail:
    return status;
}

xkd_status xkd_manifest_set_classes(xkd_context *cx, xkd_manifest *m, const char *const *names, int64_t count)
{
    xkd_status status = XKD_OK;
    int64_t label;
    xkd_manifest_free_classes(m);
    for (int64_t k = 0; k < count; k++) XKD_TRY(xkd_manifest_class(cx, m, names[k], true, &label));
fail:
    return status;
}

bool xkd_manifest_has_labels(const xkd_manifest *m)
{
    bool labels = m->class_count > 0;
    for (int64_t i = 0; i < m->count && !labels; i++)
        labels = m->samples[i].label >= 0 || xkd_sample_label_count(&m->samples[i]);
    return labels;
}

xkd_status xkd_manifest_compare_classes(xkd_context *cx, const xkd_manifest *a, const char *a_name,
                                        const xkd_manifest *b, const char *b_name, const char *remedy)
{
    if (!xkd_manifest_has_labels(a) || !xkd_manifest_has_labels(b)) return XKD_OK;
    if (!remedy) remedy = "make both from one class list";
    if (a->class_count != b->class_count)
        return xkd_fail(cx, XKD_ERR_DATA, "%s names %" PRId64 " classes, %s %" PRId64 ": %s", a_name, a->class_count,
                        b_name, b->class_count, remedy);
    for (int64_t k = 0; k < a->class_count; k++)
        if (strcmp(a->classes[k], b->classes[k]) != 0)
            return xkd_fail(cx, XKD_ERR_DATA, "class %" PRId64 " is %s in %s and %s in %s: %s", k, a->classes[k],
                            a_name, b->classes[k], b_name, remedy);
    return XKD_OK;
}

/* Room for the largest label there is, named or not. */
static int64_t label_limit(const xkd_manifest *m)
{
    int64_t most = m->class_count;
    for (int64_t i = 0; i < m->count; i++) {
        const int32_t *list;
        int32_t one;
        int64_t n = xkd_sample_labels(&m->samples[i], &list, &one);
        for (int64_t k = 0; k < n; k++)
            if (list[k] >= most) most = (int64_t)list[k] + 1;
    }
    return most;
}

xkd_status xkd_manifest_check_trained(xkd_context *cx, const xkd_manifest *m, const char *train, const char *test)
{
    enum { TRAINED = 1, TESTED = 2 };
    xkd_status status = XKD_OK;
    uint8_t *seen = NULL;
    int64_t classes = label_limit(m), trained = 0;
    const char *only = "";
    bool several = false; /* labels a file: of one class too, it may have that or not */
    XKD_TRY(xkd_alloc(cx, &seen, classes, 1));
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_sample *s = &m->samples[i];
        const int32_t *list;
        int32_t one;
        int64_t n = xkd_sample_labels(s, &list, &one);
        several |= s->more && s->more->labels;
        int in = (!s->split[0] || strcmp(s->split, train) == 0 ? TRAINED : 0) |
                 (!s->split[0] || strcmp(s->split, test) == 0 ? TESTED : 0);
        for (int64_t k = 0; k < n; k++) seen[list[k]] |= (uint8_t)in;
    }
    for (int64_t k = 0; k < classes; k++) {
        const char *name = k < m->class_count ? m->classes[k] : "without a name";
        trained += (seen[k] & TRAINED) != 0;
        if (seen[k] == TESTED)
            XKD_FAIL(XKD_ERR_DATA,
                     "class %" PRId64
                     " (%s) has videos to test on but none to train on: is the training split complete?",
                     k, name);
        if (seen[k] & TRAINED) only = name;
    }
    if (trained == 1 && !several)
        XKD_FAIL(
            XKD_ERR_DATA,
            "all videos to train on are of one class, %s: there is nothing to tell apart (add videos of another, or "
            "choose another training split)",
            only);
fail:
    xkd_free(seen);
    return status;
}
