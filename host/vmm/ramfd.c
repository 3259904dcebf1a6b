/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. What a guest reports as free, QEMU gives back in two steps: it punches a
 * hole into the memory's file, and then drops its own pages (MADV_DONTNEED). For a clone the first
 * step is wrong, since the file is its template's, and the seal refuses it (template_file.c); but
 * then QEMU complains and leaves the second step out, which is all that matters: what a clone wrote
 * are its own pages, and they go back to the host.
 *
 * So the first step is answered by a seccomp filter, with success, without being done; only for
 * this file's descriptor, since the same call on a disk's descriptor must be done. QEMU opens the
 * file by itself, under the lowest number that is free, which is the same for every clone of a
 * template: it is looked up in the clone that tries the template out, and checked in each clone
 * before it gets a disk. What the guest finds in such a page later is the template's content
 * instead of zeros; a kernel that counts on zeros (init_on_free) is told not to (cmdline.c).
 */
#include "host/vmm/ramfd.h"

#include <dirent.h>
#include <linux/audit.h>
#include <linux/falloc.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/base/cleanup.h"
#include "common/base/text.h"

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

bool ramfd_is(pid_t pid, int fd, int memory_fd)
{
    struct stat wanted, found;
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
    return fstat(memory_fd, &wanted) == 0 && stat(path, &found) == 0 &&
           wanted.st_dev == found.st_dev && wanted.st_ino == found.st_ino;
}

int ramfd_find(pid_t pid, int memory_fd, int inherited)
{
    const struct dirent *entry;
    char path[64];
    int result = -1;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    while (dir != NULL && result < 0 && (entry = readdir(dir)) != NULL) {
        uint64_t fd;
        if (text_parse_u64(entry->d_name, INT32_MAX, &fd) == 0 && (int)fd != inherited &&
            ramfd_is(pid, (int)fd, memory_fd))
            result = (int)fd;
    }
    if (dir != NULL)
        (void)closedir(dir);
    return result;
}

#ifdef OUR_ARCH
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ARG(n)      offsetof(struct seccomp_data, args) + 8 * (n) /* the low half: little endian */
#define LOAD_ARG(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG(n))
/* Goes on when equal, else skips so many. */
#define UNLESS(k, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (k), 0, (n))

unsigned short ramfd_filter(int fd, struct sock_filter ret_filter[RAMFD_FILTER_SIZE])
{
    const struct sock_filter filter[] = {
        LOAD(arch),
        UNLESS(OUR_ARCH, 7),
        LOAD(nr),
        UNLESS(SYS_fallocate, 5),
        LOAD_ARG(0),
        UNLESS((unsigned int)fd, 3),
        LOAD_ARG(1),
        UNLESS(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };

    _Static_assert(ARRAY_SIZE(filter) <= RAMFD_FILTER_SIZE, "the filter has room");
    for (size_t i = 0; i < ARRAY_SIZE(filter); i++)
        ret_filter[i] = filter[i];
    return (unsigned short)ARRAY_SIZE(filter);
}
#else
unsigned short ramfd_filter(int fd, struct sock_filter ret_filter[RAMFD_FILTER_SIZE])
{
    (void)fd;
    (void)ret_filter;
    return 0;
}
#endif
