/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/init/sysctl.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/base/fd.h"

#define ROOT "/proc/sys/"

int sysctl_set(Casemate__Agent__V1__Sysctl *const *list, size_t n, struct err *err)
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
        if (fd_write_text(AT_FDCWD, path, list[i]->value, err) < 0)
            return err_prefix(err, "sysctl %s", list[i]->name);
    }
    return 0;
}
