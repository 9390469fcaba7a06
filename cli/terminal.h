/* What stderr is: a terminal that can be drawn on, with colours or without, or a file that gets plain lines. */
#ifndef XKD_CLI_TERMINAL_H
#define XKD_CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

/* A terminal that understands control sequences: TERM=dumb does not. */
bool terminal_on_stderr(void);

/* Colours are wanted there: not where NO_COLOR is set to anything (https://no-color.org). */
bool terminal_has_colours(void);

/* Draws `line` over the terminal's last line, cut to its width; NULL removes it. Blocks of a sparkline become ASCII where the locale
 * is not UTF-8. */
void terminal_draw(const char *line);

/* What goes in front of a whole line on stderr: the bar's removal on a terminal, else "". */
const char *terminal_fresh_line(void);

#endif
