/* libFuzzer: any bytes as the lists of a public data set. The first byte chooses the set, form feeds part its lists; they
 * are memory behind links in a small tree, whose media files are empty. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/import.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SETS = 8, LISTS = 3, FILES = 3 };
static const struct {
    const char *folder, *set;
    const char *lists[LISTS], *files[FILES];
} trees[SETS] = {
    {"ucf",
     "UCF101",
     {"classInd.txt", "trainlist01.txt", "testlist01.txt"},
     {"UCF-101/Archery/v_Archery_g08_c01.avi", "UCF-101/Biking/v_Biking_g01_c01.avi"}},
    {"hmdb",
     "HMDB51",
     {"splits/brush_hair_test_split1.txt", "splits/wave_test_split1.txt"},
     {"brush_hair/a#1 (b);&.avi", "wave/e.avi"}},
    {"csv", "Kinetics400", {"train.csv", "val.csv"}, {"train/-abc_000001_000011.mp4", "val/qq.mp4"}},
    {"json",
     "Kinetics400",
     {"train.json", "val.json"},
     {"train/-abc_000001_000011.mp4", "val/air drumming/qq.mp4", "val/bowling/x_000001_000011.mp4"}},
    {"sound",
     "Kinetics-Sound",
     {"kinetics_sound/train.txt", "train.csv", "val.csv"},
     {"train/tap_dancing/-abc_000001_000011.mp4", "train/bowling/y.avi", "val/qq.mp4"}},
    {"esc", "ESC50", {"meta/esc50.csv"}, {"audio/1-100032-A-0.wav", "audio/2-1-A-1.wav"}},
    {"fsd",
     "FSD50K",
     {"FSD50K.ground_truth/vocabulary.csv", "FSD50K.ground_truth/dev.csv", "FSD50K.ground_truth/eval.csv"},
     {"FSD50K.dev_audio/64760.wav", "FSD50K.eval_audio/37199.wav"}},
    {"audioset",
     "AudioSet",
     {"class_labels_indices.csv", "balanced_train_segments.csv", "eval_segments.csv"},
     {"balanced_train/-abc.mp4", "balanced_train/Yx_30.wav", "eval/qq.mp4"}},
};

static char root[] = "/tmp/xkd-fuzz-import-XXXXXX";
static int list_memory[LISTS];

/* Path of `name` in a tree, with its folders made. */
static const char *place(int tree, const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s/%s", root, trees[tree].folder, name);
    for (char *at = path + sizeof root; (at = strchr(at, '/')) != NULL; at++) {
        *at = 0;
        mkdir(path, 0700);
        *at = '/';
    }
    return path;
}

static void remove_trees(void)
{
    char command[sizeof root + 16];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    if (system(command) != 0) fprintf(stderr, "%s stays\n", root);
}

static void make_trees(void)
{
    if (!mkdtemp(root)) abort();
    atexit(remove_trees);
    for (int i = 0; i < LISTS; i++)
        if ((list_memory[i] = memfd_create("list", 0)) < 0) abort();
    for (int t = 0; t < SETS; t++) {
        for (int i = 0; i < FILES && trees[t].files[i]; i++) {
            FILE *f = fopen(place(t, trees[t].files[i]), "w");
            if (!f) abort();
            fclose(f);
        }
        for (int i = 0; i < LISTS && trees[t].lists[i]; i++) {
            char target[64];
            snprintf(target, sizeof target, "/proc/%d/fd/%d", (int)getpid(), list_memory[i]);
            if (symlink(target, place(t, trees[t].lists[i])) != 0) abort();
        }
    }
}

static void put_lists(const uint8_t *data, size_t size)
{
    for (int i = 0; i < LISTS; i++) {
        const uint8_t *end = i + 1 < LISTS ? memchr(data, '\f', size) : NULL;
        size_t length = end ? (size_t)(end - data) : size;
        if (ftruncate(list_memory[i], 0) != 0 || pwrite(list_memory[i], data, length, 0) != (ssize_t)length) abort();
        data += length + (end != NULL);
        size -= length + (end != NULL);
    }
}

/* What was imported must be a manifest: plain paths, labels that name a class. */
static void check_manifest(const xkd_manifest *m)
{
    if (m->count < 1) abort();
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_sample *s = &m->samples[i];
        if (!xkd_manifest_path_is_plain(s->path) || s->label >= m->class_count) abort();
        const int32_t *labels;
        int32_t single;
        int64_t count = xkd_sample_labels(s, &labels, &single);
        for (int64_t k = 0; k < count; k++)
            if (labels[k] < 0 || labels[k] >= m->class_count) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool made;
    if (!made) make_trees();
    made = true;
    xkd_context *cx = xkd_context_new();
    xkd_import_options options = {.fold = 1, .partial = true, .classes = 32};
    xkd_import_result result;
    xkd_manifest m;
    char path[64];
    if (!cx) return 0;
    int t = size ? data[0] % SETS : 0; /* '0' is the first of the table */
    put_lists(data + (size > 0), size - (size > 0));
    snprintf(path, sizeof path, "%s/%s", root, trees[t].folder);
    if (xkd_import(cx, trees[t].set, path, &options, &m, &result) == XKD_OK)
        check_manifest(&m);
    else if (!xkd_last_error(cx)[0])
        abort();
    xkd_manifest_free(&m);
    xkd_import_result_free(&result);
    xkd_context_free(cx);
    return 0;
}
