/* SPDX-License-Identifier: Apache-2.0 */
/* A forked copy of the agent that keeps no descriptor and waits for signals; it costs its stack and
 * page tables. */
#include "agent/container/pause.h"

#include <errno.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/log.h"
#include "agent/process/reaper.h"
#include "agent/process/userns.h"

struct pause {
    struct reaper_child child;
    pid_t pid; /* -1: it has ended */
};

static __attribute__((noreturn)) void pause_main(void)
{
    sigset_t children;
    (void)close_range(0, ~0u, 0);
    (void)prctl(PR_SET_NAME, "pause", 0, 0, 0);
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
