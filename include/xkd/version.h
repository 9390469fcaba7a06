/* Which version this is. Versions before 1.0 may change the interface with their minor number; the number in the library's
 * file name, libxkd.so.0, changes with every incompatible change. */
#ifndef XKD_VERSION_H
#define XKD_VERSION_H

#include <xkd/api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of these headers; the build takes its version from here. */
#define XKD_VERSION_MAJOR 0
#define XKD_VERSION_MINOR 1
#define XKD_VERSION_PATCH 0

/* Of the library that runs, "major.minor.patch". Static string. Any thread may ask. */
XKD_API const char *xkd_version(void);

#ifdef __cplusplus
}
#endif
#endif
