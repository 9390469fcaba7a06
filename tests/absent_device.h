/* Devices that a machine or a build may lack: tests on them are skipped then, and say so. */
#ifndef XKD_TESTS_ABSENT_DEVICE_H
#define XKD_TESTS_ABSENT_DEVICE_H

#include <stdbool.h>
#include <string.h>

/* A GPU, and the simulation of one where it was not built. */
static inline bool may_be_absent(const char *device)
{
#ifdef XKD_HAVE_CUDASIM
    return strcmp(device, "cuda") == 0;
#else
    return strncmp(device, "cuda", 4) == 0;
#endif
}

#endif
