/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A VM is put into the pod's cgroup by its spawner, which writes the child's
 * pid into cgroup.procs before exec; here only the directories are made. No limit is written: the
 * pod's own are the kubelet's, in cgroup_parent.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <linux/magic.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/sandbox/vmcgroup.h"

#define ROOT "/sys/fs/cgroup"

static const char *const v1_controllers[] = {"memory", "cpu", "pids"};

/* An absolute path without ".", ".." or anything that is no path. */
static bool is_plain(const char *path)
{
    if (path[0] != '/' || strlen(path) > 2000)
        return false;
    for (const char *part = path; part != NULL; part = strchr(part + 1, '/')) {
        if (strcmp(part, "/..") == 0 || strncmp(part, "/../", 4) == 0 || strcmp(part, "/.") == 0 ||
            strncmp(part, "/./", 3) == 0)
            return false;
    }
    return true;
}

static bool is_cgroup(const char *path, unsigned long magic)
{
    struct statfs fs;

    return statfs(path, &fs) == 0 && (unsigned long)fs.f_type == magic;
}

static int make_one(const char *hierarchy, const char *parent, const char *name, char **ret_dir,
                    struct err *err)
{
    cleanup_free char *dir = text_printf("%s%s/casemate-%s", hierarchy, parent, name);

    if (dir == NULL)
        return err_no_memory(err);
    if (fd_make_dirs(dir, 0755, err) != 0)
        return -1;
    *ret_dir = steal_ptr(&dir);
    return 0;
}

int vmcgroup_make(const char *parent, const char *name, char ***ret_dirs, size_t *ret_n,
                  struct err *err)
{
    char **dirs = calloc(ARRAY_SIZE(v1_controllers) + 1, sizeof(char *));
    size_t n = 0;

    if (dirs == NULL)
        return err_no_memory(err);
    if (!is_plain(parent)) {
        free(dirs);
        return err_set(err, ERR_INVALID, "linux.cgroup_parent '%s' is not an absolute path",
                       parent);
    }
    if (is_cgroup(ROOT, CGROUP2_SUPER_MAGIC)) {
        if (make_one(ROOT, parent, name, &dirs[0], err) != 0)
            goto fail;
        n = 1;
    }
    bool unified = n > 0;
    for (size_t i = 0; !unified && i < ARRAY_SIZE(v1_controllers); i++) {
        cleanup_free char *hierarchy = text_printf(ROOT "/%s", v1_controllers[i]);
        if (hierarchy == NULL || !is_cgroup(hierarchy, CGROUP_SUPER_MAGIC))
            continue;
        if (make_one(hierarchy, parent, name, &dirs[n], err) != 0)
            goto fail;
        n++;
    }
    if (n == 0) {
        err_set(err, ERR_UNSUPPORTED, "linux.cgroup_parent: no cgroup hierarchy below " ROOT);
        goto fail;
    }
    *ret_dirs = dirs;
    *ret_n = n;
    return 0;
fail:
    vmcgroup_remove(dirs, n);
    for (size_t i = 0; i < n; i++)
        free(dirs[i]);
    free(dirs);
    return err_prefix(err, "cgroup");
}

int vmcgroup_enter(char *const *dirs, size_t n, pid_t pid, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        cleanup_free char *procs = text_printf("%s/cgroup.procs", dirs[i]);
        cleanup_free char *text = text_printf("%d", (int)pid);
        if (procs == NULL || text == NULL)
            return err_no_memory(err);
        if (fd_write_text(AT_FDCWD, procs, text, err) != 0)
            return err_prefix(err, "cgroup");
    }
    return 0;
}

void vmcgroup_remove(char *const *dirs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (dirs[i] != NULL && rmdir(dirs[i]) != 0 && errno != ENOENT)
            log_warn("cgroup %s is not removed (errno %d), ignoring", dirs[i], errno);
    }
}
