/* Lists of files as spreadsheets, pandas and other people's programs write them: what is understood, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <uchar.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"
#include "data/index.h"
#include "data/list.h"

static char root[] = "/tmp/xkd-test-list-XXXXXX";
static xkd_context *cx;

static const char *put(const char *text, int64_t size)
{
    static char path[100];
    snprintf(path, sizeof path, "%s/list", root);
    assert_int_equal(xkd_write_file(cx, path, text, size), XKD_OK);
    return path;
}

/* "a.mp4=dog b.mp4=- @train": samples by path with their labels, as names or numbers, and splits. */
static char *show(const xkd_manifest *m)
{
    xkd_text t = xkd_text_make(cx);
    char *text;
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_sample *s = &m->samples[i];
        const int32_t *list;
        int32_t one;
        int64_t n = xkd_sample_labels(s, &list, &one);
        xkd_text_printf(&t, "%s%s=", i ? " " : "", s->path);
        if (n == 0) xkd_text_puts(&t, "-");
        for (int64_t k = 0; k < n; k++) {
            if (k) xkd_text_puts(&t, "+");
            if (m->class_count)
                xkd_text_puts(&t, m->classes[list[k]]);
            else
                xkd_text_printf(&t, "%d", (int)list[k]);
        }
        if (s->split[0]) xkd_text_printf(&t, "@%s", s->split);
    }
    assert_int_equal(xkd_text_take(&t, &text), XKD_OK);
    return text;
}

static const struct {
    const char *text, *columns, *samples;
} good[] = {
    /* marks, line ends, separators */
    {"\xEF\xBB\xBFv1.mp4,cat\nv2.mp4,dog\n", "columns: path=1 label=2; 2 rows", "v1.mp4=cat v2.mp4=dog"},
    {"\xEF\xBB\xBF\"v1.mp4\";\"cat\"\r\n\"v2.mp4\";\"dog\"\r\n", "columns: path=1 label=2; 2 rows",
     "v1.mp4=cat v2.mp4=dog"},
    {"path,label,split\r\nv1.mp4,cat,train\r\nv2.mp4,dog,test\r\n", "columns: path=1 label=2 split=3; 2 rows",
     "v1.mp4=cat@train v2.mp4=dog@test"},
    {"v1.mp4,cat\rv2.mp4,dog\r", "columns: path=1 label=2; 2 rows", "v1.mp4=cat v2.mp4=dog"},
    {"v1.mp4,cat", "columns: path=1 label=2; 1 rows", "v1.mp4=cat"},
    {"v1.mp4;cat\nv2.mp4;dog\n", "columns: path=1 label=2; 2 rows", "v1.mp4=cat v2.mp4=dog"},
    {"v1.mp4\tcat\na b/v 5.mp4\tdog\n", "columns: path=1 label=2; 2 rows", "a b/v 5.mp4=dog v1.mp4=cat"},
    {"v1.mp4 0\na b/v 5.mp4 1\n", "columns: path=1 label=2; 2 rows", "a b/v 5.mp4=1 v1.mp4=0"},
    {"v1.mp4  \t 0\nv2.mp4\t1\n", "columns: path=1 label=2; 2 rows", "v1.mp4=0 v2.mp4=1"},
    {"v,1.mp4 0\nv,2.mp4 1\n", "columns: path=1 label=2; 2 rows", "v,1.mp4=0 v,2.mp4=1"},
    {"path|label\nv1.mp4|cat, wild\nv2.mp4|dog\n", "columns: path=1 label=2; 2 rows", "v1.mp4=cat, wild v2.mp4=dog"},
    {"v1.mp4 a|b\nv2.mp4 c|d\n", "columns: path=1 label=2; 2 rows", "v1.mp4=a|b v2.mp4=c|d"},
    {"path;start;label;\nv1.mp4;0,5;cat;\nv2.mp4;1,25;\"big\ndog\";\n",
     "columns: path=1 label=3; 2 rows; passed over: start=2", "v1.mp4=cat v2.mp4=big\ndog"},
    {"sep=;\nv1.mp4;3\n", "columns: path=1 label=2; 1 rows", "v1.mp4=3"},
    {"v1.mp4,cat,,\nv2.mp4,dog,,\n,,,\n", "columns: path=1 label=2; 2 rows", "v1.mp4=cat v2.mp4=dog"},
    {"# of mine\nv1.mp4 0\n\n\nv2.mp4 1\n", "columns: path=1 label=2; 2 rows, 1 comments", "v1.mp4=0 v2.mp4=1"},
    /* quotes */
    {"\"v/x,y.mp4\",dog\nv1.mp4,\"female speech, woman speaking\"\n", "columns: path=1 label=2; 2 rows",
     "v/x,y.mp4=dog v1.mp4=female speech, woman speaking"},
    {"\"a \"\"b\"\".mp4\",dog\n", "columns: path=1 label=2; 1 rows", "a \"b\".mp4=dog"},
    {"\"v1.mp4\",\"0\"\n\"v2.mp4\",\"1\"\n", "columns: path=1 label=2; 2 rows", "v1.mp4=0 v2.mp4=1"},
    {"v1.mp4,\"7\"\nv2.mp4,dog\n", "columns: path=1 label=2; 2 rows", "v1.mp4=7 v2.mp4=dog"},
    {"\"a b.mp4\" dog\n\"c.mp4\" cat\n", "columns: path=1 label=2; 2 rows", "a b.mp4=dog c.mp4=cat"},
    {"path\n\"x,y.mp4\"\nv1.mp4\n", "columns: path=1; 2 rows", "v1.mp4=- x,y.mp4=-"},
    /* headers */
    {"video,label\nv1.mp4,cat\nv2.mp4,dog\n", "columns: path=1 label=2; 2 rows", "v1.mp4=cat v2.mp4=dog"},
    {"Video Path;Class Name\nv1.mp4;cat\n", "columns: path=1 label=2; 1 rows", "v1.mp4=cat"},
    {",path,label\n0,v1.mp4,cat\n1,v2.mp4,dog\n", "columns: path=2 label=3; 2 rows; passed over: 1",
     "v1.mp4=cat v2.mp4=dog"},
    {"label,path\ncat,v1.mp4\n", "columns: path=2 label=1; 1 rows", "v1.mp4=cat"},
    {"filename,fold,target,category,esc10\nb.wav,1,0,dog,True\na.wav,1,1,cow,False\n",
     "columns: path=1 label=3 name=4; 2 rows; passed over: fold=2 esc10=5", "a.wav=cow b.wav=dog"},
    {"path start end label\nv1.mp4 0.5 2 3\n", "columns: path=1 label=4; 1 rows; passed over: start=2 end=3",
     "v1.mp4=3"},
    {"path,label\nv1.mp4,3.0\nv2.mp4,\n", "columns: path=1 label=2; 2 rows", "v1.mp4=3 v2.mp4=-"},
    {"fname,labels,split\na.wav,\"Guitar,Music\",train\nb.wav,Music,val\n", "columns: path=1 label=2 split=3; 2 rows",
     "a.wav=Guitar+Music@train b.wav=Music@val"},
    {"path,labels\na.wav,3;0\nb.wav,\n", "columns: path=1 label=2; 2 rows", "a.wav=3+0 b.wav=-"},
    /* other programs */
    {"v1.mp4 0 -1\nv2.mp4 0 -1\n", "columns: path=1 label=3; 2 rows; passed over: 2", "v1.mp4=- v2.mp4=-"},
    {"v1.mp4 120 0\nv2.mp4 99 1\n", "columns: path=1 label=3; 2 rows; passed over: 2", "v1.mp4=0 v2.mp4=1"},
    {"frames/a 120 4\nframes/b c 99 -1\n", "columns: path=1 label=3; 2 rows; passed over: 2",
     "frames/a=4 frames/b c=-"},
    {"v1.mp4,0,cat\nv2.mp4,1,ant\n", "columns: path=1 label=2 name=3; 2 rows", "v1.mp4=cat v2.mp4=ant"},
    {"v\\v1.mp4,cat\r\nv\\v2.mp4,dog\r\n", "columns: path=1 label=2; 2 rows, \\ read as /",
     "v/v1.mp4=cat v/v2.mp4=dog"},
    {"./v1.mp4\n././v2.mp4\n", "columns: path=1; 2 rows", "v1.mp4=- v2.mp4=-"},
    {"a,b.mp4\nc.mp4\n", "columns: path=1; 2 rows", "a,b.mp4=- c.mp4=-"},
    {"my video.mp4\nother.mp4\n", "columns: path=1; 2 rows", "my video.mp4=- other.mp4=-"},
    {"clips/a\nclips/b\n", "columns: path=1; 2 rows", "clips/a=- clips/b=-"},
    /* lists that were joined: the mark and the names of the second one stand in the middle */
    {"\xEF\xBB\xBFv1.mp4,cat\n\xEF\xBB\xBFv2.mp4,dog\n", "columns: path=1 label=2; 2 rows", "v1.mp4=cat v2.mp4=dog"},
    {"path,label\nv1.mp4,cat\n\xEF\xBB\xBFpath,label\r\nv2.mp4,dog\n",
     "columns: path=1 label=2; 2 rows, names again in 1 lines", "v1.mp4=cat v2.mp4=dog"},
    {"video\nv1.mp4\nvideo\nv2.mp4\nvideo\n", "columns: path=1; 2 rows, names again in 2 lines", "v1.mp4=- v2.mp4=-"},
    /* names that begin with #, as HMDB51's; comments and play lists */
    {"#20_Rhythm.avi 1\nv1.mp4 2\n", "columns: path=1 label=2; 2 rows", "#20_Rhythm.avi=1 v1.mp4=2"},
    {"# v2.mp4,cat\n#\n#what,it,is\nv1.mp4,cat\n", "columns: path=1 label=2; 1 rows, 3 comments", "v1.mp4=cat"},
    {"#EXTM3U\n#EXTINF:12,v1.mp4\nv1.mp4\n", "columns: path=1; 1 rows, 2 comments", "v1.mp4=-"},
    /* lists within a field, as Python and JSON write them; no label among names */
    {"path,labels\nv1.mp4,\"[1, 2]\"\nv2.mp4,[0]\nv3.mp4,[]\n", "columns: path=1 label=2; 3 rows",
     "v1.mp4=1+2 v2.mp4=0 v3.mp4=-"},
    {"path,labels\nv1.mp4,\"['dog, wild', \"\"cat\"\"]\"\nv2.mp4,['cat']\n", "columns: path=1 label=2; 2 rows",
     "v1.mp4=dog, wild+cat v2.mp4=cat"},
    {"v1.mp4,cat\nv2.mp4,-1\n", "columns: path=1 label=2; 2 rows", "v1.mp4=cat v2.mp4=-"},
    /* what programs write where a value is missing, which is no name; a quoted word is one */
    {"path,label\nv1.mp4,cat\nv2.mp4,NaN\nv3.mp4,\n", "columns: path=1 label=2; 3 rows, NaN read as empty in 1 fields",
     "v1.mp4=cat v2.mp4=- v3.mp4=-"},
    {"path,label,split\nv1.mp4,2.0,train\nv2.mp4,nan,nan\nv3.mp4,None,test\n",
     "columns: path=1 label=2 split=3; 3 rows, nan read as empty in 3 fields", "v1.mp4=2@train v2.mp4=- v3.mp4=-@test"},
    {"v1.mp4\tcat\nv2.mp4\tnull\nv3.mp4\t<NA>\n", "columns: path=1 label=2; 3 rows, null read as empty in 2 fields",
     "v1.mp4=cat v2.mp4=- v3.mp4=-"},
    {"v1.mp4 3 train\nv2.mp4 NA NA\n", "columns: path=1 label=2 split=3; 2 rows, NA read as empty in 2 fields",
     "v1.mp4=3@train v2.mp4=-"},
    {"v1.mp4,none\nv2.mp4,\"None\"\nv3.mp4,\"NaN\"\n", "columns: path=1 label=2; 3 rows",
     "v1.mp4=none v2.mp4=None v3.mp4=NaN"},
    {"path,target,category\nv1.mp4,0,cat\nv2.mp4,nan,nan\nv3.mp4,1,ant\n",
     "columns: path=1 label=2 name=3; 3 rows, nan read as empty in 2 fields", "v1.mp4=cat v2.mp4=- v3.mp4=ant"},
    {"path,labels\nv1.mp4,\"['a', None, 'None']\"\nv2.mp4,nan\nv3.mp4,b;nan\n",
     "columns: path=1 label=2; 3 rows, nan read as empty in 1 fields", "v1.mp4=a+None v2.mp4=- v3.mp4=b"},
    {"path,label\nv1.mp4,NaN\nv2.mp4,NaN\n", "columns: path=1 label=2; 2 rows, NaN read as empty in 2 fields",
     "v1.mp4=- v2.mp4=-"},
};

static void what_is_understood(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        xkd_manifest m;
        char *columns = NULL;
        if (xkd_index_list(cx, put(good[i].text, (int64_t)strlen(good[i].text)), root, &m, &columns) != XKD_OK)
            fail_msg("%s: %s", good[i].text, xkd_last_error(cx));
        char *samples = show(&m);
        if (strcmp(columns, good[i].columns) != 0 || strcmp(samples, good[i].samples) != 0)
            fail_msg("%s: %s | %s", good[i].text, columns, samples);
        xkd_free(samples);
        xkd_free(columns);
        xkd_manifest_free(&m);
    }
}

/* Excel's "Unicode text", in both orders of bytes: characters of one to four bytes of UTF-8. */
static void unicode_text(void **state)
{
    static const char16_t text[] = u"path\tlabel\r\nv1.mp4\tdög\r\nv2.mp4\t犬\U0001F415\r\n";
    (void)state;
    for (int big = 0; big < 2; big++) {
        unsigned char bytes[2 * sizeof text];
        xkd_manifest m;
        char *columns;
        int64_t size = 0;
        bytes[size++] = big ? 0xFE : 0xFF;
        bytes[size++] = big ? 0xFF : 0xFE;
        for (size_t i = 0; text[i]; i++) {
            bytes[size++] = (unsigned char)(big ? text[i] >> 8 : text[i]);
            bytes[size++] = (unsigned char)(big ? text[i] : text[i] >> 8);
        }
        assert_int_equal(xkd_index_list(cx, put((const char *)bytes, size), root, &m, &columns), XKD_OK);
        char *samples = show(&m);
        assert_string_equal(columns, "columns: path=1 label=2; 2 rows");
        assert_string_equal(samples, "v1.mp4=dög v2.mp4=犬\U0001F415");
        xkd_free(samples);
        xkd_free(columns);
        xkd_manifest_free(&m);
    }
}

/* What was told while a list or folder was read. */
static char told[2000];

static void hear(void *user, xkd_log_level level, const char *message)
{
    (void)user;
    if (level > XKD_LOG_WARN) return;
    strncat(told, message, sizeof told - strlen(told) - 1);
    strncat(told, "\n", sizeof told - strlen(told) - 1);
}

/* Names of classes that people take for one, and those that only look a little alike. `said`: parts of the warning, with | between them. */
static const struct {
    const char *text, *samples, *said;
} alike[] = {
    {"v1.mp4,\"cat \"\nv2.mp4,\" cat\"\nv3.mp4,cat\n", "v1.mp4=cat v2.mp4=cat v3.mp4=cat",
     "blanks around names of classes are cut off"},
    {"v1.mp4,cat\xC2\xA0\nv2.mp4,\xE3\x80\x80 cat\n", "v1.mp4=cat v2.mp4=cat", "blanks around"},
    {"path,labels\nv1.mp4,\"['dog ', 'cat']\"\nv2.mp4,['dog']\n", "v1.mp4=dog+cat v2.mp4=dog", "blanks around"},
    {"v1.mp4,\"  \"\nv2.mp4,cat\n", "v1.mp4=- v2.mp4=cat", "blanks around"},
    {"v1.mp4,Cat\nv2.mp4,cat\nv3.mp4,dog\n", "v1.mp4=Cat v2.mp4=cat v3.mp4=dog",
     "\"Cat\" and \"cat\" (if they mean the same, give both one name and index again)"},
    {"v1.mp4,caf\xC3\xA9\nv2.mp4,cafe\xCC\x81\nv3.mp4,cafe\n", "v1.mp4=caf\xC3\xA9 v2.mp4=cafe\xCC\x81 v3.mp4=cafe",
     "(cafe\\u0301) and \"caf\xC3\xA9\" (caf\\u00E9) (if"},
    /* a capital with an accent; Cyrillic capitals and a letter of two parts; Hangul; kana */
    {"v1.mp4,\xC3\x89t\xC3\xA9\nv2.mp4,e\xCC\x81te\xCC\x81\n", "v1.mp4=\xC3\x89t\xC3\xA9 v2.mp4=e\xCC\x81te\xCC\x81",
     "(\\u00C9t\\u00E9)"},
    {"v1.mp4,\xD0\x9C\xD0\x99\nv2.mp4,\xD0\xBC\xD0\xB8\xCC\x86\n",
     "v1.mp4=\xD0\x9C\xD0\x99 v2.mp4=\xD0\xBC\xD0\xB8\xCC\x86", "(\\u041C\\u0419)"},
    {"v1.mp4,\xEA\xB0\x95\nv2.mp4,\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xBC\n",
     "v1.mp4=\xEA\xB0\x95 v2.mp4=\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xBC", "(\\uAC15)"},
    {"v1.mp4,\xE3\x81\x8C\nv2.mp4,\xE3\x81\x8B\xE3\x82\x99\n", "v1.mp4=\xE3\x81\x8C v2.mp4=\xE3\x81\x8B\xE3\x82\x99",
     "(\\u304C)"},
    /* three of one word are two pairs; more than three pairs are counted */
    {"v1.mp4,A\nv2.mp4,a\nv3.mp4,B\nv4.mp4,b\nv5.mp4,C\nv6.mp4,c\nv7.mp4,D\nv8.mp4,d\nv9.mp4,e\n",
     "v1.mp4=A v2.mp4=a v3.mp4=B v4.mp4=b v5.mp4=C v6.mp4=c v7.mp4=D v8.mp4=d v9.mp4=e",
     "\"A\" and \"a\"; \"B\" and \"b\"; \"C\" and \"c\"; and 1 more pairs"},
    /* another word, another accent, inner blanks, bytes that are no UTF-8: nothing is said */
    {"v1.mp4,cote\nv2.mp4,c\xC3\xB4te\nv3.mp4,cot\xC3\xA9\nv4.mp4,co te\nv5.mp4,\xE9\nv6.mp4,\xC3\nv7.mp4,e\n",
     "v1.mp4=cote v2.mp4=c\xC3\xB4te v3.mp4=cot\xC3\xA9 v4.mp4=co te v5.mp4=\xE9 v6.mp4=\xC3 v7.mp4=e", ""},
};

static void names_that_look_alike(void **state)
{
    (void)state;
    xkd_context_set_log(cx, hear, NULL, XKD_LOG_WARN);
    for (size_t i = 0; i < sizeof alike / sizeof *alike; i++) {
        xkd_manifest m;
        told[0] = 0;
        if (xkd_index_list(cx, put(alike[i].text, (int64_t)strlen(alike[i].text)), root, &m, NULL) != XKD_OK)
            fail_msg("%s: %s", alike[i].text, xkd_last_error(cx));
        char *samples = show(&m);
        const char *end = strchr(told, '\n');
        bool once = alike[i].said[0] ? strstr(told, alike[i].said) && end && !end[1] : !told[0];
        if (strcmp(samples, alike[i].samples) != 0 || !once) fail_msg("%s: %s | %s", alike[i].text, samples, told);
        xkd_free(samples);
        xkd_manifest_free(&m);
    }
    xkd_context_set_log(cx, NULL, NULL, XKD_LOG_WARN);
}

/* Letters with several marks, of all scripts, in one character or more and with their marks in any order that means the same. */
static const struct {
    const char *one, *other;
    bool alike;
} spellings[] = {
    {"\u1EC7", "e\u0323\u0302", true},                  /* Vietnamese */
    {"\u1EC7", "\u00EA\u0323", true},                   /* as Windows writes it */
    {"h\u1EE3p", "H\u01A1\u0323p", true},               /* a horn and a dot */
    {"\u1E69", "s\u0307\u0323", true},                  /* marks that stand on two sides of the letter */
    {"\u1F82", "\u03B1\u0313\u0300\u0345", true},       /* old Greek */
    {"\u1F71", "\u03AC", true},                         /* two codes of one letter */
    {"\u0130", "i\u0307", true},                        /* a Turkish capital */
    {"\u0958", "\u0915\u093C", true},                   /* Hindi */
    {"\u0BCA", "\u0BC6\u0BBE", true},                   /* Tamil */
    {"\u0628\u0651\u064E", "\u0628\u064E\u0651", true}, /* Arabic */
    {"\uFB2C", "\u05E9\u05C1\u05BC", true},             /* Hebrew */
    {"\u1EC7", "\u1EBF", false},                        /* another tone */
    {"a\u0300\u0301", "a\u0301\u0300", false},          /* one above the other */
    {"a\u0323b", "ab\u0323", false},
};

static void marks_of_letters(void **state)
{
    (void)state;
    xkd_context_set_log(cx, hear, NULL, XKD_LOG_WARN);
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        char text[200];
        xkd_manifest m;
        told[0] = 0;
        snprintf(text, sizeof text, "v1.mp4,%s\nv2.mp4,%s\n", spellings[i].one, spellings[i].other);
        assert_int_equal(xkd_index_list(cx, put(text, (int64_t)strlen(text)), root, &m, NULL), XKD_OK);
        assert_int_equal(m.class_count, 2);
        if (spellings[i].alike != (strstr(told, "stay two classes") != NULL)) fail_msg("%s%s", text, told);
        xkd_manifest_free(&m);
    }
    xkd_context_set_log(cx, NULL, NULL, XKD_LOG_WARN);
}

/* Blanks around a folder's name are no part of the class either, and two spellings are told. */
static void names_of_folders(void **state)
{
    (void)state;
    char command[600], path[100];
    xkd_manifest m;
    snprintf(path, sizeof path, "%s/set", root);
    snprintf(command, sizeof command,
             "cd '%s' && mkdir -p 'set/dog ' set/dog set/Owl set/owl && touch 'set/dog /1.mp4' set/dog/2.mp4 "
             "set/Owl/3.mp4 set/owl/4.mp4",
             root);
    assert_int_equal(system(command), 0);
    told[0] = 0;
    xkd_context_set_log(cx, hear, NULL, XKD_LOG_WARN);
    assert_int_equal(xkd_index_folder(cx, path, false, &m, NULL), XKD_OK);
    xkd_context_set_log(cx, NULL, NULL, XKD_LOG_WARN);
    char *samples = show(&m);
    assert_string_equal(samples, "Owl/3.mp4=Owl dog /1.mp4=dog dog/2.mp4=dog owl/4.mp4=owl");
    assert_non_null(strstr(told, "blanks around names of classes are cut off\n"));
    assert_non_null(strstr(told, "\"Owl\" and \"owl\""));
    xkd_free(samples);
    xkd_manifest_free(&m);
}

/* In a manifest classes are numbers by their place: names that become one are refused, single ones lose their blanks. */
static void blanks_in_a_manifest(void **state)
{
    (void)state;
    static const char rows[] = "{\"path\":\"a.mp4\",\"label\":\" dog\"}\n{\"path\":\"b.mp4\",\"label\":\"cat\"}\n"
                               "{\"path\":\"c.mp4\",\"label\":\"dog\"}\n{\"path\":\"d.mp4\",\"label\":\"CAT\"}\n",
                      head[] = "{\"xkd_manifest\":1,\"classes\":[\"dog \",\"cat\"]}\n"
                               "{\"path\":\"a.mp4\",\"label\":\"dog\"}\n{\"path\":\"b.mp4\",\"label\":1}\n",
                      twice[] =
                          "{\"xkd_manifest\":1,\"classes\":[\"dog \",\"dog\"]}\n{\"path\":\"a.mp4\",\"label\":1}\n";
    xkd_manifest m;
    xkd_context_set_log(cx, hear, NULL, XKD_LOG_WARN);
    told[0] = 0;
    assert_int_equal(xkd_manifest_load(cx, put(rows, sizeof rows - 1), false, &m), XKD_OK);
    char *samples = show(&m);
    assert_string_equal(samples, "a.mp4=dog b.mp4=cat c.mp4=dog d.mp4=CAT");
    assert_non_null(strstr(told, "blanks around"));
    assert_non_null(strstr(told, "\"CAT\" and \"cat\""));
    xkd_free(samples);
    xkd_manifest_free(&m);
    assert_int_equal(xkd_manifest_load(cx, put(head, sizeof head - 1), false, &m), XKD_OK);
    samples = show(&m);
    assert_string_equal(samples, "a.mp4=dog b.mp4=cat");
    xkd_free(samples);
    xkd_manifest_free(&m);
    assert_int_equal(xkd_manifest_load(cx, put(twice, sizeof twice - 1), false, &m), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_last_error(cx), "blanks around names do not count"));
    xkd_context_set_log(cx, NULL, NULL, XKD_LOG_WARN);
}

static const struct {
    const char *text, *message;
} bad[] = {
    {"clip_uri,kind\nv1.mp4,cat\n", "list:1: neither a file nor names of columns that are known"},
    {"id,label\nv1.mp4,cat\n", "list:1: none of these columns is named as one of files"},
    {"path,label\n", "names of columns and no rows"},
    {"v1.mp4,cat\nv2.mp4,dog,red,blue\n", "list:2: 4 fields with commas between them, where line 1 has 2"},
    {"v1.mp4,cat\nv2.mp4\n", "list:2: 1 fields with commas"},
    {"v1.mp4,female speech, woman\nv2.mp4,dog,train\n", "list:1: three columns, of which the third is neither"},
    {"\"v1.mp4,cat\nv2.mp4,dog\n", "a quote is opened and not closed"},
    {"\"v1.mp4\"x,cat\n", "list:1: something stands behind a closing quote"},
    {"cat,v1.mp4\ndog,v2.mp4\n", "list:1: column 2 holds the names of files"},
    {"v1.mp4,v1.wav\nv2.mp4,v2.wav\n", "list:1: column 2 holds the names of files"},
    {"v1.mp4;v1.wav;dog\nv2.mp4;v2.wav;cat\n", "list:1: column 2 holds the names of files"},
    {"v1.mp4,a,b,c\n", "list:1: 4 columns"},
    {"v1.mp4,3\nv2.mp4,dog\n", "list:1: label 3 is a number where others are names"},
    {"v1.mp4,-2\n", "list:1: label -2 is out of range -1 .. 999999"},
    {"v1.mp4,1000000\n", "list:1: label 1000000 is out of range"},
    {"v1.mp4,1\nv2.mp4,2\nv1.mp4,1\n", "list:3: path \"v1.mp4\" stands already in line 1"},
    {"/elsewhere/v1.mp4,1\n", "list:1: path \"/elsewhere/v1.mp4\" is absolute and not below"},
    {"a/../../v1.mp4,1\n", "list:1: path \"a/../../v1.mp4\" must name a file inside the root"},
    {"[{\"path\":\"v1.mp4\",\"label\":\"cat\"}]", "is JSON"},
    {"{\"path\":\"v1.mp4\"}\n{\"path\":\"v2.mp4\"}\n", "is JSON"},
    {"\n\n", "has no rows"},
    {"v1.mp4,0,cat\nv2.mp4,0,dog\n", "list:2: label 0 beside the name \"dog\""},
    {"v1.mp4,0,cat\nv2.mp4,5,dog\n", "list:2: label 5 beside the name \"dog\""},
    {"v1.mp4 cat\nv2.mp4\n", "list:2: 1 fields with blanks"},
    {"path,label\nv1.mp4,cat\nlabel,path\nv2.mp4,dog\n", "list:3: names of columns that line 1 does not have"},
    {"v1.mp4,cat\npath,label\nv2.mp4,dog\n", "list:2: names of columns that line 1 does not have"},
    {"v1.mp4,0.5\nv2.mp4,dog\n", "list:1: label 0.5 is no number of a class"},
    {"v1.mp4,dog\nv2.mp4,18446744073709551616\n", "list:2: label 18446744073709551616 is no number of a class"},
};

static void what_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        xkd_manifest m;
        char *columns = NULL;
        xkd_status status = xkd_index_list(cx, put(bad[i].text, (int64_t)strlen(bad[i].text)), root, &m, &columns);
        if (status != XKD_ERR_DATA || !strstr(xkd_last_error(cx), bad[i].message))
            fail_msg("%s: %d %s (%s)", bad[i].text, status, xkd_last_error(cx), columns ? columns : "");
        assert_non_null(strstr(xkd_last_error(cx), root));
        xkd_clear_error(cx);
    }
    xkd_manifest m;
    /* half a character, and half of one of two units */
    assert_int_equal(xkd_index_list(cx, put("\xFF\xFEv\0w", 5), root, &m, NULL), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_last_error(cx), "is UTF-16, and damaged at byte 5"));
    xkd_clear_error(cx);
    assert_int_equal(xkd_index_list(cx, put("\xFE\xFF\xD8\x3D\0v", 6), root, &m, NULL), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_last_error(cx), "is UTF-16, and damaged at byte 5"));
    xkd_clear_error(cx);
    assert_int_equal(xkd_index_list(cx, put("v1.mp4\0,1\n", 10), root, &m, NULL), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_last_error(cx), "is no text file"));
    xkd_clear_error(cx);
}

static void absolute_paths(void **state)
{
    (void)state;
    xkd_manifest m;
    char text[300];
    snprintf(text, sizeof text, "%s/a/v1.mp4 4\n%s//v2.mp4 5\n", root, root);
    assert_int_equal(xkd_index_list(cx, put(text, (int64_t)strlen(text)), root, &m, NULL), XKD_OK);
    assert_string_equal(m.samples[0].path, "a/v1.mp4");
    assert_string_equal(m.samples[1].path, "v2.mp4");
    assert_int_equal(m.samples[1].label, 5);
    xkd_manifest_free(&m);
    /* The root of the file system is above everything. */
    assert_int_equal(xkd_index_list(cx, put(text, (int64_t)strlen(text)), "/", &m, NULL), XKD_OK);
    assert_int_equal(strncmp(m.samples[0].path, root + 1, strlen(root) - 1), 0);
    xkd_manifest_free(&m);
}

static void touch(const char *name)
{
    char path[100];
    snprintf(path, sizeof path, "%s/%s", root, name);
    assert_int_equal(xkd_write_file(cx, path, "x", 1), XKD_OK);
}

static void expect(const char *text, const char *columns, const char *samples)
{
    xkd_manifest m;
    char *said;
    assert_int_equal(xkd_index_list(cx, put(text, (int64_t)strlen(text)), root, &m, &said), XKD_OK);
    char *got = show(&m);
    assert_string_equal(said, columns);
    assert_string_equal(got, samples);
    xkd_free(got);
    xkd_free(said);
    xkd_manifest_free(&m);
}

/* What two readings fit is decided by the files that are there. */
static void what_files_decide(void **state)
{
    (void)state;
    static const char text[] = "#c1.mp4,cat\n#c2.mp4,dog\nc3.mp4,dog\n", paths[] = "./d\\c4.mp4\nc3.mp4\n";
    touch("c1.mp4"); /* a row that was commented out */
    touch("#c2.mp4");
    expect(text, "columns: path=1 label=2; 2 rows, 1 comments", "#c2.mp4=dog c3.mp4=dog");
    touch("#c1.mp4");
    expect(text, "columns: path=1 label=2; 3 rows", "#c1.mp4=cat #c2.mp4=dog c3.mp4=dog");
    /* Python on Windows joins folders with backslashes to what was written with slashes. */
    char folder[100];
    snprintf(folder, sizeof folder, "%s/d", root);
    assert_int_equal(xkd_make_folder(cx, folder), XKD_OK);
    touch("d/c4.mp4");
    expect(paths, "columns: path=1; 2 rows, \\ read as /", "c3.mp4=- d/c4.mp4=-");
    touch("d\\c4.mp4");
    expect(paths, "columns: path=1; 2 rows", "c3.mp4=- d\\c4.mp4=-");
}

/* Names in a manifest without a list of classes are numbered alike, and not mixed with numbers. */
static void names_in_a_manifest(void **state)
{
    (void)state;
    xkd_manifest m;
    static const char text[] = "{\"path\":\"a.mp4\",\"label\":\"dog\"}\n{\"path\":\"b.mp4\",\"label\":\"cat\"}\n"
                               "{\"path\":\"c.mp4\",\"label\":-1}\n";
    assert_int_equal(xkd_manifest_read(cx, put(text, sizeof text - 1), &m), XKD_OK);
    assert_int_equal(m.class_count, 2);
    assert_string_equal(m.classes[0], "cat");
    assert_int_equal(m.samples[0].label, 1);
    assert_int_equal(m.samples[1].label, 0);
    assert_int_equal(m.samples[2].label, -1);
    xkd_manifest_free(&m);
    /* With a byte order mark and the line ends of Windows, as an editor may have left it. */
    static const char marked[] =
        "\xEF\xBB\xBF{\"xkd_manifest\":1,\"classes\":[\"x\"]}\r\n{\"path\":\"a.mp4\",\"label\":0}\r\n";
    assert_int_equal(xkd_manifest_read(cx, put(marked, sizeof marked - 1), &m), XKD_OK);
    assert_int_equal(m.count, 1);
    assert_string_equal(m.classes[0], "x");
    xkd_manifest_free(&m);
    static const char mixed[] = "{\"path\":\"a.mp4\",\"label\":\"dog\"}\n{\"path\":\"b.mp4\",\"label\":0}\n";
    assert_int_equal(xkd_manifest_read(cx, put(mixed, sizeof mixed - 1), &m), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_last_error(cx), "list:2: label is a number where others are names"));
    xkd_clear_error(cx);
}

/* Two names that are no UTF-8, and a sample of several labels that has none, come back. */
static void what_a_manifest_keeps(void **state)
{
    (void)state;
    xkd_manifest m, back;
    char path[100];
    snprintf(path, sizeof path, "%s/odd.jsonl", root);
    static const char text[] =
        "{\"path\":\"a.mp4\",\"labels\":[]}\n{\"path\":\"b.mp4\",\"label\":0}\n{\"path\":\"c.mp4\",\"label\":1}\n";
    assert_int_equal(xkd_manifest_read(cx, put(text, sizeof text - 1), &m), XKD_OK);
    static const char *const names[] = {"\xe9"
                                        "a",
                                        "\xe8"
                                        "b"};
    assert_int_equal(xkd_manifest_set_classes(cx, &m, names, 2), XKD_OK);
    m.follow_links = true;
    assert_int_equal(xkd_manifest_write(cx, &m, path, NULL), XKD_OK);
    xkd_manifest_free(&m);
    assert_int_equal(xkd_manifest_read(cx, path, &back), XKD_OK);
    assert_int_equal(back.class_count, 2);
    assert_string_equal(back.classes[0], names[0]);
    assert_string_equal(back.classes[1], names[1]);
    assert_true(back.follow_links);
    assert_non_null(back.samples[0].more->labels);
    assert_int_equal(back.samples[0].more->label_count, 0);
    xkd_manifest_free(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_understood),    cmocka_unit_test(what_is_refused),
        cmocka_unit_test(absolute_paths),        cmocka_unit_test(names_in_a_manifest),
        cmocka_unit_test(what_a_manifest_keeps), cmocka_unit_test(what_files_decide),
        cmocka_unit_test(names_that_look_alike), cmocka_unit_test(blanks_in_a_manifest),
        cmocka_unit_test(names_of_folders),      cmocka_unit_test(marks_of_letters),
        cmocka_unit_test(unicode_text),
    };
    cx = xkd_context_new();
    if (!cx || !mkdtemp(root)) return 1;
    int failed = cmocka_run_group_tests_name("list", tests, NULL, NULL);
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    xkd_context_free(cx);
    return system(command) || failed;
}
