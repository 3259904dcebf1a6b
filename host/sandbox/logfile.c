/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. An append is two writes: first the checkpoint says "this inode has base
 * bytes; with end bytes, the output before after[] is in it, before that the output before
 * before[]", then the lines are appended. Both go to the page cache, which outlives the process.
 * Whoever comes next finds the file by its inode, also under another name in the same folder
 * (rotation renames it), and compares its size: `end` or more, the append happened; less, it did
 * not, or not whole, and what there is of it is cut off. The checkpoint is one pwrite within one
 * page, so a kill leaves the old or the new one; a checksum guards against everything else.
 *
 * The log's folder is the kubelet's, what is below it may be somebody else's: every path is
 * resolved with openat2 below the pod's log directory.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "host/sandbox/logfile.h"

#define CHECKPOINT_MAGIC   0x474c4d43u /* "CMLG" */
#define CHECKPOINT_VERSION 1

struct checkpoint {
    uint32_t magic;
    uint32_t version;
    uint64_t dev;
    uint64_t ino;
    uint64_t base;
    uint64_t end;
    uint64_t before[LOGFILE_STREAMS];
    uint64_t after[LOGFILE_STREAMS];
    uint64_t sum; /* of everything before it */
};

struct logfile {
    int dir_fd; /* the pod's log directory */
    int fd;     /* the log, O_APPEND */
    int checkpoint_fd;
    char *path; /* of the log, below dir_fd */
    uint64_t offsets[LOGFILE_STREAMS];
};

static uint64_t checksum(const struct checkpoint *cp)
{
    const uint8_t *bytes = (const uint8_t *)cp;
    uint64_t sum = 0xcbf29ce484222325u; /* FNV-1a */

    for (size_t i = 0; i < offsetof(struct checkpoint, sum); i++)
        sum = (sum ^ bytes[i]) * 0x100000001b3u;
    return sum;
}

/* Opens path below dir_fd, whatever symlinks say. */
static int open_beneath(int dir_fd, const char *path, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };

    return (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
}

/* Makes the folders that path leads through. */
static int make_parents(int dir_fd, const char *path, struct err *err)
{
    cleanup_free char *copy = strdup(path);
    cleanup_fd int at = -1;
    char *part, *slash;

    if (copy == NULL)
        return err_no_memory(err);
    part = copy;
    while ((slash = strchr(part, '/')) != NULL) {
        int from = at < 0 ? dir_fd : at;
        int next;

        *slash = '\0';
        if (*part != '\0') {
            if (mkdirat(from, part, 0755) != 0 && errno != EEXIST)
                return err_set_errno(err, errno, "log folder '%s'", part);
            next = open_beneath(from, part, O_PATH | O_DIRECTORY, 0);
            if (next < 0)
                return err_set_errno(err, errno, "log folder '%s'", part);
            close_fd(&at);
            at = next;
        }
        part = slash + 1;
    }
    return 0;
}

static int open_log(const struct logfile *file, int *ret_fd, struct err *err)
{
    struct stat st;
    cleanup_fd int fd = open_beneath(file->dir_fd, file->path,
                                     O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_NONBLOCK, 0640);

    if (fd < 0 && (errno == EXDEV || errno == ELOOP))
        return err_set(err, ERR_INVALID, "log path '%s' leads out of the log directory",
                       file->path);
    if (fd < 0)
        return err_set_errno(err, errno, "log '%s'", file->path);
    if (fstat(fd, &st) != 0)
        return err_set_errno(err, errno, "log '%s'", file->path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID, "log '%s' is not a regular file", file->path);
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* The file of that inode in the log's own folder, under whatever name; -1 if there is none. */
static int find_inode(const struct logfile *file, uint64_t dev, uint64_t ino)
{
    cleanup_free char *folder = strdup(file->path);
    cleanup_fd int folder_fd = -1;
    char *slash;
    DIR *dir;
    struct dirent *entry;
    int found = -1;

    if (folder == NULL)
        return -1;
    slash = strrchr(folder, '/');
    if (slash != NULL)
        *slash = '\0';
    folder_fd = open_beneath(file->dir_fd, slash == NULL ? "." : folder, O_RDONLY | O_DIRECTORY, 0);
    if (folder_fd < 0)
        return -1;
    dir = fdopendir(folder_fd);
    if (dir == NULL)
        return -1;
    (void)steal_fd(&folder_fd);
    while (found < 0 && (entry = readdir(dir)) != NULL) {
        struct stat st;
        if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(st.st_mode) || st.st_ino != ino || st.st_dev != dev)
            continue;
        found = openat(dirfd(dir), entry->d_name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    }
    closedir(dir);
    return found;
}

/* What the checkpoint and the file that it names say together. */
static void recover(struct logfile *file, const struct checkpoint *cp)
{
    const uint64_t *offsets = cp->after;
    cleanup_fd int fd = find_inode(file, cp->dev, cp->ino);
    struct stat st;

    /*
     * A file that is gone, or that somebody else made shorter, cannot say: the append is what a
     * process does most of the time after it wrote the checkpoint, so it is taken to have happened.
     */
    if (fd >= 0 && fstat(fd, &st) == 0) {
        uint64_t size = (uint64_t)st.st_size;
        if (size >= cp->base && size < cp->end) {
            offsets = cp->before;
            if (size > cp->base && ftruncate(fd, (off_t)cp->base) != 0)
                log_warn("log '%s': cannot cut off a half-written end (errno %d), ignoring",
                         file->path, errno);
        }
    }
    memcpy(file->offsets, offsets, sizeof(file->offsets));
}

static bool read_checkpoint(const struct logfile *file, struct checkpoint *cp)
{
    return pread(file->checkpoint_fd, cp, sizeof(*cp), 0) == (ssize_t)sizeof(*cp) &&
           cp->magic == CHECKPOINT_MAGIC && cp->version == CHECKPOINT_VERSION &&
           cp->sum == checksum(cp) && cp->base <= cp->end;
}

/* Announces an append of n bytes to the log that ends at `offsets`. */
static int write_checkpoint(const struct logfile *file, int fd, size_t n,
                            const uint64_t offsets[LOGFILE_STREAMS], uint64_t *ret_base,
                            struct err *err)
{
    struct checkpoint cp = {.magic = CHECKPOINT_MAGIC, .version = CHECKPOINT_VERSION};
    struct stat st;
    ssize_t done;

    if (fstat(fd, &st) != 0)
        return err_set_errno(err, errno, "log '%s'", file->path);
    cp.dev = st.st_dev;
    cp.ino = st.st_ino;
    cp.base = (uint64_t)st.st_size;
    cp.end = cp.base + n;
    memcpy(cp.before, file->offsets, sizeof(cp.before));
    memcpy(cp.after, offsets, sizeof(cp.after));
    cp.sum = checksum(&cp);
    done = pwrite(file->checkpoint_fd, &cp, sizeof(cp), 0);
    if (done != (ssize_t)sizeof(cp))
        return err_set_errno(err, done < 0 ? errno : ENOSPC, "checkpoint of log '%s'", file->path);
    if (ret_base != NULL)
        *ret_base = cp.base;
    return 0;
}

static int open_all(struct logfile *file, const struct logfile_spec *spec, bool *ret_known,
                    struct err *err)
{
    struct checkpoint cp;
    bool known;

    file->path = strdup(spec->path);
    if (file->path == NULL)
        return err_no_memory(err);
    file->dir_fd = open(spec->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (file->dir_fd < 0)
        return err_set_errno(err, errno, "log directory '%s'", spec->dir);
    file->checkpoint_fd = open(spec->checkpoint, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file->checkpoint_fd < 0)
        return err_set_errno(err, errno, "log checkpoint '%s'", spec->checkpoint);
    memcpy(file->offsets, spec->initial, sizeof(file->offsets));
    known = read_checkpoint(file, &cp);
    if (known)
        recover(file, &cp);
    if (make_parents(file->dir_fd, file->path, err) != 0 || open_log(file, &file->fd, err) != 0)
        return -1;
    if (known && write_checkpoint(file, file->fd, 0, file->offsets, NULL, err) != 0)
        return -1;
    *ret_known = known;
    return 0;
}

int logfile_open(const struct logfile_spec *spec, struct logfile **ret_file,
                 uint64_t ret_offsets[LOGFILE_STREAMS], bool *ret_known, struct err *err)
{
    cleanup_logfile struct logfile *file = calloc(1, sizeof(*file));

    if (file == NULL)
        return err_no_memory(err);
    file->dir_fd = file->fd = file->checkpoint_fd = -1;
    if (open_all(file, spec, ret_known, err) != 0)
        return -1;
    memcpy(ret_offsets, file->offsets, sizeof(file->offsets));
    *ret_file = steal_ptr(&file);
    return 0;
}

void logfile_free(struct logfile *file)
{
    if (file == NULL)
        return;
    close_fd(&file->dir_fd);
    close_fd(&file->fd);
    close_fd(&file->checkpoint_fd);
    free(file->path);
    free(file);
}

/* Writes all n bytes; on failure the file is as long as before. */
static int append_whole(const struct logfile *file, const uint8_t *bytes, size_t n, uint64_t base,
                        struct err *err)
{
    size_t done = 0;

    while (done < n) {
        ssize_t put = write(file->fd, bytes + done, n - done);
        if (put > 0) {
            done += (size_t)put;
            continue;
        }
        if (put < 0 && errno == EINTR)
            continue;
        err_set_errno(err, put < 0 ? errno : ENOSPC, "log '%s'", file->path);
        if (done > 0 && ftruncate(file->fd, (off_t)base) != 0)
            return err_prefix(err, "half a write stays");
        return -1;
    }
    return 0;
}

int logfile_append(struct logfile *file, const void *bytes, size_t n,
                   const uint64_t offsets[LOGFILE_STREAMS], struct err *err)
{
    uint64_t base = 0;

    if (write_checkpoint(file, file->fd, n, offsets, &base, err) != 0)
        return -1;
    if (append_whole(file, bytes, n, base, err) != 0) {
        /* Size is at base again: the checkpoint reads as "did not happen" until the next one. */
        return -1;
    }
    memcpy(file->offsets, offsets, sizeof(file->offsets));
    return 0;
}

int logfile_reopen(struct logfile *file, struct err *err)
{
    cleanup_fd int fd = -1;

    if (make_parents(file->dir_fd, file->path, err) != 0 || open_log(file, &fd, err) != 0)
        return -1;
    if (write_checkpoint(file, fd, 0, file->offsets, NULL, err) != 0)
        return -1;
    close_fd(&file->fd);
    file->fd = steal_fd(&fd);
    return 0;
}

void logfile_get_offsets(const struct logfile *file, uint64_t ret_offsets[LOGFILE_STREAMS])
{
    memcpy(ret_offsets, file->offsets, sizeof(file->offsets));
}
