/* Small capitals for pictures: every file tells by itself what its parts are. */
#ifndef XKD_REPORT_LETTERS_H
#define XKD_REPORT_LETTERS_H

#include "report/canvas.h"

enum { XKD_LETTER_HEIGHT = 10 };

/* Draws text in light grey with its upper left corner at (x, y). Letters, digits and .-:% are drawn, all else is a blank. What lies
 * outside is cut off. */
void xkd_canvas_text(xkd_canvas *picture, int64_t x, int64_t y, const char *text);

#endif
