/* One copy of a list for all ranks of a host, between real processes: what each sees, how much memory all have, and what happens
 * where a rank cannot share or the one that makes the list dies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "data/shared_list.h"
#include "join_ranks.h"

enum { RANKS = 3, ROWS = 300000 };

static bool dies; /* the maker, while it makes the list */

static xkd_status make(xkd_context *cx, void *user, xkd_manifest *m, int64_t *note)
{
    xkd_status status = XKD_OK;
    (void)user;
    *m = (xkd_manifest){0};
    *note = 17;
    if (dies) (void)kill(getpid(), SIGKILL);
    XKD_TRY(xkd_copy_string(cx, &m->root, "set"));
    static const char *const CLASSES[] = {"a", "b"};
    XKD_TRY(xkd_manifest_set_classes(cx, m, CLASSES, 2));
    for (int64_t i = 0; i < ROWS; i++) {
        xkd_sample *s;
        char path[64], hash[33];
        int32_t *labels;
        snprintf(path, sizeof path, "train/clip_%08d.mp4", (int)i);
        XKD_TRY(xkd_manifest_add_hashed(cx, m, path, &s));
        s->bytes = i;
        if (i % 3) XKD_TRY(xkd_sample_set_split(cx, m, s, i % 3 == 1 ? "train" : "val"));
        if (i % 7 == 0) {
            XKD_TRY(xkd_sample_set_labels(cx, m, s, 2, &labels));
            labels[0] = (int32_t)(i % 2);
            labels[1] = (int32_t)i;
        }
        snprintf(hash, sizeof hash, "%032x", (unsigned)i);
        if (i % 5 == 0) XKD_TRY(xkd_sample_set_hash(cx, m, s, hash, XKD_HASH_HEAD));
    }
fail:
    return status;
}

static bool is_right(const xkd_manifest *m)
{
    bool right = m->count == ROWS && !strcmp(m->root, "set") && m->class_count == 2 && !strcmp(m->classes[1], "b");
    for (int64_t i = 0; i < ROWS && right; i++) {
        const xkd_sample *s = &m->samples[i];
        char path[64], hash[33], has[33];
        snprintf(path, sizeof path, "train/clip_%08d.mp4", (int)i);
        snprintf(hash, sizeof hash, i % 5 == 0 ? "%032x" : "", (unsigned)i);
        right = !strcmp(s->path, path) && s->bytes == i && !strcmp(xkd_sample_hash(s, has), hash) &&
                !strcmp(s->split, i % 3 == 0   ? ""
                                  : i % 3 == 1 ? "train"
                                               : "val") &&
                xkd_sample_label_count(s) == (i % 7 == 0 ? 2 : 0) && (i % 7 || s->more->labels[1] == i);
    }
    return right;
}

/* KB of a field of the mapping's entry in smaps. */
static long field_of(const void *address, const char *field)
{
    char line[512];
    long value = -1, kb;
    bool inside = false;
    FILE *f = fopen("/proc/self/smaps", "r");
    while (f && fgets(line, sizeof line, f)) {
        unsigned long from, to;
        char name[64];
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = (uintptr_t)address >= from && (uintptr_t)address < to;
        else if (inside && sscanf(line, "%63[^:]: %ld", name, &kb) == 2 && !strcmp(name, field))
            value = kb;
    }
    if (f) fclose(f);
    return value;
}

/* Writing ends the process that tries. */
static bool may_write(const xkd_manifest *m)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        (void)signal(SIGSEGV, SIG_DFL);
        m->samples[5].bytes = 1;
        _exit(0);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Why not all have one copy: rank 1 has another file; has something where the list lies; or no file may be as large. */
typedef enum { NOTHING, APART, OCCUPIED, LIMITED } obstacle;

/* Where lists are put first. Whatever lies there stays. */
static void occupy(void)
{
    void *place = (void *)(uintptr_t)0x200000000000;
    if (mmap(place, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != place) _exit(98);
}

static int share(xkd_context *cx, xkd_dist *d, const void *user)
{
    const obstacle o = *(const obstacle *)user;
    int rank = xkd_dist_rank(d);
    bool apart = o == APART || o == OCCUPIED, own = (apart && rank == 1) || o == LIMITED;
    const struct rlimit small = {1 << 20, 1 << 20};
    if (o == OCCUPIED && own) occupy();
    if (o == LIMITED && setrlimit(RLIMIT_FSIZE, &small) != 0) return 8;
    const xkd_list_source source = {.path = o == APART && own ? "/dev/null" : "/", .settings = 3, .make = make};
    xkd_manifest m;
    int64_t note = 0, here = 0;
    xkd_status status = xkd_list_share(cx, d, &source, &m, &note);
    if (status != XKD_OK) return 100 + (int)status;
    if (note != 17 || !is_right(&m)) return 1;
    if ((m.shared == NULL) != own) return 2;
    if (xkd_dist_largest(d, &here, 1) != XKD_OK) return 3;
    long ranks = apart ? RANKS - 1 : RANKS;
    if (!own && field_of(m.samples, "Pss") * ranks > field_of(m.samples, "Rss") + 64) return 4;
    if (!own && field_of(m.samples, "Rss") < ROWS / 1024 * 104) return 5;
    if (!own && (m.pieces.bytes || may_write(&m))) return 6;
    if (xkd_dist_largest(d, &here, 1) != XKD_OK) return 7;
    xkd_manifest_free(&m);
    return 0;
}

static void run(obstacle o, int codes[RANKS])
{
    xkd_context *cx = xkd_context_new();
    fork_ranks(cx, RANKS, share, &o, codes);
    xkd_context_free(cx);
}

static void all_are_well(obstacle o)
{
    int codes[RANKS];
    run(o, codes);
    for (int r = 0; r < RANKS; r++) assert_int_equal(codes[r], 0);
}

static void ranks_of_a_host_have_one_copy(void **state)
{
    (void)state;
    all_are_well(NOTHING);
}

static void another_file_is_a_list_of_its_own(void **state)
{
    (void)state;
    all_are_well(APART);
}

static void an_occupied_place_is_a_list_of_ones_own(void **state)
{
    (void)state;
    all_are_well(OCCUPIED);
}

static void without_shared_memory_all_have_their_own(void **state)
{
    (void)state;
    all_are_well(LIMITED);
}

static void the_death_of_the_maker_ends_the_others(void **state)
{
    int codes[RANKS];
    (void)state;
    dies = true;
    run(NOTHING, codes);
    dies = false;
    assert_int_equal(codes[0], 200 + SIGKILL);
    for (int r = 1; r < RANKS; r++) assert_int_equal(codes[r], 100 + XKD_ERR_PEER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_of_a_host_have_one_copy),
        cmocka_unit_test(another_file_is_a_list_of_its_own),
        cmocka_unit_test(an_occupied_place_is_a_list_of_ones_own),
        cmocka_unit_test(without_shared_memory_all_have_their_own),
        cmocka_unit_test(the_death_of_the_maker_ends_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
