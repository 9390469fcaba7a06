/* Shared objects that the program loads when they are first wanted, so that it runs without what they are linked with. */
#ifndef XKD_BASE_MODULE_H
#define XKD_BASE_MODULE_H

#include <stdbool.h>
#include <stddef.h>

/* A module's one symbol, from beside the program or the folder that modules are installed in, and from nowhere else. `global`: others
 * look for its names. NULL, and in why [size] what is wrong: that it is not there, with `remedy`, or what the loader says. */
void *xkd_module_symbol(const char *file, const char *symbol, bool global, const char *remedy, char *why, size_t size);

#endif
