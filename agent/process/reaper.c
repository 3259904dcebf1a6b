/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list suffices: there are as many entries as running processes that were asked for. The entry
 * leaves the list before its function is called, since that function may well start the next child
 * and be given the same pid.
 */
#include "agent/process/reaper.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>

struct reaper {
    LIST_HEAD(, reaper_child) children;
};

int reaper_new(struct reaper **ret_reaper, struct err *err)
{
    struct reaper *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return err_no_memory(err);
    LIST_INIT(&r->children);
    *ret_reaper = r;
    return 0;
}

void reaper_free(struct reaper *reaper)
{
    free(reaper);
}

void reaper_add(struct reaper *reaper, struct reaper_child *child, pid_t pid, reaper_fn fn,
                void *arg)
{
    *child = (struct reaper_child){.pid = pid, .fn = fn, .arg = arg};
    LIST_INSERT_HEAD(&reaper->children, child, entry);
}

void reaper_forget(struct reaper_child *child)
{
    LIST_REMOVE(child, entry);
}

static struct reaper_child *find(struct reaper *reaper, pid_t pid)
{
    struct reaper_child *c;
    LIST_FOREACH (c, &reaper->children, entry) {
        if (c->pid == pid)
            break;
    }
    return c;
}

void reaper_collect(struct reaper *reaper)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid <= 0)
            return;
        struct reaper_child *c = find(reaper, pid);
        if (c == NULL)
            continue;
        LIST_REMOVE(c, entry);
        c->fn(c->arg, pid, status);
    }
}
