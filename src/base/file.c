/* Files: reading whole or mapped, publishing in one step, appending, folders, locks. Every message
 * names the path, since a caller can rarely add to it. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

const char *xkd_reason(int error)
{
    static const struct {
        int error;
        const char *text;
    } known[] = {
        {ENOENT, "No such file or directory (check the path)"},
        {EACCES, "Permission denied (choose a place that you may use)"},
        {EROFS, "Read-only file system (choose another place)"},
        {ENOSPC, "No space left on device (free some space, then give the command again; a training wants --resume)"},
        {EDQUOT, "Disk quota exceeded (free some space, then give the command again; a training wants --resume)"},
        {ENOTDIR, "Not a directory (a part of the path is a file)"},
        {EISDIR, "Is a directory (name a file)"},
        {EMFILE, "Too many open files (raise 'ulimit -n')"},
        {EIO, "Input/output error (see the system's log: the disk may be failing)"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].error == error) return known[i].text;
    return strerror(error);
}

struct xkd_writer {
    xkd_context *cx;
    char *path, *temporary;   /* temporary: beside the path, so on the same file system */
    int fd;                   /* -1: closed */
    int64_t written, flushed; /* bytes; the disk was told to begin with those before `flushed` */
    bool kept;                /* the temporary file outlives a writer that is given up */
};

/* So much is given to the disk at once while more is being written: large enough for its full speed, small beside what
 * a checkpoint takes, so that little is left to wait for at the end. */
enum { FLUSH_BYTES = 32 << 20 };

/* Size from the open descriptor, not from the path, which may have come to name another file. */
xkd_status xkd_open_read(xkd_context *cx, const char *path, int *fd, int64_t *size)
{
    struct stat info;
    /* O_NONBLOCK: opening a FIFO must not wait for a writer; it has no effect on regular files. */
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return xkd_fail(cx, XKD_ERR_STORAGE, "%s: cannot open: %s", path, xkd_reason(errno));
    if (fstat(*fd, &info) == 0 && S_ISREG(info.st_mode)) {
        *size = info.st_size;
        return XKD_OK;
    }
    close(*fd);
    *fd = -1;
    return xkd_fail(cx, XKD_ERR_STORAGE, "%s: not a regular file", path);
}

/* read may give less than asked for; a file that shrinks is a fault, one that grows is read to its
 * old end. */
static xkd_status read_all(xkd_context *cx, int fd, const char *path, char *out, int64_t size)
{
    for (int64_t done = 0; done < size;) {
        ssize_t got = read(fd, out + done, (size_t)(size - done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return xkd_fail(cx, XKD_ERR_STORAGE, "%s: cannot read: %s", path, xkd_reason(errno));
        if (got == 0) return xkd_fail(cx, XKD_ERR_STORAGE, "%s: became shorter while it was read", path);
        done += got;
    }
    return XKD_OK;
}

xkd_status xkd_read_at(xkd_context *cx, int fd, const char *path, void *out, int64_t size, int64_t offset)
{
    for (int64_t done = 0; done < size;) {
        ssize_t got = pread(fd, (char *)out + done, (size_t)(size - done), offset + done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return xkd_fail(cx, XKD_ERR_STORAGE, "%s: cannot read: %s", path, strerror(errno));
        if (got == 0) return xkd_fail(cx, XKD_ERR_STORAGE, "%s: is shorter than it should be", path);
        done += got;
    }
    return XKD_OK;
}

int64_t xkd_free_space(const char *path)
{
    struct statvfs info;
    char above[PATH_MAX];
    int missing;
    snprintf(above, sizeof above, "%s", path);
    /* A folder that is still to be made goes where the nearest one above it is. */
    while ((missing = statvfs(above, &info) != 0) && errno == ENOENT && strcmp(above, ".") && strcmp(above, "/")) {
        char *slash = strrchr(above, '/');
        if (!slash) strcpy(above, ".");
        if (slash) slash[slash == above] = 0;
    }
    return missing ? -1 : (int64_t)info.f_bavail * (int64_t)info.f_frsize;
}

/* One byte more is allocated and is 0, so text may be used as a string. The limit comes before the
 * allocation. */
xkd_status xkd_read_file(xkd_context *cx, const char *path, int64_t limit, xkd_status too_large, char **out,
                         int64_t *size)
{
    xkd_status status = XKD_OK;
    int fd = -1;
    *out = NULL;
    XKD_TRY(xkd_open_read(cx, path, &fd, size));
    if (*size > limit)
        XKD_FAIL(too_large, "%s: %lld bytes, more than the %lld allowed here", path, (long long)*size,
                 (long long)limit);
    XKD_TRY(xkd_alloc(cx, out, *size + 1, 1));
    XKD_TRY(read_all(cx, fd, path, *out, *size));
fail:
    if (fd >= 0) close(fd);
    if (status != XKD_OK) {
        xkd_free(*out);
        *out = NULL;
    }
    return status;
}

xkd_status xkd_read_through(xkd_context *cx, const char *path)
{
    xkd_status status = XKD_OK;
    int fd = -1;
    int64_t size = 0;
    char *piece = NULL;
    const int64_t most = 4 << 20; /* from here on larger pieces are no faster */
    XKD_TRY(xkd_open_read(cx, path, &fd, &size));
    XKD_TRY(xkd_alloc(cx, &piece, most, 1));
    for (int64_t done = 0; done < size; done += most)
        XKD_TRY(read_all(cx, fd, path, piece, size - done < most ? size - done : most));
fail:
    if (fd >= 0) close(fd);
    xkd_free(piece);
    return status;
}

/* An empty file has no mapping, but is none the less a success.
 * A file that another process cuts short makes reads of it fail with a signal; files here are
 * replaced, not changed. */
xkd_status xkd_map_file(xkd_context *cx, const char *path, xkd_map *map)
{
    xkd_status status = XKD_OK;
    int fd = -1;
    int64_t size = 0;
    *map = (xkd_map){0};
    XKD_TRY(xkd_open_read(cx, path, &fd, &size));
    if (size > 0) {
        void *base = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (base == MAP_FAILED) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot map: %s", path, xkd_reason(errno));
        /* Everything that maps a file reads all of it. The disk begins with the whole file now, in large requests, and
         * goes on while the first pages are looked at. Advice only: a refusal costs nothing but speed. */
        madvise(base, (size_t)size, MADV_WILLNEED);
        *map = (xkd_map){.base = base, .size = size};
    }
fail:
    if (fd >= 0) close(fd);
    return status;
}

void xkd_unmap(xkd_map *map)
{
    if (map->base) munmap((void *)(uintptr_t)map->base, (size_t)map->size);
    *map = (xkd_map){0};
}

static void writer_free(xkd_writer *writer)
{
    if (writer->fd >= 0) close(writer->fd);
    xkd_free(writer->path);
    xkd_free(writer->temporary);
    xkd_free(writer);
}

/* A rename would put a file in the place of a device, a FIFO or a link: /dev/full and /dev/stdout would be gone for the whole
 * machine. A link is followed, as other programs do. */
static xkd_status check_target(xkd_context *cx, const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return xkd_fail(cx, XKD_ERR_STORAGE, "%s: is no regular file, and is not replaced by one (name another file)",
                        path);
    return XKD_OK;
}

/* Where the writer's file will stand; *out is the caller's. */
static xkd_status find_target(xkd_context *cx, const char *path, char **out)
{
    struct stat st;
    xkd_status status = check_target(cx, path);
    if (status != XKD_OK) return status;
    char *behind = lstat(path, &st) == 0 && S_ISLNK(st.st_mode) ? realpath(path, NULL) : NULL;
    status = xkd_copy_string(cx, out, behind ? behind : path);
    free(behind);
    return status;
}

/* The process number keeps two processes apart; within one, callers see to it that a path has one
 * writer at a time. */
xkd_status xkd_writer_open(xkd_context *cx, const char *path, xkd_writer **out)
{
    xkd_status status = XKD_OK;
    xkd_writer *writer = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &writer, 1, sizeof *writer));
    *writer = (xkd_writer){.cx = cx, .fd = -1};
    XKD_TRY(find_target(cx, path, &writer->path));
    XKD_TRY(xkd_format_string(cx, &writer->temporary, "%s.tmp-%d", writer->path, (int)getpid()));
    writer->fd = open(writer->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (writer->fd < 0) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot create: %s", path, xkd_reason(errno));
    *out = writer;
    writer = NULL;
fail:
    if (writer) writer_free(writer);
    return status;
}

/* write may take less than given. */
static xkd_status write_all(xkd_context *cx, int fd, const char *path, const void *data, int64_t size)
{
    const char *bytes = data;
    for (int64_t done = 0; done < size;) {
        ssize_t put = write(fd, bytes + done, (size_t)(size - done));
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return xkd_fail(cx, XKD_ERR_STORAGE, "%s: cannot write: %s", path, xkd_reason(errno));
        done += put;
    }
    return XKD_OK;
}

/* The disk begins with a piece while the next one is copied (and summed, by the caller). It is a request only: fsync on
 * commit is what makes sure, so that its result does not matter, nor that some file systems do not know it. */
static void start_flush(xkd_writer *writer)
{
    sync_file_range(writer->fd, writer->flushed, writer->written - writer->flushed, SYNC_FILE_RANGE_WRITE);
    writer->flushed = writer->written;
}

xkd_status xkd_writer_write(xkd_writer *writer, const void *data, int64_t size)
{
    for (int64_t done = 0; done < size;) {
        int64_t piece = size - done < FLUSH_BYTES ? size - done : FLUSH_BYTES;
        xkd_status status = write_all(writer->cx, writer->fd, writer->path, (const char *)data + done, piece);
        if (status != XKD_OK) return status;
        done += piece;
        xkd_tick();
        writer->written += piece;
        if (writer->written - writer->flushed >= FLUSH_BYTES) start_flush(writer);
    }
    return XKD_OK;
}

xkd_status xkd_writer_patch(xkd_writer *writer, int64_t offset, const void *data, int64_t size)
{
    ssize_t put;
    /* A few bytes within what is there already: a short count means a fault. */
    do put = pwrite(writer->fd, data, (size_t)size, offset);
    while (put < 0 && errno == EINTR);
    if (put == size) return XKD_OK;
    return xkd_fail(writer->cx, XKD_ERR_STORAGE, "%s: cannot write: %s", writer->path,
                    put < 0 ? xkd_reason(errno) : "short write");
}

/* A rename is only safe on disk once its folder is. */
static xkd_status sync_folder_of(xkd_context *cx, const char *path)
{
    xkd_status status = XKD_OK;
    char *folder = NULL;
    XKD_TRY(xkd_copy_string(cx, &folder, path));
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = 0;
    const char *name = slash ? folder : ".";
    int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot open folder: %s", name, xkd_reason(errno));
    int failed = fsync(fd) != 0 && errno != EINVAL; /* EINVAL: a file system without folder sync */
    int error = errno;
    close(fd);
    if (failed) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot sync folder: %s", name, xkd_reason(error));
fail:
    xkd_free(folder);
    return status;
}

/* The order data, close, rename, folder is what makes the file whole or absent after a power cut.
 * Frees the writer in every case. */
xkd_status xkd_writer_commit(xkd_writer *writer)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = writer->cx;
    if (fsync(writer->fd) != 0) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot sync: %s", writer->path, xkd_reason(errno));
    /* What is kept goes by its lock until it has its name: another process would take it for unfinished. */
    if (!writer->kept) {
        int closed = close(writer->fd);
        writer->fd = -1;
        if (closed != 0) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot close: %s", writer->path, xkd_reason(errno));
    }
    if (rename(writer->temporary, writer->path) != 0)
        XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot rename into place: %s", writer->path, xkd_reason(errno));
    XKD_TRY(sync_folder_of(cx, writer->path));
    writer_free(writer);
    return XKD_OK;
fail:
    xkd_writer_abort(writer);
    return status;
}

xkd_status xkd_writer_resume(xkd_context *cx, const char *path, xkd_writer **out, int *fd, int64_t *size)
{
    xkd_status status = XKD_OK;
    xkd_writer *writer = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &writer, 1, sizeof *writer));
    *writer = (xkd_writer){.cx = cx, .fd = -1, .kept = true};
    XKD_TRY(find_target(cx, path, &writer->path));
    XKD_TRY(xkd_format_string(cx, &writer->temporary, "%s.part", writer->path));
    XKD_TRY(xkd_lock_file(cx, writer->temporary, &writer->fd));
    off_t end = lseek(writer->fd, 0, SEEK_END);
    if (end < 0) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot seek: %s", writer->temporary, strerror(errno));
    writer->written = writer->flushed = *size = end;
    *fd = writer->fd;
    *out = writer;
    writer = NULL;
fail:
    if (writer) writer_free(writer);
    return status;
}

xkd_status xkd_writer_cut(xkd_writer *writer, int64_t size)
{
    if (ftruncate(writer->fd, (off_t)size) != 0 || lseek(writer->fd, (off_t)size, SEEK_SET) != (off_t)size)
        return xkd_fail(writer->cx, XKD_ERR_STORAGE, "%s: cannot shorten: %s", writer->path, strerror(errno));
    writer->written = size;
    if (writer->flushed > size) writer->flushed = size;
    return XKD_OK;
}

int64_t xkd_writer_size(const xkd_writer *writer)
{
    return writer->written;
}

xkd_status xkd_writer_leave(xkd_writer *writer)
{
    xkd_status status = XKD_OK;
    if (fsync(writer->fd) != 0)
        status = xkd_fail(writer->cx, XKD_ERR_STORAGE, "%s: cannot sync: %s", writer->path, strerror(errno));
    writer_free(writer);
    return status;
}

/* NULL does nothing. The path's old content stays. */
void xkd_writer_abort(xkd_writer *writer)
{
    if (!writer) return;
    if (!writer->kept) unlink(writer->temporary);
    writer_free(writer);
}

/* The common case of one piece. */
xkd_status xkd_write_file(xkd_context *cx, const char *path, const void *data, int64_t size)
{
    xkd_status status = XKD_OK;
    xkd_writer *writer = NULL;
    XKD_TRY(xkd_writer_open(cx, path, &writer));
    XKD_TRY(xkd_writer_write(writer, data, size));
    xkd_writer *published = writer;
    writer = NULL;
    XKD_TRY(xkd_writer_commit(published));
fail:
    xkd_writer_abort(writer);
    return status;
}

/* O_APPEND: every write goes to the end, also after another process has written. */
xkd_status xkd_append_open(xkd_context *cx, const char *path, int *fd)
{
    *fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (*fd < 0) return xkd_fail(cx, XKD_ERR_STORAGE, "%s: cannot open for appending: %s", path, xkd_reason(errno));
    return XKD_OK;
}

/* Mostly one write call, which other processes see as a whole. */
xkd_status xkd_append(xkd_context *cx, int fd, const char *path, const void *data, int64_t size)
{
    return write_all(cx, fd, path, data, size);
}

/* Like `mkdir -p`. Another process may make the same folder at the same time. */
xkd_status xkd_make_folder(xkd_context *cx, const char *path)
{
    xkd_status status = XKD_OK;
    char *copy = NULL;
    XKD_TRY(xkd_copy_string(cx, &copy, path));
    for (char *at = copy + 1; *copy; at++) {
        if (*at != '/' && *at != 0) continue;
        char end = *at;
        *at = 0;
        if (mkdir(copy, 0755) != 0 && errno != EEXIST)
            XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot make folder: %s", copy, xkd_reason(errno));
        *at = end;
        if (!end) break;
    }
    if (!xkd_is_folder(path)) XKD_FAIL(XKD_ERR_STORAGE, "%s: exists and is not a folder", path);
fail:
    xkd_free(copy);
    return status;
}

/* By the nearest part of the path that exists. A trial, not a promise: a disk may still be full. */
xkd_status xkd_check_folder(xkd_context *cx, const char *path)
{
    xkd_status status = XKD_OK;
    char *copy = NULL;
    XKD_TRY(xkd_copy_string(cx, &copy, path));
    while (!xkd_path_exists(copy)) {
        char *slash = strrchr(copy, '/');
        if (!slash)
            strcpy(copy, ".");
        else if (slash[1] == 0 && slash > copy)
            *slash = 0; /* a slash at the end */
        else
            slash[slash == copy] = 0;
        if (!*copy) break;
    }
    if (!xkd_is_folder(copy)) XKD_FAIL(XKD_ERR_STORAGE, "%s: exists and is not a folder", copy);
    if (access(copy, W_OK | X_OK) != 0) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot write here: %s", copy, xkd_reason(errno));
fail:
    xkd_free(copy);
    return status;
}

xkd_status xkd_check_folder_of(xkd_context *cx, const char *file)
{
    xkd_status status = XKD_OK;
    char *folder = NULL;
    if (xkd_is_folder(file)) XKD_FAIL(XKD_ERR_STORAGE, "%s: is a folder", file);
    XKD_TRY(check_target(cx, file));
    XKD_TRY(xkd_copy_string(cx, &folder, file));
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = 0;
    const char *name = slash ? folder : ".";
    if (!xkd_is_folder(name)) XKD_FAIL(XKD_ERR_STORAGE, "%s: no such folder (for %s)", name, file);
    XKD_TRY(xkd_check_folder(cx, name));
fail:
    xkd_free(folder);
    return status;
}

/* A file that is not there is as good as removed. */
xkd_status xkd_remove_file(xkd_context *cx, const char *path)
{
    if (unlink(path) == 0 || errno == ENOENT) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_STORAGE, "%s: cannot remove: %s", path, xkd_reason(errno));
}

xkd_status xkd_set_aside(xkd_context *cx, const char *folder, const char *name)
{
    xkd_status status = XKD_OK;
    char *path = NULL, *aside = NULL;
    XKD_TRY(xkd_join_path(cx, &path, folder, name));
    XKD_TRY(xkd_format_string(cx, &aside, "%s.aside", path));
    for (int i = 2; xkd_path_exists(aside); i++) {
        xkd_free(aside);
        aside = NULL;
        XKD_TRY(xkd_format_string(cx, &aside, "%s.aside-%d", path, i));
    }
    if (rename(path, aside) != 0)
        XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot rename to %s: %s", path, aside, xkd_reason(errno));
    xkd_log(cx, XKD_LOG_WARN, "%s: set aside as %s", path, aside);
fail:
    xkd_free(path);
    xkd_free(aside);
    return status;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The name is counted only once it is there, so freeing the list is always safe. */
static xkd_status add_name(xkd_context *cx, xkd_names *names, const char *name)
{
    if (names->count == names->capacity) {
        int64_t wider = names->capacity ? 2 * names->capacity : 16;
        xkd_status status = xkd_resize(cx, &names->items, names->capacity, wider, sizeof *names->items);
        if (status != XKD_OK) return status;
        names->capacity = wider;
    }
    xkd_status status = xkd_copy_string(cx, &names->items[names->count], name);
    if (status == XKD_OK) names->count++;
    return status;
}

/* Sorted, as readdir's order differs between file systems and would show in results. */
xkd_status xkd_list_folder(xkd_context *cx, const char *path, xkd_names *out)
{
    xkd_status status = XKD_OK;
    *out = (xkd_names){0};
    DIR *dir = opendir(path);
    if (!dir) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot open folder: %s", path, xkd_reason(errno));
    for (;;) {
        /* The end of a folder and an error differ in errno alone: a list that is cut short would pass for the folder. */
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry && errno)
            XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot read all of the folder: %s", path, xkd_reason(errno));
        if (!entry) break;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            XKD_TRY(add_name(cx, out, entry->d_name));
    }
    if (out->count > 1) qsort(out->items, (size_t)out->count, sizeof *out->items, compare_names);
fail:
    if (dir) closedir(dir);
    if (status != XKD_OK) xkd_free_names(out);
    return status;
}

void xkd_free_names(xkd_names *names)
{
    for (int64_t i = 0; i < names->count; i++) xkd_free(names->items[i]);
    xkd_free(names->items);
    *names = (xkd_names){0};
}

/* The lock goes with the descriptor, so it ends with the process however that ends. Not waited for:
 * two runs in one folder are a mistake. */
xkd_status xkd_lock_file(xkd_context *cx, const char *path, int *fd)
{
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (*fd < 0) return xkd_fail(cx, XKD_ERR_STORAGE, "%s: cannot create: %s", path, xkd_reason(errno));
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0) return XKD_OK;
    int error = errno;
    close(*fd);
    *fd = -1;
    if (error == EWOULDBLOCK) return xkd_fail(cx, XKD_ERR_CONFIG, "%s: another process is using this folder", path);
    return xkd_fail(cx, XKD_ERR_STORAGE, "%s: cannot lock: %s", path, xkd_reason(error));
}

/* True for dangling links as well. */
int xkd_path_exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

/* Follows links. */
int xkd_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* No doubled slash. */
xkd_status xkd_join_path(xkd_context *cx, char **out, const char *folder, const char *name)
{
    size_t length = strlen(folder);
    const char *slash = length && folder[length - 1] == '/' ? "" : "/";
    return xkd_format_string(cx, out, "%s%s%s", folder, slash, name);
}

/* The folder itself is not touched. */
xkd_status xkd_remove_in(xkd_context *cx, const char *folder, const char *name)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    XKD_TRY(xkd_join_path(cx, &path, folder, name));
    XKD_TRY(xkd_remove_file(cx, path));
fail:
    xkd_free(path);
    return status;
}
