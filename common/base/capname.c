/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host and guest speak of capabilities by name, so that neither depends on the other's kernel; one
 * table for both. New ones are added at the end, as the kernel does, and to by_name in their place.
 */
#include "common/base/capname.h"

#include <stddef.h>
#include <string.h>

static const char *const names[CAPNAME_COUNT] = {
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
};

const char *capname_get(unsigned number)
{
    return number < CAPNAME_COUNT ? names[number] : NULL;
}

/* The numbers in the order of their names: a process has some dozens to look up. */
static const unsigned char by_name[CAPNAME_COUNT] = {
    30, 37, 29, 36, 39, 40, 0, 1,  2,  3,  4,  14, 15, 5,  28, 9,  33, 32, 27, 12, 10,
    11, 13, 38, 31, 6,  8,  7, 34, 21, 22, 18, 16, 23, 20, 19, 17, 24, 25, 26, 35};

int capname_number(const char *name)
{
    size_t low = 0, high = CAPNAME_COUNT;

    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(name, names[by_name[middle]]);
        if (order == 0)
            return by_name[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -1;
}
