/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork, then only async-signal-safe system calls, then exec: in a threaded process another thread
 * may hold the heap's lock at the moment of the fork. Everything that needs memory is therefore
 * prepared before, and the child reports a failed step as a fixed struct over a close-on-exec pipe,
 * whose end of file means "exec succeeded".
 *
 * Descriptors: the wanted ones are first duplicated above all targets, then put in place with dup2,
 * then everything else is closed with close_range(2), so that no order of fd/as pairs can overwrite
 * one that is still needed.
 *
 * Idle: the kernel shares a processor among groups first, and SCHED_IDLE counts only within one. A
 * new session is a group of its own where the kernel makes them (sched_autogroup_enabled, usual on
 * servers too, for tasks of the root cpu cgroup), with all of a group's weight whatever its tasks'
 * policy is. So both are lowered, the tasks and the session's group. The group of a child without a
 * session of its own is its parent's, and is left alone.
 */
#include "common/base/spawn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/text.h"

/* Of an autogroup, as nice(2). 10 is a tenth of an ordinary group's weight: enough to come to an
 * end on a host that is never idle, where 19 (a seventieth) would take half a minute. */
#define NICE_IDLE  "10"
#define NICE_PLAIN "0"

enum { MAX_FDS = 512 };

/* What the child says when a step fails. */
struct failure {
    char step[32];
    int sys_errno;
};

static void __attribute__((noreturn)) child_fail(int report_fd, const char *step, int e)
{
    struct failure f = {.sys_errno = e};
    for (size_t i = 0; i + 1 < sizeof(f.step) && step[i] != '\0'; i++)
        f.step[i] = step[i];
    ssize_t n = write(report_fd, &f, sizeof(f));
    (void)n;
    _exit(127);
}

static void child_limit(int report_fd, __rlimit_resource_t resource, uint64_t value)
{
    if (value == 0)
        return;
    struct rlimit rl = {.rlim_cur = value, .rlim_max = value};
    if (setrlimit(resource, &rl) < 0)
        child_fail(report_fd, "setrlimit", errno);
}

/* Puts the descriptors in place; *report_fd moves out of the way. */
static void child_fds(const struct spawn_spec *spec, int *report_fd)
{
    int highest = 2;
    for (size_t i = 0; i < spec->n_fds; i++)
        highest = spec->fds[i].as > highest ? spec->fds[i].as : highest;

    int report = fcntl(*report_fd, F_DUPFD_CLOEXEC, highest + 1);
    if (report < 0)
        child_fail(*report_fd, "dup", errno);
    *report_fd = report;
    int parked[MAX_FDS];
    for (size_t i = 0; i < spec->n_fds; i++) {
        parked[i] = fcntl(spec->fds[i].fd, F_DUPFD_CLOEXEC, highest + 1);
        if (parked[i] < 0)
            child_fail(report, "dup", errno);
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        child_fail(report, "open /dev/null", errno);
    if (null <= highest) {
        int moved = fcntl(null, F_DUPFD_CLOEXEC, highest + 1);
        if (moved < 0)
            child_fail(report, "dup", errno);
        null = moved;
    }
    for (int i = 0; i <= 2; i++) {
        if (dup2(null, i) < 0)
            child_fail(report, "dup2", errno);
    }
    for (size_t i = 0; i < spec->n_fds; i++) {
        if (dup2(parked[i], spec->fds[i].as) < 0)
            child_fail(report, "dup2", errno);
    }
    /* Targets are dense in practice; any gap between them is closed by hand, the rest by range. */
    for (int fd = 3; fd <= highest; fd++) {
        bool wanted = false;
        for (size_t i = 0; i < spec->n_fds; i++)
            wanted = wanted || spec->fds[i].as == fd;
        if (!wanted)
            (void)close(fd);
    }
    /* What is left above is close-on-exec only if its maker said so; make sure. */
    if (syscall(SYS_close_range, (unsigned)highest + 1, UINT_MAX, 4U /* CLOSE_RANGE_CLOEXEC */) < 0)
        child_fail(report, "close_range", errno);
}

static void child_stand_back(const struct spawn_spec *spec, int report_fd)
{
    const struct sched_param plain = {.sched_priority = 0};

    if (!spec->idle)
        return;
    if (sched_setscheduler(0, SCHED_IDLE, &plain) < 0)
        child_fail(report_fd, "idle scheduling", errno);
    if (!spec->new_session)
        return;
    /* No such file: the kernel makes no such groups. */
    int fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    /* Refused to an ordinary user who does it often (EAGAIN): then it is only the tasks. */
    ssize_t n = write(fd, NICE_IDLE, sizeof(NICE_IDLE) - 1);
    (void)n;
    (void)close(fd);
}

static void child_identity(const struct spawn_spec *spec, int report_fd)
{
    if (!spec->set_ids)
        return;
    /* Raw system calls: glibc's wrappers would try to tell the threads of a parent that are not
     * here. */
    if (syscall(SYS_setgroups, spec->n_groups, spec->groups) < 0)
        child_fail(report_fd, "setgroups", errno);
    if (syscall(SYS_setresgid, spec->gid, spec->gid, spec->gid) < 0)
        child_fail(report_fd, "setresgid", errno);
    if (syscall(SYS_setresuid, spec->uid, spec->uid, spec->uid) < 0)
        child_fail(report_fd, "setresuid", errno);
}

static void child_join_cgroups(const struct spawn_spec *spec, int report_fd)
{
    for (const char *const *p = spec->cgroup_procs; p != NULL && *p != NULL; p++) {
        int fd = open(*p, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
            child_fail(report_fd, "open cgroup.procs", errno);
        if (write(fd, "0", 1) != 1)
            child_fail(report_fd, "join cgroup", errno);
        (void)close(fd);
    }
}

static void __attribute__((noreturn))
child_main(const struct spawn_spec *spec, int report_fd, pid_t parent)
{
    static const char *const no_env[] = {NULL};
    child_join_cgroups(spec, report_fd);
    if (spec->new_session && setsid() < 0)
        child_fail(report_fd, "setsid", errno);
    if (spec->netns_fd > 0 && setns(spec->netns_fd, CLONE_NEWNET) < 0)
        child_fail(report_fd, "setns", errno);
    if (spec->unshare_flags != 0 && unshare(spec->unshare_flags) < 0)
        child_fail(report_fd, "unshare", errno);
    if (chdir(spec->cwd == NULL ? "/" : spec->cwd) < 0)
        child_fail(report_fd, "chdir", errno);

    child_fds(spec, &report_fd);
    child_stand_back(spec, report_fd);
    child_limit(report_fd, RLIMIT_FSIZE, spec->limit_file_size);
    child_limit(report_fd, RLIMIT_AS, spec->limit_memory);
    child_limit(report_fd, RLIMIT_NOFILE, spec->limit_files);
    child_identity(spec, report_fd);
    if (spec->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        child_fail(report_fd, "no_new_privs", errno);
    if (spec->small_pages)
        (void)prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* a kernel without it has none to disable */
    /* After the identity change, which clears it. The parent may have died before it took effect.
     */
    if (spec->die_with_parent &&
        (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != parent))
        child_fail(report_fd, "parent death signal", errno);

    struct sigaction dfl = {.sa_handler = SIG_DFL};
    for (int s = 1; s < NSIG; s++)
        (void)sigaction(s, &dfl, NULL);
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);

    /* The last thing before the program, which it must let through. */
    if (spec->filter != NULL && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, spec->filter) < 0)
        child_fail(report_fd, "seccomp filter", errno);

    /* execve's prototype lacks the const that it honours. */
    union {
        const char *const *in;
        char *const *out;
    } argv = {.in = spec->argv}, envp = {.in = spec->envp == NULL ? no_env : spec->envp};
    execve(spec->path, argv.out, envp.out);
    child_fail(report_fd, "exec", errno);
}

int spawn_start(const struct spawn_spec *spec, struct spawn_child *ret_child, struct err *err)
{
    if (spec->n_fds > MAX_FDS)
        return err_set(err, ERR_INVALID, "start '%s': too many descriptors", spec->path);
    int report[2];
    if (pipe2(report, O_CLOEXEC) < 0)
        return err_set_errno(err, errno, "pipe");
    cleanup_fd int report_r = report[0], report_w = report[1];

    /* No handler of the parent may run in the child. */
    sigset_t all, old;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t parent = getpid();
    pid_t pid = fork();
    int fork_errno = errno;
    if (pid == 0)
        child_main(spec, report_w, parent);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (pid < 0)
        return err_set_errno(err, fork_errno, "start '%s': fork", spec->path);
    close_fd(&report_w);

    struct failure f;
    size_t n = 0;
    cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int open_errno = errno;
    int r = fd_read_full(report_r, &f, sizeof(f), &n, err);
    if (r == 0 && n == sizeof(f)) {
        f.step[sizeof(f.step) - 1] = '\0';
        r = err_set_errno(err, f.sys_errno, "start '%s': %s", spec->path, f.step);
    } else if (r == 0 && pidfd < 0) {
        r = err_set_errno(err, open_errno, "start '%s': pidfd_open", spec->path);
    }
    if (r < 0) {
        (void)kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return -1;
    }
    *ret_child = (struct spawn_child){.pid = pid, .pidfd = steal_fd(&pidfd)};
    return 0;
}

void spawn_hurry(pid_t pid)
{
    const struct sched_param plain = {.sched_priority = 0};
    char path[64];
    struct dirent *entry;
    uint64_t tid;

    (void)snprintf(path, sizeof(path), "/proc/%d/autogroup", (int)pid);
    if (getsid(pid) == pid)
        (void)fd_write_text(AT_FDCWD, path, NICE_PLAIN, NULL);
    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (text_parse_u64(entry->d_name, INT32_MAX, &tid) == 0)
            (void)sched_setscheduler((pid_t)tid, SCHED_OTHER, &plain);
    }
    if (dir != NULL)
        (void)closedir(dir);
}

int spawn_wait(const struct spawn_child *child, int64_t deadline_ms, int *ret_status,
               struct err *err)
{
    struct pollfd p = {.fd = child->pidfd, .events = POLLIN};
    for (;;) {
        int n = poll(&p, 1, clock_poll_timeout(deadline_ms));
        if (n > 0)
            break;
        if (n == 0 && clock_poll_timeout(deadline_ms) == 0)
            return err_set(err, ERR_DEADLINE, "process %d did not end in time", (int)child->pid);
        if (n < 0 && errno != EINTR)
            return err_set_errno(err, errno, "poll");
    }
    siginfo_t info = {0};
    while (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED) < 0) {
        if (errno != EINTR)
            return err_set_errno(err, errno, "wait for process %d", (int)child->pid);
    }
    *ret_status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    return 0;
}

void spawn_kill(struct spawn_child *child)
{
    int status;
    if (child->pidfd < 0)
        return;
    /* What it started too, if it leads a group: its pid is not free before it is reaped, so the
     * group is its own. */
    (void)kill(-child->pid, SIGKILL);
    (void)syscall(SYS_pidfd_send_signal, child->pidfd, SIGKILL, NULL, 0);
    (void)spawn_wait(child, CLOCK_NO_DEADLINE, &status, NULL);
    close_fd(&child->pidfd);
}

/* The parent's ends of the three pipes of spawn_run. */
struct pump {
    int in, out, err;
    const char *input;
    size_t input_left;
    struct buf out_buf, err_buf;
};

static int pump_read(int *fd, struct buf *b, struct err *err)
{
    char chunk[16384];
    ssize_t n = read(*fd, chunk, sizeof(chunk));
    if (n > 0)
        return buf_append(b, chunk, (size_t)n, err);
    if (n == 0)
        close_fd(fd);
    else if (errno != EINTR && errno != EAGAIN)
        return err_set_errno(err, errno, "read from the program");
    return 0;
}

static void pump_write(struct pump *p)
{
    ssize_t n = write(p->in, p->input, p->input_left);
    if (n > 0) {
        p->input += n;
        p->input_left -= (size_t)n;
    }
    /* EPIPE: the program does not want its input, which is its own affair. */
    if (p->input_left == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        close_fd(&p->in);
}

/* Moves bytes until both outputs are at their end. */
static int pump_run(struct pump *p, int64_t deadline_ms, struct err *err)
{
    while (p->out >= 0 || p->err >= 0) {
        struct pollfd fds[3] = {{.fd = p->in, .events = POLLOUT},
                                {.fd = p->out, .events = POLLIN},
                                {.fd = p->err, .events = POLLIN}};
        int n = poll(fds, 3, clock_poll_timeout(deadline_ms));
        if (n == 0 && clock_poll_timeout(deadline_ms) == 0)
            return err_set(err, ERR_DEADLINE, "the program did not end in time");
        if (n < 0 && errno != EINTR)
            return err_set_errno(err, errno, "poll");
        if (n <= 0)
            continue;
        if (fds[0].revents != 0)
            pump_write(p);
        if (fds[1].revents != 0 && pump_read(&p->out, &p->out_buf, err) < 0)
            return -1;
        if (fds[2].revents != 0 && pump_read(&p->err, &p->err_buf, err) < 0)
            return -1;
    }
    return 0;
}

static int run_collect(struct pump *p, const struct spawn_child *child, int64_t deadline_ms,
                       struct spawn_output *ret_output, struct err *err)
{
    struct spawn_output o = {0};
    if (pump_run(p, deadline_ms, err) < 0 || spawn_wait(child, deadline_ms, &o.status, err) < 0)
        return -1;
    o.out_len = p->out_buf.len;
    if (buf_take_string(&p->out_buf, &o.out, err) < 0)
        return -1;
    if (buf_take_string(&p->err_buf, &o.err_text, err) < 0) {
        free(o.out);
        return -1;
    }
    *ret_output = o;
    return 0;
}

int spawn_run(const struct spawn_spec *spec, const char *input, size_t max_output,
              int64_t deadline_ms, struct spawn_output *ret_output, struct err *err)
{
    int in[2], out[2], errs[2];
    if (pipe2(in, O_CLOEXEC) < 0)
        return err_set_errno(err, errno, "pipe");
    cleanup_fd int in_r = in[0], in_w = in[1];
    if (pipe2(out, O_CLOEXEC) < 0)
        return err_set_errno(err, errno, "pipe");
    cleanup_fd int out_r = out[0], out_w = out[1];
    if (pipe2(errs, O_CLOEXEC) < 0)
        return err_set_errno(err, errno, "pipe");
    cleanup_fd int err_r = errs[0], err_w = errs[1];

    struct spawn_fd fds[MAX_FDS] = {{in_r, 0}, {out_w, 1}, {err_w, 2}};
    if (spec->n_fds > MAX_FDS - 3)
        return err_set(err, ERR_INVALID, "run '%s': too many descriptors", spec->path);
    if (spec->n_fds > 0)
        memcpy(fds + 3, spec->fds, spec->n_fds * sizeof(fds[0]));
    struct spawn_spec with_pipes = *spec;
    with_pipes.fds = fds;
    with_pipes.n_fds = spec->n_fds + 3;

    struct spawn_child child = {.pidfd = -1};
    if (fd_set_nonblock(in_w, err) < 0 || spawn_start(&with_pipes, &child, err) < 0)
        return -1;
    close_fd(&in_r);
    close_fd(&out_w);
    close_fd(&err_w);
    struct pump p = {.in = in_w,
                     .out = out_r,
                     .err = err_r,
                     .input = input,
                     .input_left = input == NULL ? 0 : strlen(input),
                     .out_buf = BUF_INIT(max_output),
                     .err_buf = BUF_INIT(max_output)};
    in_w = out_r = err_r = -1;
    if (p.input_left == 0)
        close_fd(&p.in);

    /* A program that closes its stdin early must not kill us. */
    sigset_t pipe_set, old;
    sigemptyset(&pipe_set);
    sigaddset(&pipe_set, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &pipe_set, &old);
    int r = run_collect(&p, &child, deadline_ms, ret_output, err);
    struct timespec zero = {0};
    while (!sigismember(&old, SIGPIPE) && sigtimedwait(&pipe_set, NULL, &zero) > 0)
        ;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);

    if (r < 0) {
        spawn_kill(&child);
        (void)err_prefix(err, "'%s'", spec->path);
    }
    close_fd(&child.pidfd);
    close_fd(&p.in);
    close_fd(&p.out);
    close_fd(&p.err);
    buf_fini(&p.out_buf);
    buf_fini(&p.err_buf);
    return r;
}
