/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A namespace belongs to the user namespace in which its maker was, and only
 * to who has a capability there is it the namespace's: so that root inside may bind to port 80,
 * change its interfaces or mount its own proc, the pod's network, UTS, IPC and pid namespaces must
 * be made by a process that is inside already.
 *
 * userns_make: a child is cloned into a new user namespace; the agent writes the mappings, which
 * only a process outside may; the child becomes root there and makes the other three; the agent
 * enters these and keeps the user namespace by a descriptor. Then the child ends.
 *
 * userns_fork: a pid namespace is had by being born in it, and a child is born where its parent is.
 * So a child of the agent, which ends at once, does what the agent cannot undo (enters the user
 * namespace, makes namespaces) and clones with CLONE_PARENT: the new process is the agent's child,
 * not its own. It is in the cgroup before it is inside, where it may not move any more.
 */
#include "agent/process/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "agent/process/limits.h"

/* What the namespaces made inside are for. */
#define POD_NAMESPACES (CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)

/* What a helping child says. */
struct report {
    pid_t pid;
    struct err failure; /* code ERR_NONE: none */
};

static pid_t clone_process(uint64_t flags, int exit_signal, int cgroup_fd)
{
    struct clone_args args = {
        .flags = flags | (cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0),
        .exit_signal = (__u64)exit_signal,
        .cgroup = cgroup_fd >= 0 ? (__u64)cgroup_fd : 0,
    };
    return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static void reap(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}

/* One message of the socket; false at its end. */
static bool receive(int fd, struct report *ret_report)
{
    ssize_t n;
    do {
        n = recv(fd, ret_report, sizeof(*ret_report), 0);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(*ret_report);
}

static void say(int fd, const struct report *report)
{
    (void)send(fd, report, sizeof(*report), MSG_NOSIGNAL);
}

static int take_failure(const struct report *report, struct err *err)
{
    if (report->failure.code == ERR_NONE)
        return 0;
    if (err != NULL)
        *err = report->failure;
    return -1;
}

/* ---- making it ---- */

int userns_become_root(struct err *err)
{
    /* Not the library's functions, which believe that the agent's threads are this process's. */
    if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, 0, 0, 0) < 0 ||
        syscall(SYS_setresuid, 0, 0, 0) < 0)
        return err_set_errno(err, errno, "become root of the user namespace");
    return 0;
}

/* In the child, which is in the user namespace. */
static __attribute__((noreturn)) void make_inside(int channel)
{
    struct report report = {.failure = {.code = ERR_NONE}};

    if (!receive(channel, &report))
        _exit(1);
    if (userns_become_root(&report.failure) == 0 && unshare(POD_NAMESPACES) < 0)
        (void)err_set_errno(&report.failure, errno, "make the pod's namespaces");
    say(channel, &report);
    (void)receive(channel, &report); /* until the agent has them */
    _exit(0);
}

static int write_mapping(pid_t pid, const char *file, const Casemate__Agent__V1__IdMapping *mapping,
                         struct err *err)
{
    char path[32], text[40];

    (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    (void)snprintf(text, sizeof(text), "0 %u %u\n", mapping->host_id, mapping->length);
    return fd_write_text(AT_FDCWD, path, text, err);
}

/* The agent's part, with the child waiting. */
static int take_inside(const Casemate__Agent__V1__UserNamespace *mapping, pid_t pid, int channel,
                       int *ret_fd, struct err *err)
{
    struct report report = {.failure = {.code = ERR_NONE}};
    char path[32];

    if (write_mapping(pid, "uid_map", mapping->uids, err) < 0 ||
        write_mapping(pid, "gid_map", mapping->gids, err) < 0)
        return -1;
    say(channel, &report);
    if (!receive(channel, &report))
        return err_set(err, ERR_SYSTEM, "a helper process ended unexpectedly");
    if (take_failure(&report, err) < 0)
        return -1;
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0 || pidfd < 0)
        return err_set_errno(err, errno, "open the user namespace");
    if (setns(pidfd, POD_NAMESPACES) < 0)
        return err_set_errno(err, errno, "enter the pod's namespaces");
    *ret_fd = steal_fd(&fd);
    return 0;
}

int userns_make(const Casemate__Agent__V1__UserNamespace *mapping, struct userns *ret_userns,
                struct err *err)
{
    int pair[2], fd = -1;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_set_errno(err, errno, "make a socket pair");
    pid_t pid = clone_process(CLONE_NEWUSER, SIGCHLD, -1);
    int clone_errno = errno;
    if (pid == 0) {
        (void)close(pair[0]);
        make_inside(pair[1]);
    }
    (void)close(pair[1]);
    int rc = pid < 0 ? err_set_errno(err, clone_errno, "fork")
                     : take_inside(mapping, pid, pair[0], &fd, err);
    (void)close(pair[0]);
    if (pid > 0)
        reap(pid);
    if (rc < 0)
        return err_prefix(err, "user namespace");
    *ret_userns = (struct userns){
        .fd = fd,
        .uid = mapping->uids->host_id,
        .gid = mapping->gids->host_id,
        .n_uids = mapping->uids->length,
        .n_gids = mapping->gids->length,
    };
    return 0;
}

/* ---- its ids ---- */

bool userns_has_mapping(const struct userns *userns,
                        const Casemate__Agent__V1__UserNamespace *mapping)
{
    return userns->uid == mapping->uids->host_id && userns->n_uids == mapping->uids->length &&
           userns->gid == mapping->gids->host_id && userns->n_gids == mapping->gids->length;
}

int userns_check_ids(const struct userns *userns, uid_t uid, gid_t gid, struct err *err)
{
    if (uid >= userns->n_uids)
        return err_set(err, ERR_INVALID, "user %u is not in the pod's user namespace of %u users",
                       uid, userns->n_uids);
    if (gid >= userns->n_gids)
        return err_set(err, ERR_INVALID, "group %u is not in the pod's user namespace of %u groups",
                       gid, userns->n_gids);
    return 0;
}

int userns_own_files(const struct userns *userns, struct err *err)
{
    /* Without this a change of the file system's user takes capabilities away. */
    if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0)
        return err_set_errno(err, errno, "keep capabilities");
    (void)setfsgid(userns->gid);
    (void)setfsuid(userns->uid);
    /* They answer with what was before, whether or not it was changed. */
    if ((uid_t)setfsuid((uid_t)-1) != userns->uid || (gid_t)setfsgid((gid_t)-1) != userns->gid)
        return err_set(err, ERR_SYSTEM, "cannot make files as user %u", userns->uid);
    return 0;
}

/* ---- being born in it ---- */

/* Returns twice, like fork; *ret_pid is 0 in the new process. */
static int deliver(const struct userns_birth *birth, pid_t *ret_pid, struct err *err)
{
    if (limits_set_oom_score(birth->oom_score_adj, err) < 0)
        return -1;
    if (birth->pidns_fd >= 0 && setns(birth->pidns_fd, CLONE_NEWPID) < 0)
        return err_set_errno(err, errno, "enter the pid namespace");
    if (setns(birth->userns->fd, CLONE_NEWUSER) < 0)
        return err_set_errno(err, errno, "enter the user namespace");
    if (userns_become_root(err) < 0)
        return -1;
    if (birth->new_namespaces != 0 && unshare((int)birth->new_namespaces) < 0)
        return err_set_errno(err, errno, "make namespaces");
    pid_t pid = clone_process(CLONE_PARENT, 0, -1);
    if (pid < 0)
        return err_set_errno(err, errno, "fork");
    *ret_pid = pid;
    return 0;
}

pid_t userns_fork(const struct userns_birth *birth, struct err *err)
{
    struct report report = {.failure = {.code = ERR_NONE}};
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_set_errno(err, errno, "make a socket pair");
    pid_t helper = clone_process(0, SIGCHLD, birth->cgroup_fd);
    int clone_errno = errno;
    if (helper == 0) {
        (void)close(pair[0]);
        int rc = deliver(birth, &report.pid, &report.failure);
        if (rc == 0 && report.pid == 0) {
            (void)close(pair[1]);
            return 0;
        }
        say(pair[1], &report);
        _exit(0);
    }
    (void)close(pair[1]);
    int rc = 0;
    if (helper < 0)
        rc = err_set_errno(err, clone_errno, "fork");
    else if (!receive(pair[0], &report))
        rc = err_set(err, ERR_SYSTEM, "a helper process ended unexpectedly");
    else
        rc = take_failure(&report, err);
    (void)close(pair[0]);
    if (helper > 0)
        reap(helper);
    return rc < 0 ? -1 : report.pid;
}
