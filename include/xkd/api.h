/* What marks the functions of the library. Only these are visible in libxkd.so. */
#ifndef XKD_API_H
#define XKD_API_H

#define XKD_API __attribute__((visibility("default")))

#endif
