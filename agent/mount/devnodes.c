/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes are made anew with the numbers of the VM's, never bound: a container that removes or chmods
 * one does so in its own /dev. The VM's /dev is read through a descriptor, since its path is out of
 * reach in the new root. The container's is a fresh tmpfs in which only these functions have made
 * anything.
 */
#include "agent/mount/devnodes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "agent/mount/mnt.h"

#define MAX_DEPTH 6
#define DEV       "/dev/"

int devnodes_make_standard(int dev_fd, struct err *err)
{
    static const struct {
        const char *name;
        unsigned major, minor;
    } nodes[] = {{"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
                 {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
    static const struct {
        const char *name;
        const char *target;
    } links[] = {{"fd", "/proc/self/fd"},       {"stdin", "/proc/self/fd/0"},
                 {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
                 {"ptmx", "pts/ptmx"},          {"core", "/proc/kcore"}};
    mode_t old = umask(0);
    for (size_t i = 0; i < ARRAY_SIZE(nodes); i++) {
        if (mknodat(dev_fd, nodes[i].name, S_IFCHR | 0666,
                    makedev(nodes[i].major, nodes[i].minor)) < 0)
            return err_set_errno(err, errno, "make /dev/%s", nodes[i].name);
    }
    (void)umask(old);
    for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
        if (symlinkat(links[i].target, dev_fd, links[i].name) < 0)
            return err_set_errno(err, errno, "make /dev/%s", links[i].name);
    }
    return 0;
}

/*
 * A node like the one that st describes, at a path below dev_fd whose folders are made. One that
 * the container was granted belongs to its root; of the others, which a privileged one sees, root
 * of a user namespace has no more than what their modes give to everybody.
 */
static int make_node(int dev_fd, const char *path, const struct stat *st, bool granted,
                     struct err *err)
{
    cleanup_fd int folder = -1;
    char parent[256] = ".";
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    if (slash != NULL)
        (void)snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
    if (mnt_make_dir_in(dev_fd, parent, false, &folder, err) < 0)
        return err_prefix(err, "device %s", path);
    mode_t old = umask(0);
    int rc = mknodat(folder, name, st->st_mode, st->st_rdev);
    int e = errno;
    (void)umask(old);
    if (rc < 0)
        return e == EEXIST ? 0 : err_set_errno(err, e, "make device %s", path);
    if (!granted && fchownat(folder, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        return err_set_errno(err, errno, "own device %s", path);
    return 0;
}

static bool is_device(const struct stat *st)
{
    return S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode);
}

int devnodes_make(int dev_fd, int vm_dev_fd, Casemate__Agent__V1__Device *const *devices, size_t n,
                  struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        const Casemate__Agent__V1__Device *d = devices[i];
        const char *from = d->guest_path[0] != '\0' ? d->guest_path : d->path;
        struct stat st;
        if (fstatat(vm_dev_fd, from + sizeof(DEV) - 1, &st, 0) < 0)
            return err_set_errno(err, errno, "device %s", from);
        if (!is_device(&st))
            return err_set(err, ERR_INVALID, "%s is no device", from);
        if (make_node(dev_fd, d->path + sizeof(DEV) - 1, &st, true, err) < 0)
            return -1;
    }
    return 0;
}

/* Copies the nodes of the folder that `path` ("" for the top) names below the VM's /dev. */
static int copy_folder(int dev_fd, int vm_dev_fd, const char *path, int depth, struct err *err)
{
    int fd = openat(vm_dev_fd, path[0] == '\0' ? "." : path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL) {
        close_fd(&fd);
        return err_set_errno(err, errno, "read /dev/%s", path);
    }
    int rc = 0;
    struct dirent *e;
    while (rc == 0 && (e = readdir(dir)) != NULL) {
        char child[512];
        struct stat st;
        int len =
            snprintf(child, sizeof(child), "%s%s%s", path, path[0] == '\0' ? "" : "/", e->d_name);
        if (e->d_name[0] == '.' || len >= 256 || strcmp(child, "pts") == 0 ||
            fstatat(vm_dev_fd, child, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (is_device(&st))
            rc = make_node(dev_fd, child, &st, false, err);
        else if (S_ISDIR(st.st_mode) && depth < MAX_DEPTH)
            rc = copy_folder(dev_fd, vm_dev_fd, child, depth + 1, err);
    }
    (void)closedir(dir);
    return rc;
}

int devnodes_make_all(int dev_fd, int vm_dev_fd, struct err *err)
{
    return copy_folder(dev_fd, vm_dev_fd, "", 0, err);
}
