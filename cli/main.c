#include <stdio.h>

int main(void)
{
    puts("xkd " XKD_VERSION);
    return 0;
}
