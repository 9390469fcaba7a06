/* Processors and memory as affinity and control groups leave them, read from made trees of /proc and /sys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/machine.h"
#include "data/cache.h"

static char root[] = "/tmp/xkd-test-machine-XXXXXX";
static int processors = 8; /* of the pretended affinity mask */

/* Takes the place of libc's: a kernel whose own mask is of 4096 processors refuses smaller ones. */
int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set)
{
    (void)pid;
    if (size < (processors > 1024 ? 512 : 128)) {
        errno = EINVAL;
        return -1;
    }
    memset(set, 0, size);
    for (int i = 0; i < processors; i++) CPU_SET_S(i, size, set);
    return 0;
}

/* Writes a file below the root, folders and all. */
static void put(const char *path, const char *text)
{
    char command[600];
    snprintf(command, sizeof command, "mkdir -p \"$(dirname '%s/%s')\" && printf -- '%s' >'%s/%s'", root, path, text,
             root, path);
    assert_int_equal(system(command), 0);
}

static int empty(void **state)
{
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s' && mkdir '%s'", root, root);
    processors = 8;
    return system(command);
}

static void no_groups(void **state)
{
    (void)state;
    assert_int_equal(xkd_processor_count_at(root), 8);
    assert_true(xkd_available_memory_at(root) == SIZE_MAX);
    put("proc/meminfo", "MemTotal: 100 kB\nMemAvailable:    60 kB\n");
    assert_int_equal(xkd_available_memory_at(root), 60 * 1024);
    assert_true(xkd_processor_count() >= 1 && xkd_available_memory() > 0);
}

static void more_than_1024_processors(void **state)
{
    (void)state;
    processors = 3000;
    assert_int_equal(xkd_processor_count_at(root), 3000);
}

/* Half a processor, one and a half, none set; the strictest of the groups on the way up counts. */
static void version_2(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/job/step\n");
    put("proc/meminfo", "MemAvailable: 1000000 kB\n");
    put("sys/fs/cgroup/job/step/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/job/step/memory.max", "max\n");
    put("sys/fs/cgroup/job/step/memory.current", "7\n");
    assert_int_equal(xkd_processor_count_at(root), 8);
    assert_int_equal(xkd_available_memory_at(root), 1000000 * 1024);
    put("sys/fs/cgroup/job/step/cpu.max", "50000 100000\n");
    assert_int_equal(xkd_processor_count_at(root), 1);
    put("sys/fs/cgroup/job/step/cpu.max", "350000 100000\n");
    put("sys/fs/cgroup/job/cpu.max", "150000 100000\n");
    assert_int_equal(xkd_processor_count_at(root), 2);
    put("sys/fs/cgroup/job/memory.max", "1000000\n");
    put("sys/fs/cgroup/job/memory.current", "900000\n");
    put("sys/fs/cgroup/job/memory.stat", "anon 5\ninactive_file 300000\n");
    assert_int_equal(xkd_available_memory_at(root), 400000);
    assert_int_equal(xkd_cache_bound_at(root), 200000); /* what data.cache=ram takes unless told otherwise */
    put("sys/fs/cgroup/job/memory.current", "2000000\n");
    assert_int_equal(xkd_available_memory_at(root), 0);
}

/* In a container the process has the host's path and the container's own group is mounted at the top. */
static void version_2_inside_a_container(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/../../docker/abc\n");
    put("sys/fs/cgroup/cpu.max", "200000 100000\n");
    assert_int_equal(xkd_processor_count_at(root), 2);
}

static void version_1(void **state)
{
    (void)state;
    put("proc/self/cgroup", "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n0::/\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n");
    put("proc/meminfo", "MemAvailable: 4000 kB\n");
    assert_int_equal(xkd_processor_count_at(root), 8);
    assert_int_equal(xkd_available_memory_at(root), 4000 * 1024);
    put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "250000\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "10000\n");
    put("sys/fs/cgroup/memory/docker/memory.usage_in_bytes", "9000\n");
    put("sys/fs/cgroup/memory/docker/memory.stat", "inactive_file 10\ntotal_inactive_file 500\n");
    assert_int_equal(xkd_processor_count_at(root), 3);
    assert_int_equal(xkd_available_memory_at(root), 1500);
}

/* /proc/self/mountinfo says what is mounted where. A process in a group below its container's, which the path names as the
 * host does; a mount that is elsewhere, with a blank in its name; a list of controllers in another order than its folder's. */
static void mounts_of_a_container(void **state)
{
    (void)state;
    char words[400];
    put("proc/self/mountinfo",
        "31 23 0:28 / /proc rw - proc proc rw\\n"
        "36 31 0:33 /docker/abc /sys/fs/cgroup/x\\\\040y rw,nosuid master:9 - cgroup cg rw,cpu,cpuacct\\n"
        "37 31 0:34 /docker/abc /groups ro - cgroup cg rw,memory\\n");
    put("proc/self/cgroup", "4:memory:/docker/abc/job\\n2:cpuacct,cpu:/docker/abc/job/step\\n0::/\\n");
    put("proc/meminfo", "MemAvailable: 4000 kB\\n");
    put("sys/fs/cgroup/x y/job/cpu.cfs_quota_us", "150000\\n");
    put("sys/fs/cgroup/x y/job/cpu.cfs_period_us", "100000\\n");
    put("sys/fs/cgroup/x y/cpu.cfs_quota_us", "700000\\n");
    put("sys/fs/cgroup/x y/cpu.cfs_period_us", "100000\\n");
    assert_int_equal(xkd_processor_count_at(root), 2);
    xkd_processor_words(root, words, sizeof words);
    assert_non_null(strstr(words, "2 of 8: the quota of a control group pays for 1.50 ("));
    assert_non_null(strstr(words, "/sys/fs/cgroup/x y/job)"));
    put("groups/job/memory.limit_in_bytes", "3000000\\n");
    put("groups/job/memory.usage_in_bytes", "1000000\\n");
    assert_int_equal(xkd_available_memory_at(root), 2000000);
    xkd_memory_words(root, words, sizeof words);
    assert_non_null(strstr(words, "0.0 GB: the limit of a control group ("));
    assert_non_null(strstr(words, "/groups/job)"));
    /* A group of another container's, and a name that only begins alike, are not below what is mounted. */
    put("proc/self/cgroup", "2:cpuacct,cpu:/docker/abcjob\\n");
    assert_int_equal(xkd_processor_count_at(root), 7);
}

/* Version 2 mounted somewhere else, and memory.high, above which the kernel slows the process until it stands still. */
static void mounts_of_version_2(void **state)
{
    (void)state;
    put("proc/self/mountinfo", "25 1 0:9 / /mnt/cg rw - cgroup2 none rw,nsdelegate\\n");
    put("proc/self/cgroup", "0::/user.slice/run\\n");
    put("mnt/cg/user.slice/cpu.max", "100000 400000\\n");
    put("mnt/cg/user.slice/run/memory.max", "max\\n");
    put("mnt/cg/user.slice/run/memory.high", "5000000\\n");
    put("mnt/cg/user.slice/run/memory.current", "1500000\\n");
    put("mnt/cg/user.slice/run/memory.swap.max", "0\\n");
    assert_int_equal(xkd_processor_count_at(root), 1);
    assert_int_equal(xkd_available_memory_at(root), 3500000);
    put("mnt/cg/user.slice/memory.max", "2000000\\n");
    put("mnt/cg/user.slice/memory.high", "max\\n");
    put("mnt/cg/user.slice/memory.current", "1900000\\n");
    assert_int_equal(xkd_available_memory_at(root), 100000);
}

/* Version 1 tells each group the lowest limit above it, also where nothing above can be seen. */
static void limits_above_what_is_mounted(void **state)
{
    (void)state;
    put("proc/self/mountinfo", "37 31 0:34 /docker/abc /sys/fs/cgroup/memory ro - cgroup cg rw,memory\\n");
    put("proc/self/cgroup", "4:memory:/docker/abc\\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "3000\\n");
    put("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 8000\\ntotal_inactive_file 1000\\n");
    assert_int_equal(xkd_available_memory_at(root), 6000);
}

static void words_without_limits(void **state)
{
    (void)state;
    char words[400];
    processors = 4096; /* more than the machine has, so that no mask is told */
    xkd_processor_words(root, words, sizeof words);
    assert_string_equal(words, "4096");
    xkd_memory_words(root, words, sizeof words);
    assert_string_equal(words, "not known");
    put("proc/meminfo", "MemAvailable: 5000000 kB\\n");
    xkd_memory_words(root, words, sizeof words);
    assert_string_equal(words, "5.1 GB");
}

static void nonsense(void **state)
{
    (void)state;
    put("proc/self/cgroup", "nonsense\n::\n0:\n7:cpu\n0::no-slash\n");
    put("sys/fs/cgroup/cpu.max", "0 0\n");
    put("sys/fs/cgroup/memory.max", "x\n");
    put("sys/fs/cgroup/memory.current", "y\n");
    assert_int_equal(xkd_processor_count_at(root), 8);
    assert_true(xkd_available_memory_at(root) == SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(no_groups, empty),
        cmocka_unit_test_setup(more_than_1024_processors, empty),
        cmocka_unit_test_setup(version_2, empty),
        cmocka_unit_test_setup(version_2_inside_a_container, empty),
        cmocka_unit_test_setup(version_1, empty),
        cmocka_unit_test_setup(nonsense, empty),
        cmocka_unit_test_setup(mounts_of_a_container, empty),
        cmocka_unit_test_setup(mounts_of_version_2, empty),
        cmocka_unit_test_setup(limits_above_what_is_mounted, empty),
        cmocka_unit_test_setup(words_without_limits, empty),
    };
    if (!mkdtemp(root)) return 1;
    int failed = cmocka_run_group_tests_name("machine", tests, NULL, NULL);
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command) || failed;
}
