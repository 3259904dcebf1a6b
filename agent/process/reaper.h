/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ends of children. PID 1 inherits every orphan of the guest, so children are reaped by one
 * waitpid(-1) loop, and the ones that somebody waits for are known by pid. A pid that is in the
 * table is not reaped yet and may be signalled safely. One per process; one thread.
 */
#pragma once

#include <sys/queue.h>
#include <sys/types.h>

#include "common/base/err.h"

struct reaper;

/* Tells the end of a child: status as waitpid(2) gives it. The child is out of the table already.
 */
typedef void (*reaper_fn)(void *arg, pid_t pid, int status);

/* An entry of the table, in the memory of whoever waits, so that adding one cannot fail. */
struct reaper_child {
    LIST_ENTRY(reaper_child) entry;
    pid_t pid;
    reaper_fn fn;
    void *arg;
};

/* An empty table. */
int reaper_new(struct reaper **ret_reaper, struct err *err);
/* Whose children have all ended or are forgotten, or whose entries nobody looks at any more. NULL
 * is fine. */
void reaper_free(struct reaper *reaper);

/* fn(arg) when the child has ended; *child stays where it is until then or reaper_forget. To be
 * called before control returns to the loop after the fork. */
void reaper_add(struct reaper *reaper, struct reaper_child *child, pid_t pid, reaper_fn fn,
                void *arg);

/* Nobody is interested in the child any more, whose end was not told yet; it is reaped all the
 * same. */
void reaper_forget(struct reaper_child *child);

/* Reaps everything that has ended; to be called for SIGCHLD. */
void reaper_collect(struct reaper *reaper);
