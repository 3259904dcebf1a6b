/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work that may block, done by a forked copy of the agent: a mount, a wait for a disk. It sees the
 * agent's memory as it was and shares its mount namespace; all that comes back is an error or none.
 * One thread.
 */
#pragma once

#include "common/base/err.h"

struct reaper;

/*
 * Runs work(arg) in a child, then done(done_arg, NULL or why it failed) on the loop. Not called
 * before this returns. What arg points to is read in the copy and need not live on.
 */
int task_run(struct reaper *reaper, int (*work)(void *arg, struct err *err), void *arg,
             void (*done)(void *done_arg, const struct err *err), void *done_arg, struct err *err);
