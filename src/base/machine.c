/* Processors and memory. A limit may stand in the group of the process or in any above it, in version 1 or 2 of the
 * kernel's interface, or in both side by side; the lowest counts. */
#include "base/machine.h"

#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Called for the group of the process and all above it: `folder` holds the files of one group. */
typedef void (*group_fn)(const char *folder, void *user);

/* First words of a file; false where it cannot be read. */
static bool read_words(const char *folder, const char *name, char *out, size_t size)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) return false;
    FILE *file = fopen(path, "re");
    bool read = file && fgets(out, (int)size, file);
    if (file) fclose(file);
    return read;
}

/* The group's folder and all above it up to the place of mounting. Folders that are not there are passed over. */
static void visit_groups(const char *mount, const char *group, group_fn fn, void *user)
{
    char folder[PATH_MAX];
    if (snprintf(folder, sizeof folder, "%s%s", mount, group) >= (int)sizeof folder) return;
    size_t least = strlen(mount);
    for (;;) {
        fn(folder, user);
        if (strlen(folder) <= least) return;
        *strrchr(folder, '/') = 0;
    }
}

/* Whether a list of controllers such as "cpu,cpuacct" names this one. */
static bool names_controller(const char *list, const char *controller)
{
    size_t length = strlen(controller);
    for (const char *at = list; *at; at += strcspn(at, ",") + (at[strcspn(at, ",")] != 0))
        if (strcspn(at, ",") == length && strncmp(at, controller, length) == 0) return true;
    return false;
}

/* Paths in /proc write a blank as \040. */
static void unescape(char *path)
{
    char *to = path;
    for (const char *at = path; *at; to++) {
        bool octal = at[0] == '\\' && strspn(at + 1, "01234567") >= 3;
        *to = octal ? (char)((at[1] - '0') << 6 | (at[2] - '0') << 3 | (at[3] - '0')) : *at;
        at += octal ? 4 : 1;
    }
    *to = 0;
}

/* The part of the group's path below what is mounted. In a container that may be the container's own group, and the path
 * the host's; without a common part the place of mounting is all that can be seen. */
static const char *below(const char *group, const char *mounted)
{
    size_t length = strcmp(mounted, "/") == 0 ? 0 : strlen(mounted);
    bool inside = strncmp(group, mounted, length) == 0 && (group[length] == '/' || !group[length]);
    return !inside || strcmp(group + length, "/") == 0 ? "" : group + length;
}

/* By /proc/self/mountinfo: "36 31 0:33 ROOT PLACE options [tags] - cgroup source rw,CONTROLLERS". False where no line is of
 * this controller. */
static bool visit_mounts(const char *root, const char *controller, bool unified, const char *group, group_fn fn,
                         void *user)
{
    char path[PATH_MAX], line[2 * PATH_MAX + 512], mounted[PATH_MAX], place[PATH_MAX], type[32], options[512];
    bool found = false;
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        const char *behind = strstr(line, " - ");
        if (!behind || sscanf(line, "%*s %*s %*s %4095s %4095s", mounted, place) != 2) continue;
        if (sscanf(behind, " - %31s %*s %511s", type, options) != 2) continue;
        if (strcmp(type, unified ? "cgroup2" : "cgroup") != 0) continue;
        if (!unified && !names_controller(options, controller)) continue;
        unescape(mounted);
        unescape(place);
        if (snprintf(path, sizeof path, "%s%s", root, place) >= (int)sizeof path) continue;
        visit_groups(path, below(group, mounted), fn, user);
        found = true;
    }
    if (file) fclose(file);
    return found;
}

/* Where they are mounted as a rule: controllers of version 1 under their own name or under that of their list. */
static void visit_usual_places(const char *root, const char *controller, const char *list, const char *group,
                               group_fn fn, void *user)
{
    char mount[PATH_MAX];
    const char *const names[] = {*list ? controller : "", *list ? list : "unified"};
    for (int i = 0; i < 2; i++) {
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s%s", root, *names[i] ? "/" : "", names[i]);
        if (i == 0 || strcmp(names[0], names[1]) != 0) visit_groups(mount, group, fn, user);
    }
}

/* Lines of /proc/self/cgroup are "number:controllers:path"; version 2 has one with an empty list. */
static void visit_controller(const char *root, const char *controller, group_fn fn, void *user)
{
    char path[PATH_MAX], line[PATH_MAX + 256];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        list++;
        if (strcmp(group, "/") == 0) group = "";
        if (*list && !names_controller(list, controller)) continue;
        if (!visit_mounts(root, controller, !*list, group, fn, user))
            visit_usual_places(root, controller, list, group, fn, user);
    }
    if (file) fclose(file);
}

/* ---- processors ---- */

/* The mask of a machine of more than 1024 processors does not fit a cpu_set_t; the kernel wants one as large as its own. */
static int affinity(void)
{
    for (int most = CPU_SETSIZE; most <= 1 << 20; most *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)most);
        size_t size = CPU_ALLOC_SIZE((size_t)most);
        if (!set) break;
        CPU_ZERO_S(size, set);
        int n = sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (n > 0) return n;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

/* The tightest limit so far and the folder of its group; "": none. */
typedef struct {
    double quota; /* processors whose time is paid for */
    size_t memory;
    char group[PATH_MAX];
} limits;

/* Microseconds of processor time in a period; a quota of half a processor is no reason for two threads. */
static void lower_processors(const char *folder, void *user)
{
    limits *l = user;
    char text[64], more[64];
    long long quota = -1, period = 0;
    if (read_words(folder, "cpu.max", text, sizeof text)) {
        if (sscanf(text, "%lld %lld", &quota, &period) != 2) quota = -1; /* "max" */
    } else if (read_words(folder, "cpu.cfs_quota_us", text, sizeof text) &&
               read_words(folder, "cpu.cfs_period_us", more, sizeof more)) {
        if (sscanf(text, "%lld", &quota) != 1 || sscanf(more, "%lld", &period) != 1) quota = -1;
    }
    if (quota <= 0 || period <= 0) return;
    double processors = (double)quota / (double)period;
    if (processors >= l->quota) return;
    l->quota = processors;
    snprintf(l->group, sizeof l->group, "%s", folder);
}

/* The count, and how it comes about. */
static int count_processors(const char *root, limits *l)
{
    int allowed = affinity();
    *l = (limits){.quota = allowed};
    visit_controller(root, "cpu", lower_processors, l);
    int paid = (int)ceil(l->quota);
    return paid > 1 ? paid : 1;
}

int xkd_processor_count_at(const char *root)
{
    limits l;
    return count_processors(root, &l);
}

void xkd_processor_words(const char *root, char *out, size_t size)
{
    limits l;
    int count = count_processors(root, &l), allowed = affinity();
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    int used = snprintf(out, size, "%d", count);
    if (l.group[0] && used > 0 && (size_t)used < size)
        used += snprintf(out + used, size - (size_t)used, " of %d: the quota of a control group pays for %.2f (%s)",
                         allowed, l.quota, l.group);
    if (allowed < online && used > 0 && (size_t)used < size)
        snprintf(out + used, size - (size_t)used, "%s the affinity mask allows %d of %ld", l.group[0] ? ";" : ":",
                 allowed, online);
}

/* One for the process, as its processors are. */
static _Atomic int most_processors;

void xkd_limit_processors(int most)
{
    most_processors = most;
}

int xkd_processor_count(void)
{
    int count = xkd_processor_count_at("");
    return most_processors && most_processors < count ? most_processors : count;
}

/* ---- memory ---- */

/* What memory.stat says: pages of files that were not used of late can be dropped at once; and in version 1 the lowest limit
 * of all groups above, also of those that a container does not see. */
typedef struct {
    unsigned long long dropped, inherited; /* bytes */
} memory_stat;

static memory_stat read_memory_stat(const char *folder)
{
    char path[PATH_MAX], line[128];
    unsigned long long bytes, own = 0, total = 0;
    memory_stat stat = {.inherited = ULLONG_MAX};
    if (snprintf(path, sizeof path, "%s/memory.stat", folder) >= (int)sizeof path) return stat;
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "inactive_file %llu", &bytes) == 1) own = bytes;
        if (sscanf(line, "total_inactive_file %llu", &bytes) == 1) total = bytes; /* version 1: with the groups below */
        if (sscanf(line, "hierarchical_memory_limit %llu", &bytes) == 1) stat.inherited = bytes;
    }
    if (file) fclose(file);
    stat.dropped = total > own ? total : own;
    return stat;
}

/* "max" is none, and so in effect is version 1's largest number. */
static unsigned long long limit_of(const char *folder, const char *name)
{
    char text[64];
    unsigned long long limit;
    return read_words(folder, name, text, sizeof text) && sscanf(text, "%llu", &limit) == 1 ? limit : ULLONG_MAX;
}

/* What is left below the limits. Above memory.high the kernel ends nothing but slows the process until it stands still. */
static void lower_memory(const char *folder, void *user)
{
    limits *l = user;
    unsigned long long limit = limit_of(folder, "memory.max"), high = limit_of(folder, "memory.high");
    unsigned long long used = limit_of(folder, "memory.current");
    const memory_stat stat = read_memory_stat(folder);
    if (used == ULLONG_MAX) {
        limit = limit_of(folder, "memory.limit_in_bytes");
        high = stat.inherited;
        used = limit_of(folder, "memory.usage_in_bytes");
    }
    if (high < limit) limit = high;
    if (limit == ULLONG_MAX || used == ULLONG_MAX) return;
    used = used > stat.dropped ? used - stat.dropped : 0;
    unsigned long long left = limit > used ? limit - used : 0;
    if (left >= l->memory) return;
    l->memory = (size_t)left;
    snprintf(l->group, sizeof l->group, "%s", folder);
}

/* MemAvailable counts caches that can be dropped, unlike MemFree. Where the system does not say, nothing is
 * refused. */
static void find_memory(const char *root, limits *l)
{
    char path[PATH_MAX], line[128];
    unsigned long long kilobytes;
    *l = (limits){.memory = SIZE_MAX};
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %llu kB", &kilobytes) == 1) l->memory = (size_t)kilobytes << 10;
    if (file) fclose(file);
    visit_controller(root, "memory", lower_memory, l);
}

size_t xkd_available_memory_at(const char *root)
{
    limits l;
    find_memory(root, &l);
    return l.memory;
}

void xkd_memory_words(const char *root, char *out, size_t size)
{
    limits l;
    find_memory(root, &l);
    if (l.memory == SIZE_MAX)
        snprintf(out, size, "not known");
    else if (l.group[0])
        snprintf(out, size, "%.1f GB: the limit of a control group (%s)", (double)l.memory / 1e9, l.group);
    else
        snprintf(out, size, "%.1f GB", (double)l.memory / 1e9);
}

size_t xkd_available_memory(void)
{
    return xkd_available_memory_at("");
}
