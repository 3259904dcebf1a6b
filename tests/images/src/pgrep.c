/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pgrep NAME: the ids of the processes whose command name contains NAME, one a line, itself left
 * out; exit 1 when there is none. Debian's busybox has no pgrep, and conformance specs run it.
 */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whether process pid's command name, as /proc has it, contains name. A process that is gone does
 * not match. */
static int matches(const char *pid, const char *name)
{
    char path[64], comm[64] = "";
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
    f = fopen(path, "re");
    if (!f)
        return 0;
    if (!fgets(comm, sizeof(comm), f))
        comm[0] = '\0';
    fclose(f);
    return strstr(comm, name) != NULL;
}

int main(int argc, char **argv)
{
    DIR *proc;
    struct dirent *entry;
    int found = 0;

    if (argc != 2) {
        fputs("usage: pgrep NAME\n", stderr);
        return 2;
    }
    proc = opendir("/proc");
    if (!proc) {
        perror("pgrep: /proc");
        return 3;
    }
    while ((entry = readdir(proc)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0]) ||
            strtol(entry->d_name, NULL, 10) == getpid())
            continue;
        if (matches(entry->d_name, argv[1])) {
            puts(entry->d_name);
            found = 1;
        }
    }
    closedir(proc);
    return found ? 0 : 1;
}
