/* A font of 3 x 5 dots, each 2 x 2 pixels. */
#include "report/letters.h"

#include <ctype.h>
#include <string.h>

enum { DOT = 2, ROWS = 5, COLUMNS = 3, ADVANCE = (COLUMNS + 1) * DOT, INK = 225 };

/* A glyph is five octal digits, a row each, the left dot highest. */
static const char order[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:%";
static const char glyphs[] = "25755"
                             "65656"
                             "34443"
                             "65556"
                             "74647"
                             "74644"
                             "34553"
                             "55755"
                             "72227"
                             "11152"
                             "55655"
                             "44447"
                             "57755"
                             "65555"
                             "25552"
                             "65644"
                             "25563"
                             "65655"
                             "34216"
                             "72222"
                             "55557"
                             "55552"
                             "55775"
                             "55255"
                             "55222"
                             "71247"
                             "75557"
                             "26227"
                             "61247"
                             "61216"
                             "55711"
                             "74616"
                             "34757"
                             "71222"
                             "75757"
                             "75716"
                             "00002"
                             "00700"
                             "02020"
                             "51245";

static void draw_dot(xkd_canvas *p, int64_t x, int64_t y)
{
    for (int64_t j = y < 0 ? 0 : y; j < y + DOT && j < p->height; j++)
        for (int64_t i = x < 0 ? 0 : x; i < x + DOT && i < p->width; i++)
            memset(p->rgb + (j * p->width + i) * 3, INK, 3);
}

void xkd_canvas_text(xkd_canvas *picture, int64_t x, int64_t y, const char *text)
{
    for (; *text; text++, x += ADVANCE) {
        const char *place = strchr(order, toupper((unsigned char)*text));
        if (!place) continue;
        const char *glyph = glyphs + ROWS * (place - order);
        for (int row = 0; row < ROWS; row++)
            for (int column = 0; column < COLUMNS; column++)
                if ((glyph[row] - '0') >> (COLUMNS - 1 - column) & 1)
                    draw_dot(picture, x + DOT * column, y + DOT * row);
    }
}
