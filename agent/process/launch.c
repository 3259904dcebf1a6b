/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between fork and exec. The child reads top to bottom and may block (on a disk that is still being
 * plugged in, on a mount), which the agent must not. It is a copy of the agent; or, when the spec
 * allows it and nobody else does, it lives in the agent's own memory (lodging.h), and keeps to the
 * rules of that in either case: no heap, no function that changes the user for all threads.
 *
 * The agent's descriptors are all close-on-exec, but a held child lives on for a while: it closes
 * what it does not need at once, or it would keep another container's stdin open. The channel is a
 * SOCK_SEQPACKET pair, close-on-exec too: the daemon's question "did the exec work" is answered by
 * its closing without a message of failure before. One that lodges needs none: its failure stays
 * behind in the agent's memory, and lodging.h knows when it has left that.
 */
#include "agent/process/launch.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "agent/mount/mnt.h"
#include "agent/process/identity.h"
#include "agent/process/limits.h"
#include "agent/process/lodging.h"
#include "agent/process/userdb.h"

#define CHANNEL_FD   3
#define KEEP_FD      LAUNCH_KEEP_FD
#define MASTER_FD    5
#define FIRST_CLOSED 6u
#define EXIT_FAILED  128 /* as containerd reports a process that could not be started */
#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/*
 * Each page of stack is one more that the child must be given, and all those of a function's
 * variables are touched when it is called: the largest are kept out of the callers that every child
 * runs.
 */
#define APART __attribute__((noinline))

enum message_kind { MESSAGE_READY = 1, MESSAGE_FAILED = 2, MESSAGE_GO = 3 };

struct message {
    enum message_kind kind;
    bool has_ptmx;
    bool has_master;
    union {
        struct user user;   /* READY */
        struct err failure; /* FAILED */
    };
};

/* ---- the channel
 * -------------------------------------------------------------------------------------------------
 */

static int send_message(int channel, const struct message *m, const int *fds, size_t n_fds)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)m, .iov_len = sizeof(*m)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds > 0) {
        memset(&control, 0, sizeof(control));
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    ssize_t n;
    do {
        n = sendmsg(channel, &msg, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(*m) ? 0 : -1;
}

static size_t received_fds(struct msghdr *msg, int fds[2])
{
    size_t n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (n > 2)
            n = 2;
        memcpy(fds, CMSG_DATA(c), n * sizeof(int));
    }
    return n;
}

enum launch_event launch_receive(int channel, struct launch_ready *ret_ready,
                                 struct err *ret_failure)
{
    static struct message m; /* *ret_ready points into it */
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = &m, .iov_len = sizeof(m)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    ssize_t n;
    do {
        n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return LAUNCH_NOTHING;
    if (n != (ssize_t)sizeof(m))
        return LAUNCH_CLOSED;

    int fds[2] = {-1, -1};
    size_t n_fds = received_fds(&msg, fds), next = 0;
    if (m.kind == MESSAGE_FAILED) {
        *ret_failure = m.failure;
        ret_failure->msg[sizeof(ret_failure->msg) - 1] = '\0';
        return LAUNCH_FAILED;
    }
    ret_ready->ptmx = m.has_ptmx && next < n_fds ? fds[next++] : -1;
    ret_ready->master = m.has_master && next < n_fds ? fds[next++] : -1;
    ret_ready->user = &m.user;
    return LAUNCH_READY;
}

int launch_go(int channel, struct err *err)
{
    struct message m = {.kind = MESSAGE_GO};
    if (send_message(channel, &m, NULL, 0) < 0)
        return err_set(err, ERR_UNAVAILABLE, "the process has ended");
    return 0;
}

/* ---- descriptors that stay open
 * ------------------------------------------------------------------------------------
 */

/* /dev/null and the agent's own pid namespace. They are never other ones. */
static int null_fd = -1;
static int home_ns_fd = -1;

static int keep_open(const char *path, int flags, int *fd, struct err *err)
{
    if (*fd < 0)
        *fd = open(path, flags | O_CLOEXEC);
    return *fd < 0 ? err_set_errno(err, errno, "open %s", path) : 0;
}

/* ---- in the child: descriptors and terminal
 * ------------------------------------------------------------------------ */

/* Puts what the child keeps at fixed numbers and closes everything else. */
static int arrange_fds(const struct launch_spec *spec, int channel, struct err *err)
{
    const int wanted[FIRST_CLOSED] = {spec->stdio[0], spec->stdio[1], spec->stdio[2],
                                      channel,        spec->keep_fd,  spec->master_fd};
    int moved[FIRST_CLOSED];
    /* What has one of the fixed numbers gets out of the way first, so that none overwrites one that
     * is still to be placed. */
    for (size_t i = 0; i < FIRST_CLOSED; i++) {
        int fd = wanted[i];
        if (fd < 0 && i < 3)
            fd = null_fd;
        if (fd >= 0 && fd < (int)FIRST_CLOSED) {
            fd = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_CLOSED);
            if (fd < 0)
                return err_set_errno(err, errno, "duplicate a descriptor");
        }
        moved[i] = fd;
    }
    for (int i = 0; i < (int)FIRST_CLOSED; i++) {
        if (moved[i] < 0)
            (void)close(i);
        else if (dup3(moved[i], i, i < 3 ? 0 : O_CLOEXEC) < 0)
            return err_set_errno(err, errno, "duplicate a descriptor");
    }
    if (close_range(FIRST_CLOSED, ~0u, 0) < 0)
        return err_set_errno(err, errno, "close descriptors");
    return 0;
}

/* Makes the slave of the master at MASTER_FD the child's controlling terminal and its stdio. */
static int take_terminal(const Casemate__Agent__V1__Process *process, uid_t uid, struct err *err)
{
    cleanup_fd int slave = ioctl(MASTER_FD, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return err_set_errno(err, errno, "open the terminal");
    if (process->tty_width > 0 && process->tty_height > 0) {
        struct winsize size = {.ws_col = (unsigned short)process->tty_width,
                               .ws_row = (unsigned short)process->tty_height};
        if (ioctl(MASTER_FD, TIOCSWINSZ, &size) < 0)
            return err_set_errno(err, errno, "set the terminal's size");
    }
    if (ioctl(slave, TIOCSCTTY, 0) < 0)
        return err_set_errno(err, errno, "take the terminal");
    if (fchown(slave, uid, (gid_t)-1) < 0)
        return err_set_errno(err, errno, "own the terminal");
    for (int i = 0; i < 3; i++) {
        if (dup3(slave, i, 0) < 0)
            return err_set_errno(err, errno, "duplicate the terminal");
    }
    return 0;
}

/* The pipes belong to the user, so that /dev/stdout can be opened again by a process that is not
 * root. Root's they are already. */
static void own_pipes(uid_t uid)
{
    if (uid == 0)
        return;
    for (int i = 0; i < 3; i++) {
        struct stat st;
        if (fstat(i, &st) == 0 && S_ISFIFO(st.st_mode) && fchown(i, uid, (gid_t)-1) < 0)
            return; /* only reopening by path suffers */
    }
}

int launch_open_terminal(int ptmx_fd, const struct userns *userns, int *ret_master, struct err *err)
{
    char path[32];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", ptmx_fd);
    /* The slave belongs to who opens the master; nobody inside could take it from the VM's root. */
    if (userns != NULL) {
        (void)setfsgid(userns->gid);
        (void)setfsuid(userns->uid);
    }
    cleanup_fd int master = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    int e = errno;
    if (userns != NULL) {
        (void)setfsuid(0);
        (void)setfsgid(0);
    }
    errno = e;
    int unlock = 0;
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0)
        return err_set_errno(err, errno, "make a terminal");
    *ret_master = steal_fd(&master);
    return 0;
}

/* In the child: a new terminal in its own root; the master ends up at MASTER_FD. */
static int make_terminal(int ptmx_fd, struct err *err)
{
    cleanup_fd int master = -1;
    if (launch_open_terminal(ptmx_fd, NULL, &master, err) < 0)
        return -1;
    if (master == MASTER_FD) {
        (void)steal_fd(&master);
        return 0;
    }
    if (dup3(master, MASTER_FD, O_CLOEXEC) < 0)
        return err_set_errno(err, errno, "duplicate the terminal");
    return 0;
}

/* Binds the terminal over /dev/console, where programs of a container look for it; best effort. */
static void bind_console(void)
{
    char slave[32];
    unsigned number;
    if (ioctl(MASTER_FD, TIOCGPTN, &number) < 0)
        return;
    (void)snprintf(slave, sizeof(slave), "/dev/pts/%u", number);
    int fd = open("/dev/console", O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0)
        (void)close(fd);
    (void)mount(slave, "/dev/console", NULL, MS_BIND, NULL);
}

/* ---- in the child: exec
 * -------------------------------------------------------------------------------------------- */

/* "exec PATH: no such file or directory", in the words that users of other runtimes search for. */
static int exec_error(const char *path, int e, struct err *err)
{
    const char *s = strerrordesc_np(e);
    const char *hint = "";
    if (s == NULL)
        s = "unknown error";
    if (e == ENOENT && faccessat(AT_FDCWD, path, F_OK, 0) == 0)
        hint = " (the file exists: its interpreter or loader does not)";
    (void)err_set_errno(err, e, "exec"); /* for its code */
    enum err_code code = err->code;
    (void)err_set(err, code, "exec %.512s: %c%s%s", path, tolower((unsigned char)s[0]), s + 1,
                  hint);
    err->sys_errno = e;
    return -1;
}

/* execvp(3) with the new environment's PATH. Returns only on failure. */
static int exec_program(char *const *args, char *const *env, struct scratch *scratch,
                        struct err *err)
{
    if (strchr(args[0], '/') != NULL) {
        (void)execve(args[0], args, env);
        return exec_error(args[0], errno, err);
    }
    const char *path = DEFAULT_PATH;
    for (char *const *e = env; *e != NULL; e++) {
        if (strncmp(*e, "PATH=", 5) == 0)
            path = *e;
    }
    char *candidate = scratch_take(scratch, PATH_MAX);
    size_t name_len = strlen(args[0]);
    bool denied = false;
    if (candidate == NULL)
        return err_no_memory(err);
    for (const char *at = path + 5;; at++) {
        size_t len = strcspn(at, ":");
        /* "" is the working directory. */
        const char *dir = len == 0 ? "." : at;
        size_t dir_len = len == 0 ? 1 : len;
        if (dir_len + name_len + 2 <= PATH_MAX) {
            struct stat st;
            memcpy(candidate, dir, dir_len);
            candidate[dir_len] = '/';
            memcpy(candidate + dir_len + 1, args[0], name_len + 1);
            if (stat(candidate, &st) == 0 && !S_ISDIR(st.st_mode)) {
                (void)execve(candidate, args, env);
                if (errno != EACCES)
                    return exec_error(candidate, errno, err);
                denied = true;
            }
        }
        at += len;
        if (*at == '\0')
            break;
    }
    if (denied)
        return exec_error(args[0], EACCES, err);
    (void)err_set(err, ERR_NOT_FOUND,
                  "exec \"%.512s\": executable file not found in $PATH: no such file or directory",
                  args[0]);
    err->sys_errno = ENOENT;
    return -1;
}

/* A NULL-terminated copy of a list of strings, with one more string in front of the NULL unless
 * that is NULL. */
static char **list_copy(struct scratch *scratch, char *const *list, size_t n, char *extra)
{
    char **copy = scratch_take(scratch, (n + 2) * sizeof(*copy));
    if (copy == NULL)
        return NULL;
    for (size_t i = 0; i < n; i++)
        copy[i] = list[i];
    copy[n] = extra;
    copy[n + 1] = NULL;
    return copy;
}

/* The environment; whoever is given no home ("HOME=...") in it, or an empty one, has `home`. */
static char **env_copy(struct scratch *scratch, const Casemate__Agent__V1__Process *process,
                       char *home)
{
    char **env = list_copy(scratch, process->env, process->n_env, home);
    for (size_t i = 0; env != NULL && i < process->n_env; i++) {
        if (strncmp(env[i], "HOME=", 5) != 0)
            continue;
        if (env[i][5] == '\0')
            env[i] = home;
        env[process->n_env] = NULL;
    }
    return env;
}

/*
 * The working directory; the container's first process finds it made (mount/rootfs.c). Whoever
 * looks for it is still the VM's root, to whom /proc/1/root is an open door where PID 1 is not the
 * container's own: links lead no further than the root directory, and those of /proc nowhere.
 */
static int find_cwd(const char *cwd, int *ret_fd, struct err *err)
{
    cleanup_fd int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return err_set_errno(err, errno, "open /");
    if (mnt_open_in(root, cwd, O_DIRECTORY, ret_fd, err) < 0)
        return err_prefix(err, "working directory");
    return 0;
}

/* ---- the child
 * ---------------------------------------------------------------------------------------------------
 */

/* exec takes handlers away; what is ignored would stay so, and that is what boot.c ignores. */
static void reset_signals(void)
{
    sigset_t none;
    (void)signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Whether all that it is to be is in its user namespace: the kernel would only say EINVAL. */
static int check_ids(const struct userns *userns, const struct user *user, struct err *err)
{
    if (userns == NULL)
        return 0;
    if (userns_check_ids(userns, user->uid, user->gid, err) < 0)
        return -1;
    for (size_t i = 0; i < user->n_groups; i++) {
        if (userns_check_ids(userns, user->uid, user->groups[i], err) < 0)
            return -1;
    }
    return 0;
}

static APART int wait_for_go(int ptmx_fd, bool tty, const struct user *user)
{
    struct message m = {
        .kind = MESSAGE_READY, .has_ptmx = ptmx_fd >= 0, .has_master = tty, .user = *user};
    int fds[2];
    size_t n = 0;
    if (m.has_ptmx)
        fds[n++] = ptmx_fd;
    if (m.has_master)
        fds[n++] = MASTER_FD;
    if (send_message(CHANNEL_FD, &m, fds, n) < 0)
        return -1;
    ssize_t got;
    do {
        got = recv(CHANNEL_FD, &m, sizeof(m), 0);
    } while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof(m) && m.kind == MESSAGE_GO ? 0 : -1;
}

/* Everything up to a successful exec. Returns only on failure; an error without a code means that
 * nobody waits. */
static int child_run(const struct launch_spec *spec, struct scratch *scratch, int *channel,
                     struct err *err)
{
    const Casemate__Agent__V1__Process *process = spec->process;
    int ptmx_fd = -1;
    *err = (struct err){0};
    reset_signals();
    if (setsid() < 0)
        return err_set_errno(err, errno, "start a session");
    if (arrange_fds(spec, *channel, err) < 0)
        return -1;
    *channel = CHANNEL_FD;
    (void)umask(0022);
    if (!spec->born_inside && limits_set_oom_score(process->oom_score_adj, err) < 0)
        return -1;
    if (spec->enter(spec->enter_arg, &ptmx_fd, err) < 0)
        return -1;
    if (spec->keep_fd >= 0)
        (void)close(KEEP_FD);

    struct user *user = scratch_take(scratch, sizeof(*user));
    if (user == NULL)
        return err_no_memory(err);
    if (identity_find(process, spec->memo, scratch, user, err) < 0 ||
        check_ids(spec->userns, user, err) < 0)
        return -1;
    bool at_root = process->cwd[strspn(process->cwd, "/")] == '\0';
    cleanup_fd int cwd = -1;
    if (!at_root && find_cwd(process->cwd, &cwd, err) < 0)
        return -1;
    if (process->tty) {
        if (spec->master_fd < 0 && make_terminal(ptmx_fd, err) < 0)
            return -1;
        if (take_terminal(process, user->uid, err) < 0)
            return -1;
        if (spec->gated)
            bind_console();
    } else {
        own_pipes(user->uid);
    }
    char home[sizeof("HOME=") + USERDB_MAX_HOME];
    (void)stpcpy(stpcpy(home, "HOME="), user->home[0] == '\0' ? "/" : user->home);
    char **args = list_copy(scratch, process->args, process->n_args, NULL);
    char **env = env_copy(scratch, process, home);
    if (args == NULL || env == NULL)
        return err_no_memory(err);

    if (spec->gated && wait_for_go(ptmx_fd, process->tty, user) < 0)
        return -1;
    /* As root where the user may not, as the user where root may not (a network file system):
     * either will do. */
    bool inside = (at_root ? chdir("/") : fchdir(cwd)) == 0;
    if (identity_become(process, spec->caps, user, err) < 0)
        return -1;
    if (!inside && fchdir(cwd) < 0)
        return err_set_errno(err, errno, "working directory %.256s", process->cwd);
    return exec_program(args, env, scratch, err);
}

static APART void say_failure(int channel, const struct err *failure)
{
    struct message m = {.kind = MESSAGE_FAILED, .failure = *failure};
    (void)send_message(channel, &m, NULL, 0);
}

/* A child that has memory of its own. */
static __attribute__((noreturn)) void copy_main(const struct launch_spec *spec, int channel)
{
    struct scratch scratch = {.left = LODGING_SCRATCH};
    struct err failure;
    log_set_fd(-1); /* its number may soon be something else's */
    scratch.at = mmap(NULL, scratch.left, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (scratch.at == MAP_FAILED)
        scratch.left = 0;
    (void)child_run(spec, &scratch, &channel, &failure);
    if (failure.code != ERR_NONE)
        say_failure(channel, &failure);
    _exit(EXIT_FAILED);
}

/* What a child that has not reads, and its last words. There is one at a time. */
static struct lodger {
    struct launch_spec spec;
    struct err failure; /* of the agent once lodging_is_vacated */
} lodger;

static void lodger_main(void *arg, struct scratch *scratch)
{
    struct lodger *l = arg;
    int channel = -1;
    (void)child_run(&l->spec, scratch, &channel, &l->failure);
    _exit(EXIT_FAILED);
}

enum launch_event launch_ask_lodger(struct err *ret_failure)
{
    if (!lodging_is_vacated())
        return LAUNCH_NOTHING;
    if (lodger.failure.code == ERR_NONE) {
        lodging_leave();
        return LAUNCH_CLOSED;
    }
    *ret_failure = lodger.failure;
    lodger.failure.code = ERR_NONE;
    return LAUNCH_FAILED;
}

/* ---- the agent's side
 * ---------------------------------------------------------------------------------------------- */

/* As fork(2), where `lodges` is false. */
static pid_t clone_child(const struct launch_spec *spec, bool lodges, struct err *err)
{
    struct clone_args args = {
        .flags = spec->clone_flags | (spec->cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0),
        .exit_signal = SIGCHLD,
        .cgroup = spec->cgroup_fd >= 0 ? (__u64)spec->cgroup_fd : 0,
    };
    pid_t pid;
    if (lodges) {
        lodger.spec = *spec;
        lodger.failure.code = ERR_NONE;
        pid = lodging_enter(&args, lodger_main, &lodger);
    } else {
        pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    }
    if (pid < 0)
        (void)err_set_errno(err, errno, "fork");
    return pid;
}

static pid_t bear_child(const struct launch_spec *spec, struct err *err)
{
    struct userns_birth birth = {
        .userns = spec->userns,
        .new_namespaces = spec->clone_flags,
        .cgroup_fd = spec->cgroup_fd,
        .pidns_fd = spec->pidns_fd,
        .oom_score_adj = spec->process->oom_score_adj,
    };
    return userns_fork(&birth, err);
}

/* Nobody inside could do this: what belongs to the VM's root is out of their reach. */
static int give_stdio(const struct launch_spec *spec, struct err *err)
{
    for (size_t i = 0; i < 3; i++) {
        if (spec->stdio[i] >= 0 && fchown(spec->stdio[i], spec->userns->uid, spec->userns->gid) < 0)
            return err_set_errno(err, errno, "own a pipe");
    }
    return 0;
}

int launch_start(const struct launch_spec *spec, struct launch *ret_launch, struct err *err)
{
    bool lodges = spec->may_lodge && lodging_is_free();
    int pair[2] = {-1, -1};
    if (!lodges && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_set_errno(err, errno, "make a socket pair");
    cleanup_fd int ours = pair[0];
    cleanup_fd int theirs = pair[1];
    bool elsewhere = spec->pidns_fd >= 0 && !spec->born_inside;

    if (keep_open("/dev/null", O_RDWR, &null_fd, err) < 0)
        return -1;
    if (spec->userns != NULL && give_stdio(spec, err) < 0)
        return -1;
    /* setns(2) changes where children are born, not where the agent is. */
    if (elsewhere) {
        if (keep_open("/proc/self/ns/pid", O_RDONLY, &home_ns_fd, err) < 0)
            return -1;
        if (setns(spec->pidns_fd, CLONE_NEWPID) < 0)
            return errno == ESRCH ? err_set(err, ERR_BAD_STATE, "the container's process has ended")
                                  : err_set_errno(err, errno, "enter the pid namespace");
    }
    pid_t pid = spec->born_inside ? bear_child(spec, err) : clone_child(spec, lodges, err);
    if (pid == 0)
        copy_main(spec, theirs);
    if (elsewhere && setns(home_ns_fd, CLONE_NEWPID) < 0) {
        /* Later children would be born in the container: nothing may be started any more. */
        abort();
    }
    if (pid < 0)
        return -1;
    *ret_launch = (struct launch){.pid = pid, .channel = steal_fd(&ours), .lodges = lodges};
    return 0;
}
