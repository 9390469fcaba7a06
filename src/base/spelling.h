/* How far two names are apart, to suggest what somebody who mistyped may have meant. */
#ifndef XKD_BASE_SPELLING_H
#define XKD_BASE_SPELLING_H

/* Edit distance (insert, delete, replace, swap of neighbours) of two strings, or `limit` if it is not below that.
 * Strings longer than 127 bytes are `limit` apart. */
int xkd_edit_distance(const char *a, const char *b, int limit);

#endif
