/* The distance in typing errors between two words, for "did you mean". Insertions, deletions,
 * replacements and swaps of neighbours count 1 each. */
#include "base/spelling.h"

#include <stdlib.h>
#include <string.h>

/* Distances fit a byte; no option or command is longer. */
enum { LONGEST = 127 };

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* Optimal string alignment: three rows of the usual table are enough. */
int xkd_edit_distance(const char *a, const char *b, int limit)
{
    size_t m = strlen(a), n = strlen(b);
    unsigned char rows[3][LONGEST + 1];
    if (m > LONGEST || n > LONGEST) return limit;
    /* Every letter too many is an error already; of a table of words this leaves few to be compared. */
    if (llabs((long long)m - (long long)n) >= limit) return limit;
    unsigned char *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= n; j++) last[j] = (unsigned char)j;
    for (size_t i = 1; i <= m; i++) {
        now[0] = (unsigned char)i;
        for (size_t j = 1; j <= n; j++) {
            int best = smaller(last[j] + 1, now[j - 1] + 1);
            best = smaller(best, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) best = smaller(best, before[j - 2] + 1);
            now[j] = (unsigned char)best;
        }
        unsigned char *free_row = before;
        before = last;
        last = now;
        now = free_row;
    }
    return smaller(last[n], limit);
}
