/* libxkd-mpi.so: the messages of ranks that mpirun or srun has started. It knows nothing of the program but
 * dist/mpi_module.h. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "dist/mpi_module.h"

/* Counts of MPI are ints; larger messages go in pieces. */
static const int64_t PIECE = (int64_t)1 << 30;

static int explain(int code, const char *what, char *error, size_t size)
{
    char text[MPI_MAX_ERROR_STRING];
    int length;
    if (code == MPI_SUCCESS) return 0;
    MPI_Error_string(code, text, &length);
    snprintf(error, size, "%s: %.*s", what, length, text);
    return -1;
}

static const char *version(void)
{
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(text, &length);
    for (int i = 0; i < length; i++)
        if (text[i] == ',' || text[i] == '\n') text[i] = 0;
    return text;
}

/* One thread calls at a time, though not always the same. */
static int start(int *rank, int *ranks, bool *threads, char *error, size_t size)
{
    int level, done;
    MPI_Initialized(&done);
    if (!done && explain(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level), "MPI_Init_thread", error, size))
        return -1;
    MPI_Query_thread(&level);
    *threads = level >= MPI_THREAD_SERIALIZED;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, rank);
    MPI_Comm_size(MPI_COMM_WORLD, ranks);
    return 0;
}

static int broadcast(void *data, int64_t bytes, char *error, size_t size)
{
    return explain(MPI_Bcast(data, (int)bytes, MPI_BYTE, 0, MPI_COMM_WORLD), "MPI_Bcast", error, size);
}

static int64_t pieces_of(int64_t bytes)
{
    return (bytes + PIECE - 1) / PIECE;
}

/* One message, in pieces that arrive in the order in which they leave. */
static int post(int peer, char *data, int64_t bytes, bool sends, MPI_Request **next)
{
    for (int64_t at = 0; at < bytes; at += PIECE) {
        int n = (int)(bytes - at < PIECE ? bytes - at : PIECE);
        int code = sends ? MPI_Isend(data + at, n, MPI_BYTE, peer, 0, MPI_COMM_WORLD, (*next)++)
                         : MPI_Irecv(data + at, n, MPI_BYTE, peer, 0, MPI_COMM_WORLD, (*next)++);
        if (code != MPI_SUCCESS) return code;
    }
    return MPI_SUCCESS;
}

static int exchange(const xkd_mpi_exchange *e, char *error, size_t size)
{
    int rank, ranks, code = MPI_SUCCESS, done = 0;
    int64_t count = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    for (int r = 0; r < ranks; r++)
        if (r != rank) count += pieces_of(e->out_bytes[r]) + pieces_of(e->in_bytes[r]);
    MPI_Request *requests = malloc((size_t)(count ? count : 1) * sizeof *requests), *next = requests;
    if (!requests) {
        snprintf(error, size, "out of memory for %lld messages", (long long)count);
        return -1;
    }
    for (int r = 0; r < ranks && code == MPI_SUCCESS; r++)
        if (r != rank) code = post(r, e->in[r], e->in_bytes[r], false, &next);
    for (int r = 0; r < ranks && code == MPI_SUCCESS; r++)
        if (r != rank) code = post(r, (char *)(uintptr_t)e->out[r], e->out_bytes[r], true, &next);
    while (code == MPI_SUCCESS && !done) {
        code = MPI_Testall((int)count, requests, &done, MPI_STATUSES_IGNORE);
        if (code == MPI_SUCCESS && !done && !e->goes_on(e->user)) break;
    }
    free(requests);
    if (code != MPI_SUCCESS) return explain(code, "MPI", error, size);
    if (done) return 0;
    snprintf(error, size, "a rank is lost");
    return -1;
}

static void end(void)
{
    MPI_Finalize();
}

const xkd_mpi_table *xkd_mpi_table_1(void)
{
    static const xkd_mpi_table table = {version, start, broadcast, exchange, end};
    return &table;
}
