/* The one place that opens, writes and renames files. Every message names the path. */
#ifndef XKD_BASE_FILE_H
#define XKD_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* What the system says of an error (errno), with what to do about it where that is known. */
const char *xkd_reason(int error);

/* Reads a whole regular file of at most `limit` bytes into *out, with a 0 byte added behind. The caller frees *out with
 * xkd_free. Missing or unreadable: XKD_ERR_STORAGE; larger than the limit: `too_large`. */
xkd_status xkd_read_file(xkd_context *cx, const char *path, int64_t limit, xkd_status too_large, char **out,
                         int64_t *size);

/* Opens a regular file for reading (no links to devices, no FIFOs): descriptor in *fd, size in *size. The caller
 * closes it with close(). */
xkd_status xkd_open_read(xkd_context *cx, const char *path, int *fd, int64_t *size);

/* Reads `size` bytes at `offset` of an open file, which has them: XKD_ERR_STORAGE where it has not, or fails. */
xkd_status xkd_read_at(xkd_context *cx, int fd, const char *path, void *out, int64_t size, int64_t offset);

/* Bytes that may be written below a folder, which need not be there yet; -1: not known. */
int64_t xkd_free_space(const char *path);

/* Reads all of a file and drops it: a disk or server that fails shows as XKD_ERR_STORAGE, while a map of the file would
 * end the process with a signal. */
xkd_status xkd_read_through(xkd_context *cx, const char *path);

/* A read-only memory map of a whole regular file; an empty file gives a NULL base. */
typedef struct {
    const unsigned char *base;
    int64_t size;
} xkd_map;

xkd_status xkd_map_file(xkd_context *cx, const char *path, xkd_map *map);
void xkd_unmap(xkd_map *map);

/* Atomic replacement of a file: written to "<path>.tmp-PID", fsync, rename, fsync of the folder. A link is followed. What is no
 * regular file stays as it is: XKD_ERR_STORAGE. */
typedef struct xkd_writer xkd_writer;

xkd_status xkd_writer_open(xkd_context *cx, const char *path, xkd_writer **out);
xkd_status xkd_writer_write(xkd_writer *writer, const void *data, int64_t size);
/* Replaces `size` bytes at `offset`, all of them written before: for sums that are known only at the end. */
xkd_status xkd_writer_patch(xkd_writer *writer, int64_t offset, const void *data, int64_t size);
/* For a file that takes hours: what is written stands in "<path>.part" and outlives a stop. Goes on with what is there,
 * *size bytes, which *fd reads as well. XKD_ERR_CONFIG where another process writes it. */
xkd_status xkd_writer_resume(xkd_context *cx, const char *path, xkd_writer **out, int *fd, int64_t *size);
/* Takes back all bytes from `size` on; what comes next is written there. */
xkd_status xkd_writer_cut(xkd_writer *writer, int64_t size);
int64_t xkd_writer_size(const xkd_writer *writer);
/* Safe on the disk as far as it is; the part stays for xkd_writer_resume. Frees the writer in any case. */
xkd_status xkd_writer_leave(xkd_writer *writer);
/* Publishes the file and frees the writer, in any case. */
xkd_status xkd_writer_commit(xkd_writer *writer);
/* Removes the temporary file (a part that was resumed stays) and frees the writer; NULL is allowed. */
void xkd_writer_abort(xkd_writer *writer);

/* All of it in one call. */
xkd_status xkd_write_file(xkd_context *cx, const char *path, const void *data, int64_t size);

/* A log that only grows; each append is one write() call. */
xkd_status xkd_append_open(xkd_context *cx, const char *path, int *fd);
xkd_status xkd_append(xkd_context *cx, int fd, const char *path, const void *data, int64_t size);

/* Makes a folder and its missing parents; an existing folder is fine. */
xkd_status xkd_make_folder(xkd_context *cx, const char *path);

/* Whether xkd_make_folder could make this folder and files be written in it, without making anything; likewise the folder
 * of a file that is to be written. XKD_ERR_STORAGE. */
xkd_status xkd_check_folder(xkd_context *cx, const char *path);
xkd_status xkd_check_folder_of(xkd_context *cx, const char *file);

/* Removes a file; one that is not there is fine. */
xkd_status xkd_remove_file(xkd_context *cx, const char *path);
/* The same for folder/name. */
xkd_status xkd_remove_in(xkd_context *cx, const char *folder, const char *name);

/* Renames folder/name to "name.aside", or the first of "name.aside-2", ... that is free: for what must neither stay in its
 * place nor be lost. A warning says so. */
xkd_status xkd_set_aside(xkd_context *cx, const char *folder, const char *name);

/* Names in a folder without "." and "..", sorted by bytes. Free with xkd_free_names. */
typedef struct {
    char **items; /* [count] */
    int64_t count, capacity;
} xkd_names;

xkd_status xkd_list_folder(xkd_context *cx, const char *path, xkd_names *out);
void xkd_free_names(xkd_names *names);

/* Opens (or makes) a file and locks it for this process; the lock ends when *fd is closed or the process dies. Already
 * locked by another process: XKD_ERR_CONFIG. */
xkd_status xkd_lock_file(xkd_context *cx, const char *path, int *fd);

int xkd_path_exists(const char *path);
int xkd_is_folder(const char *path);

/* "folder/name" in a new string that the caller frees with xkd_free. */
xkd_status xkd_join_path(xkd_context *cx, char **out, const char *folder, const char *name);

#endif
