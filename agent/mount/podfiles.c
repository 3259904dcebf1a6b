/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The files are on a small tmpfs of their own: a container may write them, and
 * what it writes must not take the agent's space. They are bound one by one, so a container cannot
 * replace them by another inode (rename and unlink say "busy"), only change what is in them; that
 * is what users know from other runtimes. For the same reason the agent writes in place: first the
 * bytes, then the length, so that nobody sees an empty file.
 *
 * The place to bind to is the image's. It may be missing, or a link (often to where a resolver
 * would run, in folders that the image has not); both are made as the image means them, but never
 * outside it.
 */
#include "agent/mount/podfiles.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "agent/mount/mnt.h"
#include "agent/mount/rootfs.h"

static const struct {
    const char *source;
    const char *target;
} files[PODFILES_COUNT] = {
    {ROOTFS_FILES_DIR "/resolv.conf", "etc/resolv.conf"},
    {ROOTFS_FILES_DIR "/hosts", "etc/hosts"},
    {ROOTFS_FILES_DIR "/hostname", "etc/hostname"},
};

static int write_in_place(const char *path, const ProtobufCBinaryData *text, struct err *err)
{
    cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);

    if (fd < 0)
        return err_set_errno(err, errno, "%s", path);
    if (fd_write_all(fd, text->data, text->len, err) < 0)
        return err_prefix(err, "%s", path);
    if (ftruncate(fd, (off_t)text->len) < 0)
        return err_set_errno(err, errno, "%s", path);
    return 0;
}

static int drop(const char *path, struct err *err)
{
    return unlink(path) < 0 && errno != ENOENT ? err_set_errno(err, errno, "remove %s", path) : 0;
}

int podfiles_write(const Casemate__Agent__V1__Network *network, bool drop_others, struct err *err)
{
    const ProtobufCBinaryData *texts[PODFILES_COUNT] = {&network->resolv_conf, &network->hosts,
                                                        &network->hostname};

    for (size_t i = 0; i < PODFILES_COUNT; i++) {
        if (texts[i]->len > 0 && write_in_place(files[i].source, texts[i], err) < 0)
            return -1;
        if (texts[i]->len == 0 && drop_others && drop(files[i].source, err) < 0)
            return -1;
    }
    return 0;
}

int podfiles_own(uid_t uid, gid_t gid, struct err *err)
{
    for (size_t i = 0; i < PODFILES_COUNT; i++) {
        if (lchown(files[i].source, uid, gid) < 0 && errno != ENOENT)
            return err_set_errno(err, errno, "own %s", files[i].source);
    }
    return 0;
}

int podfiles_open(struct podfiles *ret_files, struct err *err)
{
    struct podfiles opened = PODFILES_NONE;

    for (size_t i = 0; i < PODFILES_COUNT; i++) {
        struct err why;
        if (mnt_copy(files[i].source, false, &opened.fds[i], &why) < 0 &&
            why.code != ERR_NOT_FOUND) {
            podfiles_close(&opened);
            if (err != NULL)
                *err = why;
            return -1;
        }
    }
    *ret_files = opened;
    return 0;
}

void podfiles_close(struct podfiles *podfiles)
{
    for (size_t i = 0; i < PODFILES_COUNT; i++)
        close_fd(&podfiles->fds[i]);
}

int podfiles_attach(const struct podfiles *podfiles, int root, bool read_only, struct err *err)
{
    for (size_t i = 0; i < PODFILES_COUNT; i++) {
        cleanup_fd int target = -1;
        if (podfiles->fds[i] < 0)
            continue;
        if (mnt_make_file_in(root, files[i].target, &target, err) < 0 ||
            (read_only && mnt_set_read_only(podfiles->fds[i], false, err) < 0) ||
            mnt_attach(podfiles->fds[i], target, err) < 0)
            return err_prefix(err, "/%s", files[i].target);
    }
    return 0;
}
