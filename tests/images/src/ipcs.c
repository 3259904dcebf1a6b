/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ipcs [-m]: the System V shared memory segments of this ipc namespace. Debian's busybox has no
 * ipcs, and the conformance specs of the ipc namespaces look for a segment's id in its output.
 * Source: /proc/sysvipc/shm, whose first line names the columns "key shmid perms size ...".
 */
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    char line[512];
    FILE *f;
    int first = 1;

    if (argc > 2 || (argc == 2 && strcmp(argv[1], "-m") != 0)) {
        fputs("usage: ipcs [-m]\n", stderr);
        return 2;
    }
    f = fopen("/proc/sysvipc/shm", "re");
    if (!f) {
        perror("ipcs: /proc/sysvipc/shm");
        return 1;
    }
    puts("------ Shared Memory Segments --------");
    puts("key        shmid      perms      bytes");
    while (fgets(line, sizeof(line), f)) {
        int key, id;
        unsigned int perms;
        unsigned long size;

        if (!first && sscanf(line, "%d %d %o %lu", &key, &id, &perms, &size) == 4)
            printf("0x%08x %-10d %-10o %lu\n", (unsigned int)key, id, perms, size);
        first = 0;
    }
    fclose(f);
    return 0;
}
