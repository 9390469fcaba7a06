/* Manifests: what is written is read back; what is wrong is refused with file and line; folders and lists become one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/identity.h"
#include "data/index.h"
#include "data/list.h"
#include "media_files.h"

static xkd_context *cx;
static char folder[4096], path_of_hashed[5000];

static const char *put(const char *name, const char *text)
{
    static char path[5000];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    xkd_clear_error(cx);
    assert_int_equal(xkd_write_file(cx, path, text, (int64_t)strlen(text)), XKD_OK);
    return path;
}

static void written_is_read_back(void **state)
{
    xkd_manifest m = {0}, back;
    xkd_sample *s = NULL;
    int64_t label;
    char path[5000], hash[2][33];
    (void)state;
    assert_int_equal(xkd_manifest_class(cx, &m, "caf\xc3\xa9", true, &label), XKD_OK);
    assert_int_equal(xkd_manifest_add(cx, &m, "a \"b\"/\xff\xfe.mp4", &s), XKD_OK); /* no UTF-8 */
    s->label = 0;
    assert_int_equal(xkd_manifest_add(cx, &m, "d/\xe6\x97\xa5.mp4", &s), XKD_OK);
    *s = (xkd_sample){.path = s->path,
                      .label = 0,
                      .split = "test", /* a constant may stand there as well */
                      .video_start = 0.125,
                      .video_seconds = 5,
                      .fps = 29.97,
                      .width = 340,
                      .height = 256,
                      .audio_start = 0.1,
                      .audio_seconds = 4.9,
                      .sample_rate = 44100,
                      .channels = 2,
                      .has_audio = 1,
                      .bytes = 12345};
    assert_int_equal(xkd_sample_set_hash(cx, &m, s, "00112233445566778899aabbccddeeff", XKD_HASH_FULL), XKD_OK);
    snprintf(path, sizeof path, "%s/m.jsonl", folder);
    assert_int_equal(xkd_manifest_write(cx, &m, path, NULL), XKD_OK);
    assert_int_equal(xkd_manifest_read(cx, path, &back), XKD_OK);
    assert_int_equal(back.count, 2);
    assert_string_equal(back.samples[0].path, m.samples[0].path);
    assert_string_equal(back.classes[0], "caf\xc3\xa9");
    const xkd_sample *a = &m.samples[1], *b = &back.samples[1];
    assert_string_equal(a->path, b->path);
    assert_string_equal(a->split, b->split);
    assert_string_equal(xkd_sample_hash(a, hash[0]), "00112233445566778899aabbccddeeff");
    assert_string_equal(xkd_sample_hash(b, hash[1]), hash[0]);
    assert_true(a->fps == b->fps && a->audio_seconds == b->audio_seconds && a->video_start == b->video_start);
    assert_true(a->width == b->width && a->bytes == b->bytes && b->has_audio == 1 && b->label == 0);
    assert_int_equal(back.samples[0].has_audio, -1);
    assert_int_equal(back.samples[0].bytes, -1);
    xkd_manifest_keep_split(&back, "train"); /* the first has no split: it stays */
    assert_int_equal(back.count, 1);
    xkd_manifest_free(&back);
    xkd_manifest_free(&m);
}

/* A copy owns all that it has: the other may go. */
static void a_copy_stands_alone(void **state)
{
    static const char text[] = "{\"xkd_manifest\":1,\"root\":\".\",\"classes\":[\"a\",\"b\"]}\n"
                               "{\"path\":\"x.mp4\",\"labels\":[1,0],\"split\":\"test\",\"fps\":25.5}\n"
                               "{\"path\":\"y.mp4\",\"label\":1}\n";
    xkd_manifest m, copy;
    (void)state;
    assert_int_equal(xkd_manifest_read(cx, put("copied.jsonl", text), &m), XKD_OK);
    assert_int_equal(xkd_manifest_copy(cx, &m, &copy), XKD_OK);
    assert_string_equal(copy.root, m.root);
    xkd_manifest_free(&m);
    assert_int_equal(copy.count, 2);
    assert_string_equal(copy.classes[1], "b");
    const xkd_sample *s = copy.samples;
    assert_string_equal(s[0].path, "x.mp4");
    assert_string_equal(s[0].split, "test");
    assert_true(xkd_sample_label_count(&s[0]) == 2 && s[0].more->labels[0] == 1 && s[0].more->labels[1] == 0 &&
                s[0].fps == 25.5);
    assert_true(s[1].label == 1 && xkd_sample_label_count(&s[1]) == 0);
    xkd_manifest_free(&copy);
}

static void wrong_lines_are_named(void **state)
{
    static const struct {
        const char *text, *message;
    } CASES[] = {
        {"{\"path\":\"a.mp4\"}\n{\"path\":\n", ":2: bad JSON"},
        {"{\"path\":\"a.mp4\",\"path\":\"b.mp4\"}\n", ":1: bad JSON"},
        {"[1]\n", ":1: not a JSON object"},
        {"{\"label\":1}\n", ":1: needs one string"},
        {"{\"path\":7}\n", ":1: needs one string"},
        {"{\"path\":7,\"path_base64\":\"YQ==\"}\n", ":1: needs one string"},
        {"{\"path\":\"a\",\"path_base64\":\"YQ==\"}\n", ":1: needs one string"},
        {"{\"path\":\"a.mp4\"}\n\n{\"path\":\"b.mp4\"}\n{\"path\":\"a.mp4\"}\n",
         ":4: path \"a.mp4\" stands already in line 1"},
        {"{\"xkd_manifest\":1}\n{\"path\":\"a\"}\n{\"path\":\"a\"}\n", ":3: path \"a\" stands already in line 2"},
        {"{\"path\":\"xkd_manifest\"}\n{\"path\":\"a\"}\n{\"path\":\"a\"}\n",
         ":3: path \"a\" stands already in line 2"},
        {"\n{\"path\":\"a\"}\n{\"path\":\"a\"}\n", ":3: path \"a\" stands already in line 2"},
        {"{\"path\":\"/etc/passwd\"}\n", "absolute"},
        {"{\"path\":\"a/../../b.mp4\"}\n", "\"..\""},
        {"{\"path\":\"./b.mp4\"}\n", "\".\""},
        {"{\"path\":\"\"}\n", "empty"},
        {"{\"xkd_manifest\":1,\"classes\":[\"x\",\"y\"]}\n{\"path\":\"a.mp4\",\"label\":2}\n",
         ":2: label 2 is out of range 0 .. 1"},
        {"{\"xkd_manifest\":1,\"classes\":[\"x\"]}\n{\"path\":\"a.mp4\",\"label\":\"z\"}\n", ":2: label \"z\" is none"},
        {"{\"path\":\"a.mp4\",\"label\":-5}\n", ":1: label -5 is out of range"},
        {"{\"path\":\"a.mp4\",\"label\":1.5}\n", ":1: \"label\" must be"},
        {"{\"path\":\"a.mp4\",\"fps\":\"fast\"}\n", "\"fps\" must be a number"},
        {"{\"path\":\"a.mp4\",\"has_audio\":1}\n", "\"has_audio\" must be true or false"},
        {"{\"path_base64\":\"!!\"}\n", "not base64"},
        {"{\"path_base64\":\"YQBi\"}\n", "zero byte"},
        {"{\"xkd_manifest\":2}\n{\"path\":\"a.mp4\"}\n", "version"},
        {"{\"xkd_manifest\":1,\"classes\":[\"x\",\"x\"]}\n", "listed twice"},
        {"", "no samples"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        xkd_manifest m;
        const char *path = put("wrong.jsonl", CASES[i].text);
        assert_int_equal(xkd_manifest_read(cx, path, &m), XKD_ERR_DATA);
        if (!strstr(xkd_last_error(cx), CASES[i].message)) print_message("# %s\n", xkd_last_error(cx));
        assert_non_null(strstr(xkd_last_error(cx), CASES[i].message));
        assert_non_null(strstr(xkd_last_error(cx), "wrong.jsonl"));
    }
    xkd_clear_error(cx);
}

static void folders_become_splits_and_classes(void **state)
{
    static const char *const FILES[] = {
        "set/train/zebra/1.mp4",       "set/train/ape/x/2.MKV", "set/test/ape/3.webm",
        "set/val/loose.mp4",           "set/top.avi",           "set/notes.txt",
        "set/train/ape/.hidden.mp4",   "set/lost+found/4.mp4",  "set/train/ape/@eaDir/1.mp4/thumb.mp4",
        "set/train/$Recycle.Bin/5.mp4"};
    char path[5000];
    xkd_manifest m;
    int64_t skipped = 0;
    (void)state;
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, FILES[i]);
        *strrchr(path, '/') = 0;
        assert_int_equal(xkd_make_folder(cx, path), XKD_OK);
        put(FILES[i], "x");
    }
    snprintf(path, sizeof path, "%s/set", folder);
    assert_int_equal(xkd_index_folder(cx, path, false, &m, &skipped), XKD_OK);
    assert_int_equal(m.count, 5);
    assert_int_equal(skipped, 1);
    assert_int_equal(m.class_count, 2);
    assert_string_equal(m.classes[0], "ape");
    assert_string_equal(m.samples[0].path, "test/ape/3.webm");
    assert_string_equal(m.samples[0].split, "test");
    assert_int_equal(m.samples[0].label, 0);
    assert_string_equal(m.samples[1].path, "top.avi");
    assert_int_equal(m.samples[1].label, -1);
    assert_string_equal(m.samples[2].path, "train/ape/x/2.MKV");
    assert_int_equal(m.samples[2].label, 0);
    assert_int_equal(m.samples[3].label, 1);
    assert_string_equal(m.samples[4].split, "val");
    xkd_manifest_free(&m);
    snprintf(path, sizeof path, "%s/empty", folder);
    assert_int_equal(xkd_make_folder(cx, path), XKD_OK);
    assert_int_equal(xkd_manifest_load(cx, path, false, &m), XKD_ERR_DATA);
    xkd_clear_error(cx);
    assert_int_equal(xkd_manifest_load(cx, "/nonexistent", false, &m), XKD_ERR_DATA);
    xkd_clear_error(cx);
}

static void lists_become_manifests(void **state)
{
    xkd_manifest m;
    (void)state;
    assert_int_equal(
        xkd_index_list(cx, put("a.txt", "# Kinetics style\nb b/1.mp4 3\r\n\na/2.mp4 0\n"), folder, &m, NULL), XKD_OK);
    assert_int_equal(m.count, 2);
    assert_string_equal(m.samples[1].path, "b b/1.mp4");
    assert_int_equal(m.samples[1].label, 3);
    xkd_manifest_free(&m);
    assert_int_equal(
        xkd_index_list(cx, put("a.csv", "path,label,split\nx.mp4,dog,train\ny.mp4,cat, test\n"), folder, &m, NULL),
        XKD_OK);
    assert_int_equal(m.class_count, 2);
    assert_string_equal(m.classes[m.samples[0].label], "dog");
    assert_string_equal(m.samples[1].split, "test");
    xkd_manifest_free(&m);
    assert_int_equal(xkd_index_list(cx, put("b.csv", "../x.mp4,1\n"), folder, &m, NULL), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_last_error(cx), "b.csv:1"));
    xkd_clear_error(cx);
    /* What a manifest may not hold is refused where it would be written. */
    assert_int_equal(xkd_index_list(cx, put("c.csv", "a/..,1\n"), folder, &m, NULL), XKD_ERR_DATA);
    xkd_clear_error(cx);
    assert_int_equal(xkd_index_list(cx, put("d.csv", "a//x.mp4,1\n"), folder, &m, NULL), XKD_ERR_DATA);
    xkd_clear_error(cx);
    assert_int_equal(xkd_index_list(cx, put("c.csv", "x.mp4,1\nx.mp4,2\n"), folder, &m, NULL), XKD_ERR_DATA);
    assert_int_equal(xkd_index_list(cx, put("d.csv", "\n"), folder, &m, NULL), XKD_ERR_DATA);
    xkd_clear_error(cx);
}

static uint64_t identity_of(const xkd_manifest *m)
{
    uint64_t id;
    assert_int_equal(xkd_sample_identity(cx, m, &m->samples[0], &id), XKD_OK);
    return id;
}

static void set_time(const char *path, int64_t ns)
{
    const struct timespec times[2] = {{ns / 1000000000, ns % 1000000000}, {ns / 1000000000, ns % 1000000000}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* A stored hash is of a file of one size and one time of change; another file of the same name and size is not that one. */
static void a_replaced_file_loses_its_hash(void **state)
{
    enum { TIME = 1700000000 };
    const int64_t time = (int64_t)TIME * 1000000000 + 5;
    xkd_manifest m = {0};
    xkd_sample *s;
    const char *path = put("kept.mp4", "0123456789");
    (void)state;
    set_time(path, time);
    assert_int_equal(xkd_copy_string(cx, &m.root, folder), XKD_OK);
    assert_int_equal(xkd_manifest_add(cx, &m, "kept.mp4", &s), XKD_OK);
    s->bytes = 10;
    s->modified = time;
    uint64_t stamp = identity_of(&m);
    assert_int_equal(xkd_sample_set_hash(cx, &m, s, "00112233445566778899aabbccddeeff", XKD_HASH_FULL), XKD_OK);
    uint64_t hash = identity_of(&m);
    assert_true(hash != stamp);
    set_time(path, time + 1); /* written anew, to as many bytes */
    assert_true(identity_of(&m) != hash && identity_of(&m) != stamp);
    s->modified = -1; /* a manifest of before times were kept */
    assert_true(identity_of(&m) == hash);
    s->bytes = 11;
    assert_true(identity_of(&m) != hash);
    assert_int_equal(remove(path), 0);
    assert_true(identity_of(&m) == hash); /* the file of another machine's share */
    assert_int_equal(xkd_sample_set_hash(cx, &m, s, "00112233445566778899aabbccddeeff", XKD_HASH_HEAD), XKD_OK);
    assert_true(identity_of(&m) != hash); /* the same digits, but of less */
    assert_int_equal(xkd_sample_set_hash(cx, &m, s, "00112233445566778899AABBCCDDEEFF", XKD_HASH_FULL), XKD_OK);
    assert_true(identity_of(&m) == hash);
    xkd_manifest_free(&m);
}

/* Millions of rows have hashes: the path of each is there once. */
static void a_hash_takes_sixteen_bytes(void **state)
{
    enum { ROWS = 200000, PATH = 42 };
    char path[5000];
    xkd_manifest m;
    (void)state;
    snprintf(path, sizeof path, "%s/many.jsonl", folder);
    FILE *f = fopen(path, "w");
    for (int i = 0; i < ROWS; i++)
        fprintf(f, "{\"path\":\"train/part_%08d/clip_%06d_000010.mp4\",\"hash\":\"00112233445566778899aabb%08x\"}\n",
                i / 1000, i % 1000, (unsigned)i);
    fclose(f);
    assert_int_equal(xkd_manifest_read(cx, path, &m), XKD_OK);
    assert_int_equal(m.count, ROWS);
    /* Chunks are 4 MB, and each thread that reads leaves one that is not full. */
    assert_true(m.pieces.bytes < (int64_t)ROWS * (PATH + 1 + 16) + ((int64_t)8 << 20));
    for (int i = 0; i < ROWS; i += 777) {
        char hash[33], want[33];
        xkd_sample *s = &m.samples[i];
        const char *before = s->path;
        snprintf(want, sizeof want, "00112233445566778899aabb%08x", (unsigned)i);
        assert_string_equal(xkd_sample_hash(s, hash), want);
        assert_int_equal(strlen(s->path), PATH);
        assert_int_equal(xkd_sample_set_hash(cx, &m, s, "", XKD_HASH_NONE), XKD_OK);
        assert_string_equal(xkd_sample_hash(s, hash), "");
        /* Another hash of the same row takes the same place. */
        assert_int_equal(xkd_sample_set_hash(cx, &m, s, "ffeeddccbbaa99887766554433221100", XKD_HASH_HEAD), XKD_OK);
        assert_string_equal(xkd_sample_hash(s, hash), "ffeeddccbbaa99887766554433221100");
        assert_ptr_equal(s->path, before);
    }
    xkd_manifest_free(&m);
    assert_int_equal(remove(path), 0);
}

static void hash_of(const char *text, int64_t size, int of, char out[33])
{
    const char *path = path_of_hashed;
    xkd_source source = {.fd = -1};
    assert_int_equal(xkd_write_file(cx, path, text, size), XKD_OK);
    assert_int_equal(xkd_open_read(cx, path, &source.fd, &source.size), XKD_OK);
    assert_int_equal(xkd_hash_file(cx, &source, of, out), XKD_OK);
    close(source.fd);
}

/* The head sees size, start and end; the whole sees all. */
static void hashes_are_of_what_they_say(void **state)
{
    enum { SIZE = 200000 };
    static char text[SIZE + 1];
    static const struct {
        int64_t at; /* of a byte that differs */
        bool head;  /* whether the head shows it */
    } CASES[] = {{0, true},       {65535, true}, {65536, false}, {SIZE - 65537, false}, {SIZE - 65536, true},
                 {SIZE - 1, true}};
    char head[33], full[33], other[33];
    (void)state;
    snprintf(path_of_hashed, sizeof path_of_hashed, "%s/hashed", folder);
    hash_of(text, SIZE, XKD_HASH_HEAD, head);
    hash_of(text, SIZE, XKD_HASH_FULL, full);
    assert_string_not_equal(head, full);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        text[CASES[i].at] = 1;
        hash_of(text, SIZE, XKD_HASH_HEAD, other);
        assert_int_equal(strcmp(head, other) != 0, CASES[i].head);
        hash_of(text, SIZE, XKD_HASH_FULL, other);
        assert_string_not_equal(full, other);
        text[CASES[i].at] = 0;
    }
    hash_of(text, SIZE + 1, XKD_HASH_HEAD, other);
    assert_string_not_equal(head, other);
    hash_of(text, 3, XKD_HASH_HEAD, head);
    hash_of(text, 4, XKD_HASH_HEAD, other);
    assert_string_not_equal(head, other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_is_read_back),        cmocka_unit_test(a_copy_stands_alone),
        cmocka_unit_test(wrong_lines_are_named),       cmocka_unit_test(folders_become_splits_and_classes),
        cmocka_unit_test(lists_become_manifests),      cmocka_unit_test(a_replaced_file_loses_its_hash),
        cmocka_unit_test(hashes_are_of_what_they_say), cmocka_unit_test(a_hash_takes_sixteen_bytes),
    };
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("manifest"));
    if (xkd_make_folder(cx, folder) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
