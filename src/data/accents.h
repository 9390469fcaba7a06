/* Letters with accents, of which each can be stored in one character or in several. */
#ifndef XKD_DATA_ACCENTS_H
#define XKD_DATA_ACCENTS_H

#include <wchar.h>

/* Writes the parts of a small letter, up to four, without an end; returns where the next ones go. */
wchar_t *xkd_take_apart(wchar_t *out, wchar_t letter);

/* Puts the marks behind each letter into the order in which Unicode compares them; `letters` ends with 0. */
void xkd_order_marks(wchar_t *letters);

#endif
