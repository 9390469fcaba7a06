/* What a list means is found by trying: each separator in turn, judged by whether all lines then have as many fields and a
 * column of them are names of media. What two readings fit equally is refused rather than guessed. */
#include "data/list_columns.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "data/index.h"

typedef enum { NO_ROLE, PATH, LABEL, SPLIT, UNUSED } role;

/* Names of columns in the lists of data sets and of other people's programs, without case, blanks and signs. */
static const struct {
    role role;
    const char *names;
} known[] = {
    {PATH, " path file filename filepath fname fullpath relpath relativepath video videopath videofile videoname "
           "videofilename videofilepath audio audiopath audiofile audiofilename wav clip clippath clipname media "},
    {LABEL, " label labels class classname classlabel classid classidx classindex target targets category categoryname "
            "labelname labelid labelidx action actionlabel tag tags genre y "},
    {SPLIT, " split set subset partition usage "},
    {UNUSED, " start end starttime endtime timestart timeend startsec endsec duration seconds fps width height frames "
             "numframes totalframes nframes fold id index size "},
};

/* Longest name of a column that is looked up. */
enum { MOST_NAME = 32 };

static role role_of(const char *text)
{
    char word[MOST_NAME + 3] = " ";
    size_t n = 1;
    for (; *text; text++) {
        if (!isalnum((unsigned char)*text)) continue;
        if (n > MOST_NAME) return NO_ROLE;
        word[n++] = (char)tolower((unsigned char)*text);
    }
    word[n++] = ' ';
    word[n] = 0;
    for (size_t i = 0; n > 2 && i < sizeof known / sizeof *known; i++)
        if (strstr(known[i].names, word)) return known[i].role;
    return NO_ROLE;
}

bool xkd_list_number(const xkd_csv_field *field, int64_t *value)
{
    char *end;
    if (!*field->text) return false;
    errno = 0;
    *value = strtoll(field->text, &end, 10);
    if (errno || end == field->text || isspace((unsigned char)*field->text)) return false;
    /* pandas writes whole numbers so where a row lacks one. */
    if (*end == '.') end += 1 + strspn(end + 1, "0");
    return *end == 0;
}

bool xkd_list_any_number(const xkd_csv_field *field)
{
    const char *text = field->text + strspn(field->text, "+-");
    char *end;
    if (!isdigit((unsigned char)*text) && *text != '.') return false; /* "nan" and "infinity" are names */
    strtod(field->text, &end);
    return end != field->text && *end == 0;
}

/* The words that pandas reads as missing. "none" and "Null" are left to who has such classes. */
bool xkd_list_missing(const xkd_csv_field *field)
{
    static const char *const words[] = {"NaN", "nan",  "-NaN", "-nan", "None", "NA",   "N/A",
                                        "n/a", "<NA>", "NaT",  "NULL", "null", "#N/A", "#NA"};
    for (size_t i = 0; !field->quoted && i < sizeof words / sizeof *words; i++)
        if (strcmp(field->text, words[i]) == 0) return true;
    return false;
}

/* ---- the shape of a reading ---- */

static int64_t first_row(const xkd_list_columns *t)
{
    return t->header ? 1 : 0;
}

/* Whether every row's field in this column is a name of media; false where there are no rows. */
static bool is_path_column(const xkd_list_columns *t, int64_t column)
{
    for (int64_t r = first_row(t); r < t->csv.count; r++)
        if (!xkd_is_media_name(xkd_csv_at(&t->csv, r, column)->text)) return false;
    return t->csv.count > first_row(t);
}

/* Whether every row's field is a number, or empty; `some`: and not all are empty. */
static bool is_number_column(const xkd_list_columns *t, int64_t column)
{
    bool some = false;
    int64_t value;
    for (int64_t r = first_row(t); r < t->csv.count; r++) {
        const xkd_csv_field *f = xkd_csv_at(&t->csv, r, column);
        if (*f->text && !xkd_list_number(f, &value)) return false;
        some |= *f->text != 0;
    }
    return some;
}

/* Words for splits as people write them, as a whole or in a longer name such as trainlist01. */
static bool is_split_column(const xkd_list_columns *t, int64_t column)
{
    static const char *const words[] = {"train", "test", "val", "eval", "dev"};
    for (int64_t r = first_row(t); r < t->csv.count; r++) {
        const char *text = xkd_csv_at(&t->csv, r, column)->text;
        bool found = !*text;
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            found |= strncasecmp(text, words[i], strlen(words[i])) == 0;
        if (!found) return false;
    }
    return true;
}

/* How many fields of a line name columns of files, and how many others; none where one of them is a file itself. */
static void count_names(const xkd_csv *csv, int64_t record, int64_t *paths, int64_t *others)
{
    *paths = *others = 0;
    for (int64_t c = 0; c < csv->records[record].count; c++) {
        const char *text = xkd_csv_at(csv, record, c)->text;
        if (xkd_is_media_name(text)) {
            *paths = *others = 0;
            return;
        }
        role is = role_of(text);
        *paths += is == PATH;
        *others += is == LABEL || is == SPLIT || is == UNUSED;
    }
}

/* The first line names columns: one of them as a path, or two as anything known; and it is no row itself. */
static bool is_header(const xkd_csv *csv)
{
    int64_t paths = 0, others = 0;
    if (csv->count) count_names(csv, 0, &paths, &others);
    return paths > 0 || others > 1;
}

static bool same_fields(const xkd_csv *csv, int64_t a, int64_t b)
{
    int64_t most = csv->records[a].count > csv->records[b].count ? csv->records[a].count : csv->records[b].count;
    for (int64_t c = 0; c < most; c++)
        if (strcmp(xkd_csv_at(csv, a, c)->text, xkd_csv_at(csv, b, c)->text) != 0) return false;
    return true;
}

/* Lists that were joined have the line of names again in their middle. */
static void drop_repeated_header(xkd_list_columns *t)
{
    xkd_csv *csv = &t->csv;
    int64_t kept = 1;
    if (!t->header) return;
    for (int64_t r = 1; r < csv->count; r++)
        if (same_fields(csv, 0, r))
            t->repeated++;
        else
            csv->records[kept++] = csv->records[r];
    csv->count = kept;
}

/* Other names, or names where the first line has none: what the rows behind them mean is not what was understood. */
static xkd_status check_later_headers(xkd_context *cx, const char *list, const xkd_list_columns *t)
{
    for (int64_t r = 1; r < t->csv.count; r++) {
        int64_t paths, others;
        count_names(&t->csv, r, &paths, &others);
        if (paths && others)
            return xkd_fail(cx, XKD_ERR_DATA,
                            "%s:%" PRId64 ": names of columns that line %" PRId64
                            " does not have (join lists of the same columns, each with its names)",
                            list, t->csv.records[r].line, t->csv.records[0].line);
    }
    return XKD_OK;
}

/* Rows of separators alone, as spreadsheets leave behind the last one, are no rows; columns that are empty throughout are
 * no columns. */
static void drop_empty(xkd_list_columns *t)
{
    xkd_csv *csv = &t->csv;
    int64_t kept = 0;
    t->columns = 0;
    for (int64_t r = 0; r < csv->count; r++) {
        int64_t last = csv->records[r].count;
        while (last > 0 && !*xkd_csv_at(csv, r, last - 1)->text) last--;
        if (last == 0) continue;
        csv->records[kept++] = csv->records[r];
        if (last > t->columns) t->columns = last;
    }
    csv->count = kept;
    for (int64_t r = 0; r < kept; r++)
        if (csv->records[r].count > t->columns) csv->records[r].count = t->columns;
}

/* The first record that does not have as many fields as it must; -1: none. Behind a header all have as many; without one a
 * split may be left out. */
static int64_t irregular(const xkd_list_columns *t, bool blanks)
{
    int64_t most = t->columns, least = !t->header && !blanks && most == 3 ? 2 : most;
    for (int64_t r = 0; r < t->csv.count; r++)
        if (t->csv.records[r].count < least) return r;
    return -1;
}

/* ---- blanks ---- */

/* Joins the first `lead` fields of a record, between which only blanks were cut out. */
static void join_fields(xkd_csv *csv, int64_t r, int64_t lead)
{
    xkd_csv_record *record = &csv->records[r];
    if (lead < 2) return;
    xkd_csv_field *first = &csv->fields[record->first], *last = first + lead - 1;
    for (char *at = first->text; at < last->text; at++)
        if (!*at) *at = ' ';
    /* The first field moves up to where the others begin. */
    csv->fields[record->first + lead - 1] = *first;
    record->first += lead - 1;
    record->count -= lead - 1;
}

/* Fields from the first to the last one that ends like a file; 0: none does. */
static int64_t path_fields(const xkd_csv *csv, int64_t r)
{
    for (int64_t c = csv->records[r].count - 1; c >= 0; c--)
        if (xkd_is_media_name(xkd_csv_at(csv, r, c)->text)) return c + 1;
    return 0;
}

/* Whether the last `n` fields of every row are numbers. */
static bool end_in_numbers(const xkd_list_columns *t, int64_t n)
{
    int64_t value;
    for (int64_t r = first_row(t); r < t->csv.count; r++) {
        int64_t count = t->csv.records[r].count;
        if (count <= n) return false;
        for (int64_t c = count - n; c < count; c++)
            if (!xkd_list_number(xkd_csv_at(&t->csv, r, c), &value)) return false;
    }
    return true;
}

/* A path may hold blanks itself: it ends with the last word that ends like a file, or, where no row has one (folders of
 * frames), before the last number or two, or before the last word. False where rows are of both kinds. */
static bool join_paths(xkd_list_columns *t)
{
    xkd_csv *csv = &t->csv;
    int64_t named = 0;
    for (int64_t r = first_row(t); r < csv->count; r++)
        named += path_fields(csv, r) > 0 && !xkd_csv_at(csv, r, 0)->quoted;
    int64_t behind = end_in_numbers(t, 2) ? 2 : 1;
    for (int64_t r = first_row(t); r < csv->count; r++) {
        int64_t count = csv->records[r].count, lead = path_fields(csv, r);
        if (xkd_csv_at(csv, r, 0)->quoted) continue;
        if (named && !lead) return false;
        join_fields(csv, r, named ? lead : count > behind ? count - behind : 1);
    }
    return true;
}

/* ---- the separator ---- */

/* How well a reading fits: 0 not at all, 1 in shape, 2 with a column of files, or one that the header names. */
static int judge(xkd_list_columns *t, char separator)
{
    if (t->csv.fault[0] || t->csv.count == 0) return 0;
    t->header = is_header(&t->csv);
    if (separator == ' ' && !join_paths(t)) return 0;
    drop_empty(t);
    if (t->csv.count == 0 || t->columns < 2 || irregular(t, separator == ' ') >= 0) return 0;
    if (t->header) return 2;
    return is_path_column(t, 0) ? 2 : 1;
}

/* Whether a field holds what separates fields in other lists: then the file is rather one of those. */
static bool holds_separators(const xkd_list_columns *t)
{
    for (int64_t r = first_row(t); r < t->csv.count; r++) {
        const xkd_csv_field *f = xkd_csv_at(&t->csv, r, 0);
        if (!f->quoted && strpbrk(f->text, " \t;|")) return true;
    }
    return false;
}

/* One field a line: quotes are read where the lines have them, and a comma is part of the name where they do not. */
static xkd_status read_single(xkd_context *cx, const xkd_csv_text *text, xkd_list_columns *out, bool *fits)
{
    xkd_status status = XKD_OK;
    *fits = false;
    for (int k = 0; k < 2 && !*fits; k++) {
        xkd_csv_free(&out->csv);
        *out = (xkd_list_columns){0};
        XKD_TRY(xkd_csv_read(cx, text, k == 0 ? ',' : 0, &out->csv));
        if (out->csv.fault[0] || out->csv.count == 0) continue;
        out->header = is_header(&out->csv);
        drop_empty(out);
        *fits = out->columns == 1 && (is_path_column(out, 0) || out->header || (k == 0 && !holds_separators(out)));
    }
fail:
    return status;
}

/* Why nothing fits: by the separator that most lines hold. */
static xkd_status refuse(xkd_context *cx, const char *list, const xkd_csv_text *text)
{
    static const char separators[] = ",\t;| ";
    static const char *const words[] = {"commas", "tabs", "semicolons", "bars", "blanks"};
    xkd_status status = XKD_OK;
    xkd_list_columns t = {0};
    int best = 0;
    int64_t most = -1;
    for (int i = 0; separators[i]; i++) {
        int64_t held = 0;
        XKD_TRY(xkd_csv_read(cx, text, separators[i], &t.csv));
        for (int64_t r = 0; r < t.csv.count; r++) held += t.csv.records[r].count > 1;
        if (held > most && (separators[i] != ' ' || most <= 0)) {
            most = held;
            best = i;
        }
        xkd_csv_free(&t.csv);
    }
    XKD_TRY(xkd_csv_read(cx, text, separators[best], &t.csv));
    if (t.csv.fault[0])
        XKD_FAIL(XKD_ERR_DATA, "%s:%" PRId64 ": %s (read with %s between the fields)", list, t.csv.fault_line,
                 t.csv.fault, words[best]);
    drop_empty(&t);
    t.header = is_header(&t.csv);
    for (int64_t r = 1; r < t.csv.count; r++)
        if (t.csv.records[r].count != t.csv.records[0].count)
            XKD_FAIL(XKD_ERR_DATA,
                     "%s:%" PRId64 ": %" PRId64 " fields with %s between them, where line %" PRId64 " has %" PRId64
                     ": quote a field that holds the separator (\"a,b\")",
                     list, t.csv.records[r].line, t.csv.records[r].count, words[best], t.csv.records[0].line,
                     t.csv.records[0].count);
    XKD_FAIL(XKD_ERR_DATA, "%s: what its columns are cannot be told: put a line such as \"path,label\" in front", list);
fail:
    xkd_csv_free(&t.csv);
    return status;
}

/* Whether another column than the first holds the names of files. */
static bool has_files_elsewhere(const xkd_list_columns *t)
{
    for (int64_t c = 1; c < t->columns; c++)
        if (is_path_column(t, c)) return true;
    return false;
}

/* The best reading; of equal ones that of the more particular separator. */
static xkd_status choose_separator(xkd_context *cx, const char *list, const xkd_csv_text *text, const char *separators,
                                   xkd_list_columns *out)
{
    xkd_status status = XKD_OK;
    xkd_list_columns t = {0};
    int best = 0;
    bool fits = false;
    for (int i = 0; separators[i] && best < 2; i++) {
        t = (xkd_list_columns){0};
        XKD_TRY(xkd_csv_read(cx, text, separators[i], &t.csv));
        int score = judge(&t, separators[i]);
        if (score > best) {
            best = score;
            xkd_csv_free(&out->csv);
            *out = t;
            t = (xkd_list_columns){0};
        }
        xkd_csv_free(&t.csv);
    }
    /* Names of files alone come before two columns of which none is of files. */
    if (best < 2 && !has_files_elsewhere(out)) {
        XKD_TRY(read_single(cx, text, &t, &fits));
        if (fits && (best == 0 || t.header || is_path_column(&t, 0))) {
            xkd_csv_free(&out->csv);
            *out = t;
            t = (xkd_list_columns){0};
            best = 2;
        }
    }
    if (best == 0) XKD_TRY(refuse(cx, list, text));
fail:
    xkd_csv_free(&t.csv);
    return status;
}

/* ---- the columns ---- */

/* Empties the fields of a column in which a value is missing. */
static void empty_missing(xkd_list_columns *t, int64_t column)
{
    for (int64_t r = first_row(t); column >= 0 && r < t->csv.count; r++) {
        const xkd_csv_field *f = xkd_csv_at(&t->csv, r, column);
        if (!xkd_list_missing(f)) continue;
        if (!t->missing++) snprintf(t->missing_word, sizeof t->missing_word, "%s", f->text);
        *f->text = 0;
    }
}

/* By the header's names; of several for one thing the first. Two columns of labels are numbers and their names. */
static xkd_status by_header(xkd_context *cx, const char *list, xkd_list_columns *t)
{
    int64_t second = -1;
    for (int64_t c = 0; c < t->columns; c++) {
        const char *text = xkd_csv_at(&t->csv, 0, c)->text;
        switch (role_of(text)) {
        case PATH:
            if (t->path < 0) t->path = c;
            break;
        case LABEL:
            if (t->label < 0)
                t->label = c;
            else if (second < 0)
                second = c;
            break;
        case SPLIT:
            if (t->split < 0) t->split = c;
            break;
        default: break;
        }
    }
    if (t->path < 0)
        return xkd_fail(cx, XKD_ERR_DATA,
                        "%s:%" PRId64 ": none of these columns is named as one of files (path, file, filename, video, "
                        "audio, ...)",
                        list, t->csv.records[0].line);
    empty_missing(t, t->label);
    empty_missing(t, second);
    empty_missing(t, t->split);
    if (second >= 0 && is_number_column(t, t->label) != is_number_column(t, second)) {
        bool first = is_number_column(t, t->label);
        t->name = first ? second : t->label;
        t->label = first ? t->label : second;
    }
    t->labels = t->label >= 0 && strcasecmp(xkd_csv_at(&t->csv, 0, t->label)->text, "labels") == 0;
    return XKD_OK;
}

/* Without names: path; path, label; path, label, split; path, frames, label; path, number of the class, its name. */
static xkd_status by_place(xkd_context *cx, const char *list, xkd_list_columns *t)
{
    xkd_status status = XKD_OK;
    int64_t line = t->csv.records[0].line;
    t->path = 0;
    for (int64_t c = 1; c < t->columns; c++) empty_missing(t, c);
    for (int64_t c = 1; c < t->columns; c++)
        if (is_path_column(t, c)) /* instead of the first one, or beside it: a file of sound for each of pictures */
            XKD_FAIL(XKD_ERR_DATA,
                     "%s:%" PRId64 ": column %" PRId64
                     " holds the names of files: put a line such as \"label,path\" in front, "
                     "or quote paths that hold the separator",
                     list, line, c + 1);
    /* A line of names that are not known would become a sample, and shift the numbers of the classes. */
    if (t->csv.count > 1 && !xkd_is_media_name(xkd_csv_at(&t->csv, 0, 0)->text)) {
        t->header = true;
        bool others = is_path_column(t, 0);
        t->header = false;
        if (others)
            XKD_FAIL(XKD_ERR_DATA,
                     "%s:%" PRId64 ": neither a file nor names of columns that are known (path, label, split, ...)",
                     list, line);
    }
    if (t->columns == 2) t->label = 1;
    if (t->columns == 3) {
        bool second = is_number_column(t, 1), third = is_number_column(t, 2);
        if (is_split_column(t, 2)) {
            t->label = 1;
            t->split = 2;
        } else if (third) {
            t->label = 2; /* behind the number of frames, or VideoMAE's first frame */
        } else if (second) {
            t->label = 1;
            t->name = 2;
        } else {
            XKD_FAIL(XKD_ERR_DATA,
                     "%s:%" PRId64
                     ": three columns, of which the third is neither a split (train, test, val) nor a number: "
                     "put a line such as \"path,label,split\" in front, or quote labels that hold the separator",
                     list, line);
        }
    }
    if (t->columns > 3)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s:%" PRId64 ": %" PRId64 " columns: put a line of their names in front (path,label,...)", list, line,
                 t->columns);
fail:
    return status;
}

xkd_status xkd_list_columns_find(xkd_context *cx, const char *list, const xkd_csv_text *whole, xkd_list_columns *out)
{
    xkd_status status = XKD_OK;
    xkd_csv_text text = *whole;
    const char *start = text.text + xkd_csv_mark(text.text, text.size);
    char forced[2] = "";
    *out = (xkd_list_columns){0};
    /* Excel's own line for who reads the file. */
    if (text.text + text.size - start > 5 && strncasecmp(start, "sep=", 4) == 0 && strchr("\r\n", start[5])) {
        forced[0] = start[4];
        text.size -= start + 5 - text.text;
        text.text = start + 5;
    }
    XKD_TRY(choose_separator(cx, list, &text, forced[0] ? forced : ",\t;| ", out));
    drop_repeated_header(out);
    XKD_TRY(check_later_headers(cx, list, out));
    out->path = out->label = out->name = out->split = -1;
    XKD_TRY(out->header ? by_header(cx, list, out) : by_place(cx, list, out));
    if (out->csv.count <= first_row(out))
        XKD_FAIL(XKD_ERR_DATA, "%s: has names of columns and no rows (was it cut off?)", list);
    out->numbers = out->label >= 0 && !out->labels && is_number_column(out, out->label);
    out->passed_over = out->columns > (out->path >= 0) + (out->label >= 0) + (out->name >= 0) + (out->split >= 0);
fail:
    return status;
}
