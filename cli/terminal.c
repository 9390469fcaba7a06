#include "terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool terminal_on_stderr(void)
{
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0);
}

bool terminal_has_colours(void)
{
    const char *refused = getenv("NO_COLOR");
    return terminal_on_stderr() && !(refused && *refused);
}

/* The first of the variables that is set decides, as for setlocale. */
static bool is_utf8(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value && *value) return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
    }
    return false;
}

/* 79 where the width is not known, and one column less than there are, since writing into the last one would wrap. */
static int width(void)
{
    struct winsize window = {0};
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0 ? window.ws_col - 1 : 79;
}

/* One character of the line and how many bytes it has; of those outside of ASCII only blocks come, whose last byte is their
 * height. */
static void draw_character(const char *c, int bytes, bool utf8)
{
    static const char heights[] = "_.,-=+*#"; /* of U+2581 .. U+2588 */
    if (bytes == 1 || utf8)
        fwrite(c, 1, (size_t)bytes, stderr);
    else
        fputc(heights[(unsigned char)c[bytes - 1] & 7 ? ((unsigned char)c[bytes - 1] & 7) - 1 : 7], stderr);
}

void terminal_draw(const char *line)
{
    bool utf8 = is_utf8(), colours = terminal_has_colours(), painted = false;
    fputs("\r\033[K", stderr);
    for (int left = width(); line && *line && left > 0; left--) {
        int bytes = 1;
        while ((line[bytes] & 0xc0) == 0x80) bytes++;
        if (colours && painted != (bytes > 1)) {
            painted = bytes > 1;
            fputs(painted ? "\033[36m" : "\033[0m", stderr);
        }
        draw_character(line, bytes, utf8);
        line += bytes;
    }
    if (painted) fputs("\033[0m", stderr);
    fflush(stderr);
}

const char *terminal_fresh_line(void)
{
    return terminal_on_stderr() ? "\r\033[K" : "";
}
