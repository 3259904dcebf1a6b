/* SPDX-License-Identifier: Apache-2.0 */
/* A user specification, a passwd and a group text out of the input, separated by NULs. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/process/userdb.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 3);
    struct user user = {.uid = (uid_t)-1};
    struct err err;
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    memset(text + size, 0, 3);
    const char *spec = text;
    const char *passwd = spec + strlen(spec) + 1;
    const char *group = passwd <= text + size ? passwd + strlen(passwd) + 1 : text + size;
    if (group > text + size)
        group = text + size;
    if (passwd > text + size)
        passwd = text + size;
    if (userdb_resolve(spec, passwd, group, size % 2 == 0, &user, &err) == 0) {
        if (user.uid == (uid_t)-1 || user.gid == (gid_t)-1 || user.n_groups > USERDB_MAX_GROUPS ||
            (user.home[0] != '\0' && user.home[0] != '/') ||
            memchr(user.home, 0, sizeof(user.home)) == NULL)
            abort();
    }
    char home[USERDB_MAX_HOME];
    userdb_home(passwd, (uid_t)size, home);
    free(text);
    return 0;
}
