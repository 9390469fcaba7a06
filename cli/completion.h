/* Completion scripts out of the tables of commands and options. */
#ifndef XKD_CLI_COMPLETION_H
#define XKD_CLI_COMPLETION_H

#include <stdbool.h>

/* Prints the script of bash, zsh or fish. False for another shell. */
bool completion_print(const char *shell);

#endif
