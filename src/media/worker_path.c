/* A worker is the xkd program, or any program with the entry of <xkd/worker.h>. A program in another language, such as Python,
 * has no such entry and only loads the library, so the library looks for xkd in the places where it lies beside it. */
#include "media/worker_path.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"

static const char SELF[] = "/proc/self/exe";

/* From the folder of the library: a build folder; PREFIX/lib, and PREFIX/lib/x86_64-linux-gnu as Debian has it. */
static const char *const beside[] = {"xkd", "../bin/xkd", "../../bin/xkd"};

static bool is_program(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode) && access(path, X_OK) == 0;
}

/* The file that this code was loaded from, NULL where it is part of the running program. */
static const char *shared_library(void)
{
    Dl_info info;
    struct stat code, self;
    if (!dladdr((const void *)(uintptr_t)&xkd_worker_path, &info) || !info.dli_fname) return NULL;
    if (stat(info.dli_fname, &code) != 0 || stat(SELF, &self) != 0) return NULL;
    return code.st_dev == self.st_dev && code.st_ino == self.st_ino ? NULL : info.dli_fname;
}

/* *out stays NULL where there is none. */
static xkd_status beside_library(xkd_context *cx, const char *library, char **out)
{
    xkd_status status = XKD_OK;
    const char *slash = strrchr(library, '/');
    int length = slash ? (int)(slash - library) : 1;
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        XKD_TRY(xkd_format_string(cx, out, "%.*s/%s", length, slash ? library : ".", beside[i]));
        if (is_program(*out)) return XKD_OK;
        xkd_free(*out);
        *out = NULL;
    }
    if (is_program(XKD_PROGRAM)) XKD_TRY(xkd_copy_string(cx, out, XKD_PROGRAM));
fail:
    return status;
}

xkd_status xkd_worker_path(xkd_context *cx, const char *given, char **out)
{
    xkd_status status = XKD_OK;
    const char *library;
    *out = NULL;
    if (!given) given = getenv("XKD_WORKER");
    if (given && given[0]) return xkd_copy_string(cx, out, given);
    library = shared_library();
    if (library) XKD_TRY(beside_library(cx, library, out));
    if (!*out) XKD_TRY(xkd_copy_string(cx, out, SELF));
fail:
    return status;
}
