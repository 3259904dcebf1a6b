/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room for one child that runs in the agent's own memory until its exec: as after vfork(2), but the
 * agent goes on meanwhile. Nothing is copied, nothing is faulted in again, and what is between the
 * two is no change of address space. One thread; there is one lodging, made once.
 *
 * What such a child runs must keep to this:
 *
 *   - it writes only to its stack, to `scratch`, to what `arg` is of its own, and through its own
 *     descriptors;
 *   - it takes memory from `scratch` alone, never from the heap: whoever may kill it must not be
 *     able to kill it with the heap's lock in its hands;
 *   - it changes its user by system calls of its own, since the C library's functions do that for
 *     every thread of the process it believes to be in;
 *   - what it reads must stay as it is until lodging_leave.
 */
#pragma once

#include <linux/sched.h>
#include <stdbool.h>
#include <sys/types.h>

#include "common/base/err.h"
#include "agent/process/scratch.h"

/* Bytes of scratch: a passwd and a group file, and as many pointers as validate.h lets arguments
 * and variables be. */
#define LODGING_SCRATCH ((3u << 20) + (256u << 10))

/*
 * Makes it. UNSUPPORTED on processors that this file does not know, and under sanitizers, whose
 * books two processes would write at once: lodging_enter then always fails.
 */
int lodging_prepare(struct err *err);

/* Whether it is there and nobody lives in it. */
bool lodging_is_free(void);

/* Whether the child has executed its program, or is dead: then lodging_leave is due. */
bool lodging_is_vacated(void);

/*
 * clone3(2) with `args` for a child that calls fn(arg, scratch) in it, which must not return.
 * Stack, thread storage and CLONE_VM are added to args. The pid, or -1. Only while it is free.
 */
pid_t lodging_enter(struct clone_args *args, void (*fn)(void *arg, struct scratch *scratch),
                    void *arg);

/* After the child's end in it: another one may come. */
void lodging_leave(void);
