/* The list of samples: one JSON object a line. An optional first line holds what is common to all:
 *   {"xkd_manifest":1,"root":".","classes":["bounce","orbit"]}
 *   {"path":"a.tar/0001.mp4","tar":5,"tar_at":1536,"bytes":81234,...}   (a member of a.tar, which has 5 bytes of the path)
 *   {"path":"train/bounce/0001.mp4","label":0,"split":"train","video_seconds":5.0,...,"hash":"..."}
 * Paths are relative to root, which is relative to the manifest's folder; never absolute, never with "..". They are data:
 * whatever they look like, they only ever name a file. A name that is no UTF-8 stands as "path_base64", a class or root as
 * {"base64":"..."}. Only "path" is required. A sample without "split" belongs to every split. */
#ifndef XKD_DATA_MANIFEST_H
#define XKD_DATA_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/pieces.h"
#include "base/status.h"
#include "media/media.h"

/* What few samples have. */
typedef struct {
    const int32_t
        *labels; /* [label_count] of a sample of several classes, which may have none of them; NULL: no such */
    int64_t label_count;
    int64_t member_at;      /* where a member's contents, of `bytes`, begin in its archive */
    int32_t archive_length; /* of the path's part that is a tar archive, in which the rest is a member; 0: a file */
    int64_t audio_track;    /* data.audio_track when it was measured */
    double clock_step;      /* as in xkd_media_info */
    double video_last;      /* where video_tail is XKD_LONG_TAIL */
    uint64_t identity; /* of the contents that features were made of (data/identity.h); 0: unknown, as in manifests */
} xkd_sample_more;

/* One row. There may be ten millions of them, so it is 104 bytes and its path; strings and `more` are the manifest's. */
typedef struct {
    const char
        *path; /* relative to the root, bytes as the file system has them; 16 bytes of hash before it where hash_room */
    const char *split;                                             /* "": none */
    const xkd_sample_more *more;                                   /* NULL: nothing of it */
    double video_start, video_seconds, audio_start, audio_seconds; /* seconds are 0 where unknown or absent */
    int64_t bytes, modified; /* -1: unknown; the time of change in ns since 1970 */
    float fps, key_gap;      /* key_gap: as in xkd_media_info */
    int32_t video_tail; /* microseconds from the start of the last frame to the end of the pictures; or XKD_LONG_TAIL */
    int32_t label;      /* index into classes; -1: none */
    int32_t record;     /* 1 + its number in the manifest's pack; 0: a file */
    int32_t sample_rate;
    uint16_t width, height;
    uint8_t channels;
    int8_t has_audio, has_video; /* 1, 0, or -1: unknown */
    bool measured : 1;  /* starts, seconds, tail, gap and step are what the packets say, of a file of `bytes` */
    uint8_t hashed : 2; /* XKD_HASH_...: how much of the contents the hash is of */
    bool hash_room : 1; /* 16 bytes before the path are for a hash */
} xkd_sample;

/* How much of a file a hash is of (data/identity.h). */
enum { XKD_HASH_NONE, XKD_HASH_HEAD, XKD_HASH_FULL };
enum { XKD_LONG_TAIL = INT32_MIN };

typedef struct xkd_manifest {
    char *root; /* folder that paths are relative to, as it can be opened from here */
    char **classes;
    int64_t class_count, class_capacity;
    int32_t *class_slots; /* [class_slot_count] hash table of the names */
    int64_t class_slot_count;
    bool follow_links;     /* a fact, not a permission: files were found through links that lead out of the root */
    bool named;            /* its one file was named by the user, who may name a link */
    bool trimmed;          /* a class was written with blanks around its name */
    struct xkd_pack *pack; /* that its samples are records of (data/pack.h), shared; NULL: they are files */
    xkd_sample *samples;
    int64_t count, capacity;
    xkd_pieces pieces; /* paths and all else that samples point to */
    void *shared;      /* read-only, of all ranks of a host: samples and what they point to lie in it; NULL: none.
                        * It is the pack's where there is one */
    int64_t shared_bytes;
    const char *splits[64]; /* names met before, by their hash, which samples have in common */
} xkd_manifest;

/* Of a manifest's file: a hundred million rows. */
#define XKD_MANIFEST_MOST_BYTES ((int64_t)64 << 30)

/* Reads and checks a manifest. XKD_ERR_DATA with "file:line: what (what to do)" for bad JSON, wrong types, duplicate
 * paths, labels out of range, paths outside the root. Free with xkd_manifest_free. */
xkd_status xkd_manifest_read(xkd_context *cx, const char *path, xkd_manifest *out);

/* Writes; `root_text` is what the first line says, NULL: ".". */
xkd_status xkd_manifest_write(xkd_context *cx, const xkd_manifest *manifest, const char *path, const char *root_text);
/* The same with a bound of its own on the file, XKD_ERR_DATA beyond. */
xkd_status xkd_manifest_write_within(xkd_context *cx, const xkd_manifest *manifest, const char *path,
                                     const char *root_text, int64_t most);
void xkd_manifest_free(xkd_manifest *manifest);

/* The memory that it takes, with its pack's list of records. */
int64_t xkd_manifest_bytes(const xkd_manifest *manifest);

/* Appends a sample with this path and everything else unknown; *sample stays valid until the next call. */
xkd_status xkd_manifest_add(xkd_context *cx, xkd_manifest *manifest, const char *path, xkd_sample **sample);

/* The same for a sample that will have a hash: its path need not be copied for it. */
xkd_status xkd_manifest_add_hashed(xkd_context *cx, xkd_manifest *manifest, const char *path, xkd_sample **sample);

/* Makes room for `more` samples. */
xkd_status xkd_manifest_reserve(xkd_context *cx, xkd_manifest *manifest, int64_t more);

/* A manifest of this one file, whose root is its folder. */
xkd_status xkd_manifest_of_file(xkd_context *cx, const char *path, xkd_manifest *out);

/* Index of a class, added when new and `add`; -1 otherwise. */
xkd_status xkd_manifest_class(xkd_context *cx, xkd_manifest *manifest, const char *name, bool add, int64_t *label);

/* class_names.c. The same for a name that comes from outside: blanks around it are cut off, unless nothing else is there. */
xkd_status xkd_manifest_class_of(xkd_context *cx, xkd_manifest *manifest, const char *name, bool add, int64_t *label);
/* Where the name begins without them; *length: its bytes. */
const char *xkd_class_trim(const char *name, size_t *length);
/* Says once that blanks were cut off, and warns of classes that differ only in case or in how accents are stored: they stay
 * apart. `where`: the list or folder, for the messages. */
xkd_status xkd_manifest_look_at_names(xkd_context *cx, const xkd_manifest *manifest, const char *where);

/* Puts the classes into byte order; labels are not changed with them. */
void xkd_manifest_sort_classes(xkd_manifest *manifest);
/* Replaces the classes by copies of these names, which are all different. */
xkd_status xkd_manifest_set_classes(xkd_context *cx, xkd_manifest *manifest, const char *const *names, int64_t count);
void xkd_manifest_free_classes(xkd_manifest *manifest);
/* Lets `to` use those of `from`, which stay its own and must not change meanwhile: threads may look names up in both. */
xkd_status xkd_manifest_lend_classes(xkd_context *cx, xkd_manifest *from, xkd_manifest *to);

/* XKD_ERR_DATA where a class has files in split `test` and none in split `train`: they could not be got right, and would lower
 * a figure unseen; or where one class alone is trained. A file without a split is in both. */
xkd_status xkd_manifest_check_trained(xkd_context *cx, const xkd_manifest *manifest, const char *train,
                                      const char *test);

/* Whether it names classes or has a label. */
bool xkd_manifest_has_labels(const xkd_manifest *manifest);

/* Labels are numbers: both must name the same classes in the same order for a number to mean one class, unless one has no
 * labels at all. XKD_ERR_DATA names the first class that differs, the two by a_name and b_name, and what to do: `remedy`,
 * NULL: to make both from one class list. */
xkd_status xkd_manifest_compare_classes(xkd_context *cx, const xkd_manifest *a, const char *a_name,
                                        const xkd_manifest *b, const char *b_name, const char *remedy);

/* Keeps the samples of one split ("": all). */
void xkd_manifest_keep_split(xkd_manifest *manifest, const char *split);

/* Keeps the samples that `keep` says yes to, in their order; returns how many went. */
int64_t xkd_manifest_keep(xkd_manifest *manifest, bool (*keep)(const void *user, const xkd_sample *sample, int64_t i),
                          const void *user);

/* Sets what a sample of the manifest points to. *more: what it has by now, or zeros, to be filled in. */
xkd_status xkd_sample_set_split(xkd_context *cx, xkd_manifest *manifest, xkd_sample *sample, const char *split);
xkd_status xkd_sample_edit_more(xkd_context *cx, xkd_manifest *manifest, xkd_sample *sample, xkd_sample_more **more);
/* Makes it one of several labels, `count` of them, to be filled in. */
xkd_status xkd_sample_set_labels(xkd_context *cx, xkd_manifest *manifest, xkd_sample *sample, int64_t count,
                                 int32_t **labels);
/* `text`: 32 hexadecimal digits; `of`: XKD_HASH_HEAD or XKD_HASH_FULL. "" or XKD_HASH_NONE takes the hash away. */
xkd_status xkd_sample_set_hash(xkd_context *cx, xkd_manifest *manifest, xkd_sample *sample, const char *text, int of);

/* XXH3-128 in hex; "" where there is none. Returns `out`. */
const char *xkd_sample_hash(const xkd_sample *sample, char out[33]);

xkd_status xkd_sample_set_identity(xkd_context *cx, xkd_manifest *manifest, xkd_sample *sample, uint64_t identity);

/* What it has of `more`. */
int64_t xkd_sample_label_count(const xkd_sample *sample);
uint64_t xkd_sample_identity_of(const xkd_sample *sample);
int32_t xkd_sample_archive_length(const xkd_sample *sample);

/* Gives *to, of `manifest`, the label, labels and split of *from. */
xkd_status xkd_sample_copy_labels(xkd_context *cx, xkd_manifest *manifest, xkd_sample *to, const xkd_sample *from);

/* A copy with everything in it. Free with xkd_manifest_free, also after an error. */
xkd_status xkd_manifest_copy(xkd_context *cx, const xkd_manifest *from, xkd_manifest *out);

/* How many labels a sample has, and which: *list points into the sample, or at *single where it has one. */
int64_t xkd_sample_labels(const xkd_sample *sample, const int32_t **list, int32_t *single);

/* Whether a path names something below the root directly: not absolute, no "..", "." or empty part, which would leave the
 * root or name one file in two ways. */
bool xkd_manifest_path_is_plain(const char *path);

/* Opens a sample's file, or its record, for reading. Links are followed inside the root only, unless follow_links. On
 * failure *fault is missing, unreadable or refused, or what the file was packed with. The caller closes out->fd. */
xkd_status xkd_manifest_open(xkd_context *cx, const xkd_manifest *manifest, const xkd_sample *sample, bool follow_links,
                             xkd_source *out, xkd_media_fault *fault);

/* Path of the file that a sample is or lies in, as it can be opened; not for records. The caller frees *out. */
xkd_status xkd_sample_file(xkd_context *cx, const xkd_manifest *manifest, const xkd_sample *sample, char **out);

/* Puts the shard's name in front of what is wrong with a record. */
void xkd_manifest_blame(const xkd_manifest *manifest, const xkd_sample *sample, char *message, size_t size);

/* When its last frame begins. */
double xkd_sample_video_last(const xkd_sample *sample);
xkd_status xkd_sample_set_video_last(xkd_context *cx, xkd_manifest *manifest, xkd_sample *sample, double seconds);

/* Copies what a look at the packets found into the sample. */
xkd_status xkd_sample_describe(xkd_context *cx, xkd_manifest *manifest, xkd_sample *sample, const xkd_media_info *info,
                               const xkd_media_span *span);

/* Length of the file for who leaves out [pictures, sound]: of the pictures where they count and are there. 0: unknown. */
double xkd_sample_seconds(const xkd_sample *sample, const bool left_out[2]);

/* Size, and time of change in ns since 1970, of an open file; -1 where they cannot be had. */
void xkd_file_stamp(int fd, int64_t *bytes, int64_t *modified);
int64_t xkd_modified(const struct stat *info);
/* Whether a file of this size and time, or the open one, is still the one that the sample was made of. */
bool xkd_sample_has_stamp(const xkd_sample *sample, int64_t bytes, int64_t modified);
bool xkd_sample_is(const xkd_sample *sample, int fd);
/* What the sample says of its streams with this data.audio_track: unknown where the open file is another by now. */
xkd_media_span xkd_sample_span(const xkd_sample *sample, int fd, int64_t audio_track);

#endif
