/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list was made by tracing conversions of gzip, zstd and plain layers with all compressors
 * (strace -f), and holds nothing that names a file, a process or a socket. What is in it and why:
 *
 *   read                      the blob
 *   write                     the result
 *   pread64 pwrite64          the image (libsquashfs reads blocks back to find duplicates)
 *   ftruncate                 padding and undoing duplicate blocks
 *   mmap munmap mremap brk mprotect madvise   the allocator
 *   futex sched_yield clock_gettime rseq set_robust_list   the compression threads
 *   rt_sigprocmask rt_sigreturn gettid getpid exit exit_group   ends of threads and of the process
 *
 * openat and friends answer EACCES instead of killing, because C libraries look for optional files
 * (time zones, character sets) and cope without them.
 */
#include "host/image/confine.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "common/base/cleanup.h"

static const int ALLOWED[] = {
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(ftruncate),
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(brk),
    SCMP_SYS(mprotect),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    SCMP_SYS(sched_yield),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(rseq),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

static const int REFUSED[] = {SCMP_SYS(openat), SCMP_SYS(newfstatat), SCMP_SYS(readlinkat)};

int confine_limits(uint64_t cpu_seconds, struct err *err)
{
    struct rlimit cpu = {.rlim_cur = cpu_seconds, .rlim_max = cpu_seconds};
    struct rlimit core = {0};
    if (setrlimit(RLIMIT_CPU, &cpu) < 0 || setrlimit(RLIMIT_CORE, &core) < 0)
        return err_set_errno(err, errno, "setrlimit");
    if (prctl(PR_SET_DUMPABLE, 0) < 0)
        return err_set_errno(err, errno, "prctl(PR_SET_DUMPABLE)");
    (void)signal(SIGXFSZ, SIG_IGN);
    (void)signal(SIGPIPE, SIG_IGN);
    return 0;
}

static void release_filter(scmp_filter_ctx *ctx)
{
    if (*ctx != NULL)
        seccomp_release(*ctx);
}

int confine_syscalls(struct err *err)
{
    CLEANUP(release_filter) scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (ctx == NULL)
        return err_no_memory(err);
    int rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(ALLOWED); i++)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, ALLOWED[i], 0);
    for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(REFUSED); i++)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), REFUSED[i], 0);
    if (rc == 0)
        rc = seccomp_load(ctx);
    return rc == 0 ? 0 : err_set_errno(err, -rc, "install the system call filter");
}
