/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list suffices: there are as many entries as running processes that were asked for. The entry
 * leaves the list before its function is called, since that function may well start the next child
 * and be given the same pid.
 */
#include "agent/process/reaper.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/wait.h>

struct child {
    LIST_ENTRY(child) entry;
    pid_t pid;
    reaper_fn fn;
    void *arg;
};

struct reaper {
    LIST_HEAD(, child) children;
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
    if (reaper == NULL)
        return;
    while (!LIST_EMPTY(&reaper->children)) {
        struct child *c = LIST_FIRST(&reaper->children);
        LIST_REMOVE(c, entry);
        free(c);
    }
    free(reaper);
}

int reaper_add(struct reaper *reaper, pid_t pid, reaper_fn fn, void *arg, struct err *err)
{
    struct child *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return err_no_memory(err);
    c->pid = pid;
    c->fn = fn;
    c->arg = arg;
    LIST_INSERT_HEAD(&reaper->children, c, entry);
    return 0;
}

static struct child *take(struct reaper *reaper, pid_t pid)
{
    struct child *c;
    LIST_FOREACH (c, &reaper->children, entry) {
        if (c->pid == pid) {
            LIST_REMOVE(c, entry);
            return c;
        }
    }
    return NULL;
}

void reaper_forget(struct reaper *reaper, pid_t pid)
{
    free(take(reaper, pid));
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
        struct child *c = take(reaper, pid);
        if (c != NULL) {
            c->fn(c->arg, pid, status);
            free(c);
        }
    }
}
