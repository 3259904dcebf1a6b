/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Everything that is not listed fails with EPERM (with ENOSYS when it is newer
 * than the list). What the list leaves out, and why:
 * - what changes the machine, not the process: modules, kexec, reboot, clocks, swap, quotas,
 * accounting, I/O ports (some come back with the capability for it);
 * - namespaces and mounts: setns, unshare, mount and its family, and clone with a namespace's flag
 *   (clone3, whose flags lie in memory that a filter cannot read, answers ENOSYS, and every libc
 *   then takes clone); they come back with CAP_SYS_ADMIN;
 * - what looks into other processes or the kernel: ptrace's relatives across users, bpf,
 *   perf_event_open, userfaultfd, lookup_dcookie, kcmp, the keyrings (which namespaces do not
 * separate);
 * - io_uring, whose requests a filter does not see;
 * - sockets of AF_VSOCK: what is behind them is the host's side of the VM, never the container's
 * peer. personality(2) is allowed with the values that programs really use.
 *
 * Compiling takes milliseconds, and nearly all containers have one of very few sets of
 * capabilities: the last programs are kept, keyed by those capabilities that change the list.
 */
#include "host/sandbox/scdefault.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define KEPT 8

#define NAMESPACE_FLAGS                                                                            \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |  \
     CLONE_NEWNET)

/* Names that one architecture lacks are skipped there. */
static const char always[] =
    /* files and directories */
    "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 "
    "faccessat faccessat2 fadvise64 fadvise64_64 arm_fadvise64_64 fallocate fchdir fchmod fchmodat "
    "fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock "
    "fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 "
    "futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init "
    "inotify_init1 inotify_rm_watch fanotify_mark ioctl lchown lchown32 lgetxattr link linkat "
    "listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir "
    "mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 "
    "pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat "
    "rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 "
    "statfs statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2 "
    "arm_sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat "
    "utimensat_time64 utimes vmsplice write writev "
    /* waiting for descriptors */
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait "
    "epoll_wait_old eventfd eventfd2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select "
    "_newselect pipe pipe2 signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 "
    "timerfd_settime timerfd_settime64 io_cancel io_destroy io_getevents io_pgetevents "
    "io_pgetevents_time64 io_setup io_submit "
    /* memory */
    "brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret "
    "mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall "
    "munmap "
    "pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages "
    /* processes, threads and signals */
    "alarm capget capset execve execveat exit exit_group fork futex futex_requeue futex_time64 "
    "futex_wait futex_waitv futex_wake getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 "
    "getgroups getgroups32 getitimer getpgid getpgrp getpid getppid getpriority getresgid "
    "getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid get_thread_area "
    "gettid getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset "
    "landlock_restrict_self nanosleep pause pidfd_open pidfd_send_signal prctl prlimit64 "
    "process_vm_readv process_vm_writev ptrace restart_syscall rseq rt_sigaction rt_sigpending "
    "rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait "
    "rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam "
    "sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval "
    "sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam "
    "sched_setscheduler sched_yield seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid "
    "setgid32 "
    "setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 "
    "setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid set_thread_area "
    "set_tid_address setuid setuid32 sigaction sigaltstack signal sigpending sigprocmask sigreturn "
    "sigsuspend tgkill times tkill ugetrlimit uname vfork wait4 waitid waitpid "
    /* time, randomness, the system's figures */
    "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime "
    "clock_gettime64 clock_nanosleep clock_nanosleep_time64 getrandom gettimeofday sysinfo time "
    "timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime "
    "timer_settime64 lsm_get_self_attr lsm_list_modules lsm_set_self_attr "
    /* between processes */
    "accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr "
    "mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 "
    "mq_unlink msgctl msgget msgrcv msgsnd recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl "
    "semget semop semtimedop semtimedop_time64 send sendmmsg sendmsg sendto setsockopt shmat "
    "shmctl "
    "shmdt shmget shutdown socketcall socketpair "
    /* one architecture's own */
    "arch_prctl modify_ldt breakpoint cacheflush set_tls";

static const struct {
    int capability;
    const char *calls;
} granted[] = {
    {CAP_DAC_READ_SEARCH, "open_by_handle_at"},
    {CAP_SYS_ADMIN, "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount "
                    "lookup_dcookie mount mount_setattr move_mount open_tree perf_event_open "
                    "quotactl quotactl_fd setdomainname sethostname setns statmount syslog umount "
                    "umount2 unshare"},
    {CAP_SYS_BOOT, "reboot"},
    {CAP_SYS_CHROOT, "chroot"},
    {CAP_SYS_MODULE, "delete_module finit_module init_module"},
    {CAP_SYS_PACCT, "acct"},
    {CAP_SYS_PTRACE, "kcmp pidfd_getfd process_madvise"},
    {CAP_SYS_RAWIO, "ioperm iopl"},
    {CAP_SYS_TIME, "clock_settime clock_settime64 settimeofday stime"},
    {CAP_SYS_TTY_CONFIG, "vhangup"},
    {CAP_SYS_NICE, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"},
    {CAP_SYSLOG, "syslog"},
    {CAP_BPF, "bpf"},
    {CAP_PERFMON, "perf_event_open"},
};

static struct {
    pthread_mutex_t mutex;
    struct {
        uint64_t key;
        struct sysfilter_program program;
    } kept[KEPT];
    size_t next; /* the oldest */
} cache = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* Allows each call of a list of words. */
static int allow(struct sysfilter *filter, const char *calls, struct err *err)
{
    while (*calls != '\0') {
        size_t n = strcspn(calls, " ");
        char name[64];
        if (n >= sizeof(name))
            return err_set(err, ERR_INVALID, "seccomp: a name of the default profile is too long");
        memcpy(name, calls, n);
        name[n] = '\0';
        if (sysfilter_add(filter, name, SECCOMP_RET_ALLOW, NULL, 0, err) != 0)
            return -1;
        calls += n;
        calls += strspn(calls, " ");
    }
    return 0;
}

static int allow_when(struct sysfilter *filter, const char *name, enum sysfilter_compare op,
                      uint64_t value, uint64_t value_two, struct err *err)
{
    struct sysfilter_arg arg = {.index = 0, .op = op, .value = value, .value_two = value_two};

    return sysfilter_add(filter, name, SECCOMP_RET_ALLOW, &arg, 1, err);
}

/*
 * Every family but AF_VSOCK. The kernel takes the family from the low half of the register, so that
 * bits above it must not make another number of it; a comparison looks at all 64. Hence a rule for
 * each bit of the low half: a family that differs from AF_VSOCK does so in one of them.
 */
static int add_sockets(struct sysfilter *filter, struct err *err)
{
    for (unsigned i = 0; i < 32; i++) {
        uint64_t bit = UINT64_C(1) << i;
        if (allow_when(filter, "socket", SYSFILTER_MASKED_EQ, bit, ~(uint64_t)AF_VSOCK & bit,
                       err) != 0)
            return -1;
    }
    return 0;
}

static int add_conditions(struct sysfilter *filter, bool admin, struct err *err)
{
    static const uint64_t personalities[] = {
        0,       /* PER_LINUX */
        0x8,     /* PER_LINUX32 */
        0x20000, /* UNAME26 */
        0x20008, /* both */
        0xffffffff /* asks only */,
    };

    for (size_t i = 0; i < ARRAY_SIZE(personalities); i++) {
        if (allow_when(filter, "personality", SYSFILTER_EQ, personalities[i], 0, err) != 0)
            return -1;
    }
    if (add_sockets(filter, err) != 0)
        return -1;
    if (admin)
        return 0;
    if (allow_when(filter, "clone", SYSFILTER_MASKED_EQ, NAMESPACE_FLAGS, 0, err) != 0)
        return -1;
    return sysfilter_add(filter, "clone3", SECCOMP_RET_ERRNO | ENOSYS, NULL, 0, err);
}

/* The capabilities that change the list. */
static uint64_t key_of(uint64_t capabilities)
{
    uint64_t mask = 0;

    for (size_t i = 0; i < ARRAY_SIZE(granted); i++)
        mask |= UINT64_C(1) << granted[i].capability;
    return capabilities & mask;
}

static int compile(uint64_t key, struct sysfilter_program *ret_program, struct err *err)
{
    cleanup_sysfilter struct sysfilter *filter = NULL;

    if (sysfilter_new(SECCOMP_RET_ERRNO | EPERM, &filter, err) != 0 ||
        sysfilter_add_compat(filter, err) != 0 || allow(filter, always, err) != 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(granted); i++) {
        if ((key >> granted[i].capability & 1) != 0 && allow(filter, granted[i].calls, err) != 0)
            return -1;
    }
    if (add_conditions(filter, (key >> CAP_SYS_ADMIN & 1) != 0, err) != 0)
        return -1;
    return sysfilter_finish(filter, ret_program, err);
}

static int copy_program(const struct sysfilter_program *from, struct sysfilter_program *ret_to,
                        struct err *err)
{
    uint8_t *bytes = malloc(from->n_bytes);

    if (bytes == NULL)
        return err_no_memory(err);
    memcpy(bytes, from->bytes, from->n_bytes);
    *ret_to = (struct sysfilter_program){bytes, from->n_bytes, from->flags};
    return 0;
}

/* The kept program of the key, made if need be. The mutex is held. */
static int find_or_compile(uint64_t key, const struct sysfilter_program **ret_program,
                           struct err *err)
{
    struct sysfilter_program made;

    for (size_t i = 0; i < KEPT; i++) {
        if (cache.kept[i].program.bytes != NULL && cache.kept[i].key == key) {
            *ret_program = &cache.kept[i].program;
            return 0;
        }
    }
    if (compile(key, &made, err) != 0)
        return -1;
    sysfilter_program_fini(&cache.kept[cache.next].program);
    cache.kept[cache.next].program = made;
    cache.kept[cache.next].key = key;
    *ret_program = &cache.kept[cache.next].program;
    cache.next = (cache.next + 1) % KEPT;
    return 0;
}

int scdefault_program(uint64_t capabilities, struct sysfilter_program *ret_program, struct err *err)
{
    const struct sysfilter_program *kept;
    int result;

    pthread_mutex_lock(&cache.mutex);
    result = find_or_compile(key_of(capabilities), &kept, err);
    if (result == 0)
        result = copy_program(kept, ret_program, err);
    pthread_mutex_unlock(&cache.mutex);
    return result;
}
