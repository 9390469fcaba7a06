/* Finding and loading modules. */
#include "base/module.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void *load_from(const char *folder, const char *file, const char *symbol, int flags, char *why, size_t size)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    if (access(path, F_OK) != 0) return NULL;
    void *module = dlopen(path, flags);
    void *found = module ? dlsym(module, symbol) : NULL;
    if (!found) snprintf(why, size, "%s: %s", path, dlerror());
    return found;
}

void *xkd_module_symbol(const char *file, const char *symbol, bool global, const char *remedy, char *why, size_t size)
{
    char program[4096];
    void *found = NULL;
    int flags = RTLD_NOW | (global ? RTLD_GLOBAL : RTLD_LOCAL);
    snprintf(why, size, "%s is neither beside the program nor in %s: %s", file, XKD_MODULES, remedy);
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length > 0) {
        program[length] = 0;
        char *slash = strrchr(program, '/');
        if (slash) *slash = 0;
        found = load_from(program, file, symbol, flags, why, size);
    }
    return found ? found : load_from(XKD_MODULES, file, symbol, flags, why, size);
}
