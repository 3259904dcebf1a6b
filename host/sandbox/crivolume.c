/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A name is cleaned as text; links of the image are the agent's to follow. What is left out is
 * where the runtime's own file systems are: containerd puts a volume over /sys/fs/cgroup, which old
 * images for systemd name, and hides the cgroups from them; over or below /proc runc refuses to
 * start the container. Here they see what every container sees there.
 */
#include "host/sandbox/crivolume.h"

#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "common/base/text.h"

static bool is_left_out(const char *path)
{
    static const char *const kernels[] = {"/proc", "/sys", "/dev"};

    for (size_t i = 0; i < ARRAY_SIZE(kernels); i++) {
        size_t n = strlen(kernels[i]);
        if (text_has_prefix(path, kernels[i]) && (path[n] == '\0' || path[n] == '/'))
            return true;
    }
    return false;
}

int crivolume_path(const char *name, char *ret_path, struct err *err)
{
    size_t n = 0;

    if (strlen(name) >= PATH_MAX - 1)
        return err_set(err, ERR_INVALID, "image: Volumes: a path longer than %d bytes", PATH_MAX);
    for (const char *part = name; *part != '\0';) {
        size_t len = strcspn(part, "/");
        if (len == 2 && memcmp(part, "..", 2) == 0) {
            while (n > 0 && ret_path[--n] != '/')
                ;
        } else if (len > 0 && !(len == 1 && *part == '.')) {
            ret_path[n++] = '/';
            memcpy(ret_path + n, part, len);
            n += len;
        }
        part += len;
        part += strspn(part, "/");
    }
    ret_path[n] = '\0';
    if (is_left_out(ret_path))
        ret_path[0] = '\0';
    return 0;
}
