/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A forked copy of the agent that keeps no descriptor and waits for signals; it costs its stack and
 * page tables. It is process 1 of whoever shares the pod's pid namespace, and such a container may
 * have CAP_SYS_PTRACE: what it finds then is a process without rights, whose root directory is
 * empty (/proc/1/root).
 */
#include "agent/container/pause.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "agent/mount/mnt.h"
#include "agent/process/caps.h"
#include "agent/process/reaper.h"
#include "agent/process/userns.h"

#define NOBODY     65534u
#define EMPTY_ROOT (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY)

struct pause {
    struct reaper_child child;
    pid_t pid; /* -1: it has ended */
};

/* An empty directory becomes the root of a mount namespace of its own. */
static int enter_nowhere(struct err *err)
{
    static const struct mnt_option empty[] = {{"size", "4k"}, {"mode", "0555"}, {NULL, NULL}};
    cleanup_fd int root = -1;
    cleanup_fd int place = -1;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return err_set_errno(err, errno, "new mount namespace");
    place = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (place < 0)
        return err_set_errno(err, errno, "open /");
    if (mnt_new("tmpfs", empty, EMPTY_ROOT, &root, err) < 0 || mnt_attach(root, place, err) < 0)
        return -1;
    if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0)
        return err_set_errno(err, errno, "switch the root directory");
    return 0;
}

/* Without any right in its user namespace, and for good. */
static int give_up_rights(struct err *err)
{
    static const struct caps none;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_set_errno(err, errno, "set no_new_privs");
    /* Not by the library, which would look for the agent's threads. Where that user is not mapped,
     * root without capabilities has to do. */
    if (syscall(SYS_setgroups, 0, NULL) == 0 && syscall(SYS_setresgid, NOBODY, NOBODY, NOBODY) == 0)
        (void)syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY);
    return caps_apply(&none, err);
}

static __attribute__((noreturn)) void pause_main(void)
{
    sigset_t children;
    struct err err;
    (void)close_range(0, ~0u, 0);
    (void)prctl(PR_SET_NAME, "pause", 0, 0, 0);
    if (enter_nowhere(&err) < 0 || give_up_rights(&err) < 0)
        _exit(1);
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &children, NULL);
    for (;;) {
        int signo;
        (void)sigwait(&children, &signo);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            continue;
    }
}

static void on_end(void *arg, pid_t pid, int status)
{
    struct pause *p = arg;
    (void)pid;
    (void)status;
    log_error("the pod's pid namespace has ended");
    p->pid = -1;
}

static pid_t fork_pause(const struct userns *userns, struct err *err)
{
    struct clone_args args = {.flags = CLONE_NEWPID, .exit_signal = SIGCHLD};
    const struct userns_birth birth = {
        .userns = userns, .new_namespaces = CLONE_NEWPID, .cgroup_fd = -1, .pidns_fd = -1};
    if (userns != NULL)
        return userns_fork(&birth, err);
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    if (pid < 0)
        (void)err_set_errno(err, errno, "fork");
    return pid;
}

int pause_start(struct reaper *reaper, const struct userns *userns, struct pause **ret_pause,
                struct err *err)
{
    struct pause *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return err_no_memory(err);
    p->pid = fork_pause(userns, err);
    if (p->pid == 0)
        pause_main();
    if (p->pid < 0) {
        free(p);
        return -1;
    }
    reaper_add(reaper, &p->child, p->pid, on_end, p);
    *ret_pause = p;
    return 0;
}

void pause_stop(struct pause *pause)
{
    if (pause != NULL && pause->pid > 0)
        (void)kill(pause->pid, SIGKILL);
    pause_free(pause);
}

pid_t pause_pid(const struct pause *pause)
{
    return pause->pid;
}

void pause_free(struct pause *pause)
{
    if (pause == NULL)
        return;
    if (pause->pid > 0)
        reaper_forget(&pause->child);
    free(pause);
}
