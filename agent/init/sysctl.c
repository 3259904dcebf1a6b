/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/init/sysctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/fd.h"

#define ROOT "/proc/sys/"

/* Of this process: in a forked child the library's function goes by the agent's threads. */
static int set_euid(uid_t uid)
{
    return (int)syscall(SYS_setresuid, -1, uid, -1);
}

/*
 * Settings of an IPC namespace belong to its user namespace's root, and newer kernels let nobody
 * else write them, be it the VM's root; others are the VM's root's alone.
 */
static int write_value(const char *path, const char *value, uid_t ns_root, struct err *err)
{
    struct err why;
    if (fd_write_text(AT_FDCWD, path, value, err) == 0)
        return 0;
    if (ns_root == 0 || err->code != ERR_DENIED || set_euid(ns_root) < 0)
        return -1;
    int rc = fd_write_text(AT_FDCWD, path, value, &why);
    if (set_euid(0) < 0)
        return err_set_errno(err, errno, "become root again");
    return rc;
}

int sysctl_set(Casemate__Agent__V1__Sysctl *const *list, size_t n, uid_t ns_root, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        char path[300];
        (void)snprintf(path, sizeof(path), ROOT "%.256s", list[i]->name);
        /* Dots separate, unless there are slashes: then a dot is part of a name (an interface's).
         */
        if (strchr(list[i]->name, '/') == NULL) {
            for (char *c = path + sizeof(ROOT) - 1; *c != '\0'; c++) {
                if (*c == '.')
                    *c = '/';
            }
        }
        if (write_value(path, list[i]->value, ns_root, err) < 0)
            return err_prefix(err, "sysctl %s", list[i]->name);
    }
    return 0;
}
