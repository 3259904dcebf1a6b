/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ends of children. PID 1 inherits every orphan of the guest, so children are reaped by one
 * waitpid(-1) loop, and the ones that somebody waits for are known by pid. A pid that is in the
 * table is not reaped yet and may be signalled safely. One per process; one thread.
 */
#pragma once

#include <sys/types.h>

#include "common/base/err.h"

struct reaper;

/* Tells the end of a child: status as waitpid(2) gives it. The child is out of the table already.
 */
typedef void (*reaper_fn)(void *arg, pid_t pid, int status);

/* An empty table. */
int reaper_new(struct reaper **ret_reaper, struct err *err);
/* Forgets all children (they are not killed). NULL is fine. */
void reaper_free(struct reaper *reaper);

/* fn(arg) when the child has ended. To be called before control returns to the loop after the fork.
 */
int reaper_add(struct reaper *reaper, pid_t pid, reaper_fn fn, void *arg, struct err *err);

/* Nobody is interested in the child any more; it is reaped all the same. */
void reaper_forget(struct reaper *reaper, pid_t pid);

/* Reaps everything that has ended; to be called for SIGCHLD. */
void reaper_collect(struct reaper *reaper);
