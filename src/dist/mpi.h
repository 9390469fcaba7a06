/* Messages through MPI; see dist_parts.h for what an exchange is. */
#ifndef XKD_DIST_MPI_H
#define XKD_DIST_MPI_H

#include "dist/dist_parts.h"

enum { XKD_ADDRESSES = 512 };

/* Whether this process was started by mpirun or the like. */
bool xkd_mpi_started(void);

/* Loads and starts MPI; fills in rank, size and mpi. */
xkd_status xkd_mpi_place(xkd_context *cx, xkd_dist_place *out);

/* Rank 0's port, token and addresses, on every rank. */
xkd_status xkd_mpi_tell_address(xkd_context *cx, int rank, int *port, uint64_t *token, char address[XKD_ADDRESSES]);

xkd_status xkd_mpi_exchange_all(xkd_dist *d, const xkd_exchange *e);

/* Whether exchanges may come from other threads than the first, one at a time. */
bool xkd_mpi_allows_threads(void);

/* All ranks have come to their end together. */
void xkd_mpi_end(void);

#endif
