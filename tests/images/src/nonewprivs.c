/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints the effective uid. The image carries it setuid root, so what it prints tells whether
 * no_new_privs was set.
 */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    printf("Effective uid: %d\n", (int)geteuid());
    return 0;
}
