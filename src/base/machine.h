/* What this process may use of the machine: processors and memory, as affinity and control groups (containers, jobs of a
 * scheduler, systemd) leave them. */
#ifndef XKD_BASE_MACHINE_H
#define XKD_BASE_MACHINE_H

#include <stddef.h>

/* At least 1: those of the affinity mask, and no more than a quota of processor time pays for, rounded up. */
int xkd_processor_count(void);

/* From now on the count is at most `most`, for a process that shares its processors with others of its kind; 0: no limit. */
void xkd_limit_processors(int most);

/* Bytes that could be handed out without swapping and below the limits of all control groups; SIZE_MAX where nothing says
 * so. */
size_t xkd_available_memory(void);

/* The same by the files below `root` instead of "/": <root>/proc and <root>/sys. The affinity mask is this process's. */
int xkd_processor_count_at(const char *root);
size_t xkd_available_memory_at(const char *root);

/* For people: the count, or what is free, and what limits it ("2 of 8: the quota of a control group pays for 1.50 (FOLDER)"). */
void xkd_processor_words(const char *root, char *out, size_t size);
void xkd_memory_words(const char *root, char *out, size_t size);

#endif
