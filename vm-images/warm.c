/* SPDX-License-Identifier: Apache-2.0 */
/* What machines that are made ahead run to warm up: ends at once, or with an argument waits to be
 * killed. */
#include <unistd.h>

int main(int argc, char **argv)
{
    (void)argv;
    while (argc > 1)
        (void)pause();
    return 0;
}
