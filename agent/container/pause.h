/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod's shared pid namespace: its process 1 does nothing but reap orphans, as the pause
 * container does elsewhere. Lives until the VM ends. One thread.
 */
#pragma once

#include <sys/types.h>

#include "common/base/err.h"

struct pause;
struct reaper;
struct userns;

/* Starts it; the pid namespace belongs to the user namespace (NULL: the VM's). */
int pause_start(struct reaper *reaper, const struct userns *userns, struct pause **ret_pause,
                struct err *err);

/* Kills it, with all processes of the namespace, and frees it. NULL is fine. */
void pause_stop(struct pause *pause);

/* Its pid in the agent's namespace. */
pid_t pause_pid(const struct pause *pause);

/* Forgets it; the process goes on. NULL is fine. */
void pause_free(struct pause *pause);
