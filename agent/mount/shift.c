/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Top down: a directory gets its owner before it is read, since with that the
 * overlay makes its own directory of the layers', and what is read from then on does not change
 * when the entries get theirs. With metacopy a file's owner is copied up without its content.
 *
 * The tree is an image's, so it is hostile, but nobody changes it meanwhile: no process of the
 * container runs. Every step names one entry of an open directory and follows nothing; directories
 * are opened with RESOLVE_NO_XDEV, and no deeper than a limit.
 *
 * An id that the namespace has not becomes the VM's 0, which is in none (validate.h): left as it
 * was, it could be some other id's place in the VM. chown(2) takes set-id bits and the capabilities
 * of a file away; the former are set again for who is in the namespace, and the latter written in
 * the form that names their user namespace's root (vfs_ns_cap_data, linux/capability.h), which is
 * what root inside would have written.
 */
#include "agent/mount/shift.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/base/cleanup.h"

#define CAPABILITY "security.capability"
#define SET_ID     (S_ISUID | S_ISGID)

/* /proc/self/fd/DIR/NAME: xattrs have no call that names an entry of a directory. */
#define ENTRY_PATH_SIZE (NAME_MAX + 32u)

static uint32_t shifted(uint32_t id, uint32_t first, uint32_t n)
{
    return id < n ? first + id : 0;
}

static void entry_path(int dir_fd, const char *name, char ret_path[ENTRY_PATH_SIZE])
{
    (void)snprintf(ret_path, ENTRY_PATH_SIZE, "/proc/self/fd/%d/%s", dir_fd, name);
}

/* The capabilities that an executable gives, as they are to be; *ret_size 0: none. */
static int read_capability(const char *path, const struct userns *userns,
                           struct vfs_ns_cap_data *ret_data, size_t *ret_size, struct err *err)
{
    struct vfs_ns_cap_data data = {0};
    ssize_t n = lgetxattr(path, CAPABILITY, &data, sizeof(data));

    *ret_size = 0;
    if (n < 0)
        return errno == ENODATA || errno == EOPNOTSUPP || errno == ERANGE
                   ? 0
                   : err_set_errno(err, errno, "read file capabilities");
    uint32_t magic = le32toh(data.magic_etc);
    uint32_t flags = magic & VFS_CAP_FLAGS_MASK;
    uint32_t root = 0;
    switch (magic & VFS_CAP_REVISION_MASK) {
    case VFS_CAP_REVISION_2:
        if (n != XATTR_CAPS_SZ_2)
            return 0;
        break;
    case VFS_CAP_REVISION_3:
        if (n != XATTR_CAPS_SZ_3)
            return 0;
        root = le32toh(data.rootid);
        break;
    default: /* of a time before capabilities of 64 bits, or nothing that a kernel would take */
        return 0;
    }
    root = shifted(root, userns->uid, userns->n_uids);
    if (root == 0)
        return 0;
    data.magic_etc = htole32(VFS_CAP_REVISION_3 | flags);
    data.rootid = htole32(root);
    *ret_data = data;
    *ret_size = XATTR_CAPS_SZ_3;
    return 0;
}

static int shift_entry(int dir_fd, const char *name, const struct stat *st,
                       const struct userns *userns, struct err *err)
{
    uint32_t uid = shifted(st->st_uid, userns->uid, userns->n_uids);
    uint32_t gid = shifted(st->st_gid, userns->gid, userns->n_gids);
    struct vfs_ns_cap_data capability;
    size_t capability_size = 0;
    char path[ENTRY_PATH_SIZE];

    if (S_ISREG(st->st_mode)) {
        entry_path(dir_fd, name, path);
        if (read_capability(path, userns, &capability, &capability_size, err) < 0)
            return -1;
    }
    if (fchownat(dir_fd, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
        return err_set_errno(err, errno, "change the owner");
    mode_t mode = st->st_mode & 07777;
    if (uid == 0)
        mode &= ~(mode_t)S_ISUID;
    if (gid == 0)
        mode &= ~(mode_t)S_ISGID;
    /* A link has no mode, and is the one thing that fchmodat(2) would follow. */
    if (!S_ISLNK(st->st_mode) && (st->st_mode & SET_ID) != 0 && fchmodat(dir_fd, name, mode, 0) < 0)
        return err_set_errno(err, errno, "set its mode");
    if (capability_size > 0 && lsetxattr(path, CAPABILITY, &capability, capability_size, 0) < 0)
        return err_set_errno(err, errno, "set file capabilities");
    return 0;
}

static int open_dir(int dir_fd, const char *name, DIR **ret_dir, struct err *err)
{
    struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS,
    };
    int fd = (int)syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (dir == NULL) {
        int e = errno;
        close_fd(&fd);
        return err_set_errno(err, e, "open the directory");
    }
    *ret_dir = dir;
    return 0;
}

static int shift_below(int dir_fd, const char *name, unsigned depth, const struct userns *userns,
                       struct err *err);

static int shift_one(int dir_fd, const char *name, unsigned depth, const struct userns *userns,
                     struct err *err)
{
    struct stat st;

    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_set_errno(err, errno, "stat");
    if (shift_entry(dir_fd, name, &st, userns, err) < 0)
        return -1;
    return S_ISDIR(st.st_mode) ? shift_below(dir_fd, name, depth, userns, err) : 0;
}

static int shift_below(int dir_fd, const char *name, unsigned depth, const struct userns *userns,
                       struct err *err)
{
    struct dirent *e;
    DIR *dir;
    int rc = 0;

    if (depth == 0)
        return err_set(err, ERR_INVALID, "directories are more than %u deep", SHIFT_MAX_DEPTH);
    if (open_dir(dir_fd, name, &dir, err) < 0)
        return -1;
    while (rc == 0 && (errno = 0, e = readdir(dir)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        rc = shift_one(dirfd(dir), e->d_name, depth - 1, userns, err);
        if (rc < 0 && depth + 2 > SHIFT_MAX_DEPTH) /* the first two names tell enough */
            (void)err_prefix(err, "%.200s", e->d_name);
    }
    if (rc == 0 && errno != 0)
        rc = err_set_errno(err, errno, "read a directory");
    (void)closedir(dir);
    return rc;
}

int shift_tree(int root_fd, const struct userns *userns, struct err *err)
{
    if (shift_one(root_fd, ".", SHIFT_MAX_DEPTH, userns, err) < 0)
        return err_prefix(err, "owners in the user namespace");
    return 0;
}
