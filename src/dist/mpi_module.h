/* What the program and its module libxkd-mpi.so know of each other. MPI stands in a module, so that the program runs, and can
 * be installed, where there is none. */
#ifndef XKD_DIST_MPI_MODULE_H
#define XKD_DIST_MPI_MODULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As xkd_exchange; both directions of all ranks. */
typedef struct {
    const void *const *out;
    const int64_t *out_bytes;
    void *const *in;
    const int64_t *in_bytes;
    /* Asked again and again while messages are under way; false ends the wait. */
    bool (*goes_on)(void *user);
    void *user;
} xkd_mpi_exchange;

typedef struct {
    const char *(*version)(void); /* of the MPI library */
    /* Functions return 0, or -1 with a sentence in error [size]. */
    int (*start)(int *rank, int *ranks, bool *threads, char *error,
                 size_t size);                                             /* threads: any may call, one at a time */
    int (*broadcast)(void *data, int64_t bytes, char *error, size_t size); /* from rank 0 */
    int (*exchange)(const xkd_mpi_exchange *e, char *error, size_t size);
    void (*end)(void); /* all ranks have come to their end */
} xkd_mpi_table;

/* The module's one symbol; its number changes with this header. */
__attribute__((visibility("default"))) const xkd_mpi_table *xkd_mpi_table_1(void);

#endif
