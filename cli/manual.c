/* Manual pages in man(7). Each part is put into a text; a page is a heading and its parts. */
#include "manual.h"

#include <stdio.h>
#include <string.h>
#include <xkd/version.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/status.h"
#include "base/text.h"
#include "config/options.h"

static const char SUMMARY[] = "self-supervised pre-training of video and audio encoders";

/* In roff a backslash begins a command, a dot at a line's start too, and a hyphen should stay a minus. */
static void put_roff(xkd_text *t, const char *text)
{
    bool line_start = true;
    for (; *text; text++) {
        const char one[2] = {*text, 0};
        /* \& is an empty character that hides the dot; \e is roff's backslash, \- a minus that can be copied from the page. */
        if (line_start && (*text == '.' || *text == '\'')) xkd_text_puts(t, "\\&");
        xkd_text_puts(t, *text == '\\' ? "\\e" : *text == '-' ? "\\-" : one);
        line_start = *text == '\n';
    }
}

static void put_line(xkd_text *t, const char *before, const char *text)
{
    xkd_text_puts(t, before);
    put_roff(t, text);
    xkd_text_puts(t, "\n");
}

/* One line of a paragraph's text, without its end. */
static void put_piece(xkd_text *t, const char *line, size_t length)
{
    char piece[1024];
    snprintf(piece, sizeof piece, "%.*s", (int)length, line);
    put_line(t, "", piece);
}

/* Paragraphs as help shows them: an empty line begins the next one, lines that begin with blanks stand as they are. */
static void put_paragraphs(xkd_text *t, const char *text)
{
    bool verbatim = false;
    while (*text) {
        size_t length = strcspn(text, "\n");
        bool indented = *text == ' ';
        if (indented != verbatim) xkd_text_puts(t, indented ? ".PP\n.nf\n" : ".fi\n.PP\n");
        verbatim = indented;
        if (length == 0)
            xkd_text_puts(t, ".PP\n");
        else
            put_piece(t, text, length);
        text += length + (text[length] == '\n');
    }
    if (verbatim) xkd_text_puts(t, ".fi\n");
}

static void put_heading(xkd_text *t, const char *name, const char *section, const char *summary)
{
    xkd_text_printf(t, ".TH \"");
    for (const char *c = name; *c; c++) xkd_text_printf(t, "%c", *c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    xkd_text_printf(t, "\" \"%s\" \"\" \"xkd %s\" \"xkd\"\n.SH NAME\n", section, xkd_version());
    put_roff(t, name);
    put_line(t, " \\- ", summary);
}

static void put_options(xkd_text *t, const struct cli_option *o)
{
    for (; o && o->name; o++) {
        xkd_text_puts(t, ".TP\n.B ");
        if (o->letter) xkd_text_printf(t, "\\-%c, ", o->letter);
        put_line(t, "\\-\\-", o->name);
        /* The placeholder goes into the tag's line, in italics. */
        if (o->value) {
            t->data[--t->size] = 0;
            xkd_text_puts(t, " \\fI");
            put_line(t, "", o->value);
            t->data[--t->size] = 0;
            xkd_text_puts(t, "\\fR\n");
        }
        put_line(t, "", o->help);
    }
}

static void put_example(xkd_text *t, const char *example)
{
    if (!example) return;
    xkd_text_puts(t, ".SH EXAMPLES\n.nf\n");
    /* Lines after the first are indented for help. */
    while (*example) {
        example += strspn(example, " ");
        size_t length = strcspn(example, "\n");
        put_piece(t, example, length);
        example += length + (example[length] == '\n');
    }
    xkd_text_puts(t, ".fi\n");
}

/* ---- parts of the pages ---- */

static void put_exit_status(xkd_text *t)
{
    static const char *const codes[][2] = {{"0", "ok"},
                                           {"1", "internal error; of xkd diff: the files differ"},
                                           {"2", "usage or configuration"},
                                           {"3", "data"},
                                           {"4", "checkpoint refused"},
                                           {"5", "storage"},
                                           {"6", "numbers that are not finite"},
                                           {"7", "another rank was lost"},
                                           {"8", "out of memory"},
                                           {"9", "device"},
                                           {"75", "stopped by a signal and saved: give the command again"},
                                           {"128+n", "ended by signal n"}};
    xkd_text_puts(t, ".SH EXIT STATUS\n");
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        xkd_text_printf(t, ".TP\n.B %s\n%s\n", codes[i][0], codes[i][1]);
}

static void put_environment(xkd_text *t)
{
    static const char *const variables[][2] = {
        {"XKD_CPU", "level of the kernels, v2 to v4, bf16, amx or neon, instead of the processor's highest"},
        {"NO_COLOR", "where it is set to anything, messages have no colours"},
        {"XKD_PROGRESS_SECONDS", "seconds between lines of progress where stderr is no terminal (60)"},
        {"RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT", "this process's place among several, as torchrun sets them"}};
    xkd_text_puts(t, ".SH ENVIRONMENT\n");
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        xkd_text_printf(t, ".TP\n.B %s\n%s\n", variables[i][0], variables[i][1]);
}

/* The keys of the configuration. Aliases and keys without effect are keys too: somebody may look for them. */
static void put_keys(xkd_text *t)
{
    char type[200];
    for (int i = 0; i < xkd_option_count(); i++) {
        const xkd_option *o = xkd_option_at(i);
        put_line(t, ".TP\n.B ", o->key);
        if (o->kind == XKD_OPTION_IGNORED) xkd_text_puts(t, "Accepted without effect: ");
        put_line(t, "", o->help);
        if (o->kind == XKD_OPTION_IGNORED || o->kind == XKD_OPTION_ALIAS) continue;
        xkd_option_type_text(o, type, sizeof type);
        xkd_text_puts(t, "(");
        put_roff(t, type);
        if (o->initial) {
            xkd_text_puts(t, "; default ");
            put_roff(t, *o->initial ? o->initial : "empty");
        }
        xkd_text_puts(t, ")\n");
    }
}

static void put_common_options(xkd_text *t)
{
    put_options(t, cli_common_options);
}

/* A command's usage, description and options; `path` is "xkd data index". */
static void put_command(xkd_text *t, const char *path, const struct cli_command *c)
{
    xkd_text_puts(t, ".SH SYNOPSIS\n.B ");
    put_line(t, "", path);
    if (c->usage && *c->usage) put_line(t, "", c->usage);
    xkd_text_puts(t, ".SH DESCRIPTION\n");
    put_paragraphs(t, c->description ? c->description : c->summary);
    xkd_text_puts(t, ".SH OPTIONS\n");
    put_options(t, c->options);
    put_common_options(t);
    put_example(t, c->example);
}

/* Calls `each` for every command that runs, with its path, groups resolved. */
typedef xkd_status (*command_visitor)(void *user, const char *path, const struct cli_command *command);

/* path [size] grows by the names on the way, and is cut again. */
static xkd_status visit(char *path, size_t size, const struct cli_command *const *commands, command_visitor each,
                        void *user)
{
    xkd_status status = XKD_OK;
    size_t length = strlen(path);
    for (; status == XKD_OK && *commands; commands++) {
        if ((*commands)->hidden) continue;
        snprintf(path + length, size - length, " %s", (*commands)->name);
        status = (*commands)->subcommands ? visit(path, size, (*commands)->subcommands, each, user)
                                          : each(user, path, *commands);
        path[length] = 0;
    }
    return status;
}

static xkd_status visit_all(command_visitor each, void *user)
{
    char path[128] = "xkd";
    return visit(path, sizeof path, cli_commands, each, user);
}

/* "xkd data index" -> "xkd-data-index". */
static void page_name(char *out, size_t size, const char *path)
{
    snprintf(out, size, "%s", path);
    for (char *c = out; *c; c++)
        if (*c == ' ') *c = '-';
}

static xkd_status list_command(void *user, const char *path, const struct cli_command *c)
{
    xkd_text *t = user;
    char name[128];
    page_name(name, sizeof name, path);
    xkd_text_puts(t, ".TP\n.BR ");
    put_roff(t, name);
    put_line(t, " (1)\n", c->summary);
    return t->status;
}

static void put_overview(xkd_text *t)
{
    put_heading(t, "xkd", "1", SUMMARY);
    xkd_text_puts(
        t, ".SH SYNOPSIS\n.B xkd\n\\fICOMMAND\\fR [\\fIOPTION\\fR ...] [\\fIKEY\\fR=\\fIVALUE\\fR ...]\n"
           ".SH DESCRIPTION\nTrains video and audio encoders on unlabelled videos with XKD (cross\\-modal\n"
           "knowledge distillation with domain alignment), and uses them. Results go to stdout, logs to stderr.\n"
           ".SH COMMANDS\n");
}

/* ---- whole pages ---- */

/* A section a command. */
static xkd_status put_section(void *user, const char *path, const struct cli_command *c)
{
    xkd_text *t = user;
    put_line(t, ".SS ", path);
    if (c->usage && *c->usage) {
        xkd_text_puts(t, ".B ");
        put_roff(t, path);
        put_line(t, "\n", c->usage);
        xkd_text_puts(t, ".PP\n");
    }
    put_paragraphs(t, c->description ? c->description : c->summary);
    put_options(t, c->options);
    return t->status;
}

xkd_status manual_print(struct cli *cli)
{
    xkd_text t = xkd_text_make(cli->cx);
    put_overview(&t);
    (void)visit_all(put_section, &t);
    xkd_text_puts(&t, ".SH OPTIONS OF ALL COMMANDS\n");
    put_common_options(&t);
    xkd_text_puts(&t, ".SH CONFIGURATION KEYS\n");
    put_keys(&t);
    put_environment(&t);
    put_exit_status(&t);
    if (t.status == XKD_OK) fputs(t.data, stdout);
    xkd_status status = t.status;
    xkd_text_free(&t);
    return status;
}

struct writing {
    struct cli *cli;
    const char *folder;
};

/* Frees the text. */
static xkd_status write_page(const struct writing *w, const char *name, const char *section, xkd_text *t)
{
    char *path = NULL;
    xkd_status status = t->status;
    if (status == XKD_OK) status = xkd_format_string(w->cli->cx, &path, "%s/%s.%s", w->folder, name, section);
    if (status == XKD_OK) status = xkd_write_file(w->cli->cx, path, t->data, t->size);
    xkd_free(path);
    xkd_text_free(t);
    return status;
}

static xkd_status write_command(void *user, const char *path, const struct cli_command *c)
{
    const struct writing *w = user;
    char name[128];
    xkd_text t = xkd_text_make(w->cli->cx);
    page_name(name, sizeof name, path);
    put_heading(&t, name, "1", c->summary);
    put_command(&t, path, c);
    xkd_text_puts(&t, ".SH SEE ALSO\n.BR xkd (1),\n.BR xkd\\-config (5)\n");
    return write_page(w, name, "1", &t);
}

xkd_status manual_write(struct cli *cli, const char *folder)
{
    xkd_status status = XKD_OK;
    struct writing w = {cli, folder};
    XKD_TRY(xkd_make_folder(cli->cx, folder));
    XKD_TRY(visit_all(write_command, &w));
    xkd_text t = xkd_text_make(cli->cx);
    put_overview(&t);
    (void)visit_all(list_command, &t);
    put_environment(&t);
    put_exit_status(&t);
    xkd_text_puts(&t, ".SH SEE ALSO\n.BR xkd\\-config (5)\n");
    XKD_TRY(write_page(&w, "xkd", "1", &t));
    t = xkd_text_make(cli->cx);
    put_heading(&t, "xkd-config", "5", "configuration of xkd");
    xkd_text_puts(
        &t,
        ".SH DESCRIPTION\nA configuration is a YAML file of maps; a key below stands for nested maps. Each key can\n"
        "also be given on the command line as KEY=VALUE. The released files of XKD load unchanged.\n.SH KEYS\n");
    put_keys(&t);
    xkd_text_puts(&t, ".SH SEE ALSO\n.BR xkd (1)\n");
    XKD_TRY(write_page(&w, "xkd-config", "5", &t));
fail:
    return status;
}
