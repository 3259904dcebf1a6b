/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Formatting takes some 20 ms and a process, copying 44 KiB of a sparse file
 * next to nothing, so a filesystem is made once per size and copied per pod: FICLONE where the
 * filesystem can (xfs, btrfs), else just the data between the holes. The options leave the inode
 * tables to be initialised lazily by the guest and no journal: the disk dies with its pod.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/spawn.h"
#include "common/base/text.h"
#include "host/sandbox/scratch.h"

#define COPY_BUFFER (64u << 10)
/* Images and builds have tens of thousands of files; tables that nobody has written to are holes.
 */
#define BYTES_PER_INODE "16384"

static const char *find_mke2fs(void)
{
    static const char *const paths[] = {"/sbin/mke2fs", "/usr/sbin/mke2fs", "/usr/bin/mke2fs"};

    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        if (access(paths[i], X_OK) == 0)
            return paths[i];
    }
    return NULL;
}

static int run_mke2fs(const char *path, int64_t deadline_ms, struct err *err)
{
    const char *mke2fs = find_mke2fs();
    const char *const argv[] = {
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        "^has_journal,^resize_inode,sparse_super2,quota,project",
        "-E",
        "lazy_itable_init=1,nodiscard,packed_meta_blocks=1,assume_storage_prezeroed=1,num_backup_"
        "sb=0,quotatype=prjquota",
        "-m0",
        "-i",
        BYTES_PER_INODE,
        path,
        NULL,
    };
    static const char *const env[] = {"LC_ALL=C", NULL};
    struct spawn_spec spec = {.path = mke2fs, .argv = argv, .envp = env};
    struct spawn_output output = {0};
    int result = 0;

    if (mke2fs == NULL)
        return err_set(err, ERR_UNSUPPORTED,
                       "mke2fs is not installed (Debian: apt install e2fsprogs)");
    if (spawn_run(&spec, NULL, 64 << 10, deadline_ms, &output, err) != 0)
        return -1;
    if (output.status != 0)
        result = err_set(err, ERR_SYSTEM, "mke2fs ended with %d: %s", output.status,
                         text_or_empty(output.err_text));
    free(output.out);
    free(output.err_text);
    return result;
}

int scratch_make_template(const char *path, uint64_t size_bytes, int64_t deadline_ms,
                          struct err *err)
{
    cleanup_free char *tmp = text_printf("%s.new", path);
    cleanup_fd int fd = -1;

    if (tmp == NULL)
        return err_no_memory(err);
    if (access(path, F_OK) == 0)
        return 0;
    fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_set_errno(err, errno, "scratch template '%s'", tmp);
    if (ftruncate(fd, (off_t)size_bytes) != 0) {
        err_set_errno(err, errno, "scratch template of %llu bytes", (unsigned long long)size_bytes);
        goto fail;
    }
    if (run_mke2fs(tmp, deadline_ms, err) != 0)
        goto fail;
    if (fsync(fd) != 0 || rename(tmp, path) != 0) {
        err_set_errno(err, errno, "scratch template '%s'", path);
        goto fail;
    }
    return 0;
fail:
    (void)unlink(tmp);
    return err_prefix(err, "scratch disk");
}

/* Copies [from, to) by whatever means there are. */
static int copy_range(int in, int out, off_t from, off_t to, struct err *err)
{
    cleanup_free uint8_t *buffer = malloc(COPY_BUFFER);

    if (buffer == NULL)
        return err_no_memory(err);
    while (from < to) {
        size_t want = to - from < (off_t)COPY_BUFFER ? (size_t)(to - from) : COPY_BUFFER;
        ssize_t got = pread(in, buffer, want, from);
        if (got <= 0)
            return err_set_errno(err, got < 0 ? errno : EIO, "reading the scratch template");
        if (pwrite(out, buffer, (size_t)got, from) != got)
            return err_set_errno(err, errno == 0 ? ENOSPC : errno, "writing a scratch disk");
        from += got;
    }
    return 0;
}

static int copy_sparse(int in, int out, off_t size, struct err *err)
{
    off_t at = 0;

    if (ftruncate(out, size) != 0)
        return err_set_errno(err, errno, "sizing a scratch disk");
    while (at < size) {
        off_t data = lseek(in, at, SEEK_DATA);
        off_t hole;
        if (data < 0 && errno == ENXIO)
            return 0;
        if (data < 0)
            return err_set_errno(err, errno, "reading the scratch template");
        hole = lseek(in, data, SEEK_HOLE);
        if (hole < 0)
            return err_set_errno(err, errno, "reading the scratch template");
        if (copy_range(in, out, data, hole, err) != 0)
            return -1;
        at = hole;
    }
    return 0;
}

int scratch_copy(const char *template_path, const char *path, int *ret_fd, struct err *err)
{
    cleanup_fd int in = open(template_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    cleanup_fd int out = -1;
    struct stat st;

    if (in < 0 || fstat(in, &st) != 0)
        return err_set_errno(err, errno, "scratch template '%s'", template_path);
    out = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (out < 0)
        return err_set_errno(err, errno, "scratch disk '%s'", path);
    if (ioctl(out, FICLONE, in) != 0 && copy_sparse(in, out, st.st_size, err) != 0) {
        (void)unlink(path);
        return -1;
    }
    *ret_fd = steal_fd(&out);
    return 0;
}
