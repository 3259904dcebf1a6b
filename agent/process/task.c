/* SPDX-License-Identifier: Apache-2.0 */
/* The error travels through a pipe, which holds it whole until the child was reaped; then it is
 * read without waiting. */
#include "agent/process/task.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "agent/process/reaper.h"

struct task {
    struct reaper_child child;
    void (*done)(void *arg, const struct err *err);
    void *arg;
    int pipe_fd;
};

static void on_end(void *arg, pid_t pid, int status)
{
    struct task *t = arg;
    struct err err;
    (void)pid;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        t->done(t->arg, NULL);
    } else {
        ssize_t n = read(t->pipe_fd, &err, sizeof(err));
        if (n != (ssize_t)sizeof(err))
            (void)err_set(&err, ERR_SYSTEM, "a helper process ended unexpectedly");
        err.msg[sizeof(err.msg) - 1] = '\0';
        t->done(t->arg, &err);
    }
    (void)close(t->pipe_fd);
    free(t);
}

static __attribute__((noreturn)) void child(int (*work)(void *arg, struct err *err), void *arg,
                                            int pipe_fd)
{
    struct err err = {0};
    if (work(arg, &err) == 0)
        _exit(0);
    ssize_t n = write(pipe_fd, &err, sizeof(err));
    _exit(n == (ssize_t)sizeof(err) ? 1 : 2);
}

int task_run(struct reaper *reaper, int (*work)(void *arg, struct err *err), void *arg,
             void (*done)(void *done_arg, const struct err *err), void *done_arg, struct err *err)
{
    struct task *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return err_no_memory(err);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        int e = errno;
        free(t);
        return err_set_errno(err, e, "make a pipe");
    }
    *t = (struct task){.done = done, .arg = done_arg, .pipe_fd = ends[0]};
    pid_t pid = fork();
    int e = errno;
    if (pid == 0)
        child(work, arg, ends[1]);
    (void)close(ends[1]);
    if (pid < 0) {
        (void)close(t->pipe_fd);
        free(t);
        return err_set_errno(err, e, "fork");
    }
    reaper_add(reaper, &t->child, pid, on_end, t);
    return 0;
}
