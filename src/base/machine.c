/* Processors and memory. A limit may stand in the group of the process or in any above it, in version 1 or 2 of the
 * kernel's interface, or in both side by side; the lowest counts. */
#include "base/machine.h"

#include <limits.h>
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

/* Inside a container the path of the process may be the host's, of which nothing is mounted: folders that are not there
 * are passed over, and the last one is the container's own. */
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

/* Lines of /proc/self/cgroup are "number:controllers:path"; version 2 has one with an empty list. Controllers of version 1
 * are mounted under their own name or under that of their list. */
static void visit_controller(const char *root, const char *controller, group_fn fn, void *user)
{
    char path[PATH_MAX], line[PATH_MAX + 256], mount[PATH_MAX];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        list++;
        if (strcmp(group, "/") == 0) group = "";
        if (!*list) {
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup", root);
            visit_groups(mount, group, fn, user);
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/unified", root); /* beside version 1 */
            visit_groups(mount, group, fn, user);
        } else if (names_controller(list, controller)) {
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", root, controller);
            visit_groups(mount, group, fn, user);
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", root, list);
            if (strcmp(list, controller) != 0) visit_groups(mount, group, fn, user);
        }
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

/* Microseconds of processor time in a period; a quota of half a processor is no reason for two threads. */
static void lower_processors(const char *folder, void *user)
{
    int *processors = user;
    char text[64], more[64];
    long long quota = -1, period = 0;
    if (read_words(folder, "cpu.max", text, sizeof text)) {
        if (sscanf(text, "%lld %lld", &quota, &period) != 2) quota = -1; /* "max" */
    } else if (read_words(folder, "cpu.cfs_quota_us", text, sizeof text) &&
               read_words(folder, "cpu.cfs_period_us", more, sizeof more)) {
        if (sscanf(text, "%lld", &quota) != 1 || sscanf(more, "%lld", &period) != 1) quota = -1;
    }
    if (quota <= 0 || period <= 0) return;
    long long n = (quota + period - 1) / period;
    if (n < *processors) *processors = (int)n;
}

int xkd_processor_count_at(const char *root)
{
    int processors = affinity();
    visit_controller(root, "cpu", lower_processors, &processors);
    return processors;
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

/* Pages of files that were not used of late can be dropped at once. */
static unsigned long long inactive_files(const char *folder)
{
    char path[PATH_MAX], line[128];
    unsigned long long bytes, own = 0, total = 0;
    if (snprintf(path, sizeof path, "%s/memory.stat", folder) >= (int)sizeof path) return 0;
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "inactive_file %llu", &bytes) == 1) own = bytes;
        if (sscanf(line, "total_inactive_file %llu", &bytes) == 1) total = bytes; /* version 1: with the groups below */
    }
    if (file) fclose(file);
    return total > own ? total : own;
}

/* What is left below the limit; "max", and version 1's largest number, are none. */
static void lower_memory(const char *folder, void *user)
{
    size_t *available = user;
    char text[64], more[64];
    unsigned long long limit, used;
    bool known = (read_words(folder, "memory.max", text, sizeof text) &&
                  read_words(folder, "memory.current", more, sizeof more)) ||
                 (read_words(folder, "memory.limit_in_bytes", text, sizeof text) &&
                  read_words(folder, "memory.usage_in_bytes", more, sizeof more));
    if (!known || sscanf(text, "%llu", &limit) != 1 || sscanf(more, "%llu", &used) != 1) return;
    unsigned long long dropped = inactive_files(folder);
    used = used > dropped ? used - dropped : 0;
    unsigned long long left = limit > used ? limit - used : 0;
    if (left < *available) *available = (size_t)left;
}

/* MemAvailable counts caches that can be dropped, unlike MemFree. Where the system does not say, nothing is
 * refused. */
size_t xkd_available_memory_at(const char *root)
{
    char path[PATH_MAX], line[128];
    unsigned long long kilobytes;
    size_t result = SIZE_MAX;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %llu kB", &kilobytes) == 1) result = (size_t)kilobytes << 10;
    if (file) fclose(file);
    visit_controller(root, "memory", lower_memory, &result);
    return result;
}

size_t xkd_available_memory(void)
{
    return xkd_available_memory_at("");
}
