/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsopen(2) and its family. Errors of a file system type come with the text that the kernel left in
 * the context descriptor, which says far more than the errno ("overlay: ... can't find upperdir").
 */
#include "agent/mount/mnt.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/cleanup.h"

#define MAX_LINKS 16 /* on the way to what is to be made */

static int context_error(int context, int e, const char *fs_type, struct err *err)
{
    char text[256];
    ssize_t n = read(context, text, sizeof(text) - 1);
    if (n > 2) {
        text[n] = '\0';
        text[strcspn(text, "\n")] = '\0';
        return err_set_errno(err, e, "mount %s: %s", fs_type, text + 2);
    }
    return err_set_errno(err, e, "mount %s", fs_type);
}

int mnt_new(const char *fs_type, const struct mnt_option *options, unsigned attributes, int *ret_fd,
            struct err *err)
{
    cleanup_fd int context = fsopen(fs_type, FSOPEN_CLOEXEC);
    if (context < 0)
        return err_set_errno(err, errno, "mount %s", fs_type);
    for (const struct mnt_option *o = options; o != NULL && o->key != NULL; o++) {
        int rc = o->value == NULL ? fsconfig(context, FSCONFIG_SET_FLAG, o->key, NULL, 0)
                                  : fsconfig(context, FSCONFIG_SET_STRING, o->key, o->value, 0);
        if (rc < 0)
            return context_error(context, errno, fs_type, err);
    }
    if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return context_error(context, errno, fs_type, err);
    int fd = fsmount(context, FSMOUNT_CLOEXEC, attributes);
    if (fd < 0)
        return context_error(context, errno, fs_type, err);
    *ret_fd = fd;
    return 0;
}

int mnt_copy(const char *path, bool recursive, int *ret_fd, struct err *err)
{
    int fd = open_tree(AT_FDCWD, path,
                       OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0u));
    if (fd < 0)
        return err_set_errno(err, errno, "copy the mount at %s", path);
    *ret_fd = fd;
    return 0;
}

int mnt_copy_at(int fd, bool recursive, int *ret_fd, struct err *err)
{
    unsigned flags = AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    int copy = open_tree(fd, "", flags | (recursive ? AT_RECURSIVE : 0u));
    if (copy < 0)
        return err_set_errno(err, errno, "copy a mount");
    *ret_fd = copy;
    return 0;
}

int mnt_attach(int mount_fd, int target_fd, struct err *err)
{
    if (move_mount(mount_fd, "", target_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) <
        0)
        return err_set_errno(err, errno, "attach a mount");
    return 0;
}

int mnt_set_read_only(int fd, bool recursive, struct err *err)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    if (mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0u), &attr,
                      sizeof(attr)) < 0)
        return err_set_errno(err, errno, "make a mount read-only");
    return 0;
}

static int open_below(int root_fd, const char *path, int flags, uint64_t resolve)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(O_PATH | O_CLOEXEC | flags),
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve,
    };
    return (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
}

int mnt_open_in(int root_fd, const char *path, int flags, int *ret_fd, struct err *err)
{
    int fd = open_below(root_fd, path, flags, 0);
    if (fd < 0)
        return err_set_errno(err, errno, "open %s", path);
    *ret_fd = fd;
    return 0;
}

static int make_dir(int root_fd, const char *path, unsigned links, int *ret_fd, struct err *err);

/* Makes what the link at path, called name in directory dir_fd, leads to. name points into path. */
static int make_target(int root_fd, const char *path, int dir_fd, const char *name, unsigned links,
                       struct err *err)
{
    char link[PATH_MAX], target[PATH_MAX];
    cleanup_fd int made = -1;
    ssize_t n = readlinkat(dir_fd, name, link, sizeof(link) - 1);
    if (n < 0)
        return err_set_errno(err, errno, "read link %s", path);
    link[n] = '\0';
    int len = snprintf(target, sizeof(target), "%.*s%s", link[0] == '/' ? 0 : (int)(name - path),
                       path, link);
    if (len < 0 || (size_t)len >= sizeof(target))
        return err_set_errno(err, ENAMETOOLONG, "a link");
    return make_dir(root_fd, target, links, &made, err);
}

/* links: how many may lead to where nothing is; 0: none may be there at all. */
static int make_dir(int root_fd, const char *path, unsigned links, int *ret_fd, struct err *err)
{
    uint64_t resolve = links > 0 ? 0 : RESOLVE_NO_SYMLINKS;
    char prefix[PATH_MAX];
    size_t len = strlen(path);
    if (len >= sizeof(prefix))
        return err_set_errno(err, ENAMETOOLONG, "make a directory");
    memcpy(prefix, path, len + 1);

    cleanup_fd int at = open_below(root_fd, ".", O_DIRECTORY, 0);
    if (at < 0)
        return err_set_errno(err, errno, "open the root directory");
    char *name = prefix + strspn(prefix, "/");
    while (*name != '\0') {
        size_t name_len = strcspn(name, "/");
        char *rest = name + name_len;
        char separator = *rest;
        *rest = '\0';
        int next = open_below(root_fd, prefix, O_DIRECTORY, resolve);
        if (next < 0 && errno == ENOENT) {
            if (mkdirat(at, name, 0755) < 0) {
                if (errno != EEXIST)
                    return err_set_errno(err, errno, "make directory %s", prefix);
                if (links > 0 && make_target(root_fd, prefix, at, name, links - 1, err) < 0)
                    return -1;
            }
            next = open_below(root_fd, prefix, O_DIRECTORY, resolve);
        }
        if (next < 0) {
            if (errno == ELOOP)
                return err_set(err, ERR_INVALID, "%s of the image is a symbolic link", prefix);
            return err_set_errno(err, errno, "open directory %s", prefix);
        }
        close_fd(&at);
        at = next;
        *rest = separator;
        name = rest + strspn(rest, "/");
    }
    *ret_fd = steal_fd(&at);
    return 0;
}

int mnt_make_dir_in(int root_fd, const char *path, bool allow_links, int *ret_fd, struct err *err)
{
    return make_dir(root_fd, path, allow_links ? MAX_LINKS : 0, ret_fd, err);
}

/* Makes the file called name in directory dir_fd unless there is something. *ret_link, if that is a
 * link: where it leads. */
static int make_entry(int dir_fd, const char *name, char *ret_link, size_t size, struct err *err)
{
    ssize_t n = readlinkat(dir_fd, name, ret_link, size - 1);
    if (n >= 0) {
        ret_link[n] = '\0';
        return 0;
    }
    ret_link[0] = '\0';
    if (errno != ENOENT)
        return err_set_errno(err, errno, "read %s", name);
    /* Follows nothing: what else appears there meanwhile is an error. */
    cleanup_fd int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_set_errno(err, errno, "make %s", name);
    return 0;
}

/* One step towards a file at path, which is missing: makes it, or goes on to where its link leads
 * (path becomes that). */
static int approach(int root_fd, char *path, size_t size, struct err *err)
{
    char link[PATH_MAX];
    char *slash = strrchr(path, '/');
    char *name = slash == NULL ? path : slash + 1;
    cleanup_fd int dir = -1;

    if (slash != NULL)
        *slash = '\0';
    if (mnt_make_dir_in(root_fd, slash == NULL ? "." : path, true, &dir, err) < 0 ||
        make_entry(dir, name, link, sizeof(link), err) < 0)
        return -1;
    int n;
    char next[PATH_MAX];
    if (link[0] == '/' || (link[0] != '\0' && slash == NULL))
        n = snprintf(next, sizeof(next), "%s", link);
    else
        n = snprintf(next, sizeof(next), "%s/%s", slash == NULL ? "." : path,
                     link[0] != '\0' ? link : name);
    if (n < 0 || (size_t)n >= sizeof(next) || (size_t)n >= size)
        return err_set_errno(err, ENAMETOOLONG, "a link");
    memcpy(path, next, (size_t)n + 1);
    return 0;
}

int mnt_make_file_in(int root_fd, const char *path, int *ret_fd, struct err *err)
{
    char at[PATH_MAX];
    if (strlen(path) >= sizeof(at))
        return err_set_errno(err, ENAMETOOLONG, "make a file");
    memcpy(at, path, strlen(path) + 1);
    for (int step = 0; step < MAX_LINKS; step++) {
        struct stat st;
        cleanup_fd int fd = open_below(root_fd, at, 0, 0);
        if (fd >= 0) {
            if (fstat(fd, &st) < 0)
                return err_set_errno(err, errno, "stat %s", path);
            if (S_ISDIR(st.st_mode))
                return err_set(err, ERR_INVALID, "%s of the image is a directory", path);
            *ret_fd = steal_fd(&fd);
            return 0;
        }
        if (errno != ENOENT)
            return err_set_errno(err, errno, "open %s", path);
        if (approach(root_fd, at, sizeof(at), err) < 0)
            return -1;
    }
    return err_set_errno(err, ELOOP, "open %s", path);
}
